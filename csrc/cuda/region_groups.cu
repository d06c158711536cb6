// Launches what finds the groups and the extents of regions.
#include "cuda/launch.h"
#include "cuda/region_groups.cuh"

namespace spp_ext::cuda {

RegionGroups group_rows(const LinearParams& linear, std::int64_t batch, bool with_extents,
                        std::int32_t* scratch, const Stream& stream) {
  if (linear.regions == nullptr) return {};
  const std::int64_t count = linear.regions->count;
  const std::int64_t chunks = count / tuning::kGroupChunk + 1;
  std::int32_t* const group = scratch;
  std::int32_t* const least = group + count;
  std::int32_t* const greatest = least + chunks;
  RegionGroups groups{static_cast<std::int32_t>(count), group, least, greatest, nullptr, nullptr};
  if (count == 0) return groups;
  launch(prepare_groups, chunks, tuning::kGroupChunk, tuning::kGroupChunk / 32 * 8, stream,
         GroupJob{*linear.regions, batch, group, least, greatest});
  if (with_extents) {
    auto* const first = reinterpret_cast<std::uint32_t*>(greatest + chunks);
    std::int32_t* const last = greatest + chunks + count;
    launch(find_extents, count, tuning::kExtentThreads, tuning::kExtentThreads / 32 * 8, stream,
           ExtentJob{linear.argmax, linear.order.size(), first, last});
    groups.first_cell = first;
    groups.last_cell = last;
  }
  return groups;
}

}  // namespace spp_ext::cuda
