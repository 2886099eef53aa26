// Rows of activations in the form that packed weights are multiplied with.
//
// A *row image* is a row as 4-byte units, as the weight's format wants them:
//
//   Float32    one float a unit
//   BFloat16   two bfloat16 a unit
//   Int8       four codes a unit; at the end the surplus and the scale of the row
//   others     for each group of 32 inputs 8 units of codes, their surplus and their scale
//
// Codes are symmetric 8-bit: scale = max |x| / 127, over the row or over the group of 32. The surplus is
// -offset * (sum of codes), see `weight_formats.h`. Images of the R rows of a tile are interleaved,
// [units][R], so that a tile is one stream too.
#pragma once

#include <vector>

#include "weight_formats.h"

namespace sluice::SLUICE_ISA {

// Memory that the calling thread keeps between operations; valid until its next call with this `Slot`.
template <int Slot>
uint32_t* scratch(int64_t units) {
  thread_local std::vector<uint32_t> memory;
  if (int64_t(memory.size()) < units) memory.resize(units);
  return memory.data();
}

SLUICE_INLINE int32_t sum(i32x16 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_epi32((__m512i)v);
#else
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) v[i] += v[i + half];
  return v[0];
#endif
}

// The largest |x|, or not-a-number if there is one: positive floats have the order of their bits.
SLUICE_INLINE i32x16 larger_magnitude(i32x16 largest, f32x16 x) {
  const i32x16 bits = (i32x16)x & 0x7fffffff;
  return bits > largest ? bits : largest;
}

SLUICE_INLINE float largest_magnitude(i32x16 v) {
#if defined(__AVX512F__)
  return as_float(_mm512_reduce_max_epi32((__m512i)v));
#else
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) v[i] = v[i] > v[i + half] ? v[i] : v[i + half];
  return as_float(v[0]);
#endif
}

// x / scale for a scale of max |x| / 127. A row of practically nothing counts as zero.
SLUICE_INLINE float inverse_scale(float magnitude) { return magnitude < 1e-30f ? 0.f : 127.f / magnitude; }

// Write sixteen codes, rounded to nearest, ties to even; return them. Adding 1.5 * 2^23 rounds to an integer.
SLUICE_INLINE i32x16 quantize(f32x16 x, float inverse, void* codes) {
  const i32x16 rounded = (i32x16)fma(x, splat(inverse), splat(12582912.f)) - 0x4b400000;
  typedef int8_t i8x16 __attribute__((vector_size(16)));
  const i8x16 bytes = __builtin_convertvector(rounded, i8x16);
  memcpy(codes, &bytes, sizeof bytes);
  return rounded;
}

SLUICE_INLINE void finish_codes(uint32_t* units, int32_t surplus, float scale) {
  memcpy(units, &surplus, 4);
  memcpy(units + 1, &scale, 4);
}

// Units at the end of a row image that belong to the whole row.
template <class Format>
constexpr int64_t kTailUnits = std::is_same_v<Format, Int8> ? 2 : 0;

template <class Format>
int64_t image_steps(int64_t inputs) {
  return (inputs + Format::kStepInputs - 1) / Format::kStepInputs;
}

template <class Format>
int64_t image_units(int64_t inputs) {
  return image_steps<Format>(inputs) * Format::kStepUnits + kTailUnits<Format>;
}

// Images are written in whole vectors: up to so many units behind one may be overwritten.
constexpr int64_t kSlack = 16;

template <class T>
void write_image(Float32, const T* x, int64_t inputs, uint32_t* image) {
  for_lanes(inputs, [=](int64_t i, int64_t count) { store((float*)image + i, load(x + i, count)); });
}

template <class T>
void write_image(BFloat16, const T* x, int64_t inputs, uint32_t* image) {
  for_lanes(inputs, [=](int64_t i, int64_t count) { store((bf16*)image + i, load(x + i, count)); });
}

template <class T>
void write_image(Int8, const T* x, int64_t inputs, uint32_t* image) {
  i32x16 bits = {}, sums = {};
  for_lanes(inputs, [&](int64_t i, int64_t count) { bits = larger_magnitude(bits, load(x + i, count)); });
  const float magnitude = largest_magnitude(bits), inverse = inverse_scale(magnitude);
  for_lanes(inputs, [&](int64_t i, int64_t count) {
    sums += quantize(load(x + i, count), inverse, image + i / 4);
  });
  finish_codes(image + image_steps<Int8>(inputs), int32_t(-Int8::kOffset) * sum(sums), magnitude / 127.f);
}

template <class Format, class T>
void write_image(Format, const T* x, int64_t inputs, uint32_t* image) {
  for (int64_t i = 0; i < inputs; i += kGroup, image += Format::kStepUnits) {
    const f32x16 low = load(x + i, std::min(kLanes, inputs - i));
    const f32x16 high = load(x + i + kLanes, std::clamp<int64_t>(inputs - i - kLanes, 0, kLanes));
    const float magnitude = largest_magnitude(larger_magnitude(larger_magnitude(i32x16{}, low), high));
    const float inverse = inverse_scale(magnitude);
    const i32x16 codes = quantize(low, inverse, image) + quantize(high, inverse, image + 4);
    finish_codes(image + kGroup / 4, int32_t(-Format::kOffset) * sum(codes), magnitude / 127.f);
  }
}

// The images of `rows` rows, interleaved: [units][rows].
template <class Format, class T>
void write_tile(const T* x, int64_t rows, int64_t inputs, uint32_t* tile) {
  const int64_t units = image_units<Format>(inputs), pitch = units + kSlack;
  uint32_t* images = scratch<1>(rows * pitch);
  for (int64_t row = 0; row < rows; row++)
    write_image(Format{}, x + row * inputs, inputs, images + row * pitch);
  for (int64_t first = 0; first < units; first += 16)
    for (int64_t row = 0; row < rows; row++)
      for (int64_t unit = first; unit < std::min(first + 16, units); unit++)
        tile[unit * rows + row] = images[row * pitch + unit];
}

}  // namespace sluice::SLUICE_ISA
