// Asks the CUDA runtime what launches need to know of the device and its driver.
#include "cuda/kernels.h"
#include "cuda/launch.h"

namespace spp_ext::cuda {

Stream device_stream(int device, void* handle) {
  int sms = 0, shared_bytes = 0;
  check(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device),
        "asking for the multiprocessors");
  check(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "asking for the shared memory");
  return {handle, sms, shared_bytes};
}

std::string driver_fault() {
  int driver = 0, runtime = 0;  // 13000 is CUDA 13.0; a driver of 0 is none
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  // A driver runs every runtime of its major version, and of those before.
  if (driver / 1000 >= runtime / 1000) return "";
  const auto text = [](int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
  };
  return "expected a driver for CUDA " + std::to_string(runtime / 1000) +
         ".0 or newer, as these kernels were built with CUDA " + text(runtime) + ", got " +
         (driver == 0 ? "none" : "one for CUDA " + text(driver));
}

}  // namespace spp_ext::cuda
