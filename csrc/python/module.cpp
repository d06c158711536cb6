// The part of the library that Python sees without tensors: geometry, the plan of a pyramid, and
// how it was built.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "build_config.h"
#include "core/geometry.h"
#include "core/pyramid.h"

namespace py = pybind11;

namespace spp_ext {
namespace {

using WindowTuple =
    std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>;  // y0, y1, x0, x1

// The conventions that users may name, by number.
constexpr std::int64_t kNumPublicConventions =
    static_cast<std::int64_t>(RoiConvention::kTorchvision);

std::vector<std::string> conventions() {
  return {kConventionNames, kConventionNames + kNumPublicConventions};
}

RoiConvention convention_named(const std::string& name) {
  std::string expected;
  for (std::int64_t i = 0; i < kNumPublicConventions; ++i) {
    if (name == kConventionNames[i]) return static_cast<RoiConvention>(i);
    const bool is_last = i + 1 == kNumPublicConventions;
    expected +=
        (i == 0 ? "" : (is_last ? " or " : ", ")) + ('"' + std::string(kConventionNames[i]) + '"');
  }
  throw std::invalid_argument("expected convention " + expected + ", got \"" + name + "\"");
}

template <class T>
WindowTuple roi_window_of(RoiConvention convention, double x1, double y1, double x2, double y2,
                          double spatial_scale, std::int64_t height, std::int64_t width) {
  const auto scale = static_cast<T>(spatial_scale);
  const Extent rows = roi_extent(convention, static_cast<T>(y1), static_cast<T>(y2), scale, height);
  const Extent cols = roi_extent(convention, static_cast<T>(x1), static_cast<T>(x2), scale, width);
  return {rows.begin, rows.end, cols.begin, cols.end};
}

WindowTuple roi_window(const std::string& convention, double x1, double y1, double x2, double y2,
                       double spatial_scale, std::int64_t height, std::int64_t width,
                       bool float64) {
  const RoiConvention named = convention_named(convention);
  return float64 ? roi_window_of<double>(named, x1, y1, x2, y2, spatial_scale, height, width)
                 : roi_window_of<float>(named, x1, y1, x2, y2, spatial_scale, height, width);
}

std::pair<std::int64_t, std::int64_t> bin_span_of(std::int64_t begin, std::int64_t end,
                                                  std::int64_t divisions, std::int64_t length) {
  if (divisions < 1 || divisions > kMaxDivisions || begin < 0 || begin >= end || end > divisions ||
      length < 0 || length > 2 * static_cast<std::int64_t>(kMaxCoordinate)) {
    throw std::invalid_argument(
        "expected 0 <= begin < end <= divisions <= 2^20 and 0 <= length <= 2^41");
  }
  const Extent extent = bin_extent(begin, end, divisions, length);
  return {extent.begin, extent.end};
}

// The source of each level, -1 for a base level.
std::vector<std::int32_t> plan(const std::vector<std::int64_t>& levels) {
  const Pyramid pyramid(levels.data(), levels.size());
  std::vector<std::int32_t> sources;
  for (const Level& level : pyramid.levels()) sources.push_back(level.source);
  return sources;
}

// How this build was made, for `python -m spp_ext info` and bug reports.
std::map<std::string, std::string> build_info() {
  return {{"version", build::kVersion},
          {"compiler", build::kCompiler},
          {"build type", build::kBuildType},
          {"sanitizer", build::kSanitizer},
          {"platform", build::kPlatform},
          {"instruction sets", build::kInstructionSets},
          {"CUDA", build::kCuda},
          {"torch built against", build::kTorchBuilt},
          {"oldest torch supported", build::kTorchTarget},
          {"pybind11", build::kPybind11}};
}

}  // namespace
}  // namespace spp_ext

PYBIND11_MODULE(_core, module) {
  module.doc() = "Geometry, plan and build information of spp_ext; no tensors.";
  module.def("bin_span", &spp_ext::bin_span_of, py::arg("begin"), py::arg("end"),
             py::arg("divisions"), py::arg("length"),
             "Cells [lo, hi) between two cuts of `divisions` equal parts of `length` cells.");
  module.def(
      "roi_window", &spp_ext::roi_window, py::arg("convention"), py::arg("x1"), py::arg("y1"),
      py::arg("x2"), py::arg("y2"), py::arg("spatial_scale"), py::arg("height"), py::arg("width"),
      py::arg("float64") = false,
      "Window (y0, y1, x0, x1) of a box in feature cells, half open and not clipped to the map.");
  module.def("conventions", &spp_ext::conventions,
             "The names of the conventions for boxes, in the order of their numbers.");
  module.def("plan", &spp_ext::plan, py::arg("levels"),
             "For each level of an encoded pyramid, the level it is merged from, or -1 when it "
             "reads the map.");
  module.def("build_info", &spp_ext::build_info,
             "How the native libraries were built, as a dict of strings.");
}
