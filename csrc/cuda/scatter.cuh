// scatter: every cell is the sum of the elements whose argmax names it, found by the walk of
// linear_walk.cuh.
//
// Each warp has sums of its own in shared memory, T[cells of the range] for each of its planes. Where
// several lanes of a batch name one cell, they are added pairwise first, each to the nearest lane before
// it, then to that one's, ...: the last of them has the sum and alone adds it. Parts are added in order at
// the end. So every cell's sum has one order, whatever the timing. Each cell of the result is written
// once, zeros included, 16 bytes at a time.
#pragma once

#include <cstdint>

#include "core/integers.h"
#include "cuda/device.h"
#include "cuda/linear_walk.cuh"
#include "cuda/tuning.h"
#include "cuda/words.h"

namespace spp_ext::cuda {

struct ScatterJob {
  LinearJob linear;
  const void* grad_output;  // [R, C * B]
};

// Some batches of 32 elements, a lane's of each, on their way from memory.
template <class S>
struct Addends {
  std::int32_t cell[tuning::kTogether];
  S value[tuning::kTogether];
  // Bit k: whether there is an element k. Nothing that is loaded is used before it is added.
  std::uint32_t exist;
};

// A warp's sums. Those of a lane's plane begin at `first`, and are of the cells [first_cell, first_cell +
// cells).
template <class T>
struct WarpSums {
  T* sums;
  std::int32_t first;
  std::int32_t first_cell;
  std::uint32_t cells;
  std::int32_t lane;
};

// Batch after batch; in a batch pairwise, as said above.
template <class S, class T>
__device__ __forceinline__ void add(const WarpSums<T>& to, const Addends<S>& addends) {
  constexpr int kBatches = tuning::kTogether;
  const std::uint32_t below = (1u << to.lane) - 1u;
  const std::uint32_t above = ~below - (1u << to.lane);
  const auto none = static_cast<std::int32_t>(0x80000000u | to.lane);
  // Of its cell's sum; below 0: nothing to add, each lane has its own.
  std::int32_t place[kBatches];
  // The nearest lane with that cell whose value it lacks; below 0: none.
  std::int32_t before[kBatches];
  bool last[kBatches];  // of the lanes with its cell
  T sum[kBatches];      // of the lanes from `before` on to this one
  int open = -1;        // below 0: no lane of any batch lacks anything
#pragma unroll
  for (int k = 0; k < kBatches; ++k) {
    // One comparison: a cell before the first, or below 0, is beyond all as an unsigned number.
    const std::int32_t cell = addends.cell[k] - to.first_cell;
    const bool exists = (addends.exist >> k) % 2 != 0;
    place[k] = exists && static_cast<std::uint32_t>(cell) < to.cells ? to.first + cell : none;
    const unsigned peers = __match_any_sync(0xffffffffu, place[k]);
    before[k] = (peers & below) != 0 ? 31 - __clz(static_cast<int>(peers & below)) : none;
    last[k] = (peers & above) == 0;
    sum[k] = widen(addends.value[k]);
    open &= before[k];
  }
  bool more = __any_sync(0xffffffffu, open >= 0);
  while (more) {
    open = -1;
#pragma unroll
    for (int k = 0; k < kBatches; ++k) {
      const bool lacks = before[k] >= 0;
      const T earlier = __shfl_sync(0xffffffffu, sum[k], before[k]);
      before[k] = __shfl_sync(0xffffffffu, before[k], before[k]);
      if (lacks) sum[k] = earlier + sum[k];
      open &= before[k];
    }
    more = __any_sync(0xffffffffu, open >= 0);
  }
#pragma unroll
  for (int k = 0; k < kBatches; ++k) {
    if (last[k] && place[k] >= 0) to.sums[place[k]] += sum[k];
    __syncwarp();  // other lanes read this sum next
  }
}

// The range of cells that a unit adds up.
struct CellRange {
  std::int32_t first;
  std::int32_t cells;

