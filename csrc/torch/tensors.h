// Between torch tensors and what the kernels take: element types, layouts, allocation, and errors
// that say what was expected and what came. The only part of the library, with the rest of ops/,
// that knows what a tensor is.
//
// Errors are standard exceptions, which torch turns into Python's: invalid_argument into
// ValueError, out_of_range into IndexError. torch's own check macro would print the path of this
// file at every user.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/params.h"

namespace spp_ext::binding {

using IntArrayRef = torch::headeronly::IntHeaderOnlyArrayRef;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class Error = std::invalid_argument>
[[noreturn]] void fail(const char* op, const std::string& sentence) {
  throw Error("spp_ext." + std::string(op) + ": " + sentence);
}

inline std::string shape_of(const Tensor& tensor) {
  std::string text = "[";
  for (std::int64_t d = 0; d < tensor.dim(); ++d) {
    text += (d == 0 ? "" : ", ") + std::to_string(tensor.size(d));
  }
  return text + "]";
}

inline std::optional<DType> dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Double:
      return DType::kFloat64;
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    default:
      return std::nullopt;
  }
}

inline DType checked_dtype(const char* op, const char* name, const Tensor& tensor) {
  const std::optional<DType> dtype = dtype_of(tensor);
  if (!dtype) {
    fail(op, std::string("expected ") + name +
                 " of dtype float32, float64, float16 or bfloat16, got " +
                 torch::headeronly::toString(tensor.scalar_type()));
  }
  return *dtype;
}

inline void check_same_device(const char* op, const char* name, const Tensor& tensor,
                              const char* other_name, const Tensor& other) {
  if (tensor.is_cpu() != other.is_cpu() || tensor.get_device_index() != other.get_device_index()) {
    fail(op, std::string("expected ") + name + " and " + other_name + " on one device, got two");
  }
}

// Products of sizes that a caller chose can pass 2^63.
inline std::int64_t checked_product(const char* op, const char* what,
                                    std::initializer_list<std::int64_t> sizes) {
  std::int64_t product = 1;
  bool empty = false;
  for (const std::int64_t size : sizes) {
    // A size of 0 makes an empty tensor, whose other sizes and strides must be whole all the same.
    if (__builtin_mul_overflow(product, size == 0 ? 1 : size, &product) ||
        product > (std::int64_t{1} << 60)) {
      fail(op, std::string("expected ") + what + " of fewer than 2^60 elements, got more");
    }
    empty = empty || size == 0;
  }
  return empty ? 0 : product;
}

// An uninitialised tensor on the device of `like`. Straight to the C function: a call through the
// dispatcher by name costs more than pooling a small map.
inline Tensor empty_strided(const char* op, IntArrayRef sizes, IntArrayRef strides,
                            std::int32_t dtype, const Tensor& like) {
  std::int32_t device_type = 0;
  aoti_torch_get_device_type(like.get(), &device_type);
  AtenTensorHandle handle = nullptr;
  if (aoti_torch_empty_strided(static_cast<std::int64_t>(sizes.size()), sizes.data(),
                               strides.data(), dtype, device_type, like.get_device_index(),
                               &handle) != TORCH_SUCCESS) {
    fail<std::runtime_error>(op, "could not allocate the memory of its result");
  }
  return Tensor(handle);
}

inline std::int32_t shim_dtype_of(const Tensor& tensor) {
  std::int32_t dtype = 0;
  aoti_torch_get_dtype(tensor.get(), &dtype);
  return dtype;
}

// [rows, columns], contiguous.
inline Tensor empty_matrix(const char* op, std::int64_t rows, std::int64_t columns,
                           std::int32_t dtype, const Tensor& like) {
  return empty_strided(op, {rows, columns}, {columns < 1 ? 1 : columns, 1}, dtype, like);
}

