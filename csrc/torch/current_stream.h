// The stream torch is working on, for the device of a tensor; and that device made current while a
// call lasts.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>

#include <stdexcept>

#include "cuda/kernels.h"
#include "torch/tensors.h"

namespace spp_ext::binding {

class CurrentStream {
 public:
  explicit CurrentStream(const Tensor& like)
      : guard_(like.get_device_index()),
        stream(cuda::device_stream(like.get_device_index(), handle(like.get_device_index()))) {}

 private:
  // Looked up when first needed, not linked: it is in libtorch_cuda, which a CPU-only torch does
  // not have, and the library is to load there too. (The stream id of torch::stable is not a
  // stream.)
  static void* handle(std::int32_t device) {
    using Get = AOTITorchError (*)(std::int32_t, void**);
    static const auto get =
        reinterpret_cast<Get>(dlsym(RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream"));
    static const auto found = get != nullptr ? get : from_library();
    void* stream = nullptr;
    if (found == nullptr || found(device, &stream) != TORCH_SUCCESS) {
      throw std::runtime_error("spp_ext: torch has no current CUDA stream to work on");
    }
    return stream;
  }
  // torch loads its libraries privately; by name the one already in the process answers.
  static AOTITorchError (*from_library())(std::int32_t, void**) {
    void* const library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    if (library == nullptr) return nullptr;
    return reinterpret_cast<AOTITorchError (*)(std::int32_t, void**)>(
        dlsym(library, "aoti_torch_get_current_cuda_stream"));
  }

  torch::stable::accelerator::DeviceGuard guard_;  // of launches

 public:
  cuda::Stream stream;
};

}  // namespace spp_ext::binding
