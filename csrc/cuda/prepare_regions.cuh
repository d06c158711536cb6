// Prepares regions on the device: to which map and image each belongs, and the cells of its base bins. The
// kernels that pool need both once for each slab of channels, and the geometry is worth computing once.
//
// A block has some neighbouring regions. Its threads first find their windows' spans, and then put the spans
// together to bins:
//
//   thread   0 1 2 ... S-1 | S ...       S = spans of the base levels      then   B = their bins
//   region   0 0 0 ... 0   | 1 ...
//   span     0 1 2 ... S-1 | 0 ...
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/region_job.h"
#include "cuda/tuning.h"

namespace spp_ext::cuda {

struct PreparePolicy {
  std::int32_t regions;  // of a block
  std::int32_t spans;    // of a region
};

// Shared memory: Span spans[regions][spans], int32 groups[regions].
__global__ void __launch_bounds__(tuning::kElementThreads, tuning::kMinBlocks)
    prepare_regions(const __grid_constant__ RegionJob job,
                    const __grid_constant__ PreparePolicy policy) {
  Span* const spans = reinterpret_cast<Span*>(dynamic_shared());
  auto* const groups = reinterpret_cast<std::int32_t*>(spans + policy.regions * policy.spans);
  const PyramidView pyramid = job.pyramid.view();
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  const auto threads = static_cast<std::int32_t>(blockDim.x);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * policy.regions;
  const auto count =
      static_cast<std::int32_t>(smaller_of(job.regions.count - first, policy.regions));
  for (std::int32_t i = thread; i < count * policy.spans; i += threads) {
    const std::int32_t region = i / policy.spans, span = i - region * policy.spans;
    const std::int32_t group = job.find_group(first + region);
    if (span == 0) job.groups[first + region] = groups[region] = group;
    if (group < 0) continue;
    const auto map = static_cast<std::int32_t>(quotient(group, job.batch));
    spans[i] = nth_span(pyramid, job.window_of(first + region, map), job.maps[map].height,
                        job.maps[map].width, span);
  }
  __syncthreads();
  for (std::int32_t i = thread; i < count * job.base_bins; i += threads) {
    const std::int32_t region = i / job.base_bins, bin = i - region * job.base_bins;
    BinCells cells{0, 0, 0, 0};
    if (groups[region] >= 0) {
      const auto map = static_cast<std::int32_t>(quotient(groups[region], job.batch));
      cells = job.cells_of(nth_base_bin(pyramid, spans + region * policy.spans, bin), map);
    }
    job.bins[first * job.base_bins + i] = cells;
  }
}

}  // namespace spp_ext::cuda
