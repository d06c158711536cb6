// Words and packs: how kernels hold several numbers of a map at once.
//
// A word is what one register holds: one float, one double, or two neighbouring 16-bit floats. A pack is
// as many words as one load or store moves, at most 16 bytes.
#pragma once

#include <cstdint>
#include <limits>

#include "core/scalar.h"
#include "cuda/device.h"

namespace spp_ext::cuda {

template <class S>
struct Word {
  S number;
};
template <>
struct Word<Half> {
  std::uint32_t pair;
};
template <>
struct Word<BFloat16> {
  std::uint32_t pair;
};

template <class S>
constexpr int kPerWord = sizeof(Word<S>) / sizeof(S);  // numbers in a word
template <class S>
constexpr int kPerPack = 16 / sizeof(S);  // numbers in a pack of 16 bytes

__device__ __forceinline__ Word<float> maximum(Word<float> a, Word<float> b) {
  return {maximum(a.number, b.number)};
}
__device__ __forceinline__ Word<double> maximum(Word<double> a, Word<double> b) {
  return {maximum(a.number, b.number)};
}
__device__ __forceinline__ Word<Half> maximum(Word<Half> a, Word<Half> b) {
  return {maximum_of_half_pairs(a.pair, b.pair)};
}
__device__ __forceinline__ Word<BFloat16> maximum(Word<BFloat16> a, Word<BFloat16> b) {
  return {maximum_of_bfloat16_pairs(a.pair, b.pair)};
}

template <class S>
__device__ __forceinline__ Word<S> shuffle_xor(Word<S> word, int offset) {
  if constexpr (kPerWord<S> == 1) {
    word.number = __shfl_xor_sync(0xffffffffu, word.number, offset);
  } else {
    word.pair = __shfl_xor_sync(0xffffffffu, word.pair, offset);
  }
  return word;
}

// From storage to the type that numbers are compared and summed in, and back, rounding.
__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }
__device__ __forceinline__ float widen(Half value) { return to_float(value); }
__device__ __forceinline__ float widen(BFloat16 value) { return to_compute(value); }
template <class S>
__device__ __forceinline__ S narrow(ComputeType<S> value) {
  return from_compute<S>(value);
}
template <>
__device__ __forceinline__ Half narrow<Half>(float value) {
  return to_half(value);
}

// `numbers` neighbouring numbers of storage type S. A single 16-bit float fills both halves of its word.
template <class S, int numbers = kPerPack<S>>
struct Pack {
  static constexpr int kWords = (numbers + kPerWord<S> - 1) / kPerWord<S>;
  Word<S> words[kWords];

  // Number i, i a constant after unrolling.
  __device__ __forceinline__ S operator[](int i) const {
    if constexpr (kPerWord<S> == 1) {
      return words[i].number;
    } else {
      return {static_cast<std::uint16_t>(words[i / 2].pair >> (i % 2 * 16))};
    }
  }
};

// The pack whose number i is number(i).
template <class S, int numbers = kPerPack<S>, class F>
__device__ __forceinline__ Pack<S, numbers> make_pack(const F& number) {
  Pack<S, numbers> pack{};
#pragma unroll
  for (int i = 0; i < numbers; ++i) {
    if constexpr (kPerWord<S> == 1) {
      pack.words[i].number = number(i);
    } else {
      pack.words[i / 2].pair |= static_cast<std::uint32_t>(number(i).bits) << (i % 2 * 16);
    }
  }
  return pack;
}

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();
template <class T>
constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

// A pack of -infinity, which any number of a bin replaces.
template <class S, int numbers = kPerPack<S>>
__device__ __forceinline__ Pack<S, numbers> lowest_pack() {
  const S lowest = narrow<S>(-kInfinity<ComputeType<S>>);
  return make_pack<S, numbers>([&](int) { return lowest; });
}

template <class S>
__device__ __forceinline__ Word<S> narrow_pair(float low, float high);
template <>
__device__ __forceinline__ Word<Half> narrow_pair<Half>(float low, float high) {
  return {to_half_pair(low, high)};
}
template <>
__device__ __forceinline__ Word<BFloat16> narrow_pair<BFloat16>(float low, float high) {
  return {to_bfloat16_pair(low, high)};
}

// A pack of the numbers, rounded.
template <class S, int numbers>
__device__ __forceinline__ Pack<S, numbers> narrow_pack(const ComputeType<S> (&values)[numbers]) {
  Pack<S, numbers> result;
#pragma unroll
  for (int i = 0; i < numbers; i += kPerWord<S>) {
    if constexpr (kPerWord<S> == 1) {
      result.words[i] = {narrow<S>(values[i])};
    } else {
      result.words[i / 2] = narrow_pair<S>(values[i], values[i + 1]);
    }
  }
  return result;
}

template <class S, int numbers>
__device__ __forceinline__ Pack<S, numbers> maximum(const Pack<S, numbers>& a,
                                                    const Pack<S, numbers>& b) {
  Pack<S, numbers> result;
#pragma unroll
  for (int i = 0; i < Pack<S, numbers>::kWords; ++i) {
    result.words[i] = maximum(a.words[i], b.words[i]);
  }
  return result;
}

namespace detail {
template <int bytes>
struct Vector;
template <>
struct Vector<16> {
  using type = uint4;
};
template <>
struct Vector<8> {
  using type = uint2;
};
template <>
struct Vector<4> {
  using type = unsigned;
};
}  // namespace detail

// A pack from memory, which must be aligned to its size, and to it. One instruction each.
template <class S, int numbers = kPerPack<S>>
__device__ __forceinline__ Pack<S, numbers> load_pack(const S* from) {
  constexpr int kBytes = numbers * static_cast<int>(sizeof(S));
  if constexpr (kBytes == 2) {
    return {{{static_cast<std::uint32_t>(from->bits) * 0x10001u}}};
  } else {
    using Vector = typename detail::Vector<kBytes>::type;
    return spp_ext::detail::bit_cast<Pack<S, numbers>>(*reinterpret_cast<const Vector*>(from));
  }
}
template <class S, int numbers>
__device__ __forceinline__ void store_pack(S* to, const Pack<S, numbers>& pack) {
  constexpr int kBytes = numbers * static_cast<int>(sizeof(S));
  if constexpr (kBytes == 2) {
    *to = pack[0];
  } else {
    using Vector = typename detail::Vector<kBytes>::type;
    *reinterpret_cast<Vector*>(to) = spp_ext::detail::bit_cast<Vector>(pack);
  }
}

// store_pack for global memory.
template <class S, int numbers>
__device__ __forceinline__ void write_pack(S* to, const Pack<S, numbers>& pack) {
  constexpr int kBytes = numbers * static_cast<int>(sizeof(S));
  if constexpr (kBytes == 2) {
    *to = pack[0];
  } else {
    using Vector = typename detail::Vector<kBytes>::type;
    write_vector(reinterpret_cast<Vector*>(to), spp_ext::detail::bit_cast<Vector>(pack));
  }
}

}  // namespace spp_ext::cuda
