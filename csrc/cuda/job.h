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

// Where the bins of a packed level go: its bin b of channel c is element
// (first_bin * C + c * bins + bin_offset + b) of an output row. A level may be split among
// launches.
struct OutputLevel {
  std::int64_t first_bin;
  std::int64_t bins;
  std::int64_t bin_offset;
};

// One pooling call. An output row is an image (no rois) or a region.
struct PoolJob {
  FeatureMap input;
  // Whether rows are regions. Not to be told from regions.rois, which is null for none of them,
  // too.
  bool by_region;
  Regions regions;
  PackedPyramid pyramid;
  OutputLevel output_levels[kMaxLevels];
  std::int64_t output_bins;  // B of the whole call: a row of output has C * B elements
  std::int64_t rows;         // R
  void* output;              // [R, C * B]
  std::int32_t* argmax;      // [R, C * B] or null
  // Regions grouped by image (group_regions): image n has row_list[row_begin[n]] up to
  // row_list[row_begin[n + 1]].
  const std::int32_t* row_begin;  // [N + 1]
  const std::int32_t* row_list;   // [K]

  SPP_HOST_DEVICE std::int64_t output_index(std::int32_t level, std::int64_t row,
                                            std::int64_t channel, std::int64_t bin) const {
    const OutputLevel& to = output_levels[level];
    return (row * output_bins + to.first_bin) * input.channels + channel * to.bins + to.bin_offset +
           bin;
  }
  SPP_HOST_DEVICE bool whole_map() const { return !by_region; }
};

// In place of an image: the region cannot be pooled, because a coordinate is not finite, or the batch
// index names no image or the map index no map; or it is for the call of another map to pool.
constexpr std::int64_t kNoImage = -1;
constexpr std::int64_t kOtherMap = -2;

namespace detail {
template <class T>
SPP_HOST_DEVICE std::int64_t sound_image(const Regions& regions, std::int64_t row,
                                         std::int64_t batch) {
  const T index = roi_entry<T>(regions, row, 0);
  bool sound = is_image(index, batch);
  for (int column = 1; column < 5; ++column) {
    const T value = roi_entry<T>(regions, row, column);
    sound = sound && value - value == 0;  // false for NaN and for infinities
  }
  return sound ? static_cast<std::int64_t>(index) : kNoImage;
}
}  // namespace detail

// The image of a region, or one of the above. A region without a map falls to the first one, so that
// one call answers for each.
SPP_HOST_DEVICE std::int64_t sound_image(const Regions& regions, std::int64_t row,
                                         std::int64_t batch) {
  if (!regions.names_map(row)) return regions.map == 0 ? kNoImage : kOtherMap;
  if (!regions.is_of_map(row)) return kOtherMap;
  return regions.dtype == DType::kFloat64 ? detail::sound_image<double>(regions, row, batch)
                                          : detail::sound_image<float>(regions, row, batch);
}

// The image of an output row, or what is in place of one; and its window.
SPP_HOST_DEVICE std::int64_t image_of(const PoolJob& job, std::int64_t row) {
  return job.whole_map() ? row : sound_image(job.regions, row, job.input.batch);
}
SPP_HOST_DEVICE Window window_of(const PoolJob& job, std::int64_t row) {
  if (job.whole_map()) return {{0, job.input.height}, {0, job.input.width}};
  return roi_window(job.regions, row, job.input.height, job.input.width);
}

}  // namespace spp_ext::cuda
