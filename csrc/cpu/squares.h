// Maxima of squares of cells. A bin is covered by a few overlapping squares, so that its maximum takes
// a few look-ups where it has many cells.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/geometry.h"
#include "cpu/lanes.h"
#include "cpu/nans.h"
#include "cpu/tuning.h"

namespace spp_ext::cpu::SPP_ISA {
namespace {

// Of cells whose lanes are planes, none of which is NaN: squares of 1, 2, ... `sides` cells a side.
template <class V, int vectors>
struct Squares {
  // [sides][cells][vectors]: at each cell the square that starts there. Those that would cross the edge
  // of the map hold anything.
  V* tables;
  std::int64_t cells;
  std::int64_t width;  // of the map
  std::int32_t first_row;
  std::int32_t sides;

  V* table(std::int64_t side) const { return tables + (side - 1) * cells * vectors; }

  // Makes all tables from the first, the cells themselves: a square of n is covered by four of n - 1.
  void build() const {
    for (std::int64_t side = 2; side <= sides; ++side) {
      const V* const from = table(side - 1);
      V* const to = table(side);
      const std::int64_t right = vectors, below = width * vectors;
      const std::int64_t end = (cells - (side - 1) * (width + 1)) * vectors;
      for (std::int64_t i = 0; i < end; ++i) {
        to[i] = NansAbsent::combine(NansAbsent::combine(from[i], from[i + right]),
                                    NansAbsent::combine(from[i + below], from[i + below + right]));
      }
    }
  }

  // The maximum of a bin, which has a cell.
  void reduce(Span rows, Span cols, V* value) const {
    const std::int32_t height = rows.end - rows.begin, length = cols.end - cols.begin;
    const std::int32_t side = std::min(std::min(height, length), sides);
    const V* const first = table(side) + ((rows.begin - first_row) * width + cols.begin) * vectors;
    const std::int64_t below = width * vectors;
    const std::int64_t last_row = height - side, last_col = length - side;
    if (last_row <= side && last_col <= side) {  // as most are: the corners cover it
      const V* const last = first + last_row * below;
      for (int v = 0; v < vectors; ++v) {
        value[v] = NansAbsent::combine(NansAbsent::combine(first[v], first[last_col * vectors + v]),
                                       NansAbsent::combine(last[v], last[last_col * vectors + v]));
      }
      return;
    }
    V best[vectors];
    for (int v = 0; v < vectors; ++v) best[v] = first[v];
    for (std::int64_t y = 0; y < height; y += side) {
      const V* const row = first + std::min(y, last_row) * below;
      for (std::int64_t x = 0; x < length; x += side) {
        const V* const at = row + std::min(x, last_col) * vectors;
        for (int v = 0; v < vectors; ++v) best[v] = NansAbsent::combine(at[v], best[v]);
      }
    }
    for (int v = 0; v < vectors; ++v) value[v] = best[v];
  }
};

}  // namespace
}  // namespace spp_ext::cpu::SPP_ISA
