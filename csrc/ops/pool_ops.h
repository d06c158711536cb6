// The registered ops, written once for every device: checks, allocation, and a call of the device's
// kernels.
//
// A Device has static functions pool_map, pool_regions, gather and scatter on the parameter structs
// of core/params.h, each also given the op's name for errors; and check_regions, which may raise
// for regions that cannot be pooled.
#pragma once

#include <cmath>
#include <tuple>

#include "ops/tensors.h"

namespace spp_ext::ops {

inline Pyramid checked_pyramid(const char* op, const std::vector<std::int64_t>& levels) {
  try {
    return Pyramid(levels.data(), levels.size());
  } catch (const std::invalid_argument& error) {
    fail(op, error.what());
  }
}

inline RoiConvention checked_convention(const char* op, const std::string& name) {
  if (name == "roi_pool") return RoiConvention::kRoiPool;
  if (name == "spp_net") return RoiConvention::kSppNet;
  if (name == "outer") return RoiConvention::kOuter;
  fail(op, "expected convention \"roi_pool\", \"spp_net\" or \"outer\", got \"" + name + "\"");
}

// The rois of one op; `tensor` keeps their memory alive.
struct HeldRegions {
  Tensor tensor;
  Regions regions;
};

inline HeldRegions checked_regions(const char* op, const Tensor& rois) {
  const DType dtype = checked_dtype(op, "boxes", rois);
  if (rois.dim() != 2 || rois.size(1) != 5) {
    fail(op, "expected boxes of shape [K, 5] (batch_index, x1, y1, x2, y2), got " + shape_of(rois));
  }
  HeldRegions held{as_contiguous(rois), {}};
  held.regions = {held.tensor.const_data_ptr(), dtype, rois.size(0), 1.0, RoiConvention::kRoiPool};
  return held;
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
                    const std::string& convention, bool validate, bool with_argmax) {
  constexpr const char* op = "roi_spatial_pyramid_pool";
  const HeldMap held = feature_map(op, "input", input);
  check_same_device(op, "input", input, "boxes", rois);
  HeldRegions regions = checked_regions(op, rois);
  if (!(spatial_scale > 0) || !std::isfinite(static_cast<float>(spatial_scale))) {
    fail(op, "expected spatial_scale to be a positive finite number, got " +
                 std::to_string(spatial_scale));
  }
  regions.regions.spatial_scale = spatial_scale;
  regions.regions.convention = checked_convention(op, convention);
  const Pyramid pyramid = checked_pyramid(op, levels);
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

// What gather and scatter share: argmax [R, C * B], whose rows belong to images in order or as
// `rois` says.
struct HeldLinear {
  Tensor argmax;
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
  if (argmax.dim() != 2 || argmax.size(0) != rows || argmax.size(1) != columns) {
    fail(op, "expected argmax of shape [" + std::to_string(rows) + ", " + std::to_string(columns) +
                 "], got " + shape_of(argmax));
  }
  held.params = {static_cast<const std::int32_t*>(held.argmax.const_data_ptr()),
                 rows,
                 held.regions ? &held.regions->regions : nullptr,
                 level_bins.data(),
                 static_cast<std::int32_t>(level_bins.size()),
                 bins};
}

inline HeldLinear hold_linear(const char* op, const Tensor& argmax,
                              const std::optional<Tensor>& rois, const char* other_name,
                              const Tensor& other) {
  check_same_device(op, "argmax", argmax, other_name, other);
  HeldLinear held{as_contiguous(argmax), std::nullopt, {}};
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
  const Tensor output = empty_matrix(op, linear.params.rows, map.map.channels * linear.params.bins,
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
  if (grad_output.dim() != 2 || grad_output.size(0) != argmax.size(0) ||
      grad_output.size(1) != argmax.size(1)) {
    fail(op, "expected grad_output of the shape of argmax, " + shape_of(argmax) + ", got " +
                 shape_of(grad_output));
  }
  const Tensor grad = as_contiguous(grad_output);
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

// The functions registered under the names of ops/library.cpp.
template <class Device>
struct PoolOps {
  using Ints = std::vector<std::int64_t>;

  static Tensor spatial_pyramid_pool(const Tensor& input, Ints levels) {
    return pool_map<Device>(input, levels, false).output;
  }
  static std::tuple<Tensor, Tensor> spatial_pyramid_pool_with_argmax(const Tensor& input,
                                                                     Ints levels) {
    Pooled pooled = pool_map<Device>(input, levels, true);
    return {pooled.output, *pooled.argmax};
  }
  static Tensor roi_spatial_pyramid_pool(const Tensor& input, const Tensor& rois, Ints levels,
                                         double spatial_scale, std::string convention,
                                         bool validate) {
    return pool_regions<Device>(input, rois, levels, spatial_scale, convention, validate, false)
        .output;
  }
  static std::tuple<Tensor, Tensor> roi_spatial_pyramid_pool_with_argmax(
      const Tensor& input, const Tensor& rois, Ints levels, double spatial_scale,
      std::string convention, bool validate) {
    Pooled pooled =
        pool_regions<Device>(input, rois, levels, spatial_scale, convention, validate, true);
    return {pooled.output, *pooled.argmax};
  }
  static Tensor gather(const Tensor& source, const Tensor& argmax, std::optional<Tensor> rois,
                       Ints level_bins) {
    return ops::gather<Device>(source, argmax, rois, level_bins);
  }
  static Tensor scatter(const Tensor& grad_output, const Tensor& argmax, std::optional<Tensor> rois,
                        Ints level_bins, Ints input_size, bool channels_last) {
    return ops::scatter<Device>(grad_output, argmax, rois, level_bins, input_size, channels_last);
  }

  static void register_with(torch::stable::detail::StableLibrary& library) {
    library.impl("spatial_pyramid_pool", TORCH_BOX(&PoolOps::spatial_pyramid_pool));
    library.impl("spatial_pyramid_pool_with_argmax",
                 TORCH_BOX(&PoolOps::spatial_pyramid_pool_with_argmax));
    library.impl("roi_spatial_pyramid_pool", TORCH_BOX(&PoolOps::roi_spatial_pyramid_pool));
    library.impl("roi_spatial_pyramid_pool_with_argmax",
                 TORCH_BOX(&PoolOps::roi_spatial_pyramid_pool_with_argmax));
    library.impl("gather", TORCH_BOX(&PoolOps::gather));
    library.impl("scatter", TORCH_BOX(&PoolOps::scatter));
  }
};

}  // namespace spp_ext::ops
