// Where a bin lies: from a box in image coordinates to a window in feature cells, and from a window
// to the cells of a bin. Written once, in integers wherever the result is one; the CPU kernels, the
// CUDA kernels, the Python hooks and the pictures all call these functions.
//
//   box (image)  --roi_*_extent-->  Extent: cells [begin, end) along one axis, not yet clipped
//   Extent       --bin_extent---->  the part of it that one bin covers
//   Extent       --clip---------->  Span: cells of the map, possibly none
#pragma once

#include <cmath>
#include <cstdint>

#include "core/host_device.h"
#include "core/integers.h"

namespace spp_ext {

// Half-open range of feature cells along one axis, before clipping to the map.
struct Extent {
  std::int64_t begin;
  std::int64_t end;
};

// Half-open range of cells that exist. Empty spans have begin == end.
struct Span {
  std::int32_t begin;
  std::int32_t end;
};

// How the edges of bins are computed. Floats are for torchvision's roi_pool alone, whose trained
// heads depend on them: for some divisions and lengths they are off by one.
enum class BinEdges : std::int32_t { kInteger, kFloat32, kFloat64 };

// Rows and columns of a region, before clipping.
struct Window {
  Extent rows;
  Extent cols;
  BinEdges edges = BinEdges::kInteger;
};

// How a box becomes a window. kTorchvision, which is ops.roi_pool's alone, is kRoiPool with bin edges
// in floating point. The ops are given the numbers, and users write the names.
enum class RoiConvention : std::int32_t { kRoiPool, kSppNet, kOuter, kTorchvision };
constexpr const char* kConventionNames[] = {"roi_pool", "spp_net", "outer", "torchvision"};
constexpr std::int64_t kNumConventions = sizeof(kConventionNames) / sizeof(kConventionNames[0]);

// Scaled coordinates saturate here before they become integers: far outside any map, and small
// enough that bin_extent cannot overflow (2^41 cells times kMaxDivisions is 2^61).
constexpr double kMaxCoordinate = 1099511627776.0;  // 2^40
constexpr std::int64_t kMaxDivisions = std::int64_t{1} << 20;

// The cells of [0, length) between the cuts `begin` and `end` of `divisions` equal parts:
// [floor(begin * length / divisions), ceil(end * length / divisions)).
// Appendix A of He et al. 2014 and torch's adaptive pooling; bin i of n is (i, i + 1, n).
SPP_HOST_DEVICE Extent bin_extent(std::int64_t begin, std::int64_t end, std::int64_t divisions,
                                  std::int64_t length) {
  return {quotient(begin * length, divisions), quotient(end * length + divisions - 1, divisions)};
}

// The same as torchvision computes it, in T: products of a rounded quotient.
template <class T>
SPP_HOST_DEVICE Extent float_bin_extent(std::int64_t begin, std::int64_t end,
                                        std::int64_t divisions, std::int64_t length) {
  const T size = static_cast<T>(length) / static_cast<T>(divisions);
  return {static_cast<std::int64_t>(std::floor(static_cast<T>(begin) * size)),
          static_cast<std::int64_t>(std::ceil(static_cast<T>(end) * size))};
}

// The cells of `extent` that lie in a map of `size` cells.
SPP_HOST_DEVICE Span clip(Extent extent, std::int64_t size) {
  const std::int64_t begin = extent.begin < 0 ? 0 : (extent.begin > size ? size : extent.begin);
  const std::int64_t end = extent.end < begin ? begin : (extent.end > size ? size : extent.end);
  return {static_cast<std::int32_t>(begin), static_cast<std::int32_t>(end)};
}

SPP_HOST_DEVICE Span bin_span(std::int64_t begin, std::int64_t end, std::int64_t divisions,
                              Extent extent, BinEdges edges, std::int64_t size) {
  const std::int64_t length = extent.end - extent.begin;
  Extent bin;
  if (edges == BinEdges::kInteger) {
    bin = bin_extent(begin, end, divisions, length);
  } else if (edges == BinEdges::kFloat32) {
    bin = float_bin_extent<float>(begin, end, divisions, length);
  } else {
    bin = float_bin_extent<double>(begin, end, divisions, length);
  }
  return clip({extent.begin + bin.begin, extent.begin + bin.end}, size);
}

// A coordinate in feature cells: one product in T, saturated. NaN, which callers rule out, would
// saturate too.
template <class T>
SPP_HOST_DEVICE T scale_coordinate(T coordinate, T spatial_scale) {
  const T scaled = coordinate * spatial_scale;
  const T limit = static_cast<T>(kMaxCoordinate);
  return scaled < -limit ? -limit : (scaled < limit ? scaled : limit);
}

// Fast R-CNN and torchvision: both ends rounded half away from zero and inclusive, at least one
// cell.
template <class T>
SPP_HOST_DEVICE Extent roi_pool_extent(T low, T high, T spatial_scale) {
  const auto first = static_cast<std::int64_t>(std::round(scale_coordinate(low, spatial_scale)));
  const auto last = static_cast<std::int64_t>(std::round(scale_coordinate(high, spatial_scale)));
  return {first, last < first ? first + 1 : last + 1};
}

// He et al. 2014, Appendix A: 1-based inclusive cells floor(low * s) + 1 to ceil(high * s) - 1;
// when that is inverted both become their midpoint, as in the released code; then clamped into the
// map, so never empty.
template <class T>
SPP_HOST_DEVICE Extent spp_net_extent(T low, T high, T spatial_scale, std::int64_t size) {
  auto first = static_cast<std::int64_t>(std::floor(scale_coordinate(low, spatial_scale))) + 1;
  auto last = static_cast<std::int64_t>(std::ceil(scale_coordinate(high, spatial_scale))) - 1;
  if (first > last) {
    // Truncation and floor differ only for negative sums, which the clamp below makes 1 either way.
    first = (first + last) / 2;
    last = first;
  }
  first = first < 1 ? 1 : (first > size ? size : first);
  last = last < 1 ? 1 : (last > size ? size : last);
  return {first - 1, last};
}

// The smallest window that covers the box, at least one cell.
template <class T>
SPP_HOST_DEVICE Extent outer_extent(T low, T high, T spatial_scale) {
  const auto begin = static_cast<std::int64_t>(std::floor(scale_coordinate(low, spatial_scale)));
  const auto end = static_cast<std::int64_t>(std::ceil(scale_coordinate(high, spatial_scale)));
  return {begin, end <= begin ? begin + 1 : end};
}

// One axis of a box under a convention; `size` is the map's extent along that axis.
template <class T>
SPP_HOST_DEVICE Extent roi_extent(RoiConvention convention, T low, T high, T spatial_scale,
                                  std::int64_t size) {
  switch (convention) {
    case RoiConvention::kSppNet:
      return spp_net_extent(low, high, spatial_scale, size);
    case RoiConvention::kOuter:
      return outer_extent(low, high, spatial_scale);
    case RoiConvention::kRoiPool:
    case RoiConvention::kTorchvision:
      break;
  }
  return roi_pool_extent(low, high, spatial_scale);
}

}  // namespace spp_ext
