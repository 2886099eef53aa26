// Vectors of sixteen floats in GCC's vector extensions: one AVX-512, two AVX2 or four NEON/SSE registers.
//
// Operations are written in these types. An intrinsic stands only where the compiler would not find the
// instruction, beside plain code that does the same.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef SLUICE_ISA
#define SLUICE_ISA plain
#endif
#define SLUICE_INLINE static inline __attribute__((always_inline))

namespace sluice::SLUICE_ISA {

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));

// The upper half of a float32.
struct bf16 {
  uint16_t bits;
};

SLUICE_INLINE f32x16 splat(float x) { return f32x16{} + x; }

SLUICE_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
#if defined(__AVX512F__)
  return (f32x16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  union Halves {
    f32x16 whole;
    __m256 half[2];
  } x{a}, y{b}, z{c};
  z.half[0] = _mm256_fmadd_ps(x.half[0], y.half[0], z.half[0]);
  z.half[1] = _mm256_fmadd_ps(x.half[1], y.half[1], z.half[1]);
  return z.whole;
#else
  return a * b + c;
#endif
}

SLUICE_INLINE f32x16 widen(u16x16 bits) { return (f32x16)(__builtin_convertvector(bits, u32x16) << 16); }

// Round to nearest, ties to even. Not-a-number stays so in avx512; elsewhere its lowest bits may carry over.
SLUICE_INLINE u16x16 narrow(f32x16 v) {
#if defined(__AVX512BF16__)
  return (u16x16)_mm512_cvtneps_pbh((__m512)v);
#else
  const u32x16 bits = (u32x16)v;
  return __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, u16x16);
#endif
}

SLUICE_INLINE f32x16 load(const float* p) {
  f32x16 v;
  memcpy(&v, p, sizeof v);
  return v;
}
SLUICE_INLINE f32x16 load(const bf16* p) {
  u16x16 v;
  memcpy(&v, p, sizeof v);
  return widen(v);
}
SLUICE_INLINE void store(float* p, f32x16 v) { memcpy(p, &v, sizeof v); }
SLUICE_INLINE void store(bf16* p, f32x16 v) {
  const u16x16 bits = narrow(v);
  memcpy(p, &bits, sizeof bits);
}

SLUICE_INLINE float to_float(float x) { return x; }
SLUICE_INLINE float to_float(bf16 x) {
  const uint32_t bits = uint32_t{x.bits} << 16;
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}
SLUICE_INLINE void store_one(float* p, float x) { *p = x; }
SLUICE_INLINE void store_one(bf16* p, float x) { p->bits = narrow(splat(x))[0]; }

}  // namespace sluice::SLUICE_ISA
