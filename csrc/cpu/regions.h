// Rows grouped by the map and the image they belong to: shared by region pooling, gather and scatter.
#pragma once

#include <cstdint>
#include <vector>

#include "core/regions.h"

namespace spp_ext::cpu {

// The group of a row, map * N + image, or kNoGroup. With null regions row r belongs to image r.
inline std::int64_t group_of_row(const Regions* regions, std::int64_t row, std::int64_t batch) {
  if (regions == nullptr) return row < batch ? row : kNoGroup;
  return group_of(*regions, row, batch);
}

// Group g has rows[begin[g]] up to rows[begin[g + 1]], ascending. Rows without a group are left out.
struct GroupedRows {
  std::vector<std::int64_t> begin;  // [M * N + 1]
  std::vector<std::int64_t> rows;
};
GroupedRows group_rows(const Regions* regions, std::int64_t count, std::int64_t batch);

}  // namespace spp_ext::cpu