  __device__ __forceinline__ explicit CellRange(const Unit& unit)
      : first(unit.range * unit.of.cells),
        cells(static_cast<std::int32_t>(smaller_of(unit.of.cells, unit.of.map.cells() - first))) {}
};

// Where a range of cells of a channel's plane is in the result.
template <class S>
__device__ __forceinline__ S* result_of(const Unit& unit, const CellRange& range,
                                        std::int32_t channel) {
  const FeatureMap& map = unit.of.map;
  return static_cast<S*>(unit.of.result) + unit.image * map.channels * map.cells() +
         channel * map.plane_stride() + range.first * map.cell_stride();
}

// How many numbers before `address` its pack of 16 bytes begins. Sums of a contiguous result begin as
// far from a pack's begin, so that packs of sums are packs of the result.
template <class S>
__device__ __forceinline__ std::int32_t place_in_pack(const S* address) {
  return static_cast<std::int32_t>(reinterpret_cast<std::uintptr_t>(address) % 16 / sizeof(S));
}
template <class S>
__device__ __forceinline__ std::int32_t first_sum(const Unit& unit, const CellRange& range,
                                                  std::int32_t channel) {
  if (unit.of.map.layout != Layout::kContiguous) return 0;
  return place_in_pack(result_of<S>(unit, range, channel));
}

// Adds the elements of the warp's rows. While some batches are added the next ones are on their way.
template <class S, class T>
__device__ __forceinline__ void add_rows(const ScatterJob& job, const Unit& unit,
                                         const CellRange& range, const BinPlace* table, T* sums,
                                         std::int32_t* list) {
  const LinearJob& linear = job.linear;
  const auto* const grad = static_cast<const S*>(job.grad_output);
  const auto cells = static_cast<std::uint32_t>(range.cells);
  const auto first = static_cast<std::uint32_t>(range.first);
  const bool real = unit.channel < unit.of.map.channels;  // A lane without a plane has no cells.
  const WarpSums<T> to{sums,
                       (unit.warp() * unit.of.warp_planes + unit.plane) * unit.of.plane_stride +
                           first_sum<S>(unit, range, unit.channel),
                       range.first, real ? cells : 0, unit.lane};
  RowLister rows(linear.groups, unit, unit.warp() % unit.of.parts, unit.of.parts, first,
                 first + cells, list);
  for_each_run(linear, unit, rows, list, table, [&](auto batches) {
    const std::uint32_t together = tuning::kTogether * batches.step;
    const auto fetch = [&](Addends<S>& addends) {
      addends.exist = 0;
#pragma unroll
      for (int k = 0; k < tuning::kTogether; ++k) {
        bool exists;
        const std::int64_t at = batches.advance(&exists);
        addends.cell[k] = linear.argmax[at];
        addends.value[k] = grad[at];
        addends.exist |= static_cast<std::uint32_t>(exists) << k;
      }
    };
    std::uint32_t done = 0;
    const auto step = [&](const Addends<S>& now, Addends<S>& next) {
      done += together;
      const bool more = done < batches.count;
      if (more) fetch(next);
      add(to, now);
      return more;
    };
    Addends<S> odd, even;
    fetch(even);
    while (step(even, odd) && step(odd, even)) {  // by turns, so that nothing is copied
    }
  });
}

// The sums of `count` neighbouring cells, or of one cell in neighbouring planes: `step` apart, in
// each of the parts.
template <class T, int count>
__device__ __forceinline__ void add_parts(const T* from, std::int32_t step, std::int32_t parts,
                                          std::int32_t part_stride, T (&result)[count]) {
#pragma unroll
  for (int k = 0; k < count; ++k) result[k] = from[k * step];
  for (std::int32_t part = 1; part < parts; ++part) {
    from += part_stride;
#pragma unroll
    for (int k = 0; k < count; ++k) result[k] += from[k * step];
  }
}

// As above, neighbouring cells by the pack.
template <class T, int count>
__device__ __forceinline__ void add_packed_parts(const T* from, std::int32_t parts,
                                                 std::int32_t part_stride, T (&result)[count]) {
#pragma unroll
  for (int k = 0; k < count; ++k) result[k] = 0;
  for (std::int32_t part = 0; part < parts; ++part, from += part_stride) {
#pragma unroll
    for (int k = 0; k < count; k += kPerPack<T>) {
      const Pack<T> pack = load_pack<T>(from + k);
#pragma unroll
      for (int j = 0; j < kPerPack<T>; ++j) result[k + j] += pack[j];
    }
  }
}

// Writes a plane of a contiguous result, by the threads `thread`, thread + threads, ...
template <class S, class T>
__device__ __forceinline__ void write_plane(const Unit& unit, const CellRange& range,
                                            std::int32_t channel, const T* from,
                                            std::int32_t part_stride, std::int32_t thread,
                                            std::int32_t threads) {
  constexpr int kPack = kPerPack<S>;
  const std::int32_t first = first_sum<S>(unit, range, channel);
  const std::int32_t end = first + range.cells;
  S* const to = result_of<S>(unit, range, channel) - first;
  for (std::int32_t i = thread * kPack; i < end; i += threads * kPack) {
    T values[kPack];
    add_packed_parts(from + i, unit.of.parts, part_stride, values);
    if (i >= first && i + kPack <= end) {
      write_pack(to + i, narrow_pack<S>(values));
    } else {
#pragma unroll
      for (int k = 0; k < kPack; ++k) {
        if (i + k >= first && i + k < end) to[i + k] = narrow<S>(values[k]);
      }
    }
  }
}

// Writes what a unit has added up. Neighbouring threads write neighbouring memory: cells of a plane,
// or planes of a cell.
template <class S, class T>
__device__ __forceinline__ void write_sums(const Unit& unit, const CellRange& range,
                                           const T* sums) {
  constexpr int kPack = kPerPack<S>;
  const LinearMap& of = unit.of;
  const std::int32_t part_stride = of.warp_planes * of.plane_stride;
  const auto planes = static_cast<std::int32_t>(
      smaller_of(of.planes * of.warp_planes, of.map.channels - unit.first_channel));
  const auto sums_of = [&](std::int32_t plane) {
    return sums + plane / of.warp_planes * of.parts * part_stride +
           plane % of.warp_planes * of.plane_stride;
  };
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  const auto threads = static_cast<std::int32_t>(blockDim.x);
  if (of.map.layout == Layout::kContiguous) {
    // Planes in several parts are written by the block, others by a warp each.
    const bool together = of.parts > 1;
    const std::int32_t step = together ? 1 : threads / 32;
    for (std::int32_t plane = together ? 0 : unit.warp(); plane < planes; plane += step) {
      write_plane<S>(unit, range, unit.first_channel + plane, sums_of(plane), part_stride,
                     together ? thread : unit.lane, together ? threads : 32);
    }
    return;
  }
  S* const to = result_of<S>(unit, range, unit.first_channel);
  const auto channels = static_cast<std::int32_t>(of.map.channels);
  const std::int32_t packs = planes / kPack;  // of a cell
  // All planes of the unit are in packs, as many as a power of two, and all are aligned.
  if (planes % kPack == 0 && (packs & (packs - 1)) == 0 && channels % kPack == 0 &&
      of.warp_planes <= kPack && place_in_pack(to) == 0) {
    const std::int32_t first = (thread & (packs - 1)) * kPack;
    const T* const from = sums_of(first);
    const std::int32_t step = of.plane_stride;
    const int shift = __popc(static_cast<unsigned>(packs - 1));
    if (of.parts == 1) {  // the planes of neighbouring warps are as far apart as those of one
      for (std::int32_t cell = thread >> shift; cell < range.cells; cell += threads >> shift) {
        T values[kPack];
        add_parts(from + cell, step, 1, 0, values);
        write_pack(to + std::int64_t{cell} * channels + first, narrow_pack<S>(values));
      }
      return;
    }
  }
  for (std::int32_t plane = 0; plane < planes; ++plane) {
    const T* const from = sums_of(plane);
    for (std::int32_t cell = thread; cell < range.cells; cell += threads) {
      T value[1];
      add_parts(from + cell, 0, of.parts, part_stride, value);
      to[std::int64_t{cell} * channels + plane] = narrow<S>(value[0]);
    }
  }
}

// Shared memory: T sums[warps][warp_planes][plane_stride], most_sums of them at most, then BinPlace
// table[table_bins], then int32 lists[warps][kListedRows].
template <class S>
__global__ void __launch_bounds__(tuning::kLinearWarps * 32, tuning::kLinearMinBlocks)
    scatter(const __grid_constant__ ScatterJob job, std::int32_t most_sums) {
  using T = ComputeType<S>;
  const LinearJob& linear = job.linear;
  T* const sums = reinterpret_cast<T*>(dynamic_shared());
  auto* const table = reinterpret_cast<BinPlace*>(sums + most_sums);
  auto* const lists = reinterpret_cast<std::int32_t*>(table + linear.table_bins);
  fill_table(linear, table);
  const auto number = static_cast<std::int32_t>(blockIdx.x);
  const Unit unit(map_of_unit(linear, number), number);
  const CellRange range(unit);
  const std::int32_t warps = unit.of.planes * unit.of.parts;
  const std::int32_t warp_sums = unit.of.warp_planes * unit.of.plane_stride;
  for (auto k = static_cast<std::int32_t>(threadIdx.x) * kPerPack<T>; k < warps * warp_sums;
       k += static_cast<std::int32_t>(blockDim.x) * kPerPack<T>) {
    store_pack(sums + k, Pack<T>{});
  }
  __syncthreads();
  // Alike for all lanes of a warp.
  if (unit.warp() < warps && unit.channel - unit.plane < unit.of.map.channels) {
    add_rows<S>(job, unit, range, table, sums, lists + unit.warp() * tuning::kListedRows);
  }
  __syncthreads();
  write_sums<S>(unit, range, sums);
}

}  // namespace spp_ext::cuda
