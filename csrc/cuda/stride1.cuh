// Stride-1 max pools of several kernel sizes. A warp owns a plane, or a tile of one with a halo as wide as
// the largest kernel reaches, and a lane a column of it. Sizes are reached by widening the last result,
// along columns and at once along rows; cpu/stride1_lanes.cpp says why that is exact.
//
//             column:  0     1     2    ...
//   strip   row 0    [lane0|lane1|lane2|...     a strip in shared memory is 32 lanes wide; a column of it is
//           row 1    [lane0|lane1|lane2|...     its lane's own, and rows are exchanged by shuffles, so that
//           row 2    [lane0|lane1|lane2|...     a contiguous map is pooled without any barrier
//
// Narrow planes share a warp, in segments of 16 or 8 lanes. Without argmax two planes of 16-bit floats
// share a strip, as two halves of words. channels_last: the warps of a block own neighbouring planes, and
// load and write each other's strips, so that neighbouring lanes access neighbouring channels.
//
// A widening works in place: results go `reach` rows up or down of what they replace, in turn, which is
// far enough for no row to be overwritten that is still to be read. Above and below the rows stand as
// many copies of the first and the last one, for look-ups outside the map.
//
// Towards the rim of a halo results are incomplete, by exactly as much as the halo is wide.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/max_op.h"
#include "cuda/best.h"
#include "cuda/device.h"
#include "cuda/kernels.h"
#include "cuda/tuning.h"
#include "cuda/words.h"

namespace spp_ext::cuda {

constexpr std::int32_t kLanes = 32;  // columns of a strip

struct Stride1Job {
  FeatureMap input;
  std::int32_t kernel_sizes[kMaxKernelSizes];
  std::int32_t num_kernels;
  std::int32_t cascade;
  void* output;          // [N, (L + 1) * C, H, W] in the input's layout
  std::int32_t* argmax;  // alike or null

  SPP_HOST_DEVICE FeatureMap output_map() const {
    FeatureMap map = input;
    map.channels *= num_kernels + 1;
    return map;
  }
};

// The element of a map that is a cell of a plane of an image.
SPP_HOST_DEVICE std::int64_t element_of(const FeatureMap& map, std::int64_t image,
                                        std::int64_t channel, std::int64_t cell) {
  return image * map.channels * map.cells() + channel * map.plane_stride() +
         cell * map.cell_stride();
}

struct Stride1Policy {
  std::int32_t rows, cols;    // of a tile, without its halo
  std::int32_t halo;          // 0 if all tiles are whole planes
  std::int32_t down, across;  // tiles of a plane
  std::int32_t slabs;         // blocks side by side that have the planes of an image
  std::int32_t warps;         // of a block, a power of two
  std::int32_t segment_log2;  // lanes of a warp that a plane has
  std::int32_t reach;         // the farthest look-up of a widening
  std::int32_t slots;         // rows of a strip: a tile's with its halo, and three times the reach
  std::int32_t largest;       // kernel size; a larger one finds no more

