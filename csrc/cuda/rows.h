// The rows that a launch works on: the images of a map, a row each, or the regions of a map.
//
// Regions are grouped on the device, by map and image, before any kernel uses them (group_regions.cuh).
// From then on each launch is for one map, and walks through a list in which the regions of an image
// stand together. Regions that cannot be pooled are in no list.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/params.h"
#include "core/regions.h"
#include "cuda/kernels.h"

namespace spp_ext::cuda {

// The rows of one map. Those of an image are at positions begin_of(image) up to begin_of(image + 1),
// and those of all images at positions begin_of(0) up to begin_of(N).
struct Rows {
  std::int64_t most;  // N, or K: the map has no more rows than this
  const std::int32_t*
      begin;                 // [N + 1], the position of each image's first region; null: whole maps
  const std::int32_t* list;  // [K], the region at each position
  Regions regions;
  double spatial_scale;

  SPP_HOST_DEVICE bool whole_maps() const { return begin == nullptr; }
  SPP_HOST_DEVICE std::int64_t begin_of(std::int64_t image) const {
    return whole_maps() ? image : begin[image];
  }
  SPP_HOST_DEVICE std::int64_t row_at(std::int64_t position) const {
    return whole_maps() ? position : list[position];
  }
  SPP_HOST_DEVICE std::int64_t image_of(std::int64_t row) const {
    return whole_maps() ? row : static_cast<std::int64_t>(roi_entry<double>(regions, row, 0));
  }
  SPP_HOST_DEVICE Window window_of(std::int64_t row, const FeatureMap& map) const {
    if (whole_maps()) return {{0, map.height}, {0, map.width}};
    return roi_window(regions, row, spatial_scale, map.height, map.width);
  }
};

inline Rows images_of(std::int64_t batch) { return {batch, nullptr, nullptr, {}, 1}; }

// Rows of output that no map's launch writes, those of regions without a group, get this value.
struct Fill {
  void* output;          // [K, row_size] of dtype, or null: there is nothing to fill
  std::int32_t* argmax;  // [K, row_size], set to -1, or null
  std::int64_t row_size;
  DType dtype;
  double value;
};

// All regions, listed by group = map * N + image.
struct GroupedRegions {
  Regions regions;
  std::int64_t batch;   // N
  std::int32_t* begin;  // [M * N + 1], the position of each group's first region
  std::int32_t* list;   // [K]

  Rows of_map(std::int64_t map, double spatial_scale) const {
    return {regions.count, begin + map * batch, list, regions, spatial_scale};
  }
};

// Launches the grouping, and the filling.
GroupedRegions group_regions(const Regions& regions, std::int64_t batch, const Fill& fill,
                             std::int32_t* scratch, const Stream& stream);

}  // namespace spp_ext::cuda
