// What pooling of whole maps has in common in both layouts: walking down the rows of a column of packs,
// and finishing the planes whose base bins are in shared memory.
//
// The bins of a block lie in shared memory as its part of the output does, level after level, in a level
// plane after plane: a level is one run, which is copied as it is. Values are kept in the storage type,
// which the maximum never rounds.
#pragma once

#include <cstdint>

#include "core/max_op.h"
#include "cuda/best.h"
#include "cuda/device.h"
#include "cuda/map_plan.h"
#include "cuda/words.h"

namespace spp_ext::cuda {

// What a bin is reduced to: the greatest value, or with argmax the best cell.
template <class S, bool with_argmax>
struct Found;

template <class S>
struct Found<S, false> {
  Word<S> word;  // of 16-bit floats, the lower half counts

  __device__ __forceinline__ void merge(const Found& other) { word = maximum(word, other.word); }
};

template <class S>
struct Found<S, true> {
  Best<ComputeType<S>> best;

  __device__ __forceinline__ void merge(const Found& other) { cuda::merge(best, other.best); }
};

// A number that came from storage back to storage, exactly.
template <class S>
__device__ __forceinline__ S as_stored(ComputeType<S> value) {
  return narrow<S>(value);
}
template <>
__device__ __forceinline__ BFloat16 as_stored<BFloat16>(float value) {
  return {static_cast<std::uint16_t>(spp_ext::detail::bit_cast<std::uint32_t>(value) >> 16)};
}

// Bins, or the columns of a row, in shared or global memory.
template <class S, bool with_argmax>
struct FoundArray {
  S* values;
  std::int32_t* cells;  // with argmax

  __device__ __forceinline__ FoundArray from(std::int64_t i) const {
    return {values + i, with_argmax ? cells + i : nullptr};
  }
  __device__ __forceinline__ Found<S, with_argmax> get(std::int32_t i) const {
    if constexpr (with_argmax) {
      return {{widen(values[i]), cells[i]}};
    } else if constexpr (kPerWord<S> == 1) {
      return {{values[i]}};
    } else {
      return {{values[i].bits}};
    }
  }
  __device__ __forceinline__ void put(std::int32_t i, const Found<S, with_argmax>& found) const {
    if constexpr (with_argmax) {
      values[i] = as_stored<S>(found.best.value);
      cells[i] = found.best.cell;
    } else if constexpr (kPerWord<S> == 1) {
      values[i] = found.word.number;
    } else {
      values[i] = {static_cast<std::uint16_t>(found.word.pair)};
    }
  }
};

// Merges lanes that differ in the bits [first, last) of their number. Every lane of the warp must call.
template <class S>
__device__ __forceinline__ void merge_found_lanes(Found<S, false>& found, int first, int last) {
  for (int offset = first; offset < last; offset *= 2) {
    found.merge({shuffle_xor(found.word, offset)});
  }
}
template <class S>
__device__ __forceinline__ void merge_found_lanes(Found<S, true>& found, int first, int last) {
  found.best = merge_lanes(found.best, first, last);
}

// ---- down the rows ----

// What a lane found in each of the columns, or channels, of its pack.
template <class S, int numbers, bool with_argmax>
struct Column;

template <class S, int numbers>
struct Column<S, numbers, false> {
  Pack<S, numbers> best;

  __device__ __forceinline__ explicit Column(std::int32_t) : best(lowest_pack<S, numbers>()) {}
  __device__ __forceinline__ void take(const Pack<S, numbers>& pack, std::int32_t) {
    best = maximum(best, pack);
  }
  __device__ __forceinline__ void merge(const Column& other) { best = maximum(best, other.best); }
  __device__ __forceinline__ void merge_lanes(int first, int last) {
    for (int offset = first; offset < last; offset *= 2) {
      best = maximum(best, shuffle_xor(best, offset));
    }
  }
  __device__ __forceinline__ Found<S, false> operator[](int i) const {
    if constexpr (kPerWord<S> == 1) {
      return {best.words[i]};
    } else {
      return {{best.words[i / 2].pair >> (i % 2 * 16)}};
    }
  }
  // To neighbouring places; as many as the pack is wide must lie aligned.
  __device__ __forceinline__ void put(const FoundArray<S, false>& to) const {
    store_pack(to.values, best);
  }
};

template <class S, int numbers>
struct Column<S, numbers, true> {
  using T = ComputeType<S>;
  T values[numbers];
  std::int32_t cells[numbers];

