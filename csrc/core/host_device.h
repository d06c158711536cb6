// Marks the functions that both host and device code compile.
//
// They are forced inline on the host too. The CPU kernels are compiled once per instruction set,
// and an ordinary inline function would leave a copy in each object file, of which the linker keeps
// any one: perhaps the AVX-512 copy, which an older CPU cannot run.
#pragma once

#if defined(__CUDACC__)
#define SPP_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SPP_HOST_DEVICE inline __attribute__((always_inline))
#endif
