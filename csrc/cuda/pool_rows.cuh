// Pooling of whole contiguous maps, rows first. A block owns a few neighbouring planes; a warp takes a row
// of bins of one plane at a time:
//
//   down      lanes are columns, a pack of them each, and keep the running maximum of the rows that the
//             bins share; planes narrower than the warp put groups of lanes on different rows
//
//               lane    0      1    ...   15   | 16 ...        (64 float32 columns)
//               column  0-3    4-7  ...  60-63 | 0-3 ...
//               row     0, 2, 4, ...           | 1, 3, 5, ...
//
//   across    the row of maxima goes to the warp's own shared memory; lanes take the bins' columns from
//             there, several lanes a bin where bins are few
//
//   write     the whole block, level after level (write_levels.cuh)
#pragma once

#include <cstdint>

#include "cuda/best.h"
#include "cuda/device.h"
#include "cuda/map_job.h"
#include "cuda/tuning.h"
#include "cuda/words.h"
#include "cuda/write_levels.cuh"

namespace spp_ext::cuda {

struct RowsPolicy {
  std::int32_t planes;     // of a block
  std::int32_t warps;      // of a block
  std::int32_t numbers;    // in a pack: as many as a row's alignment allows
  std::int32_t lane_bits;  // 1 << lane_bits lanes lie along a row
};

// The parts of a block's shared memory, in bytes from its start.
struct RowsShared {
  std::int64_t spans;      // Span [spans]
  std::int64_t span_rows;  // SpanRow [num_span_rows]
  std::int64_t values;     // T [planes][bins], base bins
  std::int64_t cells;      // int32 alike, with argmax
  std::int64_t maxima;     // S [warps][width], a row of maxima
  std::int64_t rows;       // int32 alike, where each comes from, with argmax
  std::int64_t bytes;
  std::int32_t width;  // of a row of maxima