// Strides alone tell the layout: the stable ABI's is_contiguous knows no memory format. A dimension
// of size 1 is never stepped along, so its stride says nothing.
inline bool is_channels_last(const Tensor& tensor) {
  const std::int64_t channels = tensor.size(1), width = tensor.size(3);
  const auto steps = [&](std::int64_t dim, std::int64_t expected) {
    return tensor.size(dim) == 1 || tensor.stride(dim) == expected;
  };
  return steps(1, 1) && steps(3, channels) && steps(2, width * channels) &&
         steps(0, tensor.size(2) * width * channels);
}

// Copies where the layout is another. torch's own failure would name a file of its headers.
inline Tensor copied(const char* op, const Tensor& tensor, torch::headeronly::MemoryFormat format) {
  try {
    return torch::stable::contiguous(tensor, format);
  } catch (const std::runtime_error&) {
    fail<std::runtime_error>(op, "could not allocate the memory of a copy");
  }
}
inline Tensor as_contiguous(const char* op, const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor
                                : copied(op, tensor, torch::headeronly::MemoryFormat::Contiguous);
}
inline Tensor as_channels_last(const char* op, const Tensor& tensor) {
  if (!tensor.is_contiguous() && is_channels_last(tensor)) return tensor;
  return copied(op, tensor, torch::headeronly::MemoryFormat::ChannelsLast);
}

// A feature map, and the tensor that keeps its memory alive.
struct HeldMap {
  Tensor tensor;
  FeatureMap map;
};

// Checks a [N, C, H, W] tensor; a layout that is neither of the two is made contiguous.
inline HeldMap feature_map(const char* op, const char* name, const Tensor& tensor) {
  const DType dtype = checked_dtype(op, name, tensor);
  if (tensor.dim() != 4) {
    fail(op, std::string("expected ") + name + " of shape [N, C, H, W], got " + shape_of(tensor));
  }
  const std::int64_t height = tensor.size(2), width = tensor.size(3);
  if (height == 0 || width == 0) {
    fail(op, std::string("expected ") + name + " with at least one row and one column, got " +
                 shape_of(tensor));
  }
  if (height > 2147483647 / width) {
    fail(op, std::string("expected ") + name + " with fewer than 2^31 cells in a plane, got " +
                 shape_of(tensor));
  }
  const bool contiguous = tensor.is_contiguous();
  const bool channels_last = !contiguous && is_channels_last(tensor);
  HeldMap held{channels_last ? tensor : as_contiguous(op, tensor), {}};
  held.map = {held.tensor.const_data_ptr(),
              dtype,
              channels_last ? Layout::kChannelsLast : Layout::kContiguous,
              tensor.size(0),
              tensor.size(1),
              height,
              width};
  return held;
}

// Checks feature maps that differ in nothing but H, W and layout.
inline std::vector<HeldMap> feature_maps(const char* op, const std::string& name,
                                         const std::vector<Tensor>& tensors) {
  if (tensors.empty()) fail(op, "expected at least one map in " + name + ", got none");
  std::vector<HeldMap> held;
  for (std::size_t m = 0; m < tensors.size(); ++m) {
    const std::string its_name = name + "[" + std::to_string(m) + "]";
    held.push_back(feature_map(op, its_name.c_str(), tensors[m]));
    check_same_device(op, its_name.c_str(), tensors[m], (name + "[0]").c_str(), tensors[0]);
    const FeatureMap &map = held[m].map, &first = held[0].map;
    if (map.batch != first.batch || map.channels != first.channels) {
      fail(op, "expected maps of one batch size and number of channels, got " + name +
                   "[0] of shape " + shape_of(tensors[0]) + " and " + its_name + " of shape " +
                   shape_of(tensors[m]));
    }
    if (map.dtype != first.dtype) {
      fail(op, "expected maps of one dtype, got " + name + "[0] of " +
                   torch::headeronly::toString(tensors[0].scalar_type()) + " and " + its_name +
                   " of " + torch::headeronly::toString(tensors[m].scalar_type()));
    }
  }
  return held;
}

}  // namespace spp_ext::binding
