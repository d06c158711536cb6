// The reduction: which of two cells a maximum keeps.
//
// The rules are those of torch's max pooling. A greater value wins; of equal values the first cell
// in row-major order; any NaN beats any number, and of several NaNs the last. Written with
// operators only, so that the same source serves scalars on the host and the device and vectors of
// lanes (where a comparison yields a mask).
#pragma once

#include "core/host_device.h"

namespace spp_ext {

struct MaxOp {
  // Cells arrive in row-major order: does `candidate` replace the best of the cells before it?
  template <class V>
  static SPP_HOST_DEVICE auto replaces(V candidate, V best) {
    return (candidate > best) | (candidate != candidate);
  }

  // Cells arrive in any order, each with its flat index (a cell may arrive twice).
  template <class V, class I>
  static SPP_HOST_DEVICE auto replaces(V candidate, I candidate_cell, V best, I best_cell) {
    return (candidate > best) | ((candidate == best) & (candidate_cell < best_cell)) |
           ((candidate != candidate) & ((best == best) | (candidate_cell > best_cell)));
  }

  // The value alone. Two selects instead of one on a combined mask: the first is a single max
  // instruction, whose second operand wins when either is NaN, so only a NaN candidate is left to
  // put right.
  template <class V>
  static SPP_HOST_DEVICE V combine(V candidate, V best) {
    const V larger = candidate > best ? candidate : best;
    return candidate != candidate ? candidate : larger;
  }
};

}  // namespace spp_ext
