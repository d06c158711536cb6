// Launches the stride-1 pools.
#include <algorithm>
#include <cstdint>
#include <utility>

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/stride1.cuh"
#include "cuda/tuning.h"

namespace spp_ext::cuda {
namespace {

struct Stride1Launch {
  Stride1Policy policy;
  std::int64_t blocks;
  std::int64_t shared_bytes;
};

// Whole maps where they fit, else tiles; then as many planes as there is room for, which
// channels_last needs for full memory sectors.
Stride1Launch plan_stride1(const Stride1Job& job) {
  const FeatureMap& input = job.input;
  const std::int64_t largest = job.num_kernels == 0 ? 1 : job.kernel_sizes[job.num_kernels - 1];
  const std::int64_t map = std::max(input.height, input.width);
  Stride1Policy policy{};
  policy.channels = 1;
  policy.halo = static_cast<std::int32_t>(std::min((largest - 1) / 2, map));
  const auto shared = [&] {
    return Stride1Shared(policy, input.dtype == DType::kFloat64 ? 8 : 4, job.argmax != nullptr,
                         job.cascade != 0)
        .bytes;
  };
  const auto fits = [&] { return shared() <= tuning::kSharedBytes; };

  policy.rows = static_cast<std::int32_t>(input.height);
  policy.cols = static_cast<std::int32_t>(input.width);
  const std::int32_t halo = std::exchange(policy.halo, 0);  // a whole map has none
  if (!fits()) {
    policy.halo = halo;
    policy.rows = policy.cols = tuning::kStride1Tile;
    while (policy.rows > 8 && !fits()) policy.rows = policy.cols = policy.rows / 2;
  }
  while (policy.channels < std::min(tuning::kStride1Planes, input.channels)) {
    policy.channels *= 2;
    if (!fits()) {
      policy.channels /= 2;
      break;
    }
  }
  return {policy,
          input.batch * divide_up(input.channels, policy.channels) *
              divide_up(input.height, policy.rows) * divide_up(input.width, policy.cols),
          shared()};
}

// False if no tile with its halo fits in shared memory.
bool launch_tiles(const Stride1Job& job, const Stream& stream) {
  const Stride1Launch plan = plan_stride1(job);
  if (plan.shared_bytes > tuning::kSharedBytes) return false;
  dispatch_job(job, [&](auto storage, auto with_argmax) {
    launch(pool_stride1<decltype(storage), with_argmax>, plan.blocks, tuning::kPlaneThreads,
           plan.shared_bytes, stream, job, plan.policy);
  });
  return true;
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
  if (!launch_tiles(job, stream)) launch_cells(job, stream);
}

}  // namespace spp_ext::cuda
