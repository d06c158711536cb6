#include "cpu/regions.h"

#include <cmath>

#include "cpu/kernels.h"

namespace spp_ext::cpu {
RoiFault find_roi_fault(const Regions& regions, std::int64_t batch) {
  for (std::int64_t row = 0; row < regions.count; ++row) {
    if (!regions.names_map(row)) return {RoiFault::Kind::kMapIndex, row, 0, 0};
    for (int column = 0; column < 5; ++column) {
      const double value = roi_entry<double>(regions, row, column);
      if (!std::isfinite(value)) return {RoiFault::Kind::kNotFinite, row, column, value};
      if (column == 0 && !is_image(value, batch))
        return {RoiFault::Kind::kBatchIndex, row, column, value};
    }
  }
  return {};
}

RowsByImage group_by_image(const Regions* regions, std::int64_t count, std::int64_t batch) {
  RowsByImage grouped;
  grouped.begin.assign(static_cast<std::size_t>(batch) + 1, 0);
  grouped.rows.resize(static_cast<std::size_t>(count));
  const auto belongs = [&](std::int64_t row) {
    if (regions == nullptr) return row < batch;
    return regions->is_of_map(row) && is_image(roi_entry<double>(*regions, row, 0), batch);
  };
  const auto image = [&](std::int64_t row) {
    return regions == nullptr ? row : image_of(*regions, row);
  };
  // A counting sort keeps rows in order within their image.
  for (std::int64_t row = 0; row < count; ++row) {
    if (belongs(row)) ++grouped.begin[image(row) + 1];
  }
  for (std::int64_t n = 0; n < batch; ++n) grouped.begin[n + 1] += grouped.begin[n];
  std::vector<std::int64_t> next(grouped.begin.begin(), grouped.begin.end() - 1);
  for (std::int64_t row = 0; row < count; ++row) {
    if (belongs(row)) grouped.rows[next[image(row)]++] = row;
  }
  return grouped;
}

}  // namespace spp_ext::cpu
