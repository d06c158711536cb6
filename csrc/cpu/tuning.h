// Numbers that decide how the CPU kernels cut and run their work. Results do not depend on them.
#pragma once

#include <cstdint>

namespace spp_ext::cpu::tuning {

// ---- threads and memory ----

// Waking a thread costs more than this many elements of work.
constexpr std::int64_t kElementsPerThread = 16 * 1024;

// Scratch up to this many bytes lies on the stack, which spares small maps an allocation.
constexpr std::int64_t kStackScratch = 8 * 1024;

// Results from this size on ask for huge pages: smaller ones reuse memory that is already mapped.
constexpr std::int64_t kHugePageResult = 4 * 1024 * 1024;

// The unit in which memory moves, and so the alignment of scratch and the step of a prefetch.
constexpr std::int64_t kCacheLine = 64;

// ---- pooling maps ----

// A channels_last unit has this many vectors of channels: the loop over a bin's cells, whose length
// the processor cannot foresee, then serves all of them.
constexpr std::int64_t kChannelVectors = 4;

// Rows of a contiguous plane that are folded together: the running best is loaded once for all of
// them. fold_few is written for 4.
constexpr std::int32_t kRowsAtOnce = 4;

// ---- pooling regions ----

// A wide unit of regions has this many vectors of channels, for the same reason as kChannelVectors:
// two cache lines, or what the registers hold.
constexpr int region_vectors(std::int64_t vector_bytes) {
  return vector_bytes >= 2 * kCacheLine ? 1 : vector_bytes <= kCacheLine / 2 ? 4 : 2;
}

// Bins are pooled from squares of up to this many cells a side ...
constexpr std::int32_t kSquareSides = 3;
// ... where a unit has this many regions, which pays for making the squares ...
constexpr std::int64_t kSquareRegions = 48;
// ... and they take no more memory than this.
constexpr std::int64_t kSquareBytes = 4 * 1024 * 1024;

// A wide unit's slab of up to this size stays in a core's own cache.
constexpr std::int64_t kSlabBytes = 1024 * 1024;
// From this many regions on, a slab that does not stay there pays all the same ...
constexpr std::int64_t kManyRegions = 256;
// ... up to this size, and no slab is larger: every thread has one. Regions far apart are pooled in bands of
// rows, and a region that is larger alone is pooled without a slab.
constexpr std::int64_t kMostSlabBytes = 16 * kSlabBytes;

// The regions of an image are cut until every thread has this many units, which balances them ...
constexpr std::int64_t kUnitsPerThread = 4;
// ... but no unit has fewer regions than this, since each copies its slab first.
constexpr std::int64_t kLeastRegions = 32;

// Windows are computed for this many regions in one task: fewer are not worth waking a thread.
constexpr std::int64_t kRowsPerTask = 256;

// An output larger than this leaves the caches before it is read, so non-temporal stores write it.
constexpr std::int64_t kCachedBytes = 8 * 1024 * 1024;
// Where a row's runs are put together for those stores: room for an ordinary pyramid, well inside the
// first cache.
constexpr std::int64_t kStageBytes = 8 * 1024;

// ---- pooling with stride 1 ----

// A wide unit of a channels_last map has this many vectors of channels, so that it reads and writes longer
// runs, if it then takes no more than kSlabBytes.
constexpr std::int64_t kStride1Vectors = 4;

// ---- scatter ----

// The sums of a unit's planes stay in a core's own cache up to this size.
constexpr std::int64_t kSumBytes = 256 * 1024;
// More planes than this make a row's runs of bins no longer in any way that counts.
constexpr std::int64_t kPlanes = 16;
// A channels_last cell's run of planes gains up to here.
constexpr std::int64_t kChannelsLastPlanes = 64;
// Above this size, scratch costs more than adding to a channels_last map in place.
constexpr std::int64_t kMostScratch = 16 * 1024 * 1024;
// Elements that one task clears of a map: enough that a task costs little beside it.
constexpr std::int64_t kClearedPerTask = 256 * 1024;

}  // namespace spp_ext::cpu::tuning
