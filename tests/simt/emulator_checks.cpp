// Checks of the emulation itself: kernels whose results are known without it.
//
//     emulator_checks            runs all of them, in the order that SPP_SIMT_ORDER names
//     emulator_checks --time     prints the microseconds of a block of 256 threads, 12 barriers
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "simt.h"

namespace {

void expect(bool holds, const std::string& claim) {
  if (!holds) throw std::runtime_error(claim);
}

// The sentence of the fault that `call` ends in.
std::string fault_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const simt::Fault& fault) {
    return fault.what();
  }
  return "no fault";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// ---- indices ----

__global__ void write_indices(unsigned* seen) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  seen[block * blockDim.x * blockDim.y * blockDim.z + thread] += thread + 1000 * block + 1;
}

void check_indices() {
  for (const dim3 grid : {dim3(7), dim3(3, 2, 4)}) {
    for (const dim3 block : {dim3(64), dim3(1), dim3(5, 4, 3), dim3(1, 1, 64), dim3(1024)}) {
      const unsigned threads = block.x * block.y * block.z, blocks = grid.x * grid.y * grid.z;
      std::vector<unsigned> seen(threads * blocks);
      simt::launch(grid, block, 0, write_indices, seen.data());
      for (unsigned i = 0; i < seen.size(); ++i) {
        expect(seen[i] == i % threads + 1000 * (i / threads) + 1, "every index comes once");
      }
    }
  }
}

// ---- shuffles ----

struct Pair {
  int first;
  float second;
};

__global__ void shuffle_all(int* out, int amount, int width) {
  const int lane = static_cast<int>(threadIdx.x);
  int* row = out + lane * 7;
  row[0] = __shfl_sync(0xffffffffu, lane, amount, width);
  row[1] = __shfl_up_sync(0xffffffffu, lane, amount, width);
  row[2] = __shfl_down_sync(0xffffffffu, lane, amount, width);
  row[3] = __shfl_xor_sync(0xffffffffu, lane, amount, width);
  row[4] = static_cast<int>(__shfl_sync(0xffffffffu, lane + 0.5, amount, width) - 0.5);
  row[5] = static_cast<int>(__shfl_sync(0xffffffffu, 0x100000000ll * lane, amount, width) >> 32);
  const Pair pair = __shfl_sync(0xffffffffu, Pair{lane, 2.0f * lane}, amount, width);
  row[6] = pair.second == 2.0f * pair.first ? pair.first : -1;
}

void check_shuffles() {
  for (int width = 1; width <= 32; width *= 2) {
    for (int amount = 0; amount < 32; ++amount) {
      int out[32][7];
      simt::launch(1, 32, 0, shuffle_all, &out[0][0], amount, width);
      for (int lane = 0; lane < 32; ++lane) {
        const int segment = lane / width * width;
        const int indexed = segment + amount % width;
        const int up = lane - amount, down = lane + amount, crossed = lane ^ amount;
        const int last = segment + width - 1;
        const int wanted[7] = {indexed,
                               up < segment ? lane : up,
                               down > last ? lane : down,
                               crossed > last ? lane : crossed,
                               indexed,
                               indexed,
                               indexed};
        expect(std::equal(wanted, wanted + 7, out[lane]), "shuffles take from the right lane");
      }
    }
  }
}

__global__ void shuffle_down_in_half(int* out) {
  out[threadIdx.x] = -1;
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_down_sync(0xffffu, 5, 8);
}

void check_undefined_lanes() {
  int out[2][32];
  for (const int poison : {0, 1}) {
    simt::options().poison = static_cast<unsigned char>(poison);
    simt::launch(1, 32, 0, shuffle_down_in_half, out[poison]);
  }
  simt::options().poison = simt::Options().poison;
  expect(out[0][7] == 5 && out[1][7] == 5, "a lane of the mask gives its value");
  expect(out[0][8] == 0 && out[1][8] == 0x01010101, "a lane outside the mask gives poison");
}

// ---- votes ----

struct Votes {
  unsigned ballot, any, all, none, match, match_wide;
};

// The halves of each warp vote apart from each other, at the same time.
__global__ void vote(Votes* out) {
  const unsigned lane = threadIdx.x % 32, mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  Votes& own = out[threadIdx.x];
  own.ballot = __ballot_sync(mask, lane % 3 == 0);
  own.any = __any_sync(mask, lane == 20);
  own.all = __all_sync(mask, lane < 31);
  own.none = __any_sync(mask, 0);
  own.match = __match_any_sync(mask, lane % 4);
  own.match_wide = __match_any_sync(mask, static_cast<long long>(lane % 2) << 40);
}

