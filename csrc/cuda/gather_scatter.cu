// Launches gather and scatter.
#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "core/dispatch.h"
#include "core/regions.h"
#include "cuda/gather.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/linear_walk.cuh"
#include "cuda/scatter.cuh"
#include "cuda/tuning.h"

namespace spp_ext::cuda {
namespace {

// The job without its maps.
LinearJob job_of(const LinearParams& params) {
  LinearJob job{};
  job.argmax = params.argmax;
  job.order = params.order;
  if (params.order.num_levels <= kMaxLinearLevels) {
    std::copy_n(params.levels, params.order.num_levels, job.own_levels);
  } else {
    job.levels = params.levels;
  }
  const std::int64_t bins = params.order.bins;
  if (bins > 0 && bins <= tuning::kTableBins && params.order.size() <= kInt32Max) {
    job.table_bins = static_cast<std::int32_t>(bins);
    // Exact for the elements of kListedRows rows, whose products with it stay below 2^32.
    job.bin_shift = 17;
    for (std::int64_t power = 2; power <= bins; power *= 2) ++job.bin_shift;
    job.bin_fraction =
        static_cast<std::uint32_t>(divide_up(std::int64_t{1} << job.bin_shift, bins));
    job.minus_bins = 0u - static_cast<std::uint32_t>(bins);
    static_assert(tuning::kListedRows * tuning::kTableBins <= 1 << 14, "see above");
  }
  return job;
}

std::int64_t list_and_table_bytes(const LinearJob& job, std::int64_t warps) {
  return job.table_bins * static_cast<std::int64_t>(sizeof(BinPlace)) +
         warps * tuning::kListedRows * 4;
}

// Sets all maps of the job, or as many as a launch has room for at a time, and calls f(units, warps a block).
template <class F>
void for_each_launch(LinearJob& job, const std::vector<LinearMap>& maps, const F& f) {
  for (std::size_t first = 0; first < maps.size(); first += kMaxLinearMaps) {
    job.num_maps =
        static_cast<std::int32_t>(std::min<std::size_t>(kMaxLinearMaps, maps.size() - first));
    std::int64_t units = 0, warps = 1;
    for (std::int32_t m = 0; m < job.num_maps; ++m) {
      LinearMap& map = job.maps[m];
      map = maps[first + m];
      map.first_unit = static_cast<std::int32_t>(units);
      units += map.map.batch * map.slabs * map.ranges;
      if (units > kInt32Max) throw std::runtime_error("spp_ext: the maps are too large");
      warps = std::max<std::int64_t>(warps, map.planes * map.parts);
    }
    if (units > 0) f(units, warps);
  }
}

// A map and its division into units, of which `planes`, `warp_planes` and `ranges` are set.
LinearMap divided(const FeatureMap& map, std::int64_t first_group, LinearMap division) {
  division.map = map;
  division.first_group = static_cast<std::int32_t>(first_group);
  division.slabs = static_cast<std::int32_t>(
      divide_up(map.channels, std::int64_t{division.planes} * division.warp_planes));
  return division;
}

// Neighbouring channels that share a sector of memory, where they are neighbours in memory.
std::int32_t planes_of_sector(DType dtype) {
  return static_cast<std::int32_t>(32 / size_of(dtype));
}

// Numbers between planes of sums of so many cells: they may begin anywhere in a pack, and are whole
// packs; and neighbouring planes begin in other banks.
std::int64_t sums_stride(std::int64_t cells) {
  constexpr std::int64_t kMostBefore = 7;  // of 16-bit numbers in a pack
  return divide_up(cells + kMostBefore, 8) * 8 + 4;
}

// How many planes of a map, or how much of one, a block adds up. Follows from the shapes alone.
LinearMap plan_scatter(const LinearJob& job, const FeatureMap& map, bool regions,
                       std::int64_t first_group) {
  const std::int64_t element = map.dtype == DType::kFloat64 ? 8 : 4;
  const std::int64_t room = tuning::kScatterBytes - list_and_table_bytes(job, 0);
  const std::int64_t list = list_and_table_bytes(job, 1) - list_and_table_bytes(job, 0);
  const std::int64_t plane = sums_stride(map.cells()) * element;
  const std::int64_t fitting = room / (plane + list);
  // Rows with about as many elements as cells, or many rows: each range would look through them again.
  const bool dense = regions || job.order.bins * 4 > map.cells();
  LinearMap plan{};
  plan.warp_planes = plan.planes = plan.parts = 1;
  std::int64_t cells = map.cells();
  if (job.order.layout == Layout::kChannelsLast) {
    while (plan.warp_planes < planes_of_sector(map.dtype) &&
           2 * plan.warp_planes * plane <= tuning::kScatterWarpBytes) {
      plan.warp_planes *= 2;
    }
  }
  if (dense && fitting >= (regions ? 2 : plan.warp_planes)) {
    // Whole planes.
    const auto copies = static_cast<std::int32_t>(
        std::min<std::int64_t>(fitting / plan.warp_planes, tuning::kLinearWarps));
    (regions ? plan.parts : plan.planes) = copies;
  } else {
    plan.planes = dense                               ? tuning::kPlanesInRanges
                  : map.layout == Layout::kContiguous ? tuning::kSparsePlanes
                                                      : tuning::kLinearWarps;
    if (!dense && map.layout == Layout::kChannelsLast) {
      plan.warp_planes = std::max(plan.warp_planes, planes_of_sector(map.dtype) / plan.planes);
    }
    const std::int64_t most =
        ((room / plan.planes - list) / (element * plan.warp_planes) - 12) / 8 * 8;
    const std::int64_t ranges = divide_up(cells, most);
    cells = std::min(cells, divide_up(divide_up(cells, ranges), 8) * 8);  // alike, and whole packs
  }
  plan.cells = static_cast<std::int32_t>(cells);
  plan.plane_stride = static_cast<std::int32_t>(sums_stride(cells));
  plan.ranges = static_cast<std::int32_t>(divide_up(map.cells(), cells));
  return divided(map, first_group, plan);
}

// Blocks enough to fill the device: the rows of an image in parts, if need be.
LinearMap plan_gather(const LinearJob& job, const FeatureMap& map, const Stream& stream,
                      std::int64_t first_group) {
  LinearMap plan{};
  plan.parts = plan.ranges = 1;
  plan.warp_planes = job.order.layout == Layout::kChannelsLast ? planes_of_sector(map.dtype) : 1;
  plan.planes = tuning::kLinearWarps;
  if (job.groups.group != nullptr) {
    const std::int64_t wanted = stream.sms * tuning::kGatherWarpsPerSm;
    const std::int64_t parts =
        divide_up(wanted, std::max<std::int64_t>(map.batch * map.channels, 1));
    plan.ranges =
        static_cast<std::int32_t>(std::clamp<std::int64_t>(parts, 1, job.groups.count / 4 + 1));
  }
  return divided(map, first_group, plan);
}

}  // namespace

void gather(const GatherParams& params, std::int32_t* scratch, const Stream& stream) {
  const LinearParams& linear = params.linear;
  const DType dtype = params.sources[0].dtype;
  const std::int64_t batch = params.sources[0].batch;
  GatherJob job{job_of(linear), params.output};
  job.linear.groups = group_rows(linear, batch, false, scratch, stream);
  std::vector<LinearMap> maps;
  for (std::int64_t m = 0; m < linear.num_maps(); ++m) {
    maps.push_back(plan_gather(job.linear, params.sources[m], stream, m * batch));
  }
  if (linear.regions != nullptr) {
    const FeatureMap none{nullptr, dtype, Layout::kContiguous, 1, linear.order.channels, 0, 0};
    maps.push_back(plan_gather(job.linear, none, stream, kNoGroup));
  }
  for_each_launch(job.linear, maps, [&](std::int64_t units, std::int64_t warps) {
    dispatch(dtype, [&](auto storage) {
      launch(gather<decltype(storage)>, units, warps * 32, list_and_table_bytes(job.linear, warps),
             stream, job);
    });
  });
}

void scatter(const ScatterParams& params, std::int32_t* scratch, const Stream& stream) {
  const LinearParams& linear = params.linear;
  const DType dtype = params.grad_inputs[0].dtype;
  const std::int64_t batch = params.grad_inputs[0].batch;
  const bool regions = linear.regions != nullptr;
  ScatterJob job{job_of(linear), params.grad_output};
  std::vector<LinearMap> maps;
  bool in_ranges = false;
  for (std::int64_t m = 0; m < linear.num_maps(); ++m) {
    maps.push_back(plan_scatter(job.linear, params.grad_inputs[m], regions, m * batch));
    maps.back().result = params.data[m];
    in_ranges = in_ranges || maps.back().ranges > 1;
  }
  job.linear.groups = group_rows(linear, batch, in_ranges, scratch, stream);
  for_each_launch(job.linear, maps, [&](std::int64_t units, std::int64_t warps) {
    std::int64_t sums = 0;
    for (std::int32_t m = 0; m < job.linear.num_maps; ++m) {
      const LinearMap& map = job.linear.maps[m];
      sums =
          std::max(sums, std::int64_t{map.planes} * map.parts * map.warp_planes * map.plane_stride);
    }
    dispatch(dtype, [&](auto storage) {
      using T = ComputeType<decltype(storage)>;
      launch(scatter<decltype(storage)>, units, warps * 32,
             sums * static_cast<std::int64_t>(sizeof(T)) + list_and_table_bytes(job.linear, warps),
             stream, job, static_cast<std::int32_t>(sums));
    });
  });
}

}  // namespace spp_ext::cuda
