// gather and scatter, the linear pair behind every derivative. A unit of gather is a row of the
// result. A unit of scatter is some planes of a map, whose sums it alone adds to in a fixed order
// (rows ascending, then levels, then bins), so a gradient has the same bits whatever the number of
// threads.
#include <algorithm>
#include <atomic>
#include <type_traits>

#include "core/dispatch.h"
#include "core/integers.h"
#include "cpu/huge_pages.h"
#include "cpu/kernels.h"
#include "cpu/regions.h"
#include "cpu/run_units.h"
#include "cpu/tuning.h"

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

// Neighbouring channels [first, end).
struct Channels {
  std::int64_t first;
  std::int64_t end;

  std::int64_t count() const { return end - first; }
};

// Calls visit(element, channel, cell) for every element of output row `row` and of `channels` whose
// argmax names one of the `cells` of a plane. A channel's elements come level after level, and bin
// after bin in a level; channels come as they lie in memory.
template <class Visit>
void for_each_element(const LinearParams& linear, std::int64_t row, Channels channels,
                      std::int64_t cells, FirstFault& fault, const Visit& visit) {
  const RowOrder order = linear.order;
  const std::int64_t row_at = row * order.size();
  const std::int32_t* const argmax = linear.argmax;
  const auto visit_element = [&](std::int64_t element, std::int64_t channel) {
    const std::int64_t cell = argmax[element];
    if (cell >= 0 && cell < cells) {
      visit(element, channel, cell);
    } else if (cell != -1) {
      fault.note(element);
    }
  };
  for (std::int32_t l = 0; l < order.num_levels; ++l) {
    const RowLevel level = linear.levels[l];
    if (order.layout == Layout::kContiguous) {
      for (std::int64_t channel = channels.first; channel < channels.end; ++channel) {
        const std::int64_t at = row_at + order.element(level, {l, channel, 0});
        for (std::int64_t bin = 0; bin < level.bins; ++bin) visit_element(at + bin, channel);
      }
    } else {
      for (std::int64_t bin = 0; bin < level.bins; ++bin) {
        const std::int64_t at = row_at + order.element(level, {l, 0, bin});
        for (std::int64_t channel = channels.first; channel < channels.end; ++channel) {
          visit_element(at + channel, channel);
        }
      }
    }
  }
}

// Asks for what for_each_element will read of a row. A row's levels lie far apart, and the next row
// further: too far for the processor to foresee. All of it is inlined by force: to GCC a function
// that only prefetches does nothing, and it drops the call.
template <class S>
SPP_HOST_DEVICE void prefetch_elements(const LinearParams& linear, const S* values,
                                       std::int64_t row, Channels channels) {
  const RowOrder order = linear.order;
  if (order.layout != Layout::kContiguous) return;
  const auto prefetch = [](const auto* from, std::int64_t count) __attribute__((always_inline)) {
    const char* const line = reinterpret_cast<const char*>(from);
    const auto bytes = count * static_cast<std::int64_t>(sizeof(*from));
    for (std::int64_t at = 0; at < bytes; at += tuning::kCacheLine) __builtin_prefetch(line + at);
    __builtin_prefetch(line + bytes - 1);
  };
  for (std::int32_t l = 0; l < order.num_levels; ++l) {
    const RowLevel level = linear.levels[l];
    const std::int64_t at = row * order.size() + order.element(level, {l, channels.first, 0});
    prefetch(linear.argmax + at, channels.count() * level.bins);
    prefetch(values + at, channels.count() * level.bins);
  }
}

template <class S>
void gather_of(const GatherParams& params, const Executor& executor, FirstFault& fault) {
  const LinearParams& linear = params.linear;
  const std::int64_t batch = params.sources[0].batch, size = linear.order.size();
  S* const output = static_cast<S*>(params.output);
  advise_huge_pages(output, linear.rows * size * static_cast<std::int64_t>(sizeof(S)));
  run_units(linear.rows, 0, executor, [&](std::int64_t row, void*) {
    std::fill_n(output + row * size, size, S{});
    const std::int64_t group = group_of_row(linear.regions, row, batch);
    if (group == kNoGroup) return;
    const FeatureMap source = params.sources[group / batch];
    const S* const image =
        static_cast<const S*>(source.data) + group % batch * source.channels * source.cells();
    for_each_element(linear, row, {0, source.channels}, source.cells(), fault,
                     [&](std::int64_t element, std::int64_t channel, std::int64_t cell) {
                       output[element] =
                           image[channel * source.plane_stride() + cell * source.cell_stride()];
                     });
  });
}

// How the gradient of one map is summed.
struct ScatterPlan {
  // Whether sums are kept where the result goes. Otherwise they are kept in scratch, [planes][cells]
  // or, for channels_last, [cells][planes].
  bool in_place;
  std::int64_t planes_per_unit;
  std::int64_t units_per_image;
  std::size_t scratch_bytes;
};

