// Pooling of channels_last maps. A block owns one output row (an image or a region) and some
// neighbouring channels. A warp takes a base bin; its lanes are `channels` neighbouring channels,
// which a cell holds side by side, times as many cells of the bin as fit: 32 channels and one cell,
// or 8 channels and four cells where that gives more blocks.
//
//   lane   0 1 2 ... 7   8 9 ... 15   16 ... 23   24 ... 31        (channels = 8)
//          cell 0        cell 1       cell 2      cell 3           then cells 4 to 7, ...
#pragma once

#include <cstdint>

#include "cuda/block_bins.cuh"
#include "cuda/device.h"
#include "cuda/job.h"
#include "cuda/reduce.cuh"
#include "cuda/tuning.h"

namespace spp_ext::cuda {

struct ChannelsPolicy {
  std::int32_t channels;   // in a block: 8, 16 or 32
  std::int32_t base_bins;  // bins of base levels
};

// The parts of a block's shared memory, in bytes from its start.
struct ChannelsShared {
  std::int64_t row_number;  // int64 [1], output row
  std::int64_t values;      // T [bins][stride]
  std::int64_t spans;       // Span [spans]
  std::int64_t cells;       // int32 [bins][stride], with argmax
  std::int64_t empty;       // uint8 [bins]
  std::int64_t bytes;
  std::int32_t stride;  // channels + 1, so that the bins of a channel lie in different banks

  SPP_HOST_DEVICE ChannelsShared(const PoolJob& job, const ChannelsPolicy& policy,
                                 bool with_argmax) {
    stride = policy.channels + 1;
    const std::int64_t bins = stride * job.pyramid.bins;
    row_number = 0;
    values = row_number + 16;
    spans = values + align16(bins * (job.input.dtype == DType::kFloat64 ? 8 : 4));
    cells = spans + align16(job.pyramid.spans * static_cast<std::int64_t>(sizeof(Span)));
    empty = cells + (with_argmax ? align16(bins * 4) : 0);
    bytes = empty + align16(job.pyramid.bins);
  }
};

// The base bins of a row, a warp each. All threads of the block must call.
template <class S, bool with_argmax>
__device__ __forceinline__ void pool_base_bins(const FeatureMap& input,
                                               const ChannelsPolicy& policy,
                                               const PyramidView& pyramid, const Span* spans,
                                               const S* source,
                                               BlockBins<ComputeType<S>, with_argmax>& block) {
  using T = ComputeType<S>;
  // Lanes without a channel repeat the last one, so that the whole warp reduces together.
  const auto lane = static_cast<std::int32_t>(threadIdx.x % 32);
  const std::int32_t own = lane % policy.channels;
  const S* const plane = source + (own < block.planes ? own : block.planes - 1);
  for (std::int32_t k = threadIdx.x / 32; k < policy.base_bins; k += blockDim.x / 32) {
    const BaseBin base = nth_base_bin(pyramid, spans, k);
    Best<T> best = empty_bin<T>();
    if (!base.is_empty()) {
      best = reduce_cells<with_argmax>(plane, input.channels,
                                       static_cast<std::int32_t>(input.width), base.rows, base.cols,
                                       lane / policy.channels, 32 / policy.channels);
    }
    best = reduce_lanes<with_argmax>(best, policy.channels, 32);
    if (lane < block.planes) block.put(lane, base.bin, best, base.is_empty());
  }
  __syncthreads();
}

template <class S, bool with_argmax>
__global__ void __launch_bounds__(tuning::kChannelWarps * 32, tuning::kMinBlocks)
    pool_channels(const __grid_constant__ PoolJob job,
                  const __grid_constant__ ChannelsPolicy policy) {
  using T = ComputeType<S>;
  unsigned char* const shared = dynamic_shared();
  const ChannelsShared parts(job, policy, with_argmax);
  auto* const row_number = reinterpret_cast<std::int64_t*>(shared + parts.row_number);
  Span* const spans = reinterpret_cast<Span*>(shared + parts.spans);

  const FeatureMap& input = job.input;
  const PyramidView pyramid = job.pyramid.view();
  const std::int64_t chunks = divide_up(input.channels, policy.channels);
  const std::int64_t begin = job.rows.begin_of(0);
  const std::int64_t rows = job.rows.begin_of(input.batch) - begin;
  for (std::int64_t unit = blockIdx.x; unit < rows * chunks; unit += gridDim.x) {
    const std::int64_t position = begin + unit / chunks;
    const std::int64_t channel = unit % chunks * policy.channels;
    const auto used =
        static_cast<std::int32_t>(smaller_of(input.channels - channel, policy.channels));
    const std::int64_t image = job.rows.image_of(job.rows.row_at(position));
    find_spans(job, pyramid, position, 1, row_number, spans);
    BlockBins<T, with_argmax> block{reinterpret_cast<T*>(shared + parts.values),
                                    reinterpret_cast<std::int32_t*>(shared + parts.cells),
                                    shared + parts.empty,
                                    used,
                                    used,
                                    1,
                                    parts.stride,
                                    static_cast<std::int32_t>(pyramid.bins)};
    const S* const source =
        static_cast<const S*>(input.data) + image * input.cells() * input.channels + channel;
    pool_base_bins<S>(input, policy, pyramid, spans, source, block);
    block.merge_derived(pyramid);
    block.template write<S>(job, pyramid, row_number, channel);
  }
}

}  // namespace spp_ext::cuda
