// Vectors of lanes, as wide as the instruction set this file is compiled for: loads, stores and a
// transpose.
//
// The compiler's own vector types give arithmetic, comparisons and selects on every target; what they
// lack, or compilers make badly of them, names an instruction. Everything is in an unnamed namespace,
// so that no copy made for one instruction set can be linked into another.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
// GCC's own header starts some intrinsics from a register it leaves unset on purpose, and then
// warns about it.
#pragma GCC diagnostic push
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "core/scalar.h"
#include "cpu/tuning.h"

namespace spp_ext::cpu::SPP_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// For a compute type: a vector of values, and the vector of cell indices that goes with it lane by
// lane.
template <class T>
struct LanesOf;
template <>
struct LanesOf<float> {
  typedef float Value __attribute__((vector_size(kVectorBytes)));
  typedef std::int32_t Index __attribute__((vector_size(kVectorBytes)));
};
template <>
struct LanesOf<double> {
  typedef double Value __attribute__((vector_size(kVectorBytes)));
  typedef std::int64_t Index __attribute__((vector_size(kVectorBytes)));
};
template <class S>
using Value = typename LanesOf<ComputeType<S>>::Value;
template <class S>
using Index = typename LanesOf<ComputeType<S>>::Index;
template <class S>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(ComputeType<S>));

// 16-bit elements of one vector's lanes, and the same lanes widened.
typedef std::uint16_t Bits16 __attribute__((vector_size(kVectorBytes / 2)));
typedef std::uint32_t Bits32 __attribute__((vector_size(kVectorBytes)));
typedef std::int32_t Narrow32 __attribute__((vector_size(kVectorBytes / 2)));

namespace detail {
template <class V, int... i>
SPP_HOST_DEVICE V iota(std::integer_sequence<int, i...>) {
  return V{i...};
}
}  // namespace detail

// 0, 1, 2, ... along the lanes.
template <class V>
SPP_HOST_DEVICE V iota() {
  return detail::iota<V>(std::make_integer_sequence<int, sizeof(V) / sizeof(V{}[0])>{});
}

// A flat cell index in every lane.
template <class S>
Index<S> broadcast(std::int64_t cell) {
  using Element = std::remove_reference_t<decltype(Index<S>{}[0])>;
  return Index<S>{} + static_cast<std::remove_cv_t<Element>>(cell);
}

template <class To, class From>
SPP_HOST_DEVICE To load_bits(const From* from) {
  To to;
  std::memcpy(&to, from, sizeof(To));
  return to;
}

// kLanes<S> neighbouring elements, in any alignment, as the type they are computed in.
SPP_HOST_DEVICE Value<float> load(const float* from) { return load_bits<Value<float>>(from); }
SPP_HOST_DEVICE Value<double> load(const double* from) { return load_bits<Value<double>>(from); }
SPP_HOST_DEVICE Value<BFloat16> load(const BFloat16* from) {
#if defined(__AVX512BW__)
  // Element i to the upper half of lane i, zeros below: one instruction, where widening and then
  // shifting takes two on the port that everything here waits for.
  typedef std::uint16_t Words __attribute__((vector_size(kVectorBytes)));
  constexpr __mmask32 kUpperHalves = 0xAAAAAAAA;
  const __m512i elements = _mm512_castsi256_si512(load_bits<__m256i>(from));
  return reinterpret_cast<Value<BFloat16>>(_mm512_maskz_permutexvar_epi16(
      kUpperHalves, reinterpret_cast<__m512i>(iota<Words>() / 2), elements));
#elif defined(__aarch64__)
  // The same as below, which GCC 12 would take apart into scalars.
  return reinterpret_cast<Value<BFloat16>>(vshll_n_u16(load_bits<uint16x4_t>(from), 16));
#else
  const Bits32 wide = __builtin_convertvector(load_bits<Bits16>(from), Bits32) << 16;
  return reinterpret_cast<Value<BFloat16>>(wide);
#endif
}
SPP_HOST_DEVICE Value<Half> load(const Half* from) {
#if defined(__AVX512F__)
  // Of all lanes: the plain intrinsic starts from a register it leaves unset, of which GCC then warns.
  return reinterpret_cast<Value<Half>>(_mm512_maskz_cvtph_ps(0xffff, load_bits<__m256i>(from)));
#elif defined(__F16C__)
  return reinterpret_cast<Value<Half>>(_mm256_cvtph_ps(load_bits<__m128i>(from)));
#elif defined(__aarch64__)
  return reinterpret_cast<Value<Half>>(vcvt_f32_f16(load_bits<float16x4_t>(from)));
#else
  Value<Half> lanes;
  for (int lane = 0; lane < kLanes<Half>; ++lane) lanes[lane] = to_compute(from[lane]);
  return lanes;
#endif
}

