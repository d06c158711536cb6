// Stride-1 max pools of several kernel sizes, one plane in each vector lane. Compiled once per
// instruction set, which SPP_ISA names.
//
// A pool of k x k follows from one of j x j, k = j + 2d, d <= j: the window around x is the union of
// the smaller windows around x - d, x and x + d. So sizes are reached by widening the last result,
// first along rows, then along columns, three look-ups each: 5 = 1 -> 3 -> 5, then 9 and 13 in one
// step more each, whatever the area. Where x - d or x + d lies outside the map the nearest cell
// stands in: its window is part of the wanted one, and all of it that is missing lies outside.
//
// Without argmax, a step of up to kReach cells slides along each line: what it looks up stays in
// registers, each cell is read once, and the result takes the place of what was read. There the cells
// between x - d and x + d may take part too, so 5 follows from 1 in one step.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/integers.h"
#include "cpu/bin_block.h"
#include "cpu/lane_unit.h"
#include "cpu/lanes.h"
#include "cpu/nans.h"
#include "cpu/pool_job.h"
#include "cpu/slab.h"

namespace spp_ext::cpu::SPP_ISA {
namespace {

template <class S, bool with_argmax>
struct Planes {
  Value<S>* values;  // [cells, rounded up to whole squares of lanes][vectors]
  Index<S>* cells;   // alike: the cell of the input that a value came from

  Planes(Scratch& scratch, std::int64_t size)
      : values(scratch.take<Value<S>>(size)),
        cells(with_argmax ? scratch.take<Index<S>>(size) : nullptr) {}
};

template <class S, bool with_argmax>
struct Stride1Scratch {
  Planes<S, with_argmax> best;     // the last result
  Planes<S, with_argmax> widened;  // along one axis; between steps, where runs are put together
  Index<S>* before;                // a cascade's cells before the stage at work

  Stride1Scratch(Scratch& scratch, const Stride1Job& job)
      : best(scratch, padded(job)),
        widened(scratch, padded(job)),
        before(with_argmax && job.params.cascade ? scratch.take<Index<S>>(padded(job)) : nullptr) {}

  static std::int64_t padded(const Stride1Job& job) {
    return divide_up(job.params.input.cells(), kLanes<S>) * kLanes<S> *
           (job.wide ? tuning::kStride1Vectors : 1);
  }
};

// to[y][x] = the best of `from` at (y, x) and `distance` cells before and after it: in the same row
// when along_rows, otherwise in the same column.
template <bool along_rows, int vectors, class Nans, class S, bool with_argmax>
void widen(const Planes<S, with_argmax>& from, std::int64_t height, std::int64_t width,
           std::int64_t distance, Planes<S, with_argmax>& to) {
  static_assert(vectors == 1 || !with_argmax);
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      const std::int64_t here = y * width + x;
      std::int64_t before, after;
      if constexpr (along_rows) {
        before = here - std::min(x, distance);
        after = here + std::min(width - 1 - x, distance);
      } else {
        before = here - std::min(y, distance) * width;
        after = here + std::min(height - 1 - y, distance) * width;
      }
      if constexpr (with_argmax) {
        Value<S> best = from.values[before];
        Index<S> cell = from.cells[before];
        for (const std::int64_t at : {here, after}) {
          const auto take = Nans::replaces(from.values[at], from.cells[at], best, cell);
          best = take ? from.values[at] : best;
          cell = take ? from.cells[at] : cell;
        }
        to.values[here] = best;
        to.cells[here] = cell;
      } else {
        for (int v = 0; v < vectors; ++v) {
          const auto at = [&](std::int64_t cell) { return from.values[cell * vectors + v]; };
          to.values[here * vectors + v] =
              Nans::combine(at(after), Nans::combine(at(here), at(before)));
        }
      }
    }
  }
}

// The farthest look-up of a step that slides.
constexpr int kReach = 2;
// Lines that slide together, which keeps their windows in registers: one alone would take a cache line for
// every vector.
constexpr int kLinesTogether = 2;

