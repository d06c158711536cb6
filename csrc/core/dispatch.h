// From a run-time element type to a compile-time one. Host code.
#pragma once

#include "core/scalar.h"

namespace spp_ext {

// Calls f with a value of the storage type that `dtype` names. Forced inline for the reason given
// in host_device.h.
template <class F>
inline __attribute__((always_inline)) auto dispatch(DType dtype, const F& f) {
  switch (dtype) {
    case DType::kFloat64:
      return f(double{});
    case DType::kFloat16:
      return f(Half{});
    case DType::kBFloat16:
      return f(BFloat16{});
    case DType::kFloat32:
      break;
  }
  return f(float{});
}

}  // namespace spp_ext
