// Groups regions by map and image on the device, so that nothing waits for the host. A block a group
// lists the group's regions in ascending order; one more block fills the output of the regions that
// have no group. A thread looks at a region at a time.
//
// A block counts for itself how many regions belong to earlier groups: it reads the rois twice, but
// needs no second launch and no atomics.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/rows.h"
#include "cuda/tuning.h"

namespace spp_ext::cuda {

// Bytes of shared memory: a count for each warp and a row for each thread.
constexpr std::int64_t kGroupShared = tuning::kGroupThreads / 32 * 4 + tuning::kGroupThreads * 4;

// How many of the block's threads before this one have a true `flag`, and how many have one at all.
// `warp_counts` is shared memory for one number a warp. All threads of the block must call.
__device__ __forceinline__ std::int32_t rank_in_block(bool flag, std::int32_t* warp_counts,
                                                      std::int32_t* total) {
  const unsigned votes = __ballot_sync(0xffffffffu, flag);
  const std::int32_t lane = threadIdx.x % 32;
  const std::int32_t warp = threadIdx.x / 32;
  if (lane == 0) warp_counts[warp] = __popc(votes);
  __syncthreads();
  std::int32_t before = 0;
  *total = 0;
  for (std::int32_t w = 0; w < static_cast<std::int32_t>(blockDim.x) / 32; ++w) {
    if (w < warp) before += warp_counts[w];
    *total += warp_counts[w];
  }
  __syncthreads();  // the caller's next rank overwrites the counts
  return before + __popc(votes & ((1u << lane) - 1u));
}

// Calls f(row, rank, found) for as many regions at a time as the block has threads, a thread each:
// whether belongs(group of the row) holds decides its rank, which is -1 where it does not, and `found`
// of them have one.
template <class Belongs, class F>
__device__ __forceinline__ void for_each_batch(const GroupedRegions& grouped,
                                               std::int32_t* warp_counts, const Belongs& belongs,
                                               const F& f) {
  for (std::int64_t first = 0; first < grouped.regions.count; first += blockDim.x) {
    const std::int64_t row = first + threadIdx.x;
    const bool chosen =
        row < grouped.regions.count && belongs(group_of(grouped.regions, row, grouped.batch));
    std::int32_t found = 0;
    const std::int32_t rank = rank_in_block(chosen, warp_counts, &found);
    f(static_cast<std::int32_t>(row), chosen ? rank : -1, found);
  }
}

__device__ __forceinline__ void list_group(const GroupedRegions& grouped, std::int64_t group,
                                           std::int64_t groups, std::int32_t* warp_counts) {
  std::int32_t begin = 0;
  for_each_batch(
      grouped, warp_counts, [&](std::int64_t its) { return its != kNoGroup && its < group; },
      [&](std::int32_t, std::int32_t, std::int32_t found) { begin += found; });
  std::int32_t end = begin;
  for_each_batch(
      grouped, warp_counts, [&](std::int64_t its) { return its == group; },
      [&](std::int32_t row, std::int32_t rank, std::int32_t found) {
        if (rank >= 0) grouped.list[end + rank] = row;
        end += found;
      });
  if (threadIdx.x == 0) {
    grouped.begin[group] = begin;
    if (group == groups - 1) grouped.begin[groups] = end;
  }
}

template <class S>
__device__ __forceinline__ void fill_rows_without_group(const GroupedRegions& grouped,
                                                        const Fill& fill, std::int32_t* warp_counts,
                                                        std::int32_t* rows) {
  const S value = from_compute<S>(static_cast<ComputeType<S>>(fill.value));
  for_each_batch(
      grouped, warp_counts, [](std::int64_t its) { return its == kNoGroup; },
      [&](std::int32_t row, std::int32_t rank, std::int32_t found) {
        if (rank >= 0) rows[rank] = row;
        __syncthreads();
        for (std::int64_t i = threadIdx.x; i < found * fill.row_size; i += blockDim.x) {
          const std::int64_t to = rows[i / fill.row_size] * fill.row_size + i % fill.row_size;
          static_cast<S*>(fill.output)[to] = value;
          if (fill.argmax != nullptr) fill.argmax[to] = -1;
        }
        __syncthreads();  // the next batch overwrites the list
      });
}

template <class S>
__global__ void __launch_bounds__(tuning::kGroupThreads, tuning::kMinBlocks)
    group_regions(const __grid_constant__ GroupedRegions grouped,
                  const __grid_constant__ Fill fill) {
  auto* const warp_counts = reinterpret_cast<std::int32_t*>(dynamic_shared());
  std::int32_t* const rows = warp_counts + blockDim.x / 32;
  const std::int64_t groups = grouped.regions.num_maps * grouped.batch;
  for (std::int64_t group = blockIdx.x; group <= groups; group += gridDim.x) {
    if (group < groups) {
      list_group(grouped, group, groups, warp_counts);
    } else if (fill.output != nullptr) {
      fill_rows_without_group<S>(grouped, fill, warp_counts, rows);
    }
  }
}

}  // namespace spp_ext::cuda
