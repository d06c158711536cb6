// What the lanes of a warp do is the same for every region, so pool_regions lists it in shared memory once
// a block. A warp holds the packs of a region in the order in which it makes them, base bins before derived ones;
// a pack's *item* is its place there:
//
//   items   [base bins of the base levels][derived bins, round after round], `packs` items each
//
// A *run* is the part of a region's output that belongs to a slab of channels: level after level, in a
// level channel after channel, as a row of output is. Where rows of output are not aligned, a run has room
// for channels that do not exist.
#pragma once

#include <cstdint>

#include "core/pyramid.h"
#include "cuda/device.h"
#include "cuda/region_job.h"
#include "cuda/tuning.h"
#include "cuda/words.h"

namespace spp_ext::cuda {

// The parts of a block's shared memory, in bytes from its start.
struct RegionShared {
  // Where tables are in shared memory: S [table_cells][packs], V channels each. Without argmax, squares of
  // 3 x 3 cells take the place of the cells.
  std::int32_t cells;
  std::int32_t squares;   // alike, of 2 x 2 cells, without argmax
  std::int32_t derived;   // DerivedItem [derived items]
  std::int32_t to_run;    // RunItem [items]
  std::int32_t from_run;  // uint32 [items], where in a row of values a pack of a run goes, in bytes
  std::int32_t has_nan;   // int32, whether any cell of the table is NaN
  std::int32_t warps;     // [warps] of the following, in bytes from their start
  std::int32_t of_warp;   // bytes of one
  std::int32_t values;    // S [regions][region_items], V channels each
  std::int32_t places;    // int32 alike, the cells of the values, with argmax
  std::int32_t run;       // S [regions][region_items], V channels each, then int32 alike
  std::int32_t empty;     // uint8 [regions][region_items]
};

struct RegionPolicy {
  std::int32_t pack_bits;   // a slab has 1 << pack_bits packs of channels
  std::int32_t cell_bytes;  // of a slab
  // From one region's packs to the next one's, among values and in runs: so many that lanes at work on two
  // regions meet different banks.
  std::int32_t region_items;
  std::int32_t warps;     // of a block
  std::int64_t segments;  // blocks that share the regions of a slab
  std::int32_t aligned;   // whether a level of a slab is whole packs of one run of a row of output
  // Derived bins are merged in rounds: all that need only base bins and bins of earlier rounds.
  std::int32_t rounds;
  std::int32_t round_ends[kMaxLevels];  // bins, base bins included, up to the end of each
  RegionShared shared;

  SPP_HOST_DEVICE std::int32_t packs() const { return 1 << pack_bits; }
};

// The most threads of a block. Beside tables in shared memory, or lists of places, there is room for one block
// on a multiprocessor; without, two hide more of the time that loads take.
SPP_HOST_DEVICE constexpr int region_threads(bool alone) {
  return alone ? tuning::kRegionThreads : tuning::kRegionThreads * 3 / 4;
}

// A warp pools 1 << region_bits regions side by side, so that its lanes are busy however few packs a slab has.
SPP_HOST_DEVICE constexpr int region_bits(int pack_bits, bool with_argmax) {
  return pack_bits + with_argmax < 2 ? 1 : 0;
}

// The rectangle of packs that a pack of a derived bin is merged from, in bytes of a warp's values.
struct alignas(8) DerivedItem {
  std::uint16_t from;    // the first
  std::uint16_t across;  // from the first of a row to behind its last
  std::uint16_t stride;  // between rows
  std::uint16_t down;    // rows
};

// Where the numbers of a pack of values go in a run, in bytes: the first, and how far apart they are.
struct alignas(8) RunItem {
  std::int32_t first;
  std::int32_t step;
};

// A bin's place among all bins in the order of items.
struct BinOrder {
  const PyramidView& pyramid;
  std::int32_t base_bins;

