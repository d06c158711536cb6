// The bins a block keeps in shared memory: base bins are put there, derived levels merged, output
// written.
//
// A *column* is one plane of one output row. pool_planes keeps the bins of a column together,
// pool_channels those of neighbouring channels; strides tell which.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/job.h"
#include "cuda/reduce.cuh"

namespace spp_ext::cuda {

SPP_HOST_DEVICE std::int64_t align16(std::int64_t bytes) { return (bytes + 15) / 16 * 16; }

// One span of a window, number `k` in the order of fill_spans.
__device__ __forceinline__ Span nth_span(const PyramidView& pyramid, const Window& window,
                                         const FeatureMap& map, std::int64_t k) {
  for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
    const Level& level = pyramid.levels[pyramid.order[i]];
    if (!level.is_base()) continue;
    if (k < level.row_spans()) return row_span(pyramid, level, k, window, map.height);
    k -= level.row_spans();
    if (k < level.col_spans()) return col_span(pyramid, level, k, window, map.width);
    k -= level.col_spans();
  }
  return {0, 0};
}

// A bin of a base level and the cells it covers.
struct BaseBin {
  std::int32_t bin;
  Span rows;
  Span cols;

  __device__ __forceinline__ bool is_empty() const {
    return rows.begin == rows.end || cols.begin == cols.end;
  }
};

// Base bin number `k`, counted over the base levels in order. `spans` are those of its window.
__device__ __forceinline__ BaseBin nth_base_bin(const PyramidView& pyramid, const Span* spans,
                                                std::int32_t k) {
  for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
    const Level& level = pyramid.levels[pyramid.order[i]];
    if (!level.is_base()) continue;
    if (k < level.bins) {
      const std::int32_t row = level.is_grid() ? k / level.col_divisions : k;
      const std::int32_t col = level.is_grid() ? k % level.col_divisions : k;
      return {static_cast<std::int32_t>(level.first_bin) + k, spans[row],
              spans[level.row_spans() + col]};
    }
    k -= static_cast<std::int32_t>(level.bins);
    spans += level.row_spans() + level.col_spans();
  }
  return {0, {0, 0}, {0, 0}};
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

  __device__ __forceinline__ void put(std::int32_t column, std::int32_t bin, const Best<T>& best,
                                      bool is_empty) {
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
      const Level& source = pyramid.levels[level.source];
      const auto level_bins = static_cast<std::int32_t>(level.bins);
      for (std::int32_t item = threadIdx.x; item < columns * level_bins; item += blockDim.x) {
        // Neighbouring threads take neighbouring elements of shared memory.
        const std::int32_t column = column_stride == 1 ? item % columns : item / level_bins;
        const std::int32_t bin = column_stride == 1 ? item / columns : item % level_bins;
        const Rectangle parts = pyramid.merged_bins(level, bin);
        Best<T> best = empty_bin<T>();
        bool found = false;
        for (std::int32_t y = parts.top; y < parts.bottom; ++y) {
          for (std::int32_t x = parts.left; x < parts.right; ++x) {
            const std::int32_t part =
                static_cast<std::int32_t>(source.first_bin) + y * source.col_divisions + x;
            if (empty[column / planes * bins + part]) continue;
            const Best<T> candidate{values[at(column, part)],
                                    with_argmax ? cells[at(column, part)] : 0};
            if (found) {
              merge<with_argmax>(best, candidate);
            } else {
              best = candidate;
            }
            found = true;
          }
        }
        put(column, static_cast<std::int32_t>(level.first_bin) + bin, best, !found);
      }
      __syncthreads();
    }
  }

  // Writes the columns, whose planes begin at `channel`, to output rows row_numbers[column /
  // planes]. Neighbouring threads write neighbouring elements. A row that is not sound becomes NaN.
  template <class S>
  __device__ __forceinline__ void write(const PoolJob& job, const std::int64_t* row_numbers,
                                        std::int64_t channel, bool sound) const {
    const PyramidView pyramid = job.pyramid.view();
    for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
      const Level& level = pyramid.levels[i];
      const auto level_bins = static_cast<std::int32_t>(level.bins);
      for (std::int32_t item = threadIdx.x; item < columns * level_bins; item += blockDim.x) {
        const std::int32_t column = item / level_bins;
        const std::int32_t bin = item % level_bins;
        const std::int32_t from = at(column, static_cast<std::int32_t>(level.first_bin) + bin);
        const std::int64_t to =
            job.output_index(i, row_numbers[column / planes], channel + column % planes, bin);
        static_cast<S*>(job.output)[to] = sound ? from_compute<S>(values[from]) : not_a_number<S>();
        if constexpr (with_argmax) job.argmax[to] = sound ? cells[from] : -1;
      }
    }
  }
};

}  // namespace spp_ext::cuda
