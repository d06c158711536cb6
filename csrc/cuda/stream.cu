// What launches need to know of the device.
#include "cuda/kernels.h"
#include "cuda/launch.h"

namespace spp_ext::cuda {

#if defined(SPP_SIMT)

// A small device, so that small tests have blocks with several units of work.
Stream current_device_stream(void* handle) { return {handle, 2, 64 * 1024}; }

#else

Stream current_device_stream(void* handle) {
  int device = 0, sms = 0, shared_bytes = 0;
  check(cudaGetDevice(&device), "asking for the current device");
  check(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device),
        "asking for the multiprocessors");
  check(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "asking for the shared memory");
  return {handle, sms, shared_bytes};
}

#endif

}  // namespace spp_ext::cuda
