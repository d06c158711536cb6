// Stride-1 max pools of several kernel sizes. A warp owns a plane, or a tile of one with a halo as wide as
// the largest kernel reaches, and a lane a column of it:
//
//   strip   row 0   [lane 0|lane 1|lane 2| ...    in shared memory, 32 lanes wide
//           row 1   [lane 0|lane 1|lane 2| ...
//
// Sizes are reached by widening the last result, down the lane's column in shared memory and at once along
// the row by shuffles, so that no warp waits for another (cpu/stride1_lanes.cpp says why that is exact).
// It happens in place: results go `reach` rows up or down of what they replace, in turn, which is far
// enough for no row to be overwritten that is still to be read. Look-ups outside the tile find copies of
// its first or last row. Towards the rim of a halo results are incomplete, by exactly as much as it is wide.
//
// Narrow planes share a warp, in segments of 16 or 8 lanes. Without argmax two planes of 16-bit floats share
// a segment, as halves of words. Loading and writing have a mapping of their own, 16 bytes a thread where
// alignment allows: neighbouring cells of the plane, or channels_last neighbouring planes of a cell, for
// which the warps of a block own neighbouring planes and exchange their strips.
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
// Bytes between strips, with which columns of neighbouring planes are in different banks.
constexpr std::int32_t kBankShift = 16;
// Numbers that a thread loads or writes at once.
template <class S>
constexpr int kGroup = sizeof(S) == 8 ? 2 : 4;

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

// How threads share the rows of a tile when they load or write it: the lanes of a segment, or channels_last
// the threads of a block. A group is what a thread moves at once: one number, or kGroup of them, which are
// neighbouring cells of a row, or channels_last neighbouring planes of a cell.
struct Stride1Share {
  std::int32_t count_log2;    // numbers of a group
  std::int32_t width;         // groups of a row, or channels_last cells
  std::int32_t reciprocal;    // of width, times 2^16
  std::int32_t rows_at_once;  // for which there are threads
};

struct Stride1Policy {
  // A tile without its halo. The first and the last of a row of tiles have halo_cols more.
  std::int32_t rows, cols;
  std::int32_t halo_rows, halo_cols;  // of a tile, on each side, as far as the plane goes
  std::int32_t down, across;          // tiles of a plane
  std::int32_t slabs;                 // blocks side by side that have the planes of an image
  std::int32_t segment_log2;          // lanes of a warp that a plane has
  std::int32_t planes_log2;           // segments of a block
  std::int32_t reach;                 // the farthest look-up of a widening
  std::int32_t strip_cells;           // from strip to strip, in cells
  std::int32_t largest;               // kernel size; a larger one finds no more
  Stride1Share loading, writing;
};

// How far the next widening looks on the way from results of kernel size `from` to those of size `to`.
// From 3 on it is less than half a window, so that the windows before and after a cell cover it and its
// own need not be looked up.
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

static_assert(tuning::kSharedBytes / sizeof(Ranked<float>) < 1 << 15,
              "a rank has 15 bits for slots");

SPP_HOST_DEVICE std::uint32_t rank_order(std::uint32_t slot, bool is_nan) {
  return is_nan ? (0x8000u | slot) << 16 : (slot ^ 0x7fffu) << 16;
}

template <class T>
__device__ __forceinline__ Ranked<T> maximum(const Ranked<T>& a, const Ranked<T>& b) {
  const bool higher = b.rank > a.rank;
  return (b.value > a.value) | (higher & !(b.value < a.value)) ? b : a;
}

// Neighbouring numbers, words or ranked values: a pack whose members are taken one by one.
template <class N, int count>
struct Group {
  N of[count];

  // Some of them, from the first on.
  template <int some>
  __device__ __forceinline__ Group<N, some> part(int first) const {
    Group<N, some> result;
#pragma unroll
    for (int i = 0; i < some; ++i) result.of[i] = of[first + i];
    return result;
  }
  template <int some>
  __device__ __forceinline__ void set(int first, const Group<N, some>& values) {
#pragma unroll
    for (int i = 0; i < some; ++i) of[first + i] = values.of[i];
  }
};

// Of the cells [begin - halo, end + halo) those that exist.
SPP_HOST_DEVICE Span with_halo(Span span, std::int32_t halo, std::int64_t size) {
  const auto last = static_cast<std::int32_t>(size) - halo;
  return {span.begin < halo ? 0 : span.begin - halo,
          span.end > last ? last + halo : span.end + halo};
}

