// Pooling of whole channels_last maps. A block works on a chunk of neighbouring channels of an image: on
// all base bins, or where that would give the device too few blocks, on one of them. Warps take bins, or
// the warps of a block share the rows of a bin.
//
//   lane      0 1 2 ... 7   8 ... 15   16 ... 23   24 ... 31       8 lanes along the channels
//   channels  0-3 4-7 ...   0-3 ...    0-3 ...     0-3 ...         float32, packs of 16 bytes
//   cell      x             x + 1      x + 2       x + 3           down the rows, then from x + 4 on
//
//   finish    each warp some of the channels: derived levels, then the output (pool_map.cuh). Blocks with
//             only some bins write these, and a second launch, merge_map, the derived levels from the output
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/map_plan.h"
#include "cuda/pool_map.cuh"
#include "cuda/tuning.h"
#include "cuda/words.h"

namespace spp_ext::cuda {

constexpr std::uint32_t kMergeLanes = 8;

// Base bin `number`, counted over the base levels in their order.
struct MapBin {
  std::int32_t level;
  std::int32_t bin;  // in the level
  Span rows, cols;

  __device__ __forceinline__ MapBin(const MapJob& job, std::int32_t number)
      : level(0), bin(number) {
    while (job.levels[level].source >= 0 || bin >= job.levels[level].bins) {
      if (job.levels[level].source < 0) bin -= job.levels[level].bins;
      ++level;
    }
    const MapLevel& of = job.levels[level];
    const std::int32_t row = of.by_cols.quotient(bin);
    rows = job.spans[of.row_spans + row];
    cols = job.spans[of.col_spans + (of.listed ? row : bin - row * of.cols)];
  }
};

template <class S, bool with_argmax, int numbers>
__global__ void __launch_bounds__(tuning::kMapChannelThreads,
                                  tuning::kMapChannelBlocks - with_argmax)
    pool_map_channels(const __grid_constant__ MapJob job,
                      const __grid_constant__ ChannelsPlan plan) {
  unsigned char* const shared = dynamic_shared();
  const FoundArray<S, with_argmax> bins{reinterpret_cast<S*>(shared),
                                        reinterpret_cast<std::int32_t*>(shared + plan.cells_at)};
  const std::int32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  // Neighbouring blocks take neighbouring channels.
  const std::uint32_t share = blockIdx.x / static_cast<std::uint32_t>(plan.chunks);
  const std::int32_t planes = numbers << plan.lane_bits;  // channels of the block
  const auto channel = static_cast<std::int32_t>(blockIdx.x - share * plan.chunks) * planes;
  const std::int32_t used = job.channels - channel < planes ? job.channels - channel : planes;
  const std::uint32_t shares =
      static_cast<std::uint32_t>((plan.base_bins + plan.bins - 1)) / plan.bins;
  const auto image = static_cast<std::int32_t>(share / shares);
  const auto first_bin = static_cast<std::int32_t>(share - image * shares) * plan.bins;
  const std::int32_t num_bins =
      plan.base_bins - first_bin < plan.bins ? plan.base_bins - first_bin : plan.bins;

  // Lanes beyond the last channel repeat the last pack, so that the whole warp reduces together.
  const std::int32_t slot = lane >> plan.lane_bits, slots = 32 >> plan.lane_bits;
  const std::int32_t wanted = (lane - (slot << plan.lane_bits)) * numbers;
  const std::int32_t own = wanted < used ? wanted : used - numbers;
  const S* const source = static_cast<const S*>(job.data) +
                          static_cast<std::int64_t>(image) * job.height * job.width * job.channels +
                          channel + own;
  for (std::int32_t item = warp; item < num_bins << plan.part_bits; item += warps) {
    const std::int32_t part = item & ((1 << plan.part_bits) - 1);
    const MapBin bin(job, first_bin + (item >> plan.part_bits));
    const std::int32_t first_cell = bin.rows.begin * job.width;
    // The parts of each chunk of columns are dealt out anew, which evens them out.
    const auto walk = [&](std::int32_t start, std::int32_t turn) {
      const std::int32_t x = start + slot < bin.cols.end ? start + slot : bin.cols.end - 1;
      // Lanes beyond the last column have nothing to look at.
      const std::int32_t rows = x == start + slot ? bin.rows.end - bin.rows.begin : 0;
      return walk_down<with_argmax, numbers>(
          source + static_cast<std::int64_t>(first_cell + x) * job.channels,
          job.width * job.channels, rows, first_cell + x, job.width,
          turn & ((1 << plan.part_bits) - 1), plan.part_bits);
    };
    Column<S, numbers, with_argmax> found = walk(bin.cols.begin, part);
    for (std::int32_t start = bin.cols.begin + slots, turn = part + 1; start < bin.cols.end;
         start += slots, ++turn) {
      found.merge(walk(start, turn));
    }
    found.merge_lanes(1 << plan.lane_bits, 32);
    if (slot == 0 && wanted < used) {
      // Apart, the bins of a block lie item after item; else as in the output.
      const MapLevel& level = job.levels[bin.level];
      const std::int32_t to = plan.apart ? item * planes : level.first_bin * planes + bin.bin;
      const std::int32_t stride = plan.apart ? 1 : level.bins;
#pragma unroll
      for (int i = 0; i < numbers; ++i) bins.put(to + (own + i) * stride, found[i]);
    }
  }
  __syncthreads();
  if (!plan.apart) {
    const std::int32_t count = (used + warps - 1) / warps;
    const std::int32_t first = warp * count;
    if (first < used) {
      finish_planes<S, with_argmax>(job, bins, planes, first,
                                    used - first < count ? used - first : count, image, channel);
    }
    return;
  }
  const FoundArray<S, with_argmax> output{static_cast<S*>(job.output), job.argmax};
  for (std::int32_t b = 0; b < num_bins; ++b) {
    const MapBin bin(job, first_bin + b);
    const MapLevel& level = job.levels[bin.level];
    for (std::int32_t c = threadIdx.x; c < used; c += blockDim.x) {
      Found<S, with_argmax> found = bins.get((b << plan.part_bits) * planes + c);
      for (std::int32_t part = 1; part < 1 << plan.part_bits; ++part) {
        found.merge(bins.get(((b << plan.part_bits) + part) * planes + c));
      }
      output
          .from(image * job.row_size + level.output +
                static_cast<std::int64_t>(channel + c) * level.bins)
          .put(bin.bin, found);
    }
  }
}

// Merges the derived levels from base levels that are in the output already, kMergeLanes lanes a bin, which
// wait for their loads together. Sources must be base levels. `merged`: bins of all derived levels.
template <class S, bool with_argmax>
__global__ void __launch_bounds__(tuning::kElementThreads, tuning::kMinBlocks)
    merge_map(const __grid_constant__ MapJob job, const std::int32_t merged) {
  const std::int32_t image_items = job.channels * merged;
  const std::uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  // Lanes beyond the last bin repeat it, so that the whole warp merges together.
  const std::int32_t last = job.batch * image_items - 1;
  const auto wanted = static_cast<std::int32_t>(thread / kMergeLanes);
  std::int32_t item = wanted < last ? wanted : last;
  const auto image = static_cast<std::int32_t>(static_cast<std::uint32_t>(item) /
                                               static_cast<std::uint32_t>(image_items));
  item -= image * image_items;
  std::int32_t l = 0;
  while (job.levels[l].source < 0 || item >= job.channels * job.levels[l].bins) {
    if (job.levels[l].source >= 0) item -= job.channels * job.levels[l].bins;
    ++l;
  }
  const MapLevel& level = job.levels[l];
  const MapLevel& source = job.levels[level.source];
  const auto channel = static_cast<std::int32_t>(static_cast<std::uint32_t>(item) /
                                                 static_cast<std::uint32_t>(level.bins));
  const Merge merge(job, level, item - channel * level.bins);
  const FoundArray<S, with_argmax> row =
      FoundArray<S, with_argmax>{static_cast<S*>(job.output), job.argmax}.from(image *
                                                                               job.row_size);
  const FoundArray<S, with_argmax> parts =
      row.from(source.output + static_cast<std::int64_t>(channel) * source.bins + merge.first);
  const std::uint32_t sub = thread % kMergeLanes, across = merge.across;
  Found<S, with_argmax> found = parts.get(0);
#pragma unroll 2
  for (std::uint32_t part = sub; part < merge.down * across; part += kMergeLanes) {
    const std::uint32_t y = part / across;
    found.merge(parts.get(y * merge.cols + part - y * across));
  }
  merge_found_lanes<S>(found, 1, kMergeLanes);
  if (sub == 0 && wanted <= last) row.from(level.output).put(item, found);
}

}  // namespace spp_ext::cuda
