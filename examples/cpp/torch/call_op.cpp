// A registered op from a C++ program with libtorch and without Python: pools a random map, and
// compares it with torch's own pooling. The argument is the path of libspp_ext_cpu.so.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <tuple>
#include <vector>

int main(int argc, char** argv) {
  // Opening the library registers its ops, as torch.ops.load_library does.
  if (argc != 2 || dlopen(argv[1], RTLD_NOW) == nullptr) {
    std::fprintf(stderr, "expected the path of libspp_ext_cpu.so: %s\n",
                 argc == 2 ? dlerror() : "got none");
    return 2;
  }
  const auto pool = c10::Dispatcher::singleton()
                        .findSchemaOrThrow("spp_ext::spatial_pyramid_pool", "")
                        .typed<at::Tensor(const at::Tensor& input, at::IntArrayRef levels)>();

  const at::Tensor input = at::randn({2, 8, 13, 17});
  const at::Tensor pooled = pool.call(input, {1, 1, 2, 2, 3, 3, 6, 6});  // [2, 8 * 50]

  std::vector<at::Tensor> levels;
  for (const std::int64_t n : {1, 2, 3, 6})
    levels.push_back(std::get<0>(at::adaptive_max_pool2d(input, {n, n})).flatten(1));
  const bool equal = at::equal(pooled, at::cat(levels, 1));
  std::printf("%lld x %lld, %s\n", static_cast<long long>(pooled.size(0)),
              static_cast<long long>(pooled.size(1)), equal ? "equal" : "different");
  return equal ? 0 : 1;
}
