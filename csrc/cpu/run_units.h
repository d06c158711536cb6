// Runs the units of a call on an executor's threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/tuning.h"

namespace spp_ext::cpu {

// Calls work(unit, scratch) for every unit in [0, units). Each task has a share of neighbouring units,
// and takes from another's when its own is done: uneven units balance, and on equal calls a task
// meets the memory that it met before, in its own core's cache. Its scratch, `scratch_bytes` on a
// cache line of its own, is there before any task runs.
template <class Work>
void run_units(std::int64_t units, std::size_t scratch_bytes, const Executor& executor,
               const Work& work) {
  if (units == 0) return;
  constexpr std::size_t kAlignment = tuning::kCacheLine;
  const std::int64_t tasks =
      executor.parallel_for == nullptr ? 1 : std::clamp<std::int64_t>(executor.threads, 1, units);
  const std::size_t slot = (scratch_bytes + kAlignment - 1) / kAlignment * kAlignment;
  const std::size_t bytes = slot * static_cast<std::size_t>(tasks);
  alignas(kAlignment) char small[tuning::kStackScratch];
  std::unique_ptr<char[]> large;
  void* scratch = small;
  if (bytes > sizeof(small)) {
    // Aligned by hand: what glibc before 2.38 allocates with an alignment it does not reuse once it
    // is freed, so that the heap would grow with every call.
    std::size_t space = bytes + kAlignment;
    large.reset(new char[space]);
    scratch = large.get();
    std::align(kAlignment, bytes, scratch, space);
  }

  if (tasks == 1) {
    for (std::int64_t unit = 0; unit < units; ++unit) work(unit, scratch);
    return;
  }
  struct Share {
    std::atomic<std::int64_t> next;
    std::int64_t end;
    char padding[kAlignment];  // so that no two counters are in one cache line
  };
  std::vector<Share> shares(static_cast<std::size_t>(tasks));
  for (std::int64_t task = 0; task < tasks; ++task) {
    shares[task].next = units * task / tasks;
    shares[task].end = units * (task + 1) / tasks;
  }
  struct Context {
    Share* shares;
    std::int64_t tasks;
    char* scratch;
    std::size_t slot;
    const Work* work;
  } context{shares.data(), tasks, static_cast<char*>(scratch), slot, &work};
  const auto body = [](std::int64_t task, void* opaque) {
    const auto& shared = *static_cast<const Context*>(opaque);
    void* const own = shared.scratch + static_cast<std::size_t>(task) * shared.slot;
    for (std::int64_t i = 0; i < shared.tasks; ++i) {
      Share& share = shared.shares[(task + i) % shared.tasks];
      while (true) {
        const std::int64_t unit = share.next.fetch_add(1, std::memory_order_relaxed);
        if (unit >= share.end) break;
        (*shared.work)(unit, own);
      }
    }
  };
  executor.parallel_for(tasks, body, &context);
}

}  // namespace spp_ext::cpu
