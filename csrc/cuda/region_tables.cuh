// Tables that regions are pooled from: the cells of a map with neighbouring channels side by side, in
// packs of 16 bytes, and the maxima of the squares of 2 x 2 or 3 x 3 cells that begin at each cell. A bin is
// then covered by far fewer squares than it has cells, and a lane looks up several channels at once.
//
// A block that pools builds the tables of its channels in shared memory: squares of 2 x 2 and 3 x 3, since
// few bins are one cell wide or high, or the cells alone for argmax. For maps that do not fit there,
// build_tables.cuh writes cells and squares of 2 x 2 to global memory.
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

// Some neighbouring channels of an image of a map. Strides are in bytes, of which a slab has fewer than 2^32.
template <class S>
struct Slab {
  const unsigned char* first;  // cell 0 of the first channel
  std::int32_t cell_stride;
  std::int32_t plane_stride;
  std::int32_t used;  // channels that exist
  bool has_packs;

  __device__ __forceinline__ Slab(const FeatureMap& map, std::int64_t image, std::int64_t channel,
                                  std::int32_t channels)
      : first(reinterpret_cast<const unsigned char*>(static_cast<const S*>(map.data) +
                                                     image * map.channels * map.cells() +
                                                     channel * map.plane_stride())),
        cell_stride(once(static_cast<std::int32_t>(map.cell_stride() * sizeof(S)))),
        plane_stride(once(static_cast<std::int32_t>(map.plane_stride() * sizeof(S)))),
        used(static_cast<std::int32_t>(smaller_of(map.channels - channel, channels))),
        has_packs(cuda::has_packs<S>(map)) {}
};

// Reads the pack of a slab's channels from `channel` on, of any cell. Channels beyond the last repeat it, or
// its pack.
template <class S>
struct PackReader {
  static constexpr int kV = kPerPack<S>;

  const Slab<S>& slab;
  std::int32_t of_channel[kV];

  __device__ __forceinline__ PackReader(const Slab<S>& slab, std::int32_t channel) : slab(slab) {
#pragma unroll
    for (int n = 0; n < kV; ++n) {
      const std::int32_t last = slab.has_packs ? slab.used - kV + n : slab.used - 1;
      const std::int32_t own = channel + n < last ? channel + n : last;
      of_channel[n] = once(own * slab.plane_stride);
    }
  }
  __device__ __forceinline__ Pack<S> operator()(std::int32_t cell) const {
    const auto at = [&](int n) {
      const auto offset = static_cast<std::uint32_t>(of_channel[n] + cell * slab.cell_stride);
      return reinterpret_cast<const S*>(slab.first + offset);
    };
    return slab.has_packs ? load_pack(at(0)) : make_pack<S>([&](int n) { return *at(n); });
  }
};

// Builds the tables of a slab of 1 << pack_bits packs of channels of one image in shared memory. All threads
// of a block must call each function together, with barriers between.
template <class S, int pack_bits>
struct SlabTables {
  static constexpr int kV = kPerPack<S>;

  S* cells;    // [count << pack_bits] packs; find_squares puts squares of 3 x 3 in their place
  S* squares;  // of 2 x 2, alike
  std::int32_t count;
  std::int32_t width;  // of the map

  __device__ __forceinline__ void copy_cells(const Slab<S>& slab) const {
#pragma unroll 1
    for (std::int32_t pack = 0; pack < 1 << pack_bits; ++pack) {
      const PackReader<S> read(slab, pack * kV);
#pragma unroll 2
      for (auto cell = static_cast<std::int32_t>(threadIdx.x); cell < count; cell += blockDim.x) {
        store_pack(cells + ((cell << pack_bits) + pack) * kV, read(cell));
      }
    }
  }
  // Squares that go beyond the last row or column are not looked up.
  __device__ __forceinline__ void find_squares() const {
    join_squares(cells, squares, count - (width + 1));
    __syncthreads();
    join_squares(squares, cells, count - 2 * (width + 1));
  }
  // Sets *found if any number is NaN.
  __device__ __forceinline__ void find_nan(std::int32_t* found) const {
    for (std::int32_t i = threadIdx.x; i < count << pack_bits; i += blockDim.x) {
      const Pack<S> pack = load_pack(cells + i * kV);
      bool nan = false;
#pragma unroll
      for (int n = 0; n < kV; ++n) nan |= widen(pack[n]) != widen(pack[n]);
      if (nan) *found = 1;
    }
  }

