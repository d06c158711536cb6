// Which image a region lies in, and regions grouped by image: shared by region pooling, gather and
// scatter.
#pragma once

#include <cstdint>
#include <vector>

#include "core/params.h"

namespace spp_ext::cpu {

// The image a region lies in; truncated toward zero, as in torchvision. The row must have no fault.
inline std::int64_t image_of(const Regions& regions, std::int64_t row) {
  return static_cast<std::int64_t>(roi_entry<double>(regions, row, 0));
}

// Rows grouped by image, ascending within each: image n has rows[begin[n]] up to rows[begin[n +
// 1]].
struct RowsByImage {
  std::vector<std::int64_t> begin;
  std::vector<std::int64_t> rows;
};
// With null regions row r belongs to image r. Rows of other maps, and rows whose batch index is outside
// [0, batch), are left out.
RowsByImage group_by_image(const Regions* regions, std::int64_t count, std::int64_t batch);

}  // namespace spp_ext::cpu
