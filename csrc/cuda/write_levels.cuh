// Writes the levels of some columns, a column being a plane of one row of output, from the base bins that
// a block holds. Derived levels are merged from base bins on the way.
//
//   thread    0 1 2 ... n-1 | n ...      n = bins of the level
//   column    0 0 0 ... 0   | 1 ...      so neighbouring threads write neighbouring memory
#pragma once

#include <cstdint>

#include "cuda/best.h"
#include "cuda/device.h"
#include "cuda/job.h"
#include "cuda/words.h"

namespace spp_ext::cuda {

// `at(column, bin)` is the best of a base bin. The planes of the columns begin at `channel` of `row`. All
// threads of the block must call. A derived level's source must be a base level.
template <class S, bool with_argmax, class At>
__device__ __forceinline__ void write_levels(const PyramidJob& job, std::int64_t row,
                                             std::int64_t channel, std::int32_t columns,
                                             const At& at) {
  const PyramidView pyramid = job.pyramid.view();
  for (std::int32_t l = 0; l < pyramid.num_levels; ++l) {
    const Level& level = pyramid.levels[l];
    const auto bins = static_cast<std::int32_t>(level.bins);
    const auto first_bin = static_cast<std::int32_t>(level.first_bin);
    const std::int64_t first = job.output_index(l, row, channel, 0);
    const std::int32_t column_stride = job.output_levels[l].level.bins;
    for (std::int32_t item = threadIdx.x; item < columns * bins; item += blockDim.x) {
      const std::int32_t column = item / bins;
      const std::int32_t bin = item - column * bins;
      Best<ComputeType<S>> best;
      if (level.is_base()) {
        best = at(column, first_bin + bin);
      } else {
        const Level& source = pyramid.levels[level.source];
        const Rectangle parts = pyramid.merged_bins(level, bin);
        const auto source_first = static_cast<std::int32_t>(source.first_bin);
        const std::int32_t across = parts.right - parts.left;
        std::int32_t part = source_first + parts.top * source.col_divisions + parts.left;
        best = at(column, part);
        for (std::int32_t y = parts.top; y < parts.bottom; ++y, part += source.col_divisions) {
          for (std::int32_t x = 0; x < across; ++x) {
            const Best<ComputeType<S>> candidate = at(column, part + x);
            if constexpr (with_argmax) {
              merge(best, candidate);
            } else {
              best.value = maximum(best.value, candidate.value);
            }
          }
        }
      }
      const std::int64_t to = first + column * column_stride + bin;
      static_cast<S*>(job.output)[to] = narrow<S>(best.value);
      if constexpr (with_argmax) job.argmax[to] = best.cell;
    }
  }
}

}  // namespace spp_ext::cuda
