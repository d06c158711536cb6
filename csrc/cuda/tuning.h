// Numbers that decide how the CUDA kernels are launched. Results do not depend on them, except that
// the order in which scatter adds the gradients of regions follows from kScatterWarps and
// kScatterRegionBytes.
#pragma once

#include <cstdint>

namespace spp_ext::cuda::tuning {

// Shared memory a block may use on every architecture without opting in, and what pool_planes
// spends on staged planes.
constexpr std::int64_t kSharedBytes = 48 * 1024;
constexpr std::int64_t kStagedBytes = 24 * 1024;

// A plane is staged when at least so many blocks with their planes fit on a multiprocessor.
constexpr std::int64_t kStagedBlocksPerSm = 2;

// Blocks per multiprocessor that a launch should offer before a block is given more planes.
constexpr std::int64_t kBlocksPerSm = 4;

// Blocks of every pooling kernel that fit on a multiprocessor side by side, as far as registers
// decide: 80 a thread. Without it the compiler aims at 48 and spills.
constexpr int kMinBlocks = 3;

// pool_planes: cells that one lane reads of a bin before a second lane shares the bin with it.
constexpr std::int64_t kCellsPerLane = 8;
// A region's share of its map, for want of knowing: one in so many cells.
constexpr std::int64_t kMapsPerRegion = 16;
constexpr std::int64_t kMaxPlanesPerBlock = 16;
constexpr std::int64_t kMaxRowsPerBatch = 8;  // regions pooled side by side in one block
constexpr int kPlaneThreads = 256;

// pool_channels: warps in a block, each on a bin of its own; channels in a block, a warp's lanes
// split among them.
constexpr int kChannelWarps = 8;
constexpr std::int64_t kMinChannels = 8;  // of four bytes: one memory sector

// pool_stride1: the side of a tile where a map does not fit, and planes in a block at most.
constexpr std::int32_t kStride1Tile = 32;
constexpr std::int64_t kStride1Planes = 8;

// pool_bins, gather and the like: one thread an element.
constexpr int kElementThreads = 256;

// scatter: warps in a block, each with the sums of one plane (whole maps, channels_last) or of one
// of as many parts of the regions of a plane.
constexpr int kScatterWarps = 8;
constexpr int kScatterMinBlocks = 2;  // as kMinBlocks: 128 registers a thread
constexpr std::int64_t kScatterRegionBytes =
    96 * 1024;  // of shared memory, for the sums of regions

constexpr int kGroupThreads = 256;

}  // namespace spp_ext::cuda::tuning
