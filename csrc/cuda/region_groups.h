// The groups of regions, and the extents of their argmax, in scratch memory on the device.
#pragma once

#include <cstdint>

#include "core/params.h"
#include "cuda/kernels.h"

namespace spp_ext::cuda {

// What kernels that walk through regions read of them.
struct RegionGroups {
  std::int32_t count;         // K
  const std::int32_t* group;  // [K], map * N + image or kNoGroup; null: rows are images, one each
  // [chunks of tuning::kGroupChunk regions], the least and the greatest group of each.
  const std::int32_t* least;
  const std::int32_t* greatest;
  // [K], the first and the last cell that a row's argmax names; 2^32 - 1 and -1 if none. Null: not known.
  const std::uint32_t* first_cell;
  const std::int32_t* last_cell;
};

struct GroupJob {
  Regions regions;
  std::int64_t batch;  // N
  std::int32_t* group;
  std::int32_t* least;
  std::int32_t* greatest;
};

struct ExtentJob {
  const std::int32_t* argmax;  // [K, row_size]
  std::int64_t row_size;
  std::uint32_t* first_cell;
  std::int32_t* last_cell;
};

// Launches what finds the groups and, for scatter to maps that are added up in parts, the extents.
// `scratch` has linear_scratch(K) numbers.
RegionGroups group_rows(const LinearParams& linear, std::int64_t batch, bool with_extents,
                        std::int32_t* scratch, const Stream& stream);

}  // namespace spp_ext::cuda
