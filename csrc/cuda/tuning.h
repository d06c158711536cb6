// Numbers that decide how the CUDA kernels are launched. Results do not depend on them, except that
// the order in which scatter adds follows from its numbers and those it shares with gather.
#pragma once

#include <cstdint>

namespace spp_ext::cuda::tuning {

// Shared memory that a block may use on every architecture without asking.
constexpr std::int64_t kSharedBytes = 48 * 1024;

// Blocks of most kernels whose registers must fit on a multiprocessor together, which gives each thread
// 64. Without this number the compiler aims at fewer and spills.
constexpr int kMinBlocks = 4;

// pool_stride1: the most warps of a block, cells that a widening looks away, and shared memory of a block
// that needs neighbouring planes (two such fit on a large multiprocessor). Tiles become lower while
// strips take more than kStride1StripBytes or warps are fewer than kStride1WarpsPerSm, down to kStride1Rows.
constexpr std::int64_t kStride1Warps = 8;
constexpr std::int64_t kStride1Reach = 8;
constexpr std::int64_t kStride1BlockBytes = 110 * 1024;
constexpr std::int64_t kStride1StripBytes = 15 * 1024;
constexpr std::int64_t kStride1WarpsPerSm = 8;
constexpr std::int64_t kStride1Rows = 12;

// Kernels with one thread an element: pool_bins and pool_stride1_cells.
constexpr int kElementThreads = 256;

// gather and scatter: the most warps in a block, batches of 32 elements that a warp has in hand together,
// rows that it lists at a time, and the most bins of a row that are looked up in a table.
constexpr int kLinearWarps = 8;
constexpr int kTogether = 4;
constexpr int kListedRows = 32;
constexpr std::int64_t kTableBins = 512;

// scatter: shared memory of a block, for its sums above all. Every supported device has as much, and
// the plan, of which the order of additions is a part, is made from it alone: so all devices give the
// same bits. Two such blocks fill a multiprocessor with 100 KB, four one with 228 KB.
constexpr std::int64_t kScatterBytes = 49 * 1024;
// Sums of whole planes in one warp may be so large that a block of one warp is worth it.
constexpr std::int64_t kScatterWarpBytes = 26 * 1024;
// Planes in a block where each is added up in ranges of its cells: of many rows, each range of which
// looks through most of them; and of one row, whose few elements cost little beside the cells.
constexpr int kPlanesInRanges = 2;
constexpr int kSparsePlanes = 4;
constexpr int kLinearMinBlocks = 2;  // as kMinBlocks: 128 registers a thread

// gather: warps that a multiprocessor should have.
constexpr std::int64_t kGatherWarpsPerSm = 32;

// region_groups: regions of a block, one a thread, and the threads that look through a row's argmax.
constexpr int kGroupChunk = 1024;
constexpr int kExtentThreads = 256;

// pool_regions: most threads of a block; the warps that should fit beside the tables, and those that must;
// the most packs of 16 bytes in a slab of channels; the most bins of a pyramid.
constexpr int kRegionThreads = 512;
constexpr int kRegionGoodWarps = 8;
constexpr int kRegionMinWarps = 4;
constexpr std::int32_t kRegionMaxPacks = 4;
constexpr std::int64_t kRegionMaxBins = 512;
// Maps of more than so many times the bytes of the output are not worth copying to shared memory.
constexpr std::int64_t kRegionMapBytes = 8;

// build_tables: columns, rows and packs of channels of a warp; blocks whose registers must fit on a
// multiprocessor together; and how many times the bytes of the output tables in global memory may take.
constexpr std::int64_t kTableCols = 31;
constexpr std::int64_t kTableRows = 16;
constexpr int kTablePacks = 2;
constexpr int kTableBlocks = 3;
constexpr std::int64_t kTableBytesOfOutput = 16;

// pool_map_planes: threads of a block, and blocks whose registers must fit on a multiprocessor together;
// warps that a multiprocessor should have; from how many planes on warps have planes of their own, if a
// plane and its bins take at most so many bytes; warps that must be left when each has several planes, of
// half as many bytes; columns of a bin before a second lane shares it.
constexpr int kMapThreads = 256;
constexpr int kMapBlocks = 4;
constexpr std::int64_t kMapWarpsPerSm = 32;
constexpr std::int64_t kMapUnitsPerSm = 16;
constexpr std::int64_t kMapFewWarpsPerSm = 8;
constexpr std::int64_t kMapUnitBytes = 32 * 1024;
constexpr std::int64_t kMapUnitBins = 2 * 1024;
constexpr std::int32_t kColumnsPerLane = 4;

// pool_map_channels: threads of a block, and blocks as above; lanes along the channels of a cell, as bits;
// blocks that fill a multiprocessor; the most bytes of the map that a block with all bins reads; warps that
// share a bin otherwise, as bits, usually and where warps would be few.
constexpr int kMapChannelThreads = 384;
constexpr int kMapChannelBlocks = 2;
constexpr std::int32_t kMapLaneBits = 3;
constexpr double kMapFullShare = 0.9;
constexpr std::int64_t kMapBlockBytes = 128 * 1024;
constexpr std::int32_t kMapPartBits = 2;
constexpr std::int32_t kMapMostPartBits = 3;

}  // namespace spp_ext::cuda::tuning
