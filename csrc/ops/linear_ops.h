// gather and scatter, written once for every device: checks, allocation, and a call of the device's
// kernels.
#pragma once

#include "ops/pool_ops.h"
#include "ops/tensors.h"

namespace spp_ext::ops {

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

template <class Device>
Tensor scatter(const Tensor& grad_output, const Tensor& argmax, const std::optional<Tensor>& rois,
               const std::vector<std::int64_t>& level_bins,
               const std::vector<std::int64_t>& input_size, bool channels_last) {
  constexpr const char* op = "scatter";
  const DType dtype = checked_dtype(op, "grad_output", grad_output);
  if (input_size.size() != 4) fail(op, "expected input_size of 4 numbers, N, C, H and W");
  const std::int64_t n = input_size[0], c = input_size[1], h = input_size[2], w = input_size[3];
  if (n < 0 || c < 0 || h < 1 || w < 1 || h > 2147483647 / w) {
    fail(op, "expected input_size with N, C >= 0 and H, W >= 1 and H * W < 2^31");
  }
  checked_product(op, "a gradient", {n, c, h, w});
  HeldLinear linear = hold_linear(op, argmax, rois, "grad_output", grad_output);
  check_linear(op, argmax, rois, level_bins, n, c, linear);
  bool same_shape = grad_output.dim() == argmax.dim();
  for (std::int64_t d = 0; same_shape && d < argmax.dim(); ++d) {
    same_shape = grad_output.size(d) == argmax.size(d);
  }
  if (!same_shape) {
    fail(op, "expected grad_output of the shape of argmax, " + shape_of(argmax) + ", got " +
                 shape_of(grad_output));
  }
  const Tensor grad = linear.layout == Layout::kContiguous ? as_contiguous(op, grad_output)
                                                           : as_channels_last(op, grad_output);
  const std::vector<std::int64_t> strides = channels_last
                                                ? std::vector<std::int64_t>{h * w * c, 1, w * c, c}
                                                : std::vector<std::int64_t>{c * h * w, h * w, w, 1};
  const Tensor grad_input =
      empty_strided(op, input_size, strides, shim_dtype_of(grad_output), grad_output);
  if (grad_input.numel() > 0) {
    const FeatureMap map{
        nullptr, dtype, channels_last ? Layout::kChannelsLast : Layout::kContiguous, n, c, h, w};
    Device::scatter(op, {linear.params, grad.const_data_ptr(), map, grad_input.mutable_data_ptr()},
                    grad_output);
  }
  return grad_input;
}

}  // namespace spp_ext::ops