  SPP_HOST_DEVICE std::int32_t planes_log2() const {  // strips, or segments of them, in a block
    std::int32_t result = 5 - segment_log2;
    while ((1 << result) < warps << (5 - segment_log2)) ++result;
    return result;
  }
  // Cells of a strip, and 16 bytes: with them columns of neighbouring planes are in different banks.
  template <class Cell>
  SPP_HOST_DEVICE std::int32_t strip_size() const {
    return slots * kLanes + 16 / static_cast<std::int32_t>(sizeof(Cell));
  }
};

// How far the next widening looks on the way from results of kernel size `from` to those of size `to`.
// From 3 on the windows before and after a cell meet at its own, which then need not be looked up.
SPP_HOST_DEVICE std::int32_t widening(std::int32_t from, std::int32_t to) {
  const std::int32_t most =
      from == 1 ? 1 : static_cast<std::int32_t>(smaller_of(from / 2, tuning::kStride1Reach));
  return (to - from) / 2 < most ? (to - from) / 2 : most;
}

// A value, and where it comes from in its strip. Slots number the cells of a strip.
//
//   rank   bit 31: the value is NaN | 15 bits: the order of slots | 16 bits: the slot it comes from
//
// Of equal values, or of several NaNs, the one with the higher rank is kept: the order is the slot for
// NaNs, of which the last wins, and the inverted slot for numbers, of which the first does.
template <class T>
struct alignas(2 * sizeof(T)) Ranked {
  T value;
  std::uint32_t rank;
};

constexpr std::int32_t kMaxSlots = 1 << 15;

SPP_HOST_DEVICE std::uint32_t rank_order(std::uint32_t slot, bool is_nan) {
  return is_nan ? (0x8000u | slot) << 16 : (slot ^ 0x7fffu) << 16;
}

template <class T>
__device__ __forceinline__ Ranked<T> maximum(const Ranked<T>& a, const Ranked<T>& b) {
  const bool higher = b.rank > a.rank;
  return (b.value > a.value) | (higher & !(b.value < a.value)) ? b : a;
}

// The value that lane `from` of the warp has. Every lane must call.
template <class V>
__device__ __forceinline__ V from_lane(const V& value, int from) {
  struct Words {
    unsigned word[sizeof(V) / 4];
  };
  Words words = spp_ext::detail::bit_cast<Words>(value);
#pragma unroll
  for (unsigned& word : words.word) {
    word = __shfl_sync(0xffffffffu, word, from);
  }
  return spp_ext::detail::bit_cast<V>(words);
}

// The tile of a block, in as many planes as it has strips or segments; and a thread's share in it.
template <class S, bool with_argmax>
struct StripPool {
  using Cell = std::conditional_t<with_argmax, Ranked<ComputeType<S>>, Word<S>>;
  static constexpr int kPlanes = with_argmax ? 1 : kPerWord<S>;  // that share a strip

  const Stride1Job& job;
  const Stride1Policy& policy;
  Cell* const strips;           // [warps][strip_size()]
  std::int32_t image, channel;  // the first plane
  Span rows, cols;              // of the tile
  Span halo_rows, halo_cols;    // of the tile and its halo
  std::int32_t height;          // with the halo
  std::int32_t base;            // the row of the strips that is the first of the tile
  Cell* column;                 // this lane's, from row 0 of the strip on
  std::int32_t first_lane;      // of this lane's segment
  std::int32_t x;               // this lane's column in the tile

  __device__ __forceinline__ StripPool(const Stride1Job& job, const Stride1Policy& policy)
      : job(job), policy(policy), strips(reinterpret_cast<Cell*>(dynamic_shared())) {
    const FeatureMap& input = job.input;
    std::uint32_t number = blockIdx.x;
    const auto next = [&](std::int32_t count) {
      const std::uint32_t all = number;
      number /= static_cast<std::uint32_t>(count);
      return static_cast<std::int32_t>(all - number * static_cast<std::uint32_t>(count));
    };
    const std::int32_t col = next(policy.across) * policy.cols;
    const std::int32_t row = next(policy.down) * policy.rows;
    channel = (next(policy.slabs) << policy.planes_log2()) * kPlanes;
    image = static_cast<std::int32_t>(number);
    rows = clip({row, row + policy.rows}, input.height);
    cols = clip({col, col + policy.cols}, input.width);
    halo_rows = clip({rows.begin - policy.halo, rows.end + policy.halo}, input.height);
    halo_cols = clip({cols.begin - policy.halo, cols.end + policy.halo}, input.width);
    height = halo_rows.end - halo_rows.begin;
    base = 2 * policy.reach;
    const std::int32_t lane = threadIdx.x % kLanes;
    x = lane & ((1 << policy.segment_log2) - 1);
    first_lane = lane - x;
    column = strips + threadIdx.x / kLanes * policy.template strip_size<Cell>() + lane;
  }

  __device__ __forceinline__ bool contiguous() const {
    return job.input.layout == Layout::kContiguous;
  }

  // Planes that strip or segment `number` has; the last ones may have none.
  __device__ __forceinline__ std::int32_t planes_of(std::int32_t number) const {
    const std::int64_t left = job.input.channels - channel - number * kPlanes;
    return static_cast<std::int32_t>(left < 0 ? 0 : smaller_of(left, kPlanes));
  }

