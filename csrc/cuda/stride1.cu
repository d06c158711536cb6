// Launches the stride-1 pools.
#include <algorithm>
#include <cstdint>

#include "core/integers.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/stride1.cuh"
#include "cuda/tuning.h"

namespace spp_ext::cuda {
namespace {

struct Stride1Launch {
  Stride1Policy policy;
  std::int64_t blocks;  // 0: kernels reach too far for strips
  std::int64_t shared_bytes;
};

// Planes stand in a strip whole where they are narrow and low enough, else in tiles.
template <class Cell, int planes_of_strip>
Stride1Launch plan_stride1(const Stride1Job& job, const Stream& stream) {
  const FeatureMap& input = job.input;
  const bool contiguous = input.layout == Layout::kContiguous;
  const std::int64_t larger_side = std::max(input.height, input.width);
  Stride1Policy policy{};
  policy.largest = static_cast<std::int32_t>(std::min(2 * larger_side - 1, kInt32Max));
  std::int64_t halo = 0;
  std::int32_t reached = 1;
  for (std::int32_t k = 0; k < job.num_kernels; ++k) {
    const std::int32_t kernel = job.kernel_sizes[k];
    const bool stage = job.argmax != nullptr && job.cascade && k > 0;
    std::int32_t size = stage ? 1 : reached;
    const std::int32_t wanted = std::min(stage ? kernel - reached + 1 : kernel, policy.largest);
    while (size < wanted) {
      policy.reach = std::max(policy.reach, widening(size, wanted));
      size += 2 * widening(size, wanted);
    }
    reached = kernel;
    halo = (kernel - 1) / 2;
  }

  std::int64_t cols = input.width, rows = input.height;
  policy.segment_log2 = 5;
  if (cols <= kLanes) {
    while (policy.segment_log2 > 3 && cols <= 1 << (policy.segment_log2 - 1)) --policy.segment_log2;
  } else {
    // Two tiles have one side of a halo each.
    const std::int64_t half = divide_up(cols, 16) * 8;
    cols = half + halo <= kLanes ? half : kLanes - 2 * halo;
    if (cols < 1) return {policy, 0, 0};
  }
  policy.cols = static_cast<std::int32_t>(cols);
  policy.across = static_cast<std::int32_t>(divide_up(input.width, cols));

  std::int64_t down = 1;
  const auto plan_rows = [&] {
    rows = divide_up(input.height, down);
    policy.slots =
        static_cast<std::int32_t>(std::min(rows + 2 * halo, input.height)) + 3 * policy.reach;
    return std::int64_t{policy.slots} * kLanes * static_cast<std::int64_t>(sizeof(Cell)) + 16;
  };
  const std::int64_t strips = input.batch * divide_up(divide_up(input.channels, planes_of_strip),
                                                      kLanes >> policy.segment_log2);
  const auto should_split = [&](std::int64_t bytes) {
    return rows > std::max<std::int64_t>(4 * halo, 8) &&
           (bytes > tuning::kStride1StripBytes ||
            strips * policy.across * down < stream.sms * tuning::kStride1WarpsPerSm);
  };
  while (should_split(plan_rows())) ++down;
  // Nothing else is possible than shorter tiles if not even one strip fits.
  while (rows > 1 && (plan_rows() > tuning::kSharedBytes || policy.slots * kLanes > kMaxSlots))
    ++down;
  policy.rows = static_cast<std::int32_t>(rows);
  policy.down = static_cast<std::int32_t>(divide_up(input.height, rows));
  policy.halo = static_cast<std::int32_t>(std::min(halo, larger_side));
  const std::int64_t strip_bytes = plan_rows();
  if (strip_bytes > tuning::kSharedBytes || policy.slots * kLanes > kMaxSlots)
    return {policy, 0, 0};

  // channels_last needs neighbouring planes in a block for full memory sectors.
  const std::int64_t most_bytes =
      contiguous ? tuning::kSharedBytes : std::min(stream.shared_bytes, tuning::kStride1BlockBytes);
  const auto blocks = [&] {
    const std::int64_t planes =
        std::int64_t{policy.warps} * (kLanes >> policy.segment_log2) * planes_of_strip;
    policy.slabs = static_cast<std::int32_t>(divide_up(input.channels, planes));
    return input.batch * policy.slabs * policy.down * policy.across;
  };
  policy.warps = tuning::kStride1Warps;
  while (policy.warps > 1 && policy.warps * strip_bytes > most_bytes) policy.warps /= 2;
  const std::int32_t fewest = contiguous ? 1 : tuning::kStride1Warps / 2;
  while (policy.warps > fewest && blocks() < stream.sms) policy.warps /= 2;
  const std::int64_t number = blocks();
  return {policy, number <= kInt32Max ? number : 0, policy.warps * strip_bytes};
}

// False if kernels reach too far for strips.
bool launch_strips(const Stride1Job& job, const Stream& stream) {
  bool launched = true;
  dispatch_job(job, [&](auto storage, auto with_argmax) {
    using Pool = StripPool<decltype(storage), with_argmax>;
    const auto plan = plan_stride1<typename Pool::Cell, Pool::kPlanes>(job, stream);
    launched = plan.blocks > 0;
    if (!launched) return;
    launch(pool_stride1<decltype(storage), with_argmax>, plan.blocks, plan.policy.warps * kLanes,
           plan.shared_bytes, stream, job, plan.policy);
  });
  return launched;
}

void launch_cells(const Stride1Job& job, const Stream& stream) {
  const std::int64_t blocks = divide_up(job.input.elements(), tuning::kElementThreads);
  dispatch_job(job, [&](auto storage, auto with_argmax) {
    for (std::int32_t block = 0; block <= job.num_kernels; ++block) {
      launch(pool_stride1_cells<decltype(storage), with_argmax>, blocks, tuning::kElementThreads, 0,
             stream, job, block);
    }
  });
}

}  // namespace

void pool_stride1(const Stride1Params& params, const Stream& stream) {
  Stride1Job job{};
  job.input = params.input;
  std::copy_n(params.kernel_sizes, params.num_kernels, job.kernel_sizes);
  job.num_kernels = params.num_kernels;
  job.cascade = params.cascade;
  job.output = params.output;
  job.argmax = params.argmax;
  if (job.input.elements() == 0) return;
  if (!launch_strips(job, stream)) launch_cells(job, stream);
}

}  // namespace spp_ext::cuda
