// Pooling of regions. A block owns a slab of neighbouring channels and a segment of the regions; where
// the tables of its map fit in shared memory (region_tables.cuh), also one image of one map. Its warps
// work apart from each other, a region or two at a time, by lists that are the same for all of them
// (region_lists.cuh):
//
//   base bins      a lane looks up a pack of channels of a bin in the tables
//   derived bins   a lane merges a pack from others, in the warp's shared memory
//   output         packs of channels are turned into runs of bins: a level of a slab is one aligned run
//                  of a row, of which a lane writes 16 bytes
//
//   lane      0 1   2 3   4 5  ...  30 31      (2 packs; 16 bins of one region)
//   pack      0 1   0 1   0 1        0  1
//   bin        0     1     2    ...   15
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/region_job.h"
#include "cuda/region_lists.cuh"
#include "cuda/region_tables.cuh"
#include "cuda/tuning.h"
#include "cuda/words.h"

namespace spp_ext::cuda {

// A region that a warp pools.
struct WarpRegion {
  std::int32_t row;    // of output
  std::int32_t group;  // region_job.h
  std::int32_t bins;   // its first, in bytes from job.bins
};

// A warp's own shared memory, and what it does there. All lanes must call each function together.
template <class S, bool with_argmax, int pack_bits>
struct RegionWarp {
  static constexpr int kV = kPerPack<S>;
  static constexpr int kTogether = together(pack_bits, with_argmax);

  const RegionJob& job;
  const RegionPolicy& policy;
  S* values;
  std::int32_t* places;
  unsigned char* run;
  unsigned char* empty;
  const DerivedItem* derived;
  const RunItem* to_run;
  const std::int32_t* from_run;
  std::int32_t lane;
  std::int32_t items;    // of a region
  std::int64_t channel;  // the slab's first
  std::int32_t used;     // its channels that exist
  bool with_nan;         // whether a cell may be NaN

  __device__ __forceinline__ std::int32_t base_items() const { return job.base_bins << pack_bits; }
  __device__ __forceinline__ void put(std::int32_t item, const Bests<S>& best) const {
    store_pack(values + item * kV, make_pack<S>([&](int n) { return narrow<S>(best.values[n]); }));
#pragma unroll
    for (int n = 0; n < kV; n += 4) {
      constexpr int kCells = kV < 4 ? kV : 4;
      store_pack(places + item * kV + n,
                 make_pack<std::int32_t, kCells>([&](int k) { return best.cells[n + k]; }));
    }
  }
  __device__ __forceinline__ void put_all(std::int32_t item, S value, std::int32_t cell) const {
    store_pack(values + item * kV, make_pack<S>([&](int) { return value; }));
    if constexpr (with_argmax) {
#pragma unroll
      for (int n = 0; n < kV; ++n) places[item * kV + n] = cell;
    }
  }

  // By selection: an array that is indexed at run time would lie in local memory.
  static __device__ __forceinline__ WarpRegion one_of(const WarpRegion (&regions)[kTogether],
                                                      std::int32_t region) {
    const WarpRegion &first = regions[0], &second = regions[kTogether - 1];
    const bool is_first = kTogether == 1 || region == 0;
    return {is_first ? first.row : second.row, is_first ? first.group : second.group,
            is_first ? first.bins : second.bins};
  }

  __device__ __forceinline__ BinCells cells_of(const WarpRegion& region, std::int32_t item) const {
    const auto* const first = reinterpret_cast<const unsigned char*>(job.bins);
    const auto at = static_cast<std::uint32_t>(region.bins + (item >> pack_bits) * 16);
    return spp_ext::detail::bit_cast<BinCells>(*reinterpret_cast<const uint4*>(first + at));
  }