// The first `count` lanes from memory, never reading at or past `end`; the others hold anything.
template <class S>
SPP_HOST_DEVICE Value<S> load_first(const S* from, std::int64_t count, const S* end) {
  if (end - from >= kLanes<S>) return load(from);  // what follows is still the input's
  S elements[kLanes<S>] = {};
  for (std::int64_t lane = 0; lane < count; ++lane) elements[lane] = from[lane];
  return load(elements);
}

// Lanes as the elements that memory holds: values came from E or are zero, so that converting them
// back is exact.
template <class E, class V>
SPP_HOST_DEVICE auto packed(V lanes) {
  if constexpr (std::is_same_v<E, BFloat16>) {
    return __builtin_convertvector(reinterpret_cast<Bits32>(lanes) >> 16, Bits16);
  } else if constexpr (std::is_same_v<E, Half>) {
#if defined(__AVX512F__)
    return _mm512_maskz_cvtps_ph(0xffff, reinterpret_cast<__m512>(lanes),
                                 _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__F16C__)
    return _mm256_cvtps_ph(reinterpret_cast<__m256>(lanes),
                           _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__aarch64__)
    return vcvt_f16_f32(reinterpret_cast<float32x4_t>(lanes));
#else
    Half elements[kLanes<Half>];
    for (int lane = 0; lane < kLanes<Half>; ++lane)
      elements[lane] = from_compute<Half>(lanes[lane]);
    return load_bits<Bits16>(elements);
#endif
  } else if constexpr (sizeof(E) < sizeof(lanes[0])) {
    return __builtin_convertvector(lanes, Narrow32);
  } else {
    return lanes;
  }
}

// How many of those elements a lane has room for, one or two; and lanes filled with them, from vectors
// `stride` apart.
template <class E, class V>
constexpr int kElementsPerLane = sizeof(V{}[0]) / sizeof(E);
template <class E, class V>
SPP_HOST_DEVICE auto filled_lanes(const V* from, std::int64_t stride) {
  if constexpr (kElementsPerLane<E, V> == 1) {
    return from[0];
  } else if constexpr (std::is_same_v<E, BFloat16>) {
    const auto first = reinterpret_cast<Bits32>(from[0]);
    const auto second = reinterpret_cast<Bits32>(from[stride]);
    return first >> 16 | (second & 0xffff0000u);
  } else if constexpr (std::is_same_v<E, Half>) {
    const auto widened = [](V lanes) {
      const auto elements = packed<E>(lanes);
      return __builtin_convertvector(load_bits<Bits16>(&elements), Bits32);
    };
    return widened(from[0]) | widened(from[stride]) << 16;
  } else {
    return (from[0] & 0xffffffff) | from[stride] << 32;
  }
}

template <class E, class V>
SPP_HOST_DEVICE void store(E* to, V lanes) {
  const auto elements = packed<E>(lanes);
  std::memcpy(to, &elements, sizeof(elements));
}

