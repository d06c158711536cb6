// The parameters of the pooling kernels, by value: a launch needs no copy of host memory and can be
// captured in a graph.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/params.h"

namespace spp_ext::cuda {

// Launches are split, by levels or by rectangles, where a pyramid has more.
constexpr std::int32_t kMaxLevels = 16;
constexpr std::int32_t kMaxRectangles = 96;

struct PackedPyramid {
  Level levels[kMaxLevels];
  std::int32_t order[kMaxLevels];
  Rectangle rectangles[kMaxRectangles];
  std::int32_t num_levels;
  std::int64_t bins;
  std::int64_t spans;

  SPP_HOST_DEVICE PyramidView view() const {
    return {levels, order, rectangles, num_levels, bins, spans};
  }
};

// The level of output that a packed level is, or is a part of: a level may be split among launches.
struct OutputLevel {
  RowLevel level;
  std::int64_t bin_offset;  // of the packed level's first bin in it
};

// What every pooling launch has: its levels, and where their bins go.
struct PyramidJob {
  PackedPyramid pyramid;
  OutputLevel output_levels[kMaxLevels];
  std::int64_t channels;     // C
  std::int64_t output_bins;  // B of the whole pyramid
  void* output;              // [R, C * B]
  std::int32_t* argmax;      // [R, C * B] or null

  // Where the bin of a packed level goes.
  SPP_HOST_DEVICE std::int64_t output_index(std::int32_t level, std::int64_t row,
                                            std::int64_t channel, std::int64_t bin) const {
    const RowOrder order{channels, output_bins, pyramid.num_levels, Layout::kContiguous};
    const OutputLevel& to = output_levels[level];
    return row * order.size() + order.element(to.level, {level, channel, to.bin_offset + bin});
  }
};

// What a row of output is pooled from.
struct RowSource {
  const FeatureMap* map;
  std::int64_t image;
  Window window;
};

// Whole maps: what the planned kernels are given in other words (map_plan.h), and pool_bins as it is.
struct WholeMaps : PyramidJob {
  FeatureMap input;

  SPP_HOST_DEVICE std::int64_t num_rows() const { return input.batch; }
  SPP_HOST_DEVICE bool source_of(std::int64_t row, RowSource* source) const {
    *source = {&input, row, {{0, input.height}, {0, input.width}}};
    return true;
  }
};

}  // namespace spp_ext::cuda
