// Pooling of whole channels_last maps. A block owns an image and a chunk of neighbouring channels, and all
// base bins of these or, where that would give too few blocks, a single one. A warp takes a bin, or the
// warps of a block share its rows; the lanes are packs of neighbouring channels, which a cell holds side by
// side, times neighbouring cells of a row:
//
//   lane       0 1 ... 7 | 8 9 ... 15 | 16 ... 23 | 24 ... 31
//   channels   a pack each, 128 bytes in all, and again for each cell
//   cell       x         | x + 1      | x + 2     | x + 3       then x + 4, ...
//
// Derived levels are merged by the block that owns all bins of its channels (write_levels.cuh), or else by
// merge_levels, a second launch, from the output itself.
#pragma once

#include <cstdint>

#include "cuda/best.h"
#include "cuda/device.h"
#include "cuda/map_job.h"
#include "cuda/tuning.h"
#include "cuda/words.h"
#include "cuda/write_levels.cuh"

namespace spp_ext::cuda {

constexpr std::int32_t kChannelLanes = 8;  // lanes side by side on the channels of a cell

struct ChannelsPolicy {
  std::int32_t numbers;    // in a pack: a whole one, or one number where packs are not aligned
  std::int32_t base_bins;  // of base levels
  std::int32_t apart;      // whether each block has a single bin

  SPP_HOST_DEVICE std::int32_t channels() const { return kChannelLanes * numbers; }
};

// The parts of a block's shared memory, in bytes from its start. Slots hold a base bin each or, where the
// warps share a bin, a warp's part of it.
struct ChannelsShared {
  std::int64_t spans;   // Span [spans]
  std::int64_t values;  // S [slots][channels]
  std::int64_t cells;   // int32 alike, with argmax
  std::int64_t bytes;

  SPP_HOST_DEVICE ChannelsShared(const MapJob& job, const ChannelsPolicy& policy,
                                 bool with_argmax) {
    const std::int64_t slots = policy.apart ? tuning::kMapThreads / 32 : job.pyramid.bins;
    const std::int64_t numbers = slots * policy.channels();
    spans = 0;
    values = spans + align16(job.pyramid.spans * 8);
    cells = values + numbers * size_of(job.input.dtype);
    bytes = cells + (with_argmax ? numbers * 4 : 0);
  }
};

// The best of every channel of a lane's pack.
template <class S, int numbers, bool with_argmax>
struct PackBest;

template <class S, int numbers>
struct PackBest<S, numbers, false> {
  Pack<S, numbers> pack = lowest_pack<S, numbers>();

  __device__ __forceinline__ void take(const Pack<S, numbers>& cell_pack, std::int32_t) {
    pack = maximum(pack, cell_pack);
  }
  __device__ __forceinline__ void merge_lanes() {
    for (int offset = kChannelLanes; offset < 32; offset *= 2) {
      Pack<S, numbers> other;
#pragma unroll
      for (int w = 0; w < other.kWords; ++w) other.words[w] = shuffle_xor(pack.words[w], offset);
      pack = maximum(pack, other);
    }
  }
  __device__ __forceinline__ void put(S* values, std::int32_t*) const { store_pack(values, pack); }
};

template <class S, int numbers>
struct PackBest<S, numbers, true> {
  using T = ComputeType<S>;
  Best<T> best[numbers];

