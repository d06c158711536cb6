// Tables that regions are pooled from: the cells of a map with neighbouring channels side by side, in
// packs of 16 bytes, and the maxima of the squares of 2 x 2 cells that begin at each cell. A bin is then
// covered by a third as many squares as it has cells, and a lane looks up several channels at once.
//
// A block that pools builds the tables of its channels in shared memory. For maps that do not fit there,
// build_tables.cuh writes them to global memory.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/region_job.h"
#include "cuda/tuning.h"
#include "cuda/words.h"

namespace spp_ext::cuda {

// Whether packs of channels can be loaded whole from a channels_last map.
template <class S>
SPP_HOST_DEVICE bool has_packs(const FeatureMap& map) {
  return map.layout == Layout::kChannelsLast && map.channels % (16 / sizeof(S)) == 0 &&
         reinterpret_cast<std::uintptr_t>(map.data) % 16 == 0;
}

// Copies `cells` neighbouring cells of a map's memory to table [cells][1 << pack_bits packs], of the
// channels from `channel` on; those beyond the last repeat it. `from` is the first cell of channel 0 of
// the image. Threads `thread` of `threads` take part.
template <class S>
__device__ __forceinline__ void copy_cells(const FeatureMap& map, const S* from,
                                           std::int64_t channel, std::int32_t pack_bits,
                                           std::int32_t cells, std::int32_t thread,
                                           std::int32_t threads, S* table) {
  constexpr int kV = kPerPack<S>;
  if (has_packs<S>(map)) {
    for (std::int32_t i = thread; i < cells << pack_bits; i += threads) {
      const std::int64_t first = channel + (i & ((1 << pack_bits) - 1)) * kV;
      if (first < map.channels) {
        store_pack(table + i * kV, load_pack(from + (i >> pack_bits) * map.channels + first));
      }
    }
    return;
  }
  // Offsets in a plane are 32 bits wide; V planes are read side by side.
  const auto cell_stride = static_cast<std::uint32_t>(map.cell_stride());
#pragma unroll 1
  for (std::int32_t pack = 0; pack < 1 << pack_bits; ++pack) {
    const S* of_channel[kV];
#pragma unroll
    for (int n = 0; n < kV; ++n) {
      of_channel[n] =
          once(from + smaller_of(channel + pack * kV + n, map.channels - 1) * map.plane_stride());
    }
#pragma unroll 2
    for (std::int32_t cell = thread; cell < cells; cell += threads) {
      const std::uint32_t at = static_cast<std::uint32_t>(cell) * cell_stride;
      store_pack(table + ((cell << pack_bits) + pack) * kV,
                 make_pack<S>([&](int n) { return of_channel[n][at]; }));
    }
  }
}

// The maximum of the square of 2 x 2 cells at `at` in a table with `row` numbers a row and `cell` a cell.
template <class S>
__device__ __forceinline__ Pack<S> maximum_of_square(const S* at, std::int32_t row,
                                                     std::int32_t cell) {
  return maximum(maximum(load_pack(at), load_pack(at + cell)),
                 maximum(load_pack(at + row), load_pack(at + row + cell)));
}

// The tables of one image of one map, of the channels from a slab's first on. Offsets are in bytes, which
// takes the fewest instructions.
template <class S>
struct Tables {
  const unsigned char* cells;
  const unsigned char* squares;
  std::int32_t cells_at;  // where the tables begin
  std::int32_t squares_at;
  std::int32_t cell_bytes;
  std::int32_t row_bytes;
  std::int32_t width;  // of the map
};

template <class S>
__device__ __forceinline__ Pack<S> load_pack_at(const unsigned char* memory, std::int32_t offset) {
  return load_pack(reinterpret_cast<const S*>(memory + offset));
}

// The maxima of a bin in one pack of channels, which begins `own` bytes into every cell. Two neighbouring
// squares are looked up at once. Loads from global memory take long, so there it is two of two rows.
template <class S, bool staged>
__device__ __forceinline__ Pack<S> look_up(const Tables<S>& tables, const BinCells& bin,
                                           std::int32_t own) {
  Pack<S> best = lowest_pack<S>();
  if (bin.side == 0) return best;
  const unsigned char* const memory = bin.side == 2 ? tables.squares : tables.cells;
  const std::int32_t across = once(tables.cell_bytes << (bin.side - 1));
  const std::int32_t down = once(tables.row_bytes << (bin.side - 1));
  const std::int32_t to_last = once(bin.across * tables.cell_bytes);
  std::int32_t row =
      (bin.side == 2 ? tables.squares_at : tables.cells_at) + own + bin.first * tables.cell_bytes;
  const std::int32_t last_row = once(row + bin.down * tables.cell_bytes);
  const auto smaller = [](std::int32_t a, std::int32_t b) { return a < b ? a : b; };
#pragma unroll 1
  while (true) {
    const std::int32_t second_row = staged ? row : smaller(row + down, last_row);
    const std::int32_t to_second = second_row - row;
    std::int32_t at = row;
    const std::int32_t last = row + to_last;
#pragma unroll 1
    while (true) {
      const std::int32_t right = smaller(at + across, last);
      best = maximum(best, maximum(load_pack_at<S>(memory, at), load_pack_at<S>(memory, right)));
      if constexpr (!staged) {
        best = maximum(best, maximum(load_pack_at<S>(memory, at + to_second),
                                     load_pack_at<S>(memory, right + to_second)));
      }
      at = right;
      if (at == last) break;
      at = smaller(at + across, last);
    }
    if (second_row == last_row) break;
    row = smaller(second_row + down, last_row);
  }
  return best;
}

// The bests of a bin in one pack of channels.
template <class S>
struct Bests {
  ComputeType<S> values[kPerPack<S>];
  std::int32_t cells[kPerPack<S>];

