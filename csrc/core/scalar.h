// The element types of a feature map, and the type each is computed in.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/host_device.h"

namespace spp_ext {

enum class DType : std::int32_t { kFloat32, kFloat64, kFloat16, kBFloat16 };

SPP_HOST_DEVICE std::int64_t size_of(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : (dtype == DType::kFloat32 ? 4 : 2);
}

// 16-bit floats as their bits; arithmetic happens in float, which holds every value of both
// exactly.
struct Half {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

template <class Storage>
struct ComputeTypeOf {
  using type = float;
};
template <>
struct ComputeTypeOf<double> {
  using type = double;
};
template <class Storage>
using ComputeType = typename ComputeTypeOf<Storage>::type;

namespace detail {
template <class To, class From>
SPP_HOST_DEVICE To bit_cast(From value) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs types of one size");
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}
}  // namespace detail

SPP_HOST_DEVICE float to_compute(float value) { return value; }
SPP_HOST_DEVICE double to_compute(double value) { return value; }
SPP_HOST_DEVICE float to_compute(BFloat16 value) {
  return detail::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}
SPP_HOST_DEVICE float to_compute(Half value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000u) << 16;
  const std::uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // infinity and NaN: widen the exponent, keep the payload
    return detail::bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  }
  // A normal half only needs its exponent rebiased. A subnormal one is a whole number of 2^-24.
  if (magnitude >= 0x0400u) {
    return detail::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
  }
  const float small = static_cast<float>(magnitude) * 5.9604644775390625e-8f;
  return detail::bit_cast<float>(sign | detail::bit_cast<std::uint32_t>(small));
}

// Rounds to nearest even, as the hardware does. Storage is always named: from_compute<Half>(x).
template <class Storage>
SPP_HOST_DEVICE Storage from_compute(ComputeType<Storage> value) {
  return value;
}
template <>
SPP_HOST_DEVICE BFloat16 from_compute<BFloat16>(float value) {
  const std::uint32_t bits = detail::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {  // rounding could carry a NaN into infinity
    return {static_cast<std::uint16_t>((bits >> 16) | 0x0040u)};
  }
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
template <>
SPP_HOST_DEVICE Half from_compute<Half>(float value) {
  const std::uint32_t bits = detail::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return {static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu))};
  }
  if (magnitude >= 0x477ff000u) {  // 65520 and above rounds to infinity
    return {static_cast<std::uint16_t>(sign | 0x7c00u)};
  }
  if (magnitude >= 0x38800000u) {  // normal half: rebias, then round away 13 bits of the mantissa
    const std::uint32_t rebiased = magnitude - (112u << 23);
    return {
        static_cast<std::uint16_t>(sign | ((rebiased + 0xfffu + ((rebiased >> 13) & 1u)) >> 13))};
  }
  // Subnormal half: adding 0.5 lets float addition round to a whole number of 2^-24 in its last
  // mantissa bits.
  const float shifted = detail::bit_cast<float>(magnitude) + 0.5f;
  return {
      static_cast<std::uint16_t>(sign | (detail::bit_cast<std::uint32_t>(shifted) - 0x3f000000u))};
}

}  // namespace spp_ext
