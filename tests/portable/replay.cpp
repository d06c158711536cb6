// Replays a file of cases: calls the CPU kernels with what the Python reference was given, and compares
// with what it computed. Needs neither torch nor Python, so that it runs wherever the kernels do.
//
//   replay <file>
//
// test_portability.py writes the file, and says in which order: all numbers are of 64 bits, and an
// array is its size in bytes and then the bytes.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "core/regions.h"
#include "cpu/kernels.h"

using namespace spp_ext;

namespace {

using Bytes = std::vector<char>;
using Numbers = std::vector<std::int64_t>;

class Reader {
 public:
  explicit Reader(const char* path) : file_(path, std::ios::binary) {}
  bool at_end() { return file_.peek() == std::ifstream::traits_type::eof(); }
  std::int64_t number() {
    std::int64_t value;
    read(&value, sizeof(value));
    return value;
  }
  template <class E = char>
  std::vector<E> array() {
    const auto bytes = static_cast<std::size_t>(number());
    std::vector<E> elements(bytes / sizeof(E));
    read(elements.data(), bytes);
    return elements;
  }

 private:
  void read(void* to, std::size_t bytes) {
    if (!file_.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes))) {
      std::fputs("replay: the file ends inside a case\n", stderr);
      std::exit(2);
    }
  }
  std::ifstream file_;
};

std::string case_name;
int failures = 0;

void expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("%s: %s\n", case_name.c_str(), what.c_str());
}

// ---- elements, compared by their bits ----

std::uint64_t infinity_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return 0x7ff0000000000000;
    case DType::kFloat16:
      return 0x7c00;
    case DType::kBFloat16:
      return 0x7f80;
    case DType::kFloat32:
      break;
  }
  return 0x7f800000;
}

// NaNs are alike, and zeros of either sign where `any_zero`.
void expect_same(DType dtype, const Bytes& got, const Bytes& expected, bool any_zero,
                 const std::string& what) {
  const auto size = static_cast<std::size_t>(size_of(dtype));
  const std::uint64_t sign = std::uint64_t{1} << (8 * size - 1), infinity = infinity_of(dtype);
  expect(got.size() == expected.size(), what + " of another size");
  for (std::size_t at = 0; at < got.size(); at += size) {
    std::uint64_t a = 0, b = 0;  // little-endian
    std::memcpy(&a, &got[at], size);
    std::memcpy(&b, &expected[at], size);
    const std::uint64_t x = a & ~sign, y = b & ~sign;
    if (a == b || (x > infinity && y > infinity) || (any_zero && x == 0 && y == 0)) continue;
    char where[96];
    std::snprintf(where, sizeof(where), " %zu is %llx, expected %llx", at / size,
                  static_cast<unsigned long long>(a), static_cast<unsigned long long>(b));
    return expect(false, what + where);
  }
}

// ---- pooling, gather and scatter ----

enum class Kind { kMap, kRegions, kStride1, kWindows, kSpans, kFaults };

struct Case {
  Kind kind;
  DType dtype;
  std::vector<FeatureMap> maps;
  std::vector<Bytes> data;     // of the maps
  Numbers levels;              // encoded, or sizes of kernels
  bool flag;                   // whether levels are derived, or a cascade
  std::vector<double> scales;  // of the maps
  Regions regions;             // and what they point to:
  Bytes rois;
  Numbers map_indices;
  Bytes values;  // what is expected
  std::vector<std::int32_t> argmax;
  Bytes grad_output;
  std::vector<Bytes> grad_inputs;  // for each map; empty when none are expected
};

void read_regions(Reader& from, Case& c) {
  c.regions.dtype = static_cast<DType>(from.number());
  c.regions.convention = static_cast<RoiConvention>(from.number());
  c.rois = from.array();
  c.map_indices = from.array<std::int64_t>();
  c.regions.rois = c.rois.data();
  c.regions.count = static_cast<std::int64_t>(c.rois.size()) / (5 * size_of(c.regions.dtype));
  c.regions.map_indices = c.map_indices.empty() ? nullptr : c.map_indices.data();
  c.scales = from.array<double>();
  c.regions.num_maps = static_cast<std::int64_t>(c.scales.size());
}

