// Stands for csrc/cuda/device.h: the emulation, and as much of the CUDA runtime as launchers use.
#pragma once

#include <dlfcn.h>

#include <cstddef>
#include <map>
#include <vector>

#include "simt.h"

#define __grid_constant__

namespace spp_ext::cuda {
using simt::dynamic_shared;
}

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
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
  return error == cudaSuccess ? "no error" : "invalid argument";
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int /*device*/) {
  const simt::Device& device_ = simt::device();
  *value =
      attribute == cudaDevAttrMultiProcessorCount ? device_.multiprocessors : device_.shared_bytes;
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
