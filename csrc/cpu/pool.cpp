// Cuts a pooling call into units and runs them with the kernels of the best instruction set.
#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "cpu/huge_pages.h"
#include "cpu/kernels.h"
#include "cpu/pool_job.h"
#include "cpu/regions.h"
#include "cpu/run_units.h"

namespace spp_ext::cpu {
namespace {

// The kernels of one instruction set.
struct InstructionSet {
  const PoolKernels& pool;
  const Stride1Kernels& stride1;
};

InstructionSet choose_instruction_set() {
#if defined(SPP_EXT_HAVE_X86_ISAS)
  const char* asked_for = std::getenv("SPP_EXT_INSTRUCTION_SET");
  const std::string_view wanted = asked_for == nullptr ? "" : asked_for;
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("f16c");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && wanted != "avx2" && wanted != "baseline") {
    return {avx512::kPoolKernels, avx512::kStride1Kernels};
  }
  if (has_avx2 && wanted != "baseline") return {avx2::kPoolKernels, avx2::kStride1Kernels};
#endif
  return {baseline::kPoolKernels, baseline::kStride1Kernels};
}

const InstructionSet& chosen() {
  static const InstructionSet set = choose_instruction_set();
  return set;
}

const PoolKernels& kernels() { return chosen().pool; }

std::int64_t lanes(DType dtype) {
  const std::size_t element = dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
  return kernels().vector_bytes / static_cast<std::int64_t>(element);
}

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

void advise_huge_pages_for(void* output, std::int32_t* argmax, DType dtype, std::int64_t elements) {
  advise_huge_pages(output, elements * size_of(dtype));
  advise_huge_pages(argmax, elements * static_cast<std::int64_t>(sizeof(*argmax)));
}

// Enough units that every thread has some to balance with.
constexpr std::int64_t kUnitsPerThread = 4;

// Regions of an image: so many serve a slab outside the cache, and so few are not split further.
constexpr std::int64_t kManyRegions = 256, kLeastRegions = 32;
constexpr std::int64_t kSlabBytes = 1024 * 1024;

// An output larger than this is written past the caches: it would not stay in them anyway.
constexpr std::int64_t kCachedBytes = 8 * 1024 * 1024;

// Rows [begin, end) of the map that the base bins of regions rows[first_row] up to rows[end_row]
// read.
Span rows_read(const RegionJob& job, std::int64_t first_row, std::int64_t end_row) {
  const PyramidView& pyramid = job.params.pyramid;
  Span all{0, 0};
  for (std::int64_t k = first_row; k < end_row; ++k) {
    for_each_bin_row(pyramid, job.spans + job.rows[k] * pyramid.spans, [&](const BinRow& row) {
      if (row.rows.begin == row.rows.end) return;
      if (all.begin == all.end) all = row.rows;
      all.begin = std::min(all.begin, row.rows.begin);
      all.end = std::max(all.end, row.rows.end);
    });
  }
  return all;
}

void pool_contiguous(const MapJob& job, const Executor& executor) {
  const FeatureMap& input = job.params.input;
  const std::int64_t planes = input.batch * input.channels;
  const std::int64_t per_unit =
      std::clamp<std::int64_t>(divide_up(planes, executor.threads), 1, lanes(input.dtype));
  run_units(divide_up(planes, per_unit), kernels().plane_scratch(job), executor,
            [&](std::int64_t unit, void* scratch) {
              const std::int64_t first = unit * per_unit;
              kernels().pool_planes(job, {first, std::min(per_unit, planes - first)}, scratch);
            });
}

void pool_channels_last(const MapJob& job, const Executor& executor) {
  const FeatureMap& input = job.params.input;
  // Long runs of channels read best, but every thread should have some.
  const std::int64_t wide = kChannelVectors * lanes(input.dtype);
  const bool enough = input.batch * divide_up(input.channels, wide) >= executor.threads;
  const std::int64_t per_unit = enough ? wide : lanes(input.dtype);
  const std::int64_t units_per_image = divide_up(input.channels, per_unit);
  run_units(input.batch * units_per_image, kernels().channel_scratch(job), executor,
            [&](std::int64_t unit, void* scratch) {
              const std::int64_t first = unit % units_per_image * per_unit;
              const std::int64_t channels = std::min(per_unit, input.channels - first);
              kernels().pool_channels(job, {unit / units_per_image, first, channels}, scratch);
            });
}

}  // namespace

const char* instruction_set() { return kernels().name; }

void pool_map(const MapPoolParams& params, const Executor& executor) {
  const FeatureMap& input = params.input;
  std::vector<Span> spans(static_cast<std::size_t>(params.pyramid.spans));
  fill_spans(params.pyramid, {{0, input.height}, {0, input.width}}, input.height, input.width,
             spans.data());
  const MapJob job{params, spans.data()};
  advise_huge_pages_for(params.output, params.argmax, input.dtype,
                        input.batch * input.channels * params.pyramid.bins);
  if (input.layout == Layout::kContiguous) {
    pool_contiguous(job, executor);
  } else {
    pool_channels_last(job, executor);
  }
}