  __device__ __forceinline__ PackBest() {
#pragma unroll
    for (int n = 0; n < numbers; ++n) {
      best[n] = {-kInfinity<T>, static_cast<std::int32_t>(kInt32Max)};
    }
  }
  // Cells come in row-major order. The first is taken even if it is -infinity.
  __device__ __forceinline__ void take(const Pack<S, numbers>& cell_pack, std::int32_t cell) {
#pragma unroll
    for (int n = 0; n < numbers; ++n) {
      const T candidate = widen(cell_pack[n]);
      if (MaxOp::replaces(candidate, best[n].value) | (best[n].cell == kInt32Max)) {
        best[n] = {candidate, cell};
      }
    }
  }
  __device__ __forceinline__ void merge_lanes() {
#pragma unroll
    for (int n = 0; n < numbers; ++n) best[n] = cuda::merge_lanes(best[n], kChannelLanes, 32);
  }
  __device__ __forceinline__ void put(S* values, std::int32_t* cells) const {
#pragma unroll
    for (int n = 0; n < numbers; ++n) {
      values[n] = narrow<S>(best[n].value);
      cells[n] = best[n].cell;
    }
  }
};

// The best of rows y, y + row_step, ... of a bin, in every lane. `own` is the lane's pack of cell 0.
template <class S, int numbers, bool with_argmax>
__device__ __forceinline__ PackBest<S, numbers, with_argmax> pool_cells(
    const S* own, std::int32_t cell_stride, std::int32_t width, Span rows, Span cols,
    std::int32_t first_row, std::int32_t row_step) {
  PackBest<S, numbers, with_argmax> best;
  const std::int32_t sub = threadIdx.x % 32 / kChannelLanes;
  constexpr std::int32_t kCells = 32 / kChannelLanes;
  const std::int64_t stride = cell_stride;
  for (std::int32_t y = rows.begin + first_row; y < rows.end; y += row_step) {
    std::int32_t cell = y * width + cols.begin + sub;
    const std::int32_t end = y * width + cols.end;
    const S* at = own + cell * stride;
#pragma unroll 4
    for (; cell < end; cell += kCells, at += kCells * stride) {
      best.take(load_pack<S, numbers>(at), cell);
    }
  }
  best.merge_lanes();
  return best;
}

template <class S, bool with_argmax>
__global__ void __launch_bounds__(tuning::kMapThreads, tuning::kLinearMinBlocks)
    pool_channels(const __grid_constant__ MapJob job,
                  const __grid_constant__ ChannelsPolicy policy) {
  using T = ComputeType<S>;
  unsigned char* const shared = dynamic_shared();
  const ChannelsShared parts(job, policy, with_argmax);
  Span* const spans = reinterpret_cast<Span*>(shared + parts.spans);
  S* const values = reinterpret_cast<S*>(shared + parts.values);
  auto* const cells = reinterpret_cast<std::int32_t*>(shared + parts.cells);
  const std::int32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  for (std::int32_t i = threadIdx.x; i < job.pyramid.spans; i += blockDim.x)
    spans[i] = job.spans[i];
  __syncthreads();

  const FeatureMap& input = job.input;
  const PyramidView pyramid = job.pyramid.view();
  const std::int32_t chunk = policy.channels();
  const std::int64_t chunks = divide_up(input.channels, chunk);
  const std::int32_t shares = policy.apart ? policy.base_bins : 1;  // blocks of a chunk
  for (std::int64_t unit = blockIdx.x; unit < input.batch * chunks * shares; unit += gridDim.x) {
    // Neighbouring blocks take neighbouring channels.
    const std::int64_t image_share = quotient(unit, chunks);
    const std::int64_t channel = (unit - image_share * chunks) * chunk;
    const std::int64_t image = quotient(image_share, shares);
    const auto share = static_cast<std::int32_t>(image_share - image * shares);
    const auto used = static_cast<std::int32_t>(smaller_of(input.channels - channel, chunk));
    // Lanes without a channel repeat the last pack, so that the whole warp reduces together.
    const std::int32_t wanted = lane % kChannelLanes * policy.numbers;
    const std::int32_t own = wanted < used ? wanted : used - policy.numbers;
    const S* const source =
        static_cast<const S*>(input.data) + image * input.cells() * input.channels + channel + own;
    const auto pool_bin = [&](auto numbers, std::int32_t k, std::int32_t first_row,
                              std::int32_t row_step, std::int32_t slot) {
      const BaseBin bin = nth_base_bin(pyramid, spans, k);
      const auto best = pool_cells<S, decltype(numbers)::value, with_argmax>(
          source, static_cast<std::int32_t>(input.channels), static_cast<std::int32_t>(input.width),
          bin.rows, bin.cols, first_row, row_step);
      if (lane < kChannelLanes && wanted < used) {
        const std::int32_t to =
            (slot < 0 ? static_cast<std::int32_t>(bin.bin) : slot) * chunk + own;
        best.put(values + to, cells + to);
      }
    };
    const auto pool_bins = [&](auto numbers) {
      if (policy.apart) {
        pool_bin(numbers, share, warp, warps, warp);
      } else {
        for (std::int32_t k = warp; k < policy.base_bins; k += warps) {
          pool_bin(numbers, k, 0, 1, -1);
        }
      }
    };
    if (policy.numbers == kPerPack<S>) {
      pool_bins(std::integral_constant<int, kPerPack<S>>{});
    } else {
      pool_bins(std::integral_constant<int, 1>{});
    }
    __syncthreads();
    const auto at = [&](std::int32_t column, std::int32_t slot) -> Best<T> {
      const std::int32_t from = slot * chunk + column;
      return {widen(values[from]), with_argmax ? cells[from] : 0};
    };
    if (policy.apart) {
      const BaseBin bin = nth_base_bin(pyramid, spans, share);
      std::int32_t level = 0;
      while (bin.bin >= pyramid.levels[level].first_bin + pyramid.levels[level].bins) ++level;
      for (std::int32_t column = threadIdx.x; column < used; column += blockDim.x) {
        Best<T> best = at(column, 0);
        for (std::int32_t slot = 1; slot < warps; ++slot) {
          if constexpr (with_argmax) {
            merge(best, at(column, slot));
          } else {
            best.value = maximum(best.value, at(column, slot).value);
          }
        }
        const std::int64_t to = job.output_index(level, image, channel + column,
                                                 bin.bin - pyramid.levels[level].first_bin);
        static_cast<S*>(job.output)[to] = narrow<S>(best.value);
        if constexpr (with_argmax) job.argmax[to] = best.cell;
      }
    } else {
      write_levels<S, with_argmax>(job, image, channel, used, at);
    }
    __syncthreads();  // the next channels overwrite the slots
  }
}

// Merges the derived levels of every plane from base levels that are in the output already. A thread a bin.
template <class S, bool with_argmax>
__global__ void __launch_bounds__(tuning::kElementThreads, tuning::kLinearMinBlocks)
    merge_levels(const __grid_constant__ MapJob job) {
  using T = ComputeType<S>;
  const PyramidView pyramid = job.pyramid.view();
  const S* const values = static_cast<const S*>(job.output);
  for (std::int32_t l = 0; l < pyramid.num_levels; ++l) {
    const Level& level = pyramid.levels[l];
    if (level.is_base()) continue;
    const Level& source = pyramid.levels[level.source];
    const std::int64_t items = job.input.batch * job.channels * level.bins;
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < items; i += step) {
      const std::int64_t plane = quotient(i, level.bins);
      const std::int64_t image = quotient(plane, job.channels);
      const std::int64_t channel = plane - image * job.channels;
      const std::int64_t bin = i - plane * level.bins;
      const std::int64_t from = job.output_index(level.source, image, channel, 0);
      const Rectangle parts = pyramid.merged_bins(level, bin);
      Best<T> best{-kInfinity<T>, static_cast<std::int32_t>(kInt32Max)};
      for (std::int32_t y = parts.top; y < parts.bottom; ++y) {
        for (std::int32_t x = parts.left; x < parts.right; ++x) {
          const std::int64_t part = from + std::int64_t{y} * source.col_divisions + x;
          if constexpr (with_argmax) {
            merge(best, {widen(values[part]), job.argmax[part]});
          } else {
            best.value = maximum(best.value, widen(values[part]));
          }
        }
      }
      const std::int64_t to = job.output_index(l, image, channel, bin);
      static_cast<S*>(job.output)[to] = narrow<S>(best.value);
      if constexpr (with_argmax) job.argmax[to] = best.cell;
    }
  }
}

}  // namespace spp_ext::cuda