// What a thread loads or writes of a tile: a group in every so many rows.
struct Stride1Walk {
  std::int32_t segment;   // its plane, or channels_last the first of its planes
  std::int32_t planes;    // from there on, of the map; none: nothing is to be done
  std::int32_t row, col;  // its first cell, counted within the tile and its halo
  std::int32_t rows_end, row_step;
  std::int64_t element;  // of the map
  std::int64_t step;     // in the map, from group to group
};

// The tile of a block, in as many planes as it has segments, and a thread's share in it.
template <class S, bool with_argmax>
struct StripPool {
  using Storage = S;
  using Cell = std::conditional_t<with_argmax, Ranked<ComputeType<S>>, Word<S>>;
  static constexpr int kPlanes = with_argmax ? 1 : kPerWord<S>;  // that share a segment
  template <int count>  // of `count` cells that stand together, so many are moved at once
  static constexpr int kCellsTogether = count * sizeof(Cell) > 16 ? 16 / sizeof(Cell) : count;

  const Stride1Job& job;
  const Stride1Policy& policy;
  Cell* const strips;           // [warps][strip_cells]
  std::int32_t image, channel;  // of the block's first plane
  Span rows, cols;              // of the tile
  Span halo_rows, halo_cols;    // of the tile and its halo
  std::int32_t height;          // with the halo
  std::int32_t base;            // the row of the strips that is the first of the tile
  // The column that this lane widens.
  Cell* column;             // from row 0 of the strip on
  std::int32_t first_lane;  // of its segment
  std::int32_t x;           // in the tile

  __device__ __forceinline__ StripPool(const Stride1Job& job, const Stride1Policy& policy)
      : job(job), policy(policy), strips(reinterpret_cast<Cell*>(dynamic_shared())) {
    const FeatureMap& input = job.input;
    std::uint32_t number = blockIdx.x;
    const auto next = [&](std::int32_t count) {
      if (count == 1) return 0;
      const std::uint32_t all = number;
      number /= static_cast<std::uint32_t>(count);
      return static_cast<std::int32_t>(all - number * static_cast<std::uint32_t>(count));
    };
    const std::int32_t col = next(policy.across), row = next(policy.down);
    channel = (next(policy.slabs) << policy.planes_log2) * kPlanes;
    image = static_cast<std::int32_t>(number);
    rows = with_halo({row * policy.rows, (row + 1) * policy.rows}, 0, input.height);
    const auto width = static_cast<std::int32_t>(input.width);
    cols.begin = col == 0 ? 0 : policy.halo_cols + col * policy.cols;
    cols.end = col == policy.across - 1 ? width : policy.halo_cols + (col + 1) * policy.cols;
    halo_rows = with_halo(rows, policy.halo_rows, input.height);
    halo_cols = with_halo(cols, policy.halo_cols, input.width);
    height = halo_rows.end - halo_rows.begin;
    base = 2 * policy.reach;

    const std::int32_t lane = threadIdx.x % kLanes;
    x = lane & ((1 << policy.segment_log2) - 1);
    first_lane = lane - x;
    column = strips + threadIdx.x / kLanes * policy.strip_cells + lane;
  }

  __device__ __forceinline__ bool contiguous() const {
    return job.input.layout == Layout::kContiguous;
  }

  // What is loaded or written passes from lane to lane, or channels_last from warp to warp.
  __device__ __forceinline__ void barrier() const {
    if (contiguous()) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }

  // The first lane of a segment, and its cell in row 0, from `strips` on.
  __device__ __forceinline__ std::int32_t first_lane_of(std::int32_t segment) const {
    return segment << policy.segment_log2 & (kLanes - 1);
  }
  __device__ __forceinline__ std::int32_t begin_of(std::int32_t segment) const {
    return (segment << policy.segment_log2) / kLanes * policy.strip_cells + first_lane_of(segment);
  }

  // This thread's share of some rows and columns of the tile. `map` is the input or the output.
  __device__ __forceinline__ Stride1Walk walk(const Stride1Share& share, const FeatureMap& map,
                                              Span some_rows, Span some_cols) const {
    const auto thread = static_cast<std::int32_t>(threadIdx.x);
    const std::int32_t groups_log2 = policy.planes_log2 - share.count_log2;  // channels_last
    const std::int32_t number = contiguous() ? x : thread >> groups_log2;
    const std::int32_t row = number * share.reciprocal >> 16;
    const std::int32_t group = number - row * share.width;
    const std::int32_t y = some_rows.begin + row;
    const std::int32_t at = some_cols.begin + (contiguous() ? group << share.count_log2 : group);
    Stride1Walk walk;
    walk.segment = contiguous() ? thread >> policy.segment_log2
                                : (thread & ((1 << groups_log2) - 1)) << share.count_log2;
    const std::int32_t first_channel = channel + walk.segment * kPlanes;
    const bool any = row < share.rows_at_once && at < some_cols.end;
    walk.planes = any ? static_cast<std::int32_t>(job.input.channels) - first_channel : 0;
    walk.row = y - halo_rows.begin;
    walk.col = at - halo_cols.begin;
    walk.rows_end = some_rows.end - halo_rows.begin;
    walk.row_step = share.rows_at_once;
    walk.element = element_of(map, image, first_channel, y * map.width + at);
    walk.step = share.rows_at_once * map.width * map.cell_stride();
    return walk;
  }

