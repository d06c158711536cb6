// Groups regions by image on the device, so that nothing waits for the host. One block an image lists
// the image's regions in ascending order; one more fills the output of regions that cannot be pooled.
// Regions of other maps than the one at hand are passed over.
//
// A block counts for itself how many regions belong to earlier images: it reads the rois twice, but
// needs no second launch and no atomics.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/job.h"
#include "cuda/reduce.cuh"
#include "cuda/tuning.h"

namespace spp_ext::cuda {

// Bytes of shared memory: a count for each warp and a row for each thread.
constexpr std::int64_t kGroupShared = tuning::kGroupThreads / 32 * 4 + tuning::kGroupThreads * 4;

struct GroupParams {
  Regions regions;
  std::int64_t batch;         // N
  std::int32_t* row_begin;    // [N + 1]
  std::int32_t* row_list;     // [K]
  std::int64_t row_elements;  // of output; 0 when there is no output to fill
  void* output;               // [K, row_elements] or null
  std::int32_t* argmax;       // [K, row_elements] or null
};

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

template <class S>
__global__ void __launch_bounds__(tuning::kGroupThreads, tuning::kMinBlocks)
    group_regions(const SPP_GRID_CONSTANT GroupParams params) {
  SPP_DYNAMIC_SHARED(shared);
  auto* const warp_counts = reinterpret_cast<std::int32_t*>(shared);
  std::int32_t* const bad_rows = warp_counts + blockDim.x / 32;
  const std::int64_t count = params.regions.count;

  for (std::int64_t image = blockIdx.x; image <= params.batch; image += gridDim.x) {
    if (image == params.batch) {
      if (params.output == nullptr) return;
      for (std::int64_t first = 0; first < count; first += blockDim.x) {
        const std::int64_t row = first + threadIdx.x;
        const bool bad = row < count && sound_image(params.regions, row, params.batch) == kNoImage;
        std::int32_t found = 0;
        const std::int32_t rank = rank_in_block(bad, warp_counts, &found);
        if (bad) bad_rows[rank] = static_cast<std::int32_t>(row);
        __syncthreads();
        for (std::int64_t i = threadIdx.x; i < found * params.row_elements; i += blockDim.x) {
          const std::int64_t to =
              bad_rows[i / params.row_elements] * params.row_elements + i % params.row_elements;
          static_cast<S*>(params.output)[to] = not_a_number<S>();
          if (params.argmax != nullptr) params.argmax[to] = -1;
        }
        __syncthreads();  // the next rows overwrite the list
      }
      return;
    }
    std::int32_t begin = 0;
    for (std::int64_t first = 0; first < count; first += blockDim.x) {
      const std::int64_t row = first + threadIdx.x;
      const std::int64_t its_image =
          row < count ? sound_image(params.regions, row, params.batch) : kNoImage;
      const bool earlier = its_image >= 0 && its_image < image;
      std::int32_t found = 0;
      rank_in_block(earlier, warp_counts, &found);
      begin += found;
    }
    std::int32_t at = begin;
    for (std::int64_t first = 0; first < count; first += blockDim.x) {
      const std::int64_t row = first + threadIdx.x;
      const bool mine = row < count && sound_image(params.regions, row, params.batch) == image;
      std::int32_t found = 0;
      const std::int32_t rank = rank_in_block(mine, warp_counts, &found);
      if (mine) params.row_list[at + rank] = static_cast<std::int32_t>(row);
      at += found;
    }
    if (threadIdx.x == 0) {
      params.row_begin[image] = begin;
      if (image == params.batch - 1) params.row_begin[params.batch] = at;
    }
  }
}

}  // namespace spp_ext::cuda
