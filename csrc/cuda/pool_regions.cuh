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
  std::int32_t base_bins;
  std::int32_t derived_bins;
  // Derived bins are merged in rounds: all that need only base bins and bins of earlier rounds.
  std::int32_t rounds;
  std::int32_t round_ends[kMaxLevels];  // derived bins up to the end of each

  SPP_HOST_DEVICE std::int32_t packs() const { return 1 << pack_bits; }
};

SPP_HOST_DEVICE std::int64_t align16(std::int64_t bytes) { return divide_up(bytes, 16) * 16; }

// Where a base bin finds its spans, and where it goes.
struct BaseEntry {
  std::int32_t row_span;
  std::int32_t col_span;
  std::int32_t bin;
};

// The grid of bins that a derived bin is merged from, and where it goes.
struct DerivedEntry {
  std::int32_t bin;
  std::int32_t first_part;
  std::int32_t down;
  std::int32_t across;
  std::int32_t part_cols;  // bins in a row of the source
};

// Where a bin lies in a slab's run of output, and how far apart its channels are there.
struct BinRun {
  std::int32_t first;
  std::int32_t step;
};

struct RegionRow {
  std::int32_t row;
  std::int32_t group;
};

// The parts of a block's shared memory, in bytes from its start.
struct RegionShared {
  std::int64_t cells;     // S [table_cells][packs], V channels each; in shared memory only
  std::int64_t squares;   // alike, without argmax
  std::int64_t base;      // BaseEntry [base_bins]
  std::int64_t derived;   // DerivedEntry [derived_bins]
  std::int64_t bin_runs;  // BinRun [bins]
  std::int64_t runs_to;  // int32 [bins * packs], the element of a row to which a pack of a run goes
  std::int64_t warps;    // [warps] of the following, in bytes from their start
  std::int64_t of_warp;  // bytes of one
  std::int64_t values;   // S [together][bins][packs], V channels each
  std::int64_t bins_cells;  // int32 alike, with argmax
  std::int64_t runs;        // S or int32, a row of output of the slab
  std::int64_t rows;        // RegionRow [together]
  std::int64_t empty;       // uint8 [together][bins]
  std::int64_t bytes;

