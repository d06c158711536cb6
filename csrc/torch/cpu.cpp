// The ops on CPU tensors: the kernels of cpu/, run on torch's own threads.
#include "cpu/kernels.h"
#include "torch/namespace.h"
#include "torch/registration.h"
#include "torch/roi_fault.h"

namespace spp_ext::binding {
namespace {

// Waking threads costs more than this many elements of work.
constexpr std::int64_t kElementsPerThread = 16 * 1024;

void torch_parallel_tasks(std::int64_t tasks, void (*body)(std::int64_t, void*), void* context) {
  torch::stable::parallel_for(0, tasks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) body(task, context);
  });
}

cpu::Executor executor_for(std::int64_t elements) {
  const std::int64_t worth = elements / kElementsPerThread;
  if (worth < 2) return {};
  const std::int64_t threads = torch::stable::get_num_threads();
  return {threads < worth ? threads : worth, torch_parallel_tasks};
}

std::int64_t elements_of(const FeatureMap& map) { return map.batch * map.channels * map.cells(); }

void check_argmax(const char* op, std::int64_t bad_element, const LinearParams& linear,
                  std::int64_t channels, std::int64_t cells) {
  if (bad_element < 0) return;
  const std::int64_t columns = channels * linear.bins;
  fail<std::out_of_range>(op, "expected argmax from -1 to " + std::to_string(cells - 1) + ", got " +
                                  std::to_string(linear.argmax[bad_element]) + " at [" +
                                  std::to_string(bad_element / columns) + ", " +
                                  std::to_string(bad_element % columns) + "]");
}

struct Cpu {
  // Always checked here, whatever `validate` says: it costs nothing on the CPU.
  static void check_regions(const char* op, const HeldRegions& held, std::int64_t batch,
                            bool /*validate*/) {
    raise_roi_fault(op, held.regions, batch);
  }

  static void pool_map(const char* /*op*/, const MapPoolParams& params, const Tensor& /*like*/) {
    cpu::pool_map(params, executor_for(elements_of(params.input)));
  }

  static void pool_regions(const char* /*op*/, const RegionPoolParams& params,
                           const Tensor& /*like*/) {
    cpu::pool_regions(
        params, executor_for(elements_of(params.input) +
                             params.regions.count * params.input.channels * params.pyramid.bins));
  }

  static void pool_stride1(const char* /*op*/, const Stride1Params& params,
                                const Tensor& /*like*/) {
    cpu::pool_stride1(params,
                           executor_for(elements_of(params.input) * (params.num_kernels + 1)));
  }

  static void gather(const char* op, const GatherParams& params, const Tensor& /*like*/) {
    const LinearParams& linear = params.linear;
    if (linear.regions != nullptr) raise_roi_fault(op, *linear.regions, params.source.batch);
    const std::int64_t bad =
        cpu::gather(params, executor_for(linear.rows * params.source.channels * linear.bins));
    check_argmax(op, bad, linear, params.source.channels, params.source.cells());
  }

  static void scatter(const char* op, const ScatterParams& params, const Tensor& /*like*/) {
    const LinearParams& linear = params.linear;
    const FeatureMap& map = params.grad_input;
    if (linear.regions != nullptr) raise_roi_fault(op, *linear.regions, map.batch);
    const std::int64_t bad = cpu::scatter(
        params, executor_for(elements_of(map) + linear.rows * map.channels * linear.bins));
    check_argmax(op, bad, linear, map.channels, map.cells());
  }
};

std::string cpu_instruction_set() { return cpu::instruction_set(); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(SPP_OP_NAMESPACE, CPU, library) { Ops<Cpu>::register_with(library); }

STABLE_TORCH_LIBRARY_IMPL(SPP_OP_NAMESPACE, CompositeExplicitAutograd, library) {
  library.impl("cpu_instruction_set", TORCH_BOX(&cpu_instruction_set));
}

}  // namespace spp_ext::binding
