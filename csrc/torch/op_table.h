// The table of ops: every op on tensors that is registered with torch, and its schema, stand here and
// nowhere else in C++. library.cpp defines them; registration.h gives them each device's functions,
// which have the same names.
// The Python side has its own table, spp_ext/_torch/op_table.py; a test compares the two.
//
// Levels come in the flat form that core/pyramid.h describes. A convention comes as its number in
// RoiConvention, since strings pass the stable ABI of torch 2.13 with a leak. argmax is int32, -1 for
// an empty bin.
#pragma once

// clang-format off

// op(name, arguments). Each is registered in three forms: `name` gives the values, `name_with_argmax` the
// values and the argmax, and `name.out` the values in memory that the caller gives.
#define SPP_POOLING_OPS(op)                                                                       \
  op(spatial_pyramid_pool,                                                                        \
     "Tensor input, int[] levels")                                                                \
  op(roi_spatial_pyramid_pool,                                                                    \
     "Tensor input, Tensor rois, int[] levels, float spatial_scale, int convention, "             \
     "bool validate")                                                                             \
  op(roi_spatial_pyramid_pool_of_maps,                                                            \
     "Tensor[] input, Tensor rois, Tensor map_indices, int[] levels, float[] spatial_scales, "    \
     "int convention, bool validate")                                                             \
  op(multi_kernel_max_pool2d,                                                                     \
     "Tensor input, int[] kernel_sizes, bool cascade")

// op(name, arguments, result).
#define SPP_LINEAR_OPS(op)                                                                        \
  op(gather,                                                                                      \
     "Tensor source, Tensor argmax, Tensor? rois, int[] level_bins", "Tensor")                    \
  op(gather_of_maps,                                                                              \
     "Tensor[] sources, Tensor argmax, Tensor rois, Tensor map_indices, int[] level_bins",        \
     "Tensor")                                                                                    \
  op(scatter,                                                                                     \
     "Tensor grad_output, Tensor argmax, Tensor? rois, int[] level_bins, SymInt[] input_size, "   \
     "bool channels_last", "Tensor")                                                              \
  op(scatter_of_maps,                                                                             \
     "Tensor grad_output, Tensor argmax, Tensor rois, Tensor map_indices, int[] level_bins, "     \
     "SymInt[] input_sizes, bool[] channels_last", "Tensor[]")

// clang-format on
