// The CUDA kernels on raw device pointers and a stream. No torch; the caller brings the memory,
// scratch included. Nothing here waits for the device or allocates, so every call can be captured
// in a graph. Throws std::runtime_error when a launch fails.
#pragma once

#include <cstdint>

#include "core/params.h"

namespace spp_ext::cuda {

// Where and on what the kernels run.
struct Stream {
  void* handle;               // cudaStream_t
  std::int64_t sms;           // multiprocessors of the device
  std::int64_t shared_bytes;  // shared memory a block may have
};

// The stream `handle` of the current device.
Stream current_device_stream(void* handle);

// int32 elements of scratch that regions need: the regions grouped by image.
inline std::int64_t region_scratch(std::int64_t batch, std::int64_t regions) {
  return batch + 1 + regions;
}

void pool_map(const MapPoolParams& params, const Stream& stream);

// A region whose batch index is outside [0, N) or with a coordinate that is not finite pools to
// NaN, argmax -1; so does, in the call for the first of several maps, one whose map index names none.
void pool_regions(const RegionPoolParams& params, std::int32_t* scratch, const Stream& stream);

void pool_stride1(const Stride1Params& params, const Stream& stream);

// An argmax outside the plane, or a row whose region names no image, is skipped.
void gather(const GatherParams& params, const Stream& stream);
void scatter(const ScatterParams& params, std::int32_t* scratch, const Stream& stream);

}  // namespace spp_ext::cuda
