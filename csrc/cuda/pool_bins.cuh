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
    pool_bins(const __grid_constant__ PoolJob job) {
  using T = ComputeType<S>;
  const FeatureMap& input = job.input;
  const PyramidView pyramid = job.pyramid.view();
  const RowOrder order = pyramid.row_order(input.channels);
  const std::int64_t begin = job.rows.begin_of(0);
  const std::int64_t elements = (job.rows.begin_of(input.batch) - begin) * order.size();
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < elements; i += step) {
    const std::int64_t row = job.rows.row_at(begin + i / order.size());
    const RowPlace place = order.place(
        i % order.size(), [&](std::int32_t level) { return pyramid.levels[level].in_row(); });
    const Level& level = pyramid.levels[place.level];
    const Window window = job.rows.window_of(row, input);
    const Span rows = row_span(pyramid, level, level.row_span_of(place.bin), window, input.height);
    const Span cols = col_span(pyramid, level, level.col_span_of(place.bin), window, input.width);
    Best<T> best = empty_bin<T>();
    if (rows.begin != rows.end && cols.begin != cols.end) {
      const S* const plane = static_cast<const S*>(input.data) +
                             job.rows.image_of(row) * input.channels * input.cells() +
                             place.channel * input.plane_stride();
      best = reduce_cells<with_argmax>(plane, input.cell_stride(),
                                       static_cast<std::int32_t>(input.width), rows, cols, 0, 1);
    }
    const std::int64_t to = job.output_index(place.level, row, place.channel, place.bin);
    static_cast<S*>(job.output)[to] = from_compute<S>(best.value);
    if constexpr (with_argmax) job.argmax[to] = best.cell;
  }
}

}  // namespace spp_ext::cuda