  // Calls f(region, item of the region, item) for the items [begin, end) of all regions, a lane each.
  template <class F>
  __device__ __forceinline__ void for_each(std::int32_t begin, std::int32_t end, const F& f) const {
    const std::int32_t count = end - begin;
#pragma unroll 1
    for (std::int32_t i = lane; i < kTogether * count; i += 32) {
      const std::int32_t region = kTogether == 2 && i >= count ? 1 : 0;
      const std::int32_t item = begin + i - region * count;
      f(region, item, region * items + item);
    }
    __syncwarp();
  }

  // Base bins. True if a bin of this lane's has no cell.
  template <class TablesOf>
  __device__ __forceinline__ bool pool_base(const WarpRegion (&regions)[kTogether],
                                            const TablesOf& tables_of) const {
    std::int32_t least_side = 2;
    for_each(0, base_items(), [&](std::int32_t region, std::int32_t item, std::int32_t to) {
      const WarpRegion of = one_of(regions, region);
      if (of.group < 0) return;
      const BinCells bin = cells_of(of, item);
      const std::int32_t own = (item & ((1 << pack_bits) - 1)) * 16;
      const Tables<S> tables = tables_of(of.group);
      if constexpr (with_argmax) {
        put(to, with_nan ? search<S, true>(tables, bin, own) : search<S, false>(tables, bin, own));
      } else {
        store_pack(values + to * kV, look_up(tables, bin, own));
      }
      least_side = bin.side < least_side ? bin.side : least_side;
    });
    return least_side == 0;
  }

  // Calls f(part) for the packs, in bytes, that a derived item of a region is merged from.
  template <class F>
  __device__ __forceinline__ void for_each_part(const DerivedItem& entry, std::int32_t region,
                                                const F& f) const {
    std::int32_t row = region * items * 16 + entry.from;
    const std::int32_t across = entry.across, stride = entry.stride;
    const std::int32_t end = row + entry.down * stride;
#pragma unroll 1
    for (; row < end; row += stride) {
      const std::int32_t last = row + across;
#pragma unroll 1
      for (std::int32_t part = row; part < last; part += 16 << pack_bits) f(part);
    }
  }
  __device__ __forceinline__ Pack<S> value_at(std::int32_t bytes) const {
    return load_pack_at<S>(reinterpret_cast<const unsigned char*>(values), bytes);
  }

  // Derived bins, round after round.
  __device__ __forceinline__ void merge() const {
    std::int32_t begin = base_items();
    for (std::int32_t round = 0; round < policy.rounds; ++round) {
      const std::int32_t end = policy.round_ends[round] << pack_bits;
      for_each(begin, end, [&](std::int32_t region, std::int32_t item, std::int32_t to) {
        const DerivedItem entry = derived[item - base_items()];
        if constexpr (with_argmax) {
          put(to, with_nan ? merge_bests<true>(entry, region) : merge_bests<false>(entry, region));
        } else {
          Pack<S> best = lowest_pack<S>();
          for_each_part(entry, region,
                        [&](std::int32_t part) { best = maximum(best, value_at(part)); });
          store_pack(values + to * kV, best);
        }
      });
      begin = end;
    }
  }
  template <bool nan>
  __device__ __forceinline__ Bests<S> merge_bests(const DerivedItem& entry,
                                                  std::int32_t region) const {
    Bests<S> best = Bests<S>::lowest(static_cast<std::int32_t>(kInt32Max));
    for_each_part(entry, region, [&](std::int32_t part) {
      constexpr int kCells = kV < 4 ? kV : 4;
      const Pack<S> pack = value_at(part);
      const std::int32_t* const own = places + part / static_cast<std::int32_t>(sizeof(S));
#pragma unroll
      for (int m = 0; m < kV; m += kCells) {
        const auto cells = load_pack<std::int32_t, kCells>(own + m);
#pragma unroll
        for (int k = 0; k < kCells; ++k) {
          const int n = m + k;
          const ComputeType<S> value = widen(pack[n]);
          const bool replaces =
              nan ? static_cast<bool>(
                        MaxOp::replaces(value, cells[k], best.values[n], best.cells[n]))
                  : value > best.values[n] || (value == best.values[n] && cells[k] < best.cells[n]);
          if (replaces) {
            best.values[n] = value;
            best.cells[n] = cells[k];
          }
        }
      }
    });
    return best;
  }

