// The CPU kernels on raw pointers, without torch: pools a map of 2 x 3 cells and prints each bin's
// maximum and where it lies.
#include <spp_ext/cpu/kernels.h>

#include <cstdint>
#include <cstdio>

int main() {
  using namespace spp_ext;
  const float map[6] = {1, 5, 2, 0, 3, 4};     // [1, 1, 2, 3]
  const std::int64_t levels[] = {1, 1, 2, 2};  // 1 x 1 bins, then 2 x 2: see Pyramid's constructor
  const Pyramid pyramid(levels, 4);
  float output[5];  // [1, 1 * 5 bins]
  std::int32_t argmax[5];
  const FeatureMap input{map, DType::kFloat32, Layout::kContiguous, 1, 1, 2, 3};
  cpu::pool_map({input, pyramid.view(), output, argmax}, {});
  for (int i = 0; i < 5; ++i) std::printf("%g@%d ", output[i], argmax[i]);
}