// `sums` numbers, in each channel, are added to a map whose elements are S.
template <class S>
ScatterPlan plan_scatter(const FeatureMap& map, std::int64_t sums, std::int64_t threads) {
  using T = ComputeType<S>;
  const std::int64_t plane_bytes = map.cells() * static_cast<std::int64_t>(sizeof(T));
  const bool contiguous = map.layout == Layout::kContiguous;
  // 16-bit results need the scratch, and many sums for a channels_last map, whose cells lie far
  // apart, gain by it.
  const bool few = sums < map.batch * map.cells();
  ScatterPlan plan{};
  plan.in_place = std::is_same_v<S, T> &&
                  (contiguous || few || tuning::kPlanes * plane_bytes > tuning::kMostScratch);
  // Enough neighbouring planes that a row's runs of bins are long, and a channels_last cell's run of
  // planes; few enough that their sums stay in the cache, and that every thread has some.
  const std::int64_t fit = tuning::kSumBytes / plane_bytes;
  const std::int64_t share = map.batch * map.channels / threads;
  const std::int64_t wanted = contiguous
                                  ? std::clamp<std::int64_t>(fit, 1, tuning::kPlanes)
                                  : std::clamp(fit, tuning::kPlanes, tuning::kChannelsLastPlanes);
  plan.planes_per_unit = std::max<std::int64_t>(std::min({wanted, map.channels, share}), 1);
  plan.units_per_image = divide_up(map.channels, plan.planes_per_unit);
  if (!plan.in_place) {
    plan.scratch_bytes = static_cast<std::size_t>(plan.planes_per_unit * plane_bytes);
  }
  return plan;
}

template <class S>
void clear(S* elements, std::int64_t count, const Executor& executor) {
  constexpr std::int64_t kPerTask = tuning::kClearedPerTask;
  run_units(divide_up(count, kPerTask), 0, executor, [&](std::int64_t unit, void*) {
    std::fill(elements + unit * kPerTask, elements + std::min((unit + 1) * kPerTask, count), S{});
  });
}

// Adds the gradients of `count` rows to the sums of their planes: cell c of channel `channels.first`
// + p has its sum at sums[p * plane_stride + c * cell_stride].
template <class S>
void add_rows(const LinearParams& linear, const S* grad_output, const std::int64_t* rows,
              std::int64_t count, Channels channels, std::int64_t cells, FirstFault& fault,
              ComputeType<S>* sums, std::int64_t plane_stride, std::int64_t cell_stride) {
  for (std::int64_t k = 0; k < count; ++k) {
    if (k + 1 < count) prefetch_elements(linear, grad_output, rows[k + 1], channels);
    for_each_element(linear, rows[k], channels, cells, fault,
                     [&](std::int64_t element, std::int64_t channel, std::int64_t cell) {
                       sums[(channel - channels.first) * plane_stride + cell * cell_stride] +=
                           to_compute(grad_output[element]);
                     });
  }
}

// Rounds the sums of `planes` planes from scratch to where the result goes.
template <class S>
void round_sums(const FeatureMap& map, std::int64_t planes, const ComputeType<S>* sums, S* out) {
  const bool contiguous = map.layout == Layout::kContiguous;
  const std::int64_t runs = contiguous ? 1 : map.cells();
  const std::int64_t run = contiguous ? planes * map.cells() : planes;
  for (std::int64_t r = 0; r < runs; ++r) {
    for (std::int64_t i = 0; i < run; ++i) {
      out[r * map.cell_stride() + i] = from_compute<S>(sums[r * run + i]);
    }
  }
}

// The gradient of map `m`.
template <class S>
void scatter_to_map(const ScatterParams& params, std::int64_t m, const GroupedRows& grouped,
                    const Executor& executor, FirstFault& fault) {
  using T = ComputeType<S>;
  const FeatureMap map = params.grad_inputs[m];
  const bool contiguous = map.layout == Layout::kContiguous;
  S* const grad_input = static_cast<S*>(params.data[m]);
  advise_huge_pages(grad_input, map.elements() * static_cast<std::int64_t>(sizeof(S)));
  const std::int64_t* const begin = grouped.begin.data() + m * map.batch;  // of the map's images
  const ScatterPlan plan = plan_scatter<S>(
      map, (begin[map.batch] - begin[0]) * params.linear.order.bins, executor.threads);
  // A channels_last map is cleared as it lies in memory; a unit's planes are not together there.
  if (plan.in_place && !contiguous) clear(grad_input, map.elements(), executor);

  run_units(map.batch * plan.units_per_image, plan.scratch_bytes, executor,
            [&](std::int64_t unit, void* scratch) {
              const std::int64_t image = unit / plan.units_per_image;
              const std::int64_t first = unit % plan.units_per_image * plan.planes_per_unit;
              const Channels channels{first, std::min(first + plan.planes_per_unit, map.channels)};
              const std::int64_t planes = channels.count();
              S* const out =
                  grad_input + image * map.channels * map.cells() + first * map.plane_stride();

              T* const sums = plan.in_place ? reinterpret_cast<T*>(out) : static_cast<T*>(scratch);
              if (contiguous || !plan.in_place) std::fill_n(sums, planes * map.cells(), T{0});
              add_rows(params.linear, static_cast<const S*>(params.grad_output),
                       grouped.rows.data() + begin[image], begin[image + 1] - begin[image],
                       channels, map.cells(), fault, sums, map.plane_stride(),
                       plan.in_place || contiguous ? map.cell_stride() : planes);
              if (!plan.in_place) round_sums(map, planes, sums, out);
            });
}

}  // namespace

std::int64_t gather(const GatherParams& params, const Executor& executor) {
  FirstFault fault;
  dispatch(params.sources[0].dtype,
           [&](auto storage) { gather_of<decltype(storage)>(params, executor, fault); });
  return fault.get();
}

std::int64_t scatter(const ScatterParams& params, const Executor& executor) {
  const LinearParams& linear = params.linear;
  const FeatureMap* const maps = params.grad_inputs;
  const GroupedRows grouped = group_rows(linear.regions, linear.rows, maps[0].batch);
  FirstFault fault;
  dispatch(maps[0].dtype, [&](auto storage) {
    for (std::int64_t m = 0; m < linear.num_maps(); ++m) {
      scatter_to_map<decltype(storage)>(params, m, grouped, executor, fault);
    }
  });
  return fault.get();
}

}  // namespace spp_ext::cpu
