// What a pooling op returns: tensors that it allocates, or the one that the caller gave as `out`, checked.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "torch/checks.h"

namespace spp_ext::binding {

// ---- memory ----

// The bytes from the first element of a tensor, or of its rows, to the last.
struct MemoryRange {
  std::uintptr_t begin;
  std::int64_t size;  // 0: no elements

  explicit MemoryRange(const Tensor& tensor, std::int64_t first_dim = 0)
      : begin(reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr())), size(tensor.numel()) {
    if (size == 0) return;
    if (first_dim > 0 || !tensor.is_contiguous()) {
      size = 1;
      for (std::int64_t d = first_dim; d < tensor.dim(); ++d) {
        size += (tensor.size(d) - 1) * tensor.stride(d);
      }
    }
    size *= static_cast<std::int64_t>(tensor.element_size());
  }
  std::uintptr_t end() const { return begin + static_cast<std::uintptr_t>(size); }
};

// Whether a and b may share an element: their ranges overlap, and they are not different columns of
// one matrix.
inline bool may_share_memory(const Tensor& a, const Tensor& b) {
  const MemoryRange of_a(a), of_b(b);
  if (of_a.size == 0 || of_b.size == 0) return false;
  if (of_a.end() <= of_b.begin || of_b.end() <= of_a.begin) return false;
  if (a.dim() == 0 || b.dim() == 0) return true;
  const std::int64_t pitch = a.stride(0) * static_cast<std::int64_t>(a.element_size());
  if (pitch == 0 || pitch != b.stride(0) * static_cast<std::int64_t>(b.element_size())) return true;
  // Rows of one pitch: where in a period of it each of the two lies.
  const std::int64_t apart =
      of_b.begin >= of_a.begin ? static_cast<std::int64_t>(of_b.begin - of_a.begin) % pitch
                               : pitch - static_cast<std::int64_t>(of_a.begin - of_b.begin) % pitch;
  return apart < MemoryRange(a, 1).size || apart + MemoryRange(b, 1).size > pitch;
}

// Whether no two elements of a tensor are one, as far as its strides show it at once.
inline bool has_distinct_elements(const Tensor& tensor) {
  if (tensor.is_contiguous() || tensor.numel() == 0) return true;
  std::vector<std::pair<std::int64_t, std::int64_t>> dims;  // stride, size
  for (std::int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) > 1) dims.emplace_back(tensor.stride(d), tensor.size(d));
  }
  std::sort(dims.begin(), dims.end());
  std::int64_t extent = 1;  // elements from the first to the last along the dimensions so far
  for (const auto& [stride, size] : dims) {
    if (stride < extent) return false;
    extent += (size - 1) * stride;
  }
  return true;
}

// ---- results ----

// Calls a device's kernel. Scratch that it cannot have is missing memory like any other.
template <class F>
void run_kernel(const char* op, const F& kernel) {
  try {
    kernel();
  } catch (const std::bad_alloc&) {
    fail_to_allocate(op, "the memory it works in");
  }
}

class Results {
 public:
  explicit Results(bool with_argmax) : with_argmax_(with_argmax) {}
  explicit Results(const Tensor& out) : out_(&out) {}

  // Refuses an `out` that shares memory with what the op reads.
  void keep_apart(const char* op, const char* name, const Tensor& input) const {
    if (out_ != nullptr && may_share_memory(*out_, input)) {
      fail(op, std::string("expected out to share no memory with ") + name +
                   ", got tensors that overlap");
    }
  }

  // [rows, C * B] for maps alike to `map`, in memory that is not initialised. An `out` of a single level
  // may also be [rows, C, y, x] with y * x = B.
  void make_rows(const char* op, std::int64_t rows, const FeatureMap& map,
                 const PyramidView& pyramid, const Tensor& like) {
    const std::int64_t bins = pyramid.bins;
    checked_product(op, "an output", {rows, map.channels, bins});
    if (out_ != nullptr && out_->dim() == 4 && pyramid.num_levels == 1 && out_->size(2) > 0 &&
        bins % out_->size(2) == 0) {
      const std::int64_t y = out_->size(2), x = bins / y;
      return make(op, {rows, map.channels, y, x}, {map.channels * bins, bins, x, 1}, like);
    }
    const std::int64_t columns = map.channels * bins;
    make(op, {rows, columns}, {columns < 1 ? 1 : columns, 1}, like);
  }

