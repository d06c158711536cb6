// Launches gather and scatter.
#include <algorithm>
#include <cstdint>

#include "core/dispatch.h"
#include "cuda/gather_scatter.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/rows.h"
#include "cuda/tuning.h"

namespace spp_ext::cuda {
namespace {

// Groups the regions, if rows are regions, and calls f(m, job) for every map.
template <class F>
void for_each_map(const LinearParams& params, const FeatureMap* maps, const Fill& fill,
                  std::int32_t* scratch, const Stream& stream, const F& f) {
  LinearJob job{};
  job.argmax = params.argmax;
  job.order = params.order;
  if (params.order.num_levels <= kMaxLinearLevels) {
    std::copy_n(params.levels, params.order.num_levels, job.own_levels);
  } else {
    job.levels = params.levels;
  }
  const std::int64_t batch = maps[0].batch;
  GroupedRegions grouped{};
  if (params.regions != nullptr) {
    grouped = group_regions(*params.regions, batch, fill, scratch, stream);
  }
  if (batch == 0) return;  // no region has a group
  for (std::int64_t m = 0; m < params.num_maps(); ++m) {
    job.map = maps[m];
    job.rows = params.regions == nullptr ? images_of(batch) : grouped.of_map(m, 1);
    f(m, job);
  }
}

struct ScatterLaunch {
  ScatterPolicy policy;
  std::int64_t blocks;
  std::int64_t threads;
  std::int64_t shared_bytes;
};

// Whole maps have few elements a plane, so a warp each; a block may take the cells of a plane in
// several ranges, since looking through the elements again costs little. Regions have thousands: a
// plane should fit, with as many warps on it as there is room for sums.
ScatterLaunch plan_scatter(const LinearJob& job, const Stream& stream) {
  const FeatureMap& map = job.map;
  const bool regions = !job.rows.whole_maps();
  const std::int64_t element_bytes = map.dtype == DType::kFloat64 ? 8 : 4;
  const std::int64_t room =
      regions ? std::min(stream.shared_bytes, tuning::kScatterRegionBytes) : tuning::kSharedBytes;
  const auto cells_with = [&](std::int64_t warps) {
    return (room / element_bytes - warps * 32) / warps;
  };
  std::int64_t warps = tuning::kScatterWarps;
  while (regions && warps > 1 && cells_with(warps) < map.cells()) warps /= 2;
  // Channels_last results want neighbouring planes, so that a memory sector is written by one block.
  const std::int64_t planes_of_regions =
      map.layout == Layout::kContiguous ? 1 : std::min<std::int64_t>(warps, 2);
  const ScatterPolicy policy{static_cast<std::int32_t>(regions ? planes_of_regions : warps),
                             static_cast<std::int32_t>(warps),
                             static_cast<std::int32_t>(std::min(map.cells(), cells_with(warps)))};
  return {policy,
          map.batch * divide_up(map.channels, policy.planes) * divide_up(map.cells(), policy.cells),
          warps * 32, warps * (policy.cells + 32) * element_bytes};
}

}  // namespace

void gather(const GatherParams& params, std::int32_t* scratch, const Stream& stream) {
  const std::int64_t row_size = params.linear.order.size();
  const Fill zeros{params.output, nullptr, row_size, params.sources[0].dtype, 0};
  for_each_map(params.linear, params.sources, zeros, scratch, stream,
               [&](std::int64_t /*m*/, const LinearJob& job) {
                 dispatch(job.map.dtype, [&](auto storage) {
                   launch(gather<decltype(storage)>,
                          divide_up(job.rows.most * row_size, tuning::kElementThreads),
                          tuning::kElementThreads, 0, stream, GatherJob{job, params.output});
                 });
               });
}

void scatter(const ScatterParams& params, std::int32_t* scratch, const Stream& stream) {
  for_each_map(params.linear, params.grad_inputs, Fill{}, scratch, stream,
               [&](std::int64_t m, const LinearJob& job) {
                 const ScatterLaunch plan = plan_scatter(job, stream);
                 dispatch(job.map.dtype, [&](auto storage) {
                   launch(scatter<decltype(storage)>, plan.blocks, plan.threads, plan.shared_bytes,
                          stream, ScatterJob{job, params.grad_output, params.data[m]}, plan.policy);
                 });
               });
}

}  // namespace spp_ext::cuda
