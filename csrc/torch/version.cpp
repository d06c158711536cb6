// The version inside a library of ops. spp_ext/_torch/library.py reads it from the file, before it loads
// the library and anything of it runs.

extern "C" __attribute__((used, visibility("default"))) const char spp_ext_version[] =
    "spp_ext version " SPP_EXT_VERSION;
