// What a lane kernel does about NaN. A NaN beats every number, which costs as much to look after as
// the maximum itself, and hardly any map has one. So whole maps are pooled as if there were none, each
// cell also being compared to see whether there was; and only where there was, pooled again by the
// whole rule. What is pooled from a slab is compared while the slab is loaded.
//
// Each of these offers the same: `note` for every cell read, whether it has `seen` a NaN, and MaxOp's
// `replaces` and `combine`.
#pragma once

#include "core/max_op.h"
#include "cpu/lanes.h"

namespace spp_ext::cpu::SPP_ISA {
namespace {

// The whole rule.
struct NansHandled {
  template <class V>
  static SPP_HOST_DEVICE void note(V /*a*/, V /*b*/) {}
  static constexpr bool seen() { return false; }
  template <class V>
  static SPP_HOST_DEVICE auto replaces(V candidate, V best) {
    return MaxOp::replaces(candidate, best);
  }
  template <class V, class I>
  static SPP_HOST_DEVICE auto replaces(V candidate, I candidate_cell, V best, I best_cell) {
    return MaxOp::replaces(candidate, candidate_cell, best, best_cell);
  }
  template <class V>
  static SPP_HOST_DEVICE V combine(V candidate, V best) {
    const V greater = larger(candidate, best);
    if constexpr (kLargerKeepsNans) return greater;
    return candidate != candidate ? candidate : greater;
  }
};

// For values none of which is NaN.
struct NansAbsent {
  template <class V>
  static SPP_HOST_DEVICE void note(V /*a*/, V /*b*/) {}
  static constexpr bool seen() { return false; }
  template <class V>
  static SPP_HOST_DEVICE auto replaces(V candidate, V best) {
    return candidate > best;
  }
  template <class V, class I>
  static SPP_HOST_DEVICE auto replaces(V candidate, I candidate_cell, V best, I best_cell) {
    return (candidate > best) | ((candidate == best) & (candidate_cell < best_cell));
  }
  template <class V>
  static SPP_HOST_DEVICE V combine(V candidate, V best) {
    return larger(candidate, best);
  }
};

// The same, and finds out whether that was so: unless it combines values alone and a NaN comes through
// that anyhow.
template <class V, bool with_argmax>
class NansDetected : public NansAbsent {
 public:
  SPP_HOST_DEVICE void note(V a, V b) {
    if constexpr (kMatter) seen_ |= unordered(a, b);
  }
  bool seen() const { return kMatter && any(seen_); }

 private:
  static constexpr bool kMatter = with_argmax || !kLargerKeepsNans;
  Flags<V> seen_{};
};

}  // namespace
}  // namespace spp_ext::cpu::SPP_ISA
