// What kernels need of CUDA beyond the language: shared memory, and instructions that no operator names.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "core/max_op.h"
#include "core/scalar.h"

namespace spp_ext::cuda {

// The shared memory that a launch gives each block, 16-byte aligned.
__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

// Writes a vector to global memory by one instruction. In unrolled loops nvcc splits a plain assignment of
// one into stores of its members.
template <class Vector>
__device__ __forceinline__ void write_vector(Vector* to, Vector value) {
  __stwb(to, value);
}

// The same number. The compiler computes what is cheap again wherever it is used, in inner loops above all;
// it cannot compute this again.
__device__ __forceinline__ std::int32_t once(std::int32_t value) {
  asm("" : "+r"(value));
  return value;
}
template <class T>
__device__ __forceinline__ const T* once(const T* pointer) {
  asm("" : "+l"(pointer));
  return pointer;
}
// Conversions by one instruction where core/scalar.h takes many, to the same values.
__device__ __forceinline__ float to_float(Half value) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
}
__device__ __forceinline__ Half to_half(float value) {
  Half result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  return result;
}

// a * b + c in 64 bits. Written as an operator, it becomes three instructions where it is one.
__device__ __forceinline__ std::uint64_t multiply_add(std::uint32_t a, std::uint32_t b,
                                                      std::uint64_t c) {
  std::uint64_t result;
  asm("mad.wide.u32 %0, %1, %2, %3;" : "=l"(result) : "r"(a), "r"(b), "l"(c));
  return result;
}

// The greater number, NaN if either is NaN. Which NaN, and which of two zeros, is left open. Pairs are
// two 16-bit floats in one register. GPUs before compute capability 8.0 have no such instruction.
__device__ __forceinline__ double maximum(double a, double b) { return MaxOp::combine(a, b); }

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
__device__ __forceinline__ float maximum(float a, float b) {
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}
template <class S>
__device__ __forceinline__ unsigned maximum_of_pairs(unsigned a, unsigned b) {
  unsigned result;
  if constexpr (std::is_same_v<S, Half>) {
    asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
  } else {
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
  }
  return result;
}
// Two numbers rounded, `low` in the lower half. Which NaN a bfloat16 becomes is left open.
template <class S>
__device__ __forceinline__ unsigned to_pair(float low, float high) {
  unsigned result;
  if constexpr (std::is_same_v<S, Half>) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  }
  return result;
}
#else
__device__ __forceinline__ float maximum(float a, float b) { return MaxOp::combine(a, b); }
template <class S>
__device__ __forceinline__ unsigned maximum_of_pairs(unsigned a, unsigned b) {
  if constexpr (std::is_same_v<S, Half>) {
    const auto of = [](unsigned x, unsigned y) -> unsigned {
      const Half p{static_cast<std::uint16_t>(x)}, q{static_cast<std::uint16_t>(y)};
      return to_half(MaxOp::combine(to_float(p), to_float(q))).bits;
    };
    return of(a, b) | of(a >> 16, b >> 16) << 16;
  } else {  // the upper half of a float is a bfloat16, and as floats they compare alike
    const auto of = [](unsigned x, unsigned y) {
      return __float_as_uint(MaxOp::combine(__uint_as_float(x), __uint_as_float(y)));
    };
    return of(a << 16, b << 16) >> 16 | of(a & 0xffff0000u, b & 0xffff0000u);
  }
}
template <class S>
__device__ __forceinline__ unsigned to_pair(float low, float high) {
  if constexpr (std::is_same_v<S, Half>) {
    return unsigned{to_half(low).bits} | unsigned{to_half(high).bits} << 16;
  } else {
    return unsigned{from_compute<S>(low).bits} | unsigned{from_compute<S>(high).bits} << 16;
  }
}
#endif

}  // namespace spp_ext::cuda
