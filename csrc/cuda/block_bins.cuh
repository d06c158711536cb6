// The bins a block keeps in shared memory: spans are computed, base bins are put there, derived levels
// merged, output written.
//
// A *column* is one plane of one output row. pool_planes keeps the bins of a column together,
// pool_channels those of neighbouring channels; strides tell which.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/job.h"
#include "cuda/reduce.cuh"

namespace spp_ext::cuda {

// The rows at `count` positions from `first` on, and their spans, a thread a span. All threads of the
// block must call.
__device__ __forceinline__ void find_spans(const PoolJob& job, const PyramidView& pyramid,
                                           std::int64_t first, std::int32_t count,
                                           std::int64_t* row_numbers, Span* spans) {
  const FeatureMap& input = job.input;
  const auto row_spans = static_cast<std::int32_t>(pyramid.spans);
  for (std::int32_t i = threadIdx.x; i < count * row_spans; i += blockDim.x) {
    const std::int64_t row = job.rows.row_at(first + i / row_spans);
    if (i % row_spans == 0) row_numbers[i / row_spans] = row;
    spans[i] =
        nth_span(pyramid, job.rows.window_of(row, input), input.height, input.width, i % row_spans);
  }
  __syncthreads();
}

template <class T, bool with_argmax>
struct BlockBins {
  T* values;             // [columns][bins], by the strides below
  std::int32_t* cells;   // alike, with argmax
  unsigned char* empty;  // [rows][bins]; whether a bin has a cell is geometry, the same for all
                         // planes of a row
  std::int32_t columns;
  std::int32_t planes;  // columns of one output row
  std::int32_t column_stride;
  std::int32_t bin_stride;
  std::int32_t bins;

  __device__ __forceinline__ std::int32_t at(std::int32_t column, std::int32_t bin) const {
    return column * column_stride + bin * bin_stride;
  }

  __device__ __forceinline__ void put(std::int32_t column, std::int64_t of_bin, const Best<T>& best,
                                      bool is_empty) {
    const auto bin = static_cast<std::int32_t>(of_bin);
    values[at(column, bin)] = best.value;
    if constexpr (with_argmax) cells[at(column, bin)] = best.cell;
    if (column % planes == 0) empty[column / planes * bins + bin] = is_empty;
  }

  // Every derived level, a thread a bin. All threads of the block must call; base bins must be in
  // place.
  __device__ __forceinline__ void merge_derived(const PyramidView& pyramid) {
    for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
      const Level& level = pyramid.levels[pyramid.order[i]];
      if (level.is_base()) continue;
      const auto level_bins = static_cast<std::int32_t>(level.bins);
      for (std::int32_t item = threadIdx.x; item < columns * level_bins; item += blockDim.x) {
        // Neighbouring threads take neighbouring elements of shared memory.
        const std::int32_t column = column_stride == 1 ? item % columns : item / level_bins;
        const std::int32_t bin = column_stride == 1 ? item / columns : item % level_bins;
        Best<T> best = empty_bin<T>();
        bool found = false;
        for_each_part(pyramid, level, bin, [&](std::int64_t of_part) {
          const auto part = static_cast<std::int32_t>(of_part);
          if (empty[column / planes * bins + part]) return;
          const Best<T> candidate{values[at(column, part)],
                                  with_argmax ? cells[at(column, part)] : 0};
          if (found) {
            merge<with_argmax>(best, candidate);
          } else {
            best = candidate;
          }
          found = true;
        });
        put(column, level.first_bin + bin, best, !found);
      }
      __syncthreads();
    }
  }

  // Writes the columns, whose planes begin at `channel`, to output rows row_numbers[column /
  // planes]. Neighbouring threads write neighbouring elements. All threads of the block must call.
  template <class S>
  __device__ __forceinline__ void write(const PoolJob& job, const PyramidView& pyramid,
                                        const std::int64_t* row_numbers,
                                        std::int64_t channel) const {
    for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
      const Level& level = pyramid.levels[i];
      const auto level_bins = static_cast<std::int32_t>(level.bins);
      for (std::int32_t item = threadIdx.x; item < columns * level_bins; item += blockDim.x) {
        const std::int32_t column = item / level_bins;
        const std::int32_t bin = item % level_bins;
        const std::int32_t from = at(column, static_cast<std::int32_t>(level.first_bin) + bin);
        const std::int64_t to =
            job.output_index(i, row_numbers[column / planes], channel + column % planes, bin);
        static_cast<S*>(job.output)[to] = from_compute<S>(values[from]);
        if constexpr (with_argmax) job.argmax[to] = cells[from];
      }
    }
    __syncthreads();  // the caller's next bins overwrite what was read here
  }
};

}  // namespace spp_ext::cuda
