// Kernels with one fault each, and their repaired twins: what the emulation has to catch.
//
//     planted_faults CASE faulty|repaired    prints the results; if a fault was reported, first its
//                                            sentence, then the results of the repaired twin
//
// All of them compute the same: out[i] = in[i] + in[the next i of the block, the last one's being
// the first]. Blocks have 64 threads and as many cells of shared memory, plus one.
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "simt.h"

namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr int kThreads = 64, kBlocks = 2;

// What every kernel starts with.
struct Place {
  int thread, next, lane;  // of the block, of the block, of the warp
  int index, next_index;   // of the arrays
};
__device__ __forceinline__ Place place() {
  const int thread = static_cast<int>(threadIdx.x), next = (thread + 1) % kThreads;
  const int first = static_cast<int>(blockIdx.x) * kThreads;
  return {thread, next, thread % warpSize, first + thread, first + next};
}
#define CELLS(name) int* name = reinterpret_cast<int*>(simt::dynamic_shared())

// ---- found by AddressSanitizer ----

template <bool kFaulty>
__global__ void shared_out_of_bounds(const int* in, int* out) {
  CELLS(cells);
  const Place at = place();
  cells[at.thread] = in[at.index];
  __syncthreads();
  const int next = kFaulty ? at.thread + 2 : at.next;  // 65, of 65 cells, in the last thread
  out[at.index] = in[at.index] + cells[next];
}

template <bool kFaulty>
__global__ void global_out_of_bounds(const int* in, int* out) {
  const Place at = place();
  out[at.index] = in[at.index] + in[kFaulty ? at.index + 1 : at.next_index];
}

// ---- found by the order of threads ----

template <bool kFaulty>
__global__ void missing_barrier(const int* in, int* out) {
  CELLS(cells);
  const Place at = place();
  cells[at.thread] = in[at.index];
  if (!kFaulty) __syncthreads();
  out[at.index] = in[at.index] + cells[at.next];
}

// Written, read, and written again before all have read.
template <bool kFaulty>
__global__ void missing_second_barrier(const int* in, int* out) {
  CELLS(cells);
  const Place at = place();
  int sum = 0;
  for (int part = 0; part < 2; ++part) {
    const int value = part == 0 ? in[at.index] / 2 : in[at.index] - in[at.index] / 2;
    cells[at.thread] = value;
    __syncthreads();
    sum += value + cells[at.next];
    if (!kFaulty) __syncthreads();
  }
  out[at.index] = sum;
}

template <bool kFaulty>
__global__ void missing_warp_barrier(const int* in, int* out) {
  CELLS(cells);
  const Place at = place();
  cells[at.thread] = in[at.index];
  if (!kFaulty) __syncwarp();
  out[at.index] = in[at.index] + (at.lane < 31 ? cells[at.next] : in[at.next_index]);
}

// ---- found by what shared memory holds at first ----

template <bool kFaulty>
__global__ void uninitialised_cell(const int* in, int* out) {
  CELLS(cells);
  const Place at = place();
  cells[at.thread] = in[at.index];
  if (!kFaulty && at.thread == 0) cells[kThreads] = in[at.index];
  __syncthreads();
  out[at.index] = in[at.index] + cells[at.thread + 1];
}

// ---- reported: barriers ----

template <bool kFaulty>
__global__ void early_return(const int* in, int* out) {
  CELLS(cells);
  const Place at = place();
  cells[at.thread] = in[at.index];
  if (kFaulty && at.thread == 63) {
    out[at.index] = in[at.index] + in[at.next_index];
    return;
  }
  __syncthreads();
  out[at.index] = in[at.index] + cells[at.next];
}

