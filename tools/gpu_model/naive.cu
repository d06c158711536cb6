// The obvious kernels, which stand for torch's and torchvision's in the model: one thread computes one
// number, a launch pools one level, and what the levels gave is copied together in the end. Neighbouring
// threads are neighbouring bins of a plane, or neighbouring channels where the map is channels_last.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace {

// A batch of maps [N, C, H, W]; the strides say which layout it has.
struct Map {
  const void* data;
  std::int32_t channels, height, width;
  std::int32_t cell_stride, plane_stride;
  bool channels_last;
};

__device__ float as_float(float value) { return value; }
__device__ float as_float(__half value) { return __half2float(value); }
__device__ float as_float(__nv_bfloat16 value) { return __bfloat162float(value); }

struct Output {
  std::int32_t row, channel, y, x;  // of the image or region, and the bin
  std::int64_t index;               // in [rows, C, height, width]
};

// The output that thread `i` of them computes.
__device__ Output output_of(std::int64_t i, const Map& map, std::int32_t height,
                            std::int32_t width) {
  std::int32_t rest = static_cast<std::int32_t>(i);
  Output output;
  if (map.channels_last) {
    output.channel = rest % map.channels;
    rest /= map.channels;
  }
  output.x = rest % width;
  rest /= width;
  output.y = rest % height;
  rest /= height;
  if (!map.channels_last) {
    output.channel = rest % map.channels;
    rest /= map.channels;
  }
  output.row = rest;
  output.index = ((static_cast<std::int64_t>(output.row) * map.channels + output.channel) * height +
                  output.y) *
                     width +
                 output.x;
  return output;
}

template <class T>
__device__ const T* plane_of(const Map& map, std::int32_t image, std::int32_t channel) {
  return static_cast<const T*>(map.data) +
         static_cast<std::int64_t>(image) * map.channels * map.height * map.width +
         static_cast<std::int64_t>(channel) * map.plane_stride;
}

// The maximum of a window, and its first cell.
template <class T, class Index>
__device__ void pool_window(const T* plane, const Map& map, std::int32_t y0, std::int32_t y1,
                            std::int32_t x0, std::int32_t x1, T* output, Index* argmax) {
  const bool empty = y0 >= y1 || x0 >= x1;
  float best = empty ? 0.0f : -INFINITY;
  Index cell = empty ? -1 : static_cast<Index>(y0) * map.width + x0;
  T value = static_cast<T>(best);
  for (std::int32_t y = y0; y < y1; ++y) {
    for (std::int32_t x = x0; x < x1; ++x) {
      const std::int32_t at = y * map.width + x;
      const T candidate = plane[static_cast<std::int64_t>(at) * map.cell_stride];
      const float number = as_float(candidate);
      if (number > best || isnan(number)) {
        best = number;
        value = candidate;
        cell = at;
      }
    }
  }
  *output = value;
  *argmax = cell;
}

// One level of an adaptive max pool.
template <class T>
__device__ void pool_level(Map map, std::int32_t level, std::int64_t outputs, T* output,
                           std::int64_t* argmax) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= outputs) return;
  const Output o = output_of(i, map, level, level);
  const std::int32_t y0 = o.y * map.height / level, x0 = o.x * map.width / level;
  const std::int32_t y1 = ((o.y + 1) * map.height + level - 1) / level;
  const std::int32_t x1 = ((o.x + 1) * map.width + level - 1) / level;
  pool_window(plane_of<T>(map, o.row, o.channel), map, y0, y1, x0, x1, output + o.index,
              argmax + o.index);
}

// One level of the regions, the edges of bins in floats.
template <class T>
__device__ void pool_regions(Map map, const float* rois, float scale, std::int32_t level,
                             std::int64_t outputs, T* output, std::int32_t* argmax) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= outputs) return;
  const Output o = output_of(i, map, level, level);
  const float* roi = rois + static_cast<std::int64_t>(o.row) * 5;
  const std::int32_t left = static_cast<std::int32_t>(roundf(roi[1] * scale));
  const std::int32_t top = static_cast<std::int32_t>(roundf(roi[2] * scale));
  const std::int32_t right = static_cast<std::int32_t>(roundf(roi[3] * scale));
  const std::int32_t bottom = static_cast<std::int32_t>(roundf(roi[4] * scale));
  const float high = static_cast<float>(max(bottom - top + 1, 1)) / static_cast<float>(level);
  const float wide = static_cast<float>(max(right - left + 1, 1)) / static_cast<float>(level);
  const auto clip = [](std::int32_t at, std::int32_t end) { return min(max(at, 0), end); };
  const std::int32_t y0 = clip(static_cast<std::int32_t>(floorf(o.y * high)) + top, map.height);
  const std::int32_t y1 =
      clip(static_cast<std::int32_t>(ceilf((o.y + 1) * high)) + top, map.height);
  const std::int32_t x0 = clip(static_cast<std::int32_t>(floorf(o.x * wide)) + left, map.width);
  const std::int32_t x1 =
      clip(static_cast<std::int32_t>(ceilf((o.x + 1) * wide)) + left, map.width);
  pool_window(plane_of<T>(map, static_cast<std::int32_t>(roi[0]), o.channel), map, y0, y1, x0, x1,
              output + o.index, argmax + o.index);
}

// A pool with stride 1 and same padding; the output has the layout of the map.
template <class T>
__device__ void pool_same(Map map, std::int32_t size, std::int64_t outputs, T* output,
                          std::int64_t* argmax) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= outputs) return;
  const Output o = output_of(i, map, map.height, map.width);
  const std::int32_t reach = size / 2;
  pool_window(plane_of<T>(map, o.row, o.channel), map, max(o.y - reach, 0),
              min(o.y + reach + 1, map.height), max(o.x - reach, 0),
              min(o.x + reach + 1, map.width), output + i, argmax + i);
}

