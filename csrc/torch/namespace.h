// The namespace the ops are registered in; tests register them a second time, on emulated CUDA, in
// one of their own.
#pragma once

#ifndef SPP_OP_NAMESPACE
#define SPP_OP_NAMESPACE spp_ext
#endif
