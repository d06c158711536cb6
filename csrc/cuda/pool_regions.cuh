// Pooling of regions. A block owns a slab of neighbouring channels and a segment of the regions; where
// the tables of its map fit in shared memory (region_tables.cuh), also one image of one map. Its warps
// work apart from each other, a few regions at a time:
//
//   base bins      lanes = regions x bins x packs of channels; a lane looks its bin up in the tables
//   derived bins   lanes alike, from packs of base bins in the warp's shared memory
//   output         packs of channels are turned into runs of bins: a level of a slab is one aligned run
//                  of a row, of which a lane writes 16 bytes
//
//   lane      0 1   2 3   4 5  ...  30 31      (2 packs; 16 bins of one region)
//   pack      0 1   0 1   0 1        0  1
//   bin        0     1     2    ...   15
#pragma once

#include <cstdint>

#include "cuda/best.h"
#include "cuda/device.h"
#include "cuda/region_job.h"
#include "cuda/region_tables.cuh"
#include "cuda/tuning.h"
#include "cuda/words.h"

namespace spp_ext::cuda {

struct RegionPolicy {
  std::int32_t pack_bits;    // a slab has 1 << pack_bits packs of channels
  std::int32_t together;     // regions that a warp pools at a time
  std::int32_t warps;        // of a block
  std::int64_t segments;     // blocks that share the regions of a slab
  std::int32_t table_cells;  // of the largest map
  std::int32_t
      aligned;  // whether each level of a slab is one run of whole packs in a row of output
  std::int32_t base_bins;
  std::int32_t derived_bins;
  // Derived bins are merged in rounds: all that need only base bins and bins of earlier rounds.
  std::int32_t rounds;
  std::int32_t round_ends[kMaxLevels];  // derived bins up to the end of each

  SPP_HOST_DEVICE std::int32_t packs() const { return 1 << pack_bits; }
};

// What the lanes of a warp do is the same for every region, so a block lists it once. Numbers of values are
// positions in the warp's `values`, [region][bin][pack], counted in numbers of S.

// Looks up one pack of channels of one base bin.
struct alignas(16) BaseItem {
  std::int32_t region;
  std::int32_t row_span;
  std::int32_t col_span;
  std::int32_t to;
};

// Merges one pack of a derived bin from a rectangle of other bins.
struct alignas(16) DerivedItem {
  std::int32_t from;  // the first part
  std::int32_t to;
  std::int32_t across;  // numbers from the first part of a row to behind its last
  std::int32_t stride;  // numbers between the rows of parts
  std::int32_t down;    // rows of parts
};

// Turns a pack of channels of a bin into numbers of a run.
struct alignas(8) RunItem {
  std::int32_t to;
  std::int32_t step;  // between channels
};

// A region that a warp pools.
struct alignas(16) RegionRow {
  std::int32_t row;
  std::int32_t group;
  std::int64_t spans;  // the first, of all spans
};

// The parts of a block's shared memory, in bytes from its start.
struct RegionShared {
  std::int64_t cells;     // S [table_cells][packs], V channels each; in shared memory only
  std::int64_t squares;   // alike, without argmax
  std::int64_t base;      // BaseItem [together][base_bins][packs]
  std::int64_t derived;   // DerivedItem, by round [together][derived_bins][packs]
  std::int64_t to_run;    // RunItem [bins][packs]
  std::int64_t from_run;  // int32 [bins * packs], the number of a row to which a pack of a run goes
  std::int64_t warps;     // [warps] of the following, in bytes from their start
  std::int64_t of_warp;   // bytes of one
  std::int64_t values;    // S [together][bins][packs], V channels each
  std::int64_t places;    // int32 alike, the cells of the values, with argmax
  std::int64_t run;       // S or int32, a row of output of the slab
  std::int64_t rows;      // RegionRow [together]
  std::int64_t empty;     // uint8 [together][bins]
  std::int64_t bytes;

