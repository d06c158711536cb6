// Pooling of regions. A block owns a slab of neighbouring channels and a segment of the regions; where
// the tables of its map fit in shared memory (region_tables.cuh), also one image of one map. Its warps
// work apart from each other, a region or two at a time, by lists that are the same for all of them
// (region_lists.cuh):
//
//   base bins      a lane looks up a pack of channels of a bin in the tables
//   derived bins   a lane merges a pack from others, in the warp's shared memory
//   runs           each lane also puts its pack's numbers into the order of a row of output, in which a
//                  level of a slab is one run
//   output         a lane writes 16 aligned bytes of a run
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

// One pack of channels of one bin of one region of a warp.
struct Place {
  std::int32_t region;
  std::int32_t item;  // region_lists.cuh
  std::int32_t pack;  // its place in the warp's memory
};

// A warp's own shared memory, and what it does there. All lanes must call each function together.
template <class S, bool with_argmax, bool staged, int pack_bits>
struct RegionWarp {
  static constexpr int kV = kPerPack<S>;
  static constexpr int kBits = region_bits(pack_bits, with_argmax);
  static constexpr int kRegions = 1 << kBits;
  static constexpr int kCells = kV < 4 ? kV : 4;  // places that are loaded and stored at once

  const RegionJob& job;
  const RegionPolicy& policy;
  S* values;
  std::int32_t* places;
  unsigned char* run;
  unsigned char* empty;
  const DerivedItem* derived;
  const RunItem* to_run;
  const std::uint32_t* from_run;
  std::int32_t lane;
  std::int32_t items;      // of a region
  std::int32_t run_bytes;  // from one region's run of values to the next one's
  std::int64_t channel;    // the slab's first
  Slab<S> slab;            // staged: what the tables were made from
  bool with_nan;           // whether a cell may be NaN

  // Keeps a pack of an item, from which others are merged, and puts its numbers where they go in the run of
  // its region.
  __device__ __forceinline__ void keep(const Place& place, const Pack<S>& best) const {
    store_pack(values + place.pack * kV, best);
    const RunItem to = to_run[place.item];
    put_in_run(reinterpret_cast<S*>(run), place.region * run_bytes + to.first, to.step, best);
  }
  __device__ __forceinline__ void keep(const Place& place, const Bests<S>& best) const {
    keep(place, narrow_pack<S>(best.values));
#pragma unroll
    for (int n = 0; n < kV; n += kCells) {
      store_pack(places + place.pack * kV + n,
                 make_pack<std::int32_t, kCells>([&](int k) { return best.cells[n + k]; }));
    }
  }
  // Puts the places where the values were, once these are written.
  __device__ __forceinline__ void put_places() const {
    constexpr std::int32_t kBytes = sizeof(std::int32_t), kValueBytes = sizeof(S);
    for_each(0, items, [&](const Place& place) {
      const RunItem to = to_run[place.item];
      const std::int32_t step = to.step * kBytes / kValueBytes;
      std::int32_t at = (place.region * run_bytes + to.first) * kBytes / kValueBytes;
#pragma unroll
      for (int n = 0; n < kV; n += kCells) {
        const std::int32_t* const cells = places + place.pack * kV + n;
        at = put_in_run(reinterpret_cast<std::int32_t*>(run), at, step,
                        load_pack<std::int32_t, kCells>(cells));
      }
    });
  }
  // Puts numbers `step` bytes apart, the first `at` bytes into the runs; returns where the next would go.
  template <class E, int numbers>
  static __device__ __forceinline__ std::int32_t put_in_run(E* runs, std::int32_t at,
                                                            std::int32_t step,
                                                            const Pack<E, numbers>& pack) {
    auto* const memory = reinterpret_cast<unsigned char*>(runs);
#pragma unroll
    for (int n = 0; n < numbers; ++n, at += step) *reinterpret_cast<E*>(memory + at) = pack[n];
    return at;
  }

  // By selection: an array that is indexed at run time would lie in local memory.
  static __device__ __forceinline__ WarpRegion one_of(const WarpRegion (&regions)[kRegions],
                                                      std::int32_t i) {
    const WarpRegion &first = regions[0], &second = regions[kRegions - 1];
    const bool is_first = kRegions == 1 || i % 2 == 0;
    return {is_first ? first.row : second.row, is_first ? first.group : second.group,
            is_first ? first.bins : second.bins};
  }
  __device__ __forceinline__ BinCells cells_of(const WarpRegion& region, std::int32_t item) const {
    const auto* const first = reinterpret_cast<const unsigned char*>(job.bins);
    const auto at = static_cast<std::uint32_t>(region.bins + (item >> pack_bits) * 16);
    return spp_ext::detail::bit_cast<BinCells>(*reinterpret_cast<const uint4*>(first + at));
  }

