// gather and scatter: what every derivative is made of. One launch for all maps.
//
// A block works on a unit: some neighbouring planes of one image of one map, and in scatter a range of
// their cells. Its warps each have one of the planes and one part of the image's rows:
//
//   warp w: plane w / parts, and of the image's rows every one whose number, modulo `parts`, is w % parts
//
// A warp lists its rows, at most kListedRows at a time (an image of a whole map is one row; regions are
// looked through 32 at a time), and walks through their bins as one stream, a lane a bin:
//
//   lane      0 1 2 ... ... 31 | 0 1 2 ...                 |
//   row 0: [. . . B bins . . . . .] row 1: [. . . B bins . . . . .] row 2: ...
//   batches of 32              |                           |
//
// Where neighbouring planes are neighbours in memory (rows of a channels_last map), several lanes take
// one bin, each in a plane of its own.
//
// scatter: each warp has sums of its own in shared memory, T[cells of the range] for each of its planes.
// Where several lanes of a batch name one cell, they are added pairwise first, each to the nearest
// lane before it, then to that one's, ...: the last of them has the sum and alone adds it. Parts are
// added in order at the end. So every cell's sum has one order, whatever the timing. Each cell of the
// result is written once, zeros included, 16 bytes at a time.
//
// gather: the same walk without sums. Rows without a group are a map of no cells, where all is 0.
#pragma once

#include <cstdint>

#include "core/integers.h"
#include "core/row.h"
#include "cuda/device.h"
#include "cuda/kernels.h"
#include "cuda/region_groups.h"
#include "cuda/tuning.h"
#include "cuda/words.h"

namespace spp_ext::cuda {

constexpr int kMaxLinearMaps = 8;  // of a launch

// A map of a launch, and how it is divided into units.
struct LinearMap {
  FeatureMap map;
  void* result;               // scatter: as map
  std::int32_t first_group;   // of its first image
  std::int32_t first_unit;    // units of the maps before it
  std::int32_t slabs;         // units of an image and a range, or part
  std::int32_t ranges;        // scatter: of cells; gather: parts of the rows, among blocks
  std::int32_t cells;         // scatter: in a range
  std::int32_t plane_stride;  // scatter: between a warp's planes of sums
  std::int32_t warp_planes;   // planes of a warp, a power of two; lanes take turns
  std::int32_t planes;        // warps with planes of their own, in a block
  std::int32_t parts;         // warps that share their planes, in a block
};

// How the elements of a [R, C * B] array belong to the planes of maps.
struct LinearJob {
  const std::int32_t* argmax;  // [R, C * B]
  RegionGroups groups;
  RowOrder order;
  LinearMap maps[kMaxLinearMaps];
  std::int32_t num_maps;
  std::int32_t units;
  std::int32_t table_bins;     // B if places of bins are looked up in a table, else 0
  std::uint32_t bin_fraction;  // 2^bin_shift / table_bins, rounded up
  std::int32_t bin_shift;
  std::uint32_t minus_bins;  // -table_bins, modulo 2^32
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
};

// Where a bin is in a row: at `first + channel * step`.
struct alignas(8) BinPlace {
  std::uint32_t first;
  std::uint32_t step;
};

// A unit, and this thread's warp, lane and plane in it.
struct Unit {
  const LinearMap& of;
  std::int32_t image;
  std::int32_t range;
  std::int32_t first_channel;
  std::int32_t lane;
  std::int32_t plane;    // of the warp's planes
  std::int32_t channel;  // of the map; there may be none such

