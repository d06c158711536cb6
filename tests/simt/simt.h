// The CUDA programming model on the CPU: lets a plain C++17 compiler build the kernels' own source
// and run it, with no CUDA toolkit and no GPU, where sanitizers and a debugger reach it.
//
// Every CUDA thread is a fiber, blocks run one after another, and one thread runs at a time, until
// it returns or waits for others. What a correct kernel may not depend on can be changed: the order
// of threads and blocks, and what shared memory holds at first. What CUDA leaves undefined
// (divergent barriers, wrong masks) is an exception instead. README.md says what is not emulated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>

// ---- types, and the words of the language ----

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// As aligned as CUDA's, so that UBSan reports a misaligned vector access. They may alias, because
// kernels read arrays of scalars through them.
struct __attribute__((may_alias, aligned(8))) uint2 {
  unsigned x, y;
};
struct __attribute__((may_alias, aligned(8))) float2 {
  float x, y;
};
struct __attribute__((may_alias, aligned(16))) uint4 {
  unsigned x, y, z, w;
};
struct __attribute__((may_alias, aligned(16))) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

// ---- launching ----

namespace simt {

enum class Order { kForward, kReversed, kShuffled };

// Of every later launch in this process. An environment variable, where set, wins over the field.
struct Options {
  // Which of the threads that could run does so: the first in this order, until it has to wait. So
  // a warp may be ahead of another as far as barriers allow. kShuffled draws a new order after
  // every barrier of the block. Blocks are taken in the same kind of order.
  Order order = Order::kForward;  // SPP_SIMT_ORDER=forward|reversed|shuffled[:seed]
  std::uint64_t seed = 0;         // of kShuffled
  unsigned char poison = 0xff;    // SPP_SIMT_POISON: fills shared memory before each block
  double block_seconds = 30;      // SPP_SIMT_BLOCK_SECONDS: a block that takes more CPU time hangs
};
Options& options();

// What a kernel or its launch did wrong, in a sentence.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The device that launchers plan for. A small one by default, so that small tests have blocks with
// several units of work.
struct Device {
  int multiprocessors = 2;
  int shared_bytes = 64 * 1024;  // that a block may have
};
Device& device();

// Sees every launch in place of the kernel; returns whether the kernel is run after all. `params` are
// the parameters as CUDA lays them out, each aligned as its type is.
using Recorder = int (*)(const char* kernel, unsigned grid, unsigned threads,
                         std::size_t shared_bytes, const unsigned char* params, std::size_t bytes);
Recorder& recorder();

// The shared memory of the running block, in place of CUDA's `extern __shared__` array; __shared__
// itself does not compile. An allocation of its own, of exactly the size in the launch, so that
// AddressSanitizer sees every access outside it. As aligned as malloc aligns, 16 bytes.
unsigned char* dynamic_shared();

// The line of source that calls: two barriers are the same one if they are on the same line.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

namespace detail {

extern uint3 thread_index, block_index;
extern dim3 block_size, grid_size;

enum class Op { kBlockBarrier, kWarpBarrier, kShuffle, kBallot, kMatch };

// One thread's arrival where it has to wait for others.
struct Call {
  Op op;
  const char* name;
  Site site;
  unsigned mask;        // lanes that take part; unused by kBlockBarrier
  std::uint64_t value;  // bits to give to the other lanes
  unsigned source;      // kShuffle: the lane to take from
};

// Waits until all have arrived. Returns the bits that this lane gets.
std::uint64_t arrive(const Call& call);

unsigned own_lane();
[[noreturn]] void report_bad_width(const Call& call, int width);

void run(dim3 grid, dim3 block, std::size_t shared_bytes, void (*thread)(const void*),
         const void* launch);

template <class T>
std::uint64_t to_bits(T value) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),
                "lanes exchange values of 4 or 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <class To, class From>
To bit_cast(From value) {
  static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}

template <class T>
T shuffle(const char* name, Site site, unsigned mask, T value, unsigned source, int width) {
  const Call call = {Op::kShuffle, name, site, mask, to_bits(value), source};
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) report_bad_width(call, width);
  const std::uint64_t bits = arrive(call);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

inline unsigned ballot(const char* name, Site site, unsigned mask, bool vote) {
  return static_cast<unsigned>(arrive({Op::kBallot, name, site, mask, vote, 0}));
}

}  // namespace detail

// kernel<<<grid, block, shared_bytes>>>(args...), and waits. One launch at a time in a process.
// What a thread throws is thrown again here, after the other threads' stacks were unwound.
template <class... Params, class... Args>
void launch(dim3 grid, dim3 block, std::size_t shared_bytes, void (*kernel)(Params...),
            Args&&... args) {
  static_assert((std::size_t{0} + ... + sizeof(Params)) <= 4096, "CUDA passes 4 KiB of parameters");
  using Launch = std::pair<void (*)(Params...), const std::tuple<Params...>>;
  const Launch launch(kernel, std::tuple<Params...>(std::forward<Args>(args)...));
  const auto thread = [](const void* context) {
    const Launch& own = *static_cast<const Launch*>(context);
    std::apply(own.first, own.second);
  };
  detail::run(grid, block, shared_bytes, thread, &launch);
}

}  // namespace simt

