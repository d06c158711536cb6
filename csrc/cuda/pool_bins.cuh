// Pooling with one thread for each element of output, in either layout, straight from global memory
// and without shared memory: for pyramids with more bins than shared memory holds.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/job.h"
#include "cuda/reduce.cuh"
#include "cuda/tuning.h"

namespace spp_ext::cuda {

template <class S, bool with_argmax>
__global__ void __launch_bounds__(tuning::kElementThreads, tuning::kMinBlocks)
    pool_bins(const SPP_GRID_CONSTANT PoolJob job) {
  using T = ComputeType<S>;
  const FeatureMap& input = job.input;
  const PyramidView pyramid = job.pyramid.view();
  const std::int64_t row_elements = input.channels * pyramid.bins;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t element = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       element < job.rows * row_elements; element += step) {
    // Level after level, within a level channel by channel, as a row of output is.
    const std::int64_t row = element / row_elements;
    std::int64_t at = element % row_elements;
    std::int32_t i = 0;
    while (at >= pyramid.levels[i].bins * input.channels)
      at -= pyramid.levels[i++].bins * input.channels;
    const Level& level = pyramid.levels[i];
    const std::int64_t channel = at / level.bins;
    const std::int64_t bin = at % level.bins;
    const std::int64_t to = job.output_index(i, row, channel, bin);
    const std::int64_t image = image_of(job, row);
    if (image == kOtherMap) continue;
    if (image == kNoImage) {
      static_cast<S*>(job.output)[to] = not_a_number<S>();
      if constexpr (with_argmax) job.argmax[to] = -1;
      continue;
    }
    const Window window = window_of(job, row);
    const Span rows = row_span(pyramid, level, level.is_grid() ? bin / level.col_divisions : bin,
                               window, input.height);
    const Span cols = col_span(pyramid, level, level.is_grid() ? bin % level.col_divisions : bin,
                               window, input.width);
    Best<T> best = empty_bin<T>();
    if (rows.begin != rows.end && cols.begin != cols.end) {
      const S* const plane = static_cast<const S*>(input.data) +
                             image * input.channels * input.cells() +
                             channel * input.plane_stride();
      best = reduce_cells<with_argmax>(plane, input.cell_stride(),
                                       static_cast<std::int32_t>(input.width), rows, cols, 0, 1);
    }
    static_cast<S*>(job.output)[to] = from_compute<S>(best.value);
    if constexpr (with_argmax) job.argmax[to] = best.cell;
  }
}

}  // namespace spp_ext::cuda
