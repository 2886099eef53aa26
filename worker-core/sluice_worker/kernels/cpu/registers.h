// Vectors of one register in GCC's vector extensions: 16 lanes with AVX-512, 8 with AVX2, else 4.
//
// Operations are written in these types. An intrinsic stands only where the compiler would not find the
// instruction, beside plain code that does the same. Larger vectors would have one size everywhere, but where
// a register is smaller, the compiler keeps what a loop carries in memory.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifndef SLUICE_ISA
#define SLUICE_ISA plain
#endif
#define SLUICE_INLINE static inline __attribute__((always_inline))
#define SLUICE_UNROLL _Pragma("GCC unroll 16")

namespace sluice::SLUICE_ISA {

#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX2__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif
constexpr int kLanes = kRegisterBytes / 4;

typedef float Floats __attribute__((vector_size(kRegisterBytes)));
typedef int32_t Ints __attribute__((vector_size(kRegisterBytes)));
typedef uint32_t Words __attribute__((vector_size(kRegisterBytes)));
typedef uint16_t Halves __attribute__((vector_size(kRegisterBytes / 2)));
typedef int8_t Bytes __attribute__((vector_size(kRegisterBytes / 4)));

// The upper half of a float32.
struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

template <class V>
SLUICE_INLINE V load_as(const void* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}

SLUICE_INLINE Ints load_register(const void* p) { return load_as<Ints>(p); }
SLUICE_INLINE float as_float(uint32_t bits) { return load_as<float>(&bits); }

SLUICE_INLINE Floats splat(float x) { return Floats{} + x; }

// 0, 1, 2, ... A load, as no code of one instruction set may run when the library is loaded.
template <class V = Ints>
SLUICE_INLINE V lane_index() {
  static constexpr int32_t kIndex[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load_as<V>(kIndex);
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

// The larger one; `b` when either is not a number.
SLUICE_INLINE Floats larger(Floats a, Floats b) {
#if defined(__AVX512F__)
  return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
  return (Floats)_mm_max_ps((__m128)a, (__m128)b);
#else
  return a > b ? a : b;
#endif
}

// Fold the lanes into one with `op`, halves onto each other.
template <class V, class Op>
SLUICE_INLINE auto fold(V v, Op op) {
  SLUICE_UNROLL for (int half = kLanes / 2; half > 0; half /= 2) {
    SLUICE_UNROLL for (int i = 0; i < half; i++) v[i] = op(v[i], v[i + half]);
  }
  return v[0];
}

SLUICE_INLINE float largest(Floats v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#else
  return fold(v, [](float a, float b) { return a > b ? a : b; });
#endif
}
SLUICE_INLINE int32_t largest(Ints v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_epi32((__m512i)v);
#else
  return fold(v, [](int32_t a, int32_t b) { return a > b ? a : b; });
#endif
}

SLUICE_INLINE float sum(Floats v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  return fold(v, [](float a, float b) { return a + b; });
#endif
}
SLUICE_INLINE int32_t sum(Ints v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_epi32((__m512i)v);
#else
  return fold(v, [](int32_t a, int32_t b) { return a + b; });
#endif
}

SLUICE_INLINE bool any(Ints mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)mask) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask) != 0;
#else
  return fold(mask, [](int32_t a, int32_t b) { return a | b; }) != 0;
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
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16((__m256i)w, 8), _mm256_srai_epi16((__m256i)x, 8));
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
  const Words bits = __builtin_convertvector(load_as<Halves>(p), Words), magnitude = bits & 0x7fff;
  // Exponent and fraction move to their places; the factor makes up for the different bias of the exponent.
  const Floats normal = (Floats)(magnitude << 13) * 0x1p112f;
  const Floats subnormal = __builtin_convertvector(magnitude, Floats) * 0x1p-24f;
  const Words value = (Words)(magnitude < 0x400 ? subnormal : normal);
  return (Floats)(value | (bits & 0x8000) << 16);
#endif
}

// Round to nearest, ties to even. Not-a-number stays so in avx512; elsewhere its lowest bits may carry over.
SLUICE_INLINE Halves narrow(Floats v) {
#if defined(__AVX512BF16__)
  return (Halves)_mm512_cvtneps_pbh((__m512)v);
#else
  const Words bits = (Words)v;
  return __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, Halves);
#endif
}

SLUICE_INLINE Floats load(const float* p) { return load_as<Floats>(p); }
SLUICE_INLINE Floats load(const bf16* p) {
  return (Floats)(__builtin_convertvector(load_as<Halves>(p), Words) << 16);
}
SLUICE_INLINE Floats load(const int8_t* p) {
#if defined(__AVX512F__)
  const Ints wide = (Ints)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p));
#elif defined(__AVX2__)
  const Ints wide = (Ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p));
#else
  const Ints wide = __builtin_convertvector(load_as<Bytes>(p), Ints);
#endif
  return __builtin_convertvector(wide, Floats);
}
SLUICE_INLINE void store(float* p, Floats v) { memcpy(p, &v, sizeof v); }
SLUICE_INLINE void store(bf16* p, Floats v) {
  const Halves bits = narrow(v);
  memcpy(p, &bits, sizeof bits);
}

SLUICE_INLINE void store_one(float* p, float x) { *p = x; }
SLUICE_INLINE void store_one(bf16* p, float x) { p->bits = narrow(splat(x))[0]; }

}  // namespace sluice::SLUICE_ISA