  // Of the first bin of level `l`.
  SPP_HOST_DEVICE std::int32_t of_level(std::int32_t l) const {
    std::int32_t first = pyramid.levels[l].is_base() ? 0 : base_bins;
    for (std::int32_t i = 0; pyramid.order[i] != l; ++i) {
      const Level& before = pyramid.levels[pyramid.order[i]];
      if (before.is_base() == pyramid.levels[l].is_base()) {
        first += static_cast<std::int32_t>(before.bins);
      }
    }
    return first;
  }
};

// Lists how packs are merged. A barrier must follow.
__device__ __forceinline__ void list_derived(const RegionJob& job, const RegionPolicy& policy,
                                             DerivedItem* derived) {
  const PyramidView pyramid = job.pyramid.view();
  const BinOrder order{pyramid, job.base_bins};
  const auto bytes_of = [&](std::int32_t bins, std::int32_t pack) {
    return static_cast<std::uint16_t>(((bins << policy.pack_bits) + pack) * 16);
  };
  for (std::int32_t l = 0; l < pyramid.num_levels; ++l) {
    const Level& level = pyramid.levels[l];
    if (level.is_base()) continue;
    const std::int32_t cols = pyramid.levels[level.source].col_divisions;
    const std::int32_t source = order.of_level(level.source);
    const std::int32_t first = order.of_level(l) - job.base_bins;
    const std::int32_t packs = static_cast<std::int32_t>(level.bins) << policy.pack_bits;
    for (std::int32_t i = threadIdx.x; i < packs; i += blockDim.x) {
      const Rectangle parts = pyramid.merged_bins(level, i >> policy.pack_bits);
      const std::int32_t from = source + parts.top * cols + parts.left;
      derived[(first << policy.pack_bits) + i] = {
          bytes_of(from, i & (policy.packs() - 1)), bytes_of(parts.right - parts.left, 0),
          bytes_of(cols, 0), static_cast<std::uint16_t>(parts.bottom - parts.top)};
    }
  }
}

// Lists where the packs of a slab of `used` channels from `channel` on go: those of items in a run, and
// those of the run in a row of output, if that takes whole packs. A barrier must follow.
template <class S>
__device__ __forceinline__ void list_runs(const RegionJob& job, const RegionPolicy& policy,
                                          std::int64_t channel, std::int32_t used, RunItem* to_run,
                                          std::uint32_t* from_run) {
  constexpr int kV = kPerPack<S>;
  constexpr std::int32_t kBytes = sizeof(S);
  const PyramidView pyramid = job.pyramid.view();
  const BinOrder order{pyramid, job.base_bins};
  const std::int32_t channels = policy.aligned ? used : kV << policy.pack_bits;
  for (std::int32_t l = 0; l < pyramid.num_levels; ++l) {
    const auto first = static_cast<std::int32_t>(pyramid.levels[l].first_bin);
    const auto bins = static_cast<std::int32_t>(pyramid.levels[l].bins);
    const std::int32_t item = order.of_level(l) << policy.pack_bits;
    for (std::int32_t i = threadIdx.x; i < bins << policy.pack_bits; i += blockDim.x) {
      const std::int32_t first_channel = (i & (policy.packs() - 1)) * kV;
      // Packs without a channel go behind the run, from where nothing is written.
      const bool exists = !policy.aligned || first_channel < used;
      const std::int32_t to =
          exists ? first * channels + first_channel * bins + (i >> policy.pack_bits)
                 : static_cast<std::int32_t>(pyramid.bins) * used;
      to_run[item + i] = {to * kBytes, exists ? bins * kBytes : 0};
    }
    const auto to = static_cast<std::uint32_t>(job.output_index(l, 0, channel, 0) * kBytes);
    for (std::int32_t i = threadIdx.x; policy.aligned && i < bins * used / kV; i += blockDim.x) {
      from_run[first * used / kV + i] = to + static_cast<std::uint32_t>(i) * 16;
    }
  }
}

}  // namespace spp_ext::cuda