  __device__ __forceinline__ Unit(const LinearMap& map, std::int32_t number) : of(map) {
    const auto unit = static_cast<std::uint32_t>(number - map.first_unit);
    const std::uint32_t outer = unit / static_cast<std::uint32_t>(map.slabs);
    image = static_cast<std::int32_t>(outer / static_cast<std::uint32_t>(map.ranges));
    range = static_cast<std::int32_t>(outer % static_cast<std::uint32_t>(map.ranges));
    first_channel =
        static_cast<std::int32_t>(unit - outer * map.slabs) * map.planes * map.warp_planes;
    lane = static_cast<std::int32_t>(threadIdx.x % 32);
    plane = lane & (map.warp_planes - 1);
    channel = first_channel + warp() / map.parts * map.warp_planes + plane;
  }
  __device__ __forceinline__ std::int32_t warp() const {
    return static_cast<std::int32_t>(threadIdx.x / 32);
  }
};

__device__ __forceinline__ const LinearMap& map_of_unit(const LinearJob& job, std::int32_t unit) {
  std::int32_t m = 0;
  while (m + 1 < job.num_maps && unit >= job.maps[m + 1].first_unit) ++m;
  return job.maps[m];
}

// The table of all bins' places, if there is one. The block's threads must meet before they read it.
__device__ __forceinline__ void fill_table(const LinearJob& job, BinPlace* table) {
  for (auto bin = static_cast<std::int32_t>(threadIdx.x); bin < job.table_bins;
       bin += static_cast<std::int32_t>(blockDim.x)) {
    std::int32_t i = 0;
    RowLevel level = job.level(0);
    while (bin >= level.first_bin + level.bins) level = job.level(++i);
    const std::int32_t in_level = bin - level.first_bin;
    const std::int64_t first = job.order.element(level, {i, 0, in_level});
    const std::int64_t second = job.order.element(level, {i, 1, in_level});
    table[bin] = {static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(second - first)};
  }
}

// Lists a warp's rows, a few at a time, in the warp's own shared memory.
class RowLister {
 public:
  // Every `parts`-th row, from row `part` on, of those whose extent meets the cells [first, end).
  __device__ __forceinline__ RowLister(const RegionGroups& groups, const Unit& unit,
                                       std::int32_t part, std::int32_t parts, std::uint32_t first,
                                       std::uint32_t end, std::int32_t* list)
      : groups_(groups),
        group_(unit.of.first_group + unit.image),
        lane_(unit.lane),
        part_(part),
        parts_(parts),
        first_cell_(static_cast<std::int32_t>(first)),
        end_cell_(end),
        list_(list) {}

  // How many rows it has listed now; 0: there are no more. All lanes of the warp must call.
  __device__ __forceinline__ std::int32_t next() {
    if (groups_.group == nullptr) return next_image();
    const std::uint32_t below = (1u << lane_) - 1u;
    std::int32_t listed = 0;
    __syncwarp();  // the rows listed before have been read
    while (region_ < groups_.count) {
      if (region_ % tuning::kGroupChunk == 0) {
        const std::int32_t chunk = region_ / tuning::kGroupChunk;
        if (group_ < groups_.least[chunk] || group_ > groups_.greatest[chunk]) {
          region_ += tuning::kGroupChunk;
          continue;
        }
      }
      const std::int32_t region = region_ + lane_;
      bool own = region < groups_.count && groups_.group[region] == group_;
      if (own && groups_.first_cell != nullptr) {
        own = groups_.first_cell[region] < end_cell_ && groups_.last_cell[region] >= first_cell_;
      }
      unsigned votes = __ballot_sync(0xffffffffu, own);
      const std::int32_t found = __popc(votes);
      if (parts_ > 1) {
        own = own && static_cast<std::uint32_t>(seen_ + __popc(votes & below)) %
                             static_cast<std::uint32_t>(parts_) ==
                         static_cast<std::uint32_t>(part_);
        votes = __ballot_sync(0xffffffffu, own);
      }
      if (listed + __popc(votes) > tuning::kListedRows) break;
      if (own) list_[listed + __popc(votes & below)] = region;
      listed += __popc(votes);
      seen_ += found;
      region_ += 32;
    }
    __syncwarp();
    return listed;
  }

 private:
  __device__ __forceinline__ std::int32_t next_image() {
    if (region_ != 0) return 0;
    region_ = 1;
    if (lane_ == 0) list_[0] = group_;
    __syncwarp();
    return 1;
  }

