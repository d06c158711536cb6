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

template <class S>
__device__ __forceinline__ Word<S> maximum(Word<S> a, Word<S> b) {
  if constexpr (kPerWord<S> == 1) {
    return {maximum(a.number, b.number)};
  } else {
    return {maximum_of_pairs<S>(a.pair, b.pair)};
  }
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

// A pack of the numbers, rounded.
template <class S, int numbers>
__device__ __forceinline__ Pack<S, numbers> narrow_pack(const ComputeType<S> (&values)[numbers]) {
  Pack<S, numbers> result;
#pragma unroll
  for (int i = 0; i < numbers; i += kPerWord<S>) {
    if constexpr (kPerWord<S> == 1) {
      result.words[i] = {narrow<S>(values[i])};
    } else {
      result.words[i / 2] = {to_pair<S>(values[i], values[i + 1])};
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
template <class V>
using VectorOf = typename Vector<sizeof(V)>::type;

// `value` with each of its 32 bits exchanged for f(them).
template <class V, class F>
__device__ __forceinline__ V exchange(const V& value, const F& f) {
  struct Parts {
    unsigned part[sizeof(V) / 4];
  };
  Parts parts = spp_ext::detail::bit_cast<Parts>(value);
#pragma unroll
  for (unsigned& part : parts.part) part = f(part);
  return spp_ext::detail::bit_cast<V>(parts);
}

}  // namespace detail

// The value that lane `from` has, and that the lane has whose number differs in the bits `offset`. Every
// lane of the warp must call.
template <class V>
__device__ __forceinline__ V from_lane(const V& value, int from) {
  return detail::exchange(value,
                          [&](unsigned part) { return __shfl_sync(0xffffffffu, part, from); });
}
template <class V>
__device__ __forceinline__ V shuffle_xor(const V& value, int offset) {
  return detail::exchange(
      value, [&](unsigned part) { return __shfl_xor_sync(0xffffffffu, part, offset); });
}

// A pack, or whatever else stands in memory as neighbouring numbers N, at most 16 bytes and aligned to its
// size: from memory, to it, and to global memory. One instruction each.
template <class V, class N>
__device__ __forceinline__ V load_as(const N* from) {
  if constexpr (sizeof(V) == sizeof(N)) {
    return spp_ext::detail::bit_cast<V>(*from);
  } else {
    return spp_ext::detail::bit_cast<V>(*reinterpret_cast<const detail::VectorOf<V>*>(from));
  }
}
template <class S, int numbers = kPerPack<S>>
__device__ __forceinline__ Pack<S, numbers> load_pack(const S* from) {
  if constexpr (numbers == 1 && kPerWord<S> == 2) {
    return {{{static_cast<std::uint32_t>(from->bits) * 0x10001u}}};
  } else {
    return load_as<Pack<S, numbers>>(from);
  }
}

namespace detail {
template <class N, class V, class F>
__device__ __forceinline__ void put_pack(N* to, const V& pack, const F& put_vector) {
  if constexpr (sizeof(V) == sizeof(N)) {
    *to = spp_ext::detail::bit_cast<N>(pack);
  } else {
    using Vector = VectorOf<V>;
    put_vector(reinterpret_cast<Vector*>(to), spp_ext::detail::bit_cast<Vector>(pack));
  }
}
template <class S, class F>
__device__ __forceinline__ void put_pack(S* to, const Pack<S, 1>& pack, const F&) {
  *to = pack[0];
}
}  // namespace detail

template <class N, class V>
__device__ __forceinline__ void store_pack(N* to, const V& pack) {
  detail::put_pack(to, pack, [](auto* at, auto vector) { *at = vector; });
}
template <class N, class V>
__device__ __forceinline__ void write_pack(N* to, const V& pack) {
  detail::put_pack(to, pack, [](auto* at, auto vector) { write_vector(at, vector); });
}

}  // namespace spp_ext::cuda
