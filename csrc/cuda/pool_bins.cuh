// Pooling with one thread for each element of output, in either layout, straight from global memory
// and without shared memory: for pyramids with more bins than shared memory holds, and for few regions
// of large maps, where a table of the map would cost more than it saves.
//
//   thread   0 1 2 3 ...      neighbouring elements of a row of output, which are neighbouring bins
#pragma once

#include <cstdint>

#include "cuda/best.h"
#include "cuda/device.h"
#include "cuda/job.h"
#include "cuda/tuning.h"
#include "cuda/words.h"

namespace spp_ext::cuda {

// The best of a rectangle of cells, in row-major order; without cells, 0. `plane` is cell 0.
template <bool with_argmax, class S>
__device__ __forceinline__ Best<ComputeType<S>> best_of_cells(const S* plane,
                                                              std::int64_t cell_stride,
                                                              std::int32_t map_width, Span rows,
                                                              Span cols) {
  using T = ComputeType<S>;
  if (rows.begin == rows.end || cols.begin == cols.end) return empty_bin<T>();
  Best<T> best{-kInfinity<T>, rows.begin * map_width + cols.begin};
  for (std::int32_t y = rows.begin; y < rows.end; ++y) {
    std::int32_t cell = y * map_width + cols.begin;
    const S* at = plane + cell * cell_stride;
    const std::int32_t end = y * map_width + cols.end;
#pragma unroll 4
    for (; cell < end; ++cell, at += cell_stride) {
      const T candidate = widen(*at);
      if constexpr (with_argmax) {
        if (MaxOp::replaces(candidate, best.value)) best = {candidate, cell};
      } else {
        best.value = maximum(candidate, best.value);
      }
    }
  }
  return best;
}

// Job is a PyramidJob that also has num_rows(), and source_of(row, &source), which is false for a row that
// another launch writes; a source without a map is that of a region that cannot be pooled.
template <class S, bool with_argmax, class Job>
__global__ void __launch_bounds__(tuning::kElementThreads, tuning::kMinBlocks)
    pool_bins(const __grid_constant__ Job job) {
  using T = ComputeType<S>;
  const PyramidView pyramid = job.pyramid.view();
  const RowOrder order = pyramid.row_order(job.channels);
  const std::int64_t elements = job.num_rows() * order.size();
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < elements; i += step) {
    const std::int64_t row = quotient(i, order.size());
    RowSource source;
    if (!job.source_of(row, &source)) continue;
    const RowPlace place = order.place(
        i - row * order.size(), [&](std::int32_t level) { return pyramid.levels[level].in_row(); });
    Best<T> best{kNaN<T>, -1};
    if (source.map != nullptr) {
      const FeatureMap& map = *source.map;
      const Level& level = pyramid.levels[place.level];
      const Span rows =
          row_span(pyramid, level, level.row_span_of(place.bin), source.window, map.height);
      const Span cols =
          col_span(pyramid, level, level.col_span_of(place.bin), source.window, map.width);
      const S* const plane = static_cast<const S*>(map.data) +
                             source.image * map.channels * map.cells() +
                             place.channel * map.plane_stride();
      best = best_of_cells<with_argmax>(plane, map.cell_stride(),
                                        static_cast<std::int32_t>(map.width), rows, cols);
    }
    const std::int64_t to = job.output_index(place.level, row, place.channel, place.bin);
    static_cast<S*>(job.output)[to] = narrow<S>(best.value);
    if constexpr (with_argmax) job.argmax[to] = best.cell;
  }
}

}  // namespace spp_ext::cuda