  SPP_HOST_DEVICE RowsShared(const MapJob& job, const RowsPolicy& policy, bool with_argmax) {
    const std::int64_t size = size_of(job.input.dtype);
    const std::int64_t bins = policy.planes * job.pyramid.bins;
    width = static_cast<std::int32_t>(align16(job.input.width));
    spans = 0;
    span_rows = spans + align16(job.pyramid.spans * 8);
    values = span_rows + job.num_span_rows * 16;
    cells = values + align16(bins * (size == 8 ? 8 : 4));
    maxima = cells + (with_argmax ? align16(bins * 4) : 0);
    rows = maxima + policy.warps * width * size;
    bytes = rows + (with_argmax ? policy.warps * width * 4 : 0);
  }
};

// A warp's row of maxima.
template <class S>
struct RowOfMaxima {
  S* values;           // [width]
  std::int32_t* rows;  // alike, with argmax
};

// The maxima of the columns over the rows of `span`, a pack of columns a lane. `first` is the number of
// the lane's first column.
template <class S, int numbers>
__device__ __forceinline__ void pool_down(const S* plane, std::int32_t width, Span span,
                                          std::int32_t first, std::int32_t lane_bits,
                                          const RowOfMaxima<S>& to) {
  using P = Pack<S, numbers>;
  const std::int32_t lane = threadIdx.x % 32;
  const std::int32_t step = (32 >> lane_bits) * width;
  P best = lowest_pack<S, numbers>();
  // Lanes beyond the last column have nothing to look at.
  if (first < width) {
    std::int32_t at = (span.begin + (lane >> lane_bits)) * width + first;
    const std::int32_t end = span.end * width;
#pragma unroll 4
    for (; at < end; at += step) best = maximum(best, load_pack<S, numbers>(plane + at));
  }
  for (std::int32_t offset = 1 << lane_bits; offset < 32; offset *= 2) {
    P other;
#pragma unroll
    for (int w = 0; w < P::kWords; ++w) other.words[w] = shuffle_xor(best.words[w], offset);
    best = maximum(best, other);
  }
  if (first < width && lane >> lane_bits == 0) store_pack(to.values + first, best);
}

// The same, with the row that each maximum comes from.
template <class S, int numbers>
__device__ __forceinline__ void search_down(const S* plane, std::int32_t width, Span span,
                                            std::int32_t first, std::int32_t lane_bits,
                                            const RowOfMaxima<S>& to) {
  using T = ComputeType<S>;
  const std::int32_t lane = threadIdx.x % 32;
  Best<T> best[numbers];
#pragma unroll
  for (int n = 0; n < numbers; ++n) best[n] = {-kInfinity<T>, span.begin};
  if (first < width) {
    std::int32_t y = span.begin + (lane >> lane_bits);
    const std::int32_t step = 32 >> lane_bits;
    const S* at = plane + y * width + first;
#pragma unroll 2
    for (; y < span.end; y += step, at += step * width) {
      const Pack<S, numbers> pack = load_pack<S, numbers>(at);
#pragma unroll
      for (int n = 0; n < numbers; ++n) {
        const T candidate = widen(pack[n]);
        if (MaxOp::replaces(candidate, best[n].value)) best[n] = {candidate, y};
      }
    }
  }
#pragma unroll
  for (int n = 0; n < numbers; ++n) best[n] = merge_lanes(best[n], 1 << lane_bits, 32);
  if (first < width && lane >> lane_bits == 0) {
#pragma unroll
    for (int n = 0; n < numbers; ++n) {
      to.values[first + n] = narrow<S>(best[n].value);
      to.rows[first + n] = best[n].cell;
    }
  }
}

// The bins of a row of bins, from the row of maxima. Calls put(bin, best) in one lane for each.
template <class S, bool with_argmax, class Put>
__device__ __forceinline__ void pool_across(const RowOfMaxima<S>& from, const SpanRow& row,
                                            const Span* spans, std::int32_t width, const Put& put) {
  using T = ComputeType<S>;
  const std::int32_t lane = threadIdx.x % 32;
  std::int32_t lanes = 1;  // of a bin
  while (lanes * row.bins <= 16) lanes *= 2;
  const std::int32_t sub = lane & (lanes - 1);
  // Every lane takes part in the shuffles: lanes beyond the last bin repeat it.
  for (std::int32_t first = 0; first < row.bins; first += 32 / lanes) {
    const std::int32_t wanted = first + lane / lanes;
    const std::int32_t bin = wanted < row.bins ? wanted : row.bins - 1;
    const Span cols = spans[row.cols + bin];
    Best<T> best{-kInfinity<T>, static_cast<std::int32_t>(kInt32Max)};
    for (std::int32_t x = cols.begin + sub; x < cols.end; x += lanes) {
      const T value = widen(from.values[x]);
      if constexpr (with_argmax) {
        merge(best, {value, from.rows[x] * width + x});
      } else {
        best.value = maximum(best.value, value);
      }
    }
    for (std::int32_t offset = 1; offset < lanes; offset *= 2) {
      Best<T> other;
      other.value = __shfl_xor_sync(0xffffffffu, best.value, offset);
      if constexpr (with_argmax) {
        other.cell = __shfl_xor_sync(0xffffffffu, best.cell, offset);
        merge(best, other);
      } else {
        best.value = maximum(best.value, other.value);
      }
    }
    if (wanted < row.bins && sub == 0) put(bin, best);
  }
}

template <class S, bool with_argmax>
__global__ void __launch_bounds__(tuning::kMapThreads, tuning::kMinBlocks)
    pool_rows(const __grid_constant__ MapJob job, const __grid_constant__ RowsPolicy policy) {
  using T = ComputeType<S>;
  constexpr int kWide = kPerPack<S>, kNarrow = kPerWord<S>;
  unsigned char* const shared = dynamic_shared();
  const RowsShared parts(job, policy, with_argmax);
  Span* const spans = reinterpret_cast<Span*>(shared + parts.spans);
  auto* const span_rows = reinterpret_cast<SpanRow*>(shared + parts.span_rows);
  T* const values = reinterpret_cast<T*>(shared + parts.values);
  auto* const cells = reinterpret_cast<std::int32_t*>(shared + parts.cells);
  const std::int32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const RowOfMaxima<S> maxima{
      reinterpret_cast<S*>(shared + parts.maxima) + warp * parts.width,
      reinterpret_cast<std::int32_t*>(shared + parts.rows) + warp * parts.width};
  for (std::int32_t i = threadIdx.x; i < job.pyramid.spans; i += blockDim.x)
    spans[i] = job.spans[i];
  for (std::int32_t i = threadIdx.x; i < job.num_span_rows; i += blockDim.x) {
    span_rows[i] = job.nth_span_row(i);
  }
  __syncthreads();

  const FeatureMap& input = job.input;
  const auto width = static_cast<std::int32_t>(input.width);
  const auto bins = static_cast<std::int32_t>(job.pyramid.bins);
  const std::int64_t slabs = divide_up(input.channels, policy.planes);
  for (std::int64_t unit = blockIdx.x; unit < input.batch * slabs; unit += gridDim.x) {
    const std::int64_t image = quotient(unit, slabs);
    const std::int64_t channel = (unit - image * slabs) * policy.planes;
    const auto planes =
        static_cast<std::int32_t>(smaller_of(input.channels - channel, policy.planes));
    const S* const first_plane =
        static_cast<const S*>(input.data) + (image * input.channels + channel) * input.cells();
    for (std::int32_t item = warp; item < planes * job.num_span_rows; item += policy.warps) {
      const std::int32_t plane = item / job.num_span_rows;
      const SpanRow row = span_rows[item - plane * job.num_span_rows];
      const Span down = spans[row.rows];
      const S* const source = first_plane + plane * input.cells();
      const std::int32_t lane_bits = policy.lane_bits;
      const std::int32_t column = lane & ((1 << lane_bits) - 1);
      const auto go_down = [&](auto numbers) {
        constexpr int kNumbers = decltype(numbers)::value;
        for (std::int32_t first = 0; first < width; first += kNumbers << lane_bits) {
          if constexpr (with_argmax) {
            search_down<S, kNumbers>(source, width, down, first + column * kNumbers, lane_bits,
                                     maxima);
          } else {
            pool_down<S, kNumbers>(source, width, down, first + column * kNumbers, lane_bits,
                                   maxima);
          }
        }
      };
      if (policy.numbers == kWide) {
        go_down(std::integral_constant<int, kWide>{});
      } else if (policy.numbers == kNarrow) {
        go_down(std::integral_constant<int, kNarrow>{});
      } else if constexpr (kNarrow > 1) {
        go_down(std::integral_constant<int, 1>{});
      }
      __syncwarp();
      pool_across<S, with_argmax>(maxima, row, spans, width, [&](std::int32_t bin, Best<T> best) {
        values[plane * bins + row.first_bin + bin] = best.value;
        if constexpr (with_argmax) cells[plane * bins + row.first_bin + bin] = best.cell;
      });
      __syncwarp();  // the next row of maxima overwrites this one
    }
    __syncthreads();
    write_levels<S, with_argmax>(job, image, channel, planes,
                                 [&](std::int32_t column, std::int32_t bin) -> Best<T> {
                                   const std::int32_t at = column * bins + bin;
                                   return {values[at], with_argmax ? cells[at] : 0};
                                 });
    __syncthreads();  // the next planes overwrite the bins
  }
}

}  // namespace spp_ext::cuda