  // Cell (y, x) of the tile from memory.
  __device__ __forceinline__ Cell read(const S* from, std::int64_t to_second,
                                       std::uint32_t slot) const {
    if constexpr (with_argmax) {
      const auto value = cuda::widen(from[0]);
      return {value, rank_order(slot, value != value) | slot};
    } else if constexpr (kPlanes == 2) {
      return {from[0].bits | static_cast<std::uint32_t>(from[to_second].bits) << 16};
    } else {
      return {from[0]};
    }
  }

  // ... and to memory. Slots of a segment that begins at `first` are cells of the map.
  __device__ __forceinline__ void put(const Cell& cell, std::int64_t to, std::int64_t to_second,
                                      bool has_second, std::int32_t first) const {
    S* const output = static_cast<S*>(job.output) + to;
    if constexpr (with_argmax) {
      const auto map_width = static_cast<std::int32_t>(job.input.width);
      const std::int32_t slot = cell.rank & 0xffffu;
      *output = narrow<S>(cell.value);
      job.argmax[to] = halo_rows.begin * map_width + halo_cols.begin - first + slot +
                       slot / kLanes * (map_width - kLanes);
    } else if constexpr (kPlanes == 2) {
      output[0] = {static_cast<std::uint16_t>(cell.pair)};
      if (has_second) output[to_second] = {static_cast<std::uint16_t>(cell.pair >> 16)};
    } else {
      *output = cell.number;
    }
  }

  // channels_last: calls f(cell of a strip, its slot, its plane in the block, the plane's first lane, the
  // element of `map`) for the cells in some rows and columns of all planes of the block, the first of which
  // is `first_channel` of the map. Neighbouring threads take neighbouring planes.
  template <class F>
  __device__ __forceinline__ void for_each_cell(const FeatureMap& map, std::int64_t first_channel,
                                                Span some_rows, Span some_cols, const F& f) const {
    const std::int32_t planes_log2 = policy.planes_log2();
    const std::int32_t lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
    const std::int32_t number = lane & ((1 << planes_log2) - 1);
    if (planes_of(number) == 0) return;
    const std::int32_t per_warp_log2 = 5 - policy.segment_log2;
    const std::int32_t first = (number & ((1 << per_warp_log2) - 1)) << policy.segment_log2;
    Cell* const strip = strips + (number >> per_warp_log2) * policy.template strip_size<Cell>();
    const std::int32_t start = some_cols.begin + (lane >> planes_log2);
    const std::int32_t step = kLanes >> planes_log2;
    for (std::int32_t y = some_rows.begin + warp; y < some_rows.end; y += policy.warps) {
      std::int64_t element =
          element_of(map, image, first_channel + number * kPlanes, y * map.width + start);
      std::int32_t slot = (y - halo_rows.begin) * kLanes + first + start - halo_cols.begin;
#pragma unroll 4
      for (std::int32_t at = start; at < some_cols.end; at += step) {
        f(strip[base * kLanes + slot], slot, number, first, element);
        slot += step;
        element += step * map.channels;
      }
    }
  }

  __device__ __forceinline__ std::int32_t own_number() const {
    return static_cast<std::int32_t>(threadIdx.x) >> policy.segment_log2;
  }

  __device__ __forceinline__ void load() {
    const FeatureMap& input = job.input;
    const S* const source = static_cast<const S*>(input.data);
    if (contiguous()) {
      // A lane without a plane or a column takes another's: nobody reads what it has.
      const std::int32_t number = planes_of(own_number()) == 0 ? 0 : own_number();
      const std::int64_t to_second = planes_of(number) == 2 ? input.cells() : 0;
      const std::int32_t last = halo_cols.end - halo_cols.begin - 1;
      const std::int64_t first = static_cast<std::int64_t>(halo_rows.begin) * input.width +
                                 halo_cols.begin + (x < last ? x : last);
      const S* from = source + element_of(input, image, channel + number * kPlanes, first);
      Cell* to = column + base * kLanes;
#pragma unroll 4
      for (std::int32_t y = 0; y < height; ++y) {
        *to = read(from, to_second, y * kLanes + first_lane + x);
        from += input.width;
        to += kLanes;
      }
    } else {
      for_each_cell(
          input, channel, halo_rows, halo_cols,
          [&](Cell& cell, std::int32_t slot, std::int32_t number, std::int32_t, std::int64_t from) {
            cell = read(source + from, planes_of(number) - 1, slot);
          });
      __syncthreads();
    }
    copy_ends();
  }

