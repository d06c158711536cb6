# spp_ext_add_isa(<name> [<compiler flag>...]): compiles csrc/cpu/*_lanes.cpp with SPP_ISA=<name> and the flags into
# spp_ext_kernels, and appends the name to SPP_EXT_ISAS.
function(spp_ext_add_isa name)
  set(target spp_ext_lanes_${name})
  add_library(${target} OBJECT ${lane_sources})
  target_include_directories(${target} PRIVATE csrc)
  target_compile_definitions(${target} PRIVATE SPP_ISA=${name})
  target_compile_options(${target} PRIVATE ${ARGN})
  target_sources(spp_ext_kernels PRIVATE $<TARGET_OBJECTS:${target}>)

  # Unoptimised and sanitized builds keep out-of-line copies of everything, and do not leave the machine they are for.
  if(ARGN AND NOT CMAKE_BUILD_TYPE STREQUAL "Debug" AND NOT SPP_EXT_SANITIZE)
    add_custom_command(
      TARGET spp_ext_kernels POST_BUILD VERBATIM
      COMMAND ${CMAKE_COMMAND} -DNM=${CMAKE_NM} -DISA=${name} "-DOBJECTS=$<TARGET_OBJECTS:${target}>"
              -P ${PROJECT_SOURCE_DIR}/cmake/check_isa_symbols.cmake)
  endif()

  list(APPEND SPP_EXT_ISAS ${name})
  list(JOIN SPP_EXT_ISAS " " SPP_EXT_ISAS)
  set(SPP_EXT_ISAS "${SPP_EXT_ISAS}" PARENT_SCOPE)
endfunction()
