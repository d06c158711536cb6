// Cuts a pooling call into units and runs them with the kernels of the best instruction set: a unit
// has some planes of the input, and a thread does one unit after another.
#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>
#include <vector>

#include "core/integers.h"
#include "cpu/huge_pages.h"
#include "cpu/kernels.h"
#include "cpu/pool_job.h"
#include "cpu/regions.h"
#include "cpu/run_units.h"
#include "cpu/tuning.h"

#if defined(SPP_EXT_HAVE_X86_ISAS)
#include <cpuid.h>
#endif

namespace spp_ext::cpu {
namespace {

const LaneKernels& choose_kernels() {
#if defined(SPP_EXT_HAVE_X86_ISAS)
  const char* asked_for = std::getenv("SPP_EXT_INSTRUCTION_SET");
  const std::string_view wanted = asked_for == nullptr ? "" : asked_for;
  unsigned eax, ebx, ecx, edx;  // F16C by its bit, since Clang 16 does not know it by name
  const bool has_f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
  const bool has_avx2 = has_f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && wanted != "avx2" && wanted != "baseline") return avx512::kLaneKernels;
  if (has_avx2 && wanted != "baseline") return avx2::kLaneKernels;
#endif
  return baseline::kLaneKernels;
}

const LaneKernels& kernels() {
  static const LaneKernels& chosen = choose_kernels();
  return chosen;
}

std::int64_t lanes(DType dtype) {
  const std::size_t element = dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
  return kernels().vector_bytes / static_cast<std::int64_t>(element);
}

void advise_huge_pages_for(void* output, std::int32_t* argmax, DType dtype, std::int64_t elements) {
  advise_huge_pages(output, elements * size_of(dtype));
  advise_huge_pages(argmax, elements * static_cast<std::int64_t>(sizeof(*argmax)));
}

// The merges of a pyramid, listed once for all units.
class MergeList {
 public:
  explicit MergeList(const PyramidView& pyramid) {
    std::int64_t bins = 0, parts = 0;  // parts: exactly for grids, of listed bins a guess
    for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
      const Level& level = pyramid.levels[i];
      if (level.is_base()) continue;
      bins += level.bins;
      parts += pyramid.levels[level.source].bins;
    }
    merges_.reserve(static_cast<std::size_t>(bins));
    parts_.reserve(static_cast<std::size_t>(parts));
    for (std::int32_t i = 0; i < pyramid.num_levels; ++i) {
      const Level& level = pyramid.levels[pyramid.order[i]];
      for (std::int64_t bin = 0; !level.is_base() && bin < level.bins; ++bin) {
        const auto before = static_cast<std::int64_t>(parts_.size());
        for_each_part(pyramid, level, bin, [&](std::int64_t part) { parts_.push_back(part); });
        const auto count = static_cast<std::int64_t>(parts_.size()) - before;
        merges_.push_back({level.first_bin + bin, nullptr, count});
      }
    }
    const std::int64_t* next = parts_.data();
    for (Merge& merge : merges_) {
      merge.parts = next;
      next += merge.num_parts;
    }
  }
  Merges view() const { return {merges_.data(), merges_.data() + merges_.size()}; }

 private:
  std::vector<Merge> merges_;
  std::vector<std::int64_t> parts_;
};

// Number `unit` of the units that have `per_unit` channels of one image each.
ChannelUnit channel_unit(const FeatureMap& input, std::int64_t per_unit, std::int64_t unit) {
  const std::int64_t units_per_image = divide_up(input.channels, per_unit);
  const std::int64_t first = unit % units_per_image * per_unit;
  return {unit / units_per_image, first, std::min(per_unit, input.channels - first)};
}

// How a map is cut into units, where `images` images of its kind are pooled in one call.
struct MapCut {
  const FeatureMap& map;
  std::int64_t per_unit;  // planes, or channels of one image