  // Copies the first row upwards and the last one downwards, as far as a widening looks.
  __device__ __forceinline__ void copy_ends() const {
    Cell* const first = column + base * kLanes;
    Cell* const last = first + (height - 1) * kLanes;
    const Cell top = *first, bottom = *last;
    for (std::int32_t i = 1; i <= policy.reach; ++i) {
      first[-i * kLanes] = top;
      last[i * kLanes] = bottom;
    }
  }

  // The best at `distance` before and after each cell, and, with_own, at it: in its column, and of those
  // in its row.
  template <int step, bool with_own>
  __device__ __forceinline__ void widen_rows(std::int32_t distance) const {
    const std::int32_t last = halo_cols.end - halo_cols.begin - 1;
    const int left = first_lane + (x > distance ? x - distance : 0);
    const int right = first_lane + (x + distance < last ? x + distance : last);
    const Cell* from = column + (base + (step > 0 ? 0 : height - 1)) * kLanes;
    const Cell* before = from - distance * kLanes;
    const Cell* after = from + distance * kLanes;
    Cell* to = column + (from - column) - step * policy.reach * kLanes;
    const auto advance = [&](auto count) {
      constexpr int kRows = decltype(count)::value;
      Cell best[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int at = i * step * kLanes;
        best[i] = maximum(before[at], after[at]);
        if constexpr (with_own) best[i] = maximum(best[i], from[at]);
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const Cell on_left = from_lane(best[i], left);
        const Cell on_right = from_lane(best[i], right);
        if constexpr (with_own) best[i] = maximum(best[i], on_left);
        best[i] = maximum(with_own ? best[i] : on_left, on_right);
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i) to[i * step * kLanes] = best[i];
      from += kRows * step * kLanes;
      before += kRows * step * kLanes;
      after += kRows * step * kLanes;
      to += kRows * step * kLanes;
    };
    constexpr int kAtOnce = 4;  // rows; what is loaded of them is on its way at the same time
    std::int32_t left_over = height;
    for (; left_over >= kAtOnce; left_over -= kAtOnce) {
      advance(std::integral_constant<int, kAtOnce>{});
    }
    for (; left_over > 0; --left_over) advance(std::integral_constant<int, 1>{});
  }

  template <bool with_own>
  __device__ __forceinline__ void widen(std::int32_t distance) {
    if (base > policy.reach) {
      widen_rows<1, with_own>(distance);
      base -= policy.reach;
    } else {
      widen_rows<-1, with_own>(distance);
      base += policy.reach;
    }
    copy_ends();
  }

  // From results of kernel size `from` to those of size `to`.
  __device__ __forceinline__ void widen_to(std::int32_t from, std::int32_t to) {
    while (from < to) {
      const std::int32_t distance = widening(from, to);
      if (from == 1) {
        widen<true>(distance);
      } else {
        widen<false>(distance);
      }
      from += 2 * distance;
    }
  }

  // A stage of a cascade pools the values of the one before, ties among them included: their places are
  // ordered anew, and each remembers the slot that it came from.
  __device__ __forceinline__ void begin_stage() const {
    for (std::int32_t y = 0; y < height; ++y) {
      std::uint32_t& rank = column[(base + y) * kLanes].rank;
      rank = rank_order(y * kLanes + first_lane + x, rank >> 31 != 0) | (rank & 0xffffu);
    }
    copy_ends();
  }