// Copies [rows, lengths[k]] for each of up to four sources behind one another into each row.
struct Sources {
  const void* data[4];
  std::int32_t lengths[4];
};

template <class T>
__device__ void concatenate(Sources sources, std::int32_t length, std::int64_t numbers, T* output) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= numbers) return;
  const std::int32_t row = static_cast<std::int32_t>(i) / length;
  std::int32_t column = static_cast<std::int32_t>(i) % length;
  const void* source = sources.data[0];
  std::int32_t own = sources.lengths[0];
#pragma unroll
  for (int k = 1; k < 4; ++k) {
    const bool behind = column >= own;
    if (!behind) break;
    column -= own;
    source = sources.data[k];
    own = sources.lengths[k];
  }
  output[i] = static_cast<const T*>(source)[static_cast<std::int64_t>(row) * own + column];
}

template <class T>
__device__ void fill_zero(std::int64_t numbers, T* output) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < numbers) output[i] = static_cast<T>(0.0f);
}

template <class T>
__device__ void add_arrays(std::int64_t numbers, const T* a, const T* b, T* output) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < numbers) output[i] = static_cast<T>(as_float(a[i]) + as_float(b[i]));
}

// Adds a number to a cell. Numbers of two bytes are added as half of a pair, the other half being 0.
__device__ void add_to(float* cell, float value) { atomicAdd(cell, value); }

__device__ void add_pair(void* cell, std::uint32_t bits) {
  const auto address = reinterpret_cast<std::uintptr_t>(cell);
  atomicAdd(reinterpret_cast<std::uint32_t*>(address & ~std::uintptr_t{3}),
            address & 2 ? bits << 16 : bits);
}

// The model needs what such an addition costs, not its sum: the interpreter adds integers only.
__device__ void add_to(__half* cell, __half value) { add_pair(cell, __half_as_ushort(value)); }
__device__ void add_to(__nv_bfloat16* cell, __nv_bfloat16 value) {
  add_pair(cell, __bfloat16_as_ushort(value));
}

// grad_output is a part of [rows, length] that begins at column `first`; argmax is [rows, columns].
template <class T, class Index>
__device__ void add_gradients(const T* grad_output, const Index* argmax, const float* rois, Map map,
                              std::int32_t bins, std::int32_t length, std::int32_t first,
                              std::int64_t outputs, T* grad_input) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= outputs) return;
  const std::int32_t columns = map.channels * bins;
  const std::int32_t row = static_cast<std::int32_t>(i) / columns;
  const std::int32_t column = static_cast<std::int32_t>(i) % columns;
  const Index cell = argmax[i];
  if (cell < 0) return;
  const std::int32_t image = rois == nullptr ? row : static_cast<std::int32_t>(rois[row * 5]);
  const std::int32_t channel = column / bins;
  add_to(const_cast<T*>(plane_of<T>(Map{grad_input, map.channels, map.height, map.width,
                                        map.cell_stride, map.plane_stride, map.channels_last},
                                    image, channel)) +
             static_cast<std::int64_t>(cell) * map.cell_stride,
         grad_output[static_cast<std::int64_t>(row) * length + first + column]);
}

}  // namespace

#define SPP_NAIVE(name, T)                                                                        \
  extern "C" __global__ void pool_level_##name(Map map, std::int32_t level, std::int64_t outputs, \
                                               T* output, std::int64_t* argmax) {                 \
    pool_level(map, level, outputs, output, argmax);                                              \
  }                                                                                               \
  extern "C" __global__ void pool_regions_##name(Map map, const float* rois, float scale,         \
                                                 std::int32_t level, std::int64_t outputs,        \
                                                 T* output, std::int32_t* argmax) {               \
    pool_regions(map, rois, scale, level, outputs, output, argmax);                               \
  }                                                                                               \
  extern "C" __global__ void pool_same_##name(Map map, std::int32_t size, std::int64_t outputs,   \
                                              T* output, std::int64_t* argmax) {                  \
    pool_same(map, size, outputs, output, argmax);                                                \
  }                                                                                               \
  extern "C" __global__ void concatenate_##name(Sources sources, std::int32_t length,             \
                                                std::int64_t numbers, T* output) {                \
    concatenate(sources, length, numbers, output);                                                \
  }                                                                                               \
  extern "C" __global__ void fill_zero_##name(std::int64_t numbers, T* output) {                  \
    fill_zero(numbers, output);                                                                   \
  }                                                                                               \
  extern "C" __global__ void add_arrays_##name(std::int64_t numbers, const T* a, const T* b,      \
                                               T* output) {                                       \
    add_arrays(numbers, a, b, output);                                                            \
  }                                                                                               \
  extern "C" __global__ void add_gradients_##name(                                                \
      const T* grad_output, const std::int64_t* argmax, Map map, std::int32_t bins,               \
      std::int32_t length, std::int32_t first, std::int64_t outputs, T* grad_input) {             \
    add_gradients(grad_output, argmax, nullptr, map, bins, length, first, outputs, grad_input);   \
  }                                                                                               \
  extern "C" __global__ void add_region_gradients_##name(                                         \
      const T* grad_output, const std::int32_t* argmax, const float* rois, Map map,               \
      std::int32_t bins, std::int32_t length, std::int32_t first, std::int64_t outputs,           \
      T* grad_input) {                                                                            \
    add_gradients(grad_output, argmax, rois, map, bins, length, first, outputs, grad_input);      \
  }

SPP_NAIVE(float32, float)
SPP_NAIVE(float16, __half)
SPP_NAIVE(bfloat16, __nv_bfloat16)
