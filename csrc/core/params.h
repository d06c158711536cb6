// What the kernels are given: raw pointers, sizes and a pyramid, one struct per kernel. All memory
// belongs to the caller.
#pragma once

#include <cstdint>

#include "core/geometry.h"
#include "core/pyramid.h"
#include "core/scalar.h"

namespace spp_ext {

enum class Layout : std::int32_t { kContiguous, kChannelsLast };

// A batch of feature maps, dense in one of the two layouts.
struct FeatureMap {
  const void* data;  // [N, C, H, W] of dtype, in memory [N, H, W, C] when channels_last
  DType dtype;
  Layout layout;
  std::int64_t batch;     // N
  std::int64_t channels;  // C
  std::int64_t height;    // H
  std::int64_t width;     // W

  SPP_HOST_DEVICE std::int64_t cells() const { return height * width; }
  // Elements between neighbouring cells of a plane, and between neighbouring planes of an image.
  SPP_HOST_DEVICE std::int64_t cell_stride() const {
    return layout == Layout::kContiguous ? 1 : channels;
  }
  SPP_HOST_DEVICE std::int64_t plane_stride() const {
    return layout == Layout::kContiguous ? cells() : 1;
  }
};

struct Regions {
  const void*
      rois;  // [K, 5] of dtype, contiguous: batch_index, x1, y1, x2, y2 in image coordinates
  DType dtype;
  std::int64_t count;    // K
  double spatial_scale;  // feature cells per image pixel
  RoiConvention convention;
  // Of several maps, the one each region is drawn from, and the number of the one at hand, whose call
  // leaves the others' rows alone.
  const std::int64_t* map_indices = nullptr;  // [K], or null: there is one map
  std::int64_t maps = 1;
  std::int64_t map = 0;

  SPP_HOST_DEVICE bool is_of_map(std::int64_t row) const {
    return map_indices == nullptr || map_indices[row] == map;
  }
  SPP_HOST_DEVICE bool names_map(std::int64_t row) const {
    return map_indices == nullptr || (map_indices[row] >= 0 && map_indices[row] < maps);
  }
};

// One entry of `rois` in the type coordinates are computed in: double for float64, which T must then
// be, and float for all others.
template <class T>
SPP_HOST_DEVICE T roi_entry(const Regions& regions, std::int64_t row, int column) {
  const std::int64_t at = row * 5 + column;
  if constexpr (sizeof(T) == sizeof(double)) {
    if (regions.dtype == DType::kFloat64) return static_cast<const double*>(regions.rois)[at];
  }
  if (regions.dtype == DType::kFloat16) {
    return to_compute(static_cast<const Half*>(regions.rois)[at]);
  }
  if (regions.dtype == DType::kBFloat16) {
    return to_compute(static_cast<const BFloat16*>(regions.rois)[at]);
  }
  return static_cast<const float*>(regions.rois)[at];
}

// Whether a batch index, truncated toward zero as in torchvision, names an image. Compares before
// converting: a value that no integer holds never reaches a cast.
template <class T>
SPP_HOST_DEVICE bool is_image(T batch_index, std::int64_t batch) {
  return batch_index > T{-1} && batch_index < static_cast<T>(batch);
}

namespace detail {
template <class T>
SPP_HOST_DEVICE Window roi_window(const Regions& regions, std::int64_t row, std::int64_t height,
                                  std::int64_t width) {
  const auto scale = static_cast<T>(regions.spatial_scale);
  const T x1 = roi_entry<T>(regions, row, 1), y1 = roi_entry<T>(regions, row, 2);
  const T x2 = roi_entry<T>(regions, row, 3), y2 = roi_entry<T>(regions, row, 4);
  const BinEdges float_edges =
      sizeof(T) == sizeof(double) ? BinEdges::kFloat64 : BinEdges::kFloat32;
  return {roi_extent(regions.convention, y1, y2, scale, height),
          roi_extent(regions.convention, x1, x2, scale, width),
          regions.convention == RoiConvention::kTorchvision ? float_edges : BinEdges::kInteger};
}
}  // namespace detail

// The window of a region, its coordinates computed in float64 if that is what they are, and in
// float32 otherwise.
SPP_HOST_DEVICE Window roi_window(const Regions& regions, std::int64_t row, std::int64_t height,
                                  std::int64_t width) {
  return regions.dtype == DType::kFloat64 ? detail::roi_window<double>(regions, row, height, width)
                                          : detail::roi_window<float>(regions, row, height, width);
}

// Whole-map pooling: one row of output per image.
struct MapPoolParams {
  FeatureMap input;
  PyramidView pyramid;
  void* output;          // [N, C * B] of input.dtype
  std::int32_t* argmax;  // [N, C * B], or null when only values are wanted
};

// Region pooling: one row of output per region.
struct RegionPoolParams {
  FeatureMap input;
  Regions regions;
  PyramidView pyramid;
  void* output;          // [K, C * B] of input.dtype
  std::int32_t* argmax;  // [K, C * B], or null when only values are wanted
};

// Stride-1 pools with same padding, as in YOLO's SPP block, and the input before them.
struct Stride1Params {
  FeatureMap input;
  const std::int64_t* kernel_sizes;  // [L], odd, ascending
  std::int32_t num_kernels;          // L
  bool cascade;          // each pool takes the one before for its input, which decides among ties
  void* output;          // [N, (L + 1) * C, H, W] of input.dtype, in the input's layout
  std::int32_t* argmax;  // alike, or null when only values are wanted
};

// The linear pair. An element of a [R, C * B] array names the plane (image_of(row), channel) and,
// by its argmax, a cell of it. gather reads that cell; scatter adds to it.
struct LinearParams {
  const std::int32_t* argmax;      // [R, C * B]
  std::int64_t rows;               // R
  const Regions* regions;          // row r belongs to the image its roi names; null: to image r
  const std::int64_t* level_bins;  // [num_levels]
  std::int32_t num_levels;
  std::int64_t bins;  // B, their sum
  // The order of a row's elements: level, channel, bin; or when channels_last, for levels of as many
  // bins each, bin, level, channel.
  Layout layout;
};

struct GatherParams {
  LinearParams linear;
  FeatureMap source;
  void* output;  // [R, C * B] of source.dtype
};

struct ScatterParams {
  LinearParams linear;
  const void* grad_output;  // [R, C * B] of grad_input.dtype
  FeatureMap grad_input;    // shape and layout of the result
  void* data;               // the result, every element of which is written
};

}  // namespace spp_ext
