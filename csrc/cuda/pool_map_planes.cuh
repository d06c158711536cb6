// Pooling of whole contiguous maps, rows first. A warp works on a few planes of its own or, where planes
// are few or large, a block on one plane. Groups of lanes take a bin row of a plane each: the bins that
// share rows, a row of a grid or one listed bin.
//
//   lane     0    1   ...   15  |  16 ...  31         float32, 64 columns: two groups of 16 lanes
//   columns  0-3  4-7 ... 60-63 |  0-3 ... 60-63      packs of 16 bytes
//            plane 0, bin row 0 |  plane 1, bin row 0
//
//   down      every lane, the rows of the bin row; wider maps chunk after chunk of columns
//   across    the row of maxima, in the group's own strip of shared memory: a few lanes a bin
//   finish    a warp its planes: derived levels, then the output (pool_map.cuh)
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/map_plan.h"
#include "cuda/pool_map.cuh"
#include "cuda/tuning.h"
#include "cuda/words.h"

namespace spp_ext::cuda {

// The best of the columns of a bin, by `lanes` lanes of which this is number `sub`. Cells in the strip are
// those of column 0.
template <class S, bool with_argmax>
__device__ __forceinline__ Found<S, with_argmax> pool_across(
    const FoundArray<S, with_argmax>& strip, Span cols, std::int32_t sub, std::int32_t lanes) {
  const auto get = [&](std::int32_t wanted) {
    const std::int32_t x = wanted < cols.end ? wanted : cols.end - 1;
    Found<S, with_argmax> found = strip.get(x);
    if constexpr (with_argmax) found.best.cell += x;
    return found;
  };
  std::int32_t x = cols.begin + sub;
  Found<S, with_argmax> found = get(x);
  for (x += lanes; x < cols.end; x += 3 * lanes) {
    const Found<S, with_argmax> a = get(x);
    const Found<S, with_argmax> b = get(x + lanes);
    const Found<S, with_argmax> c = get(x + 2 * lanes);
    found.merge(a);
    found.merge(b);
    found.merge(c);
  }
  return found;
}

template <class S, bool with_argmax, int numbers>
__global__ void __launch_bounds__(tuning::kMapThreads, tuning::kMapBlocks - with_argmax)
    pool_map_planes(const __grid_constant__ MapJob job, const __grid_constant__ PlanesPlan plan) {
  unsigned char* const shared = dynamic_shared();
  Span* const spans = reinterpret_cast<Span*>(shared);
  for (std::int32_t i = threadIdx.x; i < job.num_spans; i += blockDim.x) spans[i] = job.spans[i];
  __syncthreads();

  const std::int32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const bool together = plan.together != 0;
  const auto unit = static_cast<std::int32_t>(together ? blockIdx.x : blockIdx.x * warps + warp);
  if (unit >= plan.units) return;  // of a block whose warps do not wait for one another
  const auto image = static_cast<std::int32_t>(static_cast<std::uint32_t>(unit) /
                                               static_cast<std::uint32_t>(plan.slabs));
  const std::int32_t planes = 1 << plan.plane_bits;
  const std::int32_t channel = (unit - image * plan.slabs) << plan.plane_bits;
  const std::int32_t used = job.channels - channel < planes ? job.channels - channel : planes;

  const std::int32_t group = 1 << plan.group_bits, own = lane & (group - 1);
  const std::int32_t warp_groups = 32 >> plan.group_bits;
  unsigned char* const strip_bytes =
      shared + plan.strips_at + (warp * warp_groups + (lane >> plan.group_bits)) * plan.group_bytes;
  const FoundArray<S, with_argmax> strip{
      reinterpret_cast<S*>(strip_bytes),
      reinterpret_cast<std::int32_t*>(strip_bytes + plan.group_cells)};
  unsigned char* const bin_bytes = shared + plan.bins_at + (together ? 0 : warp * plan.unit_bytes);
  const FoundArray<S, with_argmax> bins{
      reinterpret_cast<S*>(bin_bytes),
      reinterpret_cast<std::int32_t*>(bin_bytes + plan.unit_cells)};
  const std::int32_t cells = job.height * job.width;
  const S* const slab = static_cast<const S*>(job.data) +
                        (static_cast<std::int64_t>(image) * job.channels + channel) * cells;

  for (std::int32_t l = 0; l < job.num_levels; ++l) {
    const MapLevel& level = job.levels[l];
    if (level.source >= 0) continue;
    // Items: a plane, a part of the rows, a bin row. Groups beyond the last repeat it and keep nothing.
    const std::int32_t items = level.bin_rows << (plan.part_bits + plan.plane_bits);
    const std::int32_t step = (together ? warps : 1) * warp_groups;
    for (std::int32_t start = together ? warp * warp_groups : 0; start < items; start += step) {
      const std::int32_t wanted = start + (lane >> plan.group_bits);
      const std::int32_t item = wanted < items ? wanted : items - 1;
      const std::int32_t plane = item & (planes - 1);
      const std::int32_t part = (item >> plan.plane_bits) & ((1 << plan.part_bits) - 1);
      const std::int32_t r = item >> (plan.plane_bits + plan.part_bits);
      const Span rows = spans[level.row_spans + r];
      const std::int32_t first_cell = rows.begin * job.width;
      const S* const source =
          slab + static_cast<std::int64_t>(plane < used ? plane : used - 1) * cells + first_cell;
      for (std::int32_t x = own * numbers; x < job.width; x += group * numbers) {
        walk_down<with_argmax, numbers>(source + x, job.width, rows.end - rows.begin, first_cell,
                                        job.width, part, plan.part_bits)
            .put(strip.from(x));
      }
      __syncwarp();
      const std::int32_t lanes = 1 << level.lane_bits;  // of a bin
      const Span* const cols = spans + level.col_spans + (level.listed ? r : 0);
      const FoundArray<S, with_argmax> to =
          bins.from(((part * job.bins + level.first_bin) << plan.plane_bits) + plane * level.bins +
                    r * level.cols);
      const bool keeps = wanted < items && (own & (lanes - 1)) == 0;
      for (std::int32_t first = 0; first < level.cols; first += group >> level.lane_bits) {
        const std::int32_t wanted_bin = first + (own >> level.lane_bits);
        const std::int32_t bin = wanted_bin < level.cols ? wanted_bin : level.cols - 1;
        Found<S, with_argmax> found =
            pool_across<S, with_argmax>(strip, cols[bin], own & (lanes - 1), lanes);
        merge_found_lanes<S>(found, 1, lanes);
        if (keeps && wanted_bin < level.cols) to.put(bin, found);
      }
      __syncwarp();  // the next row of maxima overwrites this one
    }
  }
  if (together) {
    __syncthreads();
    if (warp != 0) return;
  }
  if (plan.part_bits > 0) {
    for (std::int32_t l = 0; l < job.num_levels; ++l) {
      const MapLevel& level = job.levels[l];
      if (level.source >= 0) continue;
      const FoundArray<S, with_argmax> run = bins.from(level.first_bin << plan.plane_bits);
      for (std::int32_t i = lane; i < level.bins << plan.plane_bits; i += 32) {
        Found<S, with_argmax> found = run.get(i);
        for (std::int32_t part = 1; part < 1 << plan.part_bits; ++part) {
          found.merge(run.get((part * job.bins << plan.plane_bits) + i));
        }
        run.put(i, found);
      }
    }
    __syncwarp();
  }
  finish_planes<S, with_argmax>(job, bins, planes, 0, used, image, channel);
}

}  // namespace spp_ext::cuda
