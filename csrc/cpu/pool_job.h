// The work of one pooling call, cut into units, and the table of functions that do a unit, one per
// instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/params.h"

namespace spp_ext::cpu {

struct MapJob {
  MapPoolParams params;
  const Span* spans;  // [pyramid.spans], of the whole map
};

struct RegionJob {
  RegionPoolParams params;
  const Span* spans;           // [K, pyramid.spans]
  const std::int64_t* rows;    // [K], regions grouped by image
  std::int64_t most_map_rows;  // of any unit
  std::int64_t vectors;        // of channels in a full unit: 1 or kRegionVectors
  bool streams;                // the output past the caches
};

// Neighbouring planes of a contiguous batch, at most one per lane. They may belong to different
// images.
struct PlaneUnit {
  std::int64_t first_plane;  // of N * C
  std::int64_t planes;
};

// Neighbouring channels of one channels_last image.
struct ChannelUnit {
  std::int64_t image;
  std::int64_t first_channel;
  std::int64_t channels;
};

// Neighbouring channels of one image, and some of its regions: rows[first_row] up to rows[end_row].
struct RegionUnit {
  ChannelUnit planes;
  std::int64_t first_row;
  std::int64_t end_row;
  Span map_rows;  // of the map, that the base bins of these regions read
};

// Units differ in nothing but the part of the output they write, so they may run in any order on
// any thread. `scratch` is 64-byte aligned memory of the size that the matching function asks for.
struct PoolKernels {
  const char* name;
  std::int64_t vector_bytes;
  std::size_t (*plane_scratch)(const MapJob&);
  void (*pool_planes)(const MapJob&, const PlaneUnit&, void* scratch);
  std::size_t (*channel_scratch)(const MapJob&);
  void (*pool_channels)(const MapJob&, const ChannelUnit&, void* scratch);
  std::size_t (*region_scratch)(const RegionJob&);
  void (*pool_regions)(const RegionJob&, const RegionUnit&, void* scratch);
};

// The same for stride-1 pools of several sizes; a unit is at most one vector of channels.
struct Stride1Kernels {
  std::size_t (*scratch)(const Stride1Params&);
  void (*pool)(const Stride1Params&, const ChannelUnit&, void* scratch);
};

// How many vectors of lanes a full ChannelUnit of a map holds, and a full RegionUnit: the loops over
// a bin's cells, whose lengths the processor cannot foresee, then serve all of them.
constexpr std::int64_t kChannelVectors = 4;
constexpr std::int64_t kRegionVectors = 4;

namespace baseline {
extern const PoolKernels kPoolKernels;
extern const Stride1Kernels kStride1Kernels;
}  // namespace baseline
namespace avx2 {
extern const PoolKernels kPoolKernels;
extern const Stride1Kernels kStride1Kernels;
}  // namespace avx2
namespace avx512 {
extern const PoolKernels kPoolKernels;
extern const Stride1Kernels kStride1Kernels;
}  // namespace avx512

}  // namespace spp_ext::cpu