  static __device__ __forceinline__ Bests of(ComputeType<S> value, std::int32_t cell) {
    Bests bests;
#pragma unroll
    for (int n = 0; n < kPerPack<S>; ++n) {
      bests.values[n] = value;
      bests.cells[n] = cell;
    }
    return bests;
  }
  // -infinity at `cell`, which any cell before it replaces.
  static __device__ __forceinline__ Bests lowest(std::int32_t cell) {
    return of(-kInfinity<ComputeType<S>>, cell);
  }
};

// Cells are taken in row-major order. A bin without cells has -infinity at a cell after all others.
template <class S, bool with_nan, bool staged>
__device__ __forceinline__ Bests<S> search(const Tables<S>& tables, const BinCells& bin,
                                           std::int32_t own) {
  using T = ComputeType<S>;
  if (bin.side == 0) return Bests<S>::lowest(static_cast<std::int32_t>(kInt32Max));
  Bests<S> best = Bests<S>::lowest(bin.first);
  constexpr int kLoads = staged ? 1 : 4;  // under way at once
  const std::int32_t last_row = bin.first + bin.down;
#pragma unroll 1
  for (std::int32_t row = bin.first; row <= last_row; row += tables.width) {
    std::int32_t at = tables.cells_at + own + row * tables.cell_bytes;
    const std::int32_t last = row + bin.across;
#pragma unroll 1
    for (std::int32_t cell = row; cell <= last; cell += kLoads, at += kLoads * tables.cell_bytes) {
      // Cells beyond the last are that one again, which replaces nothing.
      Pack<S> packs[kLoads];
#pragma unroll
      for (int k = 0; k < kLoads; ++k) {
        const std::int32_t there = cell + k < last ? k : last - cell;
        packs[k] = load_pack_at<S>(tables.cells, at + there * tables.cell_bytes);
      }
#pragma unroll
      for (int k = 0; k < kLoads; ++k) {
#pragma unroll
        for (int n = 0; n < kPerPack<S>; ++n) {
          const T candidate = widen(packs[k][n]);
          const bool replaces = with_nan
                                    ? static_cast<bool>(MaxOp::replaces(candidate, best.values[n]))
                                    : candidate > best.values[n];
          if (replaces) {
            best.values[n] = candidate;
            best.cells[n] = cell + k < last ? cell + k : last;
          }
        }
      }
    }
  }
  return best;
}

}  // namespace spp_ext::cuda