 private:
  // The maxima of four neighbouring squares each.
  __device__ __forceinline__ void join_squares(const S* from, S* to, std::int32_t number) const {
    constexpr std::int32_t kCell = kV << pack_bits;
    const std::int32_t row = width * kCell;
    for (std::int32_t i = threadIdx.x; i < number << pack_bits; i += blockDim.x) {
      const S* const at = from + i * kV;
      store_pack(to + i * kV, maximum(maximum(load_pack(at), load_pack(at + kCell)),
                                      maximum(load_pack(at + row), load_pack(at + row + kCell))));
    }
  }
};

// The tables of one image of one map, of the channels from a slab's first on. Offsets are in bytes, which
// takes the fewest instructions.
template <class S>
struct Tables {
  const unsigned char* smaller;  // squares of smaller_side(staged) x as many cells
  const unsigned char* larger;   // of one more
  std::int32_t smaller_at;       // where they begin there
  std::int32_t larger_at;
  std::int32_t cell_bytes;
  std::int32_t row_bytes;
  std::int32_t width;  // of the map
};

SPP_HOST_DEVICE constexpr std::int32_t smaller_side(bool staged) { return staged ? 2 : 1; }

// The maxima of a bin in one pack of channels, which begins `own` bytes into every cell. Two neighbouring
// squares are looked up at once. Loads from global memory take long, so there it is two of two rows.
template <class S, bool staged>
__device__ __forceinline__ Pack<S> look_up(const Tables<S>& tables, const BinCells& bin,
                                           std::int32_t own) {
  constexpr std::int32_t kSide = smaller_side(staged);
  Pack<S> best = lowest_pack<S>();
  if (!staged && bin.side == 0) return best;
  const std::int32_t across = once(tables.cell_bytes * bin.side);
  const std::int32_t down = once(tables.row_bytes * bin.side);
  const std::int32_t to_last = once(bin.across * tables.cell_bytes);
  const bool is_larger = bin.side > kSide;
  const unsigned char* const memory = is_larger ? tables.larger : tables.smaller;
  std::int32_t row =
      (is_larger ? tables.larger_at : tables.smaller_at) + own + bin.first * tables.cell_bytes;
  const std::int32_t last_row = once(row + bin.down * tables.cell_bytes);
  const auto smaller = [](std::int32_t a, std::int32_t b) { return a < b ? a : b; };
  const auto pack_at = [&](std::int32_t at) {
    return load_pack(reinterpret_cast<const S*>(memory + at));
  };
#pragma unroll 1
  while (true) {
    const std::int32_t second_row = staged ? row : smaller(row + down, last_row);
    const std::int32_t to_second = second_row - row;
    std::int32_t at = row;
    const std::int32_t last = row + to_last;
#pragma unroll 1
    while (true) {
      const std::int32_t right = smaller(at + across, last);
      best = maximum(best, maximum(pack_at(at), pack_at(right)));
      if constexpr (!staged) {
        best = maximum(best, maximum(pack_at(at + to_second), pack_at(right + to_second)));
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

// The same of a bin without a square, one cell wide or high or without a cell, from the map itself.
template <class S>
__device__ __forceinline__ Pack<S> look_along(const PackReader<S>& cells, const BinCells& bin,
                                              std::int32_t width) {
  if (bin.side == 0) return lowest_pack<S>();
  const std::int32_t step = bin.across > 0 ? 1 : width, last = bin.first + bin.across + bin.down;
  Pack<S> best = cells(last);
#pragma unroll 1
  for (std::int32_t cell = bin.first; cell < last; cell += step) best = maximum(best, cells(cell));
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
    std::int32_t at = tables.smaller_at + own + row * tables.cell_bytes;
    const std::int32_t last = row + bin.across;
#pragma unroll 1
    for (std::int32_t cell = row; cell <= last; cell += kLoads, at += kLoads * tables.cell_bytes) {
      // Cells beyond the last are that one again, which replaces nothing.
      Pack<S> packs[kLoads];
#pragma unroll
      for (int k = 0; k < kLoads; ++k) {
        const std::int32_t there = cell + k < last ? k : last - cell;
        packs[k] =
            load_pack(reinterpret_cast<const S*>(tables.smaller + at + there * tables.cell_bytes));
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