  SPP_HOST_DEVICE RegionShared(const RegionJob& job, const RegionPolicy& policy, bool with_argmax,
                               bool staged) {
    const std::int64_t table = staged ? 16 * policy.table_cells * policy.packs() : 0;
    const std::int64_t size = size_of(job.maps[0].dtype);
    const std::int64_t bins = job.pyramid.bins;
    const std::int64_t packs = policy.packs(), together = policy.together;
    const auto items = [&](std::int64_t count, std::size_t bytes_each) {
      return align16(count * packs * static_cast<std::int64_t>(bytes_each));
    };
    cells = 0;
    squares = cells + table;
    base = squares + (with_argmax ? 0 : table);
    derived = base + items(together * policy.base_bins, sizeof(BaseItem));
    to_run = derived + items(together * policy.derived_bins, sizeof(DerivedItem));
    from_run = to_run + items(bins, sizeof(RunItem));
    warps = from_run + items(bins, 4);
    values = 0;
    places = values + items(together * bins, 16);
    run = places + (with_argmax ? items(together * bins, 16 / size * 4) : 0);
    rows = run + items(bins, with_argmax && size < 4 ? 16 / size * 4 : 16);
    empty = rows + together * static_cast<std::int64_t>(sizeof(RegionRow));
    of_warp = empty + align16(together * bins);
    bytes = warps + policy.warps * of_warp;
  }
};

__device__ __forceinline__ Span load_span(const Span* from) {
  return spp_ext::detail::bit_cast<Span>(*reinterpret_cast<const uint2*>(from));
}

// The tables of one image of one map.
template <class S>
struct Tables {
  const S* cells;
  const S* squares;
  std::int32_t cell_stride;
  std::int32_t width;  // of the map
};

// The maxima of a bin in one pack of channels, which begins at `own` in every cell. Squares may overlap.
template <class S>
__device__ __forceinline__ Pack<S> look_up(const Tables<S>& tables, Span rows, Span cols,
                                           std::int32_t own) {
  const std::int32_t height = rows.end - rows.begin, width = cols.end - cols.begin;
  Pack<S> best = lowest_pack<S>();
  if (height <= 0 || width <= 0) return best;
  const std::int32_t side = height >= 2 && width >= 2 ? 2 : 1;
  const S* const table = side == 2 ? tables.squares : tables.cells;
  const std::int32_t row_stride = tables.width * tables.cell_stride;
  const std::int32_t step = side * tables.cell_stride;
  const std::int32_t down = side * row_stride;
  const std::int32_t to_last = (width - side) * tables.cell_stride;
  std::int32_t row = rows.begin * row_stride + cols.begin * tables.cell_stride + own;
  const std::int32_t last_row = row + (height - side) * row_stride;
  while (true) {
    std::int32_t at = row;
    const std::int32_t last = row + to_last;
    while (true) {
      best = maximum(best, load_pack(table + at));
      if (at == last) break;
      at = at + step < last ? at + step : last;
    }
    if (row == last_row) break;
    row = row + down < last_row ? row + down : last_row;
  }
  return best;
}

// The bests of a bin in one pack of channels, cells taken in row-major order. A bin without cells has
// -infinity at a cell after all others.
template <class S>
struct Bests {
  ComputeType<S> values[kPerPack<S>];
  std::int32_t cells[kPerPack<S>];
};

template <class S>
__device__ __forceinline__ Bests<S> search(const Tables<S>& tables, Span rows, Span cols,
                                           std::int32_t own) {
  using T = ComputeType<S>;
  const bool none = rows.begin >= rows.end || cols.begin >= cols.end;
  Bests<S> best;
#pragma unroll
  for (int i = 0; i < kPerPack<S>; ++i) {
    best.values[i] = -kInfinity<T>;
    best.cells[i] =
        none ? static_cast<std::int32_t>(kInt32Max) : rows.begin * tables.width + cols.begin;
  }
  if (none) return best;
  for (std::int32_t y = rows.begin; y < rows.end; ++y) {
    std::int32_t cell = y * tables.width + cols.begin;
    const std::int32_t end = y * tables.width + cols.end;
    const S* at = tables.cells + cell * tables.cell_stride + own;
    for (; cell < end; ++cell, at += tables.cell_stride) {
      const Pack<S> pack = load_pack(at);
#pragma unroll
      for (int i = 0; i < kPerPack<S>; ++i) {
        const T candidate = widen(pack[i]);
        if (MaxOp::replaces(candidate, best.values[i])) {
          best.values[i] = candidate;
          best.cells[i] = cell;
        }
      }
    }
  }
  return best;
}

// A warp's own shared memory, and what it does there. All lanes must call each function together.
template <class S, bool with_argmax>
struct RegionWarp {
  static constexpr int kV = kPerPack<S>;

