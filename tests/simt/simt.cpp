// The scheduler of a block, and what it reports.
//
// A thread runs until it returns or arrives where it has to wait. The last lane to arrive at a
// warp's call lets the others go on; a barrier of the block opens when no thread can run. If then
// some threads wait elsewhere or have returned, nobody will ever come: that is the fault to report.
#include "simt.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "fiber.h"

namespace simt {
namespace detail {
uint3 thread_index, block_index;
dim3 block_size, grid_size;
}  // namespace detail

namespace {

using detail::Call;
using detail::Op;

enum class State { kReady, kRunnable, kWaiting, kReturned };

struct Thread {
  detail::Fiber fiber;  // goes on to the same thread of the next block
  bool has_stack = false;
  State state = State::kReady;
  uint3 index;
  unsigned number;       // in the block
  unsigned rank;         // place in the order
  Call call;             // where it waits
  std::uint64_t result;  // what the call returns
};

struct Cancelled {};  // thrown to unwind the threads of a block that has failed

Thread threads[1024];
unsigned count;              // threads of the block
unsigned order[1024];        // their numbers
unsigned cursor;             // no thread before this place in the order can run
unsigned returned;           // threads that have
unsigned waiting_lanes[32];  // of each warp: those that wait in a call of the warp
Thread* current;             // nullptr while no thread runs
std::exception_ptr thrown;   // by the thread that ran last
bool cancelling;
unsigned char* shared_memory;

Options settings;
std::mt19937_64 random_bits;
void (*run_thread)(const void*);
const void* launch_context;
std::atomic_flag launching = ATOMIC_FLAG_INIT;

// ---- in words ----

template <class Index>
std::string text(const Index& at) {
  return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) +
         ")";
}

// __shfl_sync(mask 0x0000ffff) at pool_map.cuh:120
std::string text(const Call& call) {
  char mask[32] = "";
  if (call.op != Op::kBlockBarrier) std::snprintf(mask, sizeof(mask), "mask 0x%08x", call.mask);
  const char* slash = std::strrchr(call.site.file, '/');
  return std::string(call.name) + "(" + mask + ") at " +
         (slash == nullptr ? call.site.file : slash + 1) + ":" + std::to_string(call.site.line);
}

std::string text(const Thread& thread) {
  std::string does = " runs";
  if (thread.state == State::kWaiting) does = " waits in " + text(thread.call);
  if (thread.state == State::kReturned) does = " has returned from the kernel";
  return "thread " + text(thread.index) + does;
}

// ---- watchdog ----

// What the timer compares from one tick to the next.
volatile std::uint64_t blocks_begun, threads_entered;
volatile bool block_is_late;

// A thread in an endless loop, waiting perhaps for another thread's store, never comes back. So a
// timer looks whether the block is still the same one, and whether no thread has given way since.
class Watchdog {
 public:
  explicit Watchdog(double seconds) {
    struct sigaction action = {};
    action.sa_handler = tick;
    action.sa_flags = SA_NODEFER | SA_RESTART;  // tick() may not return
    sigaction(SIGVTALRM, &action, &previous_);
    sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGVTALRM;
    event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
    if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer_) != 0) {
      throw std::runtime_error("no timer for the watchdog");
    }
    const auto half = static_cast<long long>(seconds * 0.5e9);
    const timespec period = {static_cast<time_t>(half / 1000000000), half % 1000000000};
    const itimerspec repeat = {period, period};
    timer_settime(timer_, 0, &repeat, nullptr);
  }
  ~Watchdog() {
    timer_delete(timer_);
    sigaction(SIGVTALRM, &previous_, nullptr);
  }
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  static void tick(int) {
    static std::uint64_t block, entered;
    if (block != blocks_begun) {
      block = blocks_begun;
    } else if (!block_is_late) {
      block_is_late = true;  // the scheduler sees it, if it ever runs
      entered = threads_entered;
    } else if (entered == threads_entered && current != nullptr) {
      current->has_stack = false;
      current->fiber.leave();  // for good
    }
  }

  struct sigaction previous_;
  timer_t timer_;
};

// ---- scheduler ----

void thread_main() {
  current->fiber.entered();
  for (;;) {
    try {
      run_thread(launch_context);
    } catch (const Cancelled&) {
    } catch (...) {
      thrown = std::current_exception();
    }
    current->state = State::kReturned;
    ++returned;
    current->fiber.leave();
  }
}

void enter(Thread& thread) {
  if (!thread.has_stack) {
    thread.fiber.start(thread_main);
    thread.has_stack = true;
  }
  detail::thread_index = thread.index;
  threads_entered = threads_entered + 1;
  current = &thread;
  thread.fiber.enter();
  current = nullptr;
}

void draw_order() {
  std::iota(order, order + count, 0u);
  if (settings.order == Order::kReversed) std::reverse(order, order + count);
  if (settings.order == Order::kShuffled) std::shuffle(order, order + count, random_bits);
  for (unsigned i = 0; i < count; ++i) threads[order[i]].rank = i;
}

void release(Thread& thread, std::uint64_t result) {
  thread.result = result;
  thread.state = State::kRunnable;
  cursor = std::min(cursor, thread.rank);
}

