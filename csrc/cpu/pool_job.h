// The work of one pooling call, cut into units, and the functions that do a unit, of which there is
// one set per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/params.h"

namespace spp_ext::cpu {

// Every bin of the derived levels, after the bins that it is merged from.
struct Merge {
  std::int64_t bin;
  const std::int64_t* parts;  // [num_parts], the bins of its source
  std::int64_t num_parts;
};
struct Merges {
  const Merge* begin;
  const Merge* end;
};

struct MapJob {
  MapPoolParams params;
  Merges merges;
  const Span* spans;  // [pyramid.spans], of the whole map
};

struct RegionJob {
  RegionPoolParams params;
  Merges merges;
  const Span* spans;          // [K, pyramid.spans]
  const std::int64_t* rows;   // regions grouped by map and image
  std::int64_t slab_vectors;  // vectors of lanes in the largest unit's slab and squares
  bool wide;                  // whether any unit has region_vectors vectors of channels
  bool streams;               // write the output with non-temporal stores
};

struct Stride1Job {
  Stride1Params params;
  bool wide;     // a unit has kStride1Vectors vectors of channels, else one
  bool streams;  // write the output with non-temporal stores
};

// Neighbouring planes of a contiguous batch, at most one per lane. They may belong to different
// images.
struct PlaneUnit {
  std::int64_t first_plane;  // of N * C
  std::int64_t planes;
};

// Neighbouring channels of one image.
struct ChannelUnit {
  std::int64_t image;
  std::int64_t first_channel;
  std::int64_t channels;
};

// Neighbouring channels of one image of one map, and some of its regions: rows[first_row] up to
// rows[end_row].
struct RegionUnit {
  std::int64_t map;
  ChannelUnit planes;
  std::int64_t first_row;
  std::int64_t end_row;
  Span map_rows;       // of the map, that the base bins of these regions read
  std::int32_t sides;  // of the largest squares to pool from; 1 is a cell
};

// Does one unit of a job. Units differ in nothing but the part of the output they write, so they may
// run in any order on any thread. `scratch` is aligned to a cache line and of the size that
// scratch_bytes asks for.
template <class Job, class Unit>
struct UnitKernel {
  std::size_t (*scratch_bytes)(const Job&);
  void (*pool)(const Job&, const Unit&, void* scratch);
};
using Stride1Kernel = UnitKernel<Stride1Job, ChannelUnit>;

// The kernels of one instruction set.
struct LaneKernels {
  const char* name;
  std::int64_t vector_bytes;
  UnitKernel<MapJob, PlaneUnit> planes;      // contiguous maps
  UnitKernel<MapJob, ChannelUnit> channels;  // channels_last maps
  UnitKernel<RegionJob, RegionUnit> regions;
  const Stride1Kernel& stride1;
};

namespace baseline {
extern const LaneKernels kLaneKernels;
extern const Stride1Kernel kStride1Kernel;
}  // namespace baseline
namespace avx2 {
extern const LaneKernels kLaneKernels;
extern const Stride1Kernel kStride1Kernel;
}  // namespace avx2
namespace avx512 {
extern const LaneKernels kLaneKernels;
extern const Stride1Kernel kStride1Kernel;
}  // namespace avx512

}  // namespace spp_ext::cpu
