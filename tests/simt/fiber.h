// A fiber: a stack of its own, entered from the host's stack and left at any depth.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <new>

#if !defined(__SANITIZE_ADDRESS__) && defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt::detail {

#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)
// Stores the callee-saved registers on the running stack and takes up another stack where it left
// off, as swapcontext() does, but without a system call for the signal mask.
extern "C" void simt_switch(void** from, void* to);
asm(R"(
    .text
    .weak simt_switch
    .hidden simt_switch
    .type simt_switch, @function
simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx  # the processor would predict a ret to the caller that it knows, in the other fiber
    .size simt_switch, . - simt_switch
)");

using Context = void*;  // the stack pointer

inline void make_context(Context& context, char* stack, std::size_t bytes, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + bytes);
  *--top = nullptr;                         // entry() has nowhere to return to
  *--top = reinterpret_cast<void*>(entry);  // where the first switch goes
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context = top;
}
inline void switch_context(Context& from, Context& to) { simt_switch(&from, to); }
#else
using Context = ucontext_t;

inline void make_context(Context& context, char* stack, std::size_t bytes, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = bytes;
  makecontext(&context, entry, 0);
}
inline void switch_context(Context& from, Context& to) { swapcontext(&from, &to); }
#endif

// Entered from one thread of the operating system at a time.
class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() {
    if (mapping_ != nullptr) munmap(mapping_, kGuardBytes + kStackBytes);
  }

  // Forgets what ran before: the next enter() calls `entry`, which must call entered() first and
  // never return.
  void start(void (*entry)()) {
    if (mapping_ == nullptr) {
      void* mapping = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (mapping == MAP_FAILED) throw std::bad_alloc();
      mprotect(mapping, kGuardBytes, PROT_NONE);  // an overflow crashes
      mapping_ = static_cast<char*>(mapping);
    }
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(stack(), kStackBytes);
    fake_stack_ = nullptr;
#endif
    make_context(context_, stack(), kStackBytes, entry);
  }

  void enter() {
    before_switch(&host_.fake_stack, stack(), kStackBytes);
    switch_context(host_.context, context_);
    after_switch(host_.fake_stack, nullptr, nullptr);
  }

  void leave() {
    before_switch(&fake_stack_, host_.stack, host_.stack_bytes);
    switch_context(context_, host_.context);
    entered();
  }

  void entered() { after_switch(fake_stack_, &host_.stack, &host_.stack_bytes); }

 private:
  // AddressSanitizer has to know which stack is in use.
#ifdef __SANITIZE_ADDRESS__
  static constexpr std::size_t kStackBytes = 256 << 10;
  static void before_switch(void** fake_stack, const void* stack, std::size_t bytes) {
    __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
  }
  static void after_switch(void* fake_stack, const void** stack, std::size_t* bytes) {
    __sanitizer_finish_switch_fiber(fake_stack, stack, bytes);
  }
#else
  static constexpr std::size_t kStackBytes = 64 << 10;
  static void before_switch(void**, const void*, std::size_t) {}
  static void after_switch(void*, const void**, std::size_t*) {}
#endif
  static constexpr std::size_t kGuardBytes = 64 << 10;  // a page or more, on any CPU

  struct Host {
    Context context;
    const void* stack;
    std::size_t stack_bytes;
    void* fake_stack;
  };
  static inline Host host_ = {};

  char* stack() const { return mapping_ + kGuardBytes; }

  char* mapping_ = nullptr;
  Context context_ = {};
  void* fake_stack_ = nullptr;
};

}  // namespace simt::detail
