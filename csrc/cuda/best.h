// The best cell of a bin, when its place is wanted and not only its value.
#pragma once

#include <cstdint>

#include "core/max_op.h"
#include "cuda/device.h"

namespace spp_ext::cuda {

template <class T>
struct Best {
  T value;
  std::int32_t cell;  // flat index in the plane; -1: no cell
};

template <class T>
__device__ __forceinline__ Best<T> empty_bin() {
  return {T{0}, -1};
}

// Takes `candidate`, which may come from anywhere in the bin, into account.
template <class T>
__device__ __forceinline__ void merge(Best<T>& best, const Best<T>& candidate) {
  if (MaxOp::replaces(candidate.value, candidate.cell, best.value, best.cell)) best = candidate;
}

// The bests of lanes that differ in the bits [first, last) of their number, in every one of them. Every
// lane of the warp must call.
template <class T>
__device__ __forceinline__ Best<T> merge_lanes(Best<T> best, int first, int last) {
  for (int offset = first; offset < last; offset *= 2) {
    Best<T> other;
    other.value = __shfl_xor_sync(0xffffffffu, best.value, offset);
    other.cell = __shfl_xor_sync(0xffffffffu, best.cell, offset);
    merge(best, other);
  }
  return best;
}

}  // namespace spp_ext::cuda
