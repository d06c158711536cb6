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

template <class S>
void gather_of(const GatherParams& params, const Executor& executor, FirstFault& fault) {
  const FeatureMap& source = params.source;
  const LinearParams& linear = params.linear;
  const S* const data = static_cast<const S*>(source.data);
  S* const output = static_cast<S*>(params.output);
  advise_huge_pages(
      output, linear.rows * source.channels * linear.bins * static_cast<std::int64_t>(sizeof(S)));
  run_units(linear.rows, 0, executor, [&](std::int64_t row, void*) {
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
  constexpr bool kAddInPlace = std::is_same_v<S, T>;
  const FeatureMap& map = params.grad_input;
  const LinearParams& linear = params.linear;
  const S* const grad_output = static_cast<const S*>(params.grad_output);
  S* const grad_input = static_cast<S*>(params.data);
  advise_huge_pages(grad_input,
                    map.batch * map.channels * map.cells() * static_cast<std::int64_t>(sizeof(S)));
  const RowsByImage by_image = group_by_image(linear.regions, linear.rows, map.batch);

  // Enough neighbouring planes that a row's runs of bins are long, few enough that their sums stay
  // in the cache.
  constexpr std::int64_t kMaxPlanes = 16;
  constexpr std::int64_t kCacheBytes = 256 * 1024;
  const std::int64_t plane_bytes = map.cells() * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t fit = map.layout == Layout::kContiguous
                               ? std::max<std::int64_t>(kCacheBytes / plane_bytes, 1)
                               : kMaxPlanes;
  // ... and no more than leaves every thread some.
  const std::int64_t share = std::max<std::int64_t>(map.batch * map.channels / executor.threads, 1);
  const std::int64_t planes_per_unit = std::min({fit, kMaxPlanes, map.channels, share});
  const std::int64_t units_per_image = (map.channels + planes_per_unit - 1) / planes_per_unit;
  const std::size_t scratch_bytes =
      kAddInPlace ? 0 : static_cast<std::size_t>(planes_per_unit * plane_bytes);

  run_units(
      map.batch * units_per_image, scratch_bytes, executor, [&](std::int64_t unit, void* scratch) {
        const std::int64_t image = unit / units_per_image;
        const std::int64_t first = unit % units_per_image * planes_per_unit;
        const std::int64_t end = std::min(first + planes_per_unit, map.channels);
        const std::int64_t planes = end - first;
        const bool contiguous = map.layout == Layout::kContiguous;
        S* const out = grad_input + image * map.channels * map.cells() + first * map.plane_stride();

        // Sums are kept where the result goes, or for 16-bit results in float scratch of the same
        // orientation.
        T* sums;
        std::int64_t cell_stride = map.cell_stride();
        std::int64_t plane_stride = map.plane_stride();
        if constexpr (kAddInPlace) {
          sums = out;
        } else {
          sums = static_cast<T*>(scratch);
          if (!contiguous) cell_stride = planes;
        }
        if (contiguous) {
          std::fill(sums, sums + planes * map.cells(), T{0});
        } else {
          for (std::int64_t cell = 0; cell < map.cells(); ++cell) {
            std::fill(sums + cell * cell_stride, sums + cell * cell_stride + planes, T{0});
          }
        }
        for (std::int64_t k = by_image.begin[image]; k < by_image.begin[image + 1]; ++k) {
          for_each_element(linear, by_image.rows[k], map.channels, first, end, map.cells(), fault,
                           [&](std::int64_t element, std::int64_t channel, std::int64_t cell) {
                             sums[(channel - first) * plane_stride + cell * cell_stride] +=
                                 to_compute(grad_output[element]);
                           });
        }
        if constexpr (!kAddInPlace) {
          const std::int64_t runs = contiguous ? 1 : map.cells();
          const std::int64_t run = contiguous ? planes * map.cells() : planes;
          for (std::int64_t r = 0; r < runs; ++r) {
            for (std::int64_t i = 0; i < run; ++i) {
              out[r * map.cell_stride() + i] = from_compute<S>(sums[r * run + i]);
            }
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