// Copies with non-temporal stores: the caches then need not first read what is overwritten. Calls must
// be followed by finish_streams before another thread may read the copy.
template <class E>
SPP_HOST_DEVICE void stream(E* to, const E* from, std::int64_t count) {
#if defined(__x86_64__)
  constexpr std::int64_t kLine = tuning::kCacheLine;
  auto* const out = reinterpret_cast<char*>(to);
  const auto* const in = reinterpret_cast<const char*>(from);
  const std::int64_t bytes = count * std::int64_t{sizeof(E)};
  const auto past_line = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(out) % kLine);
  const std::int64_t head = past_line == 0 ? 0 : kLine - past_line;
  if (head + kLine > bytes) {
    std::memcpy(out, in, static_cast<std::size_t>(bytes));
    return;
  }
  std::memcpy(out, in, static_cast<std::size_t>(head));
  std::int64_t at = head;
  for (; at + kLine <= bytes; at += kVectorBytes) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out + at), load_bits<__m512i>(in + at));
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(out + at), load_bits<__m256i>(in + at));
#else
    _mm_stream_si128(reinterpret_cast<__m128i*>(out + at), load_bits<__m128i>(in + at));
#endif
  }
  std::memcpy(out + at, in + at, static_cast<std::size_t>(bytes - at));
#else
  std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(E));
#endif
}
SPP_HOST_DEVICE void finish_streams() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Whether `larger` is NaN where either is.
#if defined(__aarch64__)
constexpr bool kLargerKeepsNans = true;
#else
constexpr bool kLargerKeepsNans = false;
#endif

// The maximum in one instruction. On x86 that is a > b ? a : b, which is b when either is NaN; compilers
// find it for the plain expression, but not next to a test for NaN, where they would rather combine two
// masks. On Arm it is a NaN when either is, and +0 of zeros of both signs.
template <class V>
SPP_HOST_DEVICE V larger(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(a[0]) == sizeof(float))
    return reinterpret_cast<V>(_mm512_max_ps((__m512)a, (__m512)b));
  return reinterpret_cast<V>(_mm512_max_pd((__m512d)a, (__m512d)b));
#elif defined(__AVX2__)
  if constexpr (sizeof(a[0]) == sizeof(float))
    return reinterpret_cast<V>(_mm256_max_ps((__m256)a, (__m256)b));
  return reinterpret_cast<V>(_mm256_max_pd((__m256d)a, (__m256d)b));
#elif defined(__x86_64__)
  if constexpr (sizeof(a[0]) == sizeof(float))
    return reinterpret_cast<V>(_mm_max_ps((__m128)a, (__m128)b));
  return reinterpret_cast<V>(_mm_max_pd((__m128d)a, (__m128d)b));
#elif defined(__aarch64__)
  if constexpr (sizeof(a[0]) == sizeof(float))
    return reinterpret_cast<V>(vmaxq_f32((float32x4_t)a, (float32x4_t)b));
  else
    return reinterpret_cast<V>(vmaxq_f64((float64x2_t)a, (float64x2_t)b));
#else
  return a > b ? a : b;
#endif
}

// A flag for each lane, from a comparison; and whether any is set.
#if defined(__AVX512F__)
template <class V>
using Flags = std::conditional_t<sizeof(V{}[0]) == sizeof(float), __mmask16, __mmask8>;
template <class F>
SPP_HOST_DEVICE bool any(F flags) {
  return flags != 0;
}
#else
template <class V>
using Flags = decltype(V{} < V{});
template <class F>
SPP_HOST_DEVICE bool any(F flags) {
  const auto words = reinterpret_cast<LanesOf<double>::Index>(flags);
  bool found = false;
  for (int i = 0; i < kLanes<double>; ++i) found |= words[i] != 0;
  return found;
}
#endif

// Where a or b is NaN: one instruction, for which compilers take two.
template <class V>
SPP_HOST_DEVICE Flags<V> unordered(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(a[0]) == sizeof(float))
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_UNORD_Q);
  else
    return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_UNORD_Q);
#elif defined(__AVX2__)
  if constexpr (sizeof(a[0]) == sizeof(float))
    return reinterpret_cast<Flags<V>>(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_UNORD_Q));
  else
    return reinterpret_cast<Flags<V>>(_mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_UNORD_Q));
#elif defined(__x86_64__)
  if constexpr (sizeof(a[0]) == sizeof(float))
    return reinterpret_cast<Flags<V>>(_mm_cmpunord_ps((__m128)a, (__m128)b));
  else
    return reinterpret_cast<Flags<V>>(_mm_cmpunord_pd((__m128d)a, (__m128d)b));
#else
  return ~((a == a) & (b == b));