void check_votes() {
  std::vector<Votes> out(40);  // the last warp has 8 lanes
  simt::launch(1, 40, 0, vote, out.data());
  for (unsigned thread = 0; thread < 40; ++thread) {
    const unsigned lane = thread % 32, first = lane / 16 * 16, end = thread < 32 ? first + 16 : 8;
    Votes wanted = {0, first == 16, end < 32, 0, 0, 0};
    for (unsigned other = first; other < end; ++other) {
      wanted.ballot |= unsigned{other % 3 == 0} << other;
      wanted.match |= unsigned{other % 4 == lane % 4} << other;
      wanted.match_wide |= unsigned{other % 2 == lane % 2} << other;
    }
    expect(std::memcmp(&wanted, &out[thread], sizeof(Votes)) == 0, "votes are counted");
  }
}

// ---- shared memory and barriers ----

__global__ void transpose(const float* in, float* out, unsigned size) {
  unsigned char* bytes = simt::dynamic_shared();
  float* tile = reinterpret_cast<float*>(bytes);  // [blockDim.y, blockDim.x]
  const unsigned x = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned y = blockIdx.y * blockDim.y + threadIdx.y;
  tile[threadIdx.y * blockDim.x + threadIdx.x] = __ldg(&in[y * size + x]);
  __syncthreads();
  const unsigned to_x = blockIdx.y * blockDim.y + threadIdx.x;
  const unsigned to_y = blockIdx.x * blockDim.x + threadIdx.y;
  out[to_y * size + to_x] = tile[threadIdx.x * blockDim.x + threadIdx.y];
}

void check_shared_memory() {
  const unsigned size = 64;
  std::vector<float> in(size * size), out(size * size);
  std::iota(in.begin(), in.end(), 0.0f);
  simt::launch(dim3(4, 4), dim3(16, 16), 16 * 16 * sizeof(float), transpose, in.data(), out.data(),
               size);
  for (unsigned i = 0; i < in.size(); ++i) {
    expect(out[i % size * size + i / size] == in[i], "a tile in shared memory is transposed");
  }
}

// Warps reduce by shuffles, then the first warp reduces their sums.
__global__ void block_sums(const int* in, int* out) {
  unsigned char* bytes = simt::dynamic_shared();
  int* sums = reinterpret_cast<int*>(bytes);  // one per warp
  int value = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x < 32) {
    value = threadIdx.x < blockDim.x / 32 ? sums[threadIdx.x] : 0;
    for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
    if (threadIdx.x == 0) out[blockIdx.x] = value;
  }
}

__global__ void inclusive_sums(int* data) {
  unsigned char* bytes = simt::dynamic_shared();
  int* sums = reinterpret_cast<int*>(bytes);  // one per thread
  data += blockIdx.x * blockDim.x;
  sums[threadIdx.x] = data[threadIdx.x];
  for (unsigned step = 1; step < blockDim.x; step *= 2) {
    __syncthreads();
    const int below = threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
    __syncthreads();
    sums[threadIdx.x] += below;
  }
  data[threadIdx.x] = sums[threadIdx.x];
}

void check_reduction_and_prefix_sum() {
  for (const unsigned threads : {32u, 256u, 1024u}) {
    std::vector<int> data(threads * 5), sums(5);
    for (unsigned i = 0; i < data.size(); ++i) data[i] = static_cast<int>(i * 7919 % 101) - 50;
    std::vector<int> scanned = data;
    simt::launch(5, threads, threads / 32 * sizeof(int), block_sums, data.data(), sums.data());
    simt::launch(5, threads, threads * sizeof(int), inclusive_sums, scanned.data());
    for (unsigned block = 0; block < 5; ++block) {
      int sum = 0;
      for (unsigned i = block * threads; i < (block + 1) * threads; ++i) {
        expect(scanned[i] == (sum += data[i]), "prefix sums are right");
      }
      expect(sums[block] == sum, "block sums are right");
    }
  }
}

__global__ void sync_in_warps(int* out) {
  unsigned char* bytes = simt::dynamic_shared();
  int* cells = reinterpret_cast<int*>(bytes);
  cells[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (threadIdx.x < 32) {
    __syncwarp();  // the other warps do not come here
    out[threadIdx.x] = cells[31 - threadIdx.x];
  } else if (threadIdx.x % 2 == 0) {
    __syncwarp(0x55555555u);
    out[threadIdx.x] = cells[threadIdx.x ^ 2];
  }
}

void check_warp_barrier() {
  std::vector<int> out(44, -1);  // the last warp has 12 lanes
  simt::launch(1, 44, 44 * sizeof(int), sync_in_warps, out.data());
  for (int i = 0; i < 44; ++i) {
    expect(out[i] == (i < 32 ? 31 - i : i % 2 == 0 ? i ^ 2 : -1), "a warp has barriers of its own");
  }
}

// ---- atomics and bits ----

__global__ void count_digits(unsigned* counts, unsigned long long* sum, int* tickets, int* last) {
  const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&counts[index % 10], 1u);
  atomicAdd(sum, 0x100000000ull * index);
  if (atomicAdd(tickets, -1) == 1) atomicAdd(last, 1);
}

