// From weights of floats to codes and scales: `quant/weights.py` in C++, bit for bit.
//
// Plain loops over groups of 32, which the compiler turns into vectors. Sums are double, so that their order
// is of no consequence.
#pragma once

#include "weight_pack.h"

namespace sluice::SLUICE_ISA {

// Steps tried for a group of 4-bit codes, relative to the one at which its largest weight becomes -8.
constexpr float kStretches[] = {0.9f, 1.f, 1.1f};

SLUICE_INLINE float widen(float x) { return x; }
SLUICE_INLINE float widen(bf16 x) { return as_float(uint32_t(x.bits) << 16); }

// To the nearest float16, ties to even. Float32's own addition does the rounding: adding `anchor` leaves as
// many bits of x as float16 has there.
SLUICE_INLINE uint16_t half_bits(float x) {
  const float size = std::fabs(x);
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  if (!(size < 65520.f)) return sign | (size >= 65520.f ? 0x7c00 : 0x7e00);
  uint32_t bits;
  if (size < 0x1p-14f) {  // subnormal: multiples of 2^-24
    const float anchored = size + 0.5f;
    memcpy(&bits, &anchored, 4);
    return sign | uint16_t(bits - 0x3f000000);
  }
  memcpy(&bits, &size, 4);
  return sign | uint16_t((bits + 0xfff + (bits >> 13 & 1) - 0x38000000) >> 13);
}

// The next 32 weights of a row, zeros after its end.
template <class T>
SLUICE_INLINE void read_group(const T* x, int64_t count, float* values) {
  for (int64_t i = 0; i < kGroup; i++) values[i] = 0;
  if (count >= kGroup)
    for (int64_t i = 0; i < kGroup; i++) values[i] = widen(x[i]);
  else
    for (int64_t i = 0; i < count; i++) values[i] = widen(x[i]);
}

// Positive floats have the order of their bits, and the compiler makes vectors of integer comparisons only.
SLUICE_INLINE float largest_of(const float* values) {
  uint32_t largest = 0, bits[kGroup];
  memcpy(bits, values, sizeof bits);
  for (int64_t i = 0; i < kGroup; i++) largest = std::max(largest, bits[i] & 0x7fffffff);
  return as_float(largest);
}

// values / scale, rounded to nearest (by adding 1.5 * 2^23), within bounds; zeros for a scale of zero.
SLUICE_INLINE void divide(const float* values, float scale, float lowest, float highest, float* codes) {
  for (int64_t i = 0; i < kGroup; i++) {
    const float exact = scale == 0 ? 0.f : values[i] / scale;
    const float code = exact + 12582912.f - 12582912.f;
    codes[i] = code < lowest ? lowest : code > highest ? highest : code;
  }
}

SLUICE_INLINE void write_codes(const float* codes, int64_t count, int8_t* out) {
  for (int64_t i = 0; i < std::min(count, kGroup); i++) out[i] = int8_t(codes[i]);
}

// The sum of a group's products with its codes.
SLUICE_INLINE double multiply_codes(const float* values, const float* codes) {
  double lanes[8] = {}, total = 0;
  for (int64_t i = 0; i < kGroup; i += 8)
    for (int64_t lane = 0; lane < 8; lane++) lanes[lane] += double(values[i + lane]) * codes[i + lane];
  for (const double lane : lanes) total += lane;
  return total;
}

SLUICE_INLINE int32_t square_codes(const float* codes) {
  int32_t total = 0;
  for (int64_t i = 0; i < kGroup; i++) total += int32_t(codes[i]) * int32_t(codes[i]);
  return total;
}

// The best of a few scales for 4-bit codes, each refitted to the codes it gives.
SLUICE_INLINE uint16_t fit_int4(const float* values, float* best) {
  const float largest = largest_of(values);
  float extreme = 0;
  for (int64_t i = kGroup - 1; i >= 0; i--) extreme = std::fabs(values[i]) == largest ? values[i] : extreme;
  double least = INFINITY;
  uint16_t best_scale = 0;
  for (const float stretch : kStretches) {
    float codes[kGroup];
    divide(values, extreme / -8 * stretch, -8, 7, codes);
    const double products = multiply_codes(values, codes), squares = square_codes(codes);
    const uint16_t scale = half_bits(float(products / std::max(squares, 1.0)));
    const double used = to_float(f16{scale});
    // The square error less the sum of squared weights, which is the same for all.
    const double error = used * (used * squares - 2 * products);
    if (!(error < least)) continue;
    least = error, best_scale = scale;
    memcpy(best, codes, sizeof codes);
  }
  return best_scale;
}

// One row: codes [inputs], and a float scale, or float16 scales [groups].
template <class T>
void quantize_row(const T* x, int64_t inputs, int64_t format, int8_t* codes, void* scales) {
  float values[kGroup], found[kGroup], whole = 0;
  if (format == kWeightInt8) {
    for (int64_t i = 0; i < inputs; i += kGroup) {
      read_group(x + i, inputs - i, values);
      whole = std::max(whole, largest_of(values));
    }
    *(float*)scales = whole /= 127;
  }
  for (int64_t i = 0; i < inputs; i += kGroup) {
    read_group(x + i, inputs - i, values);
    uint16_t* scale = (uint16_t*)scales + i / kGroup;
    if (format == kWeightInt4Group)
      *scale = fit_int4(values, found);
    else if (format == kWeightInt8Group)
      divide(values, to_float(f16{*scale = half_bits(largest_of(values) / 127)}), -127, 127, found);
    else
      divide(values, whole, -127, 127, found);
    write_codes(found, inputs - i, codes + i);
  }
}

// `weight` [outputs, inputs] to `codes` int8 [outputs, inputs] and `scales`: float [outputs] for int8, float16
// [outputs, groups] for the grouped formats. One of int8, int8 in groups, and int4 without shifts.
inline void quantize_weight(const void* weight, void* codes, void* scales, int64_t outputs, int64_t inputs,
                            int64_t format, int64_t dtype) {
  const int64_t groups = (inputs + kGroup - 1) / kGroup;
  const int64_t pitch = format == kWeightInt8 ? sizeof(float) : groups * sizeof(f16);
  with_type(dtype, [=](auto type) {
    parallel(outputs, [=](int64_t row) {
      quantize_row((const decltype(type)*)weight + row * inputs, inputs, format,
                   (int8_t*)codes + row * inputs, (char*)scales + row * pitch);
    });
  });
}

}  // namespace sluice::SLUICE_ISA