// ---- built-in variables ----

inline const uint3& threadIdx = simt::detail::thread_index;
inline const uint3& blockIdx = simt::detail::block_index;
inline const dim3& blockDim = simt::detail::block_size;
inline const dim3& gridDim = simt::detail::grid_size;
inline constexpr int warpSize = 32;

// ---- barriers, shuffles, votes ----

inline void __syncthreads(simt::Site site = simt::Site::here()) {
  simt::detail::arrive({simt::detail::Op::kBlockBarrier, "__syncthreads", site, 0, 0, 0});
}

inline void __syncwarp(unsigned mask = 0xffffffffu, simt::Site site = simt::Site::here()) {
  simt::detail::arrive({simt::detail::Op::kWarpBarrier, "__syncwarp", site, mask, 0, 0});
}

// Which lane a shuffle takes from is PTX's rule: 5 bits of the argument count, and a lane keeps its
// own value where it would take from a later segment of `width` lanes (for up: an earlier one).
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize,
              simt::Site site = simt::Site::here()) {
  const unsigned own = simt::detail::own_lane(), last = static_cast<unsigned>(width) - 1;
  const unsigned source = (own & ~last) | (static_cast<unsigned>(lane) & last);
  return simt::detail::shuffle("__shfl_sync", site, mask, value, source, width);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 simt::Site site = simt::Site::here()) {
  const unsigned own = simt::detail::own_lane(), last = static_cast<unsigned>(width) - 1;
  const unsigned source = (own & last) >= (delta & 31) ? own - (delta & 31) : own;
  return simt::detail::shuffle("__shfl_up_sync", site, mask, value, source, width);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   simt::Site site = simt::Site::here()) {
  const unsigned own = simt::detail::own_lane(), last = static_cast<unsigned>(width) - 1;
  const unsigned source = (own & last) + (delta & 31) <= last ? own + (delta & 31) : own;
  return simt::detail::shuffle("__shfl_down_sync", site, mask, value, source, width);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize,
                  simt::Site site = simt::Site::here()) {
  const unsigned own = simt::detail::own_lane(), last = static_cast<unsigned>(width) - 1;
  const unsigned other = own ^ (static_cast<unsigned>(lane_mask) & 31);
  const unsigned source = other <= (own | last) ? other : own;
  return simt::detail::shuffle("__shfl_xor_sync", site, mask, value, source, width);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, simt::Site site = simt::Site::here()) {
  return simt::detail::ballot("__ballot_sync", site, mask, predicate != 0);
}

inline int __any_sync(unsigned mask, int predicate, simt::Site site = simt::Site::here()) {
  return simt::detail::ballot("__any_sync", site, mask, predicate != 0) != 0;
}

inline int __all_sync(unsigned mask, int predicate, simt::Site site = simt::Site::here()) {
  return simt::detail::ballot("__all_sync", site, mask, predicate == 0) == 0;
}

template <class T>
unsigned __match_any_sync(unsigned mask, T value, simt::Site site = simt::Site::here()) {
  const std::uint64_t key = simt::detail::to_bits(value);
  return static_cast<unsigned>(
      simt::detail::arrive({simt::detail::Op::kMatch, "__match_any_sync", site, mask, key, 0}));
}

// ---- memory ----

inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T __ldg(const T* address) {
  return *address;
}

namespace simt::detail {
template <class T>
T fetch_add(T* address, T value) {
  const T old = *address;
  __builtin_add_overflow(old, value, address);  // wraps around, as CUDA's does
  return old;
}
}  // namespace simt::detail

inline int atomicAdd(int* address, int value) { return simt::detail::fetch_add(address, value); }
inline unsigned atomicAdd(unsigned* address, unsigned value) {
  return simt::detail::fetch_add(address, value);
}
inline unsigned long long atomicAdd(unsigned long long* address, unsigned long long value) {
  return simt::detail::fetch_add(address, value);
}
// Sums of floats depend on the order of the threads, so no kernel may add them like this.
float atomicAdd(float*, float) = delete;
double atomicAdd(double*, double) = delete;

// ---- bits ----

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(value); }
inline int __clzll(long long value) { return value == 0 ? 64 : __builtin_clzll(value); }

inline float __int_as_float(int value) { return simt::detail::bit_cast<float>(value); }
inline float __uint_as_float(unsigned value) { return simt::detail::bit_cast<float>(value); }
inline int __float_as_int(float value) { return simt::detail::bit_cast<int>(value); }
inline unsigned __float_as_uint(float value) { return simt::detail::bit_cast<unsigned>(value); }
inline double __longlong_as_double(long long value) {
  return simt::detail::bit_cast<double>(value);
}
inline long long __double_as_longlong(double value) {
  return simt::detail::bit_cast<long long>(value);
}
