// One bin reduced by a group of lanes of a warp, the group's lanes taking cells in turn.
#pragma once

#include <cstdint>

#include "core/max_op.h"
#include "core/params.h"
#include "cuda/best.h"
#include "cuda/device.h"

namespace spp_ext::cuda {

// Takes `candidate`, which may come from anywhere in the bin, into account.
template <bool with_argmax, class T>
__device__ __forceinline__ void merge(Best<T>& best, const Best<T>& candidate) {
  if constexpr (with_argmax) {
    if (MaxOp::replaces(candidate.value, candidate.cell, best.value, best.cell)) best = candidate;
  } else {
    best.value = MaxOp::combine(candidate.value, best.value);
  }
}

// The best of the cells lane, lane + lanes, lane + 2 * lanes, ... of a rectangle that has cells,
// counted in row-major order. A lane beyond the last cell takes that one too, which changes
// nothing.
template <bool with_argmax, class S>
__device__ __forceinline__ Best<ComputeType<S>> reduce_cells(const S* plane,
                                                             std::int64_t cell_stride,
                                                             std::int32_t map_width, Span rows,
                                                             Span cols, std::int32_t lane,
                                                             std::int32_t lanes) {
  using T = ComputeType<S>;
  const std::int32_t width = cols.end - cols.begin;
  const std::int64_t count = static_cast<std::int64_t>(rows.end - rows.begin) * width;
  const auto first = static_cast<std::int32_t>(lane < count ? lane : count - 1);
  std::int32_t y = rows.begin + first / width;
  std::int32_t x = cols.begin + first % width;
  const std::int32_t row_step = lanes / width;
  const std::int32_t col_step = lanes % width;
  std::int32_t cell = y * map_width + x;
  Best<T> best{to_compute(plane[cell * cell_stride]), cell};
#pragma unroll 4
  for (std::int64_t i = static_cast<std::int64_t>(first) + lanes; i < count; i += lanes) {
    x += col_step;
    y += row_step;
    if (x >= cols.end) {
      x -= width;
      ++y;
    }
    cell = y * map_width + x;
    const T candidate = to_compute(plane[cell * cell_stride]);
    if constexpr (with_argmax) {
      if (MaxOp::replaces(candidate, best.value)) best = {candidate, cell};
    } else {
      best.value = MaxOp::combine(candidate, best.value);
    }
  }
  return best;
}

// Merges the bests of lanes that differ in the bits [first, last) of their number. Every lane of
// the warp must call.
template <bool with_argmax, class T>
__device__ __forceinline__ Best<T> reduce_lanes(Best<T> best, int first, int last) {
  for (int offset = first; offset < last; offset *= 2) {
    Best<T> other;
    other.value = __shfl_xor_sync(0xffffffffu, best.value, offset);
    other.cell = with_argmax ? __shfl_xor_sync(0xffffffffu, best.cell, offset) : 0;
    merge<with_argmax>(best, other);
  }
  return best;
}

}  // namespace spp_ext::cuda
