// The ops on CUDA tensors: the kernels of cuda/, on torch's current stream. Needs no CUDA header.
#include "cuda/kernels.h"
#include "torch/current_stream.h"
#include "torch/namespace.h"
#include "torch/registration.h"
#include "torch/roi_fault.h"

namespace spp_ext::binding {
namespace {

// Scratch comes from torch's allocator, which keeps it until the stream is done with it.
Tensor region_scratch(const char* op, std::int64_t batch, std::int64_t regions,
                      const Tensor& like) {
  return empty_matrix(op, 1, cuda::region_scratch(batch, regions), aoti_torch_dtype_int32(), like);
}

struct Cuda {
  // Looking at the contents waits for the device, so only on request; the kernels turn bad rows
  // into NaN.
  static void check_regions(const char* op, const HeldRegions& held, std::int64_t batch,
                            bool validate) {
    if (!validate) return;
    const torch::stable::Device cpu(torch::headeronly::DeviceType::CPU);
    const Tensor rois = torch::stable::to(held.tensor, cpu);
    Regions regions = held.regions;
    regions.rois = rois.const_data_ptr();
    std::optional<Tensor> map_indices;
    if (held.map_indices) {
      map_indices = torch::stable::to(*held.map_indices, cpu);
      regions.map_indices = static_cast<const std::int64_t*>(map_indices->const_data_ptr());
    }
    raise_roi_fault(op, regions, batch);
  }

  static void pool_map(const char* /*op*/, const MapPoolParams& params, const Tensor& like) {
    cuda::pool_map(params, CurrentStream(like).stream);
  }

  static void pool_regions(const char* op, const RegionPoolParams& params, const Tensor& like) {
    const CurrentStream current(like);
    const Tensor scratch = region_scratch(op, params.input.batch, params.regions.count, like);
    cuda::pool_regions(params, static_cast<std::int32_t*>(scratch.mutable_data_ptr()),
                       current.stream);
  }

  static void pool_stride1(const char* /*op*/, const Stride1Params& params,
                                const Tensor& like) {
    cuda::pool_stride1(params, CurrentStream(like).stream);
  }

  static void gather(const char* /*op*/, const GatherParams& params, const Tensor& like) {
    cuda::gather(params, CurrentStream(like).stream);
  }

  static void scatter(const char* op, const ScatterParams& params, const Tensor& like) {
    const CurrentStream current(like);
    if (params.linear.regions == nullptr) return cuda::scatter(params, nullptr, current.stream);
    const Tensor scratch = region_scratch(op, params.grad_input.batch, params.linear.rows, like);
    cuda::scatter(params, static_cast<std::int32_t*>(scratch.mutable_data_ptr()), current.stream);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(SPP_OP_NAMESPACE, SPP_CUDA_DISPATCH_KEY, library) {
  Ops<Cuda>::register_with(library);
}

}  // namespace spp_ext::binding
