// Asks for huge pages behind a fresh result. The first write to a page makes the system map and
// clear it; for results of tens of megabytes that takes several times as long as the pooling, and
// with huge pages a fraction of it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/tuning.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace spp_ext::cpu {

// A hint about whole huge pages inside the memory: no byte of it or around it changes, and failure
// is harmless.
inline void advise_huge_pages(void* memory, std::int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t kHugePage = std::uintptr_t{2} << 20;
  if (memory == nullptr || bytes < tuning::kHugePageResult) return;
  const std::uintptr_t begin =
      (reinterpret_cast<std::uintptr_t>(memory) + kHugePage - 1) & ~(kHugePage - 1);
  const std::uintptr_t end =
      (reinterpret_cast<std::uintptr_t>(memory) + static_cast<std::uintptr_t>(bytes)) &
      ~(kHugePage - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

}  // namespace spp_ext::cpu
