// gather and scatter: what every derivative is made of.
//
// gather: a thread an element.
//
// scatter: a block has as many sums of a plane (or of a range of its cells) in shared memory as it
// has warps. A warp walks through the elements of its plane in order, 32 at a time, and where
// several of them name one cell the first of these lanes adds them one after another. So every
// cell's sum has one order, whatever the timing. Whole maps give each warp a plane of its own;
// regions give a plane to several warps, each with one part of the regions, and the parts are added
// in order at the end. Each cell of the result is written once, zeros included.
#pragma once

#include <cstdint>

#include "core/integers.h"
#include "core/row.h"
#include "cuda/device.h"
#include "cuda/kernels.h"
#include "cuda/rows.h"
#include "cuda/tuning.h"

namespace spp_ext::cuda {

// How the elements of a [R, C * B] array belong to the planes of one map.
struct LinearJob {
  const std::int32_t* argmax;  // [R, C * B]
  Rows rows;
  FeatureMap map;  // the planes' shape and layout
  RowOrder order;
  RowLevel own_levels[kMaxLinearLevels];
  const RowLevel* levels;  // [order.num_levels], where own_levels has no room for them; else null

  SPP_HOST_DEVICE RowLevel level(std::int32_t i) const {
    return levels == nullptr ? own_levels[i] : levels[i];
  }
};

struct GatherJob {
  LinearJob linear;
  void* output;  // [R, C * B]
};

struct ScatterJob {
  LinearJob linear;
  const void* grad_output;  // [R, C * B]
  void* grad_input;         // as linear.map
};

template <class S>
__global__ void __launch_bounds__(tuning::kElementThreads, tuning::kMinBlocks)
    gather(const __grid_constant__ GatherJob job) {
  const LinearJob& linear = job.linear;
  const FeatureMap& map = linear.map;
  const RowOrder& order = linear.order;
  const std::int64_t begin = linear.rows.begin_of(0);
  const std::int64_t elements = (linear.rows.begin_of(map.batch) - begin) * order.size();
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < elements; i += step) {
    const std::int64_t row = linear.rows.row_at(begin + i / order.size());
    const std::int64_t column = i % order.size();
    const std::int64_t at = row * order.size() + column;
    const std::int64_t channel =
        order.place(column, [&](std::int32_t level) { return linear.level(level); }).channel;
    const std::int64_t cell = linear.argmax[at];
    S value = from_compute<S>(0);
    if (cell >= 0 && cell < map.cells()) {
      const std::int64_t plane =
          linear.rows.image_of(row) * map.channels * map.cells() + channel * map.plane_stride();
      value = static_cast<const S*>(map.data)[plane + cell * map.cell_stride()];
    }
    static_cast<S*>(job.output)[at] = value;
  }
}

struct ScatterPolicy {
  std::int32_t planes;  // of a block
  std::int32_t warps;
  std::int32_t cells;  // of a plane that one block sums; a whole plane where it fits

  SPP_HOST_DEVICE std::int32_t parts() const { return warps / planes; }  // warps that share a plane
};

// What a block works on at a time: some planes of an image, and a range of their cells.
struct ScatterUnit {
  std::int64_t image;
  std::int64_t channel;  // the first plane
  std::int32_t planes;
  std::int64_t first_cell;
  std::int32_t cells;

  __device__ __forceinline__ ScatterUnit(const FeatureMap& map, const ScatterPolicy& policy,
                                         std::int64_t slabs, std::int64_t ranges,
                                         std::int64_t number) {
    first_cell = number % ranges * policy.cells;
    channel = number / ranges % slabs * policy.planes;
    image = number / ranges / slabs;
    planes = static_cast<std::int32_t>(smaller_of(map.channels - channel, policy.planes));
    cells = static_cast<std::int32_t>(smaller_of(map.cells() - first_cell, policy.cells));
  }
};

// The elements that one warp adds: those of one plane in one part of the image's rows, in order, in
// batches of 32 that lie in one row.
template <class S>
struct PlanePart {
  const ScatterJob& job;
  const ScatterUnit& unit;
  std::int64_t channel;
  std::int64_t begin;        // the position of the part's first row
  std::int64_t row_batches;  // batches of a row
  std::int64_t batches;

  __device__ __forceinline__ PlanePart(const ScatterJob& of, const ScatterUnit& in,
                                       std::int32_t plane, std::int32_t part, std::int32_t parts)
      : job(of), unit(in), channel(unit.channel + plane) {
    const Rows& rows = job.linear.rows;
    const std::int64_t image_begin = rows.begin_of(unit.image);
    const std::int64_t image_rows = rows.begin_of(unit.image + 1) - image_begin;
    const std::int64_t part_rows = divide_up(image_rows, parts);
    begin = image_begin + part * part_rows;
    row_batches = divide_up(job.linear.order.bins, 32);
    const std::int64_t own_rows = smaller_of(part_rows, image_rows - part * part_rows);
    batches = own_rows > 0 ? own_rows * row_batches : 0;
  }

