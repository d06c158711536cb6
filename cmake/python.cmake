# The two libraries of the Python package, installed flat into the package's folder:
#
#     cmake --install <build> --component python --prefix <folder of the package>
#
# libspp_ext_cpu.so  operators on torch tensors (LibTorch stable ABI, no Python), opened by torch.ops.load_library
# libspp_ext_cuda.so the same operators on CUDA tensors, opened where torch has CUDA
# _core.*.so         what has no tensors: geometry, plan, build_info() (pybind11, no torch)
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)

# torch is asked for by location: its own CMake package would pull in CUDA and a C++ ABI that nothing here uses.
execute_process(
  COMMAND ${Python_EXECUTABLE} -c "
from importlib import metadata, util
print(util.find_spec('torch').submodule_search_locations[0], metadata.version('torch'),
      util.find_spec('pybind11').submodule_search_locations[0], metadata.version('pybind11'), sep=';')"
  OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "SPP_EXT_BUILD_PYTHON needs torch and pybind11 installed for ${Python_EXECUTABLE}.")
endif()
list(GET found 0 torch_dir)
list(GET found 1 SPP_EXT_TORCH_VERSION)
list(GET found 2 pybind11_package)
list(GET found 3 SPP_EXT_PYBIND11_VERSION)
set(pybind11_DIR ${pybind11_package}/share/cmake/pybind11 CACHE PATH "" FORCE)
find_package(pybind11 CONFIG REQUIRED)

# The inline functions of all three leave their __FILE__ in the libraries.
foreach(folder torch_dir pybind11_package Python_INCLUDE_DIRS)
  add_compile_options(-ffile-prefix-map=${${folder}}=.)
endforeach()

# ---- libspp_ext_cpu.so, libspp_ext_cuda.so ----

set(SPP_EXT_TORCH_TARGET 2.11)  # the oldest torch that the libraries run on; 0x020b... below says the same

# A library of operators. torch loads its own libraries privately, so ours must name libtorch_cpu to see its symbols. By
# name only, with no search path: the one that is already loaded answers, whichever torch that is.
function(spp_ext_add_ops name)
  add_library(${name} MODULE csrc/torch/version.cpp ${ARGN})
  target_compile_definitions(${name} PRIVATE TORCH_TARGET_VERSION=0x020b000000000000
                             SPP_EXT_VERSION="${SPP_EXT_VERSION}")
  target_include_directories(${name} SYSTEM PRIVATE ${torch_dir}/include)
  target_link_libraries(${name} PRIVATE spp_ext_kernels ${CMAKE_DL_LIBS}
                        ${torch_dir}/lib/${CMAKE_SHARED_LIBRARY_PREFIX}torch_cpu${CMAKE_SHARED_LIBRARY_SUFFIX})
  if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND NOT SPP_EXT_SANITIZE)
    target_link_options(${name} PRIVATE -Wl,--no-undefined)
  endif()
  set_target_properties(${name} PROPERTIES PREFIX lib SUFFIX .so SKIP_BUILD_RPATH ON)
  install(TARGETS ${name} LIBRARY DESTINATION . COMPONENT python EXCLUDE_FROM_ALL)
endfunction()

spp_ext_add_ops(spp_ext_cpu csrc/torch/library.cpp csrc/torch/cpu.cpp)
if(TARGET spp_ext_cuda_kernels)
  spp_ext_add_ops(spp_ext_cuda csrc/torch/cuda.cpp)
  target_link_libraries(spp_ext_cuda PRIVATE spp_ext_cuda_kernels)
endif()

# ---- _core ----

configure_file(cmake/build_config.h.in generated/build_config.h @ONLY)
file(GLOB core_sources CONFIGURE_DEPENDS csrc/python/*.cpp)
pybind11_add_module(_core MODULE NO_EXTRAS ${core_sources})
target_include_directories(_core PRIVATE ${PROJECT_BINARY_DIR}/generated)
target_link_libraries(_core PRIVATE spp_ext_kernels)

install(TARGETS _core LIBRARY DESTINATION . COMPONENT python EXCLUDE_FROM_ALL)
