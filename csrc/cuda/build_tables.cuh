// Writes the tables of maps (region_tables.cuh) to global memory. A warp goes down some rows of some columns,
// with some neighbouring packs of channels; the warps of a block have neighbouring packs:
//
//   lane      0    1    2   ...   30   31
//   column    c   c+1  c+2  ...  c+30  (c+31)   the last lane only lends its column to the square before
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/region_job.h"
#include "cuda/region_tables.cuh"
#include "cuda/tuning.h"
#include "cuda/words.h"

namespace spp_ext::cuda {

constexpr std::int64_t kTableWarps = tuning::kElementThreads / 32;

// What a warp has of all maps' tables.
struct TableUnit {
  std::int32_t map;  // num_maps beyond the last
  std::int64_t image;
  std::int64_t row, rows;
  std::int64_t col;
  std::int64_t channel;

  // `pack` is the numbers of a pack of channels.
  static SPP_HOST_DEVICE std::int64_t count(const RegionJob& job, std::int64_t pack,
                                            std::int32_t m) {
    const FeatureMap& map = job.maps[m];
    return map.batch * divide_up(map.height, tuning::kTableRows) *
           divide_up(map.width, tuning::kTableCols) *
           divide_up(job.table_channels, tuning::kTablePacks * pack);
  }
  static SPP_HOST_DEVICE TableUnit find(const RegionJob& job, std::int64_t pack,
                                        std::int64_t number) {
    TableUnit unit{};
    for (; unit.map < job.num_maps; ++unit.map) {
      const std::int64_t units = count(job, pack, unit.map);
      if (number < units) break;
      number -= units;
    }
    if (unit.map == job.num_maps) return unit;
    const FeatureMap& map = job.maps[unit.map];
    const auto take = [&](std::int64_t of) {
      const std::int64_t rest = quotient(number, of);
      const std::int64_t own = number - rest * of;
      number = rest;
      return own;
    };
    // Channels before columns: warps that run together read and write whole lines.
    unit.channel = take(divide_up(job.table_channels, tuning::kTablePacks * pack)) *
                   tuning::kTablePacks * pack;
    unit.col = take(divide_up(map.width, tuning::kTableCols)) * tuning::kTableCols;
    unit.row = take(divide_up(map.height, tuning::kTableRows)) * tuning::kTableRows;
    unit.rows = smaller_of(map.height - unit.row, tuning::kTableRows);
    unit.image = number;
    return unit;
  }
};

template <class S>
__global__ void __launch_bounds__(tuning::kElementThreads, tuning::kTableBlocks)
    build_tables(const __grid_constant__ RegionJob job) {
  constexpr int kV = kPerPack<S>;
  const auto lane = static_cast<std::int32_t>(threadIdx.x % 32);
  const TableUnit unit = TableUnit::find(
      job, kV, static_cast<std::int64_t>(blockIdx.x) * kTableWarps + threadIdx.x / 32);
  if (unit.map == job.num_maps) return;
  const FeatureMap& map = job.maps[unit.map];
  const std::int64_t col = unit.col + lane;
  static_assert(tuning::kTablePacks == 2);
  // Tables may have more channels than maps.
  constexpr std::int32_t kChannels = tuning::kTablePacks * kV;
  const std::int64_t last_channel = (map.channels - 1) / kChannels * kChannels;
  const Slab<S> slab(map, unit.image, smaller_of(unit.channel, last_channel), kChannels);
  const PackReader<S> read[] = {{slab, 0}, {slab, kV}};
  const bool writes = lane < tuning::kTableCols && col < map.width;
  S* const cells = static_cast<S*>(job.cell_tables[unit.map]);
  S* const squares = static_cast<S*>(job.square_tables[unit.map]);
  std::int64_t to =
      ((unit.image * map.height + unit.row) * map.width + col) * job.table_channels + unit.channel;
  const auto width = static_cast<std::int32_t>(map.width);
  auto cell = static_cast<std::int32_t>(unit.row * width + smaller_of(col, width - 1));
  const auto end = static_cast<std::int32_t>((unit.row + unit.rows) * width);
  Pack<S> above[] = {read[0](cell), read[1](cell)};
#pragma unroll 1
  while (cell < end) {
    // The last row and the last column begin no square; what is written for them is not looked up.
    cell += width;
    const bool is_last = cell >= map.cells();
#pragma unroll
    for (int p = 0; p < tuning::kTablePacks; ++p) {
      const bool exists = writes && unit.channel + p * kV < job.table_channels;
      if (cells != nullptr && cells != map.data && exists) {
        write_pack(cells + to + p * kV, above[p]);
      }
      const Pack<S> below = is_last ? above[p] : read[p](cell);
      if (squares != nullptr) {
        const Pack<S> pair = maximum(above[p], below);
        const Pack<S> square = maximum(pair, from_lane(pair, lane + 1));
        if (exists) write_pack(squares + to + p * kV, square);
      }
      above[p] = below;
    }
    to += map.width * job.table_channels;
  }
}

}  // namespace spp_ext::cuda