  MapCut(const FeatureMap& input, std::int64_t images, std::int64_t threads) : map(input) {
    const std::int64_t vector = lanes(map.dtype);
    if (is_contiguous()) {
      per_unit = std::clamp<std::int64_t>(divide_up(images * map.channels, threads), 1, vector);
    } else {
      // Long runs of channels read best, but every thread should have some.
      const std::int64_t wide = tuning::kChannelVectors * vector;
      per_unit = images * divide_up(map.channels, wide) >= threads ? wide : vector;
    }
  }

  bool is_contiguous() const { return map.layout == Layout::kContiguous; }
  std::int64_t units() const {
    if (is_contiguous()) return divide_up(map.batch * map.channels, per_unit);
    return map.batch * divide_up(map.channels, per_unit);
  }
  std::size_t scratch_bytes(const MapJob& job) const {
    return is_contiguous() ? kernels().planes.scratch_bytes(job)
                           : kernels().channels.scratch_bytes(job);
  }
  void pool(const MapJob& job, std::int64_t unit, void* scratch) const {
    if (is_contiguous()) {
      const std::int64_t first = unit * per_unit;
      const std::int64_t planes = std::min(per_unit, map.batch * map.channels - first);
      return kernels().planes.pool(job, {first, planes}, scratch);
    }
    kernels().channels.pool(job, channel_unit(map, per_unit, unit), scratch);
  }
};

// The spans of every row that has a group, each on its own map: [K, pyramid.spans].
std::vector<Span> spans_of_rows(const RegionPoolParams& params,
                                const std::vector<std::int64_t>& rows, const Executor& executor) {
  const Regions& regions = params.regions;
  const PyramidView& pyramid = params.pyramid;
  const auto count = static_cast<std::int64_t>(rows.size());
  std::vector<Span> spans(static_cast<std::size_t>(regions.count * pyramid.spans));
  run_units(divide_up(count, tuning::kRowsPerTask), 0, executor, [&](std::int64_t unit, void*) {
    const std::int64_t first = unit * tuning::kRowsPerTask;
    const std::int64_t end = std::min(count, first + tuning::kRowsPerTask);
    for (std::int64_t k = first; k < end; ++k) {
      const std::int64_t row = rows[k], map = map_of(regions, row);
      const std::int64_t height = params.maps[map].height, width = params.maps[map].width;
      fill_spans(pyramid, roi_window(regions, row, params.spatial_scales[map], height, width),
                 height, width, spans.data() + row * pyramid.spans);
    }
  });
  return spans;
}

// The smallest span that holds two, of which one may be empty.
Span hull(Span a, Span b) {
  if (a.begin == a.end) return b;
  if (b.begin == b.end) return a;
  return {std::min(a.begin, b.begin), std::max(a.end, b.end)};
}

// Rows [begin, end) of the map that the base bins of a region read.
Span rows_read(const RegionJob& job, std::int64_t row) {
  const PyramidView& pyramid = job.params.pyramid;
  Span all{0, 0};
  for_each_bin_row(pyramid, job.spans + row * pyramid.spans,
                   [&](const BinRow& bins) { all = hull(all, bins.rows); });
  return all;
}

// The same of regions rows[first_row] up to rows[end_row].
Span rows_read(const RegionJob& job, std::int64_t first_row, std::int64_t end_row) {
  Span all{0, 0};
  for (std::int64_t k = first_row; k < end_row; ++k) all = hull(all, rows_read(job, job.rows[k]));
  return all;
}

// Cells that a unit copies to its slab, and vectors of lanes that it takes: every vector of channels
// has a whole number of squares of lanes.
std::int64_t slab_cells(const RegionJob& job, const RegionUnit& unit) {
  return (unit.map_rows.end - unit.map_rows.begin) * job.params.maps[unit.map].width;
}
std::int64_t slab_vectors(const RegionJob& job, const RegionUnit& unit, std::int64_t lanes) {
  return divide_up(slab_cells(job, unit), lanes) * lanes * divide_up(unit.planes.channels, lanes);
}

