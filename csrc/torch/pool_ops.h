// The pooling ops, written once for every device: checks, allocation, and a call of the device's
// kernels.
#pragma once

#include <new>
#include <tuple>
#include <type_traits>

#include "torch/checks.h"

namespace spp_ext::binding {

using Ints = std::vector<std::int64_t>;

// Calls a device's kernel. Scratch that it cannot have is missing memory like any other.
template <class F>
void run_kernel(const char* op, const F& kernel) {
  try {
    kernel();
  } catch (const std::bad_alloc&) {
    fail_to_allocate(op, "the memory it works in");
  }
}

// What a pooling op returns.
template <bool with_argmax>
using Result = std::conditional_t<with_argmax, std::tuple<Tensor, Tensor>, Tensor>;

template <bool with_argmax>
class Pooled {
 public:
  // `allocate(dtype)` gives an empty tensor of the output's shape.
  template <class Allocate>
  Pooled(const Tensor& like, const Allocate& allocate) : output_(allocate(shim_dtype_of(like))) {
    if constexpr (with_argmax) argmax_ = allocate(aoti_torch_dtype_int32());
  }

  bool is_empty() const { return output_.numel() == 0; }
  void* output() const { return output_.mutable_data_ptr(); }
  std::int32_t* argmax() const {
    return argmax_ ? static_cast<std::int32_t*>(argmax_->mutable_data_ptr()) : nullptr;
  }
  Result<with_argmax> result() const {
    if constexpr (with_argmax) {
      return {output_, *argmax_};
    } else {
      return output_;
    }
  }

 private:
  Tensor output_;
  std::optional<Tensor> argmax_;
};

// [rows, C * B] for maps alike to `map`.
template <bool with_argmax>
Pooled<with_argmax> empty_rows(const char* op, std::int64_t rows, const FeatureMap& map,
                               std::int64_t bins, const Tensor& like) {
  checked_product(op, "an output", {rows, map.channels, bins});
  return Pooled<with_argmax>(like, [&](std::int32_t dtype) {
    return empty_matrix(op, rows, map.channels * bins, dtype, like);
  });
}

template <class Device, bool with_argmax>
Result<with_argmax> spatial_pyramid_pool(const Tensor& input, Ints levels) {
  constexpr const char* op = "spatial_pyramid_pool";
  const HeldMap held = checked_map(op, "input", input);
  const FeatureMap& map = held.map;
  const Pyramid pyramid = checked_pyramid(op, levels);
  const auto pooled = empty_rows<with_argmax>(op, map.batch, map, pyramid.view().bins, input);
  if (!pooled.is_empty()) {
    run_kernel(op, [&] {
      Device::pool_map(op, {map, pyramid.view(), pooled.output(), pooled.argmax()}, input);
    });
  }
  return pooled.result();
}

constexpr const char* kRegionsOp = "roi_spatial_pyramid_pool";  // of one map or several, in errors

// Each region from the map that map_indices [K] names; without them there is one map.
template <class Device, bool with_argmax>
Result<with_argmax> pool_regions(const Maps& maps, const Tensor& rois,
                                 const std::optional<Tensor>& map_indices, const Ints& levels,
                                 const double* spatial_scales, std::int64_t convention,
                                 bool validate) {
  constexpr const char* op = kRegionsOp;
  check_same_device(op, maps.first_name, maps.first_tensor, "boxes", rois);
  HeldRegions held = checked_regions(op, rois, map_indices, maps.count);
  for (std::size_t m = 0; m < maps.count; ++m) check_scale(op, spatial_scales[m]);
  Regions& regions = held.regions;
  regions.convention = checked_convention(op, convention);
  // Levels are exact unions of one another only where bin edges are exact.
  const bool exact = regions.convention != RoiConvention::kTorchvision;
  const Pyramid pyramid = checked_pyramid(op, levels, exact);
  Device::check_regions(op, held, maps.data[0].batch, validate);
  const auto pooled = empty_rows<with_argmax>(op, regions.count, maps.data[0], pyramid.view().bins,
                                              maps.first_tensor);
  if (!pooled.is_empty()) {
    run_kernel(op, [&] {
      Device::pool_regions(
          op,
          {maps.data, spatial_scales, regions, pyramid.view(), pooled.output(), pooled.argmax()},
          maps.first_tensor);
    });
  }
  return pooled.result();
}

template <class Device, bool with_argmax>
Result<with_argmax> roi_spatial_pyramid_pool(const Tensor& input, const Tensor& rois, Ints levels,
                                             double spatial_scale, std::int64_t convention,
                                             bool validate) {
  const HeldMap held = checked_map(kRegionsOp, "input", input);
  return pool_regions<Device, with_argmax>({&held.map, 1, "input", input}, rois, std::nullopt,
                                           levels, &spatial_scale, convention, validate);
}

template <class Device, bool with_argmax>
Result<with_argmax> roi_spatial_pyramid_pool_of_maps(std::vector<Tensor> input, const Tensor& rois,
                                                     const Tensor& map_indices, Ints levels,
                                                     std::vector<double> spatial_scales,
                                                     std::int64_t convention, bool validate) {
  const HeldMaps held = checked_maps(kRegionsOp, "input", input);
  if (spatial_scales.size() != input.size()) {
    fail(kRegionsOp, "expected a spatial_scale for each of " + std::to_string(input.size()) +
                         " maps, got " + std::to_string(spatial_scales.size()));
  }
  return pool_regions<Device, with_argmax>({held.maps.data(), input.size(), "input[0]", input[0]},
                                           rois, map_indices, levels, spatial_scales.data(),
                                           convention, validate);
}

template <class Device, bool with_argmax>
Result<with_argmax> multi_kernel_max_pool2d(const Tensor& input, Ints kernel_sizes, bool cascade) {
  constexpr const char* op = "multi_kernel_max_pool2d";
  const HeldMap held = checked_map(op, "input", input);
  check_kernel_sizes(op, kernel_sizes);
  const auto kernels = static_cast<std::int64_t>(kernel_sizes.size());
  FeatureMap blocks = held.map;  // the input, and a block of its channels for each size
  blocks.channels = checked_product(op, "output channels", {kernels + 1, blocks.channels});
  checked_product(op, "an output", {blocks.batch, blocks.channels, blocks.cells()});
  const Pooled<with_argmax> pooled(
      input, [&](std::int32_t dtype) { return empty_map(op, blocks, dtype, input); });
  if (!pooled.is_empty()) {
    run_kernel(op, [&] {
      Device::pool_stride1(op,
                           {held.map, kernel_sizes.data(), static_cast<std::int32_t>(kernels),
                            cascade, pooled.output(), pooled.argmax()},
                           input);
    });
  }
  return pooled.result();
}

}  // namespace spp_ext::binding
