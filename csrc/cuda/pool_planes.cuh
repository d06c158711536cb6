// Pooling of contiguous maps. A block owns a few neighbouring planes of one image and every output
// row of that image, or a segment's share of them: one for a whole map, the image's regions otherwise.
//
//   planes         16-byte loads into shared memory when they fit; else bins read global memory
//   spans          of a batch of rows, one thread each
//   base bins      `lanes` threads each: one for small bins, a warp for large ones
//   derived bins   one thread each, from base bins in shared memory
//   output rows    threads along the memory: the bins of neighbouring planes are one run
#pragma once

#include <cstdint>

#include "cuda/block_bins.cuh"
#include "cuda/device.h"
#include "cuda/job.h"
#include "cuda/reduce.cuh"
#include "cuda/tuning.h"

namespace spp_ext::cuda {

struct PlanesPolicy {
  std::int32_t planes;     // in a block
  std::int32_t rows;       // pooled side by side
  std::int32_t lanes;      // on a base bin, a power of two up to 32
  std::int64_t segments;   // blocks that share the regions of the same planes
  std::int32_t base_bins;  // bins of base levels
  std::int32_t staged;     // whether planes are copied to shared memory
};

// The parts of a block's shared memory, in bytes from its start.
struct PlanesShared {
  std::int64_t row_numbers;  // int64 [rows], output row
  std::int64_t values;       // T [rows][planes][bins]
  std::int64_t spans;        // Span [rows][spans]
  std::int64_t cells;        // int32 [rows][planes][bins], with argmax
  std::int64_t empty;        // uint8 [rows][bins]
  std::int64_t staged;       // S [planes][H * W], shifted as the planes are in global memory
  std::int64_t bytes;

  SPP_HOST_DEVICE PlanesShared(const PoolJob& job, const PlanesPolicy& policy, bool with_argmax) {
    const std::int64_t bins = policy.rows * policy.planes * job.pyramid.bins;
    row_numbers = 0;
    values = row_numbers + align16(policy.rows * 8);
    spans = values + align16(bins * (job.input.dtype == DType::kFloat64 ? 8 : 4));
    cells =
        spans + align16(policy.rows * job.pyramid.spans * static_cast<std::int64_t>(sizeof(Span)));
    empty = cells + (with_argmax ? align16(bins * 4) : 0);
    staged = empty + align16(policy.rows * job.pyramid.bins);
    bytes = staged;
    if (policy.staged)
      bytes += align16(policy.planes * job.input.cells() * size_of(job.input.dtype)) + 16;
  }
};

struct alignas(16) SixteenBytes {
  std::uint32_t words[4];
};

// Copies `count` elements, all threads of the block together, 16 bytes each where both sides are
// aligned. Returns where they begin: `to` plus the misalignment of `from`, so that both sides are
// aligned at the same elements.
template <class S>
__device__ __forceinline__ const S* stage(const S* from, std::int64_t count, unsigned char* to) {
  constexpr std::int64_t kVector = 16 / sizeof(S);
  const auto misaligned =
      static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(from) % 16 / sizeof(S));
  S* const staged = reinterpret_cast<S*>(to) + misaligned;
  std::int64_t head = misaligned == 0 ? 0 : kVector - misaligned;
  head = head < count ? head : count;
  const std::int64_t vectors = (count - head) / kVector;
  const std::int64_t tail = head + vectors * kVector;
  for (std::int64_t i = threadIdx.x; i < head; i += blockDim.x) staged[i] = from[i];
  const auto* vector_from = reinterpret_cast<const SixteenBytes*>(from + head);
  auto* vector_to = reinterpret_cast<SixteenBytes*>(staged + head);
  // Four loads before the first store: the compiler may not move a load past a store.
  std::int64_t v = threadIdx.x;
  for (; v + 3 * blockDim.x < vectors; v += 4 * blockDim.x) {
    const SixteenBytes a = vector_from[v];
    const SixteenBytes b = vector_from[v + blockDim.x];
    const SixteenBytes c = vector_from[v + 2 * blockDim.x];
    const SixteenBytes d = vector_from[v + 3 * blockDim.x];
    vector_to[v] = a;
    vector_to[v + blockDim.x] = b;
    vector_to[v + 2 * blockDim.x] = c;
    vector_to[v + 3 * blockDim.x] = d;
  }
  for (; v < vectors; v += blockDim.x) vector_to[v] = vector_from[v];
  for (std::int64_t i = tail + threadIdx.x; i < count; i += blockDim.x) staged[i] = from[i];
  return staged;
}

