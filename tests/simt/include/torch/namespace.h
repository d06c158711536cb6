// Stands for csrc/torch/namespace.h: the emulated ops have a namespace of their own and take CPU tensors.
#pragma once

#define SPP_OP_NAMESPACE spp_ext_simt
#define SPP_CUDA_DISPATCH_KEY CPU
