// gather: every element is the number of the cell that its argmax names, found by the walk of
// linear_walk.cuh. Rows without a group are a map of no cells, where all is 0.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/linear_walk.cuh"
#include "cuda/tuning.h"
#include "cuda/words.h"

namespace spp_ext::cuda {

struct GatherJob {
  LinearJob linear;
  void* output;  // [R, C * B]
};

// Shared memory: BinPlace table[table_bins], then int32 lists[warps][kListedRows].
template <class S>
__global__ void __launch_bounds__(tuning::kLinearWarps * 32, tuning::kLinearMinBlocks)
    gather(const __grid_constant__ GatherJob job) {
  const LinearJob& linear = job.linear;
  auto* const table = reinterpret_cast<BinPlace*>(dynamic_shared());
  auto* const lists = reinterpret_cast<std::int32_t*>(table + linear.table_bins);
  fill_table(linear, table);
  __syncthreads();
  const auto number = static_cast<std::int32_t>(blockIdx.x);
  const Unit unit(map_of_unit(linear, number), number);
  if (unit.warp() >= unit.of.planes || unit.channel - unit.plane >= unit.of.map.channels) return;
  const FeatureMap& map = unit.of.map;
  // A lane without a plane has no cells.
  const auto cells = static_cast<std::uint32_t>(unit.channel < map.channels ? map.cells() : 0);
  const S* const plane = static_cast<const S*>(map.data) + unit.image * map.channels * map.cells() +
                         unit.channel * map.plane_stride();
  const auto cell_stride = static_cast<std::uint32_t>(map.cell_stride());
  std::int32_t* const list = lists + unit.warp() * tuning::kListedRows;
  RowLister rows(linear.groups, unit, unit.range, unit.of.ranges, 0, 0xffffffffu, list);
  for_each_run(linear, unit, rows, list, table, [&](auto batches) {
    const std::uint32_t together = tuning::kTogether * batches.step;
    for (std::uint32_t done = 0; done < batches.count; done += together) {
      std::int64_t at[tuning::kTogether];
      std::uint32_t cell[tuning::kTogether];
      S value[tuning::kTogether];
#pragma unroll
      for (int k = 0; k < tuning::kTogether; ++k) {
        bool exists;
        at[k] = batches.advance(&exists);
        cell[k] = static_cast<std::uint32_t>(linear.argmax[at[k]]);
        if (!exists || !batches.real) at[k] = -1;
      }
#pragma unroll
      for (int k = 0; k < tuning::kTogether; ++k) {
        value[k] = from_compute<S>(0);
        if (cell[k] < cells) value[k] = plane[std::uint64_t{cell[k]} * cell_stride];
      }
#pragma unroll
      for (int k = 0; k < tuning::kTogether; ++k) {
        if (at[k] >= 0) static_cast<S*>(job.output)[at[k]] = value[k];
      }
    }
  });
}

}  // namespace spp_ext::cuda
