// What kernels need of CUDA.
#pragma once

#include <cuda_runtime.h>

namespace spp_ext::cuda {

// The shared memory that a launch gives each block, 16-byte aligned.
__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

}  // namespace spp_ext::cuda