  __device__ __forceinline__ void write(std::int32_t block) const {
    const FeatureMap output = job.output_map();
    const std::int64_t first_channel = block * job.input.channels + channel;
    if (contiguous()) {
      const std::int32_t number = own_number();
      const std::int32_t planes = planes_of(number);
      const std::int32_t at = halo_cols.begin + x;
      if (planes == 0 || at < cols.begin || at >= cols.end) return;
      std::int64_t to = element_of(output, image, first_channel + number * kPlanes,
                                   rows.begin * output.width + at);
      const Cell* from = column + (base + rows.begin - halo_rows.begin) * kLanes;
#pragma unroll 4
      for (std::int32_t y = rows.begin; y < rows.end; ++y) {
        put(*from, to, output.cells(), planes == 2, first_lane);
        from += kLanes;
        to += output.width;
      }
    } else {
      __syncthreads();
      for_each_cell(output, first_channel, rows, cols,
                    [&](const Cell& cell, std::int32_t, std::int32_t number, std::int32_t first,
                        std::int64_t to) { put(cell, to, 1, planes_of(number) == 2, first); });
      __syncthreads();  // the next size overwrites what was read here
    }
  }
};

template <class S, bool with_argmax>
__global__ void __launch_bounds__(tuning::kStride1Warps* kLanes, tuning::kMinBlocks)
    pool_stride1(const __grid_constant__ Stride1Job job,
                 const __grid_constant__ Stride1Policy policy) {
  StripPool<S, with_argmax> pool(job, policy);
  pool.load();
  pool.write(0);
  std::int32_t reached = 1;
  for (std::int32_t block = 1; block <= job.num_kernels; ++block) {
    const std::int32_t kernel = job.kernel_sizes[block - 1];
    const bool stage = with_argmax && job.cascade && block > 1;
    if constexpr (with_argmax) {
      if (stage) pool.begin_stage();
    }
    const std::int32_t from = stage ? 1 : reached;
    const std::int32_t to = stage ? kernel - reached + 1 : kernel;
    pool.widen_to(from, to < policy.largest ? to : policy.largest);
    reached = kernel;
    pool.write(block);
  }
}

// The same, without shared memory: a thread an element looks at its whole window, and in a cascade
// passes from stage to stage in output and argmax themselves, one launch each. For kernels that reach
// farther than a strip has lanes.
template <class S, bool with_argmax>
__global__ void __launch_bounds__(tuning::kElementThreads, tuning::kMinBlocks)
    pool_stride1_cells(const __grid_constant__ Stride1Job job, std::int32_t block) {
  using T = ComputeType<S>;
  const FeatureMap& input = job.input;
  const FeatureMap output = job.output_map();
  const bool stage = job.cascade && block > 1;
  const std::int64_t reached = stage ? job.kernel_sizes[block - 2] : 1;
  const std::int64_t kernel = block == 0 ? 1 : job.kernel_sizes[block - 1] - reached + 1;
  const std::int64_t reach = (kernel - 1) / 2;
  const std::int64_t count = input.elements();
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    const std::int64_t cell = i % input.cells();
    const std::int64_t channel = i / input.cells() % input.channels;
    const std::int64_t image = i / input.cells() / input.channels;
    const std::int64_t y = cell / input.width, x = cell % input.width;
    const Span rows = clip({y - reach, y + reach + 1}, input.height);
    const Span cols = clip({x - reach, x + reach + 1}, input.width);
    const auto output_element = [&](std::int64_t level, std::int64_t at) {
      return element_of(output, image, level * input.channels + channel, at);
    };
    const S* const plane =
        stage ? static_cast<const S*>(job.output) + output_element(block - 1, 0)
              : static_cast<const S*>(input.data) + element_of(input, image, channel, 0);
    const std::int64_t stride = stage ? output.cell_stride() : input.cell_stride();
    Best<T> best = empty_bin<T>();
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
#pragma unroll 4
      for (std::int64_t col = cols.begin; col < cols.end; ++col) {
        const std::int64_t at = row * input.width + col;
        const T candidate = widen(plane[at * stride]);
        if (best.cell < 0 || MaxOp::replaces(candidate, best.value)) {
          best = {candidate, static_cast<std::int32_t>(at)};
        }
      }
    }
    const std::int64_t to = output_element(block, cell);
    static_cast<S*>(job.output)[to] = narrow<S>(best.value);
    if constexpr (with_argmax) {
      job.argmax[to] = stage ? job.argmax[output_element(block - 1, best.cell)] : best.cell;
    }
  }
}

}  // namespace spp_ext::cuda
