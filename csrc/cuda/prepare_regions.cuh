// Prepares regions on the device: to which map and image each belongs, and the spans of its window. The
// kernels that pool need both once for each slab of channels, and the geometry is worth computing once.
//
//   thread   0 1 2 ... S-1 | S ...       S = spans of the pyramid's base levels
//   region   0 0 0 ... 0   | 1 ...
//   span     0 1 2 ... S-1 | 0 ...
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/region_job.h"
#include "cuda/tuning.h"

namespace spp_ext::cuda {

__global__ void __launch_bounds__(tuning::kElementThreads, tuning::kMinBlocks)
    prepare_regions(const __grid_constant__ RegionJob job) {
  const PyramidView pyramid = job.pyramid.view();
  const std::int64_t items = job.regions.count * pyramid.spans;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < items;
       i += step) {
    const std::int64_t row = quotient(i, pyramid.spans);
    const std::int64_t span = i - row * pyramid.spans;
    const std::int32_t group = job.find_group(row);
    if (span == 0) job.groups[row] = group;
    if (group < 0) continue;
    const auto map = static_cast<std::int32_t>(group / job.batch);
    job.spans[i] =
        nth_span(pyramid, job.window_of(row, map), job.maps[map].height, job.maps[map].width, span);
  }
}

}  // namespace spp_ext::cuda
