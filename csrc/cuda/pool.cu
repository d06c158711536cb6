// Chooses a kernel and its launch for a pooling call.
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/dispatch.h"
#include "cuda/group_regions.cuh"
#include "cuda/job.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/pool_bins.cuh"
#include "cuda/pool_channels.cuh"
#include "cuda/pool_planes.cuh"
#include "cuda/tuning.h"

namespace spp_ext::cuda {
namespace {

std::int64_t power_of_two_from(std::int64_t value, std::int64_t limit) {
  std::int64_t power = 1;
  while (power < value && power < limit) power *= 2;
  return power;
}

// Sets job.pyramid to the whole pyramid; false if that does not fit in a launch's parameters.
bool pack_whole(const PyramidView& pyramid, PoolJob& job) {
  std::int64_t rectangles = 0;
  for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
    if (!pyramid.levels[i].is_grid()) rectangles += pyramid.levels[i].bins;
  }
  if (pyramid.num_levels > kMaxLevels || rectangles > kMaxRectangles) return false;
  PackedPyramid& packed = job.pyramid;
  std::copy_n(pyramid.levels, pyramid.num_levels, packed.levels);
  std::copy_n(pyramid.order, pyramid.num_levels, packed.order);
  std::copy_n(pyramid.rectangles, rectangles, packed.rectangles);
  packed.num_levels = pyramid.num_levels;
  packed.bins = pyramid.bins;
  packed.spans = pyramid.spans;
  for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
    job.output_levels[i] = {pyramid.levels[i].first_bin, pyramid.levels[i].bins, 0};
  }
  return true;
}

// Calls f() with job.pyramid set to one level, or a part of one, after another; all read the map.
template <class F>
void for_each_piece(const PyramidView& pyramid, PoolJob& job, const F& f) {
  PackedPyramid& packed = job.pyramid;
  for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
    const Level& level = pyramid.levels[i];
    const std::int64_t piece = level.is_grid() ? level.bins : kMaxRectangles;
    for (std::int64_t offset = 0; offset < level.bins; offset += piece) {
      Level part = level;
      part.bins = std::min(piece, level.bins - offset);
      part.first_bin = 0;
      part.source = -1;
      if (!level.is_grid()) {
        std::copy_n(pyramid.rectangles + level.first_rectangle + offset, part.bins,
                    packed.rectangles);
        part.first_rectangle = 0;
      }
      packed.levels[0] = part;
      packed.order[0] = 0;
      packed.num_levels = 1;
      packed.bins = part.bins;
      packed.spans = part.row_spans() + part.col_spans();
      job.output_levels[0] = {level.first_bin, level.bins, offset};
      f();
    }
  }
}

std::int64_t base_bins_of(const PackedPyramid& pyramid) {
  std::int64_t bins = 0;
  for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
    if (pyramid.levels[i].is_base()) bins += pyramid.levels[i].bins;
  }
  return bins;
}

struct PlanesLaunch {
  PlanesPolicy policy;
  std::int64_t shared_bytes;
  std::int64_t threads;
  std::int64_t blocks;
};

PlanesLaunch plan_planes(const PoolJob& job, const Stream& stream) {
  const FeatureMap& input = job.input;
  const bool with_argmax = job.argmax != nullptr;
  const std::int64_t base_bins = base_bins_of(job.pyramid);
  const std::int64_t wanted_blocks = stream.sms * tuning::kBlocksPerSm;
  const std::int64_t plane_bytes = input.cells() * size_of(input.dtype);
  const auto shared = [&](const PlanesPolicy& policy) {
    return PlanesShared(job, policy, with_argmax).bytes;
  };

  // Regions are taken to cover a small part of the map; of a whole map the mean size of a bin is
  // known.
  const std::int64_t window_cells =
      job.whole_map() ? input.cells() : input.cells() / tuning::kMapsPerRegion;
  const std::int64_t lanes =
      power_of_two_from(window_cells / base_bins / tuning::kCellsPerLane, 32);
  PlanesPolicy policy{
      1, 1, static_cast<std::int32_t>(lanes), 1, static_cast<std::int32_t>(base_bins), 0};

  PlanesPolicy staged = policy;
  staged.staged = 1;
  if (shared(staged) <= stream.shared_bytes / tuning::kStagedBlocksPerSm) {
    policy = staged;
    // More planes in a block make longer runs of output, as long as blocks are not short.
    while (policy.planes * 2 <= std::min(tuning::kMaxPlanesPerBlock, input.channels) &&
           input.batch * divide_up(input.channels, policy.planes * 2) >= wanted_blocks &&
           plane_bytes * policy.planes * 2 <= tuning::kStagedBytes) {
      policy.planes *= 2;
    }
  }
  if (!job.whole_map()) {
    const std::int64_t fill = tuning::kPlaneThreads / (policy.planes * base_bins * lanes);
    policy.rows =
        static_cast<std::int32_t>(std::clamp<std::int64_t>(fill, 1, tuning::kMaxRowsPerBatch));
  }
  const std::int64_t room =
      std::max(tuning::kSharedBytes, stream.shared_bytes / tuning::kStagedBlocksPerSm);
  while (policy.rows > 1 && shared(policy) > room) policy.rows /= 2;
  while (policy.planes > 1 && shared(policy) > room) policy.planes /= 2;

  const std::int64_t slabs = input.batch * divide_up(input.channels, policy.planes);
  if (!job.whole_map()) {
    policy.segments = std::clamp<std::int64_t>(divide_up(wanted_blocks, slabs), 1,
                                               divide_up(job.rows, policy.rows));
  }
  const std::int64_t items = policy.rows * policy.planes * base_bins * lanes;
  const std::int64_t threads =
      // Staging, too, wants threads, however few the bins.
      std::clamp<std::int64_t>(divide_up(items, 32) * 32,
                               policy.staged ? tuning::kPlaneThreads / 2 : 32,
                               tuning::kPlaneThreads);
  return {policy, shared(policy), threads, slabs * policy.segments};
}