  // Bins without a cell become 0, argmax -1. A derived bin is empty if all its parts are.
  __device__ __forceinline__ void clear_empty(const WarpRegion (&regions)[kTogether]) const {
    const std::int32_t bins = items >> pack_bits;
    for_each(0, base_items(), [&](std::int32_t region, std::int32_t item, std::int32_t to) {
      const WarpRegion of = one_of(regions, region);
      empty[to >> pack_bits] = of.group >= 0 && cells_of(of, item).side == 0;
    });
    std::int32_t begin = base_items();
    for (std::int32_t round = 0; round < policy.rounds; ++round) {
      const std::int32_t end = policy.round_ends[round] << pack_bits;
      for_each(begin, end, [&](std::int32_t region, std::int32_t item, std::int32_t to) {
        bool all = true;
        for_each_part(derived[item - base_items()], region,
                      [&](std::int32_t part) { all &= empty[part / (16 << pack_bits)] != 0; });
        empty[to >> pack_bits] = all;
      });
      begin = end;
    }
    for_each(0, bins << pack_bits, [&](std::int32_t, std::int32_t, std::int32_t to) {
      if (empty[to >> pack_bits] != 0) put_all(to, S{}, -1);
    });
  }

  __device__ __forceinline__ void fill_with_nan(std::int32_t region) const {
    for (std::int32_t i = lane; i < items; i += 32) {
      put_all(region * items + i, narrow<S>(kNaN<ComputeType<S>>), -1);
    }
    __syncwarp();
  }

  // Turns packs of channels into the order of a row of output, and writes them there.
  template <class E>
  __device__ __forceinline__ void write(std::int32_t row, const E* from, E* output) const {
    // A pack of values and one of places may differ in length; the shorter is aligned for both.
    constexpr int kW = kPerPack<E> < kV ? kPerPack<E> : kV;
    E* const own_run = reinterpret_cast<E*>(run);
    E* const to_row = output + row * (job.channels * job.output_bins);
    if (policy.aligned) {
      const RunItem* item = to_run + lane;
      const E* const end = from + items * kV;
#pragma unroll 1
      for (const E* pack_at = from + lane * kV; pack_at < end; pack_at += 32 * kV, item += 32) {
        const RunItem run_item = *item;
        E* to = own_run + run_item.to;
#pragma unroll
        for (int n = 0; n < kV; n += kW) {
          const Pack<E, kW> pack = load_pack<E, kW>(pack_at + n);
#pragma unroll
          for (int k = 0; k < kW; ++k, to += run_item.step) *to = pack[k];
        }
      }
      __syncwarp();
      // Lanes side by side take the parts of a pack.
      constexpr int kParts = kV / kW;
      const std::int32_t* row_at = from_run + lane / kParts;
      const E* const run_end = own_run + (items >> pack_bits) * used;
      E* const to_part = to_row + lane % kParts * kW;
#pragma unroll 1
      for (const E* at = own_run + lane * kW; at < run_end; at += 32 * kW, row_at += 32 / kParts) {
        write_pack(to_part + *row_at, load_pack<E, kW>(at));
      }
    } else {
      for (std::int32_t i = lane; i < items; i += 32) {
        const RunItem item = to_run[i];
        const std::int32_t first = (i & ((1 << pack_bits) - 1)) * kV;
        for (int n = 0; n < kV && first + n < used; ++n) {
          own_run[item.to + n * item.step] = from[i * kV + n];
        }
      }
      __syncwarp();
      const PyramidView pyramid = job.pyramid.view();
      for (std::int32_t l = 0; l < pyramid.num_levels; ++l) {
        const auto bins = static_cast<std::int32_t>(pyramid.levels[l].bins);
        E* const to = to_row + job.output_index(l, 0, channel, 0);
        const E* const of_level = own_run + pyramid.levels[l].first_bin * used;
        for (std::int32_t i = lane; i < bins * used; i += 32) {
          const std::int32_t of_channel = i / bins;
          to[of_channel * job.output_levels[l].level.bins + i - of_channel * bins] = of_level[i];
        }
      }
    }
    __syncwarp();
  }