  const RegionJob& job;
  const RegionPolicy& policy;
  S* values;
  std::int32_t* places;
  unsigned char* run;
  RegionRow* rows;
  unsigned char* empty;
  const BaseItem* base;
  const DerivedItem* derived;
  const RunItem* to_run;
  const std::int32_t* from_run;
  std::int32_t lane;
  std::int64_t channel;  // the slab's first
  std::int32_t used;     // its channels that exist
  bool aligned;          // whether runs can be written in packs

  __device__ __forceinline__ std::int32_t bins() const {
    return static_cast<std::int32_t>(job.pyramid.bins);
  }
  __device__ __forceinline__ void put(std::int32_t to, const Bests<S>& best) const {
    store_pack(values + to, make_pack<S>([&](int n) { return narrow<S>(best.values[n]); }));
#pragma unroll
    for (int n = 0; n < kV; ++n) places[to + n] = best.cells[n];
  }

  // Base bins of the regions whose rows are in place. Returns whether a bin of this lane's has no cell.
  template <class TablesOf>
  __device__ __forceinline__ bool pool_base(const TablesOf& tables_of) const {
    const std::int32_t items = (policy.together * policy.base_bins) << policy.pack_bits;
    const std::int32_t own_bits = (kV << policy.pack_bits) - 1;
    bool any_empty = false;
    for (std::int32_t i = lane; i < items; i += 32) {
      const BaseItem item = base[i];
      const RegionRow row = rows[item.region];
      if (row.group < 0) {
        const S nan = narrow<S>(kNaN<ComputeType<S>>);
        store_pack(values + item.to, make_pack<S>([&](int) { return nan; }));
        if constexpr (with_argmax) {
          for (int n = 0; n < kV; ++n) places[item.to + n] = -1;
        }
        continue;
      }
      const Span* const spans = job.spans + row.spans;
      const Span down = load_span(spans + item.row_span);
      const Span across = load_span(spans + item.col_span);
      const Tables<S> tables = tables_of(row.group);
      if constexpr (with_argmax) {
        put(item.to, search(tables, down, across, item.to & own_bits));
      } else {
        store_pack(values + item.to, look_up(tables, down, across, item.to & own_bits));
      }
      any_empty |= down.begin == down.end || across.begin == across.end;
    }
    __syncwarp();
    return any_empty;
  }

  // Derived bins, round after round.
  __device__ __forceinline__ void merge() const {
    const std::int32_t step = kV << policy.pack_bits;
    std::int32_t i = lane;
    for (std::int32_t round = 0; round < policy.rounds; ++round) {
      const std::int32_t end = (policy.together * policy.round_ends[round]) << policy.pack_bits;
      for (; i < end; i += 32) {
        const DerivedItem item = derived[i];
        if constexpr (with_argmax) {
          put(item.to, merge_bests(item, step));
        } else {
          Pack<S> best = load_pack(values + item.from);
          const S* row = values + item.from;
          for (std::int32_t y = 0; y < item.down; ++y, row += item.stride) {
            for (const S *part = row, *last = row + item.across; part < last; part += step) {
              best = maximum(best, load_pack(part));
            }
          }
          store_pack(values + item.to, best);
        }
      }
      i = end + lane;
      __syncwarp();
    }
  }
  __device__ __forceinline__ Bests<S> merge_bests(const DerivedItem& item,
                                                  std::int32_t step) const {
    Bests<S> best;
#pragma unroll
    for (int n = 0; n < kV; ++n) {
      best.values[n] = widen(values[item.from + n]);
      best.cells[n] = places[item.from + n];
    }
    std::int32_t row = item.from;
    for (std::int32_t y = 0; y < item.down; ++y, row += item.stride) {
      for (std::int32_t part = row; part < row + item.across; part += step) {
        const Pack<S> pack = load_pack(values + part);
#pragma unroll
        for (int n = 0; n < kV; ++n) {
          const ComputeType<S> value = widen(pack[n]);
          const std::int32_t cell = places[part + n];
          if (MaxOp::replaces(value, cell, best.values[n], best.cells[n])) {
            best.values[n] = value;
            best.cells[n] = cell;
          }
        }
      }
    }
    return best;
  }

