// Chooses how regions are pooled, and launches it: what is prepared, the tables of maps that do not fit
// in shared memory, and the pooling.
#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/dispatch.h"
#include "cuda/build_tables.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/pack.h"
#include "cuda/pool_bins.cuh"
#include "cuda/pool_regions.cuh"
#include "cuda/prepare_regions.cuh"
#include "cuda/region_job.h"
#include "cuda/region_tables.cuh"
#include "cuda/tuning.h"

namespace spp_ext::cuda {
namespace {

// Where a map's tables are: in shared memory, in global memory, or nowhere: pool_bins reads the map.
enum class TablePlace { kShared, kGlobal, kNone };

struct RegionPlan {
  TablePlace place;
  RegionPolicy policy;
  std::int64_t blocks;
  std::int64_t shared_bytes;
};

std::int32_t base_bins_of(const PyramidView& pyramid) {
  std::int32_t bins = 0;
  for (BaseLevels at(pyramid); at.next();) bins += static_cast<std::int32_t>(at.level().bins);
  return bins;
}

// The rounds in which bins are merged.
void plan_rounds(const PyramidView& pyramid, std::int32_t base_bins, RegionPolicy& policy) {
  std::int32_t bins = base_bins;
  const std::int32_t* round = nullptr;  // the first level of the last round, in the order of levels
  for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
    const std::int32_t* const at = pyramid.order + i;
    const Level& level = pyramid.levels[*at];
    if (level.is_base()) continue;
    if (round == nullptr || std::find(round, at, level.source) != at) {
      round = at;
      ++policy.rounds;
    }
    bins += static_cast<std::int32_t>(level.bins);
    policy.round_ends[policy.rounds - 1] = bins;
  }
}

std::int64_t output_bytes(const RegionJob& job) {
  return job.regions.count * job.channels * job.output_bins *
         (size_of(job.maps[0].dtype) + (job.argmax != nullptr ? 4 : 0));
}

// Of the tables of a map, each.
std::int64_t table_bytes(const RegionJob& job, std::int32_t m) {
  return job.batch * job.maps[m].cells() * job.table_channels * size_of(job.maps[m].dtype);
}

// Shares `room` bytes of shared memory out, with as many warps as there is room for; false if for none.
bool fits(const RegionJob& job, std::int64_t table_cells, RegionPlan& plan, std::int64_t room) {
  RegionPolicy& policy = plan.policy;
  const bool with_argmax = job.argmax != nullptr;
  const std::int64_t size = size_of(job.maps[0].dtype), bins = job.pyramid.bins;
  const std::int64_t items = bins << policy.pack_bits;
  // 16 bytes an item, and banks repeat after 128 bytes.
  const std::int64_t region_items = (items + 3) / 8 * 8 + 4;
  policy.region_items = static_cast<std::int32_t>(region_items);
  const std::int64_t regions = std::int64_t{1} << region_bits(policy.pack_bits, with_argmax);
  const std::int64_t place_bytes = with_argmax ? 16 / size * 4 : 0;
  const std::int64_t table =
      plan.place == TablePlace::kShared ? table_cells * (16 << policy.pack_bits) : 0;
  if (table > room) return false;
  std::int64_t taken = 0;
  const auto take = [&](std::int64_t bytes) {
    const std::int64_t at = taken;
    taken += align16(bytes);
    return static_cast<std::int32_t>(at);
  };
  RegionShared& shared = policy.shared;
  shared.cells = take(table);
  shared.squares = take(with_argmax ? 0 : table);
  shared.derived = take(((bins - job.base_bins) << policy.pack_bits) * sizeof(DerivedItem));
  shared.to_run = take(items * sizeof(RunItem));
  shared.from_run = take(items * 4);
  shared.has_nan = take(4);
  shared.warps = take(0);
  const std::int64_t before = std::exchange(taken, 0);
  shared.values = take(regions * region_items * 16);
  shared.places = take(regions * region_items * place_bytes);
  shared.run = take(regions * region_items * std::max<std::int64_t>(place_bytes, 16));
  shared.empty = take(regions * region_items);
  shared.of_warp = take(0);
  policy.warps = static_cast<std::int32_t>(std::clamp<std::int64_t>(
      (room - before) / shared.of_warp, 0,
      region_threads(plan.place == TablePlace::kShared || with_argmax) / 32));
  plan.shared_bytes = before + policy.warps * shared.of_warp;
  return policy.warps > 0;
}

RegionPlan plan_regions(RegionJob& job, const Stream& stream) {
  const bool with_argmax = job.argmax != nullptr;
  const auto per_pack = static_cast<std::int32_t>(16 / size_of(job.maps[0].dtype));
  std::int64_t cells = 0, map_bytes = 0;
  for (std::int32_t m = 0; m < job.num_maps; ++m) {
    cells = std::max(cells, job.maps[m].cells());
    map_bytes += job.maps[m].elements() * size_of(job.maps[m].dtype);
  }

  RegionPlan plan{};
  RegionPolicy& policy = plan.policy;
  job.base_bins = base_bins_of(job.pyramid.view());
  plan_rounds(job.pyramid.view(), job.base_bins, policy);
  policy.aligned = job.channels % per_pack == 0;
  for (std::int32_t i = 0; i < job.pyramid.num_levels; ++i) {
    if (job.output_levels[i].level.bins != job.pyramid.levels[i].bins) policy.aligned = 0;
  }
  const auto set_packs = [&](std::int32_t packs) {
    policy.pack_bits = 0;
    while (policy.packs() < packs) ++policy.pack_bits;
    packs = policy.packs();
    policy.cell_bytes = 16 * packs;
    job.table_channels = divide_up(job.channels, packs * per_pack) * packs * per_pack;
  };
  // Offsets in a row of output and among the bins are 32 bits wide.
  if (job.channels * job.output_bins > kInt32Max ||
      job.regions.count * job.base_bins > kInt32Max / 16 ||
      job.pyramid.bins > tuning::kRegionMaxBins ||
      map_bytes > tuning::kRegionMapBytes * output_bytes(job)) {
    return plan.place = TablePlace::kNone, plan;
  }

  const auto blocks_of_sm = [&] {
    return (stream.shared_bytes + 1024) / (plan.shared_bytes + 1024);
  };
  const auto slabs = [&] { return job.table_channels / (policy.packs() * per_pack); };
  // The widest slab that leaves room for enough warps; for each of which fewer must do if none does.
  const auto find_slab = [&] {
    for (const std::int32_t warps : {tuning::kRegionGoodWarps, tuning::kRegionMinWarps}) {
      for (std::int32_t packs = tuning::kRegionMaxPacks; packs >= 1; packs /= 2) {
        if (packs > 1 && packs / 2 >= divide_up(job.channels, per_pack)) continue;
        set_packs(packs);
        if (fits(job, cells, plan, stream.shared_bytes) && policy.warps >= warps) return true;
      }
    }
    return false;
  };

  plan.place = TablePlace::kShared;
  if (find_slab()) {
    const std::int64_t units = job.num_maps * std::max<std::int64_t>(job.batch, 1) * slabs();
    policy.segments = std::clamp<std::int64_t>(
        stream.sms * blocks_of_sm() / units, 1,
        divide_up(job.regions.count, policy.warps << region_bits(policy.pack_bits, with_argmax)));
    plan.blocks = units * policy.segments;
    return plan;
  }

  // Tables in global memory may take a few times what the output takes, and offsets in the table of an
  // image are 32 bits wide.
  plan.place = TablePlace::kGlobal;
  if (job.batch > 0 && find_slab()) {
    std::int64_t bytes = 0;
    for (std::int32_t m = 0; m < job.num_maps; ++m) {
      bytes += table_bytes(job, m) * (with_argmax ? 1 : 2);
    }
    if (cells * job.table_channels * size_of(job.maps[0].dtype) <= kInt32Max &&
        bytes <= tuning::kTableBytesOfOutput * output_bytes(job)) {
      // Blocks that run together share a slab or two, whose tables then stay in the L2 cache.
      const std::int64_t together = stream.sms * blocks_of_sm();
      policy.segments =
          std::clamp<std::int64_t>(together / 2, 1, divide_up(job.regions.count, policy.warps));
      plan.blocks = std::min(slabs() * policy.segments, together);
      return plan;
    }
  }
  plan.place = TablePlace::kNone;
  return plan;
}

// Gives `job` its parts of `scratch`, which may be null; returns the bytes that it takes.
template <class S>
std::int64_t place_scratch(RegionJob& job, const RegionPlan& plan, unsigned char* scratch) {
  if (plan.place == TablePlace::kNone) return 0;
  std::int64_t bytes = 0;
  const auto take = [&](std::int64_t size) -> void* {
    void* const part = scratch == nullptr ? nullptr : scratch + bytes;
    bytes += align16(size);
    return part;
  };
  job.groups = static_cast<std::int32_t*>(take(job.regions.count * 4));
  job.bins = static_cast<BinCells*>(take(job.regions.count * job.base_bins * 16));
  for (std::int32_t m = 0; plan.place == TablePlace::kGlobal && m < job.num_maps; ++m) {
    const FeatureMap& map = job.maps[m];
    const bool is_table = has_packs<S>(map) && map.channels == job.table_channels;
    job.cell_tables[m] = is_table ? const_cast<void*>(map.data) : take(table_bytes(job, m));
    job.square_tables[m] = job.argmax != nullptr ? nullptr : take(table_bytes(job, m));
  }
  return bytes;
}

template <class S>
void launch_regions(RegionJob& job, const RegionPlan& plan, const Stream& stream) {
  const auto launch_with = [&](auto with_argmax) {
    if (plan.place == TablePlace::kNone) {
      launch(
          pool_bins<S, with_argmax, RegionJob>,
          divide_up(job.regions.count * job.channels * job.pyramid.bins, tuning::kElementThreads),
          tuning::kElementThreads, 0, stream, job);
      return;
    }
    job.most_side = with_argmax ? 1 : 1 + smaller_side(plan.place == TablePlace::kShared);
    const auto spans = static_cast<std::int32_t>(job.pyramid.spans);
    const PreparePolicy prepare{std::max(1, tuning::kElementThreads / spans), spans};
    launch(prepare_regions, divide_up(job.regions.count, prepare.regions), tuning::kElementThreads,
           prepare.regions * (spans * static_cast<std::int64_t>(sizeof(Span)) + 4), stream, job,
           prepare);
    if (plan.place == TablePlace::kGlobal) {
      std::int64_t units = 0;
      bool wanted = job.argmax == nullptr;
      for (std::int32_t m = 0; m < job.num_maps; ++m) {
        units += TableUnit::count(job, kPerPack<S>, m);
        wanted |= job.cell_tables[m] != job.maps[m].data;
      }
      if (wanted) {
        launch(build_tables<S>, divide_up(units, kTableWarps), tuning::kElementThreads, 0, stream,
               job);
      }
    }
    const auto kernel = [&](auto pack_bits) {
      return plan.place == TablePlace::kShared ? pool_regions<S, with_argmax, true, pack_bits>
                                               : pool_regions<S, with_argmax, false, pack_bits>;
    };
    const auto of_bits = plan.policy.pack_bits == 0   ? kernel(std::integral_constant<int, 0>{})
                         : plan.policy.pack_bits == 1 ? kernel(std::integral_constant<int, 1>{})
                                                      : kernel(std::integral_constant<int, 2>{});
    launch(of_bits, plan.blocks, plan.policy.warps * 32, plan.shared_bytes, stream, job,
           plan.policy);
  };
  if (job.argmax != nullptr) {
    launch_with(std::true_type{});
  } else {
    launch_with(std::false_type{});
  }
}

// Calls f(job, plan) for every launch that the call takes: usually one.
template <class F>
void for_each_plan(const RegionPoolParams& params, const Stream& stream, const F& f) {
  RegionJob job{};
  job.regions = params.regions;
  job.batch = params.maps[0].batch;
  job.channels = params.maps[0].channels;
  job.output_bins = params.pyramid.bins;
  job.output = params.output;
  job.argmax = params.argmax;
  if (params.regions.count * job.channels == 0) return;
  const auto maps = static_cast<std::int32_t>(params.regions.num_maps);
  for (job.first_map = 0; job.first_map < maps; job.first_map += kMaxMaps) {
    job.num_maps = std::min(kMaxMaps, maps - job.first_map);
    std::copy_n(params.maps + job.first_map, job.num_maps, job.maps);
    std::copy_n(params.spatial_scales + job.first_map, job.num_maps, job.spatial_scales);
    const auto launch_packed = [&] { f(job, plan_regions(job, stream)); };
    if (pack_whole(params.pyramid, job)) {
      launch_packed();
    } else {
      for_each_piece(params.pyramid, job, launch_packed);
    }
  }
}

}  // namespace

std::int64_t pool_regions_scratch(const RegionPoolParams& params, const Stream& stream) {
  std::int64_t most = 0;
  for_each_plan(params, stream, [&](RegionJob& job, const RegionPlan& plan) {
    dispatch(job.maps[0].dtype, [&](auto storage) {
      most = std::max(most, place_scratch<decltype(storage)>(job, plan, nullptr));
    });
  });
  return most;
}

void pool_regions(const RegionPoolParams& params, void* scratch, const Stream& stream) {
  for_each_plan(params, stream, [&](RegionJob& job, const RegionPlan& plan) {
    dispatch(job.maps[0].dtype, [&](auto storage) {
      using S = decltype(storage);
      place_scratch<S>(job, plan, static_cast<unsigned char*>(scratch));
      launch_regions<S>(job, plan, stream);
    });
  });
}

}  // namespace spp_ext::cuda
