// Numbers that decide how the CUDA kernels are launched. Results do not depend on them, except that
// the order in which scatter adds the gradients of regions follows from kScatterWarps and
// kScatterRegionBytes.
#pragma once

#include <cstdint>

namespace spp_ext::cuda::tuning {

// Shared memory that a block may use on every architecture without asking, and what pool_planes spends
// of it on staged planes.
constexpr std::int64_t kSharedBytes = 48 * 1024;
constexpr std::int64_t kStagedBytes = 24 * 1024;

// A plane is staged when at least so many blocks with their planes fit on a multiprocessor.
constexpr std::int64_t kStagedBlocksPerSm = 2;

// Blocks per multiprocessor that a launch should offer before a block is given more planes.
constexpr std::int64_t kBlocksPerSm = 4;

// Blocks of most kernels whose registers must fit on a multiprocessor together, which gives each thread
// 64. Without this number the compiler aims at fewer and spills.
constexpr int kMinBlocks = 4;

// pool_planes: cells that one lane reads of a bin before a second lane shares the bin with it.
constexpr std::int64_t kCellsPerLane = 8;
// Assumed: a region covers 1/16 of its map.
constexpr std::int64_t kMapsPerRegion = 16;
constexpr std::int64_t kMaxPlanesPerBlock = 16;
constexpr std::int64_t kMaxRowsPerBatch = 8;  // regions pooled side by side in one block
constexpr int kPlaneThreads = 256;

// pool_channels: warps in a block, each of which pools a bin of its own; and the fewest channels in a
// block, among which the lanes of a warp are divided.
constexpr int kChannelWarps = 8;
constexpr std::int64_t kMinChannels = 8;  // 8 numbers of four bytes are one memory sector

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

// group_regions: each thread looks at one region at a time.
constexpr int kGroupThreads = 256;

}  // namespace spp_ext::cuda::tuning