  // Bins without a cell become 0, argmax -1. A derived bin is empty if all its parts are.
  __device__ __forceinline__ void clear_empty() const {
    const std::int32_t bits = policy.pack_bits, step = kV << bits;
    const std::int32_t base_items = (policy.together * policy.base_bins) << bits;
    for (std::int32_t i = lane; i < base_items; i += 32) {
      const BaseItem item = base[i];
      const RegionRow row = rows[item.region];
      const Span* const spans = job.spans + row.spans;
      const Span down = spans[item.row_span], across = spans[item.col_span];
      empty[item.to / step] =
          row.group >= 0 && (down.begin == down.end || across.begin == across.end);
    }
    __syncwarp();
    std::int32_t i = lane;
    for (std::int32_t round = 0; round < policy.rounds; ++round) {
      const std::int32_t end = (policy.together * policy.round_ends[round]) << bits;
      for (; i < end; i += 32) {
        const DerivedItem item = derived[i];
        bool all = true;
        for (std::int32_t y = 0, row = item.from; y < item.down; ++y, row += item.stride) {
          for (std::int32_t part = row; part < row + item.across; part += step) {
            all &= empty[part / step] != 0;
          }
        }
        empty[item.to / step] = all;
      }
      i = end + lane;
      __syncwarp();
    }
    for (std::int32_t k = lane; k < (policy.together * bins()) << bits; k += 32) {
      if (empty[k >> bits] == 0) continue;
      store_pack(values + k * kV, Pack<S>{});
      if constexpr (with_argmax) {
        for (int n = 0; n < kV; ++n) places[k * kV + n] = -1;
      }
    }
    __syncwarp();
  }

  // Turns packs of channels into the order of a row of output, and writes them there.
  template <class E>
  __device__ __forceinline__ void write(std::int32_t region, const E* from, E* output) const {
    // A pack of values and one of places may differ in length; the shorter is aligned for both.
    constexpr int kW = kPerPack<E> < kV ? kPerPack<E> : kV;
    E* const own_run = reinterpret_cast<E*>(run);
    const std::int32_t items = bins() << policy.pack_bits;
    from += region * items * kV;
    if (aligned) {
      for (std::int32_t i = lane; i < items; i += 32) {
        const RunItem item = to_run[i];
        E* to = own_run + item.to;
#pragma unroll
        for (int n = 0; n < kV; n += kW) {
          const Pack<E, kW> pack = load_pack<E, kW>(from + i * kV + n);
#pragma unroll
          for (int k = 0; k < kW; ++k, to += item.step) *to = pack[k];
        }
      }
    } else {
      for (std::int32_t i = lane; i < items; i += 32) {
        const RunItem item = to_run[i];
        const std::int32_t first = (i & (policy.packs() - 1)) * kV;
        for (int n = 0; n < kV && first + n < used; ++n) {
          own_run[item.to + n * item.step] = from[i * kV + n];
        }
      }
    }
    __syncwarp();
    E* const row = output + rows[region].row * (job.channels * job.output_bins);
    if (aligned) {
      for (std::int32_t i = lane; i < bins() * used / kW; i += 32) {
        const std::int32_t number = i * kW;
        write_pack(row + from_run[number / kV] + number % kV, load_pack<E, kW>(own_run + number));
      }
    } else {
      const PyramidView pyramid = job.pyramid.view();
      for (std::int32_t l = 0; l < pyramid.num_levels; ++l) {
        const auto bins_of_level = static_cast<std::int32_t>(pyramid.levels[l].bins);
        const std::int64_t to = job.output_index(l, 0, channel, 0);
        const E* const of_level = own_run + pyramid.levels[l].first_bin * used;
        for (std::int32_t i = lane; i < bins_of_level * used; i += 32) {
          const std::int32_t of_channel = i / bins_of_level;
          row[to + of_channel * job.output_levels[l].level.bins + i - of_channel * bins_of_level] =
              of_level[i];
        }
      }
    }
    __syncwarp();
  }