// What a block works on at a time: some planes of an image, and its rows from position `begin` to `end`
// in batches of policy.rows. Other segments' batches stand between this one's.
struct PlanesUnit {
  std::int64_t image;
  std::int64_t channel;  // the first plane
  std::int32_t planes;
  std::int64_t begin;
  std::int64_t end;

  __device__ __forceinline__ PlanesUnit(const PoolJob& job, const PlanesPolicy& policy,
                                        std::int64_t slabs, std::int64_t number) {
    const std::int64_t segment = number % policy.segments;
    channel = number / policy.segments % slabs * policy.planes;
    image = number / policy.segments / slabs;
    planes = static_cast<std::int32_t>(smaller_of(job.input.channels - channel, policy.planes));
    begin = job.rows.begin_of(image) + segment * policy.rows;
    end = job.rows.begin_of(image + 1);
  }
};

// The base bins of a batch of rows, policy.lanes threads each, from the planes at `source`. All
// threads of the block must call.
template <class S, bool with_argmax>
__device__ __forceinline__ void pool_base_bins(const FeatureMap& input, const PlanesPolicy& policy,
                                               const PyramidView& pyramid, const Span* spans,
                                               const S* source,
                                               BlockBins<ComputeType<S>, with_argmax>& block) {
  using T = ComputeType<S>;
  const auto num_spans = static_cast<std::int32_t>(pyramid.spans);
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  const auto threads = static_cast<std::int32_t>(blockDim.x);
  // Every lane of a warp takes part in a reduction: groups beyond the last bin repeat it and drop
  // the result.
  const std::int32_t items = block.columns * policy.base_bins;
  const std::int32_t lane = thread % policy.lanes;
  for (std::int32_t start = 0; start < items; start += threads / policy.lanes) {
    const std::int32_t wanted = start + thread / policy.lanes;
    const std::int32_t item = wanted < items ? wanted : items - 1;
    const std::int32_t column = item / policy.base_bins;
    const BaseBin base =
        nth_base_bin(pyramid, spans + column / block.planes * num_spans, item % policy.base_bins);
    Best<T> best = empty_bin<T>();
    if (!base.is_empty()) {
      best = reduce_cells<with_argmax>(source + column % block.planes * input.cells(), 1,
                                       static_cast<std::int32_t>(input.width), base.rows, base.cols,
                                       lane, policy.lanes);
    }
    best = reduce_lanes<with_argmax>(best, 1, policy.lanes);
    if (wanted < items && lane == 0) block.put(column, base.bin, best, base.is_empty());
  }
  __syncthreads();
}

template <class S, bool with_argmax, bool staged>
__global__ void __launch_bounds__(tuning::kPlaneThreads, tuning::kMinBlocks)
    pool_planes(const __grid_constant__ PoolJob job, const __grid_constant__ PlanesPolicy policy) {
  using T = ComputeType<S>;
  unsigned char* const shared = dynamic_shared();
  const PlanesShared parts(job, policy, with_argmax);
  auto* const row_numbers = reinterpret_cast<std::int64_t*>(shared + parts.row_numbers);
  Span* const spans = reinterpret_cast<Span*>(shared + parts.spans);

  const FeatureMap& input = job.input;
  const PyramidView pyramid = job.pyramid.view();
  const auto bins = static_cast<std::int32_t>(pyramid.bins);
  const std::int64_t slabs = divide_up(input.channels, policy.planes);
  for (std::int64_t i = blockIdx.x; i < input.batch * slabs * policy.segments; i += gridDim.x) {
    const PlanesUnit unit(job, policy, slabs, i);
    if (unit.begin >= unit.end) continue;  // alike for all threads of the block
    const S* source = static_cast<const S*>(input.data) +
                      (unit.image * input.channels + unit.channel) * input.cells();
    if constexpr (staged)
      source = stage(source, unit.planes * input.cells(), shared + parts.staged);
    for (std::int64_t first = unit.begin; first < unit.end;
         first += policy.segments * policy.rows) {
      const auto rows = static_cast<std::int32_t>(smaller_of(unit.end - first, policy.rows));
      find_spans(job, pyramid, first, rows, row_numbers, spans);
      BlockBins<T, with_argmax> block{reinterpret_cast<T*>(shared + parts.values),
                                      reinterpret_cast<std::int32_t*>(shared + parts.cells),
                                      shared + parts.empty,
                                      rows * unit.planes,
                                      unit.planes,
                                      bins,
                                      1,
                                      bins};
      pool_base_bins<S>(input, policy, pyramid, spans, source, block);
      block.merge_derived(pyramid);
      block.template write<S>(job, pyramid, row_numbers, unit.channel);
    }
  }
}

}  // namespace spp_ext::cuda