// Whether a unit should make squares of its cells, which take as much memory again for each side.
bool pays_squares(const RegionJob& job, const RegionUnit& unit, std::int64_t slab) {
  return job.params.argmax == nullptr && unit.end_row - unit.first_row >= tuning::kSquareRegions &&
         tuning::kSquareSides * slab * kernels().vector_bytes <= tuning::kSquareBytes;
}

// Whether the slab of these rows of a map, of one vector of channels, is no larger than any may be.
bool has_slab(const RegionJob& job, std::int64_t map, Span map_rows) {
  const RegionUnit unit{map, {}, 0, 0, map_rows, 1};
  return slab_cells(job, unit) * kernels().vector_bytes <= tuning::kMostSlabBytes;
}

// Sorts the regions of an image, rows[begin] up to rows[end], from top to bottom, so that neighbours share
// a band of rows. Moves those that have no slab even alone to `without_slab`, and returns the others' end.
std::int64_t sort_into_bands(const RegionJob& job, std::int64_t map, std::int64_t begin,
                             std::int64_t end, std::vector<std::int64_t>* rows,
                             std::vector<std::int64_t>* without_slab) {
  std::vector<std::pair<std::int32_t, std::int64_t>> by_top;  // first row of the map, and region
  for (std::int64_t k = begin; k < end; ++k) {
    const std::int64_t row = (*rows)[k];
    const Span map_rows = rows_read(job, row);
    if (has_slab(job, map, map_rows)) {
      by_top.emplace_back(map_rows.begin, row);
    } else {
      without_slab->push_back(row);
    }
  }
  std::sort(by_top.begin(), by_top.end());
  for (const auto& [top, row] : by_top) (*rows)[begin++] = row;
  return begin;
}

// Leaves to a unit as many of its regions as a slab serves: the first, and those after it that begin
// where it ends or before, in a band of rows.
void cut_to_band(const RegionJob& job, RegionUnit* unit) {
  Span band{0, 0};
  for (std::int64_t k = unit->first_row; k < unit->end_row; ++k) {
    const Span rows = rows_read(job, job.rows[k]), longer = hull(band, rows);
    const bool apart = band.begin != band.end && rows.begin > band.end;
    if (apart || !has_slab(job, unit->map, longer)) {
      unit->end_row = k;
      break;
    }
    band = longer;
  }
  unit->map_rows = band;
}

// One unit for every image of a map that has regions, with all of its regions but those that are to
// be pooled without a slab: a region that is alone, as an image in a list of images is, or too large. Its `channels` are those that a unit cut from it shall have at most.
std::vector<RegionUnit> plan_images(const RegionJob& job, GroupedRows& grouped,
                                    std::int64_t threads, std::vector<std::int64_t>* without_slab) {
  const FeatureMap& first = job.params.maps[0];  // alike to all maps in N, C and dtype
  std::vector<RegionUnit> images;
  for (std::int64_t g = 0; g < job.params.regions.num_maps * first.batch; ++g) {
    const std::int64_t begin = grouped.begin[g], end = grouped.begin[g + 1];
    if (begin == end) continue;
    if (end - begin == 1) {
      without_slab->push_back(grouped.rows[begin]);
      continue;
    }
    RegionUnit image{g / first.batch,
                     {g % first.batch, 0, lanes(first.dtype)},
                     begin,
                     end,
                     rows_read(job, begin, end),
                     1};
    if (!has_slab(job, image.map, image.map_rows)) {
      image.end_row = sort_into_bands(job, image.map, begin, end, &grouped.rows, without_slab);
    }
    if (begin < image.end_row) images.push_back(image);
  }
  // A unit copies its slab before it pools. Of several vectors that pays where the slab stays in the
  // cache or serves many regions, and where every thread finds a unit.
  const std::int64_t vector = lanes(first.dtype), vector_bytes = kernels().vector_bytes;
  const std::int64_t wide = tuning::region_vectors(vector_bytes) * vector;
  const auto count = static_cast<std::int64_t>(images.size());
  if (count * divide_up(first.channels, wide) < threads) return images;
  for (RegionUnit& image : images) {
    const std::int64_t slab_bytes =
        slab_vectors(job, image, vector) * tuning::region_vectors(vector_bytes) * vector_bytes;
    if (slab_bytes <= tuning::kSlabBytes ||
        (image.end_row - image.first_row >= tuning::kManyRegions &&
         slab_bytes <= tuning::kMostSlabBytes)) {
      image.planes.channels = wide;
    }
  }
  return images;
}