  const RegionGroups& groups_;
  std::int32_t group_;
  std::int32_t lane_;
  std::int32_t part_;
  std::int32_t parts_;
  std::int32_t first_cell_;
  std::uint32_t end_cell_;
  std::int32_t* list_;
  std::int32_t region_ = 0;  // the next to look at
  std::int32_t seen_ = 0;    // rows of the group before it
};

// The elements of listed rows, found through the table of places.
struct TabledElements {
  const LinearJob& job;
  const BinPlace* table;
  const std::int32_t* list;
  std::uint32_t channel;

  // Element number i of the stream, where it is in the array.
  __device__ __forceinline__ std::int64_t at(std::uint32_t i) const {
    const std::uint32_t row = i * job.bin_fraction >> job.bin_shift;
    const BinPlace place = table[i + row * job.minus_bins];
    const auto row_size = static_cast<std::uint32_t>(job.order.size());
    return static_cast<std::int64_t>(
        multiply_add(list[row], row_size, place.first + channel * place.step));
  }
};

// The elements of one row with many bins. Numbers i must not descend.
class LongRowElements {
 public:
  __device__ __forceinline__ LongRowElements(const LinearJob& job, std::int32_t row,
                                             std::int32_t channel)
      : job_(job), row_begin_(row * job.order.size()), channel_(channel) {
    enter(0);
  }
  __device__ __forceinline__ std::int64_t at(std::uint32_t i) {
    while (i >= level_end_) enter(level_ + 1);
    return level_begin_ + std::int64_t{bin_step_} * static_cast<std::int32_t>(i - first_bin_);
  }

 private:
  __device__ __forceinline__ void enter(std::int32_t i) {
    const RowLevel level = job_.level(i);
    level_ = i;
    first_bin_ = static_cast<std::uint32_t>(level.first_bin);
    level_end_ = first_bin_ + static_cast<std::uint32_t>(level.bins);
    const std::int64_t first = job_.order.element(level, {i, channel_, 0});
    level_begin_ = row_begin_ + first;
    bin_step_ = static_cast<std::int32_t>(job_.order.element(level, {i, channel_, 1}) - first);
  }

  const LinearJob& job_;
  std::int64_t row_begin_;
  std::int32_t channel_;
  std::int32_t level_;
  std::uint32_t first_bin_;
  std::uint32_t level_end_;
  std::int64_t level_begin_;
  std::int32_t bin_step_;
};

// Batches of a stream of `count` elements a plane, at least one.
template <class Elements>
struct Batches {
  Elements elements;
  std::uint32_t count;
  std::uint32_t next;  // this lane's in the next batch
  std::uint32_t step;
  bool real;  // whether this lane has a plane