void check_atomics() {
  unsigned counts[10] = {0xffffffffu};  // wraps around to 0 with the first
  unsigned long long sum = 0;
  int tickets = 1000, last = 0;
  simt::launch(10, 100, 0, count_digits, counts, &sum, &tickets, &last);
  expect(counts[0] == 99 && counts[9] == 100, "counts add up");
  expect(sum == 499500ull << 32, "64-bit sums add up");
  expect(tickets == 0 && last == 1, "one thread sees the last ticket");
}

void check_bits() {
  expect(__popc(0xf0f0u) == 8 && __popcll(~0ull) == 64, "popc");
  expect(__ffs(0) == 0 && __ffs(8) == 4 && __ffsll(1ll << 40) == 41, "ffs");
  expect(__clz(0) == 32 && __clz(1) == 31 && __clz(-1) == 0 && __clzll(1) == 63, "clz");
  expect(__float_as_uint(1.0f) == 0x3f800000u && __uint_as_float(0x3f800000u) == 1.0f, "float");
  expect(__int_as_float(__float_as_int(-2.5f)) == -2.5f, "float bits");
  expect(__longlong_as_double(__double_as_longlong(-2.5)) == -2.5, "double bits");
  alignas(16) float cells[4] = {1, 2, 3, 4};
  const std::vector<float4> copy(1, *reinterpret_cast<const float4*>(cells));
  expect(copy[0].x == 1 && copy[0].w == 4 && alignof(float4) == 16, "vectors of four");
}

// ---- orders ----

__global__ void write_order(std::vector<unsigned>* run) {
  run->push_back(blockIdx.x * 1000 + threadIdx.x);
  __syncthreads();
  run->push_back(blockIdx.x * 1000 + threadIdx.x);
}

std::vector<unsigned> order_of_a_run(simt::Order order, std::uint64_t seed) {
  simt::options().order = order;
  simt::options().seed = seed;
  std::vector<unsigned> run;
  simt::launch(3, 40, 0, write_order, &run);
  simt::options() = {};
  return run;
}

void check_orders() {
  if (std::getenv("SPP_SIMT_ORDER") != nullptr) return;  // it would win over the options
  std::vector<unsigned> forward;
  for (unsigned i = 0; i < 240; ++i) forward.push_back(i / 80 * 1000 + i % 40);
  expect(order_of_a_run(simt::Order::kForward, 0) == forward, "forward");
  std::vector<unsigned> reversed(forward.rbegin(), forward.rend());
  expect(order_of_a_run(simt::Order::kReversed, 0) == reversed, "reversed");

  const std::vector<unsigned> shuffled = order_of_a_run(simt::Order::kShuffled, 1);
  expect(shuffled == order_of_a_run(simt::Order::kShuffled, 1), "a seed gives one order");
  expect(shuffled != order_of_a_run(simt::Order::kShuffled, 2), "seeds give different orders");
  expect(!std::equal(&shuffled[0], &shuffled[40], &shuffled[40]), "a barrier draws a new order");
  for (unsigned phase = 0; phase < 6; ++phase) {
    std::vector<unsigned> part(&shuffled[phase * 40], &shuffled[phase * 40] + 40);
    std::sort(part.begin(), part.end());
    for (unsigned i = 0; i < 40; ++i) {
      expect(part[i] == part[0] + i && part[0] % 1000 == 0, "all threads run between barriers");
    }
  }
}

// A warp goes as far ahead of the others as barriers allow: threads take turns only where they
// must.
__global__ void race_of_warps(std::vector<unsigned>* run) {
  for (int i = 0; i < 3; ++i) __syncwarp();
  run->push_back(threadIdx.x / 32);
}

void check_warps_run_ahead() {
  std::vector<unsigned> run;
  simt::launch(1, 64, 0, race_of_warps, &run);
  const char* order = std::getenv("SPP_SIMT_ORDER");
  if (order == nullptr) expect(std::is_sorted(run.begin(), run.end()), "the first warp leads");
  if (order != nullptr && std::string(order) == "reversed") {
    expect(std::is_sorted(run.rbegin(), run.rend()), "the last warp leads");
  }
  expect(run.size() == 64, "all threads arrive");
}

// ---- exceptions and limits ----

int alive = 0;
struct Counted {
  Counted() { ++alive; }
  Counted(const Counted&) { ++alive; }
  ~Counted() { --alive; }
};

