// What an op requires of its arguments, written once for every op and every device. Each check names
// the op and the argument, what was expected and what came, and returns what the kernels take.
#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/integers.h"
#include "core/params.h"
#include "cpu/kernels.h"
#include "torch/tensors.h"

namespace spp_ext::binding {

inline DType checked_dtype(const char* op, const std::string& name, const Tensor& tensor) {
  const std::optional<DType> dtype = dtype_of(tensor);
  if (!dtype) {
    fail(op, "expected " + name + " of dtype float32, float64, float16 or bfloat16, got " +
                 dtype_name(tensor));
  }
  return *dtype;
}

inline void check_same_device(const char* op, const char* name, const Tensor& tensor,
                              const char* other_name, const Tensor& other) {
  if (device_type_of(tensor) != device_type_of(other) ||
      tensor.get_device_index() != other.get_device_index()) {
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

// ---- maps ----

// A feature map, and the tensor that keeps its memory alive. It has no data until it is `settled`.
struct HeldMap {
  Tensor tensor;
  FeatureMap map;
};

// Gives a map its data, of a copy where the tensor is in neither of the two layouts. Called last: what
// cannot be pooled, or has no room for its result, is refused before anything is copied.
inline void settle(const char* op, Tensor& tensor, FeatureMap& map) {
  if (map.layout == Layout::kContiguous) tensor = as_contiguous(op, tensor);
  map.data = tensor.const_data_ptr();
}

// A [N, C, H, W] tensor.
inline HeldMap checked_map(const char* op, const std::string& name, const Tensor& tensor) {
  const DType dtype = checked_dtype(op, name, tensor);
  if (tensor.dim() != 4) {
    fail(op, "expected " + name + " of shape [N, C, H, W], got " + shape_of(tensor));
  }
  const std::int64_t height = tensor.size(2), width = tensor.size(3);
  if (height == 0 || width == 0) {
    fail(op, "expected " + name + " with at least one row and one column, got " + shape_of(tensor));
  }
  if (height > kInt32Max / width) {
    fail(op,
         "expected " + name + " with fewer than 2^31 cells in a plane, got " + shape_of(tensor));
  }
  const Layout layout = is_channels_last(tensor) ? Layout::kChannelsLast : Layout::kContiguous;
  return {tensor, {nullptr, dtype, layout, tensor.size(0), tensor.size(1), height, width}};
}

// Where the maps of one call are: one, or several that differ in nothing but H, W and layout.
struct Maps {
  Tensor* tensors;   // [count]
  FeatureMap* data;  // [count]
  std::size_t count;
  const char* first_name;  // in errors
  const Tensor& first_tensor;

  void settle(const char* op) const {
    for (std::size_t m = 0; m < count; ++m) binding::settle(op, tensors[m], data[m]);
  }
};

// Several feature maps, which differ in nothing but H, W and layout.
struct HeldMaps {
  std::vector<Tensor> tensors;
  std::vector<FeatureMap> maps;
};

inline HeldMaps checked_maps(const char* op, const std::string& name,
                             const std::vector<Tensor>& tensors) {
  if (tensors.empty()) fail(op, "expected at least one map in " + name + ", got none");
  HeldMaps held;
  for (std::size_t m = 0; m < tensors.size(); ++m) {
    const std::string its_name = name + "[" + std::to_string(m) + "]";
    HeldMap one = checked_map(op, its_name, tensors[m]);
    check_same_device(op, its_name.c_str(), tensors[m], (name + "[0]").c_str(), tensors[0]);
    held.tensors.push_back(std::move(one.tensor));
    held.maps.push_back(one.map);
    const FeatureMap &map = held.maps[m], &first = held.maps[0];
    if (map.batch != first.batch || map.channels != first.channels) {
      fail(op, "expected maps of one batch size and number of channels, got " + name +
                   "[0] of shape " + shape_of(tensors[0]) + " and " + its_name + " of shape " +
                   shape_of(tensors[m]));
    }
    if (map.dtype != first.dtype) {
      fail(op, "expected maps of one dtype, got " + name + "[0] of " + dtype_name(tensors[0]) +
                   " and " + its_name + " of " + dtype_name(tensors[m]));
    }
  }
  return held;
}

// The map that a gradient of size [N, C, H, W] belongs to; it has no data.
inline FeatureMap checked_gradient_map(const char* op, DType dtype, const std::int64_t* size,
                                       bool channels_last) {
  const std::int64_t n = size[0], c = size[1], h = size[2], w = size[3];
  if (n < 0 || c < 0 || h < 1 || w < 1 || h > kInt32Max / w) {
    fail(op, "expected input_size with N, C >= 0 and H, W >= 1 and H * W < 2^31");
  }
  checked_product(op, "a gradient", {n, c, h, w});
  return {nullptr, dtype, channels_last ? Layout::kChannelsLast : Layout::kContiguous, n, c, h, w};
}

// ---- regions ----

// The regions of one call; the tensors keep their memory alive. Without data until they are settled, as a map.
struct HeldRegions {
  Tensor rois;
  std::optional<Tensor> map_indices;
  Regions regions;

  void settle(const char* op) {
    rois = as_contiguous(op, rois);
    regions.rois = rois.const_data_ptr();
    if (!map_indices) return;
    map_indices = as_contiguous(op, *map_indices);
    regions.map_indices = static_cast<const std::int64_t*>(map_indices->const_data_ptr());
  }
};

inline HeldRegions checked_regions(const char* op, const Tensor& rois,
                                   const std::optional<Tensor>& map_indices, std::size_t num_maps) {
  const DType dtype = checked_dtype(op, "boxes", rois);
  if (rois.dim() != 2 || rois.size(1) != 5) {
    fail(op, "expected boxes of shape [K, 5] (batch_index, x1, y1, x2, y2), got " + shape_of(rois));
  }
  if (rois.size(0) > kInt32Max) fail(op, "expected fewer than 2^31 boxes, got " + shape_of(rois));
  const HeldRegions held{rois,
                         map_indices,
                         {nullptr, dtype, rois.size(0), RoiConvention::kRoiPool, nullptr,
                          static_cast<std::int64_t>(num_maps)}};
  if (!map_indices) return held;
  check_same_device(op, "map_indices", *map_indices, "boxes", rois);
  if (map_indices->scalar_type() != ScalarType::Long) {
    fail(op, "expected map_indices of dtype torch.int64, got " + dtype_name(*map_indices));
  }
  if (map_indices->dim() != 1 || map_indices->size(0) != held.regions.count) {
    fail(op, "expected map_indices of shape [" + std::to_string(held.regions.count) +
                 "], one for each of the boxes, got " + shape_of(*map_indices));
  }
  return held;
}

inline RoiConvention checked_convention(const char* op, std::int64_t number) {
  if (number < 0 || number >= kNumConventions) {
    fail(op, "expected convention from 0 to " + std::to_string(kNumConventions - 1) + ", got " +
                 std::to_string(number));
  }
  return static_cast<RoiConvention>(number);
}

inline void check_scale(const char* op, double spatial_scale) {
  if (!(spatial_scale > 0) || !std::isfinite(static_cast<float>(spatial_scale))) {
    fail(op, "expected spatial_scale to be a positive finite number, got " +
                 std::to_string(spatial_scale));
  }
}

// Raises for the first region that cannot be pooled. The memory of `regions` is the host's.
inline void check_contents(const char* op, const Regions& regions, std::int64_t batch) {
  const cpu::RoiFault fault = cpu::find_roi_fault(regions, batch);
  if (fault.kind == cpu::RoiFault::Kind::kNone) return;
  std::string value = std::to_string(fault.value);
  const std::string row = std::to_string(fault.row);
  if (fault.kind == cpu::RoiFault::Kind::kMapIndex) {
    fail<std::out_of_range>(
        op, "expected map_indices from 0 to " + std::to_string(regions.num_maps - 1) + ", got " +
                std::to_string(regions.map_indices[fault.row]) + " in row " + row);
  }
  if (fault.kind == cpu::RoiFault::Kind::kNotFinite) {
    constexpr const char* kColumns[] = {"batch index", "x1", "y1", "x2", "y2"};
    fail(op, std::string("expected finite boxes, got ") + kColumns[fault.column] + " = " + value +
                 " in row " + row);
  }
  if (batch == 0) {
    fail<std::out_of_range>(
        op, "expected no boxes where there are no images, got " + std::to_string(regions.count));
  }
  value.erase(value.find_last_not_of('0') + 1);  // 5.000000 is 5
  if (value.back() == '.') value.pop_back();
  fail<std::out_of_range>(op, "expected batch indices of boxes from 0 to " +
                                  std::to_string(batch - 1) + ", got " + value + " in row " + row);
}

// ---- levels ----

inline Pyramid checked_pyramid(const char* op, const std::vector<std::int64_t>& levels,
                               bool derive = true) {
  try {
    return Pyramid(levels.data(), levels.size(), derive);
  } catch (const std::invalid_argument& error) {
    fail(op, error.what());
  } catch (const std::bad_alloc&) {
    fail_to_allocate(op, "the memory of its levels");
  }
}

inline std::vector<RowLevel> checked_row_levels(const char* op,
                                                const std::vector<std::int64_t>& level_bins) {
  std::vector<RowLevel> levels;
  levels.reserve(level_bins.size());
  std::int64_t bins = 0;
  for (const std::int64_t level : level_bins) {
    if (level < 1 || level > kInt32Max - bins)
      fail(op, "expected level_bins of at least 1 that sum to less than 2^31");
    levels.push_back({static_cast<std::int32_t>(bins), static_cast<std::int32_t>(level)});
    bins += level;
  }
  return levels;
}

inline void check_kernel_sizes(const char* op, const std::vector<std::int64_t>& kernel_sizes) {
  std::int64_t last = 1;
  for (const std::int64_t size : kernel_sizes) {
    if (size < last || size % 2 == 0 || size > kMaxDivisions) {
      fail(op, "expected kernel_sizes to be odd, ascending and at most 2^20, got " +
                   std::to_string(size));
    }
    last = size;
  }
}

}  // namespace spp_ext::binding
