// The ops on CUDA tensors: the kernels of cuda/, on torch's current stream. Needs no CUDA header.
#include "cuda/kernels.h"
#include "torch/current_stream.h"
#include "torch/namespace.h"
#include "torch/registration.h"

namespace spp_ext::binding {
namespace {

using torch::stable::Device;

// `size` int32 numbers of scratch, or none. torch's allocator keeps them until the stream is done.
class RegionScratch {
 public:
  RegionScratch(const char* op, std::int64_t size, const Tensor& like) {
    if (size == 0) return;
    memory_ = empty_matrix(op, 1, size, aoti_torch_dtype_int32(), like);
  }
  std::int32_t* data() const {
    return memory_ ? static_cast<std::int32_t*>(memory_->mutable_data_ptr()) : nullptr;
  }

 private:
  std::optional<Tensor> memory_;
};

// `linear` with its levels where the kernels look for them. Only levels that do not fit in a launch are
// copied to the device: the copy waits for it, and cannot be captured in a graph.
class DeviceLinear {
 public:
  DeviceLinear(const char* op, const LinearParams& linear, const Tensor& like) : params_(linear) {
    if (linear.order.num_levels <= cuda::kMaxLinearLevels) return;
    static_assert(sizeof(RowLevel) == 2 * sizeof(std::int32_t), "a level is two int32");
    const Tensor levels = torch::stable::from_blob(
        const_cast<RowLevel*>(linear.levels), {linear.order.num_levels, 2}, {2, 1},
        Device(torch::headeronly::DeviceType::CPU), ScalarType::Int);
    levels_ = copied(op, [&] { return torch::stable::to(levels, like.device()); });
    params_.levels = static_cast<const RowLevel*>(levels_->const_data_ptr());
  }
  const LinearParams& params() const { return params_; }

 private:
  LinearParams params_;
  std::optional<Tensor> levels_;
};

std::int64_t linear_scratch(const LinearParams& linear) {
  return linear.regions == nullptr ? 0 : cuda::linear_scratch(linear.regions->count);
}

struct Cuda {
  // Looking at the contents waits for the device, so only on request; the kernels turn bad rows
  // into NaN.
  static void check_regions(const char* op, const HeldRegions& held, std::int64_t batch,
                            bool validate) {
    if (!validate) return;
    const auto on_host = [&](const Tensor& tensor) {
      const Device cpu(torch::headeronly::DeviceType::CPU);
      return copied(op, [&] { return torch::stable::to(tensor, cpu); });
    };
    const Tensor rois = on_host(held.rois);
    Regions regions = held.regions;
    regions.rois = rois.const_data_ptr();
    std::optional<Tensor> map_indices;
    if (held.map_indices) {
      map_indices = on_host(*held.map_indices);
      regions.map_indices = static_cast<const std::int64_t*>(map_indices->const_data_ptr());
    }
    check_contents(op, regions, batch);
  }

  static void pool_map(const char* /*op*/, const MapPoolParams& params, const Tensor& like) {
    cuda::pool_map(params, CurrentStream(like).stream);
  }

  static void pool_regions(const char* op, const RegionPoolParams& params, const Tensor& like) {
    const CurrentStream current(like);
    const std::int64_t bytes = cuda::pool_regions_scratch(params, current.stream);
    const RegionScratch scratch(op, divide_up(bytes, 4), like);
    cuda::pool_regions(params, scratch.data(), current.stream);
  }

  static void pool_stride1(const char* op, const Stride1Params& params, const Tensor& like) {
    if (params.num_kernels > cuda::kMaxKernelSizes) {
      fail(op, "expected at most " + std::to_string(cuda::kMaxKernelSizes) +
                   " kernel_sizes on CUDA, got " + std::to_string(params.num_kernels));
    }
    cuda::pool_stride1(params, CurrentStream(like).stream);
  }

  static void gather(const char* op, const GatherParams& params, const Tensor& like) {
    const CurrentStream current(like);
    const RegionScratch scratch(op, linear_scratch(params.linear), like);
    const DeviceLinear linear(op, params.linear, like);
    cuda::gather({linear.params(), params.sources, params.output}, scratch.data(), current.stream);
  }

  static void scatter(const char* op, const ScatterParams& params, const Tensor& like) {
    const CurrentStream current(like);
    const RegionScratch scratch(op, linear_scratch(params.linear), like);
    const DeviceLinear linear(op, params.linear, like);
    cuda::scatter({linear.params(), params.grad_output, params.grad_inputs, params.data},
                  scratch.data(), current.stream);
  }
};

std::string cuda_driver_fault() { return cuda::driver_fault(); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(SPP_OP_NAMESPACE, SPP_CUDA_DISPATCH_KEY, library) {
  register_ops<Cuda>(library);
}

STABLE_TORCH_LIBRARY_IMPL(SPP_OP_NAMESPACE, CompositeExplicitAutograd, library) {
  library.impl("cuda_driver_fault", TORCH_BOX(&cuda_driver_fault));
}

}  // namespace spp_ext::binding