// Cuts images into units, and notes in the job what the largest of them needs.
std::vector<RegionUnit> plan_units(RegionJob& job, const std::vector<RegionUnit>& images,
                                   std::int64_t threads) {
  if (images.empty()) return {};  // every region is pooled without a slab
  const std::int64_t channels = job.params.maps[0].channels;
  const std::int64_t vector = lanes(job.params.maps[0].dtype);
  std::int64_t channel_units = 0;
  for (const RegionUnit& image : images)
    channel_units += divide_up(channels, image.planes.channels);
  if (channel_units == 0) return {};
  // Regions are split no further than the threads need, and than is worth another copy of the slab.
  const std::int64_t parts =
      threads == 1 ? 1 : divide_up(threads * tuning::kUnitsPerThread, channel_units);

  std::vector<RegionUnit> units;
  for (const RegionUnit& image : images) {
    job.wide = job.wide || image.planes.channels > vector;
    const std::int64_t rows = image.end_row - image.first_row;
    const std::int64_t rows_per_unit = std::max(divide_up(rows, parts), tuning::kLeastRegions);
    RegionUnit unit = image;
    for (; unit.first_row < image.end_row; unit.first_row = unit.end_row) {
      unit.end_row = std::min(unit.first_row + rows_per_unit, image.end_row);
      if (has_slab(job, image.map, image.map_rows)) {
        unit.map_rows = rows_read(job, unit.first_row, unit.end_row);
      } else {
        cut_to_band(job, &unit);
      }
      const std::int64_t slab = slab_vectors(job, unit, vector);
      unit.sides = pays_squares(job, unit, slab) ? tuning::kSquareSides : 1;
      job.slab_vectors = std::max(job.slab_vectors, unit.sides * slab);
      for (std::int64_t channel = 0; channel < channels; channel += image.planes.channels) {
        unit.planes.first_channel = channel;
        unit.planes.channels = std::min(image.planes.channels, channels - channel);
        units.push_back(unit);
      }
      unit.planes.channels = image.planes.channels;
    }
  }
  return units;
}

// The region of one row as a map: its image, pooled over the spans of the region into the row's place.
MapJob as_map(const RegionJob& job, std::int64_t row) {
  const RegionPoolParams& params = job.params;
  const PyramidView& pyramid = params.pyramid;
  FeatureMap image = params.maps[map_of(params.regions, row)];
  const std::int64_t group = group_of(params.regions, row, image.batch);
  const std::int64_t first = group % image.batch * image.channels * image.cells();
  const std::int64_t output = row * image.channels * pyramid.bins, size = size_of(image.dtype);
  image.data = static_cast<const char*>(image.data) + first * size;
  image.batch = 1;
  return {{image, pyramid, static_cast<char*>(params.output) + output * size,
           params.argmax == nullptr ? nullptr : params.argmax + output},
          job.merges,
          job.spans + row * pyramid.spans};
}

