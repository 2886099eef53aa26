// Between row-major weights and the panels of `weight_formats.h`.
//
// A row-major weight is [outputs, inputs] of float, of bfloat16, or of one signed byte a code; grouped codes
// have scales, and perhaps shifts, [outputs, groups] in float16. Int8's scales are no part of its panels.
#pragma once

#include "linear.h"

namespace sluice::SLUICE_ISA {

// Inputs in one unit, and the bytes a row-major input takes.
template <class Format>
constexpr int64_t kUnitInputs = Format::kStepInputs / Format::kCodeUnits;
template <class Format>
constexpr int64_t kInputBytes = 4 / kUnitInputs<Format>;

// Unit `unit` of output `lane` in a step: set to, or read as, four bytes of the row-major weight.
template <class Format>
SLUICE_INLINE void set_unit(Format, uint8_t* step, int64_t unit, int64_t lane, uint32_t bits) {
  ((uint32_t*)step)[kPanel * unit + lane] = bits ^ uint32_t(Format::kOffset * 0x01010101);
}
template <class Format>
SLUICE_INLINE uint32_t get_unit(Format, const uint8_t* step, int64_t unit, int64_t lane) {
  return ((const uint32_t*)step)[kPanel * unit + lane] ^ uint32_t(Format::kOffset * 0x01010101);
}

template <bool Shift>
SLUICE_INLINE void set_unit(Int4<Shift>, uint8_t* step, int64_t unit, int64_t lane, uint32_t bits) {
  uint32_t& both = ((uint32_t*)step)[kPanel * (unit / 2) + lane];
  const uint32_t nibbles = (bits & 0x0f0f0f0f) ^ 0x08080808;
  both = unit % 2 ? both | nibbles << 4 : nibbles;
}
template <bool Shift>
SLUICE_INLINE uint32_t get_unit(Int4<Shift>, const uint8_t* step, int64_t unit, int64_t lane) {
  const uint32_t both = ((const uint32_t*)step)[kPanel * (unit / 2) + lane];
  const uint32_t nibbles = (unit % 2 ? both >> 4 : both) & 0x0f0f0f0f;
  return ((nibbles | 0x80808080) - 0x08080808) ^ 0x80808080;  // 8 less in every byte
}

// Units of an output read together: a cache line. Outputs are often a multiple of 4096 bytes apart, so lines
// of different outputs drive each other out of the nearest cache.
constexpr int64_t kLineUnits = 16;

template <class Format>
void pack_panel(const uint8_t* weight, const f16* scales, const f16* shifts, uint8_t* packed, int64_t lanes,
                int64_t inputs) {
  const int64_t steps = image_steps<Format>(inputs), row_bytes = inputs * kInputBytes<Format>;
  const int64_t units = steps * Format::kCodeUnits;
  uint32_t lines[kPanel][kLineUnits] = {};
  memset(packed, 0, steps * Format::kStepBytes);
  for (int64_t first = 0; first < units; first += kLineUnits) {
    const int64_t whole = sizeof lines[0], size = std::clamp<int64_t>(row_bytes - 4 * first, 0, whole);
    if (size < whole) memset(lines, 0, sizeof lines);
    for (int64_t lane = 0; lane < lanes; lane++)
      memcpy(lines[lane], weight + lane * row_bytes + 4 * first, size);
    for (int64_t i = 0, count = std::min(kLineUnits, units - first); i < count; i++) {
      const int64_t step = (first + i) / Format::kCodeUnits, unit = (first + i) % Format::kCodeUnits;
      for (int64_t lane = 0; lane < kPanel; lane++)
        set_unit(Format{}, packed + step * Format::kStepBytes, unit, lane, lines[lane][i]);
    }
  }
  if constexpr (Format::kCodeUnits > 1)
    for (int64_t step = 0; step < steps; step++, packed += Format::kStepBytes)
      for (int64_t lane = 0; lane < lanes; lane++) {
        ((f16*)(packed + Format::kScales))[lane] = scales[lane * steps + step];
        if (Format::kShifts) ((f16*)(packed + Format::kShifts))[lane] = shifts[lane * steps + step];
      }
}

inline void packed_bytes(int64_t outputs, int64_t inputs, int64_t format, void* bytes) {
  with_format(format, [=](auto weight_format) {
    using Format = decltype(weight_format);
    *(int64_t*)bytes = (outputs + kPanel - 1) / kPanel * image_steps<Format>(inputs) * Format::kStepBytes;
  });
}

inline void pack_weight(const void* weight, const void* scales, const void* shifts, void* packed,
                        int64_t outputs, int64_t inputs, int64_t format) {
  with_format(format, [=](auto weight_format) {
    using Format = decltype(weight_format);
    const int64_t steps = image_steps<Format>(inputs), row_bytes = inputs * kInputBytes<Format>;
    parallel((outputs + kPanel - 1) / kPanel, [=](int64_t panel) {
      const int64_t first = panel * kPanel;
      const auto from_first = [=](const void* groups) {
        return groups ? (const f16*)groups + first * steps : nullptr;
      };
      pack_panel<Format>((const uint8_t*)weight + first * row_bytes, from_first(scales), from_first(shifts),
                         (uint8_t*)packed + panel * steps * Format::kStepBytes,
                         std::min(kPanel, outputs - first), inputs);
    });
  });
}

SLUICE_INLINE float to_float(f16 x) {
  f16 lanes[kLanes] = {x};
  return load_register(lanes)[0];
}

// The inputs of one unit as floats, given the step they are in.
SLUICE_INLINE void read_unit(Float32, const uint8_t*, int64_t, uint32_t bits, float, float* values) {
  values[0] = as_float(bits);
}
SLUICE_INLINE void read_unit(BFloat16, const uint8_t*, int64_t, uint32_t bits, float, float* values) {
  values[0] = as_float(bits << 16);
  values[1] = as_float(bits & 0xffff0000);
}
template <class Format>
SLUICE_INLINE void read_unit(Format, const uint8_t* step, int64_t lane, uint32_t bits, float scale,
                             float* values) {
  float shift = 0;
  if constexpr (Format::kCodeUnits > 1) {
    scale = to_float(((const f16*)(step + Format::kScales))[lane]);
    if (Format::kShifts) shift = to_float(((const f16*)(step + Format::kShifts))[lane]);
  }
  for (int i = 0; i < 4; i++) values[i] = scale * (int8_t(bits >> (8 * i)) - 8 * shift);
}

// One output's row-major weights.
template <class Format, class Out>
void unpack_row(const PackedLinear& layer, int64_t output, Out* out) {
  const int64_t steps = image_steps<Format>(layer.inputs), lane = output % kPanel;
  const uint8_t* weight = (const uint8_t*)layer.panels + output / kPanel * steps * Format::kStepBytes;
  const float scale = layer.scales ? layer.scales[output] : 1;
  int64_t input = 0;
  for (int64_t step = 0; step < steps; step++, weight += Format::kStepBytes)
    for (int64_t unit = 0; unit < Format::kCodeUnits; unit++) {
      float values[4];
      read_unit(Format{}, weight, lane, get_unit(Format{}, weight, unit, lane), scale, values);
      for (int64_t i = 0; i < kUnitInputs<Format> && input < layer.inputs; i++)
        store_one(out + input++, values[i]);
    }
}

inline void unpack_rows(const void* layer, const void* indices, void* out, int64_t rows, int64_t out_dtype) {
  const PackedLinear& packed = *(const PackedLinear*)layer;
  with_format(packed.format, [=, &packed](auto weight) {
    with_type(out_dtype, [=, &packed](auto result) {
      parallel(rows, [=, &packed](int64_t row) {
        unpack_row<decltype(weight)>(packed, ((const int64_t*)indices)[row],
                                     (decltype(result)*)out + row * packed.inputs);
      });
    });
  });
}

}  // namespace sluice::SLUICE_ISA