  SPP_HOST_DEVICE RegionShared(const RegionJob& job, const RegionPolicy& policy, bool with_argmax,
                               bool staged) {
    const std::int64_t table = staged ? 16 * policy.table_cells * policy.packs() : 0;
    const std::int64_t size = size_of(job.maps[0].dtype);
    const std::int64_t bins = job.pyramid.bins;
    const std::int64_t packs = policy.together * bins * policy.packs();
    cells = 0;
    squares = cells + table;
    base = squares + (with_argmax ? 0 : table);
    derived = base + align16(policy.base_bins * static_cast<std::int64_t>(sizeof(BaseEntry)));
    bin_runs =
        derived + align16(policy.derived_bins * static_cast<std::int64_t>(sizeof(DerivedEntry)));
    runs_to = bin_runs + align16(bins * 8);
    warps = runs_to + align16(bins * policy.packs() * 4);
    values = 0;
    bins_cells = values + packs * 16;
    runs = bins_cells + (with_argmax ? packs * 16 / size * 4 : 0);
    rows = runs + bins * policy.packs() * (with_argmax && size < 4 ? 16 / size * 4 : 16);
    empty = rows + align16(policy.together * 8);
    of_warp = empty + align16(policy.together * bins);
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
  std::int32_t y = rows.begin;
  while (true) {
    std::int32_t at = y * row_stride + cols.begin * tables.cell_stride + own;
    const std::int32_t last = at + (width - side) * tables.cell_stride;
    while (true) {
      best = maximum(best, load_pack(table + at));
      if (at == last) break;
      at = at + step < last ? at + step : last;
    }
    if (y == rows.end - side) break;
    y = y + side < rows.end - side ? y + side : rows.end - side;
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
  std::int32_t* cells;
  unsigned char* runs;
  RegionRow* rows;
  unsigned char* empty;
  const BaseEntry* base;
  const DerivedEntry* derived;
  const BinRun* bin_runs;
  const std::int32_t* runs_to;
  std::int32_t bins;
  std::int32_t lane;
  std::int64_t channel;  // the slab's first
  std::int32_t used;     // its channels that exist
  bool aligned;          // whether runs can be written in packs

  // Which of the regions pooled together an item is of; `item` becomes its number within that region.
  static __device__ __forceinline__ std::int32_t region_of(std::int32_t& item, std::int32_t items) {
    std::int32_t region = 0;
    for (; item >= items; item -= items) ++region;
    return region;
  }
  __device__ __forceinline__ std::int32_t pack_of(std::int32_t item) const {
    return item & (policy.packs() - 1);
  }
  __device__ __forceinline__ std::int32_t at(std::int32_t region, std::int32_t bin,
                                             std::int32_t pack) const {
    return (((region * bins + bin) << policy.pack_bits) + pack) * kV;
  }
  __device__ __forceinline__ void put(std::int32_t to, const Bests<S>& best) const {
    store_pack(values + to, make_pack<S>([&](int n) { return narrow<S>(best.values[n]); }));
#pragma unroll
    for (int n = 0; n < kV; ++n) cells[to + n] = best.cells[n];
  }

  // Base bins of `count` regions, whose rows are in place. Returns whether a bin of this lane's has no
  // cell.
  template <class TablesOf>
  __device__ __forceinline__ bool pool_base(std::int32_t count, const TablesOf& tables_of) const {
    const std::int32_t items = policy.base_bins << policy.pack_bits;
    bool any_empty = false;
    for (std::int32_t i = lane; i < count * items; i += 32) {
      std::int32_t item = i;
      const std::int32_t region = region_of(item, items);
      const std::int32_t pack = pack_of(item);
      const BaseEntry entry = base[item >> policy.pack_bits];
      const RegionRow of = rows[region];
      const std::int32_t to = at(region, entry.bin, pack);
      bool is_empty = false;
      if (of.group < 0) {
        const S nan = narrow<S>(kNaN<ComputeType<S>>);
        store_pack(values + to, make_pack<S>([&](int) { return nan; }));
        if constexpr (with_argmax) {
          for (int n = 0; n < kV; ++n) cells[to + n] = -1;
        }
      } else {
        const Span* const spans =
            job.spans +
            of.row * static_cast<std::int64_t>(static_cast<std::int32_t>(job.pyramid.spans));
        const Span down = load_span(spans + entry.row_span),
                   across = load_span(spans + entry.col_span);
        if constexpr (with_argmax) {
          put(to, search(tables_of(of.group), down, across, pack * kV));
        } else {
          store_pack(values + to, look_up(tables_of(of.group), down, across, pack * kV));
        }
        is_empty = down.begin == down.end || across.begin == across.end;
      }
      if (pack == 0) empty[region * bins + entry.bin] = is_empty;
      any_empty |= is_empty;
    }
    __syncwarp();
    return any_empty;
  }

  // Calls f(region, pack, entry) for the derived bins of `count` regions, a lane each, round after round.
  template <class F>
  __device__ __forceinline__ void for_each_derived(std::int32_t count, std::int32_t pack_bits,
                                                   const F& f) const {
    std::int32_t begin = 0;
    for (std::int32_t round = 0; round < policy.rounds; ++round) {
      const std::int32_t items = (policy.round_ends[round] - begin) << pack_bits;
      for (std::int32_t i = lane; i < count * items; i += 32) {
        std::int32_t item = i;
        const std::int32_t region = region_of(item, items);
        f(region, item & ((1 << pack_bits) - 1), derived[begin + (item >> pack_bits)]);
      }
      begin = policy.round_ends[round];
      __syncwarp();
    }
  }

  __device__ __forceinline__ void merge(std::int32_t count) const {
    const std::int32_t step = kV << policy.pack_bits;
    for_each_derived(count, policy.pack_bits,
                     [&](std::int32_t region, std::int32_t pack, const DerivedEntry& entry) {
                       const std::int32_t from = at(region, entry.first_part, pack);
                       const std::int32_t to = at(region, entry.bin, pack);
                       Pack<S> best = lowest_pack<S>();
                       Bests<S> bests;
                       if constexpr (with_argmax) {
#pragma unroll
                         for (int n = 0; n < kV; ++n) {
                           bests.values[n] = widen(values[from + n]);
                           bests.cells[n] = cells[from + n];
                         }
                       }
                       std::int32_t row = from;
                       for (std::int32_t y = 0; y < entry.down;
                            ++y, row += entry.part_cols * step) {
                         const std::int32_t end = row + entry.across * step;
                         for (std::int32_t part = row; part < end; part += step) {
                           const Pack<S> pack_of_part = load_pack(values + part);
                           if constexpr (with_argmax) {
                             merge_pack(bests, pack_of_part, cells + part);
                           } else {
                             best = maximum(best, pack_of_part);
                           }
                         }
                       }
                       if constexpr (with_argmax) {
                         put(to, bests);
                       } else {
                         store_pack(values + to, best);
                       }
                     });
  }
  static __device__ __forceinline__ void merge_pack(Bests<S>& best, const Pack<S>& pack,
                                                    const std::int32_t* pack_cells) {
#pragma unroll
    for (int n = 0; n < kV; ++n) {
      const ComputeType<S> value = widen(pack[n]);
      const std::int32_t cell = pack_cells[n];
      if (MaxOp::replaces(value, cell, best.values[n], best.cells[n])) {
        best.values[n] = value;
        best.cells[n] = cell;
      }
    }
  }

  // Bins without a cell become 0, argmax -1. A derived bin is empty if all its parts are.
  __device__ __forceinline__ void clear_empty(std::int32_t count) const {
    for_each_derived(count, 0, [&](std::int32_t region, std::int32_t, const DerivedEntry& entry) {
      bool all = true;
      for (std::int32_t y = 0; y < entry.down; ++y) {
        for (std::int32_t x = 0; x < entry.across; ++x) {
          all &= empty[region * bins + entry.first_part + y * entry.part_cols + x] != 0;
        }
      }
      empty[region * bins + entry.bin] = all;
    });
    for (std::int32_t i = lane; i < (count * bins) << policy.pack_bits; i += 32) {
      if (empty[i >> policy.pack_bits] == 0) continue;
      store_pack(values + i * kV, Pack<S>{});
      if constexpr (with_argmax) {
        for (int n = 0; n < kV; ++n) cells[i * kV + n] = -1;
      }
    }
    __syncwarp();
  }

  // Turns packs of channels into the order of a row of output, and writes them there.
  template <class E>
  __device__ __forceinline__ void write(std::int32_t region, const E* from, E* output) const {
    // A pack of values and one of cells may differ in length; the shorter is aligned for both.
    constexpr int kW = kPerPack<E> < kV ? kPerPack<E> : kV;
    E* const run = reinterpret_cast<E*>(runs);
    from += at(region, 0, 0);
    for (std::int32_t i = lane; i < bins << policy.pack_bits; i += 32) {
      const BinRun bin = bin_runs[i >> policy.pack_bits];
      const std::int32_t first_channel = pack_of(i) * kV;
      E* const to = run + bin.first + first_channel * bin.step;
      if (first_channel + kV <= used) {
#pragma unroll
        for (int n = 0; n < kV; n += kW) {
          const Pack<E, kW> pack = load_pack<E, kW>(from + i * kV + n);
#pragma unroll
          for (int k = 0; k < kW; ++k) to[(n + k) * bin.step] = pack[k];
        }
      } else {
        for (int n = 0; first_channel + n < used; ++n) to[n * bin.step] = from[i * kV + n];
      }
    }
    __syncwarp();
    E* const row = output + rows[region].row * (job.channels * job.output_bins);
    if (aligned) {
      for (std::int32_t i = lane; i < bins * used / kW; i += 32) {
        const std::int32_t element = i * kW;
        store_pack(row + runs_to[element / kV] + element % kV, load_pack<E, kW>(run + element));
      }
    } else {
      const PyramidView pyramid = job.pyramid.view();
      for (std::int32_t l = 0; l < pyramid.num_levels; ++l) {
        const std::int32_t count = static_cast<std::int32_t>(pyramid.levels[l].bins) * used;
        const std::int64_t to = job.output_index(l, 0, channel, 0);
        const E* const of_level = run + pyramid.levels[l].first_bin * used;
        for (std::int32_t i = lane; i < count; i += 32) row[to + i] = of_level[i];
      }
    }
    __syncwarp();
  }

  template <class TablesOf>
  __device__ __forceinline__ void pool(std::int32_t count, const TablesOf& tables_of) const {
    const bool any_empty = pool_base(count, tables_of);
    merge(count);
    if (__any_sync(0xffffffffu, any_empty)) clear_empty(count);
    for (std::int32_t region = 0; region < count; ++region) {
      write(region, values, static_cast<S*>(job.output));
      if constexpr (with_argmax) write(region, cells, job.argmax);
    }
  }
};

// Lists in shared memory how bins are found, merged and written; a barrier must follow.
__device__ __forceinline__ void list_bins(const RegionJob& job, BaseEntry* base,
                                          DerivedEntry* derived) {
  const PyramidView pyramid = job.pyramid.view();
  for (BaseLevels levels(pyramid); levels.next();) {
    const Level& level = levels.level();
    const auto first_span = static_cast<std::int32_t>(levels.first_span());
    for (std::int32_t bin = threadIdx.x; bin < level.bins; bin += blockDim.x) {
      base[levels.first_base_bin() + bin] = {
          first_span + static_cast<std::int32_t>(level.row_span_of(bin)),
          first_span + static_cast<std::int32_t>(level.row_spans() + level.col_span_of(bin)),
          static_cast<std::int32_t>(level.first_bin) + bin};
    }
  }
  std::int32_t before = 0;
  for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
    const Level& level = pyramid.levels[pyramid.order[i]];
    if (level.is_base()) continue;
    const Level& source = pyramid.levels[level.source];
    for (std::int32_t bin = threadIdx.x; bin < level.bins; bin += blockDim.x) {
      const Rectangle parts = pyramid.merged_bins(level, bin);
      derived[before + bin] = {static_cast<std::int32_t>(level.first_bin) + bin,
                               static_cast<std::int32_t>(source.first_bin) +
                                   parts.top * source.col_divisions + parts.left,
                               parts.bottom - parts.top, parts.right - parts.left,
                               source.col_divisions};
    }
    before += static_cast<std::int32_t>(level.bins);
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
  auto* const base = reinterpret_cast<BaseEntry*>(shared + parts.base);
  auto* const derived = reinterpret_cast<DerivedEntry*>(shared + parts.derived);
  auto* const bin_runs = reinterpret_cast<BinRun*>(shared + parts.bin_runs);
  auto* const runs_to = reinterpret_cast<std::int32_t*>(shared + parts.runs_to);
  const std::int32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  unsigned char* const own = shared + parts.warps + warp * parts.of_warp;
  const std::int32_t slab = kV << policy.pack_bits;
  const bool aligned = job.channels % kV == 0;
  const PyramidView pyramid = job.pyramid.view();
  const auto bins = static_cast<std::int32_t>(pyramid.bins);
  list_bins(job, base, derived);

  const std::int64_t slabs = divide_up(job.channels, slab);
  const std::int64_t groups = staged ? job.num_maps * (job.batch > 0 ? job.batch : 1) : 1;
  for (std::int64_t number = blockIdx.x; number < groups * slabs * policy.segments;
       number += gridDim.x) {
    const RegionUnit unit(job, policy, slab, number);
    const auto used = static_cast<std::int32_t>(smaller_of(job.channels - unit.channel, slab));
    const std::int32_t m = job.batch > 0 ? static_cast<std::int32_t>(unit.group / job.batch) : 0;
    const FeatureMap& map = job.maps[m];
    if (staged && job.batch > 0) {
      copy_cells<S>(map, {unit.group % job.batch, unit.channel, policy.packs()},
                    {0, static_cast<std::int32_t>(map.height)},
                    {0, static_cast<std::int32_t>(map.width)}, cells);
    }
    for (std::int32_t i = threadIdx.x; i < bins; i += blockDim.x) {
      std::int32_t l = 0;
      while (i >= pyramid.levels[l].first_bin + pyramid.levels[l].bins) ++l;
      const auto first = static_cast<std::int32_t>(pyramid.levels[l].first_bin);
      bin_runs[i] = {first * used + i - first, static_cast<std::int32_t>(pyramid.levels[l].bins)};
    }
    // A pack of a run is of one level, whose runs of a slab are one run of the row.
    for (std::int32_t i = threadIdx.x; aligned && i < bins * used / kV; i += blockDim.x) {
      std::int32_t l = 0;
      while (i * kV >= (pyramid.levels[l].first_bin + pyramid.levels[l].bins) * used) ++l;
      runs_to[i] = static_cast<std::int32_t>(job.output_index(l, 0, unit.channel, 0) + i * kV -
                                             pyramid.levels[l].first_bin * used);
    }
    __syncthreads();
    if constexpr (staged && !with_argmax) {
      const auto width = static_cast<std::int32_t>(map.width);
      const std::int32_t count = static_cast<std::int32_t>(map.cells()) << policy.pack_bits;
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
                                          reinterpret_cast<std::int32_t*>(own + parts.bins_cells),
                                          own + parts.runs,
                                          reinterpret_cast<RegionRow*>(own + parts.rows),
                                          own + parts.empty,
                                          base,
                                          derived,
                                          bin_runs,
                                          runs_to,
                                          bins,
                                          lane,
                                          unit.channel,
                                          used,
                                          aligned};
    const Tables<S> staged_tables{cells, squares, slab, static_cast<std::int32_t>(map.width)};
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
        for (; chosen != 0 && count < policy.together; ++count, chosen &= chosen - 1) {
          if (lane == __ffs(static_cast<int>(chosen)) - 1) {
            pool.rows[count] = {static_cast<std::int32_t>(row), group};
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