void pool_regions(const RegionPoolParams& params, const Executor& executor) {
  const FeatureMap& input = params.input;
  const PyramidView& pyramid = params.pyramid;
  const std::int64_t count = params.regions.count;

  const RowsByImage by_image = group_by_image(&params.regions, count, input.batch);
  const std::int64_t pooled = by_image.begin[input.batch];  // rows of this map
  if (pooled == 0) return;
  std::vector<Span> spans(static_cast<std::size_t>(count * pyramid.spans));
  constexpr std::int64_t kRowsPerTask = 256;
  run_units(divide_up(pooled, kRowsPerTask), 0, executor, [&](std::int64_t unit, void*) {
    for (std::int64_t k = unit * kRowsPerTask; k < std::min(pooled, (unit + 1) * kRowsPerTask);
         ++k) {
      const std::int64_t row = by_image.rows[k];
      fill_spans(pyramid, roi_window(params.regions, row, input.height, input.width), input.height,
                 input.width, spans.data() + row * pyramid.spans);
    }
  });

  const std::int64_t elements = count * input.channels * pyramid.bins;
  advise_huge_pages_for(params.output, params.argmax, input.dtype, elements);
  RegionJob job{params, spans.data(), by_image.rows.data(), 0, 1, false};
  job.streams = elements * size_of(input.dtype) > kCachedBytes;
  std::int64_t images = 0;
  for (std::int64_t n = 0; n < input.batch; ++n) {
    const Span rows = rows_read(job, by_image.begin[n], by_image.begin[n + 1]);
    job.most_map_rows = std::max<std::int64_t>(job.most_map_rows, rows.end - rows.begin);
    images += by_image.begin[n] < by_image.begin[n + 1];
  }

  // A unit copies its slab before it pools. Of several vectors that pays where the slab stays in the
  // cache or serves many regions, and where every thread finds a unit.
  const std::int64_t wide = kRegionVectors * lanes(input.dtype);
  const std::int64_t slab_bytes =
      job.most_map_rows * input.width * kRegionVectors * kernels().vector_bytes;
  if ((slab_bytes <= kSlabBytes || pooled / images >= kManyRegions) &&
      images * divide_up(input.channels, wide) >= executor.threads) {
    job.vectors = kRegionVectors;
  }
  const std::int64_t channels_per_unit = job.vectors * lanes(input.dtype);
  // Regions are split no further than the threads need, and than is worth another copy of the slab.
  const std::int64_t channel_units = images * divide_up(input.channels, channels_per_unit);
  const std::int64_t parts =
      executor.threads == 1 ? 1 : divide_up(executor.threads * kUnitsPerThread, channel_units);

  std::vector<RegionUnit> units;
  for (std::int64_t n = 0; n < input.batch; ++n) {
    const std::int64_t rows = by_image.begin[n + 1] - by_image.begin[n];
    const std::int64_t rows_per_part = std::max(divide_up(rows, parts), kLeastRegions);
    for (std::int64_t first = 0; first < rows; first += rows_per_part) {
      const std::int64_t begin = by_image.begin[n] + first;
      const std::int64_t end = std::min(begin + rows_per_part, by_image.begin[n + 1]);
      const Span map_rows = rows_read(job, begin, end);
      for (std::int64_t channel = 0; channel < input.channels; channel += channels_per_unit) {
        const std::int64_t channels = std::min(channels_per_unit, input.channels - channel);
        units.push_back({{n, channel, channels}, begin, end, map_rows});
      }
    }
  }
  run_units(
      static_cast<std::int64_t>(units.size()), kernels().region_scratch(job), executor,
      [&](std::int64_t unit, void* scratch) { kernels().pool_regions(job, units[unit], scratch); });
}

void pool_stride1(const Stride1Params& params, const Executor& executor) {
  const FeatureMap& input = params.input;
  const std::int64_t elements =
      (params.num_kernels + 1) * input.batch * input.channels * input.cells();
  advise_huge_pages_for(params.output, params.argmax, input.dtype, elements);
  const std::int64_t per_unit = lanes(input.dtype);
  const std::int64_t units_per_image = divide_up(input.channels, per_unit);
  run_units(input.batch * units_per_image, chosen().stride1.scratch(params), executor,
            [&](std::int64_t unit, void* scratch) {
              const std::int64_t first = unit % units_per_image * per_unit;
              const std::int64_t channels = std::min(per_unit, input.channels - first);
              chosen().stride1.pool(params, {unit / units_per_image, first, channels},
                                         scratch);
            });
}

}  // namespace spp_ext::cpu
