// A pyramid of levels, and the plan that computes it.
//
// Every bin is a rectangle in whole numbers of `divisions`-ths of a window. In a grid the
// rectangles are the unit cells and are not stored. Level m follows exactly from a grid n when m's
// divisions divide n's: both cut the window at the same rational points, so a bin of m is the union
// of the bins of n inside its rectangle. Such a level is *derived*; the others are *base* levels
// and read the map. {1, 2, 3, 6} reads it once, for level 6.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/geometry.h"
#include "core/integers.h"
#include "core/row.h"

namespace spp_ext {

struct Rectangle {
  std::int32_t top;
  std::int32_t left;
  std::int32_t bottom;
  std::int32_t right;
};

struct Level {
  std::int32_t row_divisions;  // a grid has row_divisions x col_divisions bins
  std::int32_t col_divisions;
  std::int64_t bins;
  std::int64_t first_bin;        // bins in the levels before this one
  std::int64_t first_rectangle;  // into Pyramid::rectangles, -1 for a grid
  std::int32_t source;           // the level this one is merged from, -1 for a base level

  SPP_HOST_DEVICE RowLevel in_row() const {
    return {static_cast<std::int32_t>(first_bin), static_cast<std::int32_t>(bins)};
  }
  SPP_HOST_DEVICE bool is_grid() const { return first_rectangle < 0; }
  SPP_HOST_DEVICE bool is_base() const { return source < 0; }

  // Base levels only. A grid's bin (i, j) spans row span i and column span j; a listed bin b has
  // spans b and b. Bins are fewer than 2^31, and a GPU has no 64-bit division.
  SPP_HOST_DEVICE std::int64_t row_spans() const { return is_grid() ? row_divisions : bins; }
  SPP_HOST_DEVICE std::int64_t col_spans() const { return is_grid() ? col_divisions : bins; }
  SPP_HOST_DEVICE std::int64_t row_span_of(std::int64_t bin) const {
    return is_grid() ? static_cast<std::int32_t>(bin) / col_divisions : bin;
  }
  SPP_HOST_DEVICE std::int64_t col_span_of(std::int64_t bin) const {
    return is_grid() ? static_cast<std::int32_t>(bin) % col_divisions : bin;
  }
};

// What kernels see of a pyramid.
struct PyramidView {
  const Level* levels;  // [num_levels], in output order
  const std::int32_t*
      order;  // [num_levels], an order in which every level's source comes before it
  const Rectangle* rectangles;  // of the listed levels
  std::int32_t num_levels;
  std::int64_t bins;   // over all levels
  std::int64_t spans;  // row and column spans of all base levels: what fill_spans writes

  // How the numbers of a pooled row are ordered; `channels` are those of the map.
  SPP_HOST_DEVICE RowOrder row_order(std::int64_t channels) const {
    return {channels, bins, num_levels, Layout::kContiguous};
  }

  SPP_HOST_DEVICE Rectangle rectangle(const Level& level, std::int64_t bin) const {
    if (!level.is_grid()) return rectangles[level.first_rectangle + bin];
    const auto row = static_cast<std::int32_t>(level.row_span_of(bin));
    const auto col = static_cast<std::int32_t>(level.col_span_of(bin));
    return {row, col, row + 1, col + 1};
  }

  // Where the window is cut for row span `k` (top and bottom) and column span `k` (left and right).
  SPP_HOST_DEVICE Rectangle span_cuts(const Level& level, std::int64_t k) const {
    if (!level.is_grid()) return rectangles[level.first_rectangle + k];
    const auto cut = static_cast<std::int32_t>(k);
    return {cut, cut, cut + 1, cut + 1};
  }

