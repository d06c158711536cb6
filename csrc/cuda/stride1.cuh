// Stride-1 max pools of several kernel sizes. A block owns a tile of a few neighbouring planes and
// loads it with a halo as wide as the largest kernel reaches; from there everything is in shared
// memory. Sizes are reached by widening the last result, along rows and then along columns, three
// look-ups each (cpu/stride1_lanes.cpp says why that is exact). Towards the rim of the halo
// results are incomplete, by exactly as much as the halo is wide.
//
// Cells are numbered within the tile and its halo, which keeps their order, and renumbered on output.
#pragma once

#include <cstdint>

#include "core/max_op.h"
#include "cuda/block_bins.cuh"
#include "cuda/device.h"
#include "cuda/reduce.cuh"
#include "cuda/tuning.h"

namespace spp_ext::cuda {

constexpr std::int32_t kMaxKernelSizes = 32;

struct Stride1Job {
  FeatureMap input;
  std::int64_t kernel_sizes[kMaxKernelSizes];
  std::int32_t num_kernels;
  std::int32_t cascade;
  void* output;          // [N, (L + 1) * C, H, W] in the input's layout
  std::int32_t* argmax;  // alike or null

  SPP_HOST_DEVICE std::int64_t output_index(std::int64_t image, std::int64_t block,
                                            std::int64_t channel, std::int64_t cell) const {
    const std::int64_t channels = (num_kernels + 1) * input.channels;
    const std::int64_t of_image = image * channels * input.cells();
    const std::int64_t out_channel = block * input.channels + channel;
    return of_image + (input.layout == Layout::kContiguous ? out_channel * input.cells() + cell
                                                           : cell * channels + out_channel);
  }
};

struct Stride1Policy {
  std::int32_t channels;  // planes in a block
  std::int32_t rows;      // of a tile
  std::int32_t cols;
  std::int32_t halo;

  SPP_HOST_DEVICE std::int64_t plane_cells() const {
    return static_cast<std::int64_t>(rows + 2 * halo) * (cols + 2 * halo);
  }
};

// The parts of a block's shared memory, in bytes from its start; each [channels][plane_cells].
struct Stride1Shared {
  std::int64_t values[2];  // T, the last result and the one in the making
  std::int64_t cells[2];   // int32, with argmax
  std::int64_t before;     // int32, a cascade's cells before the stage at work
  std::int64_t bytes;

