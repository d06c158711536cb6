// The bins of a few vectors of planes, one plane a lane: where pooling leaves base bins, where
// derived levels are merged from them, and from where rows of output are written.
//
//   values [B][vectors] of lanes  ->  output: for every plane and level, the level's bins in a run
//
// so writing is a transpose, a square of lanes at a time.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/pyramid.h"
#include "cpu/lane_unit.h"
#include "cpu/lanes.h"
#include "cpu/tuning.h"

namespace spp_ext::cpu::SPP_ISA {
namespace {

// Bins of all lanes, `stride` vectors apart, to one run of `count` elements after another.
template <int count, class V, class E>
void write_whole_runs(const V* bins, std::int64_t stride, E* run) {
  constexpr int n = sizeof(V) / sizeof(V{}[0]);
  V rows[count];
  for (int b = 0; b < count; ++b) rows[b] = bins[b * stride];
  interleave(rows);
  for (int b = 0; b < count; ++b) store(run + b * n, rows[b]);
}

// One level of one vector of planes: `count` bins of lanes, `stride` vectors apart, become `planes`
// runs of `count` elements, end to end.
template <class V, class E>
void write_runs(const V* bins, std::int64_t stride, std::int64_t count, int first_lane,
                std::int64_t planes, E* run) {
  constexpr int n = sizeof(V) / sizeof(V{}[0]);
  if (planes == n && first_lane == 0) {
    if (count == 1) return write_whole_runs<1>(bins, stride, run);
    if (count == 2) return write_whole_runs<2>(bins, stride, run);
    if (count == 4) return write_whole_runs<4>(bins, stride, run);
    if (count == 8) return write_whole_runs<8>(bins, stride, run);
  }
  if (count == 1 && first_lane == 0) return store_first(run, bins[0], planes);
  E* const end = run + planes * count;
  V square[n];
  if (count < n) {
    for (int b = 0; b < n; ++b) square[b] = bins[(b < count ? b : 0) * stride];
    transpose(square);
    // A whole vector is stored for each plane; what spills over its end is the next plane's, and
    // stored after it.
    for (std::int64_t plane = 0; plane < planes; ++plane) {
      E* const to = run + plane * count;
      if (end - to >= n) {
        store(to, square[first_lane + plane]);
      } else {
        store_first(to, square[first_lane + plane], count);
      }
    }
    return;
  }
  for (std::int64_t begin = 0; begin < count; begin += n) {
    const std::int64_t b0 =
        begin + n <= count ? begin : count - n;  // the last square overlaps the one before it
    for (int b = 0; b < n; ++b) square[b] = bins[(b0 + b) * stride];
    transpose(square);
    for (std::int64_t plane = 0; plane < planes; ++plane) {
      store(run + plane * count + b0, square[first_lane + plane]);
    }
  }
}

template <class S, int vectors, bool with_argmax>
struct BinBlock {
  Value<S>* values;  // [B][vectors]
  Index<S>* cells;   // [B][vectors], flat index of the cell a value came from
  // [B], whether a bin has no cell; the same for all lanes, since it is geometry
  std::uint8_t* empty;
  char* stage;  // [kStageBytes], where runs are put together before they are streamed

  BinBlock(Scratch& scratch, std::int64_t bins)
      : values(scratch.take<Value<S>>(bins * vectors)),
        cells(with_argmax ? scratch.take<Index<S>>(bins * vectors) : nullptr),
        empty(scratch.take<std::uint8_t>(bins)),
        stage(scratch.take<char>(tuning::kStageBytes)) {}

  void set_empty(std::int64_t bin) {
    empty[bin] = 1;
    for (int v = 0; v < vectors; ++v) {
      values[bin * vectors + v] = Value<S>{};
      if constexpr (with_argmax) cells[bin * vectors + v] = Index<S>{} - 1;
    }
  }

  // Every derived level, each bin the maximum of its source's bins. Bins of a source may share
  // cells and arrive in any order, so equal values are told apart by their cells. An empty bin
  // holds no value and must not take part.
  template <class Nans>
  void merge_derived(const PyramidView& pyramid) {
    for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
      const Level& level = pyramid.levels[pyramid.order[i]];
      if (level.is_base()) continue;
      for (std::int64_t bin = 0; bin < level.bins; ++bin) {
        merge_bin<Nans>(pyramid, level, bin);
      }
    }
  }

  // Writes `planes` lanes of vector `v` from `first_lane` on: planes that follow one another in one
  // image, the first of which is channel `first_channel` of output row `row`. With `streams` the
  // stores are non-temporal, and the caller must call finish_streams after them.
  void write(const PyramidView& pyramid, std::int64_t channels, std::int64_t row,
             std::int64_t first_channel, int v, int first_lane, std::int64_t planes, S* output,
             std::int32_t* argmax, bool streams = false) const {
    const RowOrder order = pyramid.row_order(channels);
    for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
      const Level& level = pyramid.levels[i];
      const auto write_level = [&](const auto* bins, auto* run) {
        using E = std::remove_reference_t<decltype(*run)>;
        const std::int64_t count = level.bins * planes;
        if (streams && count * static_cast<std::int64_t>(sizeof(E)) <= tuning::kStageBytes) {
          E* const staged = reinterpret_cast<E*>(stage);
          write_runs(bins, vectors, level.bins, first_lane, planes, staged);
          stream(run, staged, count);
        } else {
          write_runs(bins, vectors, level.bins, first_lane, planes, run);
        }
      };
      const std::int64_t at =
          row * order.size() + order.element(level.in_row(), {i, first_channel, 0});
      const std::int64_t first = level.first_bin * vectors + v;
      write_level(values + first, output + at);
      if constexpr (with_argmax) write_level(cells + first, argmax + at);
    }
  }

 private:
  template <class Nans>
  void merge_bin(const PyramidView& pyramid, const Level& level, std::int64_t bin_of_level) {
    Value<S> best[vectors];
    Index<S> best_cell[vectors];
    bool found = false;
    // Inlined by force, without which GCC keeps the best in memory.
    const auto take_part = [&](std::int64_t part) __attribute__((always_inline)) {
      if (empty[part]) return;
      for (int v = 0; v < vectors; ++v) {
        const Value<S> value = values[part * vectors + v];
        if (!found) {
          best[v] = value;
          if constexpr (with_argmax) best_cell[v] = cells[part * vectors + v];
        } else if constexpr (with_argmax) {
          const Index<S> cell = cells[part * vectors + v];
          const auto take = Nans::replaces(value, cell, best[v], best_cell[v]);
          best_cell[v] = take ? cell : best_cell[v];
          best[v] = take ? value : best[v];
        } else {
          best[v] = Nans::combine(value, best[v]);
        }
      }
      found = true;
    };
    for_each_part(pyramid, level, bin_of_level, take_part);
    const std::int64_t bin = level.first_bin + bin_of_level;
    if (!found) return set_empty(bin);
    empty[bin] = 0;
    for (int v = 0; v < vectors; ++v) {
      values[bin * vectors + v] = best[v];
      if constexpr (with_argmax) cells[bin * vectors + v] = best_cell[v];
    }
  }
};

}  // namespace
}  // namespace spp_ext::cpu::SPP_ISA
