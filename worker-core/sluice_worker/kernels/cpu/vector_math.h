// What the operations share beyond `isa.h`: lanes at the end of a row, reductions, the exponential function,
// and packed pairs of numbers.
#pragma once

#include <algorithm>
#include <limits>

#include "isa.h"
#include "ops.h"
#include "team.h"

namespace sluice::SLUICE_ISA {

constexpr int64_t kLanes = 16;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
const i32x16 kLaneIndex = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// The first `count` lanes, the others 0.
template <class T>
SLUICE_INLINE f32x16 load(const T* p, int64_t count) {
  if (count == kLanes) return load(p);
  T lanes[kLanes] = {};
  memcpy(lanes, p, count * sizeof(T));
  return load(lanes);
}

template <class T>
SLUICE_INLINE void store(T* p, f32x16 v, int64_t count) {
  if (count == kLanes) return store(p, v);
  T lanes[kLanes];
  store(lanes, v);
  memcpy(p, lanes, count * sizeof(T));
}

// `v` after a round trip through T.
template <class T>
SLUICE_INLINE f32x16 rounded(f32x16 v) {
  T lanes[kLanes];
  store(lanes, v);
  return load(lanes);
}

// Call `visit(first, count)` for every sixteen of `size` numbers; the last count may be smaller.
template <class Visit>
SLUICE_INLINE void for_lanes(int64_t size, Visit visit) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) visit(i, kLanes);
  if (i < size) visit(i, size - i);
}

// The larger one; `b` when either is not a number.
SLUICE_INLINE f32x16 larger(f32x16 a, f32x16 b) {
#if defined(__AVX512F__)
  return (f32x16)_mm512_max_ps((__m512)a, (__m512)b);
#else
  return a > b ? a : b;
#endif
}

SLUICE_INLINE float largest(f32x16 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#else
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) v[i] = v[i] > v[i + half] ? v[i] : v[i + half];
  return v[0];
#endif
}

SLUICE_INLINE float sum(f32x16 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) v[i] += v[i + half];
  return v[0];
#endif
}

// e^x for x below 88, with a relative error of 1.5e-7; exactly 1 at 0, exactly 0 below -88.1 (and at minus
// infinity). x = n ln 2 + f with |f| <= ln 2 / 2, and e^f by a polynomial fitted to its relative error.
SLUICE_INLINE f32x16 exp(f32x16 x) {
  x = larger(x, splat(-88.1f));
  const f32x16 shifted = fma(x, splat(1.44269504f), splat(12582912.f));  // 1.5 * 2^23: rounds to an integer
  const f32x16 n = shifted - 12582912.f;
  const f32x16 f = fma(n, splat(-1.42860677e-6f), fma(n, splat(-0.693145752f), x));
  f32x16 p = fma(splat(1.381453790e-3f), f, splat(8.368745320e-3f));
  p = fma(p, f, splat(4.166839083e-2f));
  p = fma(p, f, splat(1.666652040e-1f));
  p = fma(p, f, splat(4.999999343e-1f));
  p = fma(p, f * f, f) + 1.f;
  return p * (f32x16)(((i32x16)shifted - (0x4b400000 - 127)) << 23);
}

// Numbers are multiplied in packs of 32 bits: one float, or two bf16 whose products go into the same sum.
template <class T>
constexpr int64_t kPack = 4 / sizeof(T);

struct Pairs {
  i32x16 bits;
};

SLUICE_INLINE f32x16 load_packs(const float* p) { return load(p); }
SLUICE_INLINE Pairs load_packs(const bf16* p) {
  Pairs v;
  memcpy(&v, p, sizeof v);
  return v;
}

SLUICE_INLINE f32x16 repeat_pack(const float* p) { return splat(*p); }
SLUICE_INLINE Pairs repeat_pack(const bf16* p) {
  int32_t bits;
  memcpy(&bits, p, sizeof bits);
  return {i32x16{} + bits};
}

SLUICE_INLINE f32x16 dot(f32x16 x, f32x16 y, f32x16 sum) { return fma(x, y, sum); }
SLUICE_INLINE f32x16 dot(Pairs x, Pairs y, f32x16 sum) {
#if defined(__AVX512BF16__)
  return (f32x16)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x.bits, (__m512bh)y.bits);
#else
  const i32x16 upper = i32x16{} + int32_t(0xffff0000);
  sum = fma((f32x16)(x.bits << 16), (f32x16)(y.bits << 16), sum);
  return fma((f32x16)(x.bits & upper), (f32x16)(y.bits & upper), sum);
#endif
}

// `run(float{})` or `run(bf16{})`.
template <class Run>
void with_type(int64_t dtype, Run run) {
  dtype == kBFloat16 ? run(bf16{}) : run(float{});
}

// Run `work(row)` for every row of `size` numbers, in items that are worth a thread's while.
template <class Work>
void parallel_rows(int64_t rows, int64_t size, Work work) {
  const int64_t step = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, size));
  parallel((rows + step - 1) / step, [=](int64_t item) {
    for (int64_t row = item * step; row < std::min(rows, (item + 1) * step); row++) work(row);
  });
}

}  // namespace sluice::SLUICE_ISA
