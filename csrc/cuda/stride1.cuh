// Stride-1 max pools of several kernel sizes. A block owns a tile of a few neighbouring planes, a
// thread a cell at a time, and loads it with a halo as wide as the largest kernel reaches; from there
// everything is in shared memory. Sizes are reached by widening the last result, along rows and then
// along columns, three look-ups each (cpu/stride1_lanes.cpp says why that is exact). Towards the rim of
// the halo results are incomplete, by exactly as much as the halo is wide.
//
// Cells are numbered within the tile and its halo, which keeps their order, and renumbered on output.
#pragma once

#include <cstdint>

#include "core/max_op.h"
#include "cuda/block_bins.cuh"
#include "cuda/device.h"
#include "cuda/kernels.h"
#include "cuda/reduce.cuh"
#include "cuda/tuning.h"

namespace spp_ext::cuda {

struct Stride1Job {
  FeatureMap input;
  std::int32_t kernel_sizes[kMaxKernelSizes];
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

// What a block works on at a time: a tile of some planes of an image. It is written without its halo,
// and read with it, as far as that lies in the map.
struct Stride1Unit {
  std::int64_t image;
  std::int64_t channel;  // the first plane
  std::int32_t planes;
  Span rows, cols;            // without the halo
  Span tile_rows, tile_cols;  // with it
  std::int32_t width;         // of the tile
  std::int32_t size;          // its cells

  __device__ __forceinline__ Stride1Unit(const FeatureMap& input, const Stride1Policy& policy,
                                         std::int64_t number) {
    const std::int64_t slabs = divide_up(input.channels, policy.channels);
    const std::int64_t down = divide_up(input.height, policy.rows);
    const std::int64_t across = divide_up(input.width, policy.cols);
    const std::int64_t row = number / across % down * policy.rows;
    const std::int64_t col = number % across * policy.cols;
    const std::int64_t slab = number / across / down;
    image = slab / slabs;
    channel = slab % slabs * policy.channels;
    planes = static_cast<std::int32_t>(smaller_of(input.channels - channel, policy.channels));
    rows = clip({row, row + policy.rows}, input.height);
    cols = clip({col, col + policy.cols}, input.width);
    const std::int64_t halo = policy.halo;
    tile_rows = clip({rows.begin - halo, rows.end + halo}, input.height);
    tile_cols = clip({cols.begin - halo, cols.end + halo}, input.width);
    width = tile_cols.end - tile_cols.begin;
    size = (tile_rows.end - tile_rows.begin) * width;
  }
};

// A best for every cell of a block's tile, in shared memory.
template <class T>
struct TileBests {
  T* values;            // [planes][size]
  std::int32_t* cells;  // alike, with argmax
};

// The phases of the kernel. All threads of the block must call; each ends with a barrier.
template <class T, bool with_argmax>
struct TilePool {
  TileBests<T> last;     // the last result
  TileBests<T> other;    // the one in the making
  std::int32_t* before;  // a cascade's cells before the stage at work

  template <class S>
  __device__ __forceinline__ void load(const FeatureMap& input, const Stride1Unit& unit) {
    const bool contiguous = input.layout == Layout::kContiguous;
    const S* const source = static_cast<const S*>(input.data) +
                            unit.image * input.channels * input.cells() +
                            unit.channel * input.plane_stride();
    // Neighbouring threads read neighbouring memory: cells of a plane, or planes of a cell.
    for (std::int32_t i = threadIdx.x; i < unit.planes * unit.size; i += blockDim.x) {
      const std::int32_t plane = contiguous ? i / unit.size : i % unit.planes;
      const std::int32_t here = contiguous ? i % unit.size : i / unit.planes;
      const std::int64_t cell = (unit.tile_rows.begin + here / unit.width) * input.width +
                                unit.tile_cols.begin + here % unit.width;
      last.values[plane * unit.size + here] =
          to_compute(source[plane * input.plane_stride() + cell * input.cell_stride()]);
      if constexpr (with_argmax) last.cells[plane * unit.size + here] = here;
    }
    __syncthreads();
  }

  // to = the best of from at `distance` before, at and after each cell, along rows or along columns.
  static __device__ __forceinline__ void widen(const Stride1Unit& unit, bool along_rows,
                                               std::int32_t distance, const TileBests<T>& from,
                                               const TileBests<T>& to) {
    const std::int32_t count = along_rows ? unit.width : unit.size / unit.width;
    const std::int32_t stride = along_rows ? 1 : unit.width;
    for (std::int32_t i = threadIdx.x; i < unit.planes * unit.size; i += blockDim.x) {
      const std::int32_t here = i % unit.size;
      const std::int32_t place = along_rows ? here % unit.width : here / unit.width;
      const std::int32_t back = (place < distance ? place : distance) * stride;
      const std::int32_t left = count - 1 - place;
      const std::int32_t forth = (left < distance ? left : distance) * stride;
      const auto at = [&](std::int32_t j) {
        return Best<T>{from.values[j], with_argmax ? from.cells[j] : 0};
      };
      Best<T> best = at(i - back);
      merge<with_argmax>(best, at(i));
      merge<with_argmax>(best, at(i + forth));
      to.values[i] = best.value;
      if constexpr (with_argmax) to.cells[i] = best.cell;
    }
    __syncthreads();
  }

