// The pooling ops, written once for every device: checks, and a call of the device's kernels. Each is
// a function of its Results; `Forms` makes of it the functions that are registered.
#pragma once

#include "torch/results.h"

namespace spp_ext::binding {

using Ints = std::vector<std::int64_t>;

template <class Device>
void spatial_pyramid_pool(Results& results, const Tensor& input, Ints levels) {
  constexpr const char* op = "spatial_pyramid_pool";
  HeldMap held = checked_map(op, "input", input);
  const FeatureMap& map = held.map;
  const Pyramid pyramid = checked_pyramid(op, levels);
  results.keep_apart(op, "input", input);
  results.make_rows(op, map.batch, map, pyramid.view(), input);
  results.fill(op, [&] {
    settle(op, held.tensor, held.map);
    Device::pool_map(op, {map, pyramid.view(), results.output(), results.argmax()}, input);
  });
}

constexpr const char* kRegionsOp = "roi_spatial_pyramid_pool";  // of one map or several, in errors

// Each region from the map that map_indices [K] names; without them there is one map.
template <class Device>
void pool_regions(Results& results, const Maps& maps, const Tensor& rois,
                  const std::optional<Tensor>& map_indices, const Ints& levels,
                  const double* spatial_scales, std::int64_t convention, bool validate) {
  constexpr const char* op = kRegionsOp;
  check_same_device(op, maps.first_name, maps.first_tensor, "boxes", rois);
  HeldRegions held = checked_regions(op, rois, map_indices, maps.count);
  for (std::size_t m = 0; m < maps.count; ++m) check_scale(op, spatial_scales[m]);
  Regions& regions = held.regions;
  regions.convention = checked_convention(op, convention);
  // Levels are exact unions of one another only where bin edges are exact.
  const bool exact = regions.convention != RoiConvention::kTorchvision;
  const Pyramid pyramid = checked_pyramid(op, levels, exact);
  results.keep_apart(op, "boxes", rois);
  if (map_indices) results.keep_apart(op, "map_indices", *map_indices);
  results.make_rows(op, regions.count, maps.data[0], pyramid.view(), maps.first_tensor);
  held.settle(op);
  Device::check_regions(op, held, maps.data[0].batch, validate);
  results.fill(op, [&] {
    maps.settle(op);
    Device::pool_regions(
        op,
        {maps.data, spatial_scales, regions, pyramid.view(), results.output(), results.argmax()},
        maps.first_tensor);
  });
}

template <class Device>
void roi_spatial_pyramid_pool(Results& results, const Tensor& input, const Tensor& rois,
                              Ints levels, double spatial_scale, std::int64_t convention,
                              bool validate) {
  HeldMap held = checked_map(kRegionsOp, "input", input);
  results.keep_apart(kRegionsOp, "input", input);
  pool_regions<Device>(results, {&held.tensor, &held.map, 1, "input", input}, rois, std::nullopt,
                       levels, &spatial_scale, convention, validate);
}

template <class Device>
void roi_spatial_pyramid_pool_of_maps(Results& results, std::vector<Tensor> input,
                                      const Tensor& rois, const Tensor& map_indices, Ints levels,
                                      std::vector<double> spatial_scales, std::int64_t convention,
                                      bool validate) {
  HeldMaps held = checked_maps(kRegionsOp, "input", input);
  if (spatial_scales.size() != input.size()) {
    fail(kRegionsOp, "expected a spatial_scale for each of " + std::to_string(input.size()) +
                         " maps, got " + std::to_string(spatial_scales.size()));
  }
  for (std::size_t m = 0; m < input.size(); ++m) {
    results.keep_apart(kRegionsOp, "one of the maps", input[m]);
  }
  pool_regions<Device>(results,
                       {held.tensors.data(), held.maps.data(), input.size(), "input[0]", input[0]},
                       rois, map_indices, levels, spatial_scales.data(), convention, validate);
}

template <class Device>
void multi_kernel_max_pool2d(Results& results, const Tensor& input, Ints kernel_sizes,
                             bool cascade) {
  constexpr const char* op = "multi_kernel_max_pool2d";
  HeldMap held = checked_map(op, "input", input);
  check_kernel_sizes(op, kernel_sizes);
  const auto kernels = static_cast<std::int64_t>(kernel_sizes.size());
  FeatureMap blocks = held.map;  // the input, and a block of its channels for each size
  blocks.channels = checked_product(op, "output channels", {kernels + 1, blocks.channels});
  results.keep_apart(op, "input", input);
  results.make_map(op, blocks, input);
  results.fill(op, [&] {
    settle(op, held.tensor, held.map);
    Device::pool_stride1(op,
                         {held.map, kernel_sizes.data(), static_cast<std::int32_t>(kernels),
                          cascade, results.output(), results.argmax()},
                         input);
  });
}

}  // namespace spp_ext::binding
