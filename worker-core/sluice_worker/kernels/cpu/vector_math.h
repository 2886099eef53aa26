// What the operations share beyond `registers.h`: lanes at the end of a row, exponential functions, packed
// pairs of numbers, and loops over rows.
#pragma once

#include <algorithm>
#include <limits>

#include "ops.h"
#include "registers.h"
#include "team.h"

namespace sluice::SLUICE_ISA {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The first `count` lanes, the others 0.
template <class T>
SLUICE_INLINE Floats load(const T* p, int64_t count) {
  if (count == kLanes) return load(p);
  T lanes[kLanes] = {};
  memcpy(lanes, p, count * sizeof(T));
  return load(lanes);
}

template <class T>
SLUICE_INLINE void store(T* p, Floats v, int64_t count) {
  if (count == kLanes) return store(p, v);
  T lanes[kLanes];
  store(lanes, v);
  memcpy(p, lanes, count * sizeof(T));
}

// `v` after a round trip through T.
template <class T>
SLUICE_INLINE Floats rounded(Floats v) {
  T lanes[kLanes];
  store(lanes, v);
  return load(lanes);
}

// Call `visit(first, count)` for every register's worth of `size` numbers; the last count may be smaller.
template <class Visit>
SLUICE_INLINE void for_lanes(int64_t size, Visit visit) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) visit(i, int64_t{kLanes});
  if (i < size) visit(i, size - i);
}

constexpr float kRound = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer, ties to even

SLUICE_INLINE Floats nearest(Floats x) {
#if defined(__AVX512F__)
  return (Floats)_mm512_roundscale_ps((__m512)x, 0);
#else
  return x + kRound - kRound;
#endif
}

constexpr float kLeastPower = -127;  // from here on, powers of two are 0: denormals are flushed

// 2^(n + f) for an integer n of at least kLeastPower and |f| <= 0.5, by a polynomial fitted to its relative
// error, 1.7e-7; exactly 2^n at f = 0.
SLUICE_INLINE Floats power(Floats n, Floats f) {
  Floats p = multiply_add(splat(1.326471567e-3f), f, splat(9.671513923e-3f));
  p = multiply_add(p, f, splat(5.550733954e-2f));
  p = multiply_add(p, f, splat(2.402224243e-1f));
  p = multiply_add(p, f, splat(6.931470037e-1f));
  p = multiply_add(p, f, splat(1.f));
#if defined(__AVX512F__)
  return (Floats)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  return p * (Floats)(((Ints)(n + kRound) - (0x4b400000 - 127)) << 23);
#endif
}

constexpr float kLog2E = 1.44269502f;  // 1.9259630e-8 too small

// 2^x for x below 127; exactly 0 at minus infinity.
SLUICE_INLINE Floats exp2(Floats x) {
  x = larger(x, splat(kLeastPower));
  const Floats n = nearest(x);
  return power(n, x - n);
}

// e^x for x below 88; exactly 1 at 0, and 0 at minus infinity.
SLUICE_INLINE Floats exp(Floats x) {
  x = larger(x, splat(kLeastPower / kLog2E));
  const Floats n = nearest(x * kLog2E);
  return power(n, multiply_add(x, splat(1.9259630e-8f), multiply_add(x, splat(kLog2E), -n)));
}

// Numbers are multiplied in packs of 32 bits: one float, or two bf16 whose products go into the same sum.
template <class T>
constexpr int64_t kPack = 4 / sizeof(T);

template <class T>
SLUICE_INLINE Ints repeat_pack(const T* p) {
  return Ints{} + load_as<int32_t>(p);
}

template <class T>
SLUICE_INLINE Floats dot(Ints x, Ints y, Floats sum) {
  if (sizeof(T) == 4) return multiply_add((Floats)x, (Floats)y, sum);
  return dot_pairs(x, y, sum);
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
