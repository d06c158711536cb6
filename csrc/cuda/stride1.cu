// Launches the stride-1 pools.
#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "core/dispatch.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/stride1.cuh"
#include "cuda/tuning.h"

namespace spp_ext::cuda {
namespace {

std::int64_t shared_bytes(const Stride1Job& job, const Stride1Policy& policy) {
  return Stride1Shared(policy, job.input.dtype == DType::kFloat64 ? 8 : 4,
                           job.argmax != nullptr, job.cascade != 0)
      .bytes;
}

// Whole maps where they fit, else tiles; then as many planes as there is room for, which
// channels_last needs for full memory sectors.
Stride1Policy plan(const Stride1Job& job) {
  const FeatureMap& input = job.input;
  const std::int64_t largest = job.num_kernels == 0 ? 1 : job.kernel_sizes[job.num_kernels - 1];
  const std::int64_t map = std::max(input.height, input.width);
  Stride1Policy policy{};
  policy.channels = 1;
  policy.halo = static_cast<std::int32_t>(std::min((largest - 1) / 2, map));
  const auto fits = [&] { return shared_bytes(job, policy) <= tuning::kSharedBytes; };

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
  return policy;
}

}  // namespace

void pool_stride1(const Stride1Params& params, const Stream& stream) {
  if (params.num_kernels > kMaxKernelSizes) {
    throw std::invalid_argument("spp_ext.multi_kernel_max_pool2d: expected at most " +
                                std::to_string(kMaxKernelSizes) + " kernel sizes on CUDA, got " +
                                std::to_string(params.num_kernels));
  }
  Stride1Job job{};
  job.input = params.input;
  std::copy_n(params.kernel_sizes, params.num_kernels, job.kernel_sizes);
  job.num_kernels = params.num_kernels;
  job.cascade = params.cascade;
  job.output = params.output;
  job.argmax = params.argmax;

  const FeatureMap& input = job.input;
  const Stride1Policy policy = plan(job);
  const std::int64_t shared = shared_bytes(job, policy);
  // Tiles are counted in 32 bits.
  const bool tiled =
      shared <= tuning::kSharedBytes && std::max(input.height, input.width) < (1 << 30);
  if (!tiled) {
    const std::int64_t elements = input.batch * input.channels * input.cells();
    dispatch_job(job, [&](auto storage, auto with_argmax) {
      for (std::int32_t block = 0; block <= job.num_kernels; ++block) {
        launch(pool_one_kernel<decltype(storage), with_argmax>,
               divide_up(elements, tuning::kElementThreads), tuning::kElementThreads, 0, stream,
               job, block);
      }
    });
    return;
  }
  const std::int64_t blocks = input.batch * divide_up(input.channels, policy.channels) *
                              divide_up(input.height, policy.rows) *
                              divide_up(input.width, policy.cols);
  dispatch_job(job, [&](auto storage, auto with_argmax) {
    launch(pool_stride1<decltype(storage), with_argmax>, blocks, tuning::kPlaneThreads, shared,
           stream, job, policy);
  });
}

}  // namespace spp_ext::cuda
