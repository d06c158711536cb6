// Max pooling with one plane in each vector lane. Compiled once per instruction set, which SPP_ISA
// names.
//
// pool_planes, contiguous maps. A bin's rows are reduced first, plane by plane, along the memory: a
// vector holds neighbouring columns. What is left, one row of columns for each plane, is transposed
// so that a vector holds one column of many planes, and columns are reduced to bins there. The
// transpose thus handles W values a bin row, not H * W, and nothing is ever reduced across the lanes
// of a vector.
//
//   plane 0  [x0 x1 x2 ...]               x0  [p0 p1 p2 ...]
//   plane 1  [x0 x1 x2 ...]  transpose->  x1  [p0 p1 p2 ...]  columns of a bin-> [p0 p1 p2 ...]
//   plane 2  [x0 x1 x2 ...]               x2  [p0 p1 p2 ...]
//
// pool_channels, channels_last maps. A cell's channels are neighbours in memory, so lanes are planes
// from the start.
//
// pool_regions. The rows that any region of a unit touches are copied once into a slab
// [cells][lanes], from either layout, and every region pools from there.
#include <cstdint>
#include <type_traits>

#include "core/integers.h"
#include "cpu/bin_block.h"
#include "cpu/lane_unit.h"
#include "cpu/lanes.h"
#include "cpu/nans.h"
#include "cpu/pool_job.h"
#include "cpu/slab.h"
#include "cpu/squares.h"
#include "cpu/tuning.h"

#define SPP_STRING_OF(name) #name
#define SPP_STRING(name) SPP_STRING_OF(name)