// Each of `count` vectors, `step` apart, becomes the best of itself and of those `reach` before and
// after it, with `dense` of all between them too. Does so for `together` neighbouring lines.
template <class Nans, int reach, bool dense, int together, class V>
void slide(V* line, std::int64_t count, std::int64_t step) {
  V window[2 * reach + 1][together];  // from x - reach to x + reach
  const auto look_up = [&](std::int64_t x, V(&to)[together]) {
    const V* const at = line + std::min(x, count - 1) * step;
    for (int t = 0; t < together; ++t) to[t] = at[t];
  };
#pragma GCC unroll 8
  for (int k = 0; k < 2 * reach; ++k) look_up(std::max(k - reach, 0), window[k]);
  for (std::int64_t x = 0; x < count; ++x) {
    look_up(x + reach, window[2 * reach]);
    for (int t = 0; t < together; ++t) {
      V best = Nans::combine(window[0][t], window[reach][t]);
#pragma GCC unroll 8
      for (int k = 1; dense && k < 2 * reach; ++k) {
        if (k != reach) best = Nans::combine(window[k][t], best);
      }
      line[x * step + t] = Nans::combine(window[2 * reach][t], best);
    }
#pragma GCC unroll 8
    for (int k = 0; k < 2 * reach; ++k) {
      for (int t = 0; t < together; ++t) window[k][t] = window[k + 1][t];
    }
  }
}

// The same for `lines` neighbouring lines.
template <class Nans, int reach, bool dense, class V>
void slide_lines(V* first, std::int64_t lines, std::int64_t count, std::int64_t step) {
  std::int64_t i = 0;
  for (; i + kLinesTogether <= lines; i += kLinesTogether) {
    slide<Nans, reach, dense, kLinesTogether>(first + i, count, step);
  }
  for (; i < lines; ++i) slide<Nans, reach, dense, 1>(first + i, count, step);
}

template <class Nans, int reach, bool dense, int vectors, class V>
void slide_both_ways(V* values, std::int64_t height, std::int64_t width) {
  const std::int64_t row = width * vectors;
  for (std::int64_t y = 0; y < height; ++y) {
    slide_lines<Nans, reach, dense>(values + y * row, vectors, width, vectors);
  }
  slide_lines<Nans, reach, dense>(values, row, height, row);
}

// Widens `best` from a pool of size x size to one of wanted x wanted.
template <int vectors, class Nans, class S, bool with_argmax>
void widen_to(const FeatureMap& input, std::int64_t size, std::int64_t wanted,
              Stride1Scratch<S, with_argmax>& s) {
  const std::int64_t height = input.height, width = input.width;
  while (size < wanted) {
    const std::int64_t missing = (wanted - size) / 2;
    std::int64_t distance = std::min(missing, size);
    if (!with_argmax && size == 1 && missing >= kReach) {
      distance = kReach;
      slide_both_ways<Nans, kReach, true, vectors>(s.best.values, height, width);
    } else if (!with_argmax && distance == kReach) {
      slide_both_ways<Nans, kReach, false, vectors>(s.best.values, height, width);
    } else if (!with_argmax && distance == 1) {
      slide_both_ways<Nans, 1, false, vectors>(s.best.values, height, width);
    } else {
      widen<true, vectors, Nans>(s.best, height, width, distance, s.widened);
      widen<false, vectors, Nans>(s.widened, height, width, distance, s.best);
    }
    size += 2 * distance;
  }
}

// Says of every cell that its value comes from itself.
template <class S, bool with_argmax>
void number_cells(std::int64_t cells, Planes<S, with_argmax>& planes) {
  if constexpr (with_argmax) {
    for (std::int64_t cell = 0; cell < cells; ++cell) planes.cells[cell] = broadcast<S>(cell);
  }
}

// found[cell] names a cell of the stage before; afterwards it names the cell of the input that the
// value there came from.
template <class S>
void look_up_cells(std::int64_t cells, const Index<S>* before, Index<S>* found) {
  for (std::int64_t cell = 0; cell < cells; ++cell) {
    for (int lane = 0; lane < kLanes<S>; ++lane) {
      found[cell][lane] = before[found[cell][lane]][lane];
    }
  }
}

// `count` neighbouring numbers of the output.
template <class E>
void write_numbers(bool streams, E* to, const E* from, std::int64_t count) {
  if (streams) {
    stream(to, from, count);
  } else {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(E));
  }
}

// Writes the lanes of a unit's cells to block `block` of the channels of output or argmax. `stage` has
// room for them.
template <int vectors, class V, class E>
void write_block(const Stride1Job& job, const ChannelUnit& unit, std::int64_t block, const V* lanes,
                 E* output, E* stage) {
  constexpr std::int64_t n = sizeof(V) / sizeof(V{}[0]);
  const FeatureMap& input = job.params.input;
  const std::int64_t cells = input.cells();
  const std::int64_t channels = (job.params.num_kernels + 1) * input.channels;
  const std::int64_t channel = block * input.channels + unit.first_channel;
  E* const to = output + unit.image * channels * cells;
  if (input.layout == Layout::kContiguous) {
    E* const run = to + channel * cells;
    write_runs(lanes, 1, cells, 0, unit.channels, job.streams ? stage : run);
    if (job.streams) stream(run, stage, unit.channels * cells);
    return;
  }
  for (std::int64_t cell = 0; cell < cells; ++cell) {
    for (int v = 0; v < vectors; ++v) store(stage + v * n, lanes[cell * vectors + v]);
    write_numbers(job.streams, to + cell * channels + channel, stage, unit.channels);
  }
}