  // [N, C, H, W] of the shape and the layout of `map`, not initialised.
  void make_map(const char* op, const FeatureMap& map, const Tensor& like) {
    checked_product(op, "an output", {map.batch, map.channels, map.cells()});
    const std::array<std::int64_t, 4> strides = strides_of(map);
    make(op, {map.batch, map.channels, map.height, map.width},
         IntArrayRef(strides.data(), strides.size()), like);
  }

  // Has `kernel` write the results, if they have elements. Scratch that it cannot have is missing memory
  // like any other.
  template <class F>
  void fill(const char* op, const F& kernel) {
    if (values_->numel() == 0) return;
    run_kernel(op, kernel);
    if (out_ == nullptr || is_out_) return;
    Tensor out = *out_;
    copied(op, [&] { return torch::stable::copy_(out, *values_); });
  }

  void* output() const { return values_->mutable_data_ptr(); }
  std::int32_t* argmax() const {
    return argmax_ ? static_cast<std::int32_t*>(argmax_->mutable_data_ptr()) : nullptr;
  }

  // Given away once all is done.
  Tensor values() { return *std::move(values_); }
  Tensor indices() { return *std::move(argmax_); }

 private:
  void make(const char* op, IntArrayRef sizes, IntArrayRef strides, const Tensor& like) {
    const std::int32_t dtype = shim_dtype_of(like);
    if (out_ != nullptr) {
      check_out(op, sizes, dtype, like);
      is_out_ = is_laid_out(out_->sizes(), out_->strides(), strides);
      if (is_out_) {
        values_ = *out_;
        return;
      }
      if (!has_distinct_elements(*out_)) {
        fail(op, "expected every element of out in a place of its own, got some that share one");
      }
    }
    values_ = empty_strided(op, sizes, strides, dtype, like);
    if (with_argmax_) argmax_ = empty_strided(op, sizes, strides, aoti_torch_dtype_int32(), like);
  }

  void check_out(const char* op, IntArrayRef sizes, std::int32_t dtype, const Tensor& like) const {
    if (shim_dtype_of(*out_) != dtype) {
      fail(op, "expected out of dtype " + dtype_name(like) + ", got " + dtype_name(*out_));
    }
    check_same_device(op, "input", like, "out", *out_);
    const IntArrayRef given = out_->sizes();
    if (!std::equal(given.begin(), given.end(), sizes.begin(), sizes.end())) {
      fail(op, "expected out of shape " + shown(sizes) + ", got " + shown(given));
    }
  }

  const Tensor* out_ = nullptr;  // what the caller gave
  bool is_out_ = false;          // the kernel writes straight into it
  bool with_argmax_ = false;
  std::optional<Tensor> values_, argmax_;
};

// The three registered forms of an op, which is a function of its Results and its arguments.
template <auto op>
struct Forms;

template <class... Arguments, void (*op)(Results&, Arguments...)>
struct Forms<op> {
  static Tensor values(Arguments... arguments) {
    Results results(false);
    op(results, std::forward<Arguments>(arguments)...);
    return results.values();
  }
  static std::tuple<Tensor, Tensor> values_and_argmax(Arguments... arguments) {
    Results results(true);
    op(results, std::forward<Arguments>(arguments)...);
    return {results.values(), results.indices()};
  }
  static Tensor into(Arguments... arguments, const Tensor& out) {
    Results results(out);
    op(results, std::forward<Arguments>(arguments)...);
    return out;
  }
};

}  // namespace spp_ext::binding
