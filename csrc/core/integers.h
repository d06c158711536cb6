// What every part needs of integers.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace spp_ext {

constexpr std::int64_t kInt32Max = 2147483647;

SPP_HOST_DEVICE std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
SPP_HOST_DEVICE std::int64_t smaller_of(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

}  // namespace spp_ext