bool launch_planes(const PoolJob& job, const Stream& stream) {
  const PlanesLaunch plan = plan_planes(job, stream);
  if (plan.shared_bytes > stream.shared_bytes) return false;
  dispatch_job(job, [&](auto storage, auto with_argmax) {
    using S = decltype(storage);
    const auto kernel =
        plan.policy.staged ? pool_planes<S, with_argmax, true> : pool_planes<S, with_argmax, false>;
    launch(kernel, plan.blocks, plan.threads, plan.shared_bytes, stream, job, plan.policy);
  });
  return true;
}

bool launch_channels(const PoolJob& job, const Stream& stream) {
  const FeatureMap& input = job.input;
  ChannelsPolicy policy{32, static_cast<std::int32_t>(base_bins_of(job.pyramid))};
  const std::int64_t wanted_blocks = stream.sms * tuning::kBlocksPerSm;
  const auto shared = [&] { return ChannelsShared(job, policy, job.argmax != nullptr).bytes; };
  while (policy.channels > tuning::kMinChannels &&
         (job.rows * divide_up(input.channels, policy.channels) < wanted_blocks ||
          shared() > tuning::kSharedBytes)) {
    policy.channels /= 2;
  }
  if (shared() > stream.shared_bytes) return false;
  dispatch_job(job, [&](auto storage, auto with_argmax) {
    launch(pool_channels<decltype(storage), with_argmax>,
           job.rows * divide_up(input.channels, policy.channels), tuning::kChannelWarps * 32,
           shared(), stream, job, policy);
  });
  return true;
}

void launch_bins(const PoolJob& job, const Stream& stream) {
  const std::int64_t elements = job.rows * job.input.channels * job.pyramid.bins;
  dispatch_job(job, [&](auto storage, auto with_argmax) {
    launch(pool_bins<decltype(storage), with_argmax>, divide_up(elements, tuning::kElementThreads),
           tuning::kElementThreads, 0, stream, job);
  });
}

// With shared memory, if there is enough of it.
bool launch_blocks(const PoolJob& job, const Stream& stream) {
  return job.input.layout == Layout::kContiguous ? launch_planes(job, stream)
                                                 : launch_channels(job, stream);
}

// One launch for all levels where it can be, else one a level.
void pool(PoolJob& job, const PyramidView& pyramid, const Stream& stream) {
  if (pack_whole(pyramid, job) && launch_blocks(job, stream)) return;
  for_each_piece(pyramid, job, [&] {
    if (!launch_blocks(job, stream)) launch_bins(job, stream);
  });
}

}  // namespace

void pool_map(const MapPoolParams& params, const Stream& stream) {
  PoolJob job{};
  job.input = params.input;
  job.output_bins = params.pyramid.bins;
  job.rows = params.input.batch;
  job.output = params.output;
  job.argmax = params.argmax;
  pool(job, params.pyramid, stream);
}

void pool_regions(const RegionPoolParams& params, std::int32_t* scratch, const Stream& stream) {
  PoolJob job{};
  job.input = params.input;
  job.by_region = true;
  job.regions = params.regions;
  job.output_bins = params.pyramid.bins;
  job.rows = params.regions.count;
  job.output = params.output;
  job.argmax = params.argmax;
  if (params.input.layout == Layout::kContiguous) {
    std::int32_t* const row_list = scratch + params.input.batch + 1;
    const GroupParams group{params.regions,
                            params.input.batch,
                            scratch,
                            row_list,
                            params.input.channels * params.pyramid.bins,
                            params.output,
                            params.argmax};
    dispatch(params.input.dtype, [&](auto storage) {
      launch(group_regions<decltype(storage)>, params.input.batch + 1, tuning::kGroupThreads,
             kGroupShared, stream, group);
    });
    job.row_begin = scratch;
    job.row_list = row_list;
    if (params.input.batch == 0) return;  // no region has an image; all are filled already
  }
  pool(job, params.pyramid, stream);
}

}  // namespace spp_ext::cuda
