// Packs a pyramid into the parameters of launches: one launch for all levels where they fit, else one
// for each level or a part of it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/pyramid.h"
#include "cuda/job.h"

namespace spp_ext::cuda {

// Sets job.pyramid to the whole pyramid; false if that does not fit in a launch's parameters.
inline bool pack_whole(const PyramidView& pyramid, PyramidJob& job) {
  std::int64_t rectangles = 0;
  for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
    if (!pyramid.levels[i].is_grid()) rectangles += pyramid.levels[i].bins;
  }
  if (pyramid.num_levels > kMaxLevels || rectangles > kMaxRectangles) return false;
  PackedPyramid& packed = job.pyramid;
  std::copy_n(pyramid.levels, pyramid.num_levels, packed.levels);
  std::copy_n(pyramid.order, pyramid.num_levels, packed.order);
  std::copy_n(pyramid.rectangles, rectangles, packed.rectangles);
  packed.num_levels = pyramid.num_levels;
  packed.bins = pyramid.bins;
  packed.spans = pyramid.spans;
  for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
    job.output_levels[i] = {pyramid.levels[i].in_row(), 0};
  }
  return true;
}

// Calls f() with job.pyramid set to one level, or a part of one, after another; all read the map.
template <class F>
void for_each_piece(const PyramidView& pyramid, PyramidJob& job, const F& f) {
  PackedPyramid& packed = job.pyramid;
  for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
    const Level& level = pyramid.levels[i];
    const std::int64_t piece = level.is_grid() ? level.bins : kMaxRectangles;
    for (std::int64_t offset = 0; offset < level.bins; offset += piece) {
      Level part = level;
      part.bins = std::min(piece, level.bins - offset);
      part.first_bin = 0;
      part.source = -1;
      if (!level.is_grid()) {
        std::copy_n(pyramid.rectangles + level.first_rectangle + offset, part.bins,
                    packed.rectangles);
        part.first_rectangle = 0;
      }
      packed.levels[0] = part;
      packed.order[0] = 0;
      packed.num_levels = 1;
      packed.bins = part.bins;
      packed.spans = part.row_spans() + part.col_spans();
      job.output_levels[0] = {level.in_row(), offset};
      f();
    }
  }
}

}  // namespace spp_ext::cuda