  // This lane's element of the next batch, where it is in the array; and whether there is one. Beyond
  // the end it is the last one again: reading that takes no branch.
  __device__ __forceinline__ std::int64_t advance(bool* exists) {
    *exists = next < count;
    const std::int64_t at = elements.at(*exists ? next : count - 1);
    next += step;
    return at;
  }
};

// Calls f(batches) for the warp's rows, a few at a time.
template <class F>
__device__ __forceinline__ void for_each_run(const LinearJob& job, const Unit& unit,
                                             RowLister& rows, const std::int32_t* list,
                                             const BinPlace* table, const F& f) {
  const auto step = static_cast<std::uint32_t>(32 / unit.of.warp_planes);
  const auto first = static_cast<std::uint32_t>(unit.lane / unit.of.warp_planes);
  const auto bins = static_cast<std::uint32_t>(job.order.bins);
  if (bins == 0) return;
  // A lane without a plane reads another's elements.
  const bool real = unit.channel < unit.of.map.channels;
  const std::int32_t channel = real ? unit.channel : unit.channel - unit.plane;
  for (std::int32_t listed = rows.next(); listed > 0; listed = rows.next()) {
    if (job.table_bins > 0) {
      const std::uint32_t count = static_cast<std::uint32_t>(listed) * bins;
      const TabledElements elements{job, table, list, static_cast<std::uint32_t>(channel)};
      f(Batches<TabledElements>{elements, count, first, step, real});
    } else {
      for (std::int32_t i = 0; i < listed; ++i) {
        const LongRowElements elements(job, list[i], channel);
        f(Batches<LongRowElements>{elements, bins, first, step, real});
      }
    }
  }
}

// ---- gather ----

// Shared memory: BinPlace table[table_bins], then int32 lists[warps][kListedRows].
template <class S>
__global__ void __launch_bounds__(tuning::kLinearWarps * 32, tuning::kLinearMinBlocks)
    gather(const __grid_constant__ GatherJob job) {
  const LinearJob& linear = job.linear;
  auto* const table = reinterpret_cast<BinPlace*>(dynamic_shared());
  auto* const lists = reinterpret_cast<std::int32_t*>(table + linear.table_bins);
  fill_table(linear, table);
  __syncthreads();
  for (auto i = static_cast<std::int64_t>(blockIdx.x); i < linear.units; i += gridDim.x) {
    const auto number = static_cast<std::int32_t>(i);
    const Unit unit(map_of_unit(linear, number), number);
    if (unit.warp() >= unit.of.planes || unit.channel - unit.plane >= unit.of.map.channels)
      continue;
    const FeatureMap& map = unit.of.map;
    // A lane without a plane has no cells.
    const auto cells = static_cast<std::uint32_t>(unit.channel < map.channels ? map.cells() : 0);
    const S* const plane = static_cast<const S*>(map.data) +
                           unit.image * map.channels * map.cells() +
                           unit.channel * map.plane_stride();
    const auto cell_stride = static_cast<std::uint32_t>(map.cell_stride());
    std::int32_t* const list = lists + unit.warp() * tuning::kListedRows;
    RowLister rows(linear.groups, unit, unit.range, unit.of.ranges, 0, 0xffffffffu, list);
    for_each_run(linear, unit, rows, list, table, [&](auto batches) {
      const std::uint32_t together = tuning::kTogether * batches.step;
      for (std::uint32_t done = 0; done < batches.count; done += together) {
        std::int64_t at[tuning::kTogether];
        std::uint32_t cell[tuning::kTogether];
        S value[tuning::kTogether];
#pragma unroll
        for (int k = 0; k < tuning::kTogether; ++k) {
          bool exists;
          at[k] = batches.advance(&exists);
          cell[k] = static_cast<std::uint32_t>(linear.argmax[at[k]]);
          if (!exists || !batches.real) at[k] = -1;
        }
#pragma unroll
        for (int k = 0; k < tuning::kTogether; ++k) {
          value[k] = from_compute<S>(0);
          if (cell[k] < cells) value[k] = plane[std::uint64_t{cell[k]} * cell_stride];
        }
#pragma unroll
        for (int k = 0; k < tuning::kTogether; ++k) {
          if (at[k] >= 0) static_cast<S*>(job.output)[at[k]] = value[k];
        }
      }
    });
  }
}

// ---- scatter ----

// Some batches of 32 elements, a lane's of each, on their way from memory.
template <class S>
struct Addends {
  std::int32_t cell[tuning::kTogether];
  S value[tuning::kTogether];
  std::uint32_t
      exist;  // bit k: whether there is an element k. Nothing that is loaded is used before it is added.
};

// A warp's sums. Those of a lane's plane begin at `first`, and are of the cells [first_cell, first_cell +
// cells).
template <class T>
struct WarpSums {
  T* sums;
  std::int32_t first;
  std::int32_t first_cell;
  std::uint32_t cells;
  std::int32_t lane;
};

// Batch after batch; in a batch pairwise, as said above.
template <class S, class T>
__device__ __forceinline__ void add(const WarpSums<T>& to, const Addends<S>& addends) {
  constexpr int kBatches = tuning::kTogether;
  const std::uint32_t below = (1u << to.lane) - 1u;
  const std::uint32_t above = ~below - (1u << to.lane);
  const auto none = static_cast<std::int32_t>(0x80000000u | to.lane);
  std::int32_t
      place[kBatches];  // of its cell's sum; below 0: nothing to add, each lane has its own
  std::int32_t
      before[kBatches];  // the nearest lane with that cell whose value it lacks; below 0: none
  bool last[kBatches];   // of the lanes with its cell
  T sum[kBatches];       // of the lanes from `before` on to this one
  int open = -1;         // below 0: no lane of any batch lacks anything
#pragma unroll
  for (int k = 0; k < kBatches; ++k) {
    // One comparison: a cell before the first, or below 0, is beyond all as an unsigned number.
    const std::int32_t cell = addends.cell[k] - to.first_cell;
    const bool exists = (addends.exist >> k) % 2 != 0;
    place[k] = exists && static_cast<std::uint32_t>(cell) < to.cells ? to.first + cell : none;
    const unsigned peers = __match_any_sync(0xffffffffu, place[k]);
    before[k] = (peers & below) != 0 ? 31 - __clz(static_cast<int>(peers & below)) : none;
    last[k] = (peers & above) == 0;
    sum[k] = widen(addends.value[k]);
    open &= before[k];
  }
  bool more = __any_sync(0xffffffffu, open >= 0);
  while (more) {
    open = -1;
#pragma unroll
    for (int k = 0; k < kBatches; ++k) {
      const bool lacks = before[k] >= 0;
      const T earlier = __shfl_sync(0xffffffffu, sum[k], before[k]);
      before[k] = __shfl_sync(0xffffffffu, before[k], before[k]);
      if (lacks) sum[k] = earlier + sum[k];
      open &= before[k];
    }
    more = __any_sync(0xffffffffu, open >= 0);
  }
#pragma unroll
  for (int k = 0; k < kBatches; ++k) {
    if (last[k] && place[k] >= 0) to.sums[place[k]] += sum[k];
    __syncwarp();  // other lanes read this sum next
  }
}

// The range of cells that a unit adds up.
struct CellRange {
  std::int32_t first;
  std::int32_t cells;

