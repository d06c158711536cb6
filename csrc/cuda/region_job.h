// What the launches that pool regions share: maps, regions, and what was prepared about them on the
// device (prepare_regions.cuh).
#pragma once

#include <cstdint>

#include "core/params.h"
#include "core/regions.h"
#include "cuda/job.h"

namespace spp_ext::cuda {

// Launches carry at most so many maps; calls with more are several launches.
constexpr std::int32_t kMaxMaps = 8;

// In place of a group: the region is of a map of another launch.
constexpr std::int32_t kOtherLaunch = -2;

// The cells of a bin, as a walk through squares of side x side cells that overlap at the end of a row and of
// a column. Cells are counted in row-major order.
struct alignas(16) BinCells {
  std::int32_t first;
  std::int32_t across;  // from the first square of a row to the last
  std::int32_t down;    // from the first row to the last
  std::int32_t side;    // 0: the bin has no cell
};

struct RegionJob : PyramidJob {
  Regions regions;
  FeatureMap maps[kMaxMaps];
  double spatial_scales[kMaxMaps];
  std::int32_t num_maps;
  std::int32_t first_map;  // of all maps, the one that is maps[0]
  std::int64_t batch;      // N

  // Prepared. A region's group says which of this launch's maps and images it is of, map * N + image;
  // kNoGroup if it cannot be pooled, which is left to the launch of the first map.
  std::int32_t* groups;    // [K]
  BinCells* bins;          // [K][base_bins], as nth_base_bin counts them
  std::int32_t base_bins;  // of base levels
  std::int32_t most_side;  // of squares that a bin is covered by

  // Where maps do not fit in shared memory, by map, [N][H * W][table_channels] each: the cells with
  // their channels side by side, and the maxima of the 2 x 2 squares that begin at each cell.
  void* cell_tables[kMaxMaps];
  void* square_tables[kMaxMaps];
  std::int64_t table_channels;

  SPP_HOST_DEVICE std::int32_t find_group(std::int64_t row) const {
    const std::int64_t group = group_of(regions, row, batch);
    if (group == kNoGroup) {
      return first_map == 0 ? static_cast<std::int32_t>(kNoGroup) : kOtherLaunch;
    }
    const std::int64_t own = group - first_map * batch;
    return own >= 0 && own < num_maps * batch ? static_cast<std::int32_t>(own) : kOtherLaunch;
  }
  SPP_HOST_DEVICE BinCells cells_of(const BaseBin& bin, std::int32_t map) const {
    if (bin.is_empty()) return {0, 0, 0, 0};
    const auto map_width = static_cast<std::int32_t>(maps[map].width);
    const std::int32_t height = bin.rows.end - bin.rows.begin,
                       width = bin.cols.end - bin.cols.begin;
    const std::int32_t shorter = height < width ? height : width;
    const std::int32_t side = shorter < most_side ? shorter : most_side;
    return {bin.rows.begin * map_width + bin.cols.begin, width - side, (height - side) * map_width,
            side};
  }
  SPP_HOST_DEVICE Window window_of(std::int64_t row, std::int32_t map) const {
    return roi_window(regions, row, spatial_scales[map], maps[map].height, maps[map].width);
  }

  SPP_HOST_DEVICE std::int64_t num_rows() const { return regions.count; }
  SPP_HOST_DEVICE bool source_of(std::int64_t row, RowSource* source) const {
    const std::int32_t group = find_group(row);
    if (group == kOtherLaunch) return false;
    source->map = nullptr;
    if (group >= 0) {
      const auto map = static_cast<std::int32_t>(group / batch);
      *source = {maps + map, group % batch, window_of(row, map)};
    }
    return true;
  }
};

}  // namespace spp_ext::cuda
