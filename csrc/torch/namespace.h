// Under which names the ops are registered with torch, and for which device the CUDA kernels are.
#pragma once

#define SPP_OP_NAMESPACE spp_ext
#define SPP_CUDA_DISPATCH_KEY CUDA
