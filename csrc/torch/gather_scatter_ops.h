// gather and scatter, written once for every device: checks, allocation, and a call of the device's
// kernels.
#pragma once

#include "torch/pool_ops.h"

namespace spp_ext::binding {

// What gather and scatter share: argmax, whose rows belong to images in order or as the regions say.
// The pointers of `params` lead into this struct, which therefore stays where it is made.
struct HeldLinear {
  Tensor argmax;
  std::optional<HeldRegions> regions;
  std::vector<RowLevel> levels;
  LinearParams params;

  // `map` is any of the maps, which are alike but for their planes; `other` a tensor beside argmax.
  HeldLinear(const char* op, const Tensor& argmax_given, const std::optional<Tensor>& rois,
             const std::optional<Tensor>& map_indices, std::size_t num_maps, const Ints& level_bins,
             const FeatureMap& map, const char* other_name, const Tensor& other)
      : argmax(argmax_given) {
    check_same_device(op, "argmax", argmax, other_name, other);
    if (rois) {
      check_same_device(op, "rois", *rois, other_name, other);
      regions = checked_regions(op, *rois, map_indices, num_maps);
    }
    if (argmax.scalar_type() != ScalarType::Int) {
      fail(op, "expected argmax of dtype torch.int32, got " + dtype_name(argmax));
    }
    levels = checked_row_levels(op, level_bins);
    const bool channels_last = argmax.dim() == 4 && is_channels_last(argmax);
    const std::int64_t bins =
        levels.empty() ? 0 : std::int64_t{levels.back().first_bin} + levels.back().bins;
    params = {nullptr,
              regions ? regions->regions.count : map.batch,
              regions ? &regions->regions : nullptr,
              {map.channels, bins, static_cast<std::int32_t>(levels.size()),
               channels_last ? Layout::kChannelsLast : Layout::kContiguous},
              levels.data()};
    check_argmax_shape(op);
    if (!channels_last) argmax = as_contiguous(op, argmax);
    params.argmax = static_cast<const std::int32_t*>(argmax.const_data_ptr());
    if (regions) regions->settle(op);
  }
  HeldLinear(const HeldLinear&) = delete;
  HeldLinear& operator=(const HeldLinear&) = delete;

