// Prepares regions on the device: to which map and image each belongs, and the cells of its base bins. The
// kernels that pool need both once for each slab of channels, and the geometry is worth computing once.
//
//   thread   0 1 2 ... B-1 | B ...       B = bins of the pyramid's base levels
//   region   0 0 0 ... 0   | 1 ...
//   bin      0 1 2 ... B-1 | 0 ...
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/region_job.h"
#include "cuda/tuning.h"

namespace spp_ext::cuda {

// Base bin number `k` of a window.
SPP_HOST_DEVICE BaseBin base_bin_of(const PyramidView& pyramid, const Window& window,
                                    const FeatureMap& map, std::int64_t k) {
  for (BaseLevels at(pyramid); at.next();) {
    const Level& level = at.level();
    const std::int64_t bin = k - at.first_base_bin();
    if (bin >= level.bins) continue;
    return {level.first_bin + bin,
            row_span(pyramid, level, level.row_span_of(bin), window, map.height),
            col_span(pyramid, level, level.col_span_of(bin), window, map.width)};
  }
  return {0, {0, 0}, {0, 0}};
}

__global__ void __launch_bounds__(tuning::kElementThreads, tuning::kMinBlocks)
    prepare_regions(const __grid_constant__ RegionJob job) {
  const PyramidView pyramid = job.pyramid.view();
  const std::int64_t items = job.regions.count * job.base_bins;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < items;
       i += step) {
    const std::int64_t row = quotient(i, job.base_bins);
    const std::int64_t bin = i - row * job.base_bins;
    const std::int32_t group = job.find_group(row);
    if (bin == 0) job.groups[row] = group;
    BinCells cells{0, 0, 0, 0};
    if (group >= 0) {
      const auto map = static_cast<std::int32_t>(quotient(group, job.batch));
      cells = job.cells_of(base_bin_of(pyramid, job.window_of(row, map), job.maps[map], bin), map);
    }
    job.bins[i] = cells;
  }
}

}  // namespace spp_ext::cuda