namespace spp_ext::cpu::SPP_ISA {
namespace {

using tuning::kChannelVectors;
using tuning::kRowsAtOnce;

// Cells whose lanes are planes: lanes of cell (y, x) start at data + (y - first_row) * row_stride +
// x * cell_stride.
template <class S>
struct LaneCells {
  const S* data;
  std::int64_t first_row;
  std::int64_t row_stride;
  std::int64_t cell_stride;
  std::int64_t width;   // W of the map, for flat indices
  std::int64_t planes;  // lanes in use of the last vector
  const S* end;         // of readable memory
};

// One bin of `vectors` neighbouring vectors of planes. Cells come in row-major order.
template <int vectors, bool with_argmax, bool partial, class S, class Nans>
void reduce_rectangle(const LaneCells<S>& from, Span rows, Span cols, Nans& nans, Value<S>* value,
                      Index<S>* cell) {
  const auto load_cell = [&](const S* at, int v) {
    if constexpr (partial) return load_first(at + v * kLanes<S>, from.planes, from.end);
    return load(at + v * kLanes<S>);
  };
  const S* row =
      from.data + (rows.begin - from.first_row) * from.row_stride + cols.begin * from.cell_stride;
  Value<S> best[vectors];
  Index<S> best_cell[vectors];
  for (int v = 0; v < vectors; ++v) {
    best[v] = load_cell(row, v);
    best_cell[v] = broadcast<S>(rows.begin * from.width + cols.begin);
  }
  for (std::int32_t y = rows.begin; y < rows.end; ++y, row += from.row_stride) {
    const S* at = row;
    for (std::int32_t x = cols.begin; x < cols.end; ++x, at += from.cell_stride) {
      const Index<S> here = broadcast<S>(y * from.width + x);
      Value<S> candidate[vectors];
      for (int v = 0; v < vectors; ++v) candidate[v] = load_cell(at, v);
      for (int v = 0; v < vectors; v += 2) {
        nans.note(candidate[v], candidate[vectors == 1 ? v : v + 1]);
      }
      for (int v = 0; v < vectors; ++v) {
        if constexpr (with_argmax) {
          const auto take = Nans::replaces(candidate[v], best[v]);
          best[v] = take ? candidate[v] : best[v];
          best_cell[v] = take ? here : best_cell[v];
        } else {
          best[v] = Nans::combine(candidate[v], best[v]);
        }
      }
    }
  }
  for (int v = 0; v < vectors; ++v) {
    value[v] = best[v];
    if constexpr (with_argmax) cell[v] = best_cell[v];
  }
}

// Calls reduce(rows, cols, bin) for every base bin that has a cell, and merges the other levels from
// them. Says whether a NaN was seen, which left the bins unfinished.
template <class Nans, int vectors, class S, bool with_argmax, class Reduce>
bool fill_bins(const PyramidView& pyramid, Merges merges, const Span* spans, const Nans& nans,
               BinBlock<S, vectors, with_argmax>& bins, const Reduce& reduce) {
  for_each_bin_row(pyramid, spans, [&](const BinRow& row) {
    if (nans.seen()) return;  // all of it will be done again
    for (std::int64_t c = 0; c < row.bins; ++c) {
      const std::int64_t bin = row.first_bin + c;
      const Span cols = row.cols[c];
      if (row.rows.begin == row.rows.end || cols.begin == cols.end) {
        bins.set_empty(bin);
        continue;
      }
      bins.empty[bin] = 0;
      reduce(row.rows, cols, bin);
    }
  });
  if (nans.seen()) return true;
  bins.template merge<Nans>(merges);
  return false;
}

// Every bin of all levels, from cells whose lanes are planes. Out of line, so that the registers of
// its loops do not depend on the caller.
template <class Nans, int vectors, bool partial, class S, class T, bool with_argmax>
__attribute__((noinline)) bool reduce_bins(const PyramidView& pyramid, Merges merges,
                                           const Span* spans, LaneCells<S> from,
                                           BinBlock<T, vectors, with_argmax> bins) {
  Nans nans;
  return fill_bins(pyramid, merges, spans, nans, bins, [&](Span rows, Span cols, std::int64_t bin) {
    reduce_rectangle<vectors, with_argmax, partial>(
        from, rows, cols, nans, bins.values + bin * vectors, bins.cells + bin * vectors);
  });
}

// The same from squares of them.
template <int vectors, class V, class S>
__attribute__((noinline)) void reduce_bins(const PyramidView& pyramid, Merges merges,
                                           const Span* spans, Squares<V, vectors> from,
                                           BinBlock<S, vectors, false> bins) {
  fill_bins(pyramid, merges, spans, NansAbsent{}, bins,
            [&](Span rows, Span cols, std::int64_t bin) {
              from.reduce(rows, cols, bins.values + bin * vectors);
            });
}

// ---- contiguous maps ----

// Folds `count` neighbouring rows into the best of each column so far. Lanes are columns; the last
// vector of a row may run over into what follows, and the caller ignores those lanes.
template <int count, bool first, bool with_argmax, class S, class Nans>
void fold_rows(const S* rows, std::int64_t first_cell, std::int64_t columns, std::int64_t width,
               const S* end, Nans& nans, Value<S>* values, Index<S>* cells) {
  constexpr int n = kLanes<S>;
  const Index<S> lane = iota<Index<S>>();
  for (std::int64_t x = 0; x < columns; x += n) {
    const bool whole = x + n <= columns;
    Value<S> row[count];
#pragma GCC unroll 4
    for (int r = 0; r < count; ++r) {
      const S* at = rows + r * width + x;
      row[r] = whole ? load(at) : load_first(at, columns - x, end);
      // Jumps between rows and planes hide from the processor what comes next.
      __builtin_prefetch(at + kRowsAtOnce * width);
    }
#pragma GCC unroll 2
    for (int r = 0; r < count; r += 2) nans.note(row[r], row[r + 1 < count ? r + 1 : r]);
    Value<S> best = first ? row[0] : values[x / n];
    [[maybe_unused]] Index<S> best_cell;
    if constexpr (with_argmax)
      best_cell = first ? lane + broadcast<S>(first_cell + x) : cells[x / n];
#pragma GCC unroll 4
    for (int r = first ? 1 : 0; r < count; ++r) {
      if constexpr (with_argmax) {
        const auto take = Nans::replaces(row[r], best);
        best = take ? row[r] : best;
        best_cell = take ? lane + broadcast<S>(first_cell + r * width + x) : best_cell;
      } else {
        best = Nans::combine(row[r], best);
      }
    }
    values[x / n] = best;
    if constexpr (with_argmax) cells[x / n] = best_cell;
  }
}

// The best of each column over `rows` of one plane, for `columns` columns from `first_column` on.
// Four rows at a time: memory is read along the rows, and the running best is loaded once per four.
template <bool with_argmax, class S, class Nans>
void reduce_rows(const S* plane, std::int64_t width, Span rows, std::int64_t first_column,
                 std::int64_t columns, const S* end, Nans& nans, Value<S>* values,
                 Index<S>* cells) {
  const auto fold = [&](auto count, auto first, std::int32_t y) {
    const std::int64_t cell = y * width + first_column;
    fold_rows<count, first, with_argmax>(plane + cell, cell, columns, width, end, nans, values,
                                         cells);
  };
  static_assert(kRowsAtOnce == 4, "fold_few folds up to four rows");
  const auto fold_few = [&](std::int32_t count, auto first, std::int32_t y) {
    switch (count) {
      case 1:
        return fold(std::integral_constant<int, 1>{}, first, y);
      case 2:
        return fold(std::integral_constant<int, 2>{}, first, y);
      case 3:
        return fold(std::integral_constant<int, 3>{}, first, y);
      default:
        return fold(std::integral_constant<int, 4>{}, first, y);
    }
  };
  std::int32_t y = rows.begin;
  fold_few(rows.end - y, std::true_type{}, y);
  for (y += kRowsAtOnce; y < rows.end; y += kRowsAtOnce)
    fold_few(rows.end - y, std::false_type{}, y);
}

// The best of neighbouring columns of a transposed row of columns. Cells do not come in row-major
// order.
template <class Nans, bool with_argmax, class S>
void reduce_columns(const Value<S>* values, const Index<S>* cells, std::int64_t begin,
                    std::int64_t end, Value<S>* value, Index<S>* cell) {
  Value<S> best = values[begin];
  [[maybe_unused]] Index<S> best_cell;
  if constexpr (with_argmax) best_cell = cells[begin];
  for (std::int64_t x = begin + 1; x < end; ++x) {
    if constexpr (with_argmax) {
      const auto take = Nans::replaces(values[x], cells[x], best, best_cell);
      best = take ? values[x] : best;
      best_cell = take ? cells[x] : best_cell;
    } else {
      best = Nans::combine(values[x], best);
    }
  }
  *value = best;
  if constexpr (with_argmax) *cell = best_cell;
}

template <class S, bool with_argmax>
struct PlaneScratch {
  std::int64_t vectors;     // that hold a row of columns
  Value<S>* row_values;     // [lanes][vectors], the best of each column; one row for each plane
  Index<S>* row_cells;      // [lanes][vectors]
  Value<S>* column_values;  // [vectors * lanes], transposed: one vector for each column
  Index<S>* column_cells;   // [vectors * lanes]
  BinBlock<S, 1, with_argmax> bins;

