// The ops of a device under their registered names.
//
// A Device has static functions pool_map, pool_regions, pool_stride1, gather and scatter on the
// parameter structs of core/params.h, each also given the op's name for errors and a tensor on the
// device; and check_regions, which may raise for regions that cannot be pooled.
#pragma once

#include <tuple>

#include "torch/linear_ops.h"
#include "torch/pool_ops.h"

namespace spp_ext::binding {

// The functions registered under the names of torch/library.cpp.
template <class Device>
struct Ops {
  using Ints = std::vector<std::int64_t>;
  using Tensors = std::vector<Tensor>;

  static Tensor spatial_pyramid_pool(const Tensor& input, Ints levels) {
    return pool_map<Device>(input, levels, false).output;
  }
  static std::tuple<Tensor, Tensor> spatial_pyramid_pool_with_argmax(const Tensor& input,
                                                                     Ints levels) {
    Pooled pooled = pool_map<Device>(input, levels, true);
    return {pooled.output, *pooled.argmax};
  }
  static Tensor roi_spatial_pyramid_pool(const Tensor& input, const Tensor& rois, Ints levels,
                                         double spatial_scale, std::int64_t convention,
                                         bool validate) {
    return pool_regions<Device>(input, rois, levels, spatial_scale, convention, validate, false)
        .output;
  }
  static std::tuple<Tensor, Tensor> roi_spatial_pyramid_pool_with_argmax(
      const Tensor& input, const Tensor& rois, Ints levels, double spatial_scale,
      std::int64_t convention, bool validate) {
    Pooled pooled =
        pool_regions<Device>(input, rois, levels, spatial_scale, convention, validate, true);
    return {pooled.output, *pooled.argmax};
  }
  static Tensor roi_spatial_pyramid_pool_of_maps(Tensors input, const Tensor& rois,
                                                 const Tensor& map_indices, Ints levels,
                                                 std::vector<double> spatial_scales,
                                                 std::int64_t convention, bool validate) {
    return pool_regions_of_maps<Device>(input, rois, map_indices, levels, spatial_scales,
                                        convention, validate, false)
        .output;
  }
  static std::tuple<Tensor, Tensor> roi_spatial_pyramid_pool_of_maps_with_argmax(
      Tensors input, const Tensor& rois, const Tensor& map_indices, Ints levels,
      std::vector<double> spatial_scales, std::int64_t convention, bool validate) {
    Pooled pooled = pool_regions_of_maps<Device>(input, rois, map_indices, levels, spatial_scales,
                                                 convention, validate, true);
    return {pooled.output, *pooled.argmax};
  }
  static Tensor multi_kernel_max_pool2d(const Tensor& input, Ints kernel_sizes, bool cascade) {
    return pool_stride1<Device>(input, kernel_sizes, cascade, false).output;
  }
  static std::tuple<Tensor, Tensor> multi_kernel_max_pool2d_with_argmax(const Tensor& input,
                                                                        Ints kernel_sizes,
                                                                        bool cascade) {
    Pooled pooled = pool_stride1<Device>(input, kernel_sizes, cascade, true);
    return {pooled.output, *pooled.argmax};
  }
  static Tensor gather(const Tensor& source, const Tensor& argmax, std::optional<Tensor> rois,
                       Ints level_bins) {
    return binding::gather<Device>(source, argmax, rois, level_bins);
  }
  static Tensor scatter(const Tensor& grad_output, const Tensor& argmax, std::optional<Tensor> rois,
                        Ints level_bins, Ints input_size, bool channels_last) {
    return binding::scatter<Device>(grad_output, argmax, rois, level_bins, input_size, channels_last);
  }
  static Tensor gather_of_maps(Tensors sources, const Tensor& argmax, const Tensor& rois,
                               const Tensor& map_indices, Ints level_bins) {
    return binding::gather_of_maps<Device>(sources, argmax, rois, map_indices, level_bins);
  }
  static Tensors scatter_of_maps(const Tensor& grad_output, const Tensor& argmax,
                                 const Tensor& rois, const Tensor& map_indices, Ints level_bins,
                                 Ints input_sizes, std::vector<bool> channels_last) {
    return binding::scatter_of_maps<Device>(grad_output, argmax, rois, map_indices, level_bins,
                                        input_sizes, channels_last);
  }

  static void register_with(torch::stable::detail::StableLibrary& library) {
    library.impl("spatial_pyramid_pool", TORCH_BOX(&Ops::spatial_pyramid_pool));
    library.impl("spatial_pyramid_pool_with_argmax",
                 TORCH_BOX(&Ops::spatial_pyramid_pool_with_argmax));
    library.impl("roi_spatial_pyramid_pool", TORCH_BOX(&Ops::roi_spatial_pyramid_pool));
    library.impl("roi_spatial_pyramid_pool_with_argmax",
                 TORCH_BOX(&Ops::roi_spatial_pyramid_pool_with_argmax));
    library.impl("roi_spatial_pyramid_pool_of_maps",
                 TORCH_BOX(&Ops::roi_spatial_pyramid_pool_of_maps));
    library.impl("roi_spatial_pyramid_pool_of_maps_with_argmax",
                 TORCH_BOX(&Ops::roi_spatial_pyramid_pool_of_maps_with_argmax));
    library.impl("multi_kernel_max_pool2d", TORCH_BOX(&Ops::multi_kernel_max_pool2d));
    library.impl("multi_kernel_max_pool2d_with_argmax",
                 TORCH_BOX(&Ops::multi_kernel_max_pool2d_with_argmax));
    library.impl("gather", TORCH_BOX(&Ops::gather));
    library.impl("scatter", TORCH_BOX(&Ops::scatter));
    library.impl("gather_of_maps", TORCH_BOX(&Ops::gather_of_maps));
    library.impl("scatter_of_maps", TORCH_BOX(&Ops::scatter_of_maps));
  }
};

}  // namespace spp_ext::binding