  // From results of kernel size `from` to those of size `to`.
  __device__ __forceinline__ void widen_to(const Stride1Unit& unit, std::int64_t from,
                                           std::int64_t to) {
    while (from < to) {
      const auto distance = static_cast<std::int32_t>(smaller_of((to - from) / 2, from));
      widen(unit, true, distance, last, other);
      widen(unit, false, distance, other, last);
      from += 2 * distance;
    }
  }

  // A stage of a cascade pools the values of the one before, ties among them included, and afterwards
  // looks up where each of those came from.
  __device__ __forceinline__ void begin_stage(const Stride1Unit& unit) {
    for (std::int32_t i = threadIdx.x; i < unit.planes * unit.size; i += blockDim.x) {
      before[i] = last.cells[i];
      last.cells[i] = i % unit.size;
    }
    __syncthreads();
  }
  __device__ __forceinline__ void end_stage(const Stride1Unit& unit) {
    for (std::int32_t i = threadIdx.x; i < unit.planes * unit.size; i += blockDim.x) {
      last.cells[i] = before[i / unit.size * unit.size + last.cells[i]];
    }
    __syncthreads();
  }

  template <class S>
  __device__ __forceinline__ void write(const Stride1Job& job, const Stride1Unit& unit,
                                        std::int32_t block) const {
    const bool contiguous = job.input.layout == Layout::kContiguous;
    const auto map_width = static_cast<std::int32_t>(job.input.width);
    const std::int32_t out_width = unit.cols.end - unit.cols.begin;
    const std::int32_t out_size = (unit.rows.end - unit.rows.begin) * out_width;
    for (std::int32_t i = threadIdx.x; i < unit.planes * out_size; i += blockDim.x) {
      const std::int32_t plane = contiguous ? i / out_size : i % unit.planes;
      const std::int32_t place = contiguous ? i % out_size : i / unit.planes;
      const std::int32_t y = unit.rows.begin + place / out_width;
      const std::int32_t x = unit.cols.begin + place % out_width;
      const std::int32_t here =
          plane * unit.size + (y - unit.tile_rows.begin) * unit.width + x - unit.tile_cols.begin;
      const std::int64_t to = job.output_index(unit.image, block, unit.channel + plane,
                                               static_cast<std::int64_t>(y) * map_width + x);
      static_cast<S*>(job.output)[to] = from_compute<S>(last.values[here]);
      if constexpr (with_argmax) {
        const std::int32_t cell = last.cells[here];
        job.argmax[to] = (unit.tile_rows.begin + cell / unit.width) * map_width +
                         unit.tile_cols.begin + cell % unit.width;
      }
    }
    __syncthreads();  // the next size, or the next unit, overwrites what was read here
  }
};

template <class S, bool with_argmax>
__global__ void __launch_bounds__(tuning::kPlaneThreads, tuning::kMinBlocks)
    pool_stride1(const __grid_constant__ Stride1Job job,
                 const __grid_constant__ Stride1Policy policy) {
  using T = ComputeType<S>;
  unsigned char* const shared = dynamic_shared();
  const Stride1Shared parts(policy, sizeof(T), with_argmax, job.cascade != 0);
  const auto bests = [&](int i) {
    return TileBests<T>{reinterpret_cast<T*>(shared + parts.values[i]),
                        reinterpret_cast<std::int32_t*>(shared + parts.cells[i])};
  };
  const FeatureMap& input = job.input;
  const std::int64_t units = input.batch * divide_up(input.channels, policy.channels) *
                             divide_up(input.height, policy.rows) *
                             divide_up(input.width, policy.cols);
  for (std::int64_t i = blockIdx.x; i < units; i += gridDim.x) {
    const Stride1Unit unit(input, policy, i);
    TilePool<T, with_argmax> pool{bests(0), bests(1),
                                  reinterpret_cast<std::int32_t*>(shared + parts.before)};
    pool.template load<S>(input, unit);
    pool.template write<S>(job, unit, 0);
    std::int64_t reached = 1;
    for (std::int32_t block = 1; block <= job.num_kernels; ++block) {
      const std::int64_t kernel = job.kernel_sizes[block - 1];
      if (with_argmax && job.cascade && block > 1) {
        pool.begin_stage(unit);
        pool.widen_to(unit, 1, kernel - reached + 1);
        pool.end_stage(unit);
      } else {
        pool.widen_to(unit, reached, kernel);
      }
      reached = kernel;
      pool.template write<S>(job, unit, block);
    }
  }
}

// The same, without shared memory: a thread an element looks at its whole window, and in a cascade
// passes from stage to stage in output and argmax themselves, one launch each. For kernels so large
// that no tile with its halo fits in shared memory.
template <class S, bool with_argmax>
__global__ void __launch_bounds__(tuning::kElementThreads, tuning::kMinBlocks)
    pool_stride1_cells(const __grid_constant__ Stride1Job job, std::int32_t block) {
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
