// What gather and scatter find out about regions before they walk through them: two small kernels.
//
// prepare_groups: a thread a region writes its group, map * N + image, and a block the least and the
// greatest group of its chunk of regions. Regions mostly come sorted by image, so that whoever looks
// for those of one group skips nearly all other chunks.
//
// find_extents: a block a row finds the cells between which the row's argmax lies, so that whoever
// adds up a part of a large map skips the rows that do not meet it.
#pragma once

#include <cstdint>

#include "core/integers.h"
#include "core/regions.h"
#include "cuda/device.h"
#include "cuda/region_groups.h"
#include "cuda/tuning.h"

namespace spp_ext::cuda {

// The least and the greatest of the block's numbers, in thread 0. `shared` holds two numbers a warp.
// All threads of the block must call.
template <class Low>
__device__ __forceinline__ void block_range(Low* least, std::int32_t* greatest,
                                            std::int32_t* shared) {
  auto* const lows = reinterpret_cast<Low*>(shared);
  std::int32_t* const highs = shared + blockDim.x / 32;
  for (int offset = 16; offset > 0; offset /= 2) {
    const Low low = __shfl_xor_sync(0xffffffffu, *least, offset);
    const std::int32_t high = __shfl_xor_sync(0xffffffffu, *greatest, offset);
    *least = low < *least ? low : *least;
    *greatest = high > *greatest ? high : *greatest;
  }
  if (threadIdx.x % 32 == 0) {
    lows[threadIdx.x / 32] = *least;
    highs[threadIdx.x / 32] = *greatest;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (unsigned warp = 1; warp < blockDim.x / 32; ++warp) {
      *least = lows[warp] < *least ? lows[warp] : *least;
      *greatest = highs[warp] > *greatest ? highs[warp] : *greatest;
    }
  }
}

// Shared memory of both kernels: two numbers a warp.
__global__ void __launch_bounds__(tuning::kGroupChunk)
    prepare_groups(const __grid_constant__ GroupJob job) {
  auto* const shared = reinterpret_cast<std::int32_t*>(dynamic_shared());
  const std::int64_t row = std::int64_t{blockIdx.x} * tuning::kGroupChunk + threadIdx.x;
  const bool real = row < job.regions.count;
  std::int32_t group = kNoGroup;
  if (real) {
    group = static_cast<std::int32_t>(group_of(job.regions, row, job.batch));
    job.group[row] = group;
  }
  std::int32_t least = real ? group : static_cast<std::int32_t>(kInt32Max);
  std::int32_t greatest = group;
  block_range(&least, &greatest, shared);
  if (threadIdx.x == 0) {
    job.least[blockIdx.x] = least;
    job.greatest[blockIdx.x] = greatest;
  }
}

// As unsigned numbers the -1 of empty bins are above all cells, as signed ones below.
__global__ void __launch_bounds__(tuning::kExtentThreads, tuning::kMinBlocks)
    find_extents(const __grid_constant__ ExtentJob job) {
  auto* const shared = reinterpret_cast<std::int32_t*>(dynamic_shared());
  const std::int64_t row = blockIdx.x;
  std::uint32_t first = 0xffffffffu;
  std::int32_t last = -1;
  const auto add = [&](std::uint32_t cell) {
    first = cell < first ? cell : first;
    last = static_cast<std::int32_t>(cell) > last ? static_cast<std::int32_t>(cell) : last;
  };
  const std::int32_t* const cells = job.argmax + row * job.row_size;
  std::int64_t alone = 0;  // elements before the packs
  if (job.row_size % 4 == 0 && reinterpret_cast<std::uintptr_t>(cells) % 16 == 0) {
    const auto* const packs = reinterpret_cast<const uint4*>(cells);
    const std::int64_t count = job.row_size / 4;
#pragma unroll 4
    for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) {
      const uint4 pack = packs[i];
      add(pack.x);
      add(pack.y);
      add(pack.z);
      add(pack.w);
    }
    alone = job.row_size;
  }
#pragma unroll 4
  for (std::int64_t i = alone + threadIdx.x; i < job.row_size; i += blockDim.x) {
    add(static_cast<std::uint32_t>(cells[i]));
  }
  block_range(&first, &last, shared);
  if (threadIdx.x == 0) {
    job.first_cell[row] = first;
    job.last_cell[row] = last;
  }
}

}  // namespace spp_ext::cuda