bool same_site(const Call& a, const Call& b) {
  return a.op == b.op && a.site.line == b.site.line && std::strcmp(a.site.file, b.site.file) == 0;
}

// Whether `other` has arrived where `thread` waits.
bool together(const Thread& thread, const Thread& other) {
  return other.state == State::kWaiting && same_site(thread.call, other.call) &&
         thread.call.mask == other.call.mask;
}

// If all lanes of the last one's mask have arrived, gives each its result. A mask may name lanes
// that the block, when its size is no multiple of 32, does not have.
void try_release_warp(const Thread& last) {
  const unsigned first = last.number / 32 * 32, lanes = std::min(32u, count - first);
  const unsigned mask = last.call.mask & (0xffffffffu >> (32 - lanes));
  Thread* const warp = threads + first;
  if ((mask & ~waiting_lanes[first / 32]) != 0) return;
  for (unsigned lane = 0; lane < lanes; ++lane) {
    if ((mask >> lane & 1) && !together(last, warp[lane])) return;
  }
  for (unsigned lane = 0; lane < lanes; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    const Call& call = warp[lane].call;
    std::uint64_t result = 0;
    if (call.op == Op::kShuffle) {
      // What comes from a lane that takes no part is undefined.
      std::memset(&result, settings.poison, sizeof(result));
      if (mask >> call.source & 1) result = warp[call.source].call.value;
    } else if (call.op != Op::kWarpBarrier) {
      const std::uint64_t wanted = call.op == Op::kMatch ? call.value : 1;
      for (unsigned other = 0; other < lanes; ++other) {
        if ((mask >> other & 1) && warp[other].call.value == wanted) result |= 1u << other;
      }
    }
    release(warp[lane], result);
  }
  waiting_lanes[first / 32] &= ~mask;
}

[[noreturn]] void report_deadlock() {
  // Calls of a warp first: one may be what keeps others from the barrier of the block.
  for (const bool of_warp : {true, false}) {
    for (unsigned i = 0; i < count; ++i) {
      const Thread& thread = threads[i];
      const Call& call = thread.call;
      if (thread.state != State::kWaiting || (call.op != Op::kBlockBarrier) != of_warp) continue;
      for (unsigned j = 0; j < count; ++j) {
        const Thread& other = threads[j];
        if (of_warp && (j / 32 != i / 32 || (call.mask >> j % 32 & 1) == 0)) continue;
        if (together(thread, other)) continue;
        const bool met = other.state == State::kWaiting && same_site(call, other.call);
        const std::string kind = !of_warp ? "divergent barrier"
                                 : met    ? "differing masks"
                                          : "divergent warp";
        const std::string lane =
            of_warp ? "in lane " + std::to_string(j % 32) + " of the mask " : "";
        throw Fault(kind + " in block " + text(blockIdx) + ": " + text(thread) + ", but " + lane +
                    text(other));
      }
    }
  }
  throw std::logic_error("a block stands still though nobody waits");
}

[[noreturn]] void report_late(const Thread& thread) {
  throw Fault("no end of block " + text(blockIdx) + " after all the CPU time it may take: " +
              text(thread) + "; does it wait in a loop for what others have yet to do?");
}

void release_block() {
  for (unsigned i = 0; i < count; ++i) {
    if (threads[i].call.op != Op::kBlockBarrier || !together(threads[0], threads[i])) {
      report_deadlock();
    }
  }
  if (settings.order == Order::kShuffled) draw_order();
  for (unsigned i = 0; i < count; ++i) release(threads[i], 0);
}

void run_block() {
  for (unsigned i = 0; i < count; ++i) threads[i].state = State::kReady;
  std::fill_n(waiting_lanes, 32, 0u);
  draw_order();
  returned = cursor = 0;
  block_is_late = false;
  blocks_begun = blocks_begun + 1;
  while (returned < count) {
    while (cursor < count) {
      Thread& thread = threads[order[cursor++]];
      if (thread.state > State::kRunnable) continue;
      thread.state = State::kRunnable;
      enter(thread);
      if (thrown) std::rethrow_exception(std::exchange(thrown, nullptr));
      if (block_is_late) report_late(thread);
    }
    if (returned < count) release_block();
  }
}

// Unwinds the stacks of the threads that are under way.
void cancel_block() {
  cancelling = true;
  for (unsigned i = 0; i < count; ++i) {
    const State state = threads[i].state;
    const bool under_way = state == State::kRunnable || state == State::kWaiting;
    if (under_way && threads[i].has_stack) enter(threads[i]);
  }
  cancelling = false;
  thrown = nullptr;
}

[[noreturn]] void fail_call(const Call& call, const std::string& complaint) {
  throw Fault("thread " + text(threadIdx) + " of block " + text(blockIdx) + " calls " + text(call) +
              " " + complaint);
}

// ---- launch ----

