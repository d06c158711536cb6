// Kernels whose results and counts a person can work out. toys.ptx is what nvcc makes of them, by
// nvcc -std=c++17 -O3 --fmad=false --ptx -arch=compute_75 toys.cu -o toys.ptx
#include <cstdint>

extern __shared__ float tile[];

// Threads of a warp read numbers that are `step` apart.
extern "C" __global__ void strided(const float* from, float* to, int step) {
  const int thread = blockIdx.x * blockDim.x + threadIdx.x;
  to[thread] = from[static_cast<int64_t>(thread) * step];
}

// A tile of 32 x 32 is written by rows and read by columns. Its rows are `width` words apart.
extern "C" __global__ void transposed(const float* from, float* to, int width) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32;
  tile[row * width + lane] = from[threadIdx.x];
  __syncthreads();
  to[threadIdx.x] = tile[lane * width + row];
}

// The sum of the first n numbers, n of each thread its own.
extern "C" __global__ void sum_of_first(const float* from, const int* n, float* to) {
  float sum = 0;
#pragma unroll 1
  for (int i = 0; i < n[threadIdx.x]; ++i) sum += from[i];
  to[threadIdx.x] = sum;
}

// Threads below `limit` add 1 to one counter, all others to another: the sides of a branch.
extern "C" __global__ void two_sides(unsigned* counters, int limit) {
  if (static_cast<int>(threadIdx.x) < limit) {
    atomicAdd(counters, 1u);
    __threadfence();
    atomicAdd(counters + 2, 1u);
  } else {
    atomicAdd(counters + 1, 1u);
  }
}

// 16 bytes at once, from `offset` bytes on.
extern "C" __global__ void in_vectors(const char* from, float4* to, int offset) {
  to[threadIdx.x] = reinterpret_cast<const float4*>(from + offset)[threadIdx.x];
}

// What shared memory holds that nobody wrote.
extern "C" __global__ void unwritten(float* to) { to[threadIdx.x] = tile[threadIdx.x]; }

// Of each lane: its neighbour's number, who has an odd number, and who has the same.
extern "C" __global__ void together(const unsigned* from, unsigned* to) {
  const unsigned own = from[threadIdx.x];
  to[threadIdx.x] = __shfl_xor_sync(~0u, own, 1);
  to[threadIdx.x + 32] = __ballot_sync(~0u, own % 2);
  to[threadIdx.x + 64] = __match_any_sync(~0u, own);
}
