// The walk of gather and scatter, which every derivative is made of. A launch has up to kMaxLinearMaps maps.
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
#pragma once

#include <cstdint>

#include "core/integers.h"
#include "core/row.h"
#include "cuda/device.h"
#include "cuda/kernels.h"
#include "cuda/region_groups.h"
#include "cuda/tuning.h"

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

}  // namespace spp_ext::cuda