// Pools regions from the map where it is, each as a whole map is but with spans of its own.
void pool_without_slab(const RegionJob& job, const std::vector<std::int64_t>& rows,
                       const Executor& executor) {
  if (rows.empty()) return;
  const auto count = static_cast<std::int64_t>(rows.size());
  std::vector<MapJob> regions;
  std::vector<std::int64_t> end_unit;  // of the units of regions up to each
  std::size_t scratch_bytes = 0;
  for (const std::int64_t row : rows) {
    regions.push_back(as_map(job, row));
    const MapCut cut(regions.back().params.input, count, executor.threads);
    end_unit.push_back((end_unit.empty() ? 0 : end_unit.back()) + cut.units());
    scratch_bytes = std::max(scratch_bytes, cut.scratch_bytes(regions.back()));
  }
  run_units(end_unit.back(), scratch_bytes, executor, [&](std::int64_t unit, void* scratch) {
    const auto k = std::upper_bound(end_unit.begin(), end_unit.end(), unit) - end_unit.begin();
    const MapCut cut(regions[k].params.input, count, executor.threads);
    cut.pool(regions[k], unit - (k == 0 ? 0 : end_unit[k - 1]), scratch);
  });
}

}  // namespace

const char* instruction_set() { return kernels().name; }

void pool_map(const MapPoolParams& params, const Executor& executor) {
  const FeatureMap& input = params.input;
  std::vector<Span> spans(static_cast<std::size_t>(params.pyramid.spans));
  fill_spans(params.pyramid, {{0, input.height}, {0, input.width}}, input.height, input.width,
             spans.data());
  const MergeList merges(params.pyramid);
  const MapJob job{params, merges.view(), spans.data()};
  advise_huge_pages_for(params.output, params.argmax, input.dtype,
                        input.batch * input.channels * params.pyramid.bins);
  const MapCut cut(job.params.input, input.batch, executor.threads);
  run_units(cut.units(), cut.scratch_bytes(job), executor,
            [&](std::int64_t unit, void* scratch) { cut.pool(job, unit, scratch); });
}

void pool_regions(const RegionPoolParams& params, const Executor& executor) {
  const FeatureMap& first = params.maps[0];  // alike to all maps in N, C and dtype
  GroupedRows grouped = group_rows(&params.regions, params.regions.count, first.batch);
  if (grouped.rows.empty()) return;
  const std::vector<Span> spans = spans_of_rows(params, grouped.rows, executor);
  const std::int64_t elements = params.regions.count * first.channels * params.pyramid.bins;
  const MergeList merges(params.pyramid);
  RegionJob job{params, merges.view(), spans.data(), grouped.rows.data(), 0, false, false};
  job.streams = elements * size_of(first.dtype) > tuning::kCachedBytes;
  std::vector<std::int64_t> without_slab;
  const std::vector<RegionUnit> units =
      plan_units(job, plan_images(job, grouped, executor.threads, &without_slab), executor.threads);

  advise_huge_pages_for(params.output, params.argmax, first.dtype, elements);
  run_units(
      static_cast<std::int64_t>(units.size()), kernels().regions.scratch_bytes(job), executor,
      [&](std::int64_t unit, void* scratch) { kernels().regions.pool(job, units[unit], scratch); });
  pool_without_slab(job, without_slab, executor);
}

void pool_stride1(const Stride1Params& params, const Executor& executor) {
  const FeatureMap& input = params.input;
  const std::int64_t elements = (params.num_kernels + 1) * input.elements();
  advise_huge_pages_for(params.output, params.argmax, input.dtype, elements);
  // A unit of a contiguous map works on one vector, since its planes are transposed a square at a time.
  const std::int64_t wide = tuning::kStride1Vectors * lanes(input.dtype);
  const bool is_wide =
      input.layout == Layout::kChannelsLast && params.argmax == nullptr &&
      input.cells() * tuning::kStride1Vectors * kernels().vector_bytes <= tuning::kSlabBytes &&
      input.batch * divide_up(input.channels, wide) >= executor.threads;
  const Stride1Job job{params, is_wide, elements * size_of(input.dtype) > tuning::kCachedBytes};
  const std::int64_t per_unit = is_wide ? wide : lanes(input.dtype);
  run_units(input.batch * divide_up(input.channels, per_unit), kernels().stride1.scratch_bytes(job),
            executor, [&](std::int64_t unit, void* scratch) {
              kernels().stride1.pool(job, channel_unit(input, per_unit, unit), scratch);
            });
}

}  // namespace spp_ext::cpu