  PlaneScratch(Scratch& scratch, const MapJob& job)
      : vectors(divide_up(job.params.input.width, kLanes<S>)),
        row_values(scratch.take<Value<S>>(kLanes<S> * vectors)),
        row_cells(with_argmax ? scratch.take<Index<S>>(kLanes<S> * vectors) : nullptr),
        column_values(scratch.take<Value<S>>(kLanes<S> * vectors)),
        column_cells(with_argmax ? scratch.take<Index<S>>(kLanes<S> * vectors) : nullptr),
        bins(scratch, job.params.pyramid.bins) {}
};

// Rows of `vectors` vectors, one row a lane, become one vector a column.
template <class V>
void transpose_rows(const V* rows, std::int64_t vectors, std::int64_t used_rows, V* columns) {
  constexpr int n = sizeof(V) / sizeof(V{}[0]);
  for (std::int64_t block = 0; block < vectors; ++block) {
    V square[n];
    for (int lane = 0; lane < n; ++lane)
      square[lane] = rows[(lane < used_rows ? lane : 0) * vectors + block];
    transpose(square);
    for (int x = 0; x < n; ++x) columns[block * n + x] = square[x];
  }
}

// Every bin of all levels; says whether a NaN was seen, which left the bins unfinished.
template <class Nans, class S, bool with_argmax>
bool reduce_planes(const MapJob& job, const PlaneUnit& unit, PlaneScratch<S, with_argmax>& s) {
  Nans nans;
  const FeatureMap& input = job.params.input;
  const S* const data = static_cast<const S*>(input.data);
  const S* const end = data + input.batch * input.channels * input.cells();
  for_each_bin_row(job.params.pyramid, job.spans, [&](const BinRow& row) {
    if (nans.seen()) return;  // all of it will be done again
    if (row.rows.begin == row.rows.end) {
      for (std::int64_t c = 0; c < row.bins; ++c) s.bins.set_empty(row.first_bin + c);
      return;
    }
    const std::int64_t first_column = row.cols[0].begin;
    const std::int64_t columns = row.cols[row.bins - 1].end - first_column;
    const std::int64_t vectors = divide_up(columns, kLanes<S>);
    for (std::int64_t lane = 0; lane < unit.planes; ++lane) {
      reduce_rows<with_argmax>(data + (unit.first_plane + lane) * input.cells(), input.width,
                               row.rows, first_column, columns, end, nans,
                               s.row_values + lane * vectors,
                               with_argmax ? s.row_cells + lane * vectors : nullptr);
    }
    transpose_rows(s.row_values, vectors, unit.planes, s.column_values);
    if constexpr (with_argmax) {
      transpose_rows(s.row_cells, vectors, unit.planes, s.column_cells);
    }
    for (std::int64_t c = 0; c < row.bins; ++c) {
      const std::int64_t bin = row.first_bin + c;
      if (row.cols[c].begin == row.cols[c].end) {
        s.bins.set_empty(bin);
        continue;
      }
      reduce_columns<Nans, with_argmax, S>(
          s.column_values, s.column_cells, row.cols[c].begin - first_column,
          row.cols[c].end - first_column, s.bins.values + bin, s.bins.cells + bin);
      s.bins.empty[bin] = 0;
    }
  });
  if (nans.seen()) return true;
  s.bins.template merge<Nans>(job.merges);
  return false;
}

template <class S, bool with_argmax>
void pool_planes_of(const MapJob& job, const PlaneUnit& unit, void* memory) {
  const FeatureMap& input = job.params.input;
  Scratch scratch(memory);
  PlaneScratch<S, with_argmax> s(scratch, job);
  if (reduce_planes<NansDetected<Value<S>, with_argmax>>(job, unit, s))
    reduce_planes<NansHandled>(job, unit, s);

  // Planes of one image are written together; a unit may hold the end of one image and the start of
  // the next.
  for (std::int64_t lane = 0; lane < unit.planes;) {
    const std::int64_t image = (unit.first_plane + lane) / input.channels;
    const std::int64_t channel = (unit.first_plane + lane) % input.channels;
    const std::int64_t left_in_image = input.channels - channel;
    const std::int64_t left_in_unit = unit.planes - lane;
    const std::int64_t planes = left_in_image < left_in_unit ? left_in_image : left_in_unit;
    s.bins.write(job.params.pyramid, input.channels, image, channel, static_cast<int>(lane), planes,
                 static_cast<S*>(job.params.output), job.params.argmax);
    lane += planes;
  }
}

std::size_t plane_scratch(const MapJob& job) {
  return scratch_of<PlaneScratch>(job.params.input.dtype, job.params.argmax != nullptr, job);
}

void pool_planes(const MapJob& job, const PlaneUnit& unit, void* scratch) {
  dispatch(job.params.input.dtype, job.params.argmax != nullptr,
           [&](auto storage, auto with_argmax) {
             pool_planes_of<decltype(storage), with_argmax>(job, unit, scratch);
           });
}

// ---- channels_last maps ----

template <class S, bool with_argmax>
using ChannelScratch = BinBlock<S, kChannelVectors, with_argmax>;

template <class S, int vectors, bool with_argmax, bool partial>
void pool_channel_vectors(const MapJob& job, const ChannelUnit& unit, void* memory) {
  const FeatureMap& input = job.params.input;
  const S* const data = static_cast<const S*>(input.data);
  Scratch scratch(memory);
  const PyramidView& pyramid = job.params.pyramid;
  BinBlock<S, vectors, with_argmax> bins(scratch, pyramid.bins);
  const LaneCells<S> cells{data + unit.image * input.cells() * input.channels + unit.first_channel,
                           0,
                           input.width * input.channels,
                           input.channels,
                           input.width,
                           unit.channels,
                           data + input.batch * input.cells() * input.channels};
  using Detected = NansDetected<Value<S>, with_argmax>;
  if (reduce_bins<Detected, vectors, partial>(pyramid, job.merges, job.spans, cells, bins)) {
    reduce_bins<NansHandled, vectors, partial>(pyramid, job.merges, job.spans, cells, bins);
  }
  bins.write(pyramid, input.channels, unit.image, unit.first_channel, 0, unit.channels,
             static_cast<S*>(job.params.output), job.params.argmax);
}

std::size_t channel_scratch(const MapJob& job) {
  return scratch_of<ChannelScratch>(job.params.input.dtype, job.params.argmax != nullptr,
                                    job.params.pyramid.bins);
}

void pool_channels(const MapJob& job, const ChannelUnit& unit, void* scratch) {
  dispatch(
      job.params.input.dtype, job.params.argmax != nullptr, [&](auto storage, auto with_argmax) {
        using S = decltype(storage);
        if (unit.channels == kChannelVectors * kLanes<S>) {
          return pool_channel_vectors<S, kChannelVectors, with_argmax, false>(job, unit, scratch);
        }
        ChannelUnit part = unit;
        for (const std::int64_t end = unit.first_channel + unit.channels; part.first_channel < end;
             part.first_channel += kLanes<S>) {
          part.channels =
              end - part.first_channel < kLanes<S> ? end - part.first_channel : kLanes<S>;
          if (part.channels == kLanes<S>) {
            pool_channel_vectors<S, 1, with_argmax, false>(job, part, scratch);
          } else {
            pool_channel_vectors<S, 1, with_argmax, true>(job, part, scratch);
          }
        }
      });
}

// ---- regions ----

// A wide unit has this many vectors of channels.
constexpr int kRegionVectors = tuning::region_vectors(kVectorBytes);

template <class S, int vectors, bool with_argmax>
struct RegionScratch {
  Value<S>* slab;  // [sides of squares][cells][vectors], cells rounded up to whole squares of lanes
  BinBlock<S, vectors, with_argmax> bins;

