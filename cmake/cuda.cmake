# Decides whether the CUDA kernels are built, and for which architectures. A compiler decides, never a GPU: the machine
# that builds need not have one.
#
#   SPP_EXT_CUDA           auto: when nvcc is found; 1: always, an error without nvcc; 0: never. Default: auto for the
#                          Python package; 0 for C++ users, whom it would cost minutes
#   TORCH_CUDA_ARCH_LIST   (environment) architectures as in torch's extensions, "8.0;9.0+PTX"
if(SPP_EXT_BUILD_PYTHON)
  set(default_of_cuda auto)
else()
  set(default_of_cuda 0)
endif()
set(SPP_EXT_CUDA ${default_of_cuda} CACHE STRING "Build the CUDA kernels: auto, 1 or 0")
if(DEFINED ENV{SPP_EXT_CUDA})
  set(SPP_EXT_CUDA $ENV{SPP_EXT_CUDA})
endif()

if(SPP_EXT_CUDA STREQUAL "0")
  set(SPP_EXT_CUDA_DECISION "not built: SPP_EXT_CUDA=0")
  return()
endif()

include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(NOT SPP_EXT_CUDA STREQUAL "auto")
    message(FATAL_ERROR "SPP_EXT_CUDA=${SPP_EXT_CUDA} asks for the CUDA kernels, and no nvcc was found.")
  endif()
  set(SPP_EXT_CUDA_DECISION "not built: no nvcc found")
  return()
endif()

# From "8.0;9.0+PTX" to "80-real;90".
set(architectures "")
if(DEFINED ENV{TORCH_CUDA_ARCH_LIST} AND NOT "$ENV{TORCH_CUDA_ARCH_LIST}" STREQUAL "")
  string(REGEX REPLACE "[ ,]+" ";" wanted "$ENV{TORCH_CUDA_ARCH_LIST}")
  foreach(architecture IN LISTS wanted)
    if(NOT architecture MATCHES "^([0-9]+)\\.([0-9]+a?)(\\+PTX)?$")
      message(FATAL_ERROR "TORCH_CUDA_ARCH_LIST: expected entries like 8.6 or 9.0+PTX, got ${architecture}")
    endif()
    set(number ${CMAKE_MATCH_1}${CMAKE_MATCH_2})
    if(CMAKE_MATCH_3)
      list(APPEND architectures ${number})
    else()
      list(APPEND architectures ${number}-real)
    endif()
  endforeach()
  set(chosen_by "TORCH_CUDA_ARCH_LIST")
else()
  # Turing to Blackwell, as far as this nvcc knows them, and PTX of the last for what comes after. PTX of an older one
  # would add nothing for cards, which run the code of their generation's first; a Jetson (8.7, 11.0) runs neither and
  # must be named.
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-code OUTPUT_VARIABLE known OUTPUT_STRIP_TRAILING_WHITESPACE)
  foreach(number 75 80 86 89 90 100 120)
    if(known MATCHES "sm_${number}(\n|$)")
      list(APPEND architectures ${number}-real)
      set(last ${number})
    endif()
  endforeach()
  list(REMOVE_ITEM architectures ${last}-real)
  list(APPEND architectures ${last})
  set(chosen_by "default")
endif()
set(CMAKE_CUDA_ARCHITECTURES ${architectures})
enable_language(CUDA)

set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)

file(GLOB cuda_sources CONFIGURE_DEPENDS csrc/cuda/*.cu)
add_library(spp_ext_cuda_kernels STATIC ${cuda_sources})
add_library(spp_ext::cuda_kernels ALIAS spp_ext_cuda_kernels)
set_target_properties(spp_ext_cuda_kernels PROPERTIES EXPORT_NAME cuda_kernels)
target_compile_features(spp_ext_cuda_kernels PUBLIC cxx_std_17)
target_include_directories(
  spp_ext_cuda_kernels PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc>
                              $<INSTALL_INTERFACE:include> $<INSTALL_INTERFACE:include/spp_ext>)
target_link_libraries(spp_ext_cuda_kernels INTERFACE $<INSTALL_INTERFACE:CUDA::cudart_static>)
# The runtime is linked statically: it then works beside a torch with any CUDA runtime, and beside one with none.
set_target_properties(spp_ext_cuda_kernels PROPERTIES CUDA_RUNTIME_LIBRARY Static)
include(cmake/cuda_flags.cmake)
spp_ext_cuda_flags(cuda_flags ${CMAKE_CUDA_COMPILER_VERSION})
target_compile_options(spp_ext_cuda_kernels PRIVATE ${cuda_flags})

install(TARGETS spp_ext_cuda_kernels EXPORT spp_ext_cuda)
install(FILES csrc/cuda/kernels.h csrc/cuda/tuning.h DESTINATION include/spp_ext/cuda)
install(EXPORT spp_ext_cuda FILE spp_ext-cuda-targets.cmake NAMESPACE spp_ext:: DESTINATION ${SPP_EXT_INSTALL_CMAKE})

# "80-real" is machine code alone, "90" has PTX as well.
list(JOIN architectures " " architecture_text)
string(REGEX REPLACE "([0-9a]+)( |$)" "\\1+PTX\\2" architecture_text "${architecture_text}")
string(REPLACE "-real" "" architecture_text "${architecture_text}")
set(SPP_EXT_CUDA_DECISION
    "built by nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${architecture_text} (${chosen_by})")