  __device__ __forceinline__ explicit CellRange(const Unit& unit)
      : first(unit.range * unit.of.cells),
        cells(static_cast<std::int32_t>(smaller_of(unit.of.cells, unit.of.map.cells() - first))) {}
};

// Where a range of cells of a channel's plane is in the result.
template <class S>
__device__ __forceinline__ S* result_of(const Unit& unit, const CellRange& range,
                                        std::int32_t channel) {
  const FeatureMap& map = unit.of.map;
  return static_cast<S*>(unit.of.result) + unit.image * map.channels * map.cells() +
         channel * map.plane_stride() + range.first * map.cell_stride();
}

// How many numbers before `address` its pack of 16 bytes begins. Sums of a contiguous result begin as
// far from a pack's begin, so that packs of sums are packs of the result.
template <class S>
__device__ __forceinline__ std::int32_t place_in_pack(const S* address) {
  return static_cast<std::int32_t>(reinterpret_cast<std::uintptr_t>(address) % 16 / sizeof(S));
}
template <class S>
__device__ __forceinline__ std::int32_t first_sum(const Unit& unit, const CellRange& range,
                                                  std::int32_t channel) {
  if (unit.of.map.layout != Layout::kContiguous) return 0;
  return place_in_pack(result_of<S>(unit, range, channel));
}

// Adds the elements of the warp's rows. While some batches are added the next ones are on their way.
template <class S, class T>
__device__ __forceinline__ void add_rows(const ScatterJob& job, const Unit& unit,
                                         const CellRange& range, const BinPlace* table, T* sums,
                                         std::int32_t* list) {
  const LinearJob& linear = job.linear;
  const auto* const grad = static_cast<const S*>(job.grad_output);
  const auto cells = static_cast<std::uint32_t>(range.cells);
  const auto first = static_cast<std::uint32_t>(range.first);
  const bool real = unit.channel < unit.of.map.channels;  // A lane without a plane has no cells.
  const WarpSums<T> to{sums,
                       (unit.warp() * unit.of.warp_planes + unit.plane) * unit.of.plane_stride +
                           first_sum<S>(unit, range, unit.channel),
                       range.first, real ? cells : 0, unit.lane};
  RowLister rows(linear.groups, unit, unit.warp() % unit.of.parts, unit.of.parts, first,
                 first + cells, list);
  for_each_run(linear, unit, rows, list, table, [&](auto batches) {
    const std::uint32_t together = tuning::kTogether * batches.step;
    const auto fetch = [&](Addends<S>& addends) {
      addends.exist = 0;
#pragma unroll
      for (int k = 0; k < tuning::kTogether; ++k) {
        bool exists;
        const std::int64_t at = batches.advance(&exists);
        addends.cell[k] = linear.argmax[at];
        addends.value[k] = grad[at];
        addends.exist |= static_cast<std::uint32_t>(exists) << k;
      }
    };
    std::uint32_t done = 0;
    const auto step = [&](const Addends<S>& now, Addends<S>& next) {
      done += together;
      const bool more = done < batches.count;
      if (more) fetch(next);
      add(to, now);
      return more;
    };
    Addends<S> odd, even;
    fetch(even);
    while (step(even, odd) && step(odd, even)) {  // by turns, so that nothing is copied
    }
  });
}

// The sums of `count` neighbouring cells, or of one cell in neighbouring planes: `step` apart, in
// each of the parts.
template <class T, int count>
__device__ __forceinline__ void add_parts(const T* from, std::int32_t step, std::int32_t parts,
                                          std::int32_t part_stride, T (&result)[count]) {
#pragma unroll
  for (int k = 0; k < count; ++k) result[k] = from[k * step];
  for (std::int32_t part = 1; part < parts; ++part) {
    from += part_stride;
#pragma unroll
    for (int k = 0; k < count; ++k) result[k] += from[k * step];
  }
}

// As above, neighbouring cells by the pack.
template <class T, int count>
__device__ __forceinline__ void add_packed_parts(const T* from, std::int32_t parts,
                                                 std::int32_t part_stride, T (&result)[count]) {
#pragma unroll
  for (int k = 0; k < count; ++k) result[k] = 0;
  for (std::int32_t part = 0; part < parts; ++part, from += part_stride) {
#pragma unroll
    for (int k = 0; k < count; k += kPerPack<T>) {
      const Pack<T> pack = load_pack<T>(from + k);
#pragma unroll
      for (int j = 0; j < kPerPack<T>; ++j) result[k + j] += pack[j];
    }
  }
}

// Writes a plane of a contiguous result, by the threads `thread`, thread + threads, ...
template <class S, class T>
__device__ __forceinline__ void write_plane(const Unit& unit, const CellRange& range,
                                            std::int32_t channel, const T* from,
                                            std::int32_t part_stride, std::int32_t thread,
                                            std::int32_t threads) {
  constexpr int kPack = kPerPack<S>;
  const std::int32_t first = first_sum<S>(unit, range, channel);
  const std::int32_t end = first + range.cells;
  S* const to = result_of<S>(unit, range, channel) - first;
  for (std::int32_t i = thread * kPack; i < end; i += threads * kPack) {
    T values[kPack];
    add_packed_parts(from + i, unit.of.parts, part_stride, values);
    if (i >= first && i + kPack <= end) {
      write_pack(to + i, narrow_pack<S>(values));
    } else {
#pragma unroll
      for (int k = 0; k < kPack; ++k) {
        if (i + k >= first && i + k < end) to[i + k] = narrow<S>(values[k]);
      }
    }
  }
}

// Writes what a unit has added up. Neighbouring threads write neighbouring memory: cells of a plane,
// or planes of a cell.
template <class S, class T>
__device__ __forceinline__ void write_sums(const Unit& unit, const CellRange& range,
                                           const T* sums) {
  constexpr int kPack = kPerPack<S>;
  const LinearMap& of = unit.of;
  const std::int32_t part_stride = of.warp_planes * of.plane_stride;
  const auto planes = static_cast<std::int32_t>(
      smaller_of(of.planes * of.warp_planes, of.map.channels - unit.first_channel));
  const auto sums_of = [&](std::int32_t plane) {
    return sums + plane / of.warp_planes * of.parts * part_stride +
           plane % of.warp_planes * of.plane_stride;
  };
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  const auto threads = static_cast<std::int32_t>(blockDim.x);
  if (of.map.layout == Layout::kContiguous) {
    // Planes in several parts are written by the block, others by a warp each.
    const bool together = of.parts > 1;
    const std::int32_t step = together ? 1 : threads / 32;
    for (std::int32_t plane = together ? 0 : unit.warp(); plane < planes; plane += step) {
      write_plane<S>(unit, range, unit.first_channel + plane, sums_of(plane), part_stride,
                     together ? thread : unit.lane, together ? threads : 32);
    }
    return;
  }
  S* const to = result_of<S>(unit, range, unit.first_channel);
  const auto channels = static_cast<std::int32_t>(of.map.channels);
  const std::int32_t packs = planes / kPack;  // of a cell
  // All planes of the unit are in packs, as many as a power of two, and all are aligned.
  if (planes % kPack == 0 && (packs & (packs - 1)) == 0 && channels % kPack == 0 &&
      of.warp_planes <= kPack && place_in_pack(to) == 0) {
    const std::int32_t first = (thread & (packs - 1)) * kPack;
    const T* const from = sums_of(first);
    const std::int32_t step = of.plane_stride;
    const int shift = __popc(static_cast<unsigned>(packs - 1));
    if (of.parts == 1) {  // the planes of neighbouring warps are as far apart as those of one
      for (std::int32_t cell = thread >> shift; cell < range.cells; cell += threads >> shift) {
        T values[kPack];
        add_parts(from + cell, step, 1, 0, values);
        write_pack(to + std::int64_t{cell} * channels + first, narrow_pack<S>(values));
      }
      return;
    }
  }
  for (std::int32_t plane = 0; plane < planes; ++plane) {
    const T* const from = sums_of(plane);
    for (std::int32_t cell = thread; cell < range.cells; cell += threads) {
      T value[1];
      add_parts(from + cell, 0, of.parts, part_stride, value);
      to[std::int64_t{cell} * channels + plane] = narrow<S>(value[0]);
    }
  }
}

// Shared memory: T sums[warps][warp_planes][plane_stride], most_sums of them at most, then BinPlace
// table[table_bins], then int32 lists[warps][kListedRows].
template <class S>
__global__ void __launch_bounds__(tuning::kLinearWarps * 32, tuning::kLinearMinBlocks)
    scatter(const __grid_constant__ ScatterJob job, std::int32_t most_sums) {
  using T = ComputeType<S>;
  const LinearJob& linear = job.linear;
  T* const sums = reinterpret_cast<T*>(dynamic_shared());
  auto* const table = reinterpret_cast<BinPlace*>(sums + most_sums);
  auto* const lists = reinterpret_cast<std::int32_t*>(table + linear.table_bins);
  fill_table(linear, table);
  for (auto i = static_cast<std::int64_t>(blockIdx.x); i < linear.units; i += gridDim.x) {
    const auto number = static_cast<std::int32_t>(i);
    const Unit unit(map_of_unit(linear, number), number);
    const CellRange range(unit);
    const std::int32_t warps = unit.of.planes * unit.of.parts;
    const std::int32_t warp_sums = unit.of.warp_planes * unit.of.plane_stride;
    for (auto k = static_cast<std::int32_t>(threadIdx.x) * kPerPack<T>; k < warps * warp_sums;
         k += static_cast<std::int32_t>(blockDim.x) * kPerPack<T>) {
      store_pack(sums + k, Pack<T>{});
    }
    __syncthreads();
    // Alike for all lanes of a warp.
    if (unit.warp() < warps && unit.channel - unit.plane < unit.of.map.channels) {
      add_rows<S>(job, unit, range, table, sums, lists + unit.warp() * tuning::kListedRows);
    }
    __syncthreads();
    write_sums<S>(unit, range, sums);
    __syncthreads();  // the next unit clears what was read here
  }
}

}  // namespace spp_ext::cuda
