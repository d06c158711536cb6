// Launches a kernel: on a CUDA stream, or in the emulation of tests/simt.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "core/dispatch.h"
#include "cuda/device.h"
#include "cuda/kernels.h"

namespace spp_ext::cuda {

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Calls f with the job's storage type and, as a constant, whether argmax is wanted.
template <class Job, class F>
void dispatch_job(const Job& job, const F& f) {
  dispatch(job.input.dtype, [&](auto storage) {
    if (job.argmax != nullptr) {
      f(storage, std::true_type{});
    } else {
      f(storage, std::false_type{});
    }
  });
}

// Kernels loop over their units, so a grid may be smaller than the work.
inline unsigned grid_of(std::int64_t units) {
  return static_cast<unsigned>(std::clamp<std::int64_t>(units, 1, 2147483647));
}

#if defined(SPP_SIMT)

template <class... Params>
void launch(void (*kernel)(Params...), std::int64_t blocks, std::int64_t threads,
            std::int64_t shared_bytes, const Stream&, const Params&... params) {
  simt::launch(dim3(grid_of(blocks)), dim3(static_cast<unsigned>(threads)),
               static_cast<std::size_t>(shared_bytes), kernel, params...);
}

#else

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("spp_ext: ") + what +
                             " failed: " + cudaGetErrorString(error));
  }
}

template <class... Params>
void launch(void (*kernel)(Params...), std::int64_t blocks, std::int64_t threads,
            std::int64_t shared_bytes, const Stream& stream, const Params&... params) {
  constexpr std::int64_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking) {
    // The most there is, not what this launch needs: the attribute is the kernel's, and another
    // thread may be about to launch it with more.
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(stream.shared_bytes)),
          "asking for shared memory");
  }
  kernel<<<grid_of(blocks), static_cast<unsigned>(threads), static_cast<std::size_t>(shared_bytes),
           static_cast<cudaStream_t>(stream.handle)>>>(params...);
  check(cudaGetLastError(), "a kernel launch");
}

#endif

}  // namespace spp_ext::cuda
