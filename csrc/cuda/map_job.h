// What the launches that pool whole maps share.
#pragma once

#include <cstdint>

#include "core/params.h"
#include "cuda/job.h"

namespace spp_ext::cuda {

// Launches carry at most so many spans of base levels; with more, each bin is pooled for itself.
constexpr std::int32_t kMaxMapSpans = 128;

// A base level's bins that share their rows: a row of a grid, or one listed bin. `rows` and `cols` are
// numbers of spans.
struct SpanRow {
  std::int32_t rows;
  std::int32_t cols;  // the first
  std::int32_t bins;
  std::int32_t first_bin;
};

struct MapJob : PyramidJob {
  FeatureMap input;
  // The same for every plane, so they are computed on the host.
  Span spans[kMaxMapSpans];
  std::int32_t num_span_rows;

  SPP_HOST_DEVICE std::int64_t num_rows() const { return input.batch; }
  SPP_HOST_DEVICE bool source_of(std::int64_t row, RowSource* source) const {
    *source = {&input, row, {{0, input.height}, {0, input.width}}};
    return true;
  }

  SPP_HOST_DEVICE SpanRow nth_span_row(std::int32_t k) const {
    const PyramidView view = pyramid.view();
    for (BaseLevels at(view); at.next();) {
      const Level& level = at.level();
      const auto rows = static_cast<std::int32_t>(level.row_spans());
      if (k >= rows) {
        k -= rows;
        continue;
      }
      const auto first = static_cast<std::int32_t>(at.first_span());
      const std::int32_t bins = level.is_grid() ? level.col_divisions : 1;
      return {first + k, first + rows + (level.is_grid() ? 0 : k), bins,
              static_cast<std::int32_t>(level.first_bin) + k * bins};
    }
    return {0, 0, 0, 0};
  }
};

}  // namespace spp_ext::cuda