// Block 0 of the output's channels is the input.
template <class S>
void copy_input(const Stride1Job& job, const ChannelUnit& unit) {
  const FeatureMap& input = job.params.input;
  const std::int64_t cells = input.cells();
  const std::int64_t channels = (job.params.num_kernels + 1) * input.channels;
  const S* const from = static_cast<const S*>(input.data) + unit.image * input.channels * cells;
  S* const to = static_cast<S*>(job.params.output) + unit.image * channels * cells;
  if (input.layout == Layout::kContiguous) {
    const std::int64_t first = unit.first_channel * cells;
    return write_numbers(job.streams, to + first, from + first, unit.channels * cells);
  }
  for (std::int64_t cell = 0; cell < cells; ++cell) {
    write_numbers(job.streams, to + cell * channels + unit.first_channel,
                  from + cell * input.channels + unit.first_channel, unit.channels);
  }
}

// Pools the unit's planes, which lie in `best`, with one size after another.
template <int vectors, class Nans, class S, bool with_argmax>
void pool_sizes(const Stride1Job& job, const ChannelUnit& unit, Stride1Scratch<S, with_argmax>& s) {
  const Stride1Params& params = job.params;
  const std::int64_t cells = params.input.cells();
  const auto write_argmax = [&](std::int64_t block) {
    if constexpr (with_argmax) {
      write_block<vectors>(job, unit, block, s.best.cells, params.argmax,
                           reinterpret_cast<std::int32_t*>(s.widened.cells));
    }
  };
  number_cells(cells, s.best);
  copy_input<S>(job, unit);
  write_argmax(0);
  std::int64_t size = 1;
  for (std::int32_t k = 0; k < params.num_kernels; ++k) {
    const std::int64_t kernel = params.kernel_sizes[k];
    if (with_argmax && params.cascade) {
      // A stage pools the values of the one before, ties among them included, and then looks up
      // where each of those came from.
      std::swap(s.before, s.best.cells);
      number_cells(cells, s.best);
      widen_to<vectors, Nans>(params.input, 1, kernel - size + 1, s);
      if (k > 0) look_up_cells<S>(cells, s.before, s.best.cells);
    } else {
      widen_to<vectors, Nans>(params.input, size, kernel, s);
    }
    size = kernel;
    write_block<vectors>(job, unit, k + 1, s.best.values, static_cast<S*>(params.output),
                         reinterpret_cast<S*>(s.widened.values));
    write_argmax(k + 1);
  }
}

template <class S, int vectors, bool with_argmax>
void pool_stride1_vectors(const Stride1Job& job, const ChannelUnit& unit, void* memory) {
  const FeatureMap& input = job.params.input;
  Scratch scratch(memory);
  Stride1Scratch<S, with_argmax> s(scratch, job);
  const Span all_rows{0, static_cast<std::int32_t>(input.height)};
  if (load_slab<vectors, S>(input, unit, all_rows, s.best.values)) {
    pool_sizes<vectors, NansHandled>(job, unit, s);
  } else {
    pool_sizes<vectors, NansAbsent>(job, unit, s);
  }
  if (job.streams) finish_streams();
}

std::size_t stride1_scratch(const Stride1Job& job) {
  return scratch_of<Stride1Scratch>(job.params.input.dtype, job.params.argmax != nullptr, job);
}

void pool_stride1(const Stride1Job& job, const ChannelUnit& unit, void* scratch) {
  dispatch(job.params.input.dtype, job.params.argmax != nullptr,
           [&](auto storage, auto with_argmax) {
             using S = decltype(storage);
             if constexpr (!with_argmax) {
               if (unit.channels == tuning::kStride1Vectors * kLanes<S>) {
                 return pool_stride1_vectors<S, tuning::kStride1Vectors, false>(job, unit, scratch);
               }
             }
             ChannelUnit part = unit;
             const std::int64_t end = unit.first_channel + unit.channels;
             for (; part.first_channel < end; part.first_channel += kLanes<S>) {
               part.channels = std::min<std::int64_t>(end - part.first_channel, kLanes<S>);
               pool_stride1_vectors<S, 1, with_argmax>(job, part, scratch);
             }
           });
}

}  // namespace

extern const Stride1Kernel kStride1Kernel{stride1_scratch, pool_stride1};

}  // namespace spp_ext::cpu::SPP_ISA
