// Launches the grouping of regions.
#include "core/dispatch.h"
#include "cuda/group_regions.cuh"
#include "cuda/launch.h"

namespace spp_ext::cuda {

GroupedRegions group_regions(const Regions& regions, std::int64_t batch, const Fill& fill,
                             std::int32_t* scratch, const Stream& stream) {
  const std::int64_t groups = regions.num_maps * batch;
  const GroupedRegions grouped{regions, batch, scratch, scratch + groups + 1};
  dispatch(fill.dtype, [&](auto storage) {
    launch(group_regions<decltype(storage)>, groups + 1, tuning::kGroupThreads, kGroupShared,
           stream, grouped, fill);
  });
  return grouped;
}

}  // namespace spp_ext::cuda
