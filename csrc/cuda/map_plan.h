// The parameters of the kernels that pool whole maps. Every plane is cut alike, so the host computes all
// spans, once a call, and what else follows from the pyramid.
#pragma once

#include <cstdint>

#include "core/geometry.h"
#include "core/host_device.h"
#include "core/pyramid.h"
#include "cuda/job.h"

namespace spp_ext::cuda {

// A launch carries at most so much. What needs more is pooled a level a launch, or without shared memory.
constexpr std::int32_t kMaxMapSpans = 160;
constexpr std::int32_t kMaxMapMerges = 64;

// The numbers of a block are at most so many, so that their quotients come from one multiplication.
constexpr std::int32_t kMaxMapBins = 1 << 15;

// Divides numbers below kMaxMapBins by one number up to kMaxMapBins, which is known on the host.
struct Divisor {
  std::uint32_t multiplier;  // 2^31 / divisor, rounded up

  Divisor() = default;
  explicit Divisor(std::int64_t divisor)
      : multiplier(static_cast<std::uint32_t>(divide_up(std::int64_t{1} << 31, divisor))) {}
  SPP_HOST_DEVICE std::int32_t quotient(std::int32_t a) const {
    return static_cast<std::int32_t>(
        (static_cast<std::uint64_t>(static_cast<std::uint32_t>(a)) * multiplier) >> 31);
  }
};

struct MapLevel {
  std::int64_t output;     // element of a row where the level begins
  std::int32_t first_bin;  // bins in the levels before this one
  std::int32_t bins;
  std::int32_t cols;  // bins of a bin row: a row of a grid, or one listed bin
  Divisor by_bins, by_cols;
  std::int32_t source;  // the level that this one is merged from, -1 for a base level
  // Base levels: bin rows; numbers of their first spans; whether each bin row has columns of its own.
  std::int32_t bin_rows, row_spans, col_spans, listed;
  std::int32_t lane_bits;  // 1 << lane_bits lanes of pool_map_planes work on a bin
  // Derived levels: a grid's bin covers down x across of the source's, a listed bin has a rectangle.
  std::int32_t down, across, first_merge;
};

struct MapJob {
  const void* data;      // [N, C, H, W], in memory [N, H, W, C] when channels_last
  void* output;          // [N, row_size]
  std::int32_t* argmax;  // alike, or null
  std::int64_t row_size;
  std::int32_t batch, channels, height, width;
  std::int32_t num_levels, num_spans, bins;
  MapLevel levels[kMaxLevels];      // in an order in which every level's source comes before it
  Span spans[kMaxMapSpans];         // of base levels
  Rectangle merges[kMaxMapMerges];  // of listed derived bins, in bins of their source
};

// How pool_map_planes shares the work out. Groups of lanes lie along a row of a plane.
struct PlanesPlan {
  std::int32_t slabs;  // of an image: its planes in groups of 1 << plane_bits
  std::int32_t units;  // slabs of all images
  std::int32_t plane_bits;
  std::int32_t group_bits;  // 1 << group_bits lanes in a group
  std::int32_t part_bits;   // 1 << part_bits groups share the rows of a bin row
  std::int32_t together;    // whether the whole block works on a unit, or each warp on its own
  // Shared memory: where the groups' begins, its bytes, and where cells are in them; of units' bins, alike.
  std::int32_t strips_at, group_bytes, group_cells;
  std::int32_t bins_at, unit_bytes, unit_cells;
};

// How pool_map_channels shares the work out. Lanes lie along the channels of a cell.
struct ChannelsPlan {
  std::int32_t chunks;     // of an image: its channels by as many as a block has
  std::int32_t lane_bits;  // 1 << lane_bits lanes, a pack of channels each
  std::int32_t base_bins;  // of all base levels
  std::int32_t bins;       // of these, in a block
  std::int32_t part_bits;  // 1 << part_bits warps share the rows of a bin
  std::int32_t apart;      // whether blocks have only some of the bins, and write only these
  std::int32_t cells_at;   // of shared memory: where cells are
};

}  // namespace spp_ext::cuda