void read_case(Reader& from, Case& c) {
  c.dtype = static_cast<DType>(from.number());
  const std::int64_t maps = from.number();
  for (std::int64_t m = 0; m < maps; ++m) {
    FeatureMap map{};
    map.dtype = c.dtype;
    map.layout = static_cast<Layout>(from.number());
    for (std::int64_t* size : {&map.batch, &map.channels, &map.height, &map.width}) {
      *size = from.number();
    }
    c.data.push_back(from.array());
    map.data = c.data.back().data();  // which stays where it is when the vector grows
    c.maps.push_back(map);
  }
  c.levels = from.array<std::int64_t>();
  c.flag = from.number() != 0;
  if (c.kind == Kind::kRegions) read_regions(from, c);
  c.values = from.array();
  c.argmax = from.array<std::int32_t>();
  c.grad_output = from.array();
  for (std::int64_t m = 0; m < maps; ++m) c.grad_inputs.push_back(from.array());
}

void pool(const Case& c, const Pyramid& pyramid, void* values, std::int32_t* argmax,
          const cpu::Executor& executor) {
  if (c.kind == Kind::kMap) {
    cpu::pool_map({c.maps[0], pyramid.view(), values, argmax}, executor);
  } else if (c.kind == Kind::kRegions) {
    cpu::pool_regions({c.maps.data(), c.scales.data(), c.regions, pyramid.view(), values, argmax},
                      executor);
  } else {
    const auto kernels = static_cast<std::int32_t>(c.levels.size());
    cpu::pool_stride1({c.maps[0], c.levels.data(), kernels, c.flag, values, argmax}, executor);
  }
}

// The rows of output: the order of their numbers, and their levels.
RowOrder rows_of(const Case& c, const Pyramid& pyramid, std::vector<RowLevel>& levels) {
  const FeatureMap& map = c.maps[0];
  if (c.kind != Kind::kStride1) {
    for (const Level& level : pyramid.levels()) levels.push_back(level.in_row());
    return pyramid.view().row_order(map.channels);
  }
  const auto cells = static_cast<std::int32_t>(map.cells());
  const auto blocks = static_cast<std::int32_t>(c.levels.size()) + 1;
  for (std::int32_t block = 0; block < blocks; ++block) levels.push_back({block * cells, cells});
  return {map.channels, std::int64_t{blocks} * cells, blocks, map.layout};
}

void run(const Case& c, const cpu::Executor& executor) {
  constexpr char kUnwritten = 0x5a;
  const Pyramid pyramid = c.kind == Kind::kStride1
                              ? Pyramid(Numbers{1, 1}.data(), 2)
                              : Pyramid(c.levels.data(), c.levels.size(), c.flag);
  Bytes values(c.values.size(), kUnwritten);
  pool(c, pyramid, values.data(), nullptr, executor);
  expect_same(c.dtype, values, c.values, true, "value without argmax");

  values.assign(values.size(), kUnwritten);
  std::vector<std::int32_t> argmax(c.argmax.size(), -2);
  pool(c, pyramid, values.data(), argmax.data(), executor);
  expect_same(c.dtype, values, c.values, false, "value");
  for (std::size_t i = 0; i < argmax.size(); ++i) {
    if (argmax[i] == c.argmax[i]) continue;
    expect(false, "argmax " + std::to_string(i) + " is " + std::to_string(argmax[i]) +
                      ", expected " + std::to_string(c.argmax[i]));
    break;
  }

  std::vector<RowLevel> levels;
  const RowOrder order = rows_of(c, pyramid, levels);
  const bool of_regions = c.kind == Kind::kRegions;
  LinearParams linear{c.argmax.data(), of_regions ? c.regions.count : c.maps[0].batch,
                      of_regions ? &c.regions : nullptr, order, levels.data()};
  values.assign(values.size(), kUnwritten);
  expect(cpu::gather({linear, c.maps.data(), values.data()}, executor) == -1,
         "gather finds a fault");
  expect_same(c.dtype, values, c.values, false, "gathered value");

  if (c.grad_output.empty()) return;
  std::vector<Bytes> grad_inputs;
  std::vector<void*> grads;
  for (const Bytes& expected : c.grad_inputs) {
    grad_inputs.emplace_back(expected.size(), kUnwritten);
    grads.push_back(grad_inputs.back().data());
  }
  const auto scatter = [&] {
    return cpu::scatter({linear, c.grad_output.data(), c.maps.data(), grads.data()}, executor);
  };
  expect(scatter() == -1, "scatter finds a fault");
  for (std::size_t m = 0; m < grads.size(); ++m) {
    expect_same(c.dtype, grad_inputs[m], c.grad_inputs[m], true, "gradient");
  }

  // Neither touches what a forged argmax names, and both say where it is.
  argmax = c.argmax;
  argmax.back() = kInt32Max;
  linear.argmax = argmax.data();
  const auto last = static_cast<std::int64_t>(argmax.size()) - 1;
  expect(cpu::gather({linear, c.maps.data(), values.data()}, executor) == last,
         "gather misses a fault");
  expect(scatter() == last, "scatter misses a fault");
}

