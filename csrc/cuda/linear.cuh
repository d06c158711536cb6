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

#include "cuda/device.h"
#include "cuda/job.h"
#include "cuda/tuning.h"

namespace spp_ext::cuda {

constexpr std::int32_t kMaxLinearLevels = 256;

// How the elements of a [R, C * B] array belong to planes.
struct LinearJob {
  const std::int32_t* argmax;  // [R, C * B]
  bool by_region;              // else row r belongs to image r
  Regions regions;
  FeatureMap map;  // the planes' shape and layout
  std::int64_t level_bins[kMaxLinearLevels];
  std::int32_t num_levels;
  Layout layout;                  // the order of a row's elements, as in LinearParams
  std::int64_t bins;              // B, their sum
  std::int64_t rows;              // R
  const std::int32_t* row_begin;  // [N + 1] as in PoolJob, for regions
  const std::int32_t* row_list;   // [K]
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

struct ScatterPolicy {
  std::int32_t planes;  // of a block; warps / planes of them share a plane
  std::int32_t warps;
  std::int32_t cells;  // of a plane that one block sums; a whole plane where it fits
};

template <class S>
__global__ void __launch_bounds__(tuning::kElementThreads)
    gather(const SPP_GRID_CONSTANT GatherJob job) {
  const LinearJob& linear = job.linear;
  const FeatureMap& map = linear.map;
  const std::int64_t row_elements = map.channels * linear.bins;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < linear.rows * row_elements; i += step) {
    const std::int64_t row = i / row_elements;
    std::int64_t at = i % row_elements;
    std::int64_t channel;
    if (linear.layout == Layout::kContiguous) {
      std::int32_t level = 0;
      while (at >= linear.level_bins[level] * map.channels) {
        at -= linear.level_bins[level++] * map.channels;
      }
      channel = at / linear.level_bins[level];
    } else {
      channel = at % map.channels;
    }
    const std::int64_t cell = linear.argmax[i];
    const std::int64_t image = linear.by_region ? sound_image(linear.regions, row, map.batch) : row;
    if (image == kOtherMap) continue;
    S value = from_compute<S>(0);
    if (cell >= 0 && cell < map.cells() && image >= 0) {
      const std::int64_t plane = image * map.channels * map.cells() + channel * map.plane_stride();
      value = static_cast<const S*>(map.data)[plane + cell * map.cell_stride()];
    }
    static_cast<S*>(job.output)[i] = value;
  }
}

// Shared memory of scatter: T sums[warps][cells], then T staged[warps][32].
template <class S>
__global__ void __launch_bounds__(tuning::kScatterWarps * 32, tuning::kScatterMinBlocks)
    scatter(const SPP_GRID_CONSTANT ScatterJob job, const SPP_GRID_CONSTANT ScatterPolicy policy) {
  using T = ComputeType<S>;
  SPP_DYNAMIC_SHARED(shared);
  const LinearJob& linear = job.linear;
  const FeatureMap& map = linear.map;
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  const auto threads = static_cast<std::int32_t>(blockDim.x);
  const std::int32_t warp = thread / 32;
  const std::int32_t lane = thread % 32;
  const std::int32_t parts = policy.warps / policy.planes;  // warps that share a plane
  T* const sums = reinterpret_cast<T*>(shared);             // [planes][parts][cells]
  T* const own_sums = sums + static_cast<std::int64_t>(warp) * policy.cells;
  T* const staged = sums + static_cast<std::int64_t>(policy.warps) * policy.cells + warp * 32;

  const std::int64_t slabs = (map.channels + policy.planes - 1) / policy.planes;
  const std::int64_t ranges = (map.cells() + policy.cells - 1) / policy.cells;
  for (std::int64_t unit = blockIdx.x; unit < map.batch * slabs * ranges; unit += gridDim.x) {
    const std::int64_t first_cell = unit % ranges * policy.cells;
    const std::int64_t first_channel = unit / ranges % slabs * policy.planes;
    const std::int64_t image = unit / ranges / slabs;
    const std::int64_t cells_left = map.cells() - first_cell;
    const auto cells =
        static_cast<std::int32_t>(cells_left < policy.cells ? cells_left : policy.cells);
    const std::int64_t channels_left = map.channels - first_channel;
    const auto planes =
        static_cast<std::int32_t>(channels_left < policy.planes ? channels_left : policy.planes);

    for (std::int32_t i = thread; i < policy.warps * policy.cells; i += threads) sums[i] = T{0};
    __syncthreads();

    const std::int32_t plane = warp / parts;
    const std::int32_t part = warp % parts;
    const bool whole_map = !linear.by_region;
    const std::int64_t list_begin = whole_map ? 0 : linear.row_begin[image];
    const std::int64_t list_rows = whole_map ? 1 : linear.row_begin[image + 1] - list_begin;
    const std::int64_t part_rows = (list_rows + parts - 1) / parts;
    const std::int64_t part_begin = part * part_rows;
    const std::int64_t part_end =
        part_begin + part_rows < list_rows ? part_begin + part_rows : list_rows;
    if (plane < planes) {  // alike for all lanes of a warp
      const std::int64_t channel = first_channel + plane;
      const std::int64_t batches = (linear.bins + 31) / 32;
      // Element number 32 * i + lane of the part: the cell of this range it names, -1 if none, and
      // what it adds there.
      const auto fetch = [&](std::int64_t i, T* value) -> std::int32_t {
        const std::int64_t k = list_begin + part_begin + i / batches;
        const std::int64_t row = whole_map ? image : linear.row_list[k];
        const std::int64_t row_at = row * linear.bins * map.channels;
        std::int64_t bin = i % batches * 32 + lane;
        if (bin >= linear.bins) return -1;
        std::int64_t level_at = row_at;
        std::int32_t level = 0;
        while (bin >= linear.level_bins[level]) {
          bin -= linear.level_bins[level];
          level_at += map.channels * linear.level_bins[level++];
        }
        const std::int64_t element =
            linear.layout == Layout::kContiguous
                ? level_at + channel * linear.level_bins[level] + bin
                : row_at + (bin * linear.num_levels + level) * map.channels + channel;
        *value = to_compute(static_cast<const S*>(job.grad_output)[element]);
        const std::int64_t cell = linear.argmax[element] - first_cell;
        return cell >= 0 && cell < cells ? static_cast<std::int32_t>(cell) : -1;
      };
      const std::int64_t count = part_end > part_begin ? (part_end - part_begin) * batches : 0;
      T next_value = 0;
      std::int32_t next_cell = count > 0 ? fetch(0, &next_value) : -1;
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int32_t cell = next_cell;
        staged[lane] = next_value;
        // The next elements are on their way while these are added.
        if (i + 1 < count) next_cell = fetch(i + 1, &next_value);
        // Lanes that add nothing get keys of their own, below any cell.
        const unsigned peers = __match_any_sync(0xffffffffu, cell >= 0 ? cell : -1 - lane);
        __syncwarp();
        if (cell >= 0 && __ffs(static_cast<int>(peers)) - 1 == lane) {
          T sum = own_sums[cell];
          for (unsigned rest = peers; rest != 0; rest &= rest - 1) {
            sum += staged[__ffs(static_cast<int>(rest)) - 1];
          }
          own_sums[cell] = sum;
        }
        __syncwarp();
      }
    }
    __syncthreads();

    // Neighbouring threads write neighbouring memory: cells of a plane, or planes of a cell.
    const bool contiguous = map.layout == Layout::kContiguous;
    S* const to = static_cast<S*>(job.grad_input) + image * map.channels * map.cells() +
                  first_channel * map.plane_stride() + first_cell * map.cell_stride();
    for (std::int32_t i = thread; i < planes * cells; i += threads) {
      const std::int32_t p = contiguous ? i / cells : i % planes;
      const std::int32_t cell = contiguous ? i % cells : i / planes;
      const T* const first_part = sums + static_cast<std::int64_t>(p * parts) * policy.cells + cell;
      T sum = first_part[0];
      for (std::int32_t other = 1; other < parts; ++other) {
        sum += first_part[static_cast<std::int64_t>(other) * policy.cells];
      }
      to[p * map.plane_stride() + cell * map.cell_stride()] = from_compute<S>(sum);
    }
    __syncthreads();  // the next unit clears what was read here
  }
}

}  // namespace spp_ext::cuda
