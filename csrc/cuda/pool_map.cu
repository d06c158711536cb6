// Chooses a kernel and its launch for pooling whole maps.
#include <algorithm>
#include <cstdint>

#include "core/dispatch.h"
#include "cuda/job.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/map_plan.h"
#include "cuda/pack.h"
#include "cuda/pool_bins.cuh"
#include "cuda/pool_map_channels.cuh"
#include "cuda/pool_map_planes.cuh"
#include "cuda/tuning.h"

namespace spp_ext::cuda {
namespace {

// The least b with 1 << b >= value, at most `most`.
std::int32_t bits_from(std::int64_t value, std::int32_t most) {
  std::int32_t bits = 0;
  while (bits < most && (std::int64_t{1} << bits) < value) ++bits;
  return bits;
}

// So many warps, at most `most`, that all have about as many of `items` to do.
std::int64_t balanced(std::int64_t items, std::int64_t most) {
  return divide_up(items, divide_up(items, most));
}

// Sets what a derived level is merged from: its source or, `from_base`, the base level at the end of the
// chain of sources. False if there are too many rectangles.
bool pack_merges(const PyramidView& pyramid, std::int32_t index, bool from_base,
                 std::int32_t& num_merges, MapJob& job, MapLevel& to) {
  const Level& level = pyramid.levels[index];
  std::int32_t source = level.source;
  while (from_base && !pyramid.levels[source].is_base()) source = pyramid.levels[source].source;
  to.source = static_cast<std::int32_t>(
      std::find(pyramid.order, pyramid.order + pyramid.num_levels, source) - pyramid.order);
  to.down = pyramid.levels[source].row_divisions / level.row_divisions;
  to.across = pyramid.levels[source].col_divisions / level.col_divisions;
  to.first_merge = level.is_grid() ? -1 : num_merges;
  if (level.is_grid()) return true;
  if (num_merges + level.bins > kMaxMapMerges) return false;
  for (std::int64_t bin = 0; bin < level.bins; ++bin) {
    const Rectangle parts = pyramid.rectangle(level, bin);
    job.merges[num_merges++] = {parts.top * to.down, parts.left * to.across, parts.bottom * to.down,
                                parts.right * to.across};
  }
  return true;
}

// A launch for all levels of `from`; false if they are too many, or only a part of a level.
bool pack_map(const WholeMaps& from, bool from_base, MapJob& job) {
  const FeatureMap& input = from.input;
  const PyramidView pyramid = from.pyramid.view();
  if (pyramid.spans > kMaxMapSpans || pyramid.bins > kMaxMapBins ||
      input.batch * input.channels > kInt32Max) {
    return false;
  }
  job.data = input.data;
  job.output = from.output;
  job.argmax = from.argmax;
  job.row_size = input.channels * from.output_bins;
  job.batch = static_cast<std::int32_t>(input.batch);
  job.channels = static_cast<std::int32_t>(input.channels);
  job.height = static_cast<std::int32_t>(input.height);
  job.width = static_cast<std::int32_t>(input.width);
  job.num_levels = pyramid.num_levels;
  job.num_spans = static_cast<std::int32_t>(pyramid.spans);
  job.bins = static_cast<std::int32_t>(pyramid.bins);
  std::int32_t num_merges = 0, span = 0;
  for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
    const std::int32_t index = pyramid.order[i];
    const Level& level = pyramid.levels[index];
    const OutputLevel& output = from.output_levels[index];
    if (output.level.bins != level.bins) return false;
    MapLevel& to = job.levels[i];
    to.output = output.level.first_bin * input.channels;
    to.first_bin = static_cast<std::int32_t>(level.first_bin);
    to.bins = static_cast<std::int32_t>(level.bins);
    to.cols = level.is_grid() ? level.col_divisions : 1;
    to.by_bins = Divisor(to.bins);
    to.by_cols = Divisor(to.cols);
    to.source = -1;
    if (!level.is_base()) {
      if (!pack_merges(pyramid, index, from_base, num_merges, job, to)) return false;
      continue;
    }
    to.bin_rows = static_cast<std::int32_t>(level.row_spans());
    to.listed = !level.is_grid();
    to.row_spans = span;
    to.col_spans = span + to.bin_rows;
    span = to.col_spans + static_cast<std::int32_t>(level.col_spans());
  }
  fill_spans(pyramid, {{0, input.height}, {0, input.width}}, input.height, input.width, job.spans);
  return true;
}

// Whether packs of so many bytes are aligned at `address` and `stride` bytes from it.
bool aligned(const MapJob& job, std::int64_t stride, std::int64_t bytes) {
  return reinterpret_cast<std::uintptr_t>(job.data) % bytes == 0 && stride % bytes == 0;
}

// ---- contiguous ----

// Calls f with the numbers in a pack along the rows, as a constant: 16 bytes, a word or a single number.
template <class S, class F>
void with_row_packs(const MapJob& job, const F& f) {
  const std::int64_t stride = job.width * static_cast<std::int64_t>(sizeof(S));
  if (aligned(job, stride, 16)) return f(std::integral_constant<int, kPerPack<S>>{});
  if (kPerWord<S> > 1 && aligned(job, stride, 4)) {
    return f(std::integral_constant<int, kPerWord<S>>{});
  }
  f(std::integral_constant<int, 1>{});
}

struct PlanesLaunch {
  PlanesPlan plan;
  std::int64_t blocks, warps, shared_bytes;
};

PlanesLaunch plan_planes(MapJob& job, std::int64_t size, int numbers, const Stream& stream) {
  PlanesPlan plan{};
  const std::int64_t all_planes = std::int64_t{job.batch} * job.channels;
  const std::int64_t plane_bytes = size * job.height * job.width;
  const std::int64_t bin_bytes = job.bins * (size + (job.argmax != nullptr ? 4 : 0));
  const std::int64_t wanted_warps = stream.sms * tuning::kMapWarpsPerSm;
  plan.group_bits = bits_from(divide_up(job.width, numbers), 5);
  const std::int64_t warp_groups = 32 >> plan.group_bits;

  std::int64_t bin_rows = 0, fewest_batches = kInt32Max;
  for (std::int32_t l = 0; l < job.num_levels; ++l) {
    MapLevel& level = job.levels[l];
    if (level.source >= 0) continue;
    bin_rows = std::max<std::int64_t>(bin_rows, level.bin_rows);
    fewest_batches = std::min<std::int64_t>(fewest_batches, job.height / level.bin_rows / kBatch);
    // As many lanes a bin as there are, while each has several columns.
    while ((level.cols << (level.lane_bits + 1)) <= 1 << plan.group_bits &&
           job.width / level.cols >= tuning::kColumnsPerLane << level.lane_bits) {
      ++level.lane_bits;
    }
  }

  plan.together = all_planes < stream.sms * tuning::kMapUnitsPerSm ||
                  plane_bytes > tuning::kMapUnitBytes || bin_bytes > tuning::kMapUnitBins;
  std::int64_t warps = tuning::kMapThreads / 32;
  if (plan.together) {
    const auto items = [&] { return divide_up(bin_rows << plan.part_bits, warp_groups); };
    while (all_planes * items() < wanted_warps && fewest_batches >> (plan.part_bits + 1) > 0 &&
           bin_bytes << (plan.part_bits + 1) <= tuning::kSharedBytes / 2) {
      ++plan.part_bits;
    }
    warps = balanced(items(), warps);
  } else {
    while (all_planes >> (plan.plane_bits + 1) >= stream.sms * tuning::kMapFewWarpsPerSm &&
           job.channels >> (plan.plane_bits + 1) > 0 &&
           plane_bytes << (plan.plane_bits + 1) <= tuning::kMapUnitBytes / 2 &&
           bin_bytes << (plan.plane_bits + 1) <= tuning::kMapUnitBins) {
      ++plan.plane_bits;
    }
  }
  const auto slabs = divide_up(job.channels, std::int64_t{1} << plan.plane_bits);
  const std::int64_t units = job.batch * slabs;
  plan.slabs = static_cast<std::int32_t>(slabs);
  plan.units = static_cast<std::int32_t>(units);

  // Strips of neighbouring groups begin in different banks.
  const std::int64_t cells = job.argmax != nullptr ? 4 : 0;
  const std::int64_t strip_cells = align16(job.width * size);
  const std::int64_t group_bytes = strip_cells + align16(job.width * cells) + 16;
  const std::int64_t copies = std::int64_t{1} << (plan.plane_bits + plan.part_bits);
  const std::int64_t unit_cells = align16(copies * job.bins * size);
  const std::int64_t unit_bytes = unit_cells + align16(copies * job.bins * cells);
  const std::int64_t spans_bytes = align16(job.num_spans * static_cast<std::int64_t>(sizeof(Span)));
  const auto shared = [&] {
    return spans_bytes + warps * warp_groups * group_bytes +
           (plan.together ? 1 : warps) * unit_bytes;
  };
  while (warps > 1 && shared() > tuning::kSharedBytes) --warps;
  if (shared() <= stream.shared_bytes) {
    plan.group_bytes = static_cast<std::int32_t>(group_bytes);
    plan.group_cells = static_cast<std::int32_t>(strip_cells);
    plan.strips_at = static_cast<std::int32_t>(spans_bytes);
    plan.bins_at = static_cast<std::int32_t>(spans_bytes + warps * warp_groups * group_bytes);
    plan.unit_bytes = static_cast<std::int32_t>(unit_bytes);
    plan.unit_cells = static_cast<std::int32_t>(unit_cells);
  }
  return {plan, plan.together ? units : divide_up(units, warps), warps, shared()};
}

bool launch_planes(const WholeMaps& from, const Stream& stream) {
  MapJob job{};
  if (!pack_map(from, false, job)) return false;
  bool launched = false;
  dispatch_job(from, [&](auto storage, auto with_argmax) {
    using S = decltype(storage);
    with_row_packs<S>(job, [&](auto numbers) {
      const PlanesLaunch found = plan_planes(job, sizeof(S), numbers, stream);
      if (found.shared_bytes > stream.shared_bytes) return;
      launch(pool_map_planes<S, with_argmax, numbers>, found.blocks, found.warps * 32,
             found.shared_bytes, stream, job, found.plan);
      launched = true;
    });
  });
  return launched;
}

// ---- channels_last ----

struct ChannelsLaunch {
  ChannelsPlan plan;
  std::int64_t blocks, warps, shared_bytes;
};

ChannelsLaunch plan_channels(const MapJob& job, std::int64_t size, int numbers,
                             const Stream& stream) {
  ChannelsPlan plan{};
  std::int64_t base_bins = 0;
  for (std::int32_t l = 0; l < job.num_levels; ++l) {
    if (job.levels[l].source < 0) base_bins += job.levels[l].bins;
  }
  const std::int64_t packs = divide_up(job.channels, numbers);
  const auto chunks = [&] { return divide_up(packs, std::int64_t{1} << plan.lane_bits); };
  const std::int64_t map_bytes = size * job.batch * job.channels * job.height * job.width;
  plan.lane_bits = bits_from(packs, tuning::kMapLaneBits);
  // Too few blocks: fewer channels in each where the map is small, else fewer bins.
  const std::int32_t widest = plan.lane_bits;
  while (job.batch * chunks() < stream.sms * tuning::kMapFullShare && plan.lane_bits > 1) {
    --plan.lane_bits;
  }
  plan.apart = plan.lane_bits < widest || widest <= 1
                   ? map_bytes / (job.batch * chunks()) > tuning::kMapBlockBytes
                   : 0;
  plan.bins = static_cast<std::int32_t>(base_bins);
  std::int64_t warps = balanced(base_bins, tuning::kMapChannelThreads / 32);
  if (plan.apart) {
    plan.lane_bits = widest;
    plan.bins = 1;
    const auto blocks = [&] { return job.batch * chunks() * base_bins; };
    plan.part_bits = tuning::kMapPartBits;
    while (blocks() << plan.part_bits < stream.sms * tuning::kMapWarpsPerSm &&
           plan.part_bits < tuning::kMapMostPartBits) {
      ++plan.part_bits;
    }
    while (blocks() << plan.part_bits < stream.sms * tuning::kMapWarpsPerSm / 2 &&
           plan.lane_bits > tuning::kMapLaneBits - 1) {
      --plan.lane_bits;
    }
    warps = std::int64_t{1} << plan.part_bits;
  }
  plan.base_bins = static_cast<std::int32_t>(base_bins);
  plan.chunks = static_cast<std::int32_t>(chunks());
  const std::int64_t slots = plan.apart ? plan.bins << plan.part_bits : job.bins;
  const std::int64_t held = slots * (numbers << plan.lane_bits);
  plan.cells_at = static_cast<std::int32_t>(std::min(align16(held * size), kInt32Max));
  return {plan, job.batch * chunks() * divide_up(base_bins, plan.bins), warps,
          align16(held * size) + (job.argmax != nullptr ? held * 4 : 0)};
}

bool launch_channels(const WholeMaps& from, const Stream& stream) {
  MapJob job{};
  if (!pack_map(from, false, job)) return false;
  // Offsets of the rows of a batch are 32 bits wide.
  if (from.input.width * from.input.channels > kInt32Max / kBatch) return false;
  bool launched = false;
  dispatch_job(from, [&](auto storage, auto with_argmax) {
    using S = decltype(storage);
    const auto with_packs = [&](auto numbers) {
      const ChannelsLaunch found = plan_channels(job, sizeof(S), numbers, stream);
      std::int64_t merged = 0;
      for (std::int32_t l = 0; l < job.num_levels; ++l) {
        if (job.levels[l].source >= 0) merged += job.levels[l].bins;
      }
      const std::int64_t merges = std::int64_t{job.batch} * job.channels * merged * kMergeLanes;
      if (found.shared_bytes > stream.shared_bytes || found.blocks > kInt32Max ||
          merges > kInt32Max) {
        return;
      }
      launch(pool_map_channels<S, with_argmax, numbers>, found.blocks, found.warps * 32,
             found.shared_bytes, stream, job, found.plan);
      if (found.plan.apart && merged > 0) {
        pack_map(from, true, job);
        launch(merge_map<S, with_argmax>, divide_up(merges, tuning::kElementThreads),
               tuning::kElementThreads, 0, stream, job, static_cast<std::int32_t>(merged));
      }
      launched = true;
    };
    if (aligned(job, job.channels * static_cast<std::int64_t>(sizeof(S)), 16)) {
      with_packs(std::integral_constant<int, kPerPack<S>>{});
    } else {
      with_packs(std::integral_constant<int, 1>{});
    }
  });
  return launched;
}

void launch_bins(const WholeMaps& job, const Stream& stream) {
  const std::int64_t elements = job.input.batch * job.input.channels * job.pyramid.bins;
  dispatch_job(job, [&](auto storage, auto with_argmax) {
    launch(pool_bins<decltype(storage), with_argmax, WholeMaps>,
           divide_up(elements, tuning::kElementThreads), tuning::kElementThreads, 0, stream, job);
  });
}

// With shared memory, if there is enough of it.
bool launch_blocks(const WholeMaps& job, const Stream& stream) {
  return job.input.layout == Layout::kContiguous ? launch_planes(job, stream)
                                                 : launch_channels(job, stream);
}

}  // namespace

// One launch for all levels where it can be, else one a level.
void pool_map(const MapPoolParams& params, const Stream& stream) {
  if (params.input.batch * params.input.channels == 0) return;
  WholeMaps job{};
  job.input = params.input;
  job.channels = params.input.channels;
  job.output_bins = params.pyramid.bins;
  job.output = params.output;
  job.argmax = params.argmax;
  if (pack_whole(params.pyramid, job) && launch_blocks(job, stream)) return;
  for_each_piece(params.pyramid, job, [&] {
    if (!launch_blocks(job, stream)) launch_bins(job, stream);
  });
}

}  // namespace spp_ext::cuda
