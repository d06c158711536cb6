# spp_ext_cuda_flags(<variable> <nvcc version>): the options that nvcc gets for every kernel.
function(spp_ext_cuda_flags variable version)
  # Results are compared with the CPU's bit for bit, so no fused multiply-add where the source has none.
  set(flags --fmad=false)
  # A register spilled or an array in local memory costs more than anything these kernels do: it fails the build, and
  # the assembler names the kernel.
  list(APPEND flags -Xptxas=--warn-on-spills,--warn-on-local-memory-usage,--warning-as-error)
  # Makes the library several times smaller (one file's kernels, all architectures: 0.80 MB become 0.09). Drivers before
  # R550 cannot read it. What nvcc 13 builds needs R580 anyway; what nvcc 12 builds runs from R525 on, and must.
  if(version VERSION_GREATER_EQUAL 13)
    list(APPEND flags --compress-mode=size)
  endif()
  set(${variable} "${flags}" PARENT_SCOPE)
endfunction()
