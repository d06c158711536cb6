// What the kernels are given: raw pointers, sizes and a pyramid, one struct per kernel. All memory
// belongs to the caller.
#pragma once

#include <cstdint>

#include "core/geometry.h"
#include "core/pyramid.h"
#include "core/row.h"
#include "core/scalar.h"

namespace spp_ext {

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
  SPP_HOST_DEVICE std::int64_t elements() const { return batch * channels * cells(); }
  // Elements between neighbouring cells of a plane, and between neighbouring planes of an image.
  SPP_HOST_DEVICE std::int64_t cell_stride() const {
    return layout == Layout::kContiguous ? 1 : channels;
  }
  SPP_HOST_DEVICE std::int64_t plane_stride() const {
    return layout == Layout::kContiguous ? cells() : 1;
  }
};

// Regions of interest, each of one image of one of M maps.
struct Regions {
  const void* rois;  // [K, 5] of dtype: batch_index, x1, y1, x2, y2 in image coordinates
  DType dtype;
  std::int64_t count;  // K
  RoiConvention convention;
  const std::int64_t* map_indices;  // [K], the map of each; null: the first
  std::int64_t num_maps;            // M
};

// Whole-map pooling: one row of output per image.
struct MapPoolParams {
  FeatureMap input;
  PyramidView pyramid;
  void* output;          // [N, C * B] of input.dtype
  std::int32_t* argmax;  // [N, C * B], or null when only values are wanted
};

// Region pooling: one row of output per region.
struct RegionPoolParams {
  const FeatureMap* maps;        // [M], of one dtype, N and C
  const double* spatial_scales;  // [M], feature cells per image pixel
  Regions regions;
  PyramidView pyramid;
  void* output;          // [K, C * B] of the maps' dtype
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

// The linear pair. An element of a [R, C * B] array names a plane, by its row and its channel, and by
// its argmax a cell of it. gather reads that cell; scatter adds to it.
struct LinearParams {
  const std::int32_t* argmax;  // [R, C * B]
  std::int64_t rows;           // R
  const Regions* regions;      // row r is of the map and image of region r; null: of image r
  RowOrder order;
  const RowLevel* levels;  // [order.num_levels]

  SPP_HOST_DEVICE std::int64_t num_maps() const {
    return regions == nullptr ? 1 : regions->num_maps;
  }
};

struct GatherParams {
  LinearParams linear;
  const FeatureMap* sources;  // [M], of one dtype, N and C
  void* output;               // [R, C * B] of their dtype
};

struct ScatterParams {
  LinearParams linear;
  const void* grad_output;        // [R, C * B], of the results' dtype
  const FeatureMap* grad_inputs;  // [M], shapes and layouts of the results
  void* const* data;              // [M], the results, of which every element is written
};

}  // namespace spp_ext
