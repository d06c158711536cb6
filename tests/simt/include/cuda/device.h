// Stands for csrc/cuda/device.h: the emulation, and as much of the CUDA runtime as launchers use.
#pragma once

#include <dlfcn.h>

#include <cstddef>
#include <map>
#include <vector>

#include "core/max_op.h"
#include "core/scalar.h"
#include "simt.h"

#define __grid_constant__

namespace spp_ext::cuda {

using simt::dynamic_shared;

template <class Vector>
void write_vector(Vector* to, Vector value) {
  *to = value;
}

template <class T>
T once(T value) {
  return value;
}

inline float to_float(Half value) { return to_compute(value); }
inline Half to_half(float value) { return from_compute<Half>(value); }

template <class S>
unsigned to_pair(float low, float high) {
  return unsigned{from_compute<S>(low).bits} | unsigned{from_compute<S>(high).bits} << 16;
}

inline std::uint64_t multiply_add(std::uint32_t a, std::uint32_t b, std::uint64_t c) {
  return std::uint64_t{a} * b + c;
}

inline double maximum(double a, double b) { return MaxOp::combine(a, b); }
inline float maximum(float a, float b) { return MaxOp::combine(a, b); }
template <class S>
unsigned maximum_of_pairs(unsigned a, unsigned b) {
  const auto of = [](unsigned x, unsigned y) -> unsigned {
    const S p{static_cast<std::uint16_t>(x)}, q{static_cast<std::uint16_t>(y)};
    return MaxOp::replaces(to_compute(p), to_compute(q)) ? p.bits : q.bits;
  };
  return of(a, b) | of(a >> 16, b >> 16) << 16;
}

}  // namespace spp_ext::cuda

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInsufficientDriver = 35 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
using cudaStream_t = void*;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
};

namespace simt {

constexpr int kSharedBytesWithoutAsking = 48 * 1024;

inline int driver_version = 13000;            // a test may set another
inline cudaError_t last_error = cudaSuccess;  // until cudaGetLastError() is called
inline std::map<void*, int> asked_for;        // shared memory, by kernel

// Appends a parameter where CUDA would put it.
template <class T>
void append_parameter(std::vector<unsigned char>& bytes, const T& parameter) {
  bytes.resize((bytes.size() + alignof(T) - 1) / alignof(T) * alignof(T));
  const auto* begin = reinterpret_cast<const unsigned char*>(&parameter);
  bytes.insert(bytes.end(), begin, begin + sizeof(T));
}

inline cudaError_t remembered(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

}  // namespace simt

inline cudaError_t cudaGetLastError() { return std::exchange(simt::last_error, cudaSuccess); }
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess             ? "no error"
         : error == cudaErrorInvalidValue ? "invalid argument"
                                          : "driver version is insufficient for runtime version";
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = simt::driver_version;
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
// Every device is larger than the one before.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (simt::driver_version < 13000) return simt::remembered(cudaErrorInsufficientDriver);
  const simt::Device& first = simt::device();
  *value = device + (attribute == cudaDevAttrMultiProcessorCount ? first.multiprocessors
                                                                 : first.shared_bytes);
  return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  if (bytes < 0 || bytes > simt::device().shared_bytes)
    return simt::remembered(cudaErrorInvalidValue);
  simt::asked_for[reinterpret_cast<void*>(kernel)] = bytes;
  return cudaSuccess;
}

template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...),
                               Args&&... args) {
  const auto asked = simt::asked_for.find(reinterpret_cast<void*>(kernel));
  const int allowed =
      asked == simt::asked_for.end() ? simt::kSharedBytesWithoutAsking : asked->second;
  if (config->dynamicSmemBytes > static_cast<std::size_t>(allowed)) {
    return simt::remembered(cudaErrorInvalidValue);
  }
  if (simt::recorder() != nullptr) {
    std::vector<unsigned char> bytes;
    (simt::append_parameter(bytes, static_cast<const Params&>(args)), ...);
    Dl_info symbol{};
    dladdr(reinterpret_cast<void*>(kernel), &symbol);
    const char* name = symbol.dli_sname == nullptr ? "" : symbol.dli_sname;
    if (!simt::recorder()(name, config->gridDim.x, config->blockDim.x, config->dynamicSmemBytes,
                          bytes.data(), bytes.size())) {
      return cudaSuccess;
    }
  }
  simt::launch(config->gridDim, config->blockDim, config->dynamicSmemBytes, kernel,
               std::forward<Args>(args)...);
  return cudaSuccess;
}
