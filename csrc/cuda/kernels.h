// The CUDA kernels on raw device pointers and a stream. No torch; the caller brings the memory,
// scratch included. Nothing here waits for the device or allocates, so every call can be captured
// in a graph. Throws std::runtime_error when a launch fails.
//
// Arrays of contents (maps, rois, outputs, argmax) are in device memory. Arrays of sizes, scales and
// pointers ([M] and the pyramid) are in host memory.
#pragma once

#include <cstdint>
#include <string>

#include "core/params.h"
#include "cuda/tuning.h"

namespace spp_ext::cuda {

// Where and on what the kernels run.
struct Stream {
  void* handle;               // cudaStream_t
  std::int64_t sms;           // multiprocessors of the device
  std::int64_t shared_bytes;  // shared memory a block may have
};

// The stream `handle` of a device.
Stream device_stream(int device, void* handle);

// Why no kernel can run with the driver that is there, in half a sentence; empty where one can. The
// runtime that is linked into this library needs a driver of its own version, whatever torch's needs.
std::string driver_fault();

// int32 elements of scratch for gather and scatter of regions: the group of each, and between which
// cells its argmax lies, and between which groups those of every kGroupChunk lie. Never 0.
inline std::int64_t linear_scratch(std::int64_t regions) {
  return 3 * regions + 2 * (regions / tuning::kGroupChunk + 1);
}

void pool_map(const MapPoolParams& params, const Stream& stream);

// A region without a group (core/regions.h) pools to NaN, argmax -1. `scratch`: so many bytes as
// pool_regions_scratch says, 16-byte aligned. That is 16 bytes for each
// region and bin that is read from the map and, where maps do not fit
// in shared memory and the output is not small beside them, at most twice the size of the maps.
std::int64_t pool_regions_scratch(const RegionPoolParams& params, const Stream& stream);
void pool_regions(const RegionPoolParams& params, void* scratch, const Stream& stream);

// Launches carry at most so many kernel sizes.
constexpr std::int32_t kMaxKernelSizes = 256;
void pool_stride1(const Stride1Params& params, const Stream& stream);

// Launches carry at most so many levels; where there are more, `levels` points to device memory.
constexpr std::int32_t kMaxLinearLevels = 256;

// An argmax outside the plane is skipped, and so is every element of a region without a group; what
// gather skips it sets to 0. `scratch` may be null if there are no regions.
void gather(const GatherParams& params, std::int32_t* scratch, const Stream& stream);
void scatter(const ScatterParams& params, std::int32_t* scratch, const Stream& stream);

}  // namespace spp_ext::cuda