Options with_environment(Options result) {
  if (const char* name = std::getenv("SPP_SIMT_ORDER")) {
    const std::string value = name, kind = value.substr(0, value.find(':'));
    if (kind != "forward" && kind != "reversed" && kind != "shuffled") {
      throw Fault("SPP_SIMT_ORDER must be forward, reversed or shuffled[:seed], not " + value);
    }
    result.order = kind == "forward"    ? Order::kForward
                   : kind == "reversed" ? Order::kReversed
                                        : Order::kShuffled;
    if (kind != value) result.seed = std::stoull(value.substr(kind.size() + 1));
  }
  if (const char* value = std::getenv("SPP_SIMT_POISON")) {
    result.poison = static_cast<unsigned char>(std::stoul(value, nullptr, 0));
  }
  if (const char* value = std::getenv("SPP_SIMT_BLOCK_SECONDS")) {
    result.block_seconds = std::stod(value);
  }
  return result;
}

void check_limit(const char* what, std::uint64_t value, std::uint64_t least, std::uint64_t most) {
  if (value >= least && value <= most) return;
  throw Fault(std::string("launch with ") + what + " " + std::to_string(value) + ", must be from " +
              std::to_string(least) + " to " + std::to_string(most));
}

void check_limits(dim3 grid, dim3 block, std::size_t shared_bytes) {
  check_limit("gridDim.x", grid.x, 1, 0x7fffffff);
  check_limit("gridDim.y", grid.y, 1, 65535);
  check_limit("gridDim.z", grid.z, 1, 65535);
  check_limit("blockDim.x", block.x, 1, 1024);
  check_limit("blockDim.y", block.y, 1, 1024);
  check_limit("blockDim.z", block.z, 1, 64);
  check_limit("threads per block", std::uint64_t{block.x} * block.y * block.z, 1, 1024);
  check_limit("bytes of shared memory", shared_bytes, 0, 227 << 10);
}

std::vector<std::uint64_t> block_order(std::uint64_t blocks) {
  std::vector<std::uint64_t> result(blocks);
  std::iota(result.begin(), result.end(), std::uint64_t{0});
  if (settings.order == Order::kReversed) std::reverse(result.begin(), result.end());
  if (settings.order == Order::kShuffled) std::shuffle(result.begin(), result.end(), random_bits);
  return result;
}

void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes) {
  check_limits(grid, block, shared_bytes);
  settings = with_environment(options());
  random_bits.seed(settings.seed);
  detail::grid_size = grid;
  detail::block_size = block;
  count = block.x * block.y * block.z;
  for (unsigned i = 0; i < count; ++i) {
    threads[i].number = i;
    threads[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
  }
  const Watchdog watchdog(settings.block_seconds);
  for (const std::uint64_t at : block_order(std::uint64_t{grid.x} * grid.y * grid.z)) {
    detail::block_index = {static_cast<unsigned>(at % grid.x),
                           static_cast<unsigned>(at / grid.x % grid.y),
                           static_cast<unsigned>(at / grid.x / grid.y)};
    const std::unique_ptr<void, void (*)(void*)> memory(std::malloc(shared_bytes), std::free);
    shared_memory = static_cast<unsigned char*>(memory.get());
    if (shared_bytes > 0) std::memset(shared_memory, settings.poison, shared_bytes);
    try {
      run_block();
    } catch (...) {
      cancel_block();
      throw;
    }
  }
}

}  // namespace

Device& device() {
  static Device the_device;
  return the_device;
}

Recorder& recorder() {
  static Recorder the_recorder = nullptr;
  return the_recorder;
}

Options& options() {
  static Options instance;
  return instance;
}

unsigned char* dynamic_shared() { return shared_memory; }

namespace detail {

std::uint64_t arrive(const Call& call) {
  if (current == nullptr) throw Fault(std::string(call.name) + " called outside a kernel");
  Thread& self = *current;
  if (call.op != Op::kBlockBarrier && (call.mask >> own_lane() & 1) == 0) {
    fail_call(call, "whose mask lacks its own lane, " + std::to_string(own_lane()));
  }
  self.call = call;
  self.state = State::kWaiting;
  if (call.op != Op::kBlockBarrier) {
    waiting_lanes[self.number / 32] |= 1u << own_lane();
    try_release_warp(self);
  }
  self.fiber.leave();
  if (cancelling) throw Cancelled{};
  return self.result;
}

unsigned own_lane() { return current == nullptr ? 0 : current->number % 32; }

void report_bad_width(const Call& call, int width) {
  fail_call(call, "whose width, " + std::to_string(width) + ", is not 1, 2, 4, 8, 16 or 32");
}

void run(dim3 grid, dim3 block, std::size_t shared_bytes, void (*thread)(const void*),
         const void* context) {
  if (launching.test_and_set()) throw Fault("launch while another one runs");
  run_thread = thread;
  launch_context = context;
  try {
    run_grid(grid, block, shared_bytes);
  } catch (...) {
    launching.clear();
    throw;
  }
  launching.clear();
}

}  // namespace detail
}  // namespace simt

// Hands launches to `recorder`, null for nobody, and lets them be planned for such a device. For ctypes.
extern "C" void simt_record(simt::Recorder recorder, int multiprocessors, int shared_bytes) {
  simt::recorder() = recorder;
  simt::device() = {multiprocessors, shared_bytes};
}