  __device__ __forceinline__ explicit Column(std::int32_t cell) {
#pragma unroll
    for (int i = 0; i < numbers; ++i) {
      values[i] = -kInfinity<T>;
      cells[i] = cell;
    }
  }
  // Of cells that come after those so far.
  __device__ __forceinline__ void take(const Pack<S, numbers>& pack, std::int32_t cell) {
#pragma unroll
    for (int i = 0; i < numbers; ++i) {
      const T candidate = widen(pack[i]);
      const bool replaces = MaxOp::replaces(candidate, values[i]);
      values[i] = replaces ? candidate : values[i];
      cells[i] = replaces ? cell : cells[i];
    }
  }
  __device__ __forceinline__ void merge(const Column& other) {
#pragma unroll
    for (int i = 0; i < numbers; ++i) {
      Found<S, true> found = (*this)[i];
      found.merge(other[i]);
      values[i] = found.best.value;
      cells[i] = found.best.cell;
    }
  }
  __device__ __forceinline__ void merge_lanes(int first, int last) {
    for (int offset = first; offset < last; offset *= 2) {
      Column other(0);
#pragma unroll
      for (int i = 0; i < numbers; ++i) {
        other.values[i] = __shfl_xor_sync(0xffffffffu, values[i], offset);
        other.cells[i] = __shfl_xor_sync(0xffffffffu, cells[i], offset);
      }
      merge(other);
    }
  }
  __device__ __forceinline__ Found<S, true> operator[](int i) const {
    return {{values[i], cells[i]}};
  }
  __device__ __forceinline__ void put(const FoundArray<S, true>& to) const {
    store_pack(to.values, make_pack<S, numbers>([&](int i) { return as_stored<S>(values[i]); }));
    constexpr int kCells = numbers % 4 == 0 ? 4 : 1;  // at once
#pragma unroll
    for (int i = 0; i < numbers; i += kCells) {
      store_pack(to.cells + i,
                 make_pack<std::int32_t, kCells>([&](int k) { return cells[i + k]; }));
    }
  }
};

constexpr std::int32_t kBatch = 4;  // loads of a lane that are under way together

// Walks down `rows` rows from `at`, which are `stride` numbers apart. The first of them is cell `cell`, and
// a row of the map has `width` cells. Of the batches of rows, part `part` of 1 << part_bits takes every so
// manieth. Starts with -infinity at the first cell: right where there is nothing greater.
template <bool with_argmax, int numbers, class S>
__device__ __forceinline__ Column<S, numbers, with_argmax> walk_down(
    const S* at, std::int32_t stride, std::int32_t rows, std::int32_t cell, std::int32_t width,
    std::int32_t part, std::int32_t part_bits) {
  Column<S, numbers, with_argmax> found(cell);
  const std::int32_t step = kBatch << part_bits, first = part * kBatch;
  std::int32_t left = rows - first;
  at += static_cast<std::int64_t>(first) * stride;
  cell += first * width;
  Pack<S, numbers> packs[kBatch];
  for (; left >= kBatch; left -= step) {
#pragma unroll
    for (int k = 0; k < kBatch; ++k) packs[k] = load_pack<S, numbers>(at + k * stride);
#pragma unroll
    for (int k = 0; k < kBatch; ++k) found.take(packs[k], cell + k * width);
    at += static_cast<std::int64_t>(step) * stride;
    cell += step * width;
  }
#pragma unroll
  for (int k = 0; k < kBatch - 1; ++k) {
    if (k < left) packs[k] = load_pack<S, numbers>(at + k * stride);
  }
#pragma unroll
  for (int k = 0; k < kBatch - 1; ++k) {
    if (k < left) found.take(packs[k], cell + k * width);
  }
  return found;
}

// ---- from base bins to output ----

// The bins of its source that a derived level's bin is merged from: `down` rows of `across` bins each.
struct Merge {
  std::int32_t first, down, across;
  std::int32_t cols;  // of the source

  __device__ __forceinline__ Merge(const MapJob& job, const MapLevel& level, std::int32_t bin)
      : down(level.down), across(level.across), cols(job.levels[level.source].cols) {
    if (level.first_merge < 0) {
      const std::int32_t row = level.by_cols.quotient(bin);
      first = row * down * cols + (bin - row * level.cols) * across;
    } else {
      const Rectangle& parts = job.merges[level.first_merge + bin];
      first = parts.top * cols + parts.left;
      down = parts.bottom - parts.top;
      across = parts.right - parts.left;
    }
  }
};

// Merges the derived levels of planes [first, first + count) of a block that has `planes` planes, and
// writes all levels of these. Plane 0 is channel `channel`. One warp calls; base bins are in place.
template <class S, bool with_argmax>
__device__ __forceinline__ void finish_planes(const MapJob& job,
                                              const FoundArray<S, with_argmax>& bins,
                                              std::int32_t planes, std::int32_t first,
                                              std::int32_t count, std::int32_t image,
                                              std::int32_t channel) {
  const std::int32_t lane = threadIdx.x % 32;
  for (std::int32_t l = 0; l < job.num_levels; ++l) {
    const MapLevel& level = job.levels[l];
    if (level.source < 0) continue;
    const MapLevel& source = job.levels[level.source];
    const FoundArray<S, with_argmax> from =
        bins.from(source.first_bin * planes + first * source.bins);
    const FoundArray<S, with_argmax> to = bins.from(level.first_bin * planes + first * level.bins);
    for (std::int32_t i = lane; i < count * level.bins; i += 32) {
      const std::int32_t plane = level.by_bins.quotient(i);
      const Merge merge(job, level, i - plane * level.bins);
      const FoundArray<S, with_argmax> parts = from.from(plane * source.bins + merge.first);
      Found<S, with_argmax> found = parts.get(0);
      for (std::int32_t y = 0; y < merge.down; ++y) {
        for (std::int32_t x = 0; x < merge.across; ++x) {
          found.merge(parts.get(y * merge.cols + x));
        }
      }
      to.put(i, found);
    }
    __syncwarp();
  }
  const std::int64_t row = image * job.row_size;
  for (std::int32_t l = 0; l < job.num_levels; ++l) {
    const MapLevel& level = job.levels[l];
    const FoundArray<S, with_argmax> from =
        bins.from(level.first_bin * planes + first * level.bins);
    const std::int64_t to =
        row + level.output + static_cast<std::int64_t>(channel + first) * level.bins;
    S* const values = static_cast<S*>(job.output) + to;
    std::int32_t* const cells = with_argmax ? job.argmax + to : nullptr;
    for (std::int32_t i = lane; i < count * level.bins; i += 32) {
      values[i] = from.values[i];
      if constexpr (with_argmax) cells[i] = from.cells[i];
    }
  }
}

}  // namespace spp_ext::cuda
