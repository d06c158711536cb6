// Launches gather and scatter.
#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "core/dispatch.h"
#include "cuda/group_regions.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/linear.cuh"
#include "cuda/tuning.h"

namespace spp_ext::cuda {
namespace {

LinearJob linear_job(const LinearParams& params, const FeatureMap& map) {
  if (params.num_levels > kMaxLinearLevels) {
    throw std::invalid_argument("spp_ext: expected at most " + std::to_string(kMaxLinearLevels) +
                                " levels for a derivative on CUDA, got " +
                                std::to_string(params.num_levels));
  }
  LinearJob job{};
  job.argmax = params.argmax;
  job.by_region = params.regions != nullptr;
  if (job.by_region) job.regions = *params.regions;
  job.map = map;
  std::copy_n(params.level_bins, params.num_levels, job.level_bins);
  job.num_levels = params.num_levels;
  job.layout = params.layout;
  job.bins = params.bins;
  job.rows = params.rows;
  return job;
}

// Whole maps have few elements a plane, so a warp each; a block may take the cells of a plane in
// several ranges, since looking through the elements again costs little. Regions have thousands: a
// plane should fit, with as many warps on it as there is room for sums.
ScatterPolicy plan_scatter(const LinearJob& job, std::int64_t element_bytes, const Stream& stream) {
  const bool regions = job.by_region;
  const std::int64_t room =
      regions ? std::min(stream.shared_bytes, tuning::kScatterRegionBytes) : tuning::kSharedBytes;
  const auto cells_with = [&](std::int64_t warps) {
    return (room / element_bytes - warps * 32) / warps;
  };
  std::int64_t warps = tuning::kScatterWarps;
  while (regions && warps > 1 && cells_with(warps) < job.map.cells()) warps /= 2;
  // Channels_last results want neighbouring planes, so that a memory sector is written by one block.
  const std::int64_t planes_of_regions =
      job.map.layout == Layout::kContiguous ? 1 : std::min<std::int64_t>(warps, 2);
  return {static_cast<std::int32_t>(regions ? planes_of_regions : warps),
          static_cast<std::int32_t>(warps),
          static_cast<std::int32_t>(std::min(job.map.cells(), cells_with(warps)))};
}

}  // namespace

void gather(const GatherParams& params, const Stream& stream) {
  const GatherJob job{linear_job(params.linear, params.source), params.output};
  const std::int64_t elements = params.linear.rows * params.source.channels * params.linear.bins;
  dispatch(params.source.dtype, [&](auto storage) {
    launch(gather<decltype(storage)>, divide_up(elements, tuning::kElementThreads),
           tuning::kElementThreads, 0, stream, job);
  });
}

void scatter(const ScatterParams& params, std::int32_t* scratch, const Stream& stream) {
  const FeatureMap& map = params.grad_input;
  ScatterJob job{linear_job(params.linear, map), params.grad_output, params.data};
  if (params.linear.regions != nullptr) {
    std::int32_t* const row_list = scratch + map.batch + 1;
    const GroupParams group{
        *params.linear.regions, map.batch, scratch, row_list, 0, nullptr, nullptr};
    launch(group_regions<float>, map.batch + 1, tuning::kGroupThreads, kGroupShared, stream, group);
    job.linear.row_begin = scratch;
    job.linear.row_list = row_list;
  }
  dispatch(map.dtype, [&](auto storage) {
    using S = decltype(storage);
    constexpr auto kElementBytes = static_cast<std::int64_t>(sizeof(ComputeType<S>));
    const ScatterPolicy policy = plan_scatter(job.linear, kElementBytes, stream);
    const std::int64_t blocks =
        map.batch * divide_up(map.channels, policy.planes) * divide_up(map.cells(), policy.cells);
    launch(scatter<S>, blocks, policy.warps * 32,
           policy.warps * (policy.cells + 32) * kElementBytes, stream, job, policy);
  });
}

}  // namespace spp_ext::cuda
