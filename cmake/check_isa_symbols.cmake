# Fails the build when an object compiled for one instruction set defines a symbol that another object can define too,
# an inline function of a shared header or of the standard library, say. The linker keeps one copy of those, any one, so
# a CPU without the instruction set could end up running it. Everything must live in spp_ext::cpu::<ISA> or be inlined.
#
# cmake -DNM=<nm> -DISA=<name> -DOBJECTS=<object>[;<object>...] -P check_isa_symbols.cmake
execute_process(COMMAND ${NM} -C --defined-only --extern-only ${OBJECTS}
                OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[0-9a-fA-F]+ [A-Za-z] [^\n]+" symbols "${symbols}")

foreach(symbol IN LISTS symbols)
  if(NOT symbol MATCHES "spp_ext::cpu::${ISA}::")
    string(REGEX REPLACE "^[0-9a-fA-F]+ [A-Za-z] " "" symbol "${symbol}")
    message(FATAL_ERROR "The ${ISA} kernels define ${symbol} outside spp_ext::cpu::${ISA}, so the linker could pick "
                        "their copy for a CPU without ${ISA}: move it into that namespace, or force it inline.")
  endif()
endforeach()