#endif
}

// Lanes that are exchanged without leaving their 16 bytes of a vector, which every target does in one
// instruction.
template <class V>
constexpr int kBlockLanes = 16 / static_cast<int>(sizeof(V{}[0]));

namespace detail {
// Lane i of the result is lane Pattern::lane(i) of a and b read one after another.
template <class Pattern, class V, int... i>
SPP_HOST_DEVICE V pick(V a, V b, std::integer_sequence<int, i...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, Pattern::lane(i)...);
#else
  using Mask = decltype(a > b);
  return __builtin_shuffle(a, b, Mask{Pattern::lane(i)...});
#endif
}
template <class Pattern, class V>
SPP_HOST_DEVICE V pick(V a, V b) {
  return pick<Pattern>(a, b, std::make_integer_sequence<int, sizeof(V) / sizeof(V{}[0])>{});
}

// In every block, the lower or upper half of a's and b's groups of `group` lanes by turns.
template <class V, int group, bool upper>
struct Riffled {
  static constexpr int lane(int i) {
    constexpr int n = sizeof(V) / sizeof(V{}[0]), block = kBlockLanes<V>;
    const int in_block = i % block, turn = in_block / group;
    return turn % 2 * n + (i - in_block) + turn / 2 * group + (upper ? block / 2 : 0) +
           in_block % group;
  }
};
// The even or odd blocks of a, then of b.
template <class V, bool odd>
struct EverySecondBlock {
  static constexpr int lane(int i) {
    constexpr int block = kBlockLanes<V>;
    return (2 * (i / block) + (odd ? 1 : 0)) * block + i % block;
  }
};

// Replaces each two vectors `distance` apart by First and Second of them.
template <class First, class Second, int distance, class V, int n>
SPP_HOST_DEVICE void replace_pairs(V (&rows)[n]) {
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) {
    if ((i & distance) != 0) continue;
    const V a = rows[i], b = rows[i + distance];
    rows[i] = pick<First>(a, b);
    rows[i + distance] = pick<Second>(a, b);
  }
}
}  // namespace detail

// Brings each lane's elements of n vectors together: n is 1, 2, the lanes of a block, or all lanes.
// Afterwards they are at gathered_lane.
template <class V, int n>
SPP_HOST_DEVICE void gather_lanes(V (&rows)[n]) {
  using namespace detail;
  constexpr int lanes = sizeof(V) / sizeof(V{}[0]), block = kBlockLanes<V>;
  static_assert(n == 1 || n == 2 || n == block || n == lanes);
  if constexpr (n > 1) replace_pairs<Riffled<V, 1, false>, Riffled<V, 1, true>, 1>(rows);
  if constexpr (n >= block && block == 4) {
    replace_pairs<Riffled<V, 2, false>, Riffled<V, 2, true>, 2>(rows);
#pragma GCC unroll 4
    for (int i = 0; i < n; i += block) std::swap(rows[i + 1], rows[i + 2]);
  }
  using Evens = EverySecondBlock<V, false>;
  using Odds = EverySecondBlock<V, true>;
  if constexpr (n > block) replace_pairs<Evens, Odds, block>(rows);
  if constexpr (n > 2 * block) replace_pairs<Evens, Odds, 2 * block>(rows);
}
template <class V, int n>
SPP_HOST_DEVICE const void* gathered_lane(const V (&rows)[n], int lane) {
  constexpr int block = n < kBlockLanes<V> ? kBlockLanes<V> : n;
  constexpr int together = block / n;  // lanes of a block that end up in one vector
  const auto* const row = reinterpret_cast<const std::remove_reference_t<decltype(V{}[0])>*>(
      rows + lane % block / together);
  return row + lane / block * block + lane % together * n;
}

// Afterwards lane i of rows[j] is what lane j of rows[i] was.
template <class V, int n>
SPP_HOST_DEVICE void transpose(V (&rows)[n]) {
  static_assert(n == sizeof(V) / sizeof(V{}[0]), "transpose needs as many rows as lanes");
  gather_lanes(rows);
}

}  // namespace
}  // namespace spp_ext::cpu::SPP_ISA
