// Between torch tensors and what the kernels take: element types, layouts and allocation. With the
// rest of this folder the only part of the library that knows what a tensor is.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/params.h"
#include "torch/errors.h"

namespace spp_ext::binding {

using IntArrayRef = torch::headeronly::IntHeaderOnlyArrayRef;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string shown(IntArrayRef numbers) {
  std::string text = "[";
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(numbers[i]);
  }
  return text + "]";
}

inline std::string shape_of(const Tensor& tensor) { return shown(tensor.sizes()); }

// ---- types and devices ----

// As torch shows it in Python, for errors: torch.float32, where C++ says Float.
inline std::string dtype_name(const Tensor& tensor) {
  const ScalarType type = tensor.scalar_type();
  constexpr struct {
    ScalarType type;
    const char* name;
  } kOtherNames[] = {{ScalarType::Byte, "uint8"},
                     {ScalarType::Char, "int8"},
                     {ScalarType::Short, "int16"},
                     {ScalarType::Int, "int32"},
                     {ScalarType::Long, "int64"},
                     {ScalarType::Half, "float16"},
                     {ScalarType::Float, "float32"},
                     {ScalarType::Double, "float64"},
                     {ScalarType::ComplexHalf, "complex32"},
                     {ScalarType::ComplexFloat, "complex64"},
                     {ScalarType::ComplexDouble, "complex128"}};
  for (const auto& other : kOtherNames) {
    if (other.type == type) return std::string("torch.") + other.name;
  }
  std::string name = torch::headeronly::toString(type);  // BFloat16, Float8_e5m2, Bool, ...
  for (char& letter : name) letter = letter >= 'A' && letter <= 'Z' ? letter - 'A' + 'a' : letter;
  return "torch." + name;
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

inline std::int32_t shim_dtype_of(const Tensor& tensor) {
  std::int32_t dtype = 0;
  aoti_torch_get_dtype(tensor.get(), &dtype);
  return dtype;
}

inline std::int32_t device_type_of(const Tensor& tensor) {
  std::int32_t type = 0;
  aoti_torch_get_device_type(tensor.get(), &type);
  return type;
}

// ---- layouts ----

// The strides of a dense [N, C, H, W]; they do not depend on which sizes are 0 or 1.
inline std::array<std::int64_t, 4> strides_of(const FeatureMap& map) {
  const std::int64_t c = map.channels, h = map.height, w = map.width;
  if (map.layout == Layout::kChannelsLast) return {h * w * c, 1, w * c, c};
  return {c * h * w, h * w, w, 1};
}

// Strides alone tell the layout: the stable ABI's is_contiguous knows no memory format. A dimension
// of size 1 is never stepped along, so its stride says nothing.
inline bool is_laid_out(IntArrayRef sizes, IntArrayRef strides, IntArrayRef expected) {
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] != 1 && strides[d] != expected[d]) return false;
  }
  return true;
}
inline bool is_channels_last(const Tensor& tensor) {
  if (tensor.is_contiguous()) return false;
  const IntArrayRef sizes = tensor.sizes();
  const std::array<std::int64_t, 4> expected = strides_of(
      {nullptr, DType::kFloat32, Layout::kChannelsLast, sizes[0], sizes[1], sizes[2], sizes[3]});
  return is_laid_out(sizes, tensor.strides(), IntArrayRef(expected.data(), expected.size()));
}

// The copy that `copy()` makes, of which torch's own failure would name a file of its headers.
template <class Copy>
Tensor copied(const char* op, const Copy& copy) {
  try {
    return copy();
  } catch (const std::runtime_error&) {
    fail_as_torch_did(op, "the memory of a copy");
  }
}

// A tensor in one of the two layouts; copies where it is in neither.
inline Tensor as_contiguous(const char* op, const Tensor& tensor) {
  if (tensor.is_contiguous()) return tensor;
  return copied(op, [&] { return torch::stable::contiguous(tensor); });
}
inline Tensor as_channels_last(const char* op, const Tensor& tensor) {
  if (is_channels_last(tensor)) return tensor;
  return copied(op, [&] {
    return torch::stable::contiguous(tensor, torch::headeronly::MemoryFormat::ChannelsLast);
  });
}

// ---- allocation ----

// An uninitialised tensor on the device of `like`. Straight to the C function: a call through the
// dispatcher by name costs more than pooling a small map.
inline Tensor empty_strided(const char* op, IntArrayRef sizes, IntArrayRef strides,
                            std::int32_t dtype, const Tensor& like) {
  AtenTensorHandle handle = nullptr;
  if (aoti_torch_empty_strided(static_cast<std::int64_t>(sizes.size()), sizes.data(),
                               strides.data(), dtype, device_type_of(like), like.get_device_index(),
                               &handle) != TORCH_SUCCESS) {
    fail_as_torch_did(op, "the memory of its result");
  }
  return Tensor(handle);
}

// [rows, columns], contiguous.
inline Tensor empty_matrix(const char* op, std::int64_t rows, std::int64_t columns,
                           std::int32_t dtype, const Tensor& like) {
  return empty_strided(op, {rows, columns}, {columns < 1 ? 1 : columns, 1}, dtype, like);
}

// [N, C, H, W] of the shape and the layout of `map`.
inline Tensor empty_map(const char* op, const FeatureMap& map, std::int32_t dtype,
                        const Tensor& like) {
  const std::array<std::int64_t, 4> strides = strides_of(map);
  return empty_strided(op, {map.batch, map.channels, map.height, map.width},
                       IntArrayRef(strides.data(), strides.size()), dtype, like);
}

}  // namespace spp_ext::binding