  // Pools `count` regions. Where they are fewer than kTogether, the others repeat one and are not written.
  template <class TablesOf>
  __device__ __forceinline__ void pool(const WarpRegion (&regions)[kTogether], std::int32_t count,
                                       const TablesOf& tables_of) const {
    const bool any_empty = pool_base(regions, tables_of);
    merge();
    if (__any_sync(0xffffffffu, any_empty)) clear_empty(regions);
#pragma unroll
    for (int region = 0; region < kTogether; ++region) {
      if (region >= count) break;
      if (regions[region].group < 0) fill_with_nan(region);
      write(regions[region].row, values + region * items * kV, static_cast<S*>(job.output));
      if constexpr (with_argmax) {
        write(regions[region].row, places + region * items * kV, job.argmax);
      }
    }
  }
};

// What a block works on at a time.
struct RegionUnit {
  std::int64_t segment;
  std::int64_t channel;  // the slab's first
  std::int32_t group;    // staged: map * N + image

  SPP_HOST_DEVICE RegionUnit(const RegionJob& job, const RegionPolicy& policy, std::int32_t slab,
                             std::int64_t number) {
    const std::int64_t slabs = divide_up(job.channels, slab);
    segment = number % policy.segments;
    channel = number / policy.segments % slabs * slab;
    group = static_cast<std::int32_t>(number / policy.segments / slabs);
  }
};

template <class S, bool with_argmax, bool staged, int pack_bits>
__global__ void __launch_bounds__(tuning::kRegionThreads, 1)
    pool_regions(const __grid_constant__ RegionJob job,
                 const __grid_constant__ RegionPolicy policy) {
  constexpr int kV = kPerPack<S>, kSlab = kV << pack_bits,
                kTogether = together(pack_bits, with_argmax);
  unsigned char* const shared = dynamic_shared();
  const RegionShared& parts = policy.shared;
  S* const cells = reinterpret_cast<S*>(shared + parts.cells);
  S* const squares = reinterpret_cast<S*>(shared + parts.squares);
  auto* const derived = reinterpret_cast<DerivedItem*>(shared + parts.derived);
  auto* const to_run = reinterpret_cast<RunItem*>(shared + parts.to_run);
  auto* const from_run = reinterpret_cast<std::int32_t*>(shared + parts.from_run);
  auto* const has_nan = reinterpret_cast<std::int32_t*>(shared + parts.has_nan);
  const std::int32_t thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  unsigned char* const own = shared + parts.warps + warp * parts.of_warp;
  list_derived(job, policy, derived);

  const std::int64_t slabs = divide_up(job.channels, kSlab);
  const std::int64_t groups = staged ? job.num_maps * (job.batch > 0 ? job.batch : 1) : 1;
  for (std::int64_t number = blockIdx.x; number < groups * slabs * policy.segments;
       number += gridDim.x) {
    const RegionUnit unit(job, policy, kSlab, number);
    const auto used = static_cast<std::int32_t>(smaller_of(job.channels - unit.channel, kSlab));
    const std::int32_t m = job.batch > 0 ? static_cast<std::int32_t>(unit.group / job.batch) : 0;
    const FeatureMap& map = job.maps[m];
    const auto width = static_cast<std::int32_t>(map.width);
    const bool with_table = staged && job.batch > 0;
    list_runs<S>(job, policy, unit.channel, used, to_run, from_run);
    if (thread == 0) *has_nan = 0;
    if (with_table) {
      const std::int64_t image = unit.group % job.batch;
      copy_cells<S>(map, static_cast<const S*>(map.data) + image * map.channels * map.cells(),
                    unit.channel, pack_bits, static_cast<std::int32_t>(map.cells()), thread,
                    static_cast<std::int32_t>(blockDim.x), cells);
    }
    __syncthreads();
    if constexpr (staged) {
      // Squares that begin in the last row or column are not looked up.
      const std::int32_t step = width * kSlab;
      const auto count = static_cast<std::int32_t>(map.cells()) << pack_bits;
      const std::int32_t last = with_argmax ? count : count - ((width + 1) << pack_bits);
      for (std::int32_t i = thread; with_table && i < last; i += blockDim.x) {
        if constexpr (with_argmax) {
          const Pack<S> pack = load_pack(cells + i * kV);
          bool nan = false;
#pragma unroll
          for (int n = 0; n < kV; ++n) nan |= widen(pack[n]) != widen(pack[n]);
          if (nan) *has_nan = 1;
        } else {
          store_pack(squares + i * kV, maximum_of_square(cells + i * kV, step, kSlab));
        }
      }
      __syncthreads();
    }
    const RegionWarp<S, with_argmax, pack_bits> pool{
        job,
        policy,
        reinterpret_cast<S*>(own + parts.values),
        reinterpret_cast<std::int32_t*>(own + parts.places),
        own + parts.run,
        own + parts.empty,
        derived,
        to_run,
        from_run,
        lane,
        static_cast<std::int32_t>(job.pyramid.bins) << pack_bits,
        unit.channel,
        used,
        !staged || *has_nan != 0};
    const Tables<S> staged_tables{shared,        shared,          parts.cells,
                                  parts.squares, 16 << pack_bits, width};
    const auto tables_of = [&](std::int32_t group) -> Tables<S> {
      if constexpr (staged) {
        return staged_tables;
      } else {
        const auto of = static_cast<std::int32_t>(group / job.batch);
        const std::int64_t first =
            (group % job.batch * job.maps[of].cells() * job.table_channels + unit.channel) *
            static_cast<std::int64_t>(sizeof(S));
        return {static_cast<const unsigned char*>(job.cell_tables[of]) + first,
                static_cast<const unsigned char*>(job.square_tables[of]) + first,
                0,
                0,
                static_cast<std::int32_t>(job.table_channels * sizeof(S)),
                static_cast<std::int32_t>(job.maps[of].width)};
      }
    };
    // Neighbouring regions go to neighbouring warps of neighbouring segments, each of which looks at 32
    // of its own at a time and collects those that are its block's.
    const std::int64_t stride = policy.segments * policy.warps;
    for (std::int64_t first = unit.segment + warp * policy.segments; first < job.regions.count;
         first += 32 * stride) {
      const std::int64_t row = first + lane * stride;
      std::int32_t group = kOtherLaunch;
      if (row < job.regions.count) group = job.groups[row];
      const std::int32_t owner = group == kNoGroup ? 0 : group;
      const bool mine = staged ? owner == unit.group : owner >= 0;
      unsigned chosen = __ballot_sync(0xffffffffu, mine);
      while (chosen != 0) {
        std::int32_t count = 0, from = 0;
        WarpRegion regions[kTogether];
#pragma unroll
        for (int i = 0; i < kTogether; ++i) {
          if (chosen != 0) {
            from = __ffs(static_cast<int>(chosen)) - 1;
            chosen &= chosen - 1;
            ++count;
          }
          const auto of_row = static_cast<std::int32_t>(row);
          regions[i].row = __shfl_sync(0xffffffffu, of_row, from);
          regions[i].group = __shfl_sync(0xffffffffu, group, from);
          regions[i].bins = __shfl_sync(0xffffffffu, of_row * job.base_bins * 16, from);
        }
        pool.pool(regions, count, tables_of);
      }
    }
    __syncthreads();  // the next unit overwrites the tables
  }
}

}  // namespace spp_ext::cuda