// ---- geometry ----

// Rows of height, width and the window y0, y1, x0, x1 that is expected of each region.
void check_windows(const Case& c, const Numbers& rows) {
  for (std::int64_t k = 0; k < c.regions.count; ++k) {
    const std::int64_t* const row = &rows[k * 6];
    const Window window = roi_window(c.regions, k, c.scales[0], row[0], row[1]);
    const bool same = window.rows.begin == row[2] && window.rows.end == row[3] &&
                      window.cols.begin == row[4] && window.cols.end == row[5];
    expect(same, "window " + std::to_string(k));
  }
}

// Rows of begin, end, divisions, length, edges and the span that is expected.
void check_spans(const Numbers& rows) {
  for (std::size_t at = 0; at < rows.size(); at += 7) {
    const std::int64_t* const row = &rows[at];
    const Span span =
        bin_span(row[0], row[1], row[2], {0, row[3]}, static_cast<BinEdges>(row[4]), kInt32Max);
    expect(span.begin == row[5] && span.end == row[6], "span " + std::to_string(at / 7));
  }
}

// N, and the kind, row and column of the fault that is expected.
void check_fault(const Case& c, const Numbers& row) {
  const cpu::RoiFault fault = cpu::find_roi_fault(c.regions, row[0]);
  expect(static_cast<std::int64_t>(fault.kind) == row[1] && fault.row == row[2] &&
             fault.column == row[3],
         "another fault");
}

void one_after_another_backwards(std::int64_t tasks, void (*body)(std::int64_t, void*),
                                 void* context) {
  while (tasks > 0) body(--tasks, context);
}

void replay(Reader& from) {
  const Bytes name = from.array();
  case_name.assign(name.begin(), name.end());
  Case c{};
  c.kind = static_cast<Kind>(from.number());
  if (c.kind == Kind::kSpans) return check_spans(from.array<std::int64_t>());
  if (c.kind == Kind::kWindows || c.kind == Kind::kFaults) {
    read_regions(from, c);
    const Numbers expected = from.array<std::int64_t>();
    return c.kind == Kind::kWindows ? check_windows(c, expected) : check_fault(c, expected);
  }
  read_case(from, c);
  run(c, {});
  run(c, {3, one_after_another_backwards});
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fputs("replay: expected the name of a file of cases\n", stderr);
    return 2;
  }
  Reader file(arguments[1]);
  int cases = 0;
  for (; !file.at_end(); ++cases) replay(file);
  std::printf("%s: %d cases, %d differences\n", cpu::instruction_set(), cases, failures);
  return failures == 0 && cases > 0 ? 0 : 1;
}
