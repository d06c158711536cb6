# Read by find_package(spp_ext): the target spp_ext::kernels, and spp_ext::cuda_kernels where it was installed and CUDA's
# toolkit is found. COMPONENTS kernels, cuda_kernels insist.
include(${CMAKE_CURRENT_LIST_DIR}/spp_ext-targets.cmake)
if(EXISTS ${CMAKE_CURRENT_LIST_DIR}/spp_ext-cuda-targets.cmake)
  find_package(CUDAToolkit QUIET)
  if(CUDAToolkit_FOUND)
    include(${CMAKE_CURRENT_LIST_DIR}/spp_ext-cuda-targets.cmake)
  endif()
endif()

foreach(component IN LISTS spp_ext_FIND_COMPONENTS)
  if(TARGET spp_ext::${component})
    set(spp_ext_${component}_FOUND TRUE)
  elseif(spp_ext_FIND_REQUIRED_${component})
    set(spp_ext_FOUND FALSE)
    set(spp_ext_NOT_FOUND_MESSAGE "spp_ext::${component} was not installed, or what it needs was not found.")
  endif()
endforeach()
