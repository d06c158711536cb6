// Defines every op of the table.
#include <torch/csrc/stable/library.h>

#include "torch/namespace.h"
#include "torch/op_table.h"

STABLE_TORCH_LIBRARY(SPP_OP_NAMESPACE, library) {
#define SPP_DEFINE_POOLING(name, arguments)                             \
  library.def(#name "(" arguments ") -> Tensor");                       \
  library.def(#name "_with_argmax(" arguments ") -> (Tensor, Tensor)"); \
  library.def(#name ".out(" arguments ", *, Tensor(a!) out) -> Tensor(a!)");
  SPP_POOLING_OPS(SPP_DEFINE_POOLING)
#undef SPP_DEFINE_POOLING
#define SPP_DEFINE_LINEAR(name, arguments, result) library.def(#name "(" arguments ") -> " result);
  SPP_LINEAR_OPS(SPP_DEFINE_LINEAR)
#undef SPP_DEFINE_LINEAR
  library.def("cpu_instruction_set() -> str");
  library.def("cuda_driver_fault() -> str");  // empty where the driver fits
}
