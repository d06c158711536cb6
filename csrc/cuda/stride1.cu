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
  std::int64_t warps, blocks;  // 0: kernels reach too far for strips
  std::int64_t shared_bytes;
};

// The farthest look-up of all widenings. A stage of a cascade with argmax begins anew.
std::int32_t reach_of(const Stride1Job& job, std::int32_t largest) {
  std::int32_t reach = 0, reached = 1;
  for (std::int32_t k = 0; k < job.num_kernels; ++k) {
    const bool stage = job.argmax != nullptr && job.cascade && k > 0;
    const std::int32_t kernel = job.kernel_sizes[k];
    const std::int32_t wanted = std::min(stage ? kernel - reached + 1 : kernel, largest);
    for (std::int32_t size = stage ? 1 : reached; size < wanted;
         size += 2 * widening(size, wanted)) {
      reach = std::max(reach, widening(size, wanted));
    }
    reached = kernel;
  }
  return reach;
}

// Planes stand in a strip whole where they are narrow and low enough, else in tiles. `Pool` is a StripPool.
template <class Pool>
Stride1Launch plan_stride1(const Stride1Job& job, const Stream& stream) {
  constexpr Stride1Launch kImpossible{};
  constexpr std::int64_t kCell = sizeof(typename Pool::Cell);
  const FeatureMap& input = job.input;
  const bool contiguous = input.layout == Layout::kContiguous;
  const std::int64_t larger_side = std::max(input.height, input.width);
  if (larger_side > kInt32Max / 4) return kImpossible;
  Stride1Policy policy{};
  policy.largest = static_cast<std::int32_t>(2 * larger_side - 1);
  policy.reach = reach_of(job, policy.largest);
  const std::int64_t kernel = job.num_kernels == 0 ? 1 : job.kernel_sizes[job.num_kernels - 1];
  const std::int64_t halo = std::min((kernel - 1) / 2, larger_side);
  policy.halo_rows = static_cast<std::int32_t>(halo);

  // The first and the last tile of a row have one side of a halo each, and so much more of their own.
  std::int64_t cols = input.width, halo_cols = 0;
  policy.segment_log2 = 5;
  policy.across = 1;
  if (cols <= kLanes) {
    while (policy.segment_log2 > 3 && cols <= 1 << (policy.segment_log2 - 1)) --policy.segment_log2;
  } else {
    halo_cols = halo <= 12 ? divide_up(halo, 4) * 4 : halo;  // for groups
    cols = kLanes - 2 * halo_cols;
    if (cols < 1) return kImpossible;
    policy.across = static_cast<std::int32_t>(divide_up(input.width - 2 * halo_cols, cols));
  }
  policy.cols = static_cast<std::int32_t>(cols);
  policy.halo_cols = static_cast<std::int32_t>(halo_cols);

  // As many rows as a strip of so many bytes has besides a halo.
  const auto rows_in = [&](std::int64_t bytes) {
    const std::int64_t lines = (bytes - kBankShift) / (kLanes * kCell) - 3 * policy.reach;
    return lines >= input.height ? input.height : lines - 2 * halo;
  };
  const std::int64_t segments = kLanes >> policy.segment_log2;
  const std::int64_t plane_warps = divide_up(divide_up(input.channels, Pool::kPlanes), segments);
  const std::int64_t columns = input.batch * plane_warps * policy.across;
  const std::int64_t parts = divide_up(stream.sms * tuning::kStride1WarpsPerSm, columns);
  std::int64_t rows = std::min(rows_in(tuning::kStride1StripBytes), divide_up(input.height, parts));
  rows = std::max({rows, 4 * halo, tuning::kStride1Rows});
  rows = std::min({rows, rows_in(tuning::kSharedBytes), input.height});
  if (rows < 1) return kImpossible;
  policy.down = static_cast<std::int32_t>(divide_up(input.height, rows));
  policy.rows = static_cast<std::int32_t>(divide_up(input.height, policy.down));
  const std::int64_t lines =
      std::min(policy.rows + 2 * halo, input.height) + std::int64_t{3} * policy.reach;
  const std::int64_t strip_bytes = lines * kLanes * kCell + kBankShift;
  policy.strip_cells = static_cast<std::int32_t>(strip_bytes / kCell);

  // channels_last needs neighbouring planes in a block for full memory sectors.
  const std::int64_t block_bytes =
      contiguous ? tuning::kSharedBytes : std::min(stream.shared_bytes, tuning::kStride1BlockBytes);
  std::int64_t warps = tuning::kStride1Warps;
  while (warps > 1 && warps * strip_bytes > block_bytes) warps /= 2;
  const auto blocks = [&] {
    return columns / plane_warps * divide_up(plane_warps, warps) * policy.down;
  };
  while (warps > (contiguous ? 1 : tuning::kStride1Warps / 2) && blocks() < stream.sms) warps /= 2;
  policy.slabs = static_cast<std::int32_t>(divide_up(plane_warps, warps));
  while (1 << policy.planes_log2 < warps * segments) ++policy.planes_log2;

  const auto share = [&](std::int64_t width, const void* data, const void* more) {
    constexpr std::int32_t kCount = kGroup<typename Pool::Storage>,
                           kCountLog2 = kCount == 4 ? 2 : 1;
    const auto aligned = [](const void* pointer) {
      return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
    };
    const bool grouped =
        aligned(data) && aligned(more) &&
        (contiguous
             ? input.width % kCount == 0 && cols % kCount == 0 && halo_cols % kCount == 0
             : input.channels % (kCount * Pool::kPlanes) == 0 && policy.planes_log2 >= kCountLog2);
    Stride1Share result{};
    result.count_log2 = grouped ? kCountLog2 : 0;
    const std::int64_t sharing = contiguous
                                     ? 1 << policy.segment_log2
                                     : warps * kLanes >> (policy.planes_log2 - result.count_log2);
    result.width = static_cast<std::int32_t>(contiguous ? width >> result.count_log2 : width);
    result.reciprocal = (1 << 16) / result.width + 1;
    result.rows_at_once = static_cast<std::int32_t>(sharing / result.width);
    return result;
  };
  const std::int64_t tile_cols = cols + halo_cols;  // at most
  policy.loading = share(std::min(tile_cols + halo_cols, input.width), input.data, nullptr);
  policy.writing = share(std::min(tile_cols, input.width), job.output, job.argmax);
  if (blocks() > kInt32Max) return kImpossible;
  return {policy, warps, blocks(), warps * strip_bytes};
}

// False if kernels reach too far for strips.
bool launch_strips(const Stride1Job& job, const Stream& stream) {
  bool launched = true;
  dispatch_job(job, [&](auto storage, auto with_argmax) {
    const auto plan = plan_stride1<StripPool<decltype(storage), with_argmax>>(job, stream);
    launched = plan.blocks > 0;
    if (!launched) return;
    launch(pool_stride1<decltype(storage), with_argmax>, plan.blocks, plan.warps * kLanes,
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
