// Launches a kernel on a CUDA stream.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "core/dispatch.h"
#include "core/integers.h"
#include "cuda/device.h"
#include "cuda/kernels.h"

namespace spp_ext::cuda {

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

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // The runtime remembers an error until it is asked. This one is reported here.
  std::string text = error == cudaErrorInsufficientDriver ? driver_fault() : "";
  if (text.empty()) text = std::string(what) + " failed: " + cudaGetErrorString(error);
  throw std::runtime_error("spp_ext: " + text);
}

// A grid has fewer blocks than asked for where there cannot be so many; kernels that may need more loop.
template <class... Params>
void launch(void (*kernel)(Params...), std::int64_t blocks, std::int64_t threads,
            std::int64_t shared_bytes, const Stream& stream, const Params&... params) {
  constexpr std::int64_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking) {
    // Asks for the most there is, not for what this launch needs: the attribute is the kernel's, and
    // another thread may be about to launch it with more.
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(stream.shared_bytes)),
          "asking for shared memory");
  }
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(std::clamp<std::int64_t>(blocks, 1, kInt32Max));
  config.blockDim = static_cast<unsigned>(threads);
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream.handle);
  check(cudaLaunchKernelEx(&config, kernel, params...), "a kernel launch");
}

}  // namespace spp_ext::cuda
