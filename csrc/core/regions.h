// Of a region: the map and the image it is drawn from, and its window of feature cells.
#pragma once

#include <cstdint>

#include "core/geometry.h"
#include "core/params.h"
#include "core/scalar.h"

namespace spp_ext {

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
SPP_HOST_DEVICE bool is_image(double batch_index, std::int64_t batch) {
  return batch_index > -1 && batch_index < static_cast<double>(batch);
}

// The map of a region, and whether there is such a map.
SPP_HOST_DEVICE std::int64_t map_of(const Regions& regions, std::int64_t row) {
  return regions.map_indices == nullptr ? 0 : regions.map_indices[row];
}
SPP_HOST_DEVICE bool is_map(const Regions& regions, std::int64_t map) {
  return map >= 0 && map < regions.num_maps;
}

// In place of a group: the region cannot be pooled, because a coordinate is not finite, or the batch
// index names no image or the map index no map.
constexpr std::int64_t kNoGroup = -1;

namespace detail {
template <class T>
SPP_HOST_DEVICE Window roi_window(const Regions& regions, std::int64_t row, double spatial_scale,
                                  std::int64_t height, std::int64_t width) {
  const auto scale = static_cast<T>(spatial_scale);
  const T x1 = roi_entry<T>(regions, row, 1), y1 = roi_entry<T>(regions, row, 2);
  const T x2 = roi_entry<T>(regions, row, 3), y2 = roi_entry<T>(regions, row, 4);
  const BinEdges float_edges =
      sizeof(T) == sizeof(double) ? BinEdges::kFloat64 : BinEdges::kFloat32;
  return {roi_extent(regions.convention, y1, y2, scale, height),
          roi_extent(regions.convention, x1, x2, scale, width),
          regions.convention == RoiConvention::kTorchvision ? float_edges : BinEdges::kInteger};
}
}  // namespace detail

// The map and image of a region as one number, map * N + image, by which regions are grouped; or
// kNoGroup. Compares in float64, which holds every number of images; float32 ends at 2^24.
SPP_HOST_DEVICE std::int64_t group_of(const Regions& regions, std::int64_t row,
                                      std::int64_t batch) {
  const std::int64_t map = map_of(regions, row);
  const double index = roi_entry<double>(regions, row, 0);
  bool sound = is_map(regions, map) && is_image(index, batch);
  for (int column = 1; column < 5; ++column) {
    const double value = roi_entry<double>(regions, row, column);
    sound = sound && value - value == 0;  // false for NaN and for infinities
  }
  return sound ? map * batch + static_cast<std::int64_t>(index) : kNoGroup;
}

// The window of a region on a map of height x width cells, its coordinates computed in float64 if
// that is what they are, and in float32 otherwise.
SPP_HOST_DEVICE Window roi_window(const Regions& regions, std::int64_t row, double spatial_scale,
                                  std::int64_t height, std::int64_t width) {
  return regions.dtype == DType::kFloat64
             ? detail::roi_window<double>(regions, row, spatial_scale, height, width)
             : detail::roi_window<float>(regions, row, spatial_scale, height, width);
}

}  // namespace spp_ext
