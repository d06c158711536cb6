// The schemas of every op. Levels come in the flat form of spp_ext/levels.py, a convention as its
// number in RoiConvention: strings pass the stable ABI of torch 2.13 with a leak. argmax is int32, -1
// for an empty bin.
#include <torch/csrc/stable/library.h>

#include "torch/namespace.h"

STABLE_TORCH_LIBRARY(SPP_OP_NAMESPACE, library) {
  library.def("spatial_pyramid_pool(Tensor input, int[] levels) -> Tensor");
  library.def("spatial_pyramid_pool_with_argmax(Tensor input, int[] levels) -> (Tensor, Tensor)");
  library.def(
      "roi_spatial_pyramid_pool(Tensor input, Tensor rois, int[] levels, float spatial_scale, int "
      "convention, "
      "bool validate) -> Tensor");
  library.def(
      "roi_spatial_pyramid_pool_with_argmax(Tensor input, Tensor rois, int[] levels, float "
      "spatial_scale, "
      "int convention, bool validate) -> (Tensor, Tensor)");
  library.def(
      "roi_spatial_pyramid_pool_of_maps(Tensor[] input, Tensor rois, Tensor map_indices, int[] "
      "levels, float[] spatial_scales, int convention, bool validate) -> Tensor");
  library.def(
      "roi_spatial_pyramid_pool_of_maps_with_argmax(Tensor[] input, Tensor rois, Tensor "
      "map_indices, int[] levels, float[] spatial_scales, int convention, bool validate) -> "
      "(Tensor, Tensor)");
  library.def("multi_kernel_max_pool2d(Tensor input, int[] kernel_sizes, bool cascade) -> Tensor");
  library.def(
      "multi_kernel_max_pool2d_with_argmax(Tensor input, int[] kernel_sizes, bool cascade) -> "
      "(Tensor, Tensor)");
  library.def("gather(Tensor source, Tensor argmax, Tensor? rois, int[] level_bins) -> Tensor");
  library.def(
      "scatter(Tensor grad_output, Tensor argmax, Tensor? rois, int[] level_bins, SymInt[] "
      "input_size, "
      "bool channels_last) -> Tensor");
  library.def(
      "gather_of_maps(Tensor[] sources, Tensor argmax, Tensor rois, Tensor map_indices, int[] "
      "level_bins) -> Tensor");
  library.def(
      "scatter_of_maps(Tensor grad_output, Tensor argmax, Tensor rois, Tensor map_indices, int[] "
      "level_bins, SymInt[] input_sizes, bool[] channels_last) -> Tensor[]");
  library.def("cpu_instruction_set() -> str");
}