  // Pools the regions in rows[0, count). Where they are fewer than policy.together, the others are some
  // region, too, and are not written.
  template <class TablesOf>
  __device__ __forceinline__ void pool(std::int32_t count, const TablesOf& tables_of) const {
    const bool any_empty = pool_base(tables_of);
    merge();
    if (__any_sync(0xffffffffu, any_empty)) clear_empty();
    for (std::int32_t region = 0; region < count; ++region) {
      write(region, values, static_cast<S*>(job.output));
      if constexpr (with_argmax) write(region, places, job.argmax);
    }
  }
};

// Lists in shared memory what the lanes of each warp do. A barrier must follow.
template <class S>
__device__ __forceinline__ void list_bins(const RegionJob& job, const RegionPolicy& policy,
                                          BaseItem* base, DerivedItem* derived) {
  const PyramidView pyramid = job.pyramid.view();
  const std::int32_t step = kPerPack<S> << policy.pack_bits;  // of a bin
  const auto bins = static_cast<std::int32_t>(pyramid.bins);
  // Calls f(region, bin, number of a pack) for every pack of `count` bins of every region.
  const auto for_each = [&](std::int32_t count, const auto& f) {
    const std::int32_t packs = count << policy.pack_bits;
    for (std::int32_t i = threadIdx.x; i < policy.together * packs; i += blockDim.x) {
      const std::int32_t region = i / packs, item = i - region * packs;
      f(region, item >> policy.pack_bits, item & (policy.packs() - 1));
    }
  };
  const auto at = [&](std::int32_t region, std::int64_t bin, std::int32_t pack) {
    return (region * bins + static_cast<std::int32_t>(bin)) * step + pack * kPerPack<S>;
  };
  for (BaseLevels levels(pyramid); levels.next();) {
    const Level& level = levels.level();
    const auto first_span = static_cast<std::int32_t>(levels.first_span());
    const auto first_bin = static_cast<std::int32_t>(levels.first_base_bin());
    for_each(static_cast<std::int32_t>(level.bins), [&](std::int32_t region, std::int32_t bin,
                                                        std::int32_t pack) {
      base[((region * policy.base_bins + first_bin + bin) << policy.pack_bits) + pack] = {
          region, first_span + static_cast<std::int32_t>(level.row_span_of(bin)),
          first_span + static_cast<std::int32_t>(level.row_spans() + level.col_span_of(bin)),
          at(region, level.first_bin + bin, pack)};
    });
  }
  // Derived bins of a round stand together: [region][bin of the round][pack].
  std::int32_t before = 0, round = 0, round_begin = 0;
  for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
    const Level& level = pyramid.levels[pyramid.order[i]];
    if (level.is_base()) continue;
    if (before == policy.round_ends[round]) {
      round_begin = before;
      ++round;
    }
    const Level& source = pyramid.levels[level.source];
    const std::int32_t round_bins = policy.round_ends[round] - round_begin;
    for_each(static_cast<std::int32_t>(level.bins), [&](std::int32_t region, std::int32_t bin,
                                                        std::int32_t pack) {
      const Rectangle parts = pyramid.merged_bins(level, bin);
      const std::int32_t to =
          policy.together * round_begin + region * round_bins + before - round_begin + bin;
      derived[(to << policy.pack_bits) + pack] = {
          at(region, source.first_bin + parts.top * source.col_divisions + parts.left, pack),
          at(region, level.first_bin + bin, pack), (parts.right - parts.left) * step,
          source.col_divisions * step, parts.bottom - parts.top};
    });
    before += static_cast<std::int32_t>(level.bins);
  }
}

// Lists where the packs of a slab of `used` channels go: those of bins in a run, and those of the run in a
// row of output. A pack of a run is of one level. A barrier must follow.
template <class S>
__device__ __forceinline__ void list_runs(const RegionJob& job, const RegionPolicy& policy,
                                          std::int64_t channel, std::int32_t used, bool aligned,
                                          RunItem* to_run, std::int32_t* from_run) {
  constexpr int kV = kPerPack<S>;
  const PyramidView pyramid = job.pyramid.view();
  for (std::int32_t l = 0; l < pyramid.num_levels; ++l) {
    const auto first = static_cast<std::int32_t>(pyramid.levels[l].first_bin);
    const auto bins = static_cast<std::int32_t>(pyramid.levels[l].bins);
    for (std::int32_t i = threadIdx.x; i < bins << policy.pack_bits; i += blockDim.x) {
      const std::int32_t bin = i >> policy.pack_bits;
      const std::int32_t first_channel = (i & (policy.packs() - 1)) * kV;
      // Packs without a channel go to a place that is not written from.
      const bool exists = !aligned || first_channel < used;
      to_run[(first << policy.pack_bits) + i] = {
          exists ? first * used + first_channel * bins + bin
                 : static_cast<std::int32_t>(pyramid.bins) * used,
          exists ? bins : 0};
    }
    const auto to = static_cast<std::int32_t>(job.output_index(l, 0, channel, 0));
    for (std::int32_t i = threadIdx.x; aligned && i < bins * used / kV; i += blockDim.x) {
      from_run[first * used / kV + i] = to + i * kV;
    }
  }
}

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