  // The bins of its source grid that a derived level's bin is merged from.
  SPP_HOST_DEVICE Rectangle merged_bins(const Level& level, std::int64_t bin) const {
    const Level& source = levels[level.source];
    const std::int32_t down = source.row_divisions / level.row_divisions;
    const std::int32_t across = source.col_divisions / level.col_divisions;
    const Rectangle parts = rectangle(level, bin);
    return {parts.top * down, parts.left * across, parts.bottom * down, parts.right * across};
  }
};

class Pyramid {
 public:
  // Reads levels from one flat list of numbers, level after level; the registered ops take the same,
  // and spp_ext/levels.py writes it. The sign of a level's first number says which kind it is:
  //
  //   rows, cols                                       a grid of rows x cols bins
  //   -count, row_divisions, col_divisions,            `count` listed bins: rectangles in parts of a
  //     count times top, left, bottom, right           window cut into row_ x col_divisions
  //
  // Rectangles are half-open, 0 <= top < bottom <= row_divisions, and columns alike. {1, 1, 2, 2} is
  // the whole and its quarters, 5 bins; {-2, 2, 2, 0, 0, 1, 2, 1, 0, 2, 2} the upper and the lower
  // half. Throws std::invalid_argument for what is no such list.
  // Without `derive` all levels are base levels, as bin edges that are not exact need it.
  Pyramid(const std::int64_t* encoded, std::size_t size, bool derive = true) {
    std::size_t at = 0;
    const auto next = [&] {
      if (at == size)
        throw std::invalid_argument(
            "expected levels encoded as whole levels, got a truncated list");
      return encoded[at++];
    };
    const auto next_divisions = [&](std::int64_t value) {
      if (value < 1 || value > kMaxDivisions) {
        throw std::invalid_argument("expected level divisions from 1 to " +
                                    std::to_string(kMaxDivisions) + ", got " +
                                    std::to_string(value));
      }
      return static_cast<std::int32_t>(value);
    };
    levels_.reserve(size / 2);  // a grid is two numbers, and any other level more
    while (at < size) {
      Level level{};
      level.source = -1;
      level.first_bin = bins_;
      const std::int64_t head = next();
      if (head < 0) {
        if (head < -kMaxBins) throw too_many_bins();
        level.bins = -head;
        level.row_divisions = next_divisions(next());
        level.col_divisions = next_divisions(next());
        level.first_rectangle = static_cast<std::int64_t>(rectangles_.size());
        for (std::int64_t bin = 0; bin < level.bins; ++bin) {
          const std::int64_t top = next(), left = next(), bottom = next(), right = next();
          if (top < 0 || top >= bottom || bottom > level.row_divisions || left < 0 ||
              left >= right || right > level.col_divisions) {
            throw std::invalid_argument(
                "expected bins with 0 <= top < bottom and 0 <= left < right inside their "
                "divisions");
          }
          rectangles_.push_back({static_cast<std::int32_t>(top), static_cast<std::int32_t>(left),
                                 static_cast<std::int32_t>(bottom),
                                 static_cast<std::int32_t>(right)});
        }
      } else {
        level.row_divisions = next_divisions(head);
        level.col_divisions = next_divisions(next());
        level.bins = std::int64_t{level.row_divisions} * level.col_divisions;
        level.first_rectangle = -1;
      }
      bins_ += level.bins;
      if (bins_ > kMaxBins) throw too_many_bins();
      levels_.push_back(level);
    }
    if (levels_.empty()) throw std::invalid_argument("expected at least one level, got none");
    plan(derive);
  }

  PyramidView view() const {
    return {levels_.data(),
            order_.data(),
            rectangles_.data(),
            static_cast<std::int32_t>(levels_.size()),
            bins_,
            spans_};
  }
  const std::vector<Level>& levels() const { return levels_; }

 private:
  static constexpr std::int64_t kMaxBins = kInt32Max;
  static constexpr std::size_t kSourcesTried = 256;

  static std::invalid_argument too_many_bins() {
    return std::invalid_argument("expected at most " + std::to_string(kMaxBins) +
                                 " bins over all levels");
  }

  // Grids first, finest first, so that each finds the grids it can be merged from already placed;
  // among those the nearest, which is the coarsest and takes the fewest merges. Listed bins come last: they
  // are never a source. Of very many levels a level tries only some, so that a plan never takes
  // longer than the pooling.
  void plan(bool derive) {
    order_.reserve(levels_.size());
    for (std::size_t i = 0; i < levels_.size(); ++i) order_.push_back(static_cast<std::int32_t>(i));
    std::sort(order_.begin(), order_.end(), [this](std::int32_t a, std::int32_t b) {
      const Level &x = levels_[a], &y = levels_[b];
      if (x.is_grid() != y.is_grid()) return x.is_grid();
      return x.is_grid() && x.bins != y.bins ? x.bins > y.bins : a < b;
    });
    std::size_t grids = 0;  // before this level
    for (const std::int32_t i : order_) {
      Level& level = levels_[i];
      const std::size_t farthest = grids > kSourcesTried ? grids - kSourcesTried : 0;
      for (std::size_t j = grids; derive && j > farthest && level.is_base(); --j) {
        const Level& source = levels_[order_[j - 1]];
        if (source.row_divisions % level.row_divisions == 0 &&
            source.col_divisions % level.col_divisions == 0) {
          level.source = order_[j - 1];
        }
      }
      grids += level.is_grid();
      if (level.is_base()) spans_ += level.row_spans() + level.col_spans();
    }
  }

  std::vector<Level> levels_;
  std::vector<std::int32_t> order_;
  std::vector<Rectangle> rectangles_;
  std::int64_t bins_ = 0;
  std::int64_t spans_ = 0;
};

// Walks through the base levels in `order`, which is also the order of their spans, each level's row
// spans before its column spans, and of their bins wherever base bins are counted.
class BaseLevels {
 public:
  SPP_HOST_DEVICE explicit BaseLevels(const PyramidView& pyramid) : pyramid_(pyramid) {}

