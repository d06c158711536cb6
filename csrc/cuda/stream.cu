// Asks the CUDA runtime what launches need to know of the device.
#include "cuda/kernels.h"
#include "cuda/launch.h"

namespace spp_ext::cuda {

Stream current_device_stream(void* handle) {
  int device = 0, sms = 0, shared_bytes = 0;
  check(cudaGetDevice(&device), "asking for the current device");
  check(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device),
        "asking for the multiprocessors");
  check(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "asking for the shared memory");
  return {handle, sms, shared_bytes};
}

}  // namespace spp_ext::cuda
