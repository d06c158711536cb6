// What every lane kernel starts a unit with: the element type as a constant, and scratch memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/dispatch.h"
#include "core/integers.h"
#include "cpu/tuning.h"

#ifndef SPP_ISA
#error "compile with -DSPP_ISA=<instruction set>"
#endif

namespace spp_ext::cpu::SPP_ISA {
namespace {

// Calls f with a value of the storage type that `dtype` names and, as a constant, whether argmax is
// wanted.
template <class F>
auto dispatch(DType dtype, bool with_argmax, const F& f) {
  return spp_ext::dispatch(dtype, [&](auto storage) {
    return with_argmax ? f(storage, std::true_type{}) : f(storage, std::false_type{});
  });
}

// Hands out parts of a unit's scratch memory, each starting on a vector. With a null base it only
// counts.
class Scratch {
 public:
  explicit Scratch(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(std::int64_t count) {
    T* part = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    const std::int64_t bytes = count * static_cast<std::int64_t>(sizeof(T));
    used_ += divide_up(bytes, tuning::kCacheLine) * tuning::kCacheLine;
    return part;
  }
  std::size_t used() const { return static_cast<std::size_t>(used_); }

 private:
  char* base_;
  std::int64_t used_ = 0;
};

// Bytes of scratch that a Part<storage, with_argmax> made of `arguments` takes.
template <template <class, bool> class Part, class... Arguments>
std::size_t scratch_of(DType dtype, bool with_argmax, const Arguments&... arguments) {
  return dispatch(dtype, with_argmax, [&](auto storage, auto wanted) {
    Scratch scratch(nullptr);
    Part<decltype(storage), wanted>(scratch, arguments...);
    return scratch.used();
  });
}

}  // namespace
}  // namespace spp_ext::cpu::SPP_ISA
