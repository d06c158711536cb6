// Numbers that decide how the CUDA kernels are launched. Results do not depend on them, except that
// the order in which scatter adds follows from its numbers and those it shares with gather.
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

// pool_stride1: the side of a tile, where a whole map does not fit, and the most planes in a block.
constexpr std::int32_t kStride1Tile = 32;
constexpr std::int64_t kStride1Planes = 8;

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

// group_regions: each thread looks at one region at a time.
constexpr int kGroupThreads = 256;

}  // namespace spp_ext::cuda::tuning
