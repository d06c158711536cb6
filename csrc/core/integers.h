// What every part needs of integers.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace spp_ext {

constexpr std::int64_t kInt32Max = 2147483647;

SPP_HOST_DEVICE std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
SPP_HOST_DEVICE std::int64_t align16(std::int64_t bytes) { return divide_up(bytes, 16) * 16; }
// a / b of numbers that are not negative. Nearly always both are small, and on a GPU a 32-bit division is
// several times as fast.
SPP_HOST_DEVICE std::int64_t quotient(std::int64_t a, std::int64_t b) {
  if ((a | b) <= kInt32Max) return static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b);
  return a / b;
}
SPP_HOST_DEVICE std::int64_t smaller_of(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

}  // namespace spp_ext