  // Calls f(place) for the items [begin, end) of all regions, a lane each. The lanes of a round are mostly of
  // one region, whose bins are about alike.
  template <class F>
  __device__ __forceinline__ void for_each(std::int32_t begin, std::int32_t end, const F& f) const {
    const std::int32_t count = once(end - begin);
#pragma unroll 1
    for (std::int32_t i = lane; i < count << kBits; i += 32) {
      const std::int32_t region = kRegions == 2 && i >= count ? 1 : 0;
      const std::int32_t item = begin + i - region * count;
      f(Place{region, item, region * policy.region_items + item});
    }
    __syncwarp();
  }
  // The same with the regions side by side: lanes are of one level, whose bins have as many parts.
  template <class F>
  __device__ __forceinline__ void for_each_side_by_side(std::int32_t begin, std::int32_t end,
                                                        const F& f) const {
    const std::int32_t region = lane & (kRegions - 1);
    const std::int32_t first = once(region * policy.region_items);
#pragma unroll 1
    for (std::int32_t item = begin + (lane >> kBits); item < end; item += 32 >> kBits) {
      f(Place{region, item, first + item});
    }
    __syncwarp();
  }

  // Base bins. True if a bin of this lane's has no cell.
  template <class TablesOf>
  __device__ __forceinline__ bool pool_base(const WarpRegion (&regions)[kRegions],
                                            const TablesOf& tables_of) const {
    std::int32_t least_side = 2;
    for_each(0, job.base_bins << pack_bits, [&](const Place& place) {
      const WarpRegion of = one_of(regions, place.region);
      const BinCells bin = cells_of(of, place.item);
      const std::int32_t own = place.item & ((1 << pack_bits) - 1);
      const Tables<S> tables = tables_of(of.group);
      if constexpr (with_argmax) {
        keep(place, with_nan ? search<S, true, staged>(tables, bin, own * 16)
                             : search<S, false, staged>(tables, bin, own * 16));
      } else if (staged && bin.side < smaller_side(staged)) {
        keep(place, look_along(PackReader<S>(slab, own * kV), bin, tables.width));
      } else {
        keep(place, look_up<S, staged>(tables, bin, own * 16));
      }
      least_side = bin.side < least_side ? bin.side : least_side;
    });
    return least_side == 0;
  }

  // Calls f(part...) for the values that a derived item is merged from, `columns` of a row at a time; where
  // there are fewer, the last one again. A part is in bytes from `values`.
  template <int columns, class F>
  __device__ __forceinline__ void for_each_part(const Place& place, const F& f) const {
    constexpr std::int32_t kStep = 16 << pack_bits;
    const DerivedItem entry = derived[place.item - (job.base_bins << pack_bits)];
    std::int32_t first = entry.from + (place.pack - place.item) * 16;
    std::int32_t to_last = entry.across - kStep;
#pragma unroll 1
    do {
      const auto part_at = [&](std::int32_t offset) { return offset < to_last ? offset : to_last; };
      const std::int32_t second = once(part_at(kStep)), third = once(part_at(2 * kStep));
      std::int32_t part = first;
      std::int32_t down = entry.down;
#pragma unroll 1
      do {
        if constexpr (columns == 3) {
          f(part, part + second, part + third);
        } else {
          f(part);
        }
        part += entry.stride;
      } while (--down > 0);
      first += columns * kStep;
      to_last -= columns * kStep;
    } while (to_last >= 0);
  }

  __device__ __forceinline__ Pack<S> value_at(std::int32_t part) const {
    return load_pack(
        reinterpret_cast<const S*>(reinterpret_cast<const unsigned char*>(values) + part));
  }

