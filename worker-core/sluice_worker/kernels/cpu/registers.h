// Vectors of one register, for loops that keep many sums: 16 lanes with AVX-512, 8 with AVX2, else 4.
//
// The types of `isa.h` have one size everywhere: where a register is smaller, the compiler keeps what a loop
// carries in memory.
#pragma once

#include "isa.h"

namespace sluice::SLUICE_ISA {

#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX2__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif
constexpr int kRegisterLanes = kRegisterBytes / 4;

typedef float Floats __attribute__((vector_size(kRegisterBytes)));
typedef int32_t Ints __attribute__((vector_size(kRegisterBytes)));
typedef uint32_t Words __attribute__((vector_size(kRegisterBytes)));

struct f16 {
  uint16_t bits;
};

SLUICE_INLINE Ints load_register(const void* p) {
  Ints v;
  memcpy(&v, p, sizeof v);
  return v;
}

SLUICE_INLINE float as_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

SLUICE_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

// Add to each lane the products of its two bfloat16 in `w` and `x`.
SLUICE_INLINE Floats dot_pairs(Ints w, Ints x, Floats sum) {
#if defined(__AVX512BF16__)
  return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x);
#else
  const Ints upper = Ints{} + int32_t(0xffff0000);
  sum = multiply_add((Floats)(w << 16), (Floats)(x << 16), sum);
  return multiply_add((Floats)(w & upper), (Floats)(x & upper), sum);
#endif
}

// Add to each lane the products of its four unsigned bytes in `w` with the four signed ones in `x`.
SLUICE_INLINE Ints dot_bytes(Ints w, Ints x, Ints sum) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
#elif defined(__AVX2__)
  // Even and odd bytes as 16-bit numbers: the instruction for bytes would saturate.
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256((__m256i)w, _mm256_set1_epi16(255)),
                                         _mm256_srai_epi16(_mm256_slli_epi16((__m256i)x, 8), 8));
  const __m256i odd =
      _mm256_madd_epi16(_mm256_srli_epi16((__m256i)w, 8), _mm256_srai_epi16((__m256i)x, 8));
  return sum + (Ints)even + (Ints)odd;
#else
  for (int byte = 0; byte < 4; byte++) sum += (w >> (8 * byte) & 255) * (x << (24 - 8 * byte) >> 24);
  return sum;
#endif
}

SLUICE_INLINE Floats load_register(const f16* p) {
#if defined(__AVX512F__)
  return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__F16C__)
  return (Floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
#else
  typedef uint16_t Halves __attribute__((vector_size(kRegisterBytes / 2)));
  Halves halves;
  memcpy(&halves, p, sizeof halves);
  const Words bits = __builtin_convertvector(halves, Words), magnitude = bits & 0x7fff;
  // Exponent and fraction move to their places; the factor makes up for the different bias of the exponent.
  const Floats normal = (Floats)(magnitude << 13) * 0x1p112f;
  const Floats subnormal = __builtin_convertvector(magnitude, Floats) * 0x1p-24f;
  const Words value = (Words)(magnitude < 0x400 ? subnormal : normal);
  return (Floats)(value | (bits & 0x8000) << 16);
#endif
}

}  // namespace sluice::SLUICE_ISA