__global__ void throw_in_one_thread(Counted) {
  const Counted local;
  __syncthreads();
  if (threadIdx.x == 37) throw std::out_of_range("thread 37");
  __syncwarp();
  __syncthreads();
}

void check_exceptions() {
  for (int repeat = 0; repeat < 3; ++repeat) {
    std::string caught;
    try {
      simt::launch(2, 100, 0, throw_in_one_thread, Counted());
    } catch (const std::out_of_range& error) {
      caught = error.what();
    }
    expect(caught == "thread 37", "what a thread throws arrives at the launch");
    expect(alive == 0, "all stacks are unwound");
    check_reduction_and_prefix_sum();
  }
}

__global__ void do_nothing() {}
__global__ void launch_inside() { simt::launch(1, 1, 0, do_nothing); }

void check_launch_limits() {
  const auto fault = [](dim3 grid, dim3 block, std::size_t shared_bytes) {
    return fault_of([&] { simt::launch(grid, block, shared_bytes, do_nothing); });
  };
  expect(fault(1, 1024, 227 << 10) == "no fault", "the most that a block may have");
  expect(fault(dim3(1, 1, 65535), 1, 0) == "no fault", "the most that a grid may have");
  expect(fault(1, 1025, 0) == "launch with blockDim.x 1025, must be from 1 to 1024", "sentence");
  expect(contains(fault(1, dim3(1, 1, 65), 0), "blockDim.z 65"), "blockDim.z");
  expect(contains(fault(1, dim3(32, 33), 0), "threads per block 1056"), "threads");
  expect(contains(fault(0, 1, 0), "gridDim.x 0"), "empty grid");
  expect(contains(fault(1, 0, 0), "blockDim.x 0"), "empty block");
  expect(contains(fault(0x80000000u, 1, 0), "gridDim.x 2147483648"), "gridDim.x");
  expect(contains(fault(dim3(1, 65536), 1, 0), "gridDim.y 65536"), "gridDim.y");
  expect(contains(fault(dim3(1, 1, 65536), 1, 0), "gridDim.z 65536"), "gridDim.z");
  expect(contains(fault(1, 1, (227 << 10) + 1), "bytes of shared memory 232449"), "shared");
  expect(contains(fault_of([] { simt::launch(1, 1, 0, launch_inside); }), "another"), "nested");
  expect(contains(fault_of([] { __syncthreads(); }), "outside a kernel"), "outside");
}

// ---- time ----

__global__ void barriers(int* out) {
  unsigned char* bytes = simt::dynamic_shared();
  int* cells = reinterpret_cast<int*>(bytes);
  int value = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 6; ++i) {
    cells[threadIdx.x] = value;
    __syncthreads();
    value += cells[(threadIdx.x + 1) % blockDim.x];
    __syncthreads();
  }
  out[threadIdx.x] = value;
}

__global__ void no_barriers(int* out) { out[threadIdx.x] = static_cast<int>(threadIdx.x); }

__global__ void shuffles(int* out) {
  int value = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 12; ++i) value += __shfl_xor_sync(0xffffffffu, value, 1 + i);
  out[threadIdx.x] = value;
}

double microseconds_per_block(void (*kernel)(int*)) {
  const unsigned blocks = 2000;
  std::vector<int> out(256);
  simt::launch(1, 256, 1024, kernel, out.data());
  const auto start = std::chrono::steady_clock::now();
  simt::launch(blocks, 256, 1024, kernel, out.data());
  const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - start;
  return time.count() / blocks;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "--time") {
    std::printf("barriers %.1f\n", microseconds_per_block(barriers));
    std::printf("shuffles %.1f\n", microseconds_per_block(shuffles));
    std::printf("neither %.1f\n", microseconds_per_block(no_barriers));
    return 0;
  }
  const struct {
    const char* name;
    void (*run)();
  } checks[] = {{"indices", check_indices},
                {"shuffles", check_shuffles},
                {"undefined lanes", check_undefined_lanes},
                {"votes", check_votes},
                {"shared memory", check_shared_memory},
                {"reduction and prefix sum", check_reduction_and_prefix_sum},
                {"warp barrier", check_warp_barrier},
                {"atomics", check_atomics},
                {"bits", check_bits},
                {"orders", check_orders},
                {"warps run ahead", check_warps_run_ahead},
                {"exceptions", check_exceptions},
                {"launch limits", check_launch_limits}};
  int failures = 0;
  for (const auto& check : checks) {
    try {
      check.run();
      std::printf("ok      %s\n", check.name);
    } catch (const std::exception& error) {
      std::printf("FAILED  %s: %s\n", check.name, error.what());
      ++failures;
    }
  }
  return failures == 0 ? 0 : 1;
}
