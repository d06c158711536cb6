// The pooling ops, written once for every device: checks, allocation, and a call of the device's
// kernels.
#pragma once

#include <cmath>

#include "torch/tensors.h"

namespace spp_ext::binding {

inline Pyramid checked_pyramid(const char* op, const std::vector<std::int64_t>& levels,
                               bool derive = true) {
  try {
    return Pyramid(levels.data(), levels.size(), derive);
  } catch (const std::invalid_argument& error) {
    fail(op, error.what());
  }
}

inline RoiConvention checked_convention(const char* op, std::int64_t number) {
  constexpr auto last = static_cast<std::int64_t>(RoiConvention::kTorchvision);
  if (number < 0 || number > last) {
    fail(op, "expected convention from 0 to " + std::to_string(last) + ", got " +
                 std::to_string(number));
  }
  return static_cast<RoiConvention>(number);
}

// The rois of one op; the tensors keep their memory alive.
struct HeldRegions {
  Tensor tensor;
  Regions regions;
  std::optional<Tensor> map_indices;
};

inline HeldRegions checked_regions(const char* op, const Tensor& rois) {
  const DType dtype = checked_dtype(op, "boxes", rois);
  if (rois.dim() != 2 || rois.size(1) != 5) {
    fail(op, "expected boxes of shape [K, 5] (batch_index, x1, y1, x2, y2), got " + shape_of(rois));
  }
  if (rois.size(0) > 2147483647) fail(op, "expected fewer than 2^31 boxes, got " + shape_of(rois));
  HeldRegions held{as_contiguous(op, rois), {}, std::nullopt};
  held.regions = {held.tensor.const_data_ptr(), dtype, rois.size(0), 1.0, RoiConvention::kRoiPool};
  return held;
}

inline double checked_scale(const char* op, double spatial_scale) {
  if (!(spatial_scale > 0) || !std::isfinite(static_cast<float>(spatial_scale))) {
    fail(op, "expected spatial_scale to be a positive finite number, got " +
                 std::to_string(spatial_scale));
  }
  return spatial_scale;
}

// Says which of `maps` maps each region is drawn from.
inline void choose_maps(const char* op, const Tensor& map_indices, std::size_t maps,
                        HeldRegions& held) {
  check_same_device(op, "map_indices", map_indices, "boxes", held.tensor);
  if (map_indices.scalar_type() != ScalarType::Long) {
    fail(op, std::string("expected map_indices of dtype int64, got ") +
                 torch::headeronly::toString(map_indices.scalar_type()));
  }
  if (map_indices.dim() != 1 || map_indices.size(0) != held.regions.count) {
    fail(op, "expected map_indices of shape [" + std::to_string(held.regions.count) +
                 "], one for each of the boxes, got " + shape_of(map_indices));
  }
  held.map_indices = as_contiguous(op, map_indices);
  held.regions.map_indices = static_cast<const std::int64_t*>(held.map_indices->const_data_ptr());
  held.regions.maps = static_cast<std::int64_t>(maps);
}

struct Pooled {
  Tensor output;
  std::optional<Tensor> argmax;
};

inline Pooled allocate_pooled(const char* op, std::int64_t rows, const FeatureMap& map,
                              std::int64_t bins, bool with_argmax, const Tensor& like) {
  checked_product(op, "an output", {rows, map.channels, bins});
  const std::int64_t columns = map.channels * bins;
  Pooled pooled{empty_matrix(op, rows, columns, shim_dtype_of(like), like), std::nullopt};
  if (with_argmax) pooled.argmax = empty_matrix(op, rows, columns, aoti_torch_dtype_int32(), like);
  return pooled;
}

inline std::int32_t* argmax_data(const Pooled& pooled) {
  return pooled.argmax ? static_cast<std::int32_t*>(pooled.argmax->mutable_data_ptr()) : nullptr;
}

template <class Device>
Pooled pool_map(const Tensor& input, const std::vector<std::int64_t>& levels, bool with_argmax) {
  constexpr const char* op = "spatial_pyramid_pool";
  const HeldMap held = feature_map(op, "input", input);
  const Pyramid pyramid = checked_pyramid(op, levels);
  const Pooled pooled =
      allocate_pooled(op, held.map.batch, held.map, pyramid.view().bins, with_argmax, input);
  if (pooled.output.numel() > 0) {
    Device::pool_map(
        op, {held.map, pyramid.view(), pooled.output.mutable_data_ptr(), argmax_data(pooled)},
        input);
  }
  return pooled;
}

template <class Device>
Pooled pool_regions(const Tensor& input, const Tensor& rois,
                    const std::vector<std::int64_t>& levels, double spatial_scale,
                    std::int64_t convention, bool validate, bool with_argmax) {
  constexpr const char* op = "roi_spatial_pyramid_pool";
  const HeldMap held = feature_map(op, "input", input);
  check_same_device(op, "input", input, "boxes", rois);
  HeldRegions regions = checked_regions(op, rois);
  regions.regions.spatial_scale = checked_scale(op, spatial_scale);
  regions.regions.convention = checked_convention(op, convention);
  const Pyramid pyramid =
      checked_pyramid(op, levels, regions.regions.convention != RoiConvention::kTorchvision);
  Device::check_regions(op, regions, held.map.batch, validate);
  const Pooled pooled =
      allocate_pooled(op, regions.regions.count, held.map, pyramid.view().bins, with_argmax, input);
  if (pooled.output.numel() > 0) {
    Device::pool_regions(op,
                         {held.map, regions.regions, pyramid.view(),
                          pooled.output.mutable_data_ptr(), argmax_data(pooled)},
                         input);
  }
  return pooled;
}

// Each region from the map that map_indices [K] names; the kernels are called for one map after
// another, and each call writes the rows of its own.
template <class Device>
Pooled pool_regions_of_maps(const std::vector<Tensor>& inputs, const Tensor& rois,
                            const Tensor& map_indices, const std::vector<std::int64_t>& levels,
                            const std::vector<double>& spatial_scales, std::int64_t convention,
                            bool validate, bool with_argmax) {
  constexpr const char* op = "roi_spatial_pyramid_pool";
  const std::vector<HeldMap> maps = feature_maps(op, "input", inputs);
  check_same_device(op, "input[0]", inputs[0], "boxes", rois);
  HeldRegions regions = checked_regions(op, rois);
  choose_maps(op, map_indices, maps.size(), regions);
  if (spatial_scales.size() != maps.size()) {
    fail(op, "expected a spatial_scale for each of " + std::to_string(maps.size()) + " maps, got " +
                 std::to_string(spatial_scales.size()));
  }
  for (const double spatial_scale : spatial_scales) checked_scale(op, spatial_scale);
  regions.regions.convention = checked_convention(op, convention);
  const Pyramid pyramid =
      checked_pyramid(op, levels, regions.regions.convention != RoiConvention::kTorchvision);
  Device::check_regions(op, regions, maps[0].map.batch, validate);
  const Pooled pooled = allocate_pooled(op, regions.regions.count, maps[0].map, pyramid.view().bins,
                                        with_argmax, inputs[0]);
  if (pooled.output.numel() == 0) return pooled;
  for (std::size_t m = 0; m < maps.size(); ++m) {
    regions.regions.map = static_cast<std::int64_t>(m);
    regions.regions.spatial_scale = spatial_scales[m];
    Device::pool_regions(op,
                         {maps[m].map, regions.regions, pyramid.view(),
                          pooled.output.mutable_data_ptr(), argmax_data(pooled)},
                         inputs[m]);
  }
  return pooled;
}

// [N, L * C, H, W] in the layout of `map`.
inline Tensor empty_blocks(const char* op, const FeatureMap& map, std::int64_t blocks,
                           std::int32_t dtype, const Tensor& like) {
  const std::int64_t channels = checked_product(op, "output channels", {blocks, map.channels});
  checked_product(op, "an output", {map.batch, channels, map.cells()});
  const std::int64_t h = map.height, w = map.width;
  if (map.layout == Layout::kChannelsLast) {
    return empty_strided(op, {map.batch, channels, h, w},
                         {h * w * channels, 1, w * channels, channels}, dtype, like);
  }
  return empty_strided(op, {map.batch, channels, h, w}, {channels * h * w, h * w, w, 1}, dtype,
                       like);
}

template <class Device>
Pooled pool_stride1(const Tensor& input, const std::vector<std::int64_t>& kernel_sizes,
                         bool cascade, bool with_argmax) {
  constexpr const char* op = "multi_kernel_max_pool2d";
  const HeldMap held = feature_map(op, "input", input);
  std::int64_t last = 1;
  for (const std::int64_t size : kernel_sizes) {
    if (size < last || size % 2 == 0 || size > kMaxDivisions) {
      fail(op, "expected kernel_sizes to be odd, ascending and at most 2^20, got " +
                   std::to_string(size));
    }
    last = size;
  }
  const auto blocks = static_cast<std::int64_t>(kernel_sizes.size()) + 1;
  Pooled pooled{empty_blocks(op, held.map, blocks, shim_dtype_of(input), input), std::nullopt};
  if (with_argmax) {
    pooled.argmax = empty_blocks(op, held.map, blocks, aoti_torch_dtype_int32(), input);
  }
  if (pooled.output.numel() > 0) {
    Device::pool_stride1(
        op,
        {held.map, kernel_sizes.data(), static_cast<std::int32_t>(kernel_sizes.size()), cascade,
         pooled.output.mutable_data_ptr(), argmax_data(pooled)},
        input);
  }
  return pooled;
}

}  // namespace spp_ext::binding