template <class S, bool with_argmax, bool staged>
__global__ void __launch_bounds__(tuning::kRegionThreads, 1)
    pool_regions(const __grid_constant__ RegionJob job,
                 const __grid_constant__ RegionPolicy policy) {
  constexpr int kV = kPerPack<S>;
  unsigned char* const shared = dynamic_shared();
  const RegionShared parts(job, policy, with_argmax, staged);
  S* const cells = reinterpret_cast<S*>(shared + parts.cells);
  S* const squares = reinterpret_cast<S*>(shared + parts.squares);
  auto* const base = reinterpret_cast<BaseItem*>(shared + parts.base);
  auto* const derived = reinterpret_cast<DerivedItem*>(shared + parts.derived);
  auto* const to_run = reinterpret_cast<RunItem*>(shared + parts.to_run);
  auto* const from_run = reinterpret_cast<std::int32_t*>(shared + parts.from_run);
  const std::int32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  unsigned char* const own = shared + parts.warps + warp * parts.of_warp;
  const std::int32_t slab = kV << policy.pack_bits;
  const bool aligned = policy.aligned != 0;
  list_bins<S>(job, policy, base, derived);

  const std::int64_t slabs = divide_up(job.channels, slab);
  const std::int64_t groups = staged ? job.num_maps * (job.batch > 0 ? job.batch : 1) : 1;
  for (std::int64_t number = blockIdx.x; number < groups * slabs * policy.segments;
       number += gridDim.x) {
    const RegionUnit unit(job, policy, slab, number);
    const auto used = static_cast<std::int32_t>(smaller_of(job.channels - unit.channel, slab));
    const std::int32_t m = job.batch > 0 ? static_cast<std::int32_t>(unit.group / job.batch) : 0;
    const FeatureMap& map = job.maps[m];
    const auto width = static_cast<std::int32_t>(map.width);
    list_runs<S>(job, policy, unit.channel, used, aligned, to_run, from_run);
    if (staged && job.batch > 0) {
      copy_cells<S>(map, {unit.group % job.batch, unit.channel, policy.packs()},
                    {0, static_cast<std::int32_t>(map.height)}, {0, width}, cells);
    }
    __syncthreads();
    if constexpr (staged && !with_argmax) {
      const auto count = static_cast<std::int32_t>(map.cells()) << policy.pack_bits;
      for (std::int32_t i = threadIdx.x; job.batch > 0 && i < count; i += blockDim.x) {
        const std::int32_t cell = i >> policy.pack_bits;
        const std::int32_t down = cell < map.cells() - width ? width * slab : 0;
        const std::int32_t right = (cell + 1) % width != 0 ? slab : 0;
        store_pack(squares + i * kV, maximum_of_square(cells + i * kV, down, right));
      }
      __syncthreads();
    }
    const RegionWarp<S, with_argmax> pool{job,
                                          policy,
                                          reinterpret_cast<S*>(own + parts.values),
                                          reinterpret_cast<std::int32_t*>(own + parts.places),
                                          own + parts.run,
                                          reinterpret_cast<RegionRow*>(own + parts.rows),
                                          own + parts.empty,
                                          base,
                                          derived,
                                          to_run,
                                          from_run,
                                          lane,
                                          unit.channel,
                                          used,
                                          aligned};
    const Tables<S> staged_tables{cells, squares, slab, width};
    const auto tables_of = [&](std::int32_t group) -> Tables<S> {
      if constexpr (staged) {
        return staged_tables;
      } else {
        const auto of = static_cast<std::int32_t>(group / job.batch);
        const std::int64_t first =
            group % job.batch * job.maps[of].cells() * job.table_channels + unit.channel;
        return {static_cast<const S*>(job.cell_tables[of]) + first,
                static_cast<const S*>(job.square_tables[of]) + first,
                static_cast<std::int32_t>(job.table_channels),
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
        std::int32_t count = 0;
        std::int32_t from = 0;
        for (std::int32_t i = 0; i < policy.together; ++i) {
          if (chosen != 0) {
            from = __ffs(static_cast<int>(chosen)) - 1;
            chosen &= chosen - 1;
            ++count;
          }
          if (lane == from) {
            pool.rows[i] = {static_cast<std::int32_t>(row), group, row * job.pyramid.spans};
          }
        }
        __syncwarp();
        pool.pool(count, tables_of);
      }
    }
    __syncthreads();  // the next unit overwrites the tables
  }
}

}  // namespace spp_ext::cuda
