// Stands for csrc/torch/current_stream.h: the emulation runs on the host's memory and has no streams.
#pragma once

#include "cuda/kernels.h"
#include "torch/tensors.h"

namespace spp_ext::binding {

struct CurrentStream {
  explicit CurrentStream(const Tensor&) : stream(cuda::device_stream(0, nullptr)) {}
  cuda::Stream stream;
};

}  // namespace spp_ext::binding
