// The exceptions that the ops throw. Standard ones: torch turns invalid_argument into ValueError and
// out_of_range into IndexError. Newer torch turns all but out_of_range into RuntimeError;
// spp_ext/_torch/errors.py undoes that, by the words. torch's own check macro would print the path of this
// file at every user.
#pragma once

#include <dlfcn.h>

#include <stdexcept>
#include <string>

namespace spp_ext::binding {

// Raises `spp_ext.<op>: <sentence>`.
template <class Error = std::invalid_argument>
[[noreturn]] void fail(const char* op, const std::string& sentence) {
  throw Error("spp_ext." + std::string(op) + ": " + sentence);
}

// Memory that the host does not have, or of which torch does not tell why it cannot be had.
[[noreturn]] inline void fail_to_allocate(const char* op, const char* what) {
  fail<std::runtime_error>(op, std::string("could not allocate ") + what);
}

// The first line of what torch says of its last failure in this thread. Empty before torch 2.13, which
// prints it and returns a number.
inline std::string torchs_words() {
  using Get = const char* (*)();
  static const auto get =
      reinterpret_cast<Get>(dlsym(RTLD_DEFAULT, "torch_exception_get_what_without_backtrace"));
  const char* const words = get == nullptr ? nullptr : get();
  const std::string text = words == nullptr ? "" : words;
  return text.substr(0, text.find('\n'));
}

// torch failed to give memory. A device that an earlier kernel left broken refuses too; that is no
// lack of memory.
[[noreturn]] inline void fail_as_torch_did(const char* op, const char* what) {
  const std::string words = torchs_words();
  const auto says = [&](const char* part) { return words.find(part) != std::string::npos; };
  if (words.empty() || says("out of memory") || says("allocate memory") || says("bad_alloc") ||
      says("size calculation overflowed")) {
    fail_to_allocate(op, what);
  }
  fail<std::runtime_error>(op, std::string("torch did not give ") + what + ": " + words);
}

}  // namespace spp_ext::binding