  // Calls f(cells of a group, from the first of them on; their slots, alike; element of the map) for the
  // groups of a walk. `count` numbers are a group.
  template <bool is_contiguous, int count, class F>
  __device__ __forceinline__ void for_each_group(const Stride1Walk& walk, const F& f) const {
    if (walk.planes <= 0) return;
    std::int32_t slot = walk.row * kLanes + walk.col;
    Cell* cell = strips + begin_of(walk.segment) + base * kLanes + slot;
    std::int32_t cells_at[count], slots_at[count];
#pragma unroll
    for (int i = 0; i < count; ++i) {
      cells_at[i] = is_contiguous ? i : begin_of(walk.segment + i) - begin_of(walk.segment);
      slots_at[i] = is_contiguous ? first_lane + i : first_lane_of(walk.segment + i);
    }
    std::int64_t element = walk.element;
    // Of the copies of an unrolled loop nvcc 13.0 keeps the stores of only one in one piece.
    constexpr int kUnroll = count == 1 ? 4 : 1;
#pragma unroll kUnroll
    for (std::int32_t row = walk.row; row < walk.rows_end; row += walk.row_step) {
      f(cell, cells_at, slot, slots_at, element);
      cell += walk.row_step * kLanes;
      slot += walk.row_step * kLanes;
      element += walk.step;
    }
  }

  template <bool is_contiguous, int count>
  __device__ __forceinline__ void load_groups(const Stride1Walk& walk) const {
    constexpr bool kInWords = kPlanes == 2 && !is_contiguous && count > 1;
    const std::int64_t second =
        walk.planes > 1 ? (is_contiguous ? job.input.cells() : 1) : 0;  // from the first plane on
    const auto load = [&](Cell* cell, const auto& cells_at, std::int32_t slot, const auto& slots_at,
                          std::int64_t element) {
      const S* const from = static_cast<const S*>(job.input.data) + element;
      Group<Cell, count> cells;
      if constexpr (kInWords) {
        cells = load_as<Group<Cell, count>>(reinterpret_cast<const Cell*>(from));
      } else {
        const auto numbers = load_as<Group<S, count>>(from);
        if constexpr (with_argmax) {
#pragma unroll
          for (int i = 0; i < count; ++i) {
            const auto value = cuda::widen(numbers.of[i]);
            const std::uint32_t at = slot + slots_at[i];
            cells.of[i] = {value, rank_order(at, value != value) | at};
          }
        } else if constexpr (kPlanes == 2) {
          const auto others = load_as<Group<S, count>>(from + second);
#pragma unroll
          for (int i = 0; i < count; ++i) {
            cells.of[i] = {numbers.of[i].bits | static_cast<std::uint32_t>(others.of[i].bits)
                                                    << 16};
          }
        } else {
#pragma unroll
          for (int i = 0; i < count; ++i) cells.of[i] = {numbers.of[i]};
        }
      }
      constexpr int kTogether = is_contiguous ? kCellsTogether<count> : 1;
#pragma unroll
      for (int i = 0; i < count; i += kTogether) {
        store_pack(cell + cells_at[i], cells.template part<kTogether>(i));
      }
    };
    for_each_group<is_contiguous, count>(walk, load);
  }

