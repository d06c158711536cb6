// Runs the units of a call on an executor's threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "cpu/kernels.h"

namespace spp_ext::cpu {

// Calls work(unit, scratch) for every unit in [0, units). Each task takes the next unit that is
// left, so that uneven units balance; its scratch, `scratch_bytes` on a cache line of its own, is
// there before any task runs.
template <class Work>
void run_units(std::int64_t units, std::size_t scratch_bytes, const Executor& executor,
               const Work& work) {
  if (units == 0) return;
  constexpr std::size_t kAlignment = 64;
  const std::int64_t tasks =
      executor.parallel_for == nullptr ? 1 : std::clamp<std::int64_t>(executor.threads, 1, units);
  const std::size_t slot = (scratch_bytes + kAlignment - 1) / kAlignment * kAlignment;
  const std::size_t bytes = slot * static_cast<std::size_t>(tasks);
  alignas(kAlignment) char small[8192];  // spares small maps an allocation
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

  struct Context {
    std::atomic<std::int64_t> next{0};
    std::int64_t units;
    char* scratch;
    std::size_t slot;
    const Work* work;
  } context;
  context.units = units;
  context.scratch = static_cast<char*>(scratch);
  context.slot = slot;
  context.work = &work;
  const auto body = [](std::int64_t task, void* opaque) {
    auto& shared = *static_cast<Context*>(opaque);
    void* const own = shared.scratch + static_cast<std::size_t>(task) * shared.slot;
    while (true) {
      const std::int64_t unit = shared.next.fetch_add(1, std::memory_order_relaxed);
      if (unit >= shared.units) return;
      (*shared.work)(unit, own);
    }
  };
  if (tasks == 1) return body(0, &context);
  executor.parallel_for(tasks, body, &context);
}

}  // namespace spp_ext::cpu
