// Regions that cannot be pooled, as the errors users see. The memory of `regions` is the host's.
#pragma once

#include <string>

#include "cpu/kernels.h"
#include "torch/tensors.h"

namespace spp_ext::binding {

inline void raise_roi_fault(const char* op, const Regions& regions, std::int64_t batch) {
  const cpu::RoiFault fault = cpu::find_roi_fault(regions, batch);
  if (fault.kind == cpu::RoiFault::Kind::kNone) return;
  std::string value = std::to_string(fault.value);
  const std::string row = std::to_string(fault.row);
  if (fault.kind == cpu::RoiFault::Kind::kMapIndex) {
    fail<std::out_of_range>(
        op, "expected map_indices from 0 to " + std::to_string(regions.maps - 1) + ", got " +
                std::to_string(regions.map_indices[fault.row]) + " in row " + row);
  }
  if (fault.kind == cpu::RoiFault::Kind::kNotFinite) {
    constexpr const char* kColumns[] = {"batch index", "x1", "y1", "x2", "y2"};
    fail(op, std::string("expected finite boxes, got ") + kColumns[fault.column] + " = " + value +
                 " in row " + row);
  }
  value.erase(value.find_last_not_of('0') + 1);  // 5.000000 is 5
  if (value.back() == '.') value.pop_back();
  fail<std::out_of_range>(op, "expected batch indices of boxes from 0 to " +
                                  std::to_string(batch - 1) + ", got " + value + " in row " + row);
}

}  // namespace spp_ext::binding