  template <bool is_contiguous, int count>
  __device__ __forceinline__ void write_groups(const Stride1Walk& walk) const {
    constexpr bool kInWords = kPlanes == 2 && !is_contiguous && count > 1;
    [[maybe_unused]] const std::int64_t second = is_contiguous ? job.input.cells() : 1;
    const auto width = static_cast<std::int32_t>(job.input.width);
    const std::int32_t first_cell = halo_rows.begin * width + halo_cols.begin;
    const auto write = [&](const Cell* cell, const auto& cells_at, std::int32_t /*slot*/,
                           const auto& slots_at, std::int64_t element) {
      S* const to = static_cast<S*>(job.output) + element;
      Group<Cell, count> cells;
      constexpr int kTogether = is_contiguous ? kCellsTogether<count> : 1;
#pragma unroll
      for (int i = 0; i < count; i += kTogether) {
        cells.set(i, load_as<Group<Cell, kTogether>>(cell + cells_at[i]));
      }
      if constexpr (kInWords) {
        write_pack(reinterpret_cast<Cell*>(to), cells);
      } else {
        Group<S, count> numbers;
        if constexpr (with_argmax) {
          Group<std::int32_t, count> argmax;
#pragma unroll
          for (int i = 0; i < count; ++i) {
            const std::int32_t from = cells.of[i].rank & 0xffffu;  // a slot
            const std::int32_t lane = is_contiguous ? first_lane : slots_at[i];
            numbers.of[i] = narrow<S>(cells.of[i].value);
            argmax.of[i] = first_cell + from - lane + from / kLanes * (width - kLanes);
          }
          write_pack(job.argmax + element, argmax);
        } else if constexpr (kPlanes == 2) {
          Group<S, count> others;
#pragma unroll
          for (int i = 0; i < count; ++i) {
            numbers.of[i] = {static_cast<std::uint16_t>(cells.of[i].pair)};
            others.of[i] = {static_cast<std::uint16_t>(cells.of[i].pair >> 16)};
          }
          if (walk.planes > 1) write_pack(to + second, others);
        } else {
#pragma unroll
          for (int i = 0; i < count; ++i) numbers.of[i] = cells.of[i].number;
        }
        write_pack(to, numbers);
      }
    };
    for_each_group<is_contiguous, count>(walk, write);
  }

  __device__ __forceinline__ void load() const {
    const Stride1Walk all = walk(policy.loading, job.input, halo_rows, halo_cols);
    const bool grouped = policy.loading.count_log2 > 0;
    if (contiguous()) {
      grouped ? load_groups<true, kGroup<S>>(all) : load_groups<true, 1>(all);
    } else {
      grouped ? load_groups<false, kGroup<S>>(all) : load_groups<false, 1>(all);
    }
    barrier();
  }

  __device__ __forceinline__ void write(const Stride1Walk& own) const {
    const bool grouped = policy.writing.count_log2 > 0;
    barrier();
    if (contiguous()) {
      grouped ? write_groups<true, kGroup<S>>(own) : write_groups<true, 1>(own);
    } else {
      grouped ? write_groups<false, kGroup<S>>(own) : write_groups<false, 1>(own);
    }
  }

  // Copies the first row upwards and the last one downwards, `count` times each.
  __device__ __forceinline__ void copy_ends(std::int32_t count) const {
    Cell* first = column + base * kLanes;
    Cell* last = first + (height - 1) * kLanes;
    const Cell top = *first, bottom = *last;
#pragma unroll 1
    for (; count > 0; --count) {
      first -= kLanes;
      last += kLanes;
      *first = top;
      *last = bottom;
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
#pragma unroll 1
    for (; left_over >= kAtOnce; left_over -= kAtOnce) {
      advance(std::integral_constant<int, kAtOnce>{});
    }
#pragma unroll 1
    for (; left_over > 0; --left_over) advance(std::integral_constant<int, 1>{});
  }

  template <bool with_own>
  __device__ __forceinline__ void widen(std::int32_t distance) {
    copy_ends(distance);
    if (base > policy.reach) {
      widen_rows<1, with_own>(distance);
      base -= policy.reach;
    } else {
      widen_rows<-1, with_own>(distance);
      base += policy.reach;
    }
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
  }
};

template <class S, bool with_argmax>
__global__ void __launch_bounds__(tuning::kStride1Warps* kLanes, tuning::kMinBlocks)
    pool_stride1(const __grid_constant__ Stride1Job job,
                 const __grid_constant__ Stride1Policy policy) {
  StripPool<S, with_argmax> pool(job, policy);
  pool.load();
  Stride1Walk writing = pool.walk(policy.writing, job.output_map(), pool.rows, pool.cols);
  std::int32_t reached = 1;
#pragma unroll 1
  for (std::int32_t block = 0;; ++block) {
    pool.write(writing);
    if (block == job.num_kernels) break;
    pool.barrier();  // a widening overwrites what was written
    const std::int32_t kernel = job.kernel_sizes[block];
    const bool stage = with_argmax && job.cascade && block > 0;
    if constexpr (with_argmax) {
      if (stage) pool.begin_stage();
    }
    const std::int32_t from = stage ? 1 : reached;
    const std::int32_t to = stage ? kernel - reached + 1 : kernel;
    pool.widen_to(from, to < policy.largest ? to : policy.largest);
    reached = kernel;
    writing.element += job.input.channels * job.input.plane_stride();
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
