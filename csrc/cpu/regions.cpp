// Reads regions one after another, on the calling thread: checks them, and groups them.
#include "cpu/regions.h"

#include <cmath>
#include <numeric>

#include "cpu/kernels.h"

namespace spp_ext::cpu {

RoiFault find_roi_fault(const Regions& regions, std::int64_t batch) {
  for (std::int64_t row = 0; row < regions.count; ++row) {
    if (!is_map(regions, map_of(regions, row))) return {RoiFault::Kind::kMapIndex, row, 0, 0};
    for (int column = 0; column < 5; ++column) {
      const double value = roi_entry<double>(regions, row, column);
      if (!std::isfinite(value)) return {RoiFault::Kind::kNotFinite, row, column, value};
      if (column == 0 && !is_image(value, batch))
        return {RoiFault::Kind::kBatchIndex, row, column, value};
    }
  }
  return {};
}

// A counting sort, which keeps rows in order within their group.
GroupedRows group_rows(const Regions* regions, std::int64_t count, std::int64_t batch) {
  const std::int64_t groups = batch * (regions == nullptr ? 1 : regions->num_maps);
  GroupedRows grouped;
  grouped.begin.assign(static_cast<std::size_t>(groups) + 1, 0);
  std::vector<std::int64_t> group(static_cast<std::size_t>(count));
  for (std::int64_t row = 0; row < count; ++row) {
    group[row] = group_of_row(regions, row, batch);
    if (group[row] != kNoGroup) ++grouped.begin[group[row] + 1];
  }
  std::partial_sum(grouped.begin.begin(), grouped.begin.end(), grouped.begin.begin());
  grouped.rows.resize(static_cast<std::size_t>(grouped.begin.back()));
  std::vector<std::int64_t> next = grouped.begin;
  for (std::int64_t row = 0; row < count; ++row) {
    if (group[row] != kNoGroup) grouped.rows[next[group[row]]++] = row;
  }
  return grouped;
}

}  // namespace spp_ext::cpu
