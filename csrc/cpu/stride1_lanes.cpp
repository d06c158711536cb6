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
  Value<S>* values;  // [cells, rounded up to whole squares of lanes]
  Index<S>* cells;   // alike: the cell of the input that a value came from

  Planes(Scratch& scratch, std::int64_t size)
      : values(scratch.take<Value<S>>(size)),
        cells(with_argmax ? scratch.take<Index<S>>(size) : nullptr) {}
};

template <class S, bool with_argmax>
struct Stride1Scratch {
  Planes<S, with_argmax> best;     // the last result
  Planes<S, with_argmax> widened;  // along one axis
  Index<S>* before;                // a cascade's cells before the stage at work

  Stride1Scratch(Scratch& scratch, const Stride1Params& params)
      : best(scratch, padded(params)),
        widened(scratch, padded(params)),
        before(with_argmax && params.cascade ? scratch.take<Index<S>>(padded(params)) : nullptr) {}

  static std::int64_t padded(const Stride1Params& params) {
    return divide_up(params.input.cells(), kLanes<S>) * kLanes<S>;
  }
};

// to[y][x] = the best of `from` at (y, x) and `distance` cells before and after it: in the same row
// when along_rows, otherwise in the same column.
template <bool along_rows, class Nans, class S, bool with_argmax>
void widen(const Planes<S, with_argmax>& from, std::int64_t height, std::int64_t width,
           std::int64_t distance, Planes<S, with_argmax>& to) {
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
        to.values[here] = Nans::combine(from.values[after],
                                        Nans::combine(from.values[here], from.values[before]));
      }
    }
  }
}

// The farthest look-up of a step that slides.
constexpr int kReach = 2;
// Columns that slide together: one column alone would take a cache line for every vector.
constexpr int kColumnsTogether = 2;

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

template <class Nans, int reach, bool dense, class V>
void slide_both_ways(V* values, std::int64_t height, std::int64_t width) {
  for (std::int64_t y = 0; y < height; ++y) {
    slide<Nans, reach, dense, 1>(values + y * width, width, 1);
  }
  std::int64_t x = 0;
  for (; x + kColumnsTogether <= width; x += kColumnsTogether) {
    slide<Nans, reach, dense, kColumnsTogether>(values + x, height, width);
  }
  for (; x < width; ++x) slide<Nans, reach, dense, 1>(values + x, height, width);
}

// Widens `best` from a pool of size x size to one of wanted x wanted.
template <class Nans, class S, bool with_argmax>
void widen_to(const FeatureMap& input, std::int64_t size, std::int64_t wanted,
              Stride1Scratch<S, with_argmax>& s) {
  const std::int64_t height = input.height, width = input.width;
  while (size < wanted) {
    const std::int64_t missing = (wanted - size) / 2;
    std::int64_t distance = std::min(missing, size);
    if (!with_argmax && size == 1 && missing >= kReach) {
      distance = kReach;
      slide_both_ways<Nans, kReach, true>(s.best.values, height, width);
    } else if (!with_argmax && distance == kReach) {
      slide_both_ways<Nans, kReach, false>(s.best.values, height, width);
    } else if (!with_argmax && distance == 1) {
      slide_both_ways<Nans, 1, false>(s.best.values, height, width);
    } else {
      widen<true, Nans>(s.best, height, width, distance, s.widened);
      widen<false, Nans>(s.widened, height, width, distance, s.best);
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

// Writes what is in `best` now to block `block` of the output's channels.
template <class S, bool with_argmax>
void write_block(const Stride1Params& params, const ChannelUnit& unit, std::int64_t block,
                 const Planes<S, with_argmax>& best) {
  const FeatureMap& input = params.input;
  const std::int64_t cells = input.cells();
  const std::int64_t channels = (params.num_kernels + 1) * input.channels;
  const std::int64_t channel = block * input.channels + unit.first_channel;
  S* const output = static_cast<S*>(params.output) + unit.image * channels * cells;
  std::int32_t* const argmax =
      with_argmax ? params.argmax + unit.image * channels * cells : nullptr;
  if (input.layout == Layout::kContiguous) {
    write_runs(best.values, 1, cells, 0, unit.channels, output + channel * cells);
    if constexpr (with_argmax) {
      write_runs(best.cells, 1, cells, 0, unit.channels, argmax + channel * cells);
    }
    return;
  }
  const std::int64_t planes = unit.channels;
  for (std::int64_t cell = 0; cell < cells; ++cell) {
    const std::int64_t at = cell * channels + channel;
    if (planes == kLanes<S>) {
      store(output + at, best.values[cell]);
      if constexpr (with_argmax) store(argmax + at, best.cells[cell]);
    } else {
      store_first(output + at, best.values[cell], planes);
      if constexpr (with_argmax) store_first(argmax + at, best.cells[cell], planes);
    }
  }
}

// Pools the unit's planes, which lie in `best`, with one size after another.
template <class Nans, class S, bool with_argmax>
void pool_sizes(const Stride1Params& params, const ChannelUnit& unit,
                Stride1Scratch<S, with_argmax>& s) {
  const std::int64_t cells = params.input.cells();
  number_cells(cells, s.best);
  write_block(params, unit, 0, s.best);
  std::int64_t size = 1;
  for (std::int32_t k = 0; k < params.num_kernels; ++k) {
    const std::int64_t kernel = params.kernel_sizes[k];
    if (with_argmax && params.cascade) {
      // A stage pools the values of the one before, ties among them included, and then looks up
      // where each of those came from.
      std::swap(s.before, s.best.cells);
      number_cells(cells, s.best);
      widen_to<Nans>(params.input, 1, kernel - size + 1, s);
      if (k > 0) look_up_cells<S>(cells, s.before, s.best.cells);
    } else {
      widen_to<Nans>(params.input, size, kernel, s);
    }
    size = kernel;
    write_block(params, unit, k + 1, s.best);
  }
}

template <class S, bool with_argmax>
void pool_stride1_of(const Stride1Params& params, const ChannelUnit& unit, void* memory) {
  Scratch scratch(memory);
  Stride1Scratch<S, with_argmax> s(scratch, params);
  const Span all_rows{0, static_cast<std::int32_t>(params.input.height)};
  if (load_slab<1, S>(params.input, unit, all_rows, s.best.values)) {
    pool_sizes<NansHandled>(params, unit, s);
  } else {
    pool_sizes<NansAbsent>(params, unit, s);
  }
}

std::size_t stride1_scratch(const Stride1Params& params) {
  return scratch_of<Stride1Scratch>(params.input.dtype, params.argmax != nullptr, params);
}

void pool_stride1(const Stride1Params& params, const ChannelUnit& unit, void* scratch) {
  dispatch(params.input.dtype, params.argmax != nullptr, [&](auto storage, auto with_argmax) {
    pool_stride1_of<decltype(storage), with_argmax>(params, unit, scratch);
  });
}

}  // namespace

extern const Stride1Kernel kStride1Kernel{stride1_scratch, pool_stride1};

}  // namespace spp_ext::cpu::SPP_ISA