  // Steps to the first base level, then to the next; false when there is none.
  SPP_HOST_DEVICE bool next() {
    if (level_ != nullptr) {
      first_span_ += level_->row_spans() + level_->col_spans();
      first_base_bin_ += level_->bins;
    }
    while (at_ < pyramid_.num_levels) {
      level_ = pyramid_.levels + pyramid_.order[at_++];
      if (level_->is_base()) return true;
    }
    return false;
  }
  SPP_HOST_DEVICE const Level& level() const { return *level_; }
  // Spans, and bins, of the base levels before this one.
  SPP_HOST_DEVICE std::int64_t first_span() const { return first_span_; }
  SPP_HOST_DEVICE std::int64_t first_base_bin() const { return first_base_bin_; }

 private:
  const PyramidView& pyramid_;
  const Level* level_ = nullptr;
  std::int32_t at_ = 0;
  std::int64_t first_span_ = 0;
  std::int64_t first_base_bin_ = 0;
};

// Span `k` of a base level along either axis, for one window on a map of height x width cells.
SPP_HOST_DEVICE Span row_span(const PyramidView& pyramid, const Level& level, std::int64_t k,
                              const Window& window, std::int64_t height) {
  const Rectangle cuts = pyramid.span_cuts(level, k);
  return bin_span(cuts.top, cuts.bottom, level.row_divisions, window.rows, window.edges, height);
}
SPP_HOST_DEVICE Span col_span(const PyramidView& pyramid, const Level& level, std::int64_t k,
                              const Window& window, std::int64_t width) {
  const Rectangle cuts = pyramid.span_cuts(level, k);
  return bin_span(cuts.left, cuts.right, level.col_divisions, window.cols, window.edges, width);
}

// All spans of a window, pyramid.spans of them.
inline void fill_spans(const PyramidView& pyramid, const Window& window, std::int64_t height,
                       std::int64_t width, Span* spans) {
  for (BaseLevels at(pyramid); at.next();) {
    const Level& level = at.level();
    for (std::int64_t k = 0; k < level.row_spans(); ++k)
      *spans++ = row_span(pyramid, level, k, window, height);
    for (std::int64_t k = 0; k < level.col_spans(); ++k)
      *spans++ = col_span(pyramid, level, k, window, width);
  }
}

// One of them alone, number `k`.
SPP_HOST_DEVICE Span nth_span(const PyramidView& pyramid, const Window& window, std::int64_t height,
                              std::int64_t width, std::int64_t k) {
  for (BaseLevels at(pyramid); at.next();) {
    const Level& level = at.level();
    const std::int64_t row = k - at.first_span(), col = row - level.row_spans();
    if (col < 0) return row_span(pyramid, level, row, window, height);
    if (col < level.col_spans()) return col_span(pyramid, level, col, window, width);
  }
  return {0, 0};
}

// Base bins that share their rows: a row of a grid, or one listed bin.
struct BinRow {
  Span rows;
  const Span* cols;  // [bins]
  std::int64_t bins;
  std::int64_t first_bin;
};

// Calls f(BinRow) for all base bins, whose spans fill_spans wrote.
template <class F>
SPP_HOST_DEVICE void for_each_bin_row(const PyramidView& pyramid, const Span* spans, const F& f) {
  for (BaseLevels at(pyramid); at.next();) {
    const Level& level = at.level();
    const Span* const rows = spans + at.first_span();
    const Span* const cols = rows + level.row_spans();
    const std::int64_t bins = level.is_grid() ? level.col_spans() : 1;
    for (std::int64_t r = 0; r < level.row_spans(); ++r) {
      f(BinRow{rows[r], level.is_grid() ? cols : cols + r, bins, level.first_bin + r * bins});
    }
  }
}

// One of them alone: a bin of a base level and the cells it covers.
struct BaseBin {
  std::int64_t bin;
  Span rows;
  Span cols;

  SPP_HOST_DEVICE bool is_empty() const { return rows.begin == rows.end || cols.begin == cols.end; }
};

// Base bin number `k`. `spans` are those of its window.
SPP_HOST_DEVICE BaseBin nth_base_bin(const PyramidView& pyramid, const Span* spans,
                                     std::int64_t k) {
  for (BaseLevels at(pyramid); at.next();) {
    const Level& level = at.level();
    const std::int64_t bin = k - at.first_base_bin();
    if (bin >= level.bins) continue;
    const Span* const rows = spans + at.first_span();
    const Span* const cols = rows + level.row_spans();
    return {level.first_bin + bin, rows[level.row_span_of(bin)], cols[level.col_span_of(bin)]};
  }
  return {0, {0, 0}, {0, 0}};
}

// Calls f(part) for each of the source's bins that bin `bin` of a derived level is merged from.
template <class F>
SPP_HOST_DEVICE void for_each_part(const PyramidView& pyramid, const Level& level, std::int64_t bin,
                                   const F& f) {
  const Level& source = pyramid.levels[level.source];
  const Rectangle parts = pyramid.merged_bins(level, bin);
  for (std::int32_t y = parts.top; y < parts.bottom; ++y) {
    for (std::int32_t x = parts.left; x < parts.right; ++x) {
      f(source.first_bin + std::int64_t{y} * source.col_divisions + x);
    }
  }
}

}  // namespace spp_ext
