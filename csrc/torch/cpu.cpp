// The ops on CPU tensors: the kernels of cpu/, run on torch's own threads.
#include "core/regions.h"
#include "cpu/kernels.h"
#include "cpu/tuning.h"
#include "torch/namespace.h"
#include "torch/registration.h"

namespace spp_ext::binding {
namespace {

void torch_parallel_tasks(std::int64_t tasks, void (*body)(std::int64_t, void*), void* context) {
  torch::stable::parallel_for(0, tasks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) body(task, context);
  });
}

cpu::Executor executor_for(std::int64_t elements) {
  const std::int64_t worth = elements / cpu::tuning::kElementsPerThread;
  if (worth < 2) return {};
  const std::int64_t threads = torch::stable::get_num_threads();
  return {threads < worth ? threads : worth, torch_parallel_tasks};
}

std::int64_t elements_of(const FeatureMap* maps, std::int64_t num_maps) {
  std::int64_t elements = 0;
  for (std::int64_t m = 0; m < num_maps; ++m) elements += maps[m].elements();
  return elements;
}

// `bad_element` is the first whose argmax names no cell of its plane, or -1.
void check_argmax(const char* op, std::int64_t bad_element, const LinearParams& linear,
                  const FeatureMap* maps) {
  if (bad_element < 0) return;
  const std::int64_t columns = linear.order.size();
  const std::int64_t row = bad_element / columns;
  const FeatureMap& map = maps[linear.regions == nullptr ? 0 : map_of(*linear.regions, row)];
  fail<std::out_of_range>(op, "expected argmax from -1 to " + std::to_string(map.cells() - 1) +
                                  ", got " + std::to_string(linear.argmax[bad_element]) + " at [" +
                                  std::to_string(row) + ", " +
                                  std::to_string(bad_element % columns) + "]");
}

struct Cpu {
  // Always checked here, whatever `validate` says: it costs nothing on the CPU.
  static void check_regions(const char* op, const HeldRegions& held, std::int64_t batch,
                            bool /*validate*/) {
    check_contents(op, held.regions, batch);
  }

  static void pool_map(const char* /*op*/, const MapPoolParams& params, const Tensor& /*like*/) {
    cpu::pool_map(params, executor_for(params.input.elements()));
  }

  static void pool_regions(const char* /*op*/, const RegionPoolParams& params,
                           const Tensor& /*like*/) {
    const Regions& regions = params.regions;
    cpu::pool_regions(params,
                      executor_for(elements_of(params.maps, regions.num_maps) +
                                   regions.count * params.maps[0].channels * params.pyramid.bins));
  }

  static void pool_stride1(const char* /*op*/, const Stride1Params& params,
                           const Tensor& /*like*/) {
    cpu::pool_stride1(params, executor_for(params.input.elements() * (params.num_kernels + 1)));
  }

  static void gather(const char* op, const GatherParams& params, const Tensor& /*like*/) {
    const LinearParams& linear = params.linear;
    if (linear.regions != nullptr) check_contents(op, *linear.regions, params.sources[0].batch);
    const std::int64_t bad = cpu::gather(params, executor_for(linear.rows * linear.order.size()));
    check_argmax(op, bad, linear, params.sources);
  }

  static void scatter(const char* op, const ScatterParams& params, const Tensor& /*like*/) {
    const LinearParams& linear = params.linear;
    const FeatureMap* const maps = params.grad_inputs;
    if (linear.regions != nullptr) check_contents(op, *linear.regions, maps[0].batch);
    const std::int64_t bad = cpu::scatter(
        params,
        executor_for(elements_of(maps, linear.num_maps()) + linear.rows * linear.order.size()));
    check_argmax(op, bad, linear, maps);
  }
};

std::string cpu_instruction_set() { return cpu::instruction_set(); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(SPP_OP_NAMESPACE, CPU, library) { register_ops<Cpu>(library); }

STABLE_TORCH_LIBRARY_IMPL(SPP_OP_NAMESPACE, CompositeExplicitAutograd, library) {
  library.impl("cpu_instruction_set", TORCH_BOX(&cpu_instruction_set));
}

}  // namespace spp_ext::binding