  SPP_HOST_DEVICE Stride1Shared(const Stride1Policy& policy, std::int64_t value_bytes,
                                    bool with_argmax, bool cascade) {
    const std::int64_t count = policy.channels * policy.plane_cells();
    values[0] = 0;
    values[1] = values[0] + align16(count * value_bytes);
    cells[0] = values[1] + align16(count * value_bytes);
    cells[1] = cells[0] + (with_argmax ? align16(count * 4) : 0);
    before = cells[1] + (with_argmax ? align16(count * 4) : 0);
    bytes = before + (with_argmax && cascade ? align16(count * 4) : 0);
  }
};

// A tile with its halo, as far as it lies in the map.
struct Tile {
  std::int32_t row, col;  // of its first cell
  std::int32_t rows, cols;
};

// to = the best of from at `distance` before, at and after each cell, along rows or along columns.
template <bool with_argmax, class T>
__device__ __forceinline__ void widen(const Tile& tile, std::int32_t planes, bool along_rows,
                                      std::int32_t distance, const T* from_values,
                                      const std::int32_t* from_cells, T* to_values,
                                      std::int32_t* to_cells) {
  const std::int32_t size = tile.rows * tile.cols;
  for (std::int32_t i = threadIdx.x; i < planes * size; i += blockDim.x) {
    const std::int32_t here = i % size;
    const std::int32_t place = along_rows ? here % tile.cols : here / tile.cols;
    const std::int32_t count = along_rows ? tile.cols : tile.rows;
    const std::int32_t stride = along_rows ? 1 : tile.cols;
    const std::int32_t back = (place < distance ? place : distance) * stride;
    const std::int32_t left = count - 1 - place;
    const std::int32_t forth = (left < distance ? left : distance) * stride;
    Best<T> best{from_values[i - back], with_argmax ? from_cells[i - back] : 0};
    merge<with_argmax>(best, {from_values[i], with_argmax ? from_cells[i] : 0});
    merge<with_argmax>(best, {from_values[i + forth], with_argmax ? from_cells[i + forth] : 0});
    to_values[i] = best.value;
    if constexpr (with_argmax) to_cells[i] = best.cell;
  }
  __syncthreads();
}

template <class S, bool with_argmax>
__global__ void __launch_bounds__(tuning::kPlaneThreads, tuning::kMinBlocks)
    pool_stride1(const SPP_GRID_CONSTANT Stride1Job job,
                      const SPP_GRID_CONSTANT Stride1Policy policy) {
  using T = ComputeType<S>;
  SPP_DYNAMIC_SHARED(shared);
  const Stride1Shared parts(policy, sizeof(T), with_argmax, job.cascade != 0);
  T* const best = reinterpret_cast<T*>(shared + parts.values[0]);
  T* const widened = reinterpret_cast<T*>(shared + parts.values[1]);
  auto* const best_cells = reinterpret_cast<std::int32_t*>(shared + parts.cells[0]);
  auto* const widened_cells = reinterpret_cast<std::int32_t*>(shared + parts.cells[1]);
  auto* const before = reinterpret_cast<std::int32_t*>(shared + parts.before);

  const FeatureMap& input = job.input;
  const auto height = static_cast<std::int32_t>(input.height);
  const auto width = static_cast<std::int32_t>(input.width);
  const std::int64_t slabs = (input.channels + policy.channels - 1) / policy.channels;
  const std::int64_t tiles_down = (height + policy.rows - 1) / policy.rows;
  const std::int64_t tiles_across = (width + policy.cols - 1) / policy.cols;

  for (std::int64_t unit = blockIdx.x; unit < input.batch * slabs * tiles_down * tiles_across;
       unit += gridDim.x) {
    const auto row = static_cast<std::int32_t>(unit / tiles_across % tiles_down * policy.rows);
    const auto col = static_cast<std::int32_t>(unit % tiles_across * policy.cols);
    const std::int64_t slab = unit / tiles_across / tiles_down;
    const std::int64_t image = slab / slabs;
    const std::int64_t channel = slab % slabs * policy.channels;
    const std::int64_t channels_left = input.channels - channel;
    const auto planes = static_cast<std::int32_t>(
        channels_left < policy.channels ? channels_left : policy.channels);
    const std::int32_t end_row = row + policy.rows < height ? row + policy.rows : height;
    const std::int32_t end_col = col + policy.cols < width ? col + policy.cols : width;
    Tile tile;
    tile.row = row > policy.halo ? row - policy.halo : 0;
    tile.col = col > policy.halo ? col - policy.halo : 0;
    tile.rows = (end_row + policy.halo < height ? end_row + policy.halo : height) - tile.row;
    tile.cols = (end_col + policy.halo < width ? end_col + policy.halo : width) - tile.col;
    const std::int32_t size = tile.rows * tile.cols;
    const bool contiguous = input.layout == Layout::kContiguous;
    const S* const source = static_cast<const S*>(input.data) +
                            image * input.channels * input.cells() + channel * input.plane_stride();

    // Neighbouring threads read neighbouring memory: cells of a plane, or planes of a cell.
    for (std::int32_t i = threadIdx.x; i < planes * size; i += blockDim.x) {
      const std::int32_t plane = contiguous ? i / size : i % planes;
      const std::int32_t here = contiguous ? i % size : i / planes;
      const std::int64_t cell = static_cast<std::int64_t>(tile.row + here / tile.cols) * width +
                                tile.col + here % tile.cols;
      best[plane * size + here] =
          to_compute(source[plane * input.plane_stride() + cell * input.cell_stride()]);
      if constexpr (with_argmax) best_cells[plane * size + here] = here;
    }
    __syncthreads();

    std::int64_t reached = 1;
    for (std::int32_t block = 0; block <= job.num_kernels; ++block) {
      if (block > 0) {
        const std::int64_t kernel = job.kernel_sizes[block - 1];
        const bool stage = with_argmax && job.cascade && block > 1;
        if (stage) {
          // A stage pools the values of the one before, ties among them included, and then looks up
          // where each of those came from.
          for (std::int32_t i = threadIdx.x; i < planes * size; i += blockDim.x) {
            before[i] = best_cells[i];
            best_cells[i] = i % size;
          }
          __syncthreads();
        }
        std::int64_t from = stage ? 1 : reached;
        const std::int64_t wanted = stage ? kernel - reached + 1 : kernel;
        while (from < wanted) {
          const std::int64_t half = (wanted - from) / 2;
          const std::int64_t distance = half < from ? half : from;
          widen<with_argmax>(tile, planes, true, static_cast<std::int32_t>(distance), best,
                             best_cells, widened, widened_cells);
          widen<with_argmax>(tile, planes, false, static_cast<std::int32_t>(distance), widened,
                             widened_cells, best, best_cells);
          from += 2 * distance;
        }
        reached = kernel;
        if (stage) {
          for (std::int32_t i = threadIdx.x; i < planes * size; i += blockDim.x) {
            best_cells[i] = before[i / size * size + best_cells[i]];
          }
          __syncthreads();
        }
      }
      const std::int32_t out_cols = end_col - col;
      const std::int32_t out_size = (end_row - row) * out_cols;
      for (std::int32_t i = threadIdx.x; i < planes * out_size; i += blockDim.x) {
        const std::int32_t plane = contiguous ? i / out_size : i % planes;
        const std::int32_t place = contiguous ? i % out_size : i / planes;
        const std::int32_t y = row + place / out_cols;
        const std::int32_t x = col + place % out_cols;
        const std::int32_t here = plane * size + (y - tile.row) * tile.cols + x - tile.col;
        const std::int64_t to = job.output_index(image, block, channel + plane,
                                                 static_cast<std::int64_t>(y) * width + x);
        static_cast<S*>(job.output)[to] = from_compute<S>(best[here]);
        if constexpr (with_argmax) {
          const std::int32_t cell = best_cells[here];
          job.argmax[to] = (tile.row + cell / tile.cols) * width + tile.col + cell % tile.cols;
        }
      }
      __syncthreads();  // the next size, or the next unit, overwrites what was read here
    }
  }
}

// The same, without shared memory: a thread an element looks at its whole window, and in a cascade
// passes from stage to stage in output and argmax themselves, one launch each. For kernels so large
// that no tile with its halo fits in shared memory.
template <class S, bool with_argmax>
__global__ void __launch_bounds__(tuning::kElementThreads, tuning::kMinBlocks)
    pool_one_kernel(const SPP_GRID_CONSTANT Stride1Job job, std::int32_t block) {
  using T = ComputeType<S>;
  const FeatureMap& input = job.input;
  const bool stage = job.cascade && block > 1;
  const std::int64_t reached = stage ? job.kernel_sizes[block - 2] : 1;
  const std::int64_t kernel = block == 0 ? 1 : job.kernel_sizes[block - 1] - reached + 1;
  const std::int64_t reach = (kernel - 1) / 2;
  const std::int64_t count = input.batch * input.channels * input.cells();
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    const std::int64_t cell = i % input.cells();
    const std::int64_t channel = i / input.cells() % input.channels;
    const std::int64_t image = i / input.cells() / input.channels;
    const std::int64_t y = cell / input.width, x = cell % input.width;
    const Span rows = clip({y - reach, y + reach + 1}, input.height);
    const Span cols = clip({x - reach, x + reach + 1}, input.width);
    const S* plane;
    std::int64_t stride;
    if (stage) {
      plane = static_cast<const S*>(job.output) + job.output_index(image, block - 1, channel, 0);
      stride = job.output_index(0, 0, 0, 1);
    } else {
      plane = static_cast<const S*>(input.data) + image * input.channels * input.cells() +
              channel * input.plane_stride();
      stride = input.cell_stride();
    }
    const Best<T> best = reduce_cells<with_argmax>(
        plane, stride, static_cast<std::int32_t>(input.width), rows, cols, 0, 1);
    const std::int64_t to = job.output_index(image, block, channel, cell);
    static_cast<S*>(job.output)[to] = from_compute<S>(best.value);
    if constexpr (with_argmax) {
      job.argmax[to] =
          stage ? job.argmax[job.output_index(image, block - 1, channel, best.cell)] : best.cell;
    }
  }
}

}  // namespace spp_ext::cuda
