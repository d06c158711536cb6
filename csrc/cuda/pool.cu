// Chooses a kernel and its launch for a pooling call.
#include <algorithm>
#include <cstdint>
#include <limits>

#include "core/dispatch.h"
#include "cuda/job.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/pack.h"
#include "cuda/pool_bins.cuh"
#include "cuda/pool_channels.cuh"
#include "cuda/pool_planes.cuh"
#include "cuda/rows.h"
#include "cuda/tuning.h"

namespace spp_ext::cuda {
namespace {

std::int64_t power_of_two_from(std::int64_t value, std::int64_t limit) {
  std::int64_t power = 1;
  while (power < value && power < limit) power *= 2;
  return power;
}

std::int64_t base_bins_of(const PackedPyramid& packed) {
  const PyramidView pyramid = packed.view();
  std::int64_t bins = 0;
  for (BaseLevels at(pyramid); at.next();) bins += at.level().bins;
  return bins;
}

struct PlanesLaunch {
  PlanesPolicy policy;
  std::int64_t blocks;
  std::int64_t threads;
  std::int64_t shared_bytes;
};

PlanesLaunch plan_planes(const PoolJob& job, const Stream& stream) {
  const FeatureMap& input = job.input;
  const bool whole_maps = job.rows.whole_maps();
  const std::int64_t base_bins = base_bins_of(job.pyramid);
  const std::int64_t wanted_blocks = stream.sms * tuning::kBlocksPerSm;
  const std::int64_t plane_bytes = input.cells() * size_of(input.dtype);
  const auto shared = [&](const PlanesPolicy& policy) {
    return PlanesShared(job, policy, job.argmax != nullptr).bytes;
  };

  // The mean size of a bin decides how many lanes share it.
  const std::int64_t window_cells =
      whole_maps ? input.cells() : input.cells() / tuning::kMapsPerRegion;
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
  if (!whole_maps) {
    const std::int64_t fill = tuning::kPlaneThreads / (policy.planes * base_bins * lanes);
    policy.rows =
        static_cast<std::int32_t>(std::clamp<std::int64_t>(fill, 1, tuning::kMaxRowsPerBatch));
  }
  const std::int64_t room =
      std::max(tuning::kSharedBytes, stream.shared_bytes / tuning::kStagedBlocksPerSm);
  while (policy.rows > 1 && shared(policy) > room) policy.rows /= 2;
  while (policy.planes > 1 && shared(policy) > room) policy.planes /= 2;

  const std::int64_t slabs = input.batch * divide_up(input.channels, policy.planes);
  if (!whole_maps) {
    policy.segments = std::clamp<std::int64_t>(divide_up(wanted_blocks, slabs), 1,
                                               divide_up(job.rows.most, policy.rows));
  }
  const std::int64_t items = policy.rows * policy.planes * base_bins * lanes;
  // Staging needs threads even where there are few bins.
  const std::int64_t threads = std::clamp<std::int64_t>(
      divide_up(items, 32) * 32, policy.staged ? tuning::kPlaneThreads / 2 : 32,
      tuning::kPlaneThreads);
  return {policy, slabs * policy.segments, threads, shared(policy)};
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

struct ChannelsLaunch {
  ChannelsPolicy policy;
  std::int64_t blocks;
  std::int64_t shared_bytes;
};

// Fewer channels in a block where blocks would be few, or their bins too many for shared memory.
ChannelsLaunch plan_channels(const PoolJob& job, const Stream& stream) {
  const std::int64_t wanted_blocks = stream.sms * tuning::kBlocksPerSm;
  ChannelsPolicy policy{32, static_cast<std::int32_t>(base_bins_of(job.pyramid))};
  const auto shared = [&] { return ChannelsShared(job, policy, job.argmax != nullptr).bytes; };
  const auto blocks = [&] {
    return job.rows.most * divide_up(job.input.channels, policy.channels);
  };
  while (policy.channels > tuning::kMinChannels &&
         (blocks() < wanted_blocks || shared() > tuning::kSharedBytes)) {
    policy.channels /= 2;
  }
  return {policy, blocks(), shared()};
}

bool launch_channels(const PoolJob& job, const Stream& stream) {
  const ChannelsLaunch plan = plan_channels(job, stream);
  if (plan.shared_bytes > stream.shared_bytes) return false;
  dispatch_job(job, [&](auto storage, auto with_argmax) {
    launch(pool_channels<decltype(storage), with_argmax>, plan.blocks, tuning::kChannelWarps * 32,
           plan.shared_bytes, stream, job, plan.policy);
  });
  return true;
}

void launch_bins(const PoolJob& job, const Stream& stream) {
  const std::int64_t elements = job.rows.most * job.input.channels * job.pyramid.bins;
  dispatch_job(job, [&](auto storage, auto with_argmax) {
    launch(pool_bins<decltype(storage), with_argmax, PoolJob>,
           divide_up(elements, tuning::kElementThreads), tuning::kElementThreads, 0, stream, job);
  });
}

// With shared memory, if there is enough of it.
bool launch_blocks(const PoolJob& job, const Stream& stream) {
  return job.input.layout == Layout::kContiguous ? launch_planes(job, stream)
                                                 : launch_channels(job, stream);
}

// One launch for all levels where it can be, else one a level.
void pool(const FeatureMap& input, const Rows& rows, const PyramidView& pyramid, void* output,
          std::int32_t* argmax, const Stream& stream) {
  PoolJob job{};
  job.input = input;
  job.rows = rows;
  job.channels = input.channels;
  job.output_bins = pyramid.bins;
  job.output = output;
  job.argmax = argmax;
  if (pack_whole(pyramid, job) && launch_blocks(job, stream)) return;
  for_each_piece(pyramid, job, [&] {
    if (!launch_blocks(job, stream)) launch_bins(job, stream);
  });
}

}  // namespace

void pool_map(const MapPoolParams& params, const Stream& stream) {
  pool(params.input, images_of(params.input.batch), params.pyramid, params.output, params.argmax,
       stream);
}

}  // namespace spp_ext::cuda
