// Registers every op of the table for one device.
//
// A Device has static functions pool_map, pool_regions, pool_stride1, gather and scatter on the
// parameter structs of core/params.h, each also given the op's name for errors and a tensor on the
// device; and check_regions, which may raise for regions that cannot be pooled.
#pragma once

#include "torch/gather_scatter_ops.h"
#include "torch/op_table.h"
#include "torch/pool_ops.h"

namespace spp_ext::binding {

template <class Device>
void register_ops(torch::stable::detail::StableLibrary& library) {
#define SPP_REGISTER_POOLING(name, arguments)                                              \
  library.impl(#name, TORCH_BOX(&Forms<&name<Device>>::values));                           \
  library.impl(#name "_with_argmax", TORCH_BOX(&Forms<&name<Device>>::values_and_argmax)); \
  library.impl(#name ".out", TORCH_BOX(&Forms<&name<Device>>::into));
  SPP_POOLING_OPS(SPP_REGISTER_POOLING)
#undef SPP_REGISTER_POOLING
#define SPP_REGISTER_LINEAR(name, arguments, result) library.impl(#name, TORCH_BOX(&name<Device>));
  SPP_LINEAR_OPS(SPP_REGISTER_LINEAR)
#undef SPP_REGISTER_LINEAR
}

}  // namespace spp_ext::binding