template <bool kFaulty>
__global__ void two_barriers(const int* in, int* out) {
  CELLS(cells);
  const Place at = place();
  cells[at.thread] = in[at.index];
  if (kFaulty && at.thread >= 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[at.index] = in[at.index] + cells[at.next];
}

// Two threads wait in a loop, each for the other.
template <bool kFaulty>
__global__ void endless_loop(const int* in, int* out) {
  CELLS(cells);
  const Place at = place();
  cells[at.thread] = 0;
  __syncthreads();
  if (kFaulty && (at.thread == 4 || at.thread == 5)) {
    const volatile int* other = cells + (9 - at.thread);
    while (*other == 0) {
    }
  }
  cells[at.thread] = in[at.index];
  __syncthreads();
  out[at.index] = in[at.index] + cells[at.next];
}

// The same of two warps, whose lanes stay together.
template <bool kFaulty>
__global__ void endless_votes(const int* in, int* out) {
  CELLS(cells);
  const Place at = place();
  cells[at.thread] = 0;
  __syncthreads();
  while (kFaulty && !__any_sync(kAll, cells[63 - at.thread] != 0)) {
  }
  cells[at.thread] = in[at.index];
  __syncthreads();
  out[at.index] = in[at.index] + cells[at.next];
}

// ---- reported: calls of a warp ----

template <bool kFaulty>
__global__ void mask_without_own_lane(const int* in, int* out) {
  const Place at = place();
  const int next = __shfl_down_sync(kFaulty ? 0x7fffffffu : kAll, in[at.index], 1);
  out[at.index] = in[at.index] + (at.lane < 31 ? next : in[at.next_index]);
}

template <bool kFaulty>
__global__ void mask_with_returned_lane(const int* in, int* out) {
  const Place at = place();
  if (at.lane == 31) out[at.index] = in[at.index] + in[at.next_index];
  if (kFaulty && at.lane == 31) return;
  const int next = __shfl_down_sync(kAll, in[at.index], 1);
  if (at.lane < 31) out[at.index] = in[at.index] + next;
}

template <bool kFaulty>
__global__ void differing_masks(const int* in, int* out) {
  const Place at = place();
  const int next = __shfl_down_sync(kFaulty && at.lane == 7 ? 0xffu : kAll, in[at.index], 1);
  out[at.index] = in[at.index] + (at.lane < 31 ? next : in[at.next_index]);
}

template <bool kFaulty>
__global__ void divergent_warp(const int* in, int* out) {
  const Place at = place();
  int next;
  if (kFaulty && at.lane >= 8) {
    next = __shfl_down_sync(kAll, in[at.index], 1);
  } else {
    next = __shfl_down_sync(kAll, in[at.index], 1);
  }
  out[at.index] = in[at.index] + (at.lane < 31 ? next : in[at.next_index]);
}

template <bool kFaulty>
__global__ void shuffle_beside_barrier(const int* in, int* out) {
  CELLS(cells);
  const Place at = place();
  cells[at.thread] = in[at.index];
  if (kFaulty && at.lane == 3) __syncwarp();
  __syncthreads();
  out[at.index] = in[at.index] + cells[at.next];
}

template <bool kFaulty>
__global__ void bad_width(const int* in, int* out) {
  const Place at = place();
  const int next = __shfl_down_sync(kAll, in[at.index], 1, kFaulty ? 24 : 32);
  out[at.index] = in[at.index] + (at.lane < 31 ? next : in[at.next_index]);
}

using Kernel = void (*)(const int*, int*);
#define CASE(name)                     \
  {                                    \
    #name, { name<true>, name<false> } \
  }
const std::map<std::string, std::pair<Kernel, Kernel>> kCases = {
    CASE(shared_out_of_bounds),   CASE(global_out_of_bounds),
    CASE(missing_barrier),        CASE(missing_second_barrier),
    CASE(missing_warp_barrier),   CASE(uninitialised_cell),
    CASE(early_return),           CASE(two_barriers),
    CASE(endless_loop),           CASE(endless_votes),
    CASE(mask_without_own_lane),  CASE(mask_with_returned_lane),
    CASE(differing_masks),        CASE(divergent_warp),
    CASE(shuffle_beside_barrier), CASE(bad_width),
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || kCases.count(argv[1]) == 0) {
    for (const auto& entry : kCases) std::printf("%s\n", entry.first.c_str());
    return 2;
  }
  const auto& [faulty, repaired] = kCases.at(argv[1]);
  std::vector<int> in, out(kThreads * kBlocks);
  for (int i = 0; i < kThreads * kBlocks; ++i) in.push_back(3 * i + 1);
  in.shrink_to_fit();  // so that AddressSanitizer knows where it ends
  const auto launch = [&](Kernel kernel) {
    simt::launch(kBlocks, kThreads, (kThreads + 1) * sizeof(int), kernel, in.data(), out.data());
  };
  bool reported = false;
  try {
    launch(argv[2] == std::string("faulty") ? faulty : repaired);
  } catch (const simt::Fault& fault) {
    std::printf("%s\n", fault.what());
    reported = true;
    launch(repaired);
  }
  for (const int value : out) std::printf("%d ", value);
  return reported ? 1 : 0;
}
