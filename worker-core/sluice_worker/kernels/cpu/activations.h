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

// The largest |x|, or not-a-number if there is one: positive floats have the order of their bits.
SLUICE_INLINE Ints larger_magnitude(Ints largest, Floats x) {
  const Ints bits = (Ints)x & 0x7fffffff;
  return bits > largest ? bits : largest;
}

SLUICE_INLINE float largest_magnitude(Ints v) { return as_float(largest(v)); }

// x / scale for a scale of max |x| / 127. A row of practically nothing counts as zero.
SLUICE_INLINE float inverse_scale(float magnitude) { return magnitude < 1e-30f ? 0.f : 127.f / magnitude; }

// Write a register's worth of codes, rounded to nearest, ties to even; return them.
SLUICE_INLINE Ints quantize(Floats x, float inverse, void* codes) {
  const Ints rounded = (Ints)multiply_add(x, splat(inverse), splat(kRound)) - 0x4b400000;
  const Bytes bytes = __builtin_convertvector(rounded, Bytes);
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
  Ints bits = {}, sums = {};
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
    const int64_t size = std::min(kGroup, inputs - i);
    Ints bits = {}, sums = {};
    for_lanes(size, [&](int64_t j, int64_t count) { bits = larger_magnitude(bits, load(x + i + j, count)); });
    const float magnitude = largest_magnitude(bits), inverse = inverse_scale(magnitude);
    memset(image, 0, kGroup);
    for_lanes(size, [&](int64_t j, int64_t count) {
      sums += quantize(load(x + i + j, count), inverse, image + j / 4);
    });
    finish_codes(image + kGroup / 4, int32_t(-Format::kOffset) * sum(sums), magnitude / 127.f);
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
