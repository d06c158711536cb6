// What the kernels are compiled for: CUDA, or the emulation of its programming model in tests/simt,
// which runs this very source on the CPU.
#pragma once

#if defined(SPP_SIMT)
#include "simt.h"
#define SPP_GRID_CONSTANT
#else
#include <cuda_runtime.h>
#define SPP_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
// Keeps a kernel's parameters in constant memory when their address is taken, instead of copying
// them to each thread.
#define SPP_GRID_CONSTANT __grid_constant__
#endif
