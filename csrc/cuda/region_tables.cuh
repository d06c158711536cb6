// Tables that regions are pooled from: the cells of a map with neighbouring channels side by side, in
// packs of 16 bytes, and the maxima of the squares of 2 x 2 cells that begin at each cell. A bin is then
// covered by a third as many squares as it has cells, and a lane looks up several channels at once.
//
// A block that pools builds the tables of its channels in shared memory. For maps that do not fit there,
// build_tables writes them to global memory, a block for some cells of a row and some channels:
//
//   shared   [2 rows][cells + 1][packs]     a thread a pack: V channels of one cell
//   thread   neighbouring cells of a plane where the map is contiguous, neighbouring channels else
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

// Some neighbouring channels of an image; those beyond the last repeat it.
struct Slab {
  std::int64_t image;
  std::int64_t channel;  // the first
  std::int32_t packs;    // of 16 bytes, a power of two
};

// Copies the cells of rows x cols of `slab` to table [rows][cols][packs]. A barrier must follow.
template <class S>
__device__ __forceinline__ void copy_cells(const FeatureMap& map, const Slab& slab, Span rows,
                                           Span cols, S* table) {
  constexpr int kV = kPerPack<S>;
  const bool contiguous = map.layout == Layout::kContiguous;
  const bool whole_packs = has_packs<S>(map);
  const std::int32_t width = cols.end - cols.begin;
  const std::int32_t cells = (rows.end - rows.begin) * width;
  const bool all_cols = width == map.width;
  const S* const from = static_cast<const S*>(map.data) + slab.image * map.channels * map.cells() +
                        rows.begin * map.width * map.cell_stride();
  for (std::int32_t i = threadIdx.x; i < cells * slab.packs; i += blockDim.x) {
    // Neighbouring threads read neighbouring memory.
    const std::int32_t pack = contiguous ? i / cells : i % slab.packs;
    const std::int32_t here = contiguous ? i - pack * cells : i / slab.packs;
    std::int64_t cell = here;
    if (!all_cols) {
      const std::int32_t row = here / width;
      cell = row * map.width + cols.begin + (here - row * width);
    }
    const std::int64_t channel = slab.channel + pack * kV;
    const S* const of_cell = from + cell * map.cell_stride();
    S* const to = table + (here * slab.packs + pack) * kV;
    if (whole_packs && channel < map.channels) {
      store_pack(to, load_pack(of_cell + channel));
    } else {
      store_pack(to, make_pack<S>([&](int n) {
                   return of_cell[smaller_of(channel + n, map.channels - 1) * map.plane_stride()];
                 }));
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

// How build_tables cuts a map: a block has a row, some columns and some channels.
struct TableUnits {
  std::int64_t slabs;
  std::int64_t chunks;  // of a row

  template <class S>
  static SPP_HOST_DEVICE TableUnits of(const FeatureMap& map, std::int64_t table_channels) {
    return {divide_up(table_channels, tuning::kTablePacks * (16 / sizeof(S))),
            divide_up(map.width, tuning::kTableCells)};
  }
  SPP_HOST_DEVICE std::int64_t count(const FeatureMap& map) const {
    return map.batch * map.height * chunks * slabs;
  }
};

constexpr std::int64_t kTableShared = 2 * (tuning::kTableCells + 1) * tuning::kTablePacks * 16;

template <class S>
__global__ void __launch_bounds__(tuning::kElementThreads, tuning::kMinBlocks)
    build_tables(const __grid_constant__ RegionJob job) {
  constexpr int kV = kPerPack<S>;
  S* const shared = reinterpret_cast<S*>(dynamic_shared());
  const std::int32_t packs = tuning::kTablePacks;
  std::int64_t all = 0;
  for (std::int32_t m = 0; m < job.num_maps; ++m) {
    all += TableUnits::of<S>(job.maps[m], job.table_channels).count(job.maps[m]);
  }
  for (std::int64_t number = blockIdx.x; number < all; number += gridDim.x) {
    std::int32_t m = 0;
    std::int64_t unit = number;
    TableUnits units = TableUnits::of<S>(job.maps[0], job.table_channels);
    while (unit >= units.count(job.maps[m])) {
      unit -= units.count(job.maps[m]);
      units = TableUnits::of<S>(job.maps[++m], job.table_channels);
    }
    const FeatureMap& map = job.maps[m];
    // Channels before columns: blocks that run together read and write whole lines.
    const std::int64_t channel = unit % units.slabs * packs * kV;
    const std::int64_t col = unit / units.slabs % units.chunks * tuning::kTableCells;
    const std::int64_t row = unit / units.slabs / units.chunks % map.height;
    const std::int64_t image = unit / units.slabs / units.chunks / map.height;
    // The last row and the last column begin no square; their neighbours outside are themselves.
    const Span rows = clip({row, row + 2}, map.height);
    const Span cols = clip({col, col + tuning::kTableCells + 1}, map.width);
    const std::int32_t width = cols.end - cols.begin;
    copy_cells<S>(map, {image, channel, packs}, rows, cols, shared);
    __syncthreads();
    S* const cell_table = static_cast<S*>(job.cell_tables[m]);
    S* const square_table = static_cast<S*>(job.square_tables[m]);
    const std::int32_t down = rows.end - rows.begin == 2 ? width * packs * kV : 0;
    for (std::int32_t i = threadIdx.x; i < tuning::kTableCells * packs; i += blockDim.x) {
      const std::int32_t pack = i % packs, here = i / packs;
      const std::int64_t to_channel = channel + pack * kV;
      if (here >= width || to_channel >= job.table_channels) continue;
      const std::int64_t cell = image * map.cells() + row * map.width + col + here;
      const std::int64_t to = cell * job.table_channels + to_channel;
      const S* const from = shared + i * kV;
      if (cell_table != nullptr && cell_table != map.data) {
        write_pack(cell_table + to, load_pack(from));
      }
      if (square_table != nullptr) {
        const std::int32_t right = here + 1 < width ? packs * kV : 0;
        write_pack(square_table + to, maximum_of_square(from, down, right));
      }
    }
    __syncthreads();  // the next unit overwrites what was read here
  }
}

}  // namespace spp_ext::cuda