  RegionScratch(Scratch& scratch, const RegionJob& job)
      : slab(scratch.take<Value<S>>(job.slab_vectors)), bins(scratch, job.params.pyramid.bins) {}
};

template <class S, int vectors, bool with_argmax>
void pool_region_vectors(const RegionJob& job, const RegionUnit& unit, void* memory) {
  using T = ComputeType<S>;
  const FeatureMap& input = job.params.maps[unit.map];
  const PyramidView& pyramid = job.params.pyramid;
  Scratch scratch(memory);
  RegionScratch<S, vectors, with_argmax> s(scratch, job);
  const Span rows = unit.map_rows;
  const bool any_nan = load_slab<vectors, S>(input, unit.planes, rows, s.slab);
  const std::int64_t size = (rows.end - rows.begin) * input.width;
  const T* const slab = reinterpret_cast<const T*>(s.slab);
  constexpr std::int64_t kCell = kLanes<S> * vectors;
  const LaneCells<T> cells{slab,        rows.begin, input.width * kCell, kCell,
                           input.width, kLanes<S>,  slab + size * kCell};
  const Squares<Value<S>, vectors> squares{s.slab, divide_up(size, kLanes<S>) * kLanes<S>,
                                           input.width, rows.begin, unit.sides};
  if (!any_nan) squares.build();
  for (std::int64_t k = unit.first_row; k < unit.end_row; ++k) {
    const std::int64_t row = job.rows[k];
    const Span* const spans = job.spans + row * pyramid.spans;
    if (any_nan) {
      reduce_bins<NansHandled, vectors, false>(pyramid, job.merges, spans, cells, s.bins);
    } else if constexpr (with_argmax) {
      reduce_bins<NansAbsent, vectors, false>(pyramid, job.merges, spans, cells, s.bins);
    } else {
      reduce_bins(pyramid, job.merges, spans, squares, s.bins);
    }
    s.bins.write(pyramid, input.channels, row, unit.planes.first_channel, 0, unit.planes.channels,
                 static_cast<S*>(job.params.output), job.params.argmax, job.streams);
  }
  if (job.streams) finish_streams();
}

template <class S, bool with_argmax>
using NarrowRegionScratch = RegionScratch<S, 1, with_argmax>;
template <class S, bool with_argmax>
using WideRegionScratch = RegionScratch<S, kRegionVectors, with_argmax>;

std::size_t region_scratch(const RegionJob& job) {
  const DType dtype = job.params.maps[0].dtype;
  const bool with_argmax = job.params.argmax != nullptr;
  return job.wide ? scratch_of<WideRegionScratch>(dtype, with_argmax, job)
                  : scratch_of<NarrowRegionScratch>(dtype, with_argmax, job);
}

void pool_regions(const RegionJob& job, const RegionUnit& unit, void* scratch) {
  dispatch(job.params.maps[0].dtype, job.params.argmax != nullptr,
           [&](auto storage, auto with_argmax) {
             using S = decltype(storage);
             if (unit.planes.channels > (kRegionVectors - 1) * kLanes<S>) {
               return pool_region_vectors<S, kRegionVectors, with_argmax>(job, unit, scratch);
             }
             RegionUnit part = unit;
             const std::int64_t end = unit.planes.first_channel + unit.planes.channels;
             for (; part.planes.first_channel < end; part.planes.first_channel += kLanes<S>) {
               const std::int64_t left = end - part.planes.first_channel;
               part.planes.channels = left < kLanes<S> ? left : kLanes<S>;
               pool_region_vectors<S, 1, with_argmax>(job, part, scratch);
             }
           });
}

}  // namespace

extern const LaneKernels kLaneKernels{SPP_STRING(SPP_ISA),
                                      kVectorBytes,
                                      {plane_scratch, pool_planes},
                                      {channel_scratch, pool_channels},
                                      {region_scratch, pool_regions},
                                      kStride1Kernel};

}  // namespace spp_ext::cpu::SPP_ISA