 private:
  void check_argmax_shape(const char* op) const {
    const RowOrder& order = params.order;
    const std::int64_t columns = checked_product(op, "an argmax row", {order.channels, order.bins});
    if (argmax.dim() == 2 && argmax.size(0) == params.rows && argmax.size(1) == columns) return;
    if (argmax.dim() == 4 && !regions && !levels.empty()) {
      const std::int64_t y = argmax.size(2), x = argmax.size(3);
      bool fits =
          argmax.size(0) == params.rows && argmax.size(1) == order.channels * order.num_levels;
      for (const RowLevel& level : levels) {
        fits = fits && x > 0 && level.bins % x == 0 && level.bins / x == y;
      }
      if (fits) return;
    }
    fail(op, "expected argmax of shape [" + std::to_string(params.rows) + ", " +
                 std::to_string(columns) +
                 "], or [N, L * C, H, W] for L levels of H * W bins, got " + shape_of(argmax));
  }
};

template <class Device>
Tensor gather_from(const char* op, const Maps& sources, const Tensor& argmax,
                   const std::optional<Tensor>& rois, const std::optional<Tensor>& map_indices,
                   const Ints& level_bins) {
  const Tensor& like = sources.first_tensor;
  const HeldLinear linear(op, argmax, rois, map_indices, sources.count, level_bins, sources.data[0],
                          sources.first_name, like);
  const Tensor output =
      empty_strided(op, linear.argmax.sizes(), linear.argmax.strides(), shim_dtype_of(like), like);
  if (output.numel() > 0) {
    run_kernel(op, [&] {
      sources.settle(op);
      Device::gather(op, {linear.params, sources.data, output.mutable_data_ptr()}, like);
    });
  }
  return output;
}

template <class Device>
Tensor gather(const Tensor& source, const Tensor& argmax, std::optional<Tensor> rois,
              Ints level_bins) {
  constexpr const char* op = "gather";
  HeldMap held = checked_map(op, "source", source);
  return gather_from<Device>(op, {&held.tensor, &held.map, 1, "source", source}, argmax, rois,
                             std::nullopt, level_bins);
}

template <class Device>
Tensor gather_of_maps(std::vector<Tensor> sources, const Tensor& argmax, const Tensor& rois,
                      const Tensor& map_indices, Ints level_bins) {
  constexpr const char* op = "gather_of_maps";
  HeldMaps held = checked_maps(op, "sources", sources);
  return gather_from<Device>(
      op, {held.tensors.data(), held.maps.data(), sources.size(), "sources[0]", sources[0]}, argmax,
      rois, map_indices, level_bins);
}

inline void check_gradient(const char* op, const Tensor& grad_output, const Tensor& argmax) {
  bool same_shape = grad_output.dim() == argmax.dim();
  for (std::int64_t d = 0; same_shape && d < argmax.dim(); ++d) {
    same_shape = grad_output.size(d) == argmax.size(d);
  }
  if (!same_shape) {
    fail(op, "expected grad_output of the shape of argmax, " + shape_of(argmax) + ", got " +
                 shape_of(grad_output));
  }
}

// The gradient of every map.
template <class Device>
std::vector<Tensor> scatter_to(const char* op, const std::vector<FeatureMap>& maps,
                               const Tensor& grad_output, const Tensor& argmax,
                               const std::optional<Tensor>& rois,
                               const std::optional<Tensor>& map_indices, const Ints& level_bins) {
  const HeldLinear linear(op, argmax, rois, map_indices, maps.size(), level_bins, maps[0],
                          "grad_output", grad_output);
  check_gradient(op, grad_output, linear.argmax);
  std::vector<Tensor> grad_inputs;
  std::vector<void*> data;
  for (const FeatureMap& map : maps) {
    grad_inputs.push_back(empty_map(op, map, shim_dtype_of(grad_output), grad_output));
    data.push_back(grad_inputs.back().mutable_data_ptr());
  }
  if (grad_inputs[0].numel() > 0) {  // maps are alike in N and C, and none is without cells
    run_kernel(op, [&] {
      const Tensor grad = linear.params.order.layout == Layout::kContiguous
                              ? as_contiguous(op, grad_output)
                              : as_channels_last(op, grad_output);
      Device::scatter(op, {linear.params, grad.const_data_ptr(), maps.data(), data.data()},
                      grad_output);
    });
  }
  return grad_inputs;
}

template <class Device>
Tensor scatter(const Tensor& grad_output, const Tensor& argmax, std::optional<Tensor> rois,
               Ints level_bins, Ints input_size, bool channels_last) {
  constexpr const char* op = "scatter";
  const DType dtype = checked_dtype(op, "grad_output", grad_output);
  if (input_size.size() != 4) fail(op, "expected input_size of 4 numbers, N, C, H and W");
  return scatter_to<Device>(op, {checked_gradient_map(op, dtype, input_size.data(), channels_last)},
                            grad_output, argmax, rois, std::nullopt, level_bins)[0];
}

// `input_sizes` is N, C, H, W of one map after another.
template <class Device>
std::vector<Tensor> scatter_of_maps(const Tensor& grad_output, const Tensor& argmax,
                                    const Tensor& rois, const Tensor& map_indices, Ints level_bins,
                                    Ints input_sizes, std::vector<bool> channels_last) {
  constexpr const char* op = "scatter_of_maps";
  const DType dtype = checked_dtype(op, "grad_output", grad_output);
  if (channels_last.empty() || input_sizes.size() != 4 * channels_last.size()) {
    fail(op, "expected input_sizes of 4 numbers, N, C, H and W, for each of at least one map");
  }
  std::vector<FeatureMap> maps;
  for (std::size_t m = 0; m < channels_last.size(); ++m) {
    maps.push_back(checked_gradient_map(op, dtype, &input_sizes[4 * m], channels_last[m]));
    if (maps[m].batch != maps[0].batch || maps[m].channels != maps[0].channels) {
      fail(op, "expected input_sizes with one N and one C");
    }
  }
  return scatter_to<Device>(op, maps, grad_output, argmax, rois, map_indices, level_bins);
}

}  // namespace spp_ext::binding
