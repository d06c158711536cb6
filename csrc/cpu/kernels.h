// The CPU kernels on raw pointers. No torch, no Python; the caller brings the memory and the
// threads.
#pragma once

#include <cstdint>

#include "core/params.h"

namespace spp_ext::cpu {

// How to run tasks in parallel. `parallel_for` calls body(task, context) once for each task in [0,
// tasks), on any threads, and returns when all are done; with a null `parallel_for` the tasks run
// one after another. Results never depend on either field.
struct Executor {
  std::int64_t threads = 1;
  void (*parallel_for)(std::int64_t tasks, void (*body)(std::int64_t task, void* context),
                       void* context) = nullptr;
};

// The first row that cannot be pooled, if any.
struct RoiFault {
  enum class Kind { kNone, kMapIndex, kBatchIndex, kNotFinite };
  Kind kind = Kind::kNone;
  std::int64_t row = 0;
  std::int32_t column = 0;
  double value = 0;
};
RoiFault find_roi_fault(const Regions& regions, std::int64_t batch);

// Regions must have no fault. Throws std::bad_alloc when there is no memory for scratch.
void pool_map(const MapPoolParams& params, const Executor& executor);
void pool_regions(const RegionPoolParams& params, const Executor& executor);
void pool_stride1(const Stride1Params& params, const Executor& executor);

// Both return the number of an element whose argmax lies neither in the plane nor at -1, or -1 when
// all are sound. Such an element is skipped: nothing outside a plane is touched.
std::int64_t gather(const GatherParams& params, const Executor& executor);
std::int64_t scatter(const ScatterParams& params, const Executor& executor);

// "avx512", "avx2" or "baseline": the best this processor can run, or what the environment variable
// SPP_EXT_INSTRUCTION_SET names, if the processor can run that.
const char* instruction_set();

}  // namespace spp_ext::cpu