  // Calls f(place) for all derived items, round after round.
  template <class F>
  __device__ __forceinline__ void for_each_derived(const F& f) const {
    std::int32_t begin = job.base_bins << pack_bits;
#pragma unroll 1
    for (std::int32_t round = 0; round < policy.rounds; ++round) {
      const std::int32_t end = policy.round_ends[round] << pack_bits;
      for_each_side_by_side(begin, end, f);
      begin = end;
    }
  }
  __device__ __forceinline__ void merge() const {
    for_each_derived([&](const Place& place) {
      if constexpr (with_argmax) {
        keep(place, with_nan ? merge_bests<true>(place) : merge_bests<false>(place));
      } else {
        Pack<S> best = lowest_pack<S>();
        for_each_part<3>(place, [&](std::int32_t a, std::int32_t b, std::int32_t c) {
          best = maximum(maximum(best, value_at(a)), maximum(value_at(b), value_at(c)));
        });
        keep(place, best);
      }
    });
  }
  template <bool nan>
  __device__ __forceinline__ Bests<S> merge_bests(const Place& place) const {
    Bests<S> best = Bests<S>::lowest(static_cast<std::int32_t>(kInt32Max));
    for_each_part<1>(place, [&](std::int32_t part) {
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
  __device__ __forceinline__ void clear_empty(const WarpRegion (&regions)[kRegions]) const {
    for_each(0, job.base_bins << pack_bits, [&](const Place& place) {
      empty[place.pack] = cells_of(one_of(regions, place.region), place.item).side == 0;
    });
    for_each_derived([&](const Place& place) {
      bool all = true;
      for_each_part<1>(place, [&](std::int32_t part) { all &= empty[part / 16] != 0; });
      empty[place.pack] = all;
    });
    for_each(0, items, [&](const Place& place) {
      if (empty[place.pack] == 0) return;
      // All bins of a region that cannot be pooled are prepared as empty.
      const bool sound = one_of(regions, place.region).group >= 0;
      const S value = sound ? S{} : narrow<S>(kNaN<ComputeType<S>>);
      if constexpr (with_argmax) {
        keep(place, Bests<S>::of(widen(value), -1));
      } else {
        keep(place, make_pack<S>([&](int) { return value; }));
      }
    });
  }

  // Writes runs, a lane 16 bytes, to rows of output.
  template <class E>
  __device__ __forceinline__ void write(const WarpRegion (&regions)[kRegions], E* output) const {
    constexpr int kLanes = 32 / kRegions;  // of each region, whose packs alternate
    const std::int32_t region = lane & (kRegions - 1), own = lane >> kBits;
    const E* const own_run = reinterpret_cast<const E*>(run) +
                             region * (run_bytes / static_cast<std::int32_t>(sizeof(S)));
    E* const own_row = output + one_of(regions, region).row * (job.channels * job.output_bins);
    if (policy.aligned) {
      // A pack of values and one of places may differ in length; the shorter is aligned for both, and lanes
      // side by side take the parts of a pack.
      constexpr int kW = kPerPack<E> < kV ? kPerPack<E> : kV;
      constexpr int kParts = kV / kW;
      constexpr std::uint32_t kGrows = sizeof(E) / sizeof(S), kShrinks = sizeof(S) / sizeof(E);
      const std::uint32_t* row_at = from_run + own / kParts;
      auto* const to_part = reinterpret_cast<unsigned char*>(own_row + own % kParts * kW);
      const E* run_at = own_run + own * kW;
#pragma unroll 1
      for (std::int32_t left = once((items >> pack_bits) * slab.used / kW - own); left > 0;
           left -= kLanes) {
        const std::uint32_t bytes = sizeof(E) < sizeof(S) ? *row_at / kShrinks : *row_at * kGrows;
        write_pack(reinterpret_cast<E*>(to_part + bytes), load_pack<E, kW>(run_at));
        run_at += kLanes * kW;
        row_at += kLanes / kParts;
      }
    } else {
      const PyramidView pyramid = job.pyramid.view();
      for (std::int32_t l = 0; l < pyramid.num_levels; ++l) {
        const auto bins = static_cast<std::int32_t>(pyramid.levels[l].bins);
        E* const to = own_row + job.output_index(l, 0, channel, 0);
        const E* const of_level = own_run + pyramid.levels[l].first_bin * (kV << pack_bits);
        for (std::int32_t i = own; i < bins * slab.used; i += kLanes) {
          const std::int32_t of_channel = i / bins;
          to[of_channel * job.output_levels[l].level.bins + i - of_channel * bins] = of_level[i];
        }
      }
    }
    __syncwarp();
  }

  template <class TablesOf>
  __device__ __forceinline__ void pool(const WarpRegion (&regions)[kRegions],
                                       const TablesOf& tables_of) const {
    const bool any_empty = pool_base(regions, tables_of);
    merge();
    if (__any_sync(0xffffffffu, any_empty)) clear_empty(regions);
    write(regions, static_cast<S*>(job.output));
    if constexpr (with_argmax) {
      put_places();
      write(regions, job.argmax);
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
__global__ void __launch_bounds__(region_threads(staged || with_argmax),
                                  staged || with_argmax ? 1 : 2)
    pool_regions(const __grid_constant__ RegionJob job,
                 const __grid_constant__ RegionPolicy policy) {
  constexpr int kV = kPerPack<S>, kSlab = kV << pack_bits;
  constexpr int kBits = region_bits(pack_bits, with_argmax), kRegions = 1 << kBits;
  unsigned char* const shared = dynamic_shared();
  const RegionShared& parts = policy.shared;
  auto* const derived = reinterpret_cast<DerivedItem*>(shared + parts.derived);
  auto* const to_run = reinterpret_cast<RunItem*>(shared + parts.to_run);
  auto* const from_run = reinterpret_cast<std::uint32_t*>(shared + parts.from_run);
  auto* const has_nan = reinterpret_cast<std::int32_t*>(shared + parts.has_nan);
  const std::int32_t thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  unsigned char* const own = shared + parts.warps + warp * parts.of_warp;
  list_derived(job, policy, derived);

  const std::int64_t slabs = divide_up(job.channels, kSlab);
  const std::int64_t groups = staged ? job.num_maps * (job.batch > 0 ? job.batch : 1) : 1;
  for (std::int64_t number = blockIdx.x; number < groups * slabs * policy.segments;
       number += gridDim.x) {
    const RegionUnit unit(job, policy, kSlab, number);
    const std::int32_t m = job.batch > 0 ? static_cast<std::int32_t>(unit.group / job.batch) : 0;
    const std::int64_t image = job.batch > 0 ? unit.group % job.batch : 0;
    const FeatureMap& map = job.maps[m];
    const auto width = static_cast<std::int32_t>(map.width);
    const Slab<S> slab(map, image, unit.channel, kSlab);
    list_runs<S>(job, policy, unit.channel, slab.used, to_run, from_run);
    if constexpr (staged) {
      if (thread == 0) *has_nan = 0;
      __syncthreads();
      if (job.batch > 0) {
        const SlabTables<S, pack_bits> tables{reinterpret_cast<S*>(shared + parts.cells),
                                              reinterpret_cast<S*>(shared + parts.squares),
                                              static_cast<std::int32_t>(map.cells()), width};
        tables.copy_cells(slab);
        __syncthreads();
        if constexpr (with_argmax) {
          tables.find_nan(has_nan);
        } else {
          tables.find_squares();
        }
      }
    }
    __syncthreads();
    const RegionWarp<S, with_argmax, staged, pack_bits> pool{
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
        once(policy.region_items * 16),
        unit.channel,
        slab,
        !staged || *has_nan != 0};
    const std::int32_t cell_bytes = once(policy.cell_bytes);
    // Of squares, or of cells alone.
    const Tables<S> staged_tables{
        shared,      shared,     with_argmax ? parts.cells : parts.squares,
        parts.cells, cell_bytes, once(cell_bytes * width),
        once(width)};
    const auto tables_of = [&](std::int32_t group) -> Tables<S> {
      if constexpr (staged) {
        return staged_tables;
      } else {
        if (group < 0) group = 0;  // of a region whose bins are empty
        const auto of = static_cast<std::int32_t>(group / job.batch);
        const std::int64_t first =
            (group % job.batch * job.maps[of].cells() * job.table_channels + unit.channel) *
            static_cast<std::int64_t>(sizeof(S));
        return {static_cast<const unsigned char*>(job.cell_tables[of]) + first,
                static_cast<const unsigned char*>(job.square_tables[of]) + first,
                0,
                0,
                static_cast<std::int32_t>(job.table_channels * sizeof(S)),
                static_cast<std::int32_t>(job.table_channels * sizeof(S) * job.maps[of].width),
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
        // Where regions run out, the last one is pooled and written twice.
        WarpRegion regions[kRegions];
        std::int32_t from = 0;
#pragma unroll
        for (int i = 0; i < kRegions; ++i) {
          if (chosen != 0) from = __ffs(static_cast<int>(chosen)) - 1;
          chosen &= chosen - 1;
          const auto of_row = static_cast<std::int32_t>(row);
          regions[i].row = __shfl_sync(0xffffffffu, of_row, from);
          regions[i].group = __shfl_sync(0xffffffffu, group, from);
          regions[i].bins = __shfl_sync(0xffffffffu, of_row * job.base_bins * 16, from);
        }
        pool.pool(regions, tables_of);
      }
    }
    __syncthreads();  // the next unit overwrites the tables
  }
}

}  // namespace spp_ext::cuda
