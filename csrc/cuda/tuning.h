// Numbers that decide how the CUDA kernels are launched. Results do not depend on them, except that
// the order in which scatter adds the gradients of regions follows from kScatterWarps and
// kScatterRegionBytes.
#pragma once

#include <cstdint>

namespace spp_ext::cuda::tuning {

// Shared memory that a block may use on every architecture without asking.
constexpr std::int64_t kSharedBytes = 48 * 1024;

// Blocks of most kernels whose registers must fit on a multiprocessor together, which gives each thread
// 64. Without this number the compiler aims at fewer and spills.
constexpr int kMinBlocks = 4;

// Whole maps: threads and, where contiguous, planes of a block, at most; blocks per multiprocessor that a
// launch should offer; cells of a bin from which on a block of its own is worth it; and the most parts
// that one thread merges.
constexpr int kMapThreads = 256;
constexpr std::int32_t kMapPlanes = 8;
constexpr std::int64_t kMapBlocksPerSm = 2;
constexpr std::int64_t kCellsOfBlock = 64;
constexpr std::int64_t kMaxParts = 64;

// pool_stride1: the most warps of a block, cells that a widening looks away, and shared memory of a block
// that needs neighbouring planes (two such fit on a large multiprocessor). Tiles become lower while
// strips take more than kStride1StripBytes or warps are fewer than kStride1WarpsPerSm, down to kStride1Rows.
constexpr std::int64_t kStride1Warps = 8;
constexpr std::int64_t kStride1Reach = 8;
constexpr std::int64_t kStride1BlockBytes = 110 * 1024;
constexpr std::int64_t kStride1StripBytes = 15 * 1024;
constexpr std::int64_t kStride1WarpsPerSm = 8;
constexpr std::int64_t kStride1Rows = 12;

// Kernels with one thread an element: pool_bins, pool_stride1_cells and gather.
constexpr int kElementThreads = 256;

// scatter: the most warps in a block. Each has sums of its own: those of a plane for whole maps, and
// for regions those of one part of the regions of a plane.
constexpr int kScatterWarps = 8;
constexpr int kScatterMinBlocks = 2;                     // as kMinBlocks: 128 registers a thread
constexpr std::int64_t kScatterRegionBytes = 96 * 1024;  // shared memory for the sums of regions

// pool_regions: threads of a block; the warps that should fit beside the tables, and those that must;
// packs of 16 bytes in a slab of channels, and packs that a warp works on at a time, of one region or of
// several; the most bins of a pyramid.
constexpr int kRegionThreads = 512;
constexpr int kRegionGoodWarps = 8;
constexpr int kRegionMinWarps = 4;
constexpr std::int32_t kRegionMaxPacks = 4;
constexpr std::int32_t kRegionPacks = 2;
constexpr std::int64_t kRegionMaxBins = 1024;
// Maps of more than so many times the bytes of the output are not worth copying to shared memory.
constexpr std::int64_t kRegionMapBytes = 8;

// build_tables: cells of a row and packs of channels in a block; and how many times the bytes of the output
// tables in global memory may take.
constexpr std::int64_t kTableCells = 32;
constexpr std::int32_t kTablePacks = 8;
constexpr std::int64_t kTableBytesOfOutput = 2;

// group_regions: each thread looks at one region at a time.
constexpr int kGroupThreads = 256;

}  // namespace spp_ext::cuda::tuning
