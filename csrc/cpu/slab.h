// Planes of a map as lanes: a slab [cells][lanes], copied from a map in either layout.
#pragma once

#include <cstdint>

#include "core/params.h"
#include "cpu/lanes.h"
#include "cpu/nans.h"
#include "cpu/pool_job.h"

namespace spp_ext::cpu::SPP_ISA {
namespace {

// Copies rows of a unit's planes into slab[cells][vectors] of lanes, and says whether a NaN is among
// them. Lanes without a plane hold anything.
template <int vectors, class S>
bool load_slab(const FeatureMap& input, const ChannelUnit& unit, Span rows, Value<S>* slab) {
  constexpr int n = kLanes<S>;
  const S* const data = static_cast<const S*>(input.data);
  const S* const image = data + unit.image * input.channels * input.cells();
  const S* const end = data + input.batch * input.channels * input.cells();
  const std::int64_t cells = (rows.end - rows.begin) * input.width;
  const std::int64_t first_cell = rows.begin * input.width;
  NansDetected<Value<S>, true> nans;
  const auto channels_of = [&](int v) {
    const std::int64_t left = unit.channels - v * n;
    return left < n ? left : n;
  };
  if (input.layout == Layout::kChannelsLast) {
    const S* at = image + first_cell * input.channels + unit.first_channel;
    for (std::int64_t cell = 0; cell < cells; ++cell, at += input.channels) {
      for (int v = 0; v < vectors; ++v) {
        const std::int64_t channels = channels_of(v);
        const Value<S> lanes =
            channels == n ? load(at + v * n) : load_first(at + v * n, channels, end);
        nans.note(lanes, lanes);
        slab[cell * vectors + v] = lanes;
      }
    }
    return nans.seen();
  }
  for (int v = 0; v < vectors; ++v) {
    const std::int64_t channels = channels_of(v);
    for (std::int64_t cell = 0; cell < cells; cell += n) {
      Value<S> square[n];
      for (int lane = 0; lane < n; ++lane) {
        const std::int64_t channel = unit.first_channel + v * n + (lane < channels ? lane : 0);
        const S* at = image + channel * input.cells() + first_cell + cell;
        square[lane] = cell + n <= cells ? load(at) : load_first(at, cells - cell, end);
      }
      for (int lane = 0; lane < n; lane += 2) nans.note(square[lane], square[lane + 1]);
      transpose(square);
      for (int x = 0; x < n; ++x) slab[(cell + x) * vectors + v] = square[x];
    }
  }
  return nans.seen();
}

}  // namespace
}  // namespace spp_ext::cpu::SPP_ISA
