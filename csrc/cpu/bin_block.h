// The bins of a few vectors of planes, one plane a lane: where pooling leaves base bins, where
// derived levels are merged from them, and from where rows of output are written.
//
//   values [B][vectors] of lanes  ->  output: for every plane and level, the level's bins in a run
//
// so writing is a transpose, a square of lanes at a time.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/pyramid.h"
#include "cpu/lane_unit.h"
#include "cpu/lanes.h"
#include "cpu/pool_job.h"
#include "cpu/tuning.h"

namespace spp_ext::cpu::SPP_ISA {
namespace {

// Bins [first, first + size) of `planes` lanes from `first_lane` on, into runs of `count` elements. Vectors
// of bins are `stride` apart.
template <int size, bool all_lanes, class V, class E>
void write_bins(const V* bins, std::int64_t stride, std::int64_t count, int first_lane,
                std::int64_t planes, E* run) {
  constexpr int n = sizeof(V) / sizeof(V{}[0]);
  V rows[size];
#pragma GCC unroll 16
  for (int b = 0; b < size; ++b) rows[b] = bins[b * stride];
  if constexpr (size == n) {
    transpose(rows);
  } else {
    transpose_blocks(rows);
  }
  const auto write_lane = [&](int lane, E* to) __attribute__((always_inline)) {
    const auto elements = packed<E>(rows[lane % size]);
    std::memcpy(to, reinterpret_cast<const E*>(&elements) + lane / size * size, size * sizeof(E));
  };
  if constexpr (all_lanes) {
#pragma GCC unroll 16
    for (int lane = 0; lane < n; ++lane) write_lane(lane, run + lane * count);
  } else {
    for (std::int64_t p = 0; p < planes; ++p)
      write_lane(static_cast<int>(first_lane + p), run + p * count);
  }
}

// One level of one vector of planes: `count` bins of lanes, `stride` vectors apart, become `planes`
// runs of `count` elements, end to end.
template <bool all_lanes, class V, class E>
void write_runs(const V* bins, std::int64_t stride, std::int64_t count, int first_lane,
                std::int64_t planes, E* run) {
  constexpr int n = sizeof(V) / sizeof(V{}[0]), block = kBlockLanes<V>;
  std::int64_t b = 0;
  const auto write = [&](auto size) {
    write_bins<size, all_lanes>(bins + b * stride, stride, count, first_lane, planes, run + b);
    b += size;
  };
  while (b + n <= count) write(std::integral_constant<int, n>{});
  while (b + block <= count) write(std::integral_constant<int, block>{});
  if (b < count && count >= block) {  // once more, with some of those before
    b = count - block;
    return write(std::integral_constant<int, block>{});
  }
  if (b < count) {
    // A whole block is written for each lane; what spills over is the next one's, and written after it.
    V bins_and_more[block];
    for (int i = 0; i < block; ++i) bins_and_more[i] = bins[(i < count ? i : 0) * stride];
    E runs[n * block];
    write_bins<block, all_lanes>(bins_and_more, 1, count, first_lane, planes, runs);
    std::memcpy(run, runs, static_cast<std::size_t>(planes * count) * sizeof(E));
  }
}
template <class V, class E>
void write_runs(const V* bins, std::int64_t stride, std::int64_t count, int first_lane,
                std::int64_t planes, E* run) {
  constexpr int n = sizeof(V) / sizeof(V{}[0]);
  if (count == 1 && first_lane == 0) {
    planes == n ? store(run, bins[0]) : store_first(run, bins[0], planes);
  } else if (planes == n) {
    write_runs<true>(bins, stride, count, 0, n, run);
  } else {
    write_runs<false>(bins, stride, count, first_lane, planes, run);
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

  // Every derived bin, the maximum of its parts. Those may share cells and arrive in any order, so equal
  // values are told apart by their cells. An empty bin holds no value and does not take part.
  template <class Nans>
  void merge(Merges merges) {
    for (const Merge* merge = merges.begin; merge < merges.end; ++merge) {
      const std::int64_t* part = merge->parts;
      const std::int64_t* const end = part + merge->num_parts;
      while (part < end && empty[*part]) ++part;
      if (part == end) {
        set_empty(merge->bin);
        continue;
      }
      Value<S> best[vectors];
      [[maybe_unused]] Index<S> best_cell[vectors];
      for (int v = 0; v < vectors; ++v) {
        best[v] = values[*part * vectors + v];
        if constexpr (with_argmax) best_cell[v] = cells[*part * vectors + v];
      }
      for (++part; part < end; ++part) {
        if (empty[*part]) continue;
        for (int v = 0; v < vectors; ++v) {
          const Value<S> value = values[*part * vectors + v];
          if constexpr (with_argmax) {
            const Index<S> cell = cells[*part * vectors + v];
            const auto take = Nans::replaces(value, cell, best[v], best_cell[v]);
            best_cell[v] = take ? cell : best_cell[v];
            best[v] = take ? value : best[v];
          } else {
            best[v] = Nans::combine(value, best[v]);
          }
        }
      }
      empty[merge->bin] = 0;
      for (int v = 0; v < vectors; ++v) {
        values[merge->bin * vectors + v] = best[v];
        if constexpr (with_argmax) cells[merge->bin * vectors + v] = best_cell[v];
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
};

}  // namespace
}  // namespace spp_ext::cpu::SPP_ISA
