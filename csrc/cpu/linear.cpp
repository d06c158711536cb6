// gather and scatter, the linear pair behind every derivative. One unit owns the planes it writes
// and adds in a fixed order (rows ascending, then levels, then bins), so a gradient has the same
// bits whatever the number of threads.
#include <algorithm>
#include <atomic>
#include <type_traits>

#include "core/dispatch.h"
#include "cpu/huge_pages.h"
#include "cpu/kernels.h"
#include "cpu/regions.h"
#include "cpu/run_units.h"

namespace spp_ext::cpu {
namespace {

// Remembers the smallest number noted, from any thread.
class FirstFault {
 public:
  void note(std::int64_t element) {
    std::int64_t seen = first_.load(std::memory_order_relaxed);
    while ((seen < 0 || element < seen) && !first_.compare_exchange_weak(seen, element)) {
    }
  }
  std::int64_t get() const { return first_.load(); }

 private:
  std::atomic<std::int64_t> first_{-1};
};

// Calls visit(element, channel, cell) for every element of output row `row`, channels [first, end),
// whose argmax names a cell of the plane. A channel's elements come level after level, and bin after
// bin in a level; channels come as they lie in memory.
template <class Visit>
void for_each_element(const LinearParams& linear, std::int64_t row, std::int64_t channels,
                      std::int64_t first, std::int64_t end, std::int64_t cells, FirstFault& fault,
                      const Visit& visit) {
  const auto visit_element = [&](std::int64_t element, std::int64_t channel) {
    const std::int64_t cell = linear.argmax[element];
    if (cell >= 0 && cell < cells) {
      visit(element, channel, cell);
    } else if (cell != -1) {
      fault.note(element);
    }
  };
  const std::int64_t row_at = row * channels * linear.bins;
  std::int64_t first_bin = 0;
  for (std::int32_t l = 0; l < linear.num_levels; ++l) {
    const std::int64_t bins = linear.level_bins[l];
    if (linear.layout == Layout::kContiguous) {
      for (std::int64_t channel = first; channel < end; ++channel) {
        const std::int64_t at = row_at + first_bin * channels + channel * bins;
        for (std::int64_t bin = 0; bin < bins; ++bin) visit_element(at + bin, channel);
      }
    } else {
      for (std::int64_t bin = 0; bin < bins; ++bin) {
        const std::int64_t at = row_at + (bin * linear.num_levels + l) * channels;
        for (std::int64_t channel = first; channel < end; ++channel) {
          visit_element(at + channel, channel);
        }
      }
    }
    first_bin += bins;
  }
}

// Asks for what for_each_element will read of a row. A row's levels lie far apart, and the next row
// further: too far for the processor to foresee. Forced inline: to GCC a function that only
// prefetches does nothing, and it drops the call.
template <class S>
SPP_HOST_DEVICE void prefetch_elements(const LinearParams& linear, const S* values,
                                       std::int64_t row, std::int64_t channels, std::int64_t first,
                                       std::int64_t end) {
  if (linear.layout != Layout::kContiguous) return;
  constexpr std::int64_t kLine = 64;
  const auto prefetch = [](const auto* from, std::int64_t count) {
    const char* const line = reinterpret_cast<const char*>(from);
    const auto bytes = count * static_cast<std::int64_t>(sizeof(*from));
    for (std::int64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(line + at);
    __builtin_prefetch(line + bytes - 1);
  };
  std::int64_t run = row * channels * linear.bins;
  for (std::int32_t l = 0; l < linear.num_levels; ++l) {
    const std::int64_t bins = linear.level_bins[l];
    prefetch(linear.argmax + run + first * bins, (end - first) * bins);
    prefetch(values + run + first * bins, (end - first) * bins);
    run += channels * bins;
  }
}

template <class S>
void gather_of(const GatherParams& params, const Executor& executor, FirstFault& fault) {
  const FeatureMap& source = params.source;
  const LinearParams& linear = params.linear;
  const S* const data = static_cast<const S*>(source.data);
  S* const output = static_cast<S*>(params.output);
  advise_huge_pages(
      output, linear.rows * source.channels * linear.bins * static_cast<std::int64_t>(sizeof(S)));
  run_units(linear.rows, 0, executor, [&](std::int64_t row, void*) {
    if (linear.regions != nullptr && !linear.regions->is_of_map(row)) return;
    S* const out = output + row * source.channels * linear.bins;
    std::fill(out, out + source.channels * linear.bins, S{});
    const double index = linear.regions == nullptr ? static_cast<double>(row)
                                                   : roi_entry<double>(*linear.regions, row, 0);
    if (!is_image(index, source.batch)) return;
    const S* const image =
        data + static_cast<std::int64_t>(index) * source.channels * source.cells();
    for_each_element(linear, row, source.channels, 0, source.channels, source.cells(), fault,
                     [&](std::int64_t element, std::int64_t channel, std::int64_t cell) {
                       output[element] =
                           image[channel * source.plane_stride() + cell * source.cell_stride()];
                     });
  });
}

template <class S>
void scatter_of(const ScatterParams& params, const Executor& executor, FirstFault& fault) {
  using T = ComputeType<S>;
  const FeatureMap& map = params.grad_input;
  const LinearParams& linear = params.linear;
  const S* const grad_output = static_cast<const S*>(params.grad_output);
  S* const grad_input = static_cast<S*>(params.data);
  advise_huge_pages(grad_input,
                    map.batch * map.channels * map.cells() * static_cast<std::int64_t>(sizeof(S)));
  const RowsByImage by_image = group_by_image(linear.regions, linear.rows, map.batch);

  // Sums are kept where the result goes, or in scratch: [planes][cells] or, for channels_last,
  // [cells][planes]. 16-bit results need the scratch, and many sums for a channels_last map, whose
  // cells lie far apart, gain by it.
  constexpr std::int64_t kPlanes = 16, kMaxChannelsLastPlanes = 64;
  constexpr std::int64_t kMostScratch = 16 * 1024 * 1024;
  const std::int64_t plane_bytes = map.cells() * static_cast<std::int64_t>(sizeof(T));
  const bool contiguous = map.layout == Layout::kContiguous;
  const bool few = linear.rows * linear.bins < map.batch * map.cells();
  const bool add_in_place =
      std::is_same_v<S, T> && (contiguous || few || kPlanes * plane_bytes > kMostScratch);
  if (add_in_place && !contiguous) {
    constexpr std::int64_t kElements = 256 * 1024;
    const std::int64_t elements = map.batch * map.channels * map.cells();
    run_units((elements + kElements - 1) / kElements, 0, executor, [&](std::int64_t unit, void*) {
      std::fill(grad_input + unit * kElements,
                grad_input + std::min((unit + 1) * kElements, elements), S{});
    });
  }

  // Enough neighbouring planes that a row's runs of bins are long, and a channels_last cell's run of
  // planes; few enough that their sums stay in the cache, and that every thread has some.
  constexpr std::int64_t kCacheBytes = 256 * 1024;
  const std::int64_t fit = kCacheBytes / plane_bytes;
  const std::int64_t share = map.batch * map.channels / executor.threads;
  const std::int64_t wanted = contiguous ? std::clamp<std::int64_t>(fit, 1, kPlanes)
                                         : std::clamp(fit, kPlanes, kMaxChannelsLastPlanes);
  const std::int64_t planes_per_unit =
      std::max<std::int64_t>(std::min({wanted, map.channels, share}), 1);
  const std::int64_t units_per_image = (map.channels + planes_per_unit - 1) / planes_per_unit;
  const std::size_t scratch_bytes =
      add_in_place ? 0 : static_cast<std::size_t>(planes_per_unit * plane_bytes);

  run_units(
      map.batch * units_per_image, scratch_bytes, executor, [&](std::int64_t unit, void* scratch) {
        const std::int64_t image = unit / units_per_image;
        const std::int64_t first = unit % units_per_image * planes_per_unit;
        const std::int64_t end = std::min(first + planes_per_unit, map.channels);
        const std::int64_t planes = end - first;
        S* const out = grad_input + image * map.channels * map.cells() + first * map.plane_stride();

        T* const sums = add_in_place ? reinterpret_cast<T*>(out) : static_cast<T*>(scratch);
        const std::int64_t cell_stride = add_in_place || contiguous ? map.cell_stride() : planes;
        const std::int64_t plane_stride = map.plane_stride();
        if (contiguous || !add_in_place) std::fill(sums, sums + planes * map.cells(), T{0});
        const std::int64_t end_row = by_image.begin[image + 1];
        for (std::int64_t k = by_image.begin[image]; k < end_row; ++k) {
          if (k + 1 < end_row) {
            prefetch_elements(linear, grad_output, by_image.rows[k + 1], map.channels, first, end);
          }
          for_each_element(linear, by_image.rows[k], map.channels, first, end, map.cells(), fault,
                           [&](std::int64_t element, std::int64_t channel, std::int64_t cell) {
                             sums[(channel - first) * plane_stride + cell * cell_stride] +=
                                 to_compute(grad_output[element]);
                           });
        }
        if (add_in_place) return;
        const std::int64_t runs = contiguous ? 1 : map.cells();
        const std::int64_t run = contiguous ? planes * map.cells() : planes;
        for (std::int64_t r = 0; r < runs; ++r) {
          for (std::int64_t i = 0; i < run; ++i) {
            out[r * map.cell_stride() + i] = from_compute<S>(sums[r * run + i]);
          }
        }
      });
}

}  // namespace

std::int64_t gather(const GatherParams& params, const Executor& executor) {
  FirstFault fault;
  dispatch(params.source.dtype,
           [&](auto storage) { gather_of<decltype(storage)>(params, executor, fault); });
  return fault.get();
}

std::int64_t scatter(const ScatterParams& params, const Executor& executor) {
  FirstFault fault;
  dispatch(params.grad_input.dtype,
           [&](auto storage) { scatter_of<decltype(storage)>(params, executor, fault); });
  return fault.get();
}

}  // namespace spp_ext::cpu
