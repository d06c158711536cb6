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

// The first bins of `planes` lanes from `first_lane` on, as many as `num_rows` vectors of lanes hold, into
// runs of `count` elements. Vectors of bins are `stride` apart.
template <int num_rows, bool all_lanes, class V, class E>
void write_bins(const V* bins, std::int64_t stride, std::int64_t count, int first_lane,
                std::int64_t planes, E* run) {
  constexpr int n = sizeof(V) / sizeof(V{}[0]), per_lane = kElementsPerLane<E, V>;
  decltype(filled_lanes<E>(bins, stride)) rows[num_rows];
#pragma GCC unroll 16
  for (int r = 0; r < num_rows; ++r)
    rows[r] = filled_lanes<E>(bins + r * per_lane * stride, stride);
  gather_lanes(rows);
  const auto write_lane = [&](int lane) __attribute__((always_inline)) {
    std::memcpy(run, gathered_lane(rows, lane), sizeof(E) * per_lane * num_rows);
    run += count;
  };
  if constexpr (all_lanes) {
#pragma GCC unroll 16
    for (int lane = 0; lane < n; ++lane) write_lane(lane);
  } else {
    for (std::int64_t p = 0; p < planes; ++p) write_lane(static_cast<int>(first_lane + p));
  }
}

// One level of one vector of planes: `count` bins of lanes, `stride` vectors apart, become `planes`
// runs of `count` elements, end to end.
template <bool all_lanes, class V, class E>
void write_runs(const V* bins, std::int64_t stride, std::int64_t count, int first_lane,
                std::int64_t planes, E* run) {
  constexpr int n = sizeof(V) / sizeof(V{}[0]), block = kBlockLanes<V>;
  std::int64_t done = 0;
  // As many bins as `num_rows` vectors hold, again and again; those left over together with some of those
  // before.
  const auto write = [&](auto num_rows) {
    constexpr int size = num_rows * kElementsPerLane<E, V>;
    const auto write_from = [&](std::int64_t b) {
      write_bins<num_rows, all_lanes>(bins + b * stride, stride, count, first_lane, planes,
                                      run + b);
    };
    for (; done + size <= count; done += size) write_from(done);
    if (num_rows <= block && done < count && size <= count) {
      write_from(count - size);
      done = count;
    }
  };
  write(std::integral_constant<int, n>{});
  write(std::integral_constant<int, block>{});
  if constexpr (block > 2) write(std::integral_constant<int, 2>{});
  write(std::integral_constant<int, 1>{});
}
template <class V, class E>
void write_runs(const V* bins, std::int64_t stride, std::int64_t count, int first_lane,
                std::int64_t planes, E* run) {
  constexpr int n = sizeof(V) / sizeof(V{}[0]);
  if (count == 1) {
    const auto elements = packed<E>(bins[0]);
    std::memcpy(run, reinterpret_cast<const E*>(&elements) + first_lane,
                static_cast<std::size_t>(planes) * sizeof(E));
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

  // Writes `planes` lanes from `first_lane` on: planes that follow one another in one image, the first of
  // which is channel `first_channel` of output row `row`. With `streams` the stores are non-temporal,
  // and the caller must call finish_streams after them.
  void write(const PyramidView& pyramid, std::int64_t channels, std::int64_t row,
             std::int64_t first_channel, int first_lane, std::int64_t planes, S* output,
             std::int32_t* argmax, bool streams = false) const {
    const RowOrder order = pyramid.row_order(channels);
    const auto write_levels = [&](const auto* bins, auto* out) {
      using E = std::remove_reference_t<decltype(*out)>;
      constexpr std::int64_t n = kLanes<S>;
      E* const staged = reinterpret_cast<E*>(stage);
      const std::int64_t room = tuning::kStageBytes / std::int64_t{sizeof(E)};
      // All levels are put together before the first is streamed: what has just been stored is slow to
      // load again.
      for (const bool streaming : {false, true}) {
        if (streaming && !streams) break;
        std::int64_t used = 0;
        for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
          const Level& level = pyramid.levels[i];
          const std::int64_t count = level.bins * planes;
          E* const run =
              out + row * order.size() + order.element(level.in_row(), {i, first_channel, 0});
          const bool fits = streams && used + count <= room;
          E* const to = fits ? staged + used : run;
          if (fits) used += count;
          if (streaming) {
            if (fits) stream(run, to, count);
            continue;
          }
          for (std::int64_t first = 0; first < planes; first += n) {
            const std::int64_t left = planes - first;
            write_runs(bins + level.first_bin * vectors + first / n, vectors, level.bins,
                       first_lane, left < n ? left : n, to + first * level.bins);
          }
        }
      }
    };
    write_levels(values, output);
    if constexpr (with_argmax) write_levels(cells, argmax);
  }
};

}  // namespace
}  // namespace spp_ext::cpu::SPP_ISA