  // This lane's element of a batch: the cell of the unit's range that it names, -1 if none, and what
  // it adds there.
  __device__ __forceinline__ std::int32_t fetch(std::int64_t batch, std::int32_t lane,
                                                ComputeType<S>* value) const {
    const LinearJob& linear = job.linear;
    const std::int64_t row = linear.rows.row_at(begin + batch / row_batches);
    const std::int64_t bin = batch % row_batches * 32 + lane;
    if (bin >= linear.order.bins) return -1;
    std::int32_t i = 0;
    RowLevel level = linear.level(0);
    while (bin >= std::int64_t{level.first_bin} + level.bins) level = linear.level(++i);
    const std::int64_t element = row * linear.order.size() +
                                 linear.order.element(level, {i, channel, bin - level.first_bin});
    *value = to_compute(static_cast<const S*>(job.grad_output)[element]);
    const std::int64_t cell = linear.argmax[element] - unit.first_cell;
    return cell >= 0 && cell < unit.cells ? static_cast<std::int32_t>(cell) : -1;
  }
};

// Adds the elements of `part` to `sums` [cells], a warp together; `staged` holds a number a lane.
template <class S, class T>
__device__ __forceinline__ void add_part(const PlanePart<S>& part, T* sums, T* staged) {
  const auto lane = static_cast<std::int32_t>(threadIdx.x % 32);
  T next_value = 0;
  std::int32_t next_cell = part.batches > 0 ? part.fetch(0, lane, &next_value) : -1;
  for (std::int64_t batch = 0; batch < part.batches; ++batch) {
    const std::int32_t cell = next_cell;
    staged[lane] = next_value;
    // The next elements are on their way while these are added.
    if (batch + 1 < part.batches) next_cell = part.fetch(batch + 1, lane, &next_value);
    // Lanes that add nothing get keys of their own, below any cell.
    const unsigned peers = __match_any_sync(0xffffffffu, cell >= 0 ? cell : -1 - lane);
    __syncwarp();
    if (cell >= 0 && __ffs(static_cast<int>(peers)) - 1 == lane) {
      T sum = sums[cell];
      for (unsigned rest = peers; rest != 0; rest &= rest - 1) {
        sum += staged[__ffs(static_cast<int>(rest)) - 1];
      }
      sums[cell] = sum;
    }
    __syncwarp();
  }
}

// Adds the parts of every plane, in order, and writes them. Neighbouring threads write neighbouring
// memory: cells of a plane, or planes of a cell.
template <class S, class T>
__device__ __forceinline__ void write_sums(const ScatterJob& job, const ScatterPolicy& policy,
                                           const ScatterUnit& unit, const T* sums) {
  const FeatureMap& map = job.linear.map;
  const bool contiguous = map.layout == Layout::kContiguous;
  S* const to = static_cast<S*>(job.grad_input) + unit.image * map.channels * map.cells() +
                unit.channel * map.plane_stride() + unit.first_cell * map.cell_stride();
  for (std::int32_t i = threadIdx.x; i < unit.planes * unit.cells; i += blockDim.x) {
    const std::int32_t plane = contiguous ? i / unit.cells : i % unit.planes;
    const std::int32_t cell = contiguous ? i % unit.cells : i / unit.planes;
    const T* part = sums + static_cast<std::int64_t>(plane * policy.parts()) * policy.cells + cell;
    T sum = *part;
    for (std::int32_t other = 1; other < policy.parts(); ++other) sum += *(part += policy.cells);
    to[plane * map.plane_stride() + cell * map.cell_stride()] = from_compute<S>(sum);
  }
}

// Shared memory: T sums[planes][parts][cells], then T staged[warps][32].
template <class S>
__global__ void __launch_bounds__(tuning::kScatterWarps * 32, tuning::kScatterMinBlocks)
    scatter(const __grid_constant__ ScatterJob job, const __grid_constant__ ScatterPolicy policy) {
  using T = ComputeType<S>;
  const FeatureMap& map = job.linear.map;
  const auto warp = static_cast<std::int32_t>(threadIdx.x / 32);
  T* const sums = reinterpret_cast<T*>(dynamic_shared());
  T* const staged = sums + static_cast<std::int64_t>(policy.warps) * policy.cells;
  const std::int64_t slabs = divide_up(map.channels, policy.planes);
  const std::int64_t ranges = divide_up(map.cells(), policy.cells);
  for (std::int64_t i = blockIdx.x; i < map.batch * slabs * ranges; i += gridDim.x) {
    const ScatterUnit unit(map, policy, slabs, ranges, i);
    for (std::int32_t k = threadIdx.x; k < policy.warps * policy.cells; k += blockDim.x) {
      sums[k] = T{0};
    }
    __syncthreads();
    const std::int32_t plane = warp / policy.parts();
    if (plane < unit.planes) {  // alike for all lanes of a warp
      add_part(PlanePart<S>(job, unit, plane, warp % policy.parts(), policy.parts()),
               sums + static_cast<std::int64_t>(warp) * policy.cells, staged + warp * 32);
    }
    __syncthreads();
    write_sums<S>(job, policy, unit, sums);
    __syncthreads();  // the next unit clears what was read here
  }
}

}  // namespace spp_ext::cuda
