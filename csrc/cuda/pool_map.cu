// Chooses how whole maps are pooled, and launches it.
#include <algorithm>
#include <cstdint>

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/map_job.h"
#include "cuda/pack.h"
#include "cuda/pool_bins.cuh"
#include "cuda/pool_channels.cuh"
#include "cuda/pool_rows.cuh"
#include "cuda/tuning.h"

namespace spp_ext::cuda {
namespace {

// Merges every derived level from a base level. Levels whose bins would have too many parts read the map.
void derive_from_base(PackedPyramid& pyramid) {
  pyramid.spans = 0;
  for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
    Level& level = pyramid.levels[pyramid.order[i]];
    if (!level.is_base()) {
      const std::int32_t above = pyramid.levels[level.source].source;
      if (above >= 0) level.source = above;  // its source was seen to before
      const Level& source = pyramid.levels[level.source];
      if (source.bins / level.bins > tuning::kMaxParts) level.source = -1;
    }
    if (level.is_base()) pyramid.spans += level.row_spans() + level.col_spans();
  }
}

// The numbers that a pack along a row may have: whole packs, words or single numbers, whichever the width
// and the address allow.
std::int32_t numbers_along(const FeatureMap& input) {
  const std::int64_t size = size_of(input.dtype);
  const auto address = reinterpret_cast<std::uintptr_t>(input.data);
  for (const std::int64_t bytes : {std::int64_t{16}, std::max<std::int64_t>(size, 4)}) {
    if (address % bytes == 0 && input.width * size % bytes == 0) {
      return static_cast<std::int32_t>(bytes / size);
    }
  }
  return 1;
}

bool launch_rows(const MapJob& job, const Stream& stream) {
  const FeatureMap& input = job.input;
  RowsPolicy policy{};
  policy.numbers = numbers_along(input);
  while (policy.lane_bits < 5 && policy.numbers << policy.lane_bits < input.width) {
    ++policy.lane_bits;
  }
  // More planes in a block make longer runs of output, as long as there are blocks for the whole device.
  policy.planes = 1;
  while (policy.planes < tuning::kMapPlanes &&
         input.batch * divide_up(input.channels, policy.planes * 2) >=
             stream.sms * tuning::kMapBlocksPerSm) {
    policy.planes *= 2;
  }
  const auto shared = [&] { return RowsShared(job, policy, job.argmax != nullptr).bytes; };
  policy.warps = std::min(tuning::kMapThreads / 32, policy.planes * job.num_span_rows);
  while (shared() > tuning::kSharedBytes && policy.planes > 1) policy.planes /= 2;
  while (shared() > tuning::kSharedBytes && policy.warps > 1) policy.warps /= 2;
  if (shared() > tuning::kSharedBytes) return false;
  dispatch_job(job, [&](auto storage, auto with_argmax) {
    launch(pool_rows<decltype(storage), with_argmax>,
           input.batch * divide_up(input.channels, policy.planes), policy.warps * 32, shared(),
           stream, job, policy);
  });
  return true;
}

bool launch_channels(const MapJob& job, const Stream& stream) {
  const FeatureMap& input = job.input;
  const std::int64_t per_pack = 16 / size_of(input.dtype);
  const bool packs =
      input.channels % per_pack == 0 && reinterpret_cast<std::uintptr_t>(input.data) % 16 == 0;
  ChannelsPolicy policy{packs ? static_cast<std::int32_t>(per_pack) : 1, 0, 0};
  const PyramidView pyramid = job.pyramid.view();
  bool derived = false;
  for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
    const Level& level = pyramid.levels[i];
    if (level.is_base()) {
      policy.base_bins += static_cast<std::int32_t>(level.bins);
    } else {
      derived = true;
    }
  }
  const auto shared = [&] { return ChannelsShared(job, policy, job.argmax != nullptr).bytes; };
  const std::int64_t chunks = input.batch * divide_up(input.channels, policy.channels());
  // A bin a block where whole chunks are too few for the device and the bins are worth a block, or too many
  // for shared memory.
  const bool too_few = chunks < stream.sms * tuning::kMapBlocksPerSm &&
                       input.cells() >= policy.base_bins * tuning::kCellsOfBlock;
  if (too_few || shared() > tuning::kSharedBytes) policy.apart = 1;
  if (shared() > tuning::kSharedBytes) return false;
  dispatch_job(job, [&](auto storage, auto with_argmax) {
    launch(pool_channels<decltype(storage), with_argmax>,
           chunks * (policy.apart ? policy.base_bins : 1), tuning::kMapThreads, shared(), stream,
           job, policy);
    if (policy.apart && derived) {
      launch(merge_levels<decltype(storage), with_argmax>,
             divide_up(input.batch * input.channels * job.pyramid.bins, tuning::kElementThreads),
             tuning::kElementThreads, 0, stream, job);
    }
  });
  return true;
}

void launch_packed(MapJob& job, const Stream& stream) {
  derive_from_base(job.pyramid);
  const FeatureMap& input = job.input;
  if (job.pyramid.spans <= kMaxMapSpans) {
    const PyramidView pyramid = job.pyramid.view();
    fill_spans(pyramid, {{0, input.height}, {0, input.width}}, input.height, input.width,
               job.spans);
    job.num_span_rows = 0;
    for (BaseLevels at(pyramid); at.next();) {
      job.num_span_rows += static_cast<std::int32_t>(at.level().row_spans());
    }
    if (input.layout == Layout::kContiguous ? launch_rows(job, stream)
                                            : launch_channels(job, stream)) {
      return;
    }
  }
  dispatch_job(job, [&](auto storage, auto with_argmax) {
    launch(pool_bins<decltype(storage), with_argmax, MapJob>,
           divide_up(input.batch * input.channels * job.pyramid.bins, tuning::kElementThreads),
           tuning::kElementThreads, 0, stream, job);
  });
}

}  // namespace

void pool_map(const MapPoolParams& params, const Stream& stream) {
  MapJob job{};
  job.input = params.input;
  job.channels = params.input.channels;
  job.output_bins = params.pyramid.bins;
  job.output = params.output;
  job.argmax = params.argmax;
  if (params.input.batch * job.channels == 0) return;
  if (pack_whole(params.pyramid, job)) {
    launch_packed(job, stream);
  } else {
    for_each_piece(params.pyramid, job, [&] { launch_packed(job, stream); });
  }
}

}  // namespace spp_ext::cuda
