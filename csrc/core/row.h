// The order of the numbers in a row of output, written once for every kernel.
//
// A pooled row has level after level, in a level channel after channel, in a channel bin after bin:
//
//   level 0: [channel 0: bins][channel 1: bins] ...   level 1: [channel 0: bins][channel 1: bins] ...
//
// The levels of stride-1 pools have a bin for every cell of a map. Such a row may also be the image of
// a channels_last map: bin after bin, in a bin level after level, in a level channel after channel.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/integers.h"

namespace spp_ext {

enum class Layout : std::int32_t { kContiguous, kChannelsLast };

// A level of a row: how many bins it has, and how many all levels before it have together.
struct RowLevel {
  std::int32_t first_bin;
  std::int32_t bins;
};

// A number of a row by name. `bin` counts within the level.
struct RowPlace {
  std::int32_t level;
  std::int64_t channel;
  std::int64_t bin;
};

struct RowOrder {
  std::int64_t channels;  // C
  std::int64_t bins;      // B, over all levels
  std::int32_t num_levels;
  Layout layout;

  // Numbers in a row.
  SPP_HOST_DEVICE std::int64_t size() const { return channels * bins; }

  // From a place in a row to its element ...
  SPP_HOST_DEVICE std::int64_t element(const RowLevel& level, const RowPlace& place) const {
    if (layout == Layout::kContiguous) {
      return level.first_bin * channels + place.channel * level.bins + place.bin;
    }
    return (place.bin * num_levels + place.level) * channels + place.channel;
  }

  // ... and back. `level_at(i)` is level i.
  template <class LevelAt>
  SPP_HOST_DEVICE RowPlace place(std::int64_t element, const LevelAt& level_at) const {
    if (layout == Layout::kContiguous) {
      std::int32_t i = 0;
      RowLevel level = level_at(0);
      while (element >= (std::int64_t{level.first_bin} + level.bins) * channels) {
        level = level_at(++i);
      }
      element -= level.first_bin * channels;
      const std::int64_t channel = quotient(element, level.bins);
      return {i, channel, element - channel * level.bins};
    }
    const std::int64_t block = quotient(element, channels);
    const std::int64_t bin = quotient(block, num_levels);
    return {static_cast<std::int32_t>(block - bin * num_levels), element - block * channels, bin};
  }
};

}  // namespace spp_ext
