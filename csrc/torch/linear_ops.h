// gather and scatter, written once for every device: checks, allocation, and a call of the device's
// kernels.
#pragma once

#include "torch/pool_ops.h"
#include "torch/tensors.h"

namespace spp_ext::binding {

// What gather and scatter share: argmax [R, C * B], whose rows belong to images in order or as
// `rois` says.
struct HeldLinear {
  Tensor argmax;
  Layout layout;  // of argmax and of what goes with it element by element
  std::optional<HeldRegions> regions;
  LinearParams params;
};

inline void check_linear(const char* op, const Tensor& argmax, const std::optional<Tensor>& rois,
                         const std::vector<std::int64_t>& level_bins, std::int64_t batch,
                         std::int64_t channels, HeldLinear& held) {
  if (argmax.scalar_type() != ScalarType::Int) {
    fail(op, std::string("expected argmax of dtype int32, got ") +
                 torch::headeronly::toString(argmax.scalar_type()));
  }
  std::int64_t bins = 0;
  for (const std::int64_t level : level_bins) {
    if (level < 1 || level > 2147483647 - bins)
      fail(op, "expected level_bins of at least 1 that sum to less than 2^31");
    bins += level;
  }
  const std::int64_t rows = rois ? rois->size(0) : batch;
  const std::int64_t columns = checked_product(op, "an argmax row", {channels, bins});
  bool fits = argmax.dim() == 2 && argmax.size(0) == rows && argmax.size(1) == columns;
  if (argmax.dim() == 4) {
    const std::int64_t cells = level_bins.empty() ? 0 : level_bins[0];
    fits = !level_bins.empty() && !rois;
    for (const std::int64_t level : level_bins) fits = fits && level == cells;
    fits = fits && argmax.size(0) == rows && argmax.size(2) * argmax.size(3) == cells &&
           argmax.size(1) == channels * static_cast<std::int64_t>(level_bins.size());
  }
  if (!fits) {
    fail(op, "expected argmax of shape [" + std::to_string(rows) + ", " + std::to_string(columns) +
                 "], or [N, L * C, H, W] for L levels of H * W bins, got " + shape_of(argmax));
  }
  held.params = {static_cast<const std::int32_t*>(held.argmax.const_data_ptr()),
                 rows,
                 held.regions ? &held.regions->regions : nullptr,
                 level_bins.data(),
                 static_cast<std::int32_t>(level_bins.size()),
                 bins,
                 held.layout};
}

inline HeldLinear hold_linear(const char* op, const Tensor& argmax,
                              const std::optional<Tensor>& rois, const char* other_name,
                              const Tensor& other) {
  check_same_device(op, "argmax", argmax, other_name, other);
  const bool channels_last =
      argmax.dim() == 4 && !argmax.is_contiguous() && is_channels_last(argmax);
  HeldLinear held{channels_last ? argmax : as_contiguous(op, argmax),
                  channels_last ? Layout::kChannelsLast : Layout::kContiguous,
                  std::nullopt,
                  {}};
  if (rois) {
    check_same_device(op, "rois", *rois, other_name, other);
    held.regions = checked_regions(op, *rois);
  }
  return held;
}

template <class Device>
Tensor gather(const Tensor& source, const Tensor& argmax, const std::optional<Tensor>& rois,
              const std::vector<std::int64_t>& level_bins) {
  constexpr const char* op = "gather";
  const HeldMap map = feature_map(op, "source", source);
  HeldLinear linear = hold_linear(op, argmax, rois, "source", source);
  check_linear(op, argmax, rois, level_bins, map.map.batch, map.map.channels, linear);
  const Tensor output = empty_strided(op, linear.argmax.sizes(), linear.argmax.strides(),
                                      shim_dtype_of(source), source);
  if (output.numel() > 0)
    Device::gather(op, {linear.params, map.map, output.mutable_data_ptr()}, source);
  return output;
}

// Each row from the map that map_indices [R] names.
template <class Device>
Tensor gather_of_maps(const std::vector<Tensor>& sources, const Tensor& argmax, const Tensor& rois,
                      const Tensor& map_indices, const std::vector<std::int64_t>& level_bins) {
  constexpr const char* op = "gather_of_maps";
  const std::vector<HeldMap> maps = feature_maps(op, "sources", sources);
  HeldLinear linear = hold_linear(op, argmax, rois, "sources[0]", sources[0]);
  choose_maps(op, map_indices, maps.size(), *linear.regions);
  check_linear(op, argmax, rois, level_bins, maps[0].map.batch, maps[0].map.channels, linear);
  const Tensor output =
      empty_matrix(op, argmax.size(0), argmax.size(1), shim_dtype_of(sources[0]), sources[0]);
  if (output.numel() == 0) return output;
  for (std::size_t m = 0; m < maps.size(); ++m) {
    linear.regions->regions.map = static_cast<std::int64_t>(m);
    Device::gather(op, {linear.params, maps[m].map, output.mutable_data_ptr()}, sources[m]);
  }
  return output;
}

// The map that a gradient of size [N, C, H, W] belongs to; it has no data.
inline FeatureMap gradient_map(const char* op, DType dtype, const std::int64_t* size,
                               bool channels_last) {
  const std::int64_t n = size[0], c = size[1], h = size[2], w = size[3];
  if (n < 0 || c < 0 || h < 1 || w < 1 || h > 2147483647 / w) {
    fail(op, "expected input_size with N, C >= 0 and H, W >= 1 and H * W < 2^31");
  }
  checked_product(op, "a gradient", {n, c, h, w});
  return {nullptr, dtype, channels_last ? Layout::kChannelsLast : Layout::kContiguous, n, c, h, w};
}

inline Tensor empty_gradient(const char* op, const FeatureMap& map, const Tensor& like) {
  const std::int64_t n = map.batch, c = map.channels, h = map.height, w = map.width;
  const std::vector<std::int64_t> strides = map.layout == Layout::kChannelsLast
                                                ? std::vector<std::int64_t>{h * w * c, 1, w * c, c}
                                                : std::vector<std::int64_t>{c * h * w, h * w, w, 1};
  return empty_strided(op, {n, c, h, w}, strides, shim_dtype_of(like), like);
}

// `grad_output` laid out as argmax, whose shape it must have.
inline Tensor held_gradient(const char* op, const Tensor& grad_output, const HeldLinear& linear) {
  const Tensor& argmax = linear.argmax;
  bool same_shape = grad_output.dim() == argmax.dim();
  for (std::int64_t d = 0; same_shape && d < argmax.dim(); ++d) {
    same_shape = grad_output.size(d) == argmax.size(d);
  }
  if (!same_shape) {
    fail(op, "expected grad_output of the shape of argmax, " + shape_of(argmax) + ", got " +
                 shape_of(grad_output));
  }
  return linear.layout == Layout::kContiguous ? as_contiguous(op, grad_output)
                                              : as_channels_last(op, grad_output);
}

template <class Device>
Tensor scatter(const Tensor& grad_output, const Tensor& argmax, const std::optional<Tensor>& rois,
               const std::vector<std::int64_t>& level_bins,
               const std::vector<std::int64_t>& input_size, bool channels_last) {
  constexpr const char* op = "scatter";
  const DType dtype = checked_dtype(op, "grad_output", grad_output);
  if (input_size.size() != 4) fail(op, "expected input_size of 4 numbers, N, C, H and W");
  const FeatureMap map = gradient_map(op, dtype, input_size.data(), channels_last);
  HeldLinear linear = hold_linear(op, argmax, rois, "grad_output", grad_output);
  check_linear(op, argmax, rois, level_bins, map.batch, map.channels, linear);
  const Tensor grad = held_gradient(op, grad_output, linear);
  const Tensor grad_input = empty_gradient(op, map, grad_output);
  if (grad_input.numel() > 0) {
    Device::scatter(op, {linear.params, grad.const_data_ptr(), map, grad_input.mutable_data_ptr()},
                    grad_output);
  }
  return grad_input;
}

// The gradient of every map; `input_sizes` is N, C, H, W of one after another.
template <class Device>
std::vector<Tensor> scatter_of_maps(const Tensor& grad_output, const Tensor& argmax,
                                    const Tensor& rois, const Tensor& map_indices,
                                    const std::vector<std::int64_t>& level_bins,
                                    const std::vector<std::int64_t>& input_sizes,
                                    const std::vector<bool>& channels_last) {
  constexpr const char* op = "scatter_of_maps";
  const DType dtype = checked_dtype(op, "grad_output", grad_output);
  if (channels_last.empty() || input_sizes.size() != 4 * channels_last.size()) {
    fail(op, "expected input_sizes of 4 numbers, N, C, H and W, for each of at least one map");
  }
  std::vector<FeatureMap> maps;
  for (std::size_t m = 0; m < channels_last.size(); ++m) {
    maps.push_back(gradient_map(op, dtype, &input_sizes[4 * m], channels_last[m]));
    if (maps[m].batch != maps[0].batch || maps[m].channels != maps[0].channels) {
      fail(op, "expected input_sizes with one N and one C");
    }
  }
  HeldLinear linear = hold_linear(op, argmax, rois, "grad_output", grad_output);
  choose_maps(op, map_indices, maps.size(), *linear.regions);
  check_linear(op, argmax, rois, level_bins, maps[0].batch, maps[0].channels, linear);
  const Tensor grad = held_gradient(op, grad_output, linear);
  std::vector<Tensor> grad_inputs;
  for (std::size_t m = 0; m < maps.size(); ++m) {
    linear.regions->regions.map = static_cast<std::int64_t>(m);
    grad_inputs.push_back(empty_gradient(op, maps[m], grad_output));
    if (grad_inputs[m].numel() == 0) continue;
    Device::scatter(
        op, {linear.params, grad.const_data_ptr(), maps[m], grad_inputs[m].mutable_data_ptr()},
        grad_output);
  }
  return grad_inputs;
}

}  // namespace spp_ext::binding
