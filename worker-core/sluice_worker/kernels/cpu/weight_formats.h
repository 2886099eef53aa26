// Layouts of packed weights, and how each is multiplied with activations.
//
// A weight [outputs, inputs] is cut into panels of 32 outputs, the last one padded. A panel is one stream of
// *steps* along the inputs. A step holds the same few inputs of all 32 outputs, so that one vector load holds
// sixteen outputs, to be multiplied with one broadcast 4-byte *unit* of activations:
//
//   Float32      1 input    [32] float                       128 bytes
//   BFloat16     2 inputs   [32][2] bfloat16                 128 bytes
//   Int8         4 inputs   [32][4] codes + 128              128 bytes; one scale per output is kept apart
//   Int8Group    32 inputs  [8][32][4] codes + 128, scales   1024 + 64 bytes
//   Int4<false>  32 inputs  [4][32][4] codes + 8, scales     512 + 64 bytes; high nibbles: the next 4 inputs
//   Int4<true>   32 inputs  the same, then shifts            512 + 128 bytes
//
// Scales and shifts are [32] float16: a weight is scale * (code - 8 * shift). Codes are stored unsigned
// because the byte product is of unsigned with signed bytes. The surplus, offset * (sum of the activations'
// codes), does not depend on the output: every sum starts from its negative.
//
// `multiply<R, C>` adds the products of `steps` steps with R rows to `totals` [R][32]: C * 16 outputs from
// vector `first` of the panel on. The order of additions within one total is the same for every R and C: that
// is what keeps a row's result independent of the rows beside it.
#pragma once

#include "vector_math.h"

namespace sluice::SLUICE_ISA {

constexpr int64_t kPanel = 32;
constexpr int64_t kGroup = 32;

#define SLUICE_UNROLL _Pragma("GCC unroll 12")

SLUICE_INLINE float as_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

SLUICE_INLINE i32x16 load_bits(const uint8_t* p) {
  i32x16 v;
  memcpy(&v, p, sizeof v);
  return v;
}

// Add, to each of sixteen sums, the products of four unsigned bytes of `w` with the four signed bytes of `x`.
SLUICE_INLINE i32x16 dot_bytes(i32x16 w, i32x16 x, i32x16 sum) {
#if defined(__AVX512VNNI__)
  return (i32x16)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
#elif defined(__AVX2__)
  // Even and odd bytes as 16-bit numbers: the instruction for bytes would saturate.
  union Halves {
    i32x16 whole;
    __m256i half[2];
  } weights{w}, activations{x}, sums{sum};
  for (int i = 0; i < 2; i++) {
    const __m256i even = _mm256_and_si256(weights.half[i], _mm256_set1_epi16(255));
    const __m256i odd = _mm256_srli_epi16(weights.half[i], 8);
    const __m256i x_even = _mm256_srai_epi16(_mm256_slli_epi16(activations.half[i], 8), 8);
    const __m256i x_odd = _mm256_srai_epi16(activations.half[i], 8);
    const __m256i products = _mm256_add_epi32(_mm256_madd_epi16(even, x_even), _mm256_madd_epi16(odd, x_odd));
    sums.half[i] = _mm256_add_epi32(sums.half[i], products);
  }
  return sums.whole;
#else
  for (int byte = 0; byte < 4; byte++) sum += (w >> (8 * byte) & 255) * (x << (24 - 8 * byte) >> 24);
  return sum;
#endif
}

struct f16 {
  uint16_t bits;
};

SLUICE_INLINE f32x16 load(const f16* p) {
#if defined(__AVX512F__)
  return (f32x16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__F16C__)
  union Halves {
    __m256 half[2];
    f32x16 whole;
  } v;
  for (int i = 0; i < 2; i++) v.half[i] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p + i));
  return v.whole;
#else
  u16x16 halves;
  memcpy(&halves, p, sizeof halves);
  const u32x16 bits = __builtin_convertvector(halves, u32x16), magnitude = bits & 0x7fff;
  // Exponent and fraction move to their places; the factor makes up for the different bias of the exponent.
  const f32x16 normal = (f32x16)(magnitude << 13) * 0x1p112f;
  const f32x16 subnormal = __builtin_convertvector(magnitude, f32x16) * 0x1p-24f;
  const u32x16 value = (u32x16)(magnitude < 0x400 ? subnormal : normal);
  return (f32x16)(value | (bits & 0x8000) << 16);
#endif
}

// Rows of a tile at most: as many as have their sums in registers together. Grouped formats keep two sums.
#if defined(__AVX512F__)
constexpr int kRows = 12;
#elif defined(__AVX2__) || defined(__ARM_NEON)
constexpr int kRows = 6;
#else
constexpr int kRows = 3;
#endif
constexpr int kGroupRows = kRows / 2;

// Weights to come, fetched a little with every step, so that memory is never idle while sums are computed.
struct Prefetch {
  const uint8_t* address;
  int64_t stride;
};

template <int64_t Bytes>
SLUICE_INLINE void advance(Prefetch& next) {
  SLUICE_UNROLL for (int64_t i = 0; i < Bytes; i += 64) __builtin_prefetch(next.address + i);
  next.address += next.stride;
}

// Formats whose step is one unit. `kBlock` steps are summed in registers before they are added to a total:
// 16 KB of weights, which stay in the nearest cache while tile after tile of rows uses them.
template <class Format, class Sum>
struct UnitFormat {
  using Total = Sum;
  static constexpr int64_t kStepUnits = 1, kCodeUnits = 1, kStepBytes = 128, kBlock = 128;
  static constexpr int kMaxRows = kRows;

  template <int R, int C>
  static void multiply(const uint32_t* x, const uint8_t* weight, int64_t steps, int first, Prefetch next,
                       Sum* totals) {
    Sum sums[R][C] = {};
    weight += 64 * first;
    for (int64_t step = 0; step < steps; step++, x += R, weight += kStepBytes) {
      advance<kStepBytes>(next);
      i32x16 w[C];
      SLUICE_UNROLL for (int c = 0; c < C; c++) w[c] = load_bits(weight + 64 * c);
      SLUICE_UNROLL for (int r = 0; r < R; r++) {
        const i32x16 unit = i32x16{} + int32_t(x[r]);
        SLUICE_UNROLL for (int c = 0; c < C; c++) sums[r][c] = Format::dot(w[c], unit, sums[r][c]);
      }
    }
    SLUICE_UNROLL for (int r = 0; r < R; r++) {
      SLUICE_UNROLL for (int c = 0; c < C; c++) totals[2 * r + first + c] += sums[r][c];
    }
  }
};

struct Float32 : UnitFormat<Float32, f32x16> {
  static constexpr int64_t kStepInputs = 1, kOffset = 0;
  SLUICE_INLINE f32x16 dot(i32x16 w, i32x16 x, f32x16 sum) { return fma((f32x16)w, (f32x16)x, sum); }
};

struct BFloat16 : UnitFormat<BFloat16, f32x16> {
  static constexpr int64_t kStepInputs = 2, kOffset = 0;
  SLUICE_INLINE f32x16 dot(i32x16 w, i32x16 x, f32x16 sum) {
    return sluice::SLUICE_ISA::dot(Pairs{w}, Pairs{x}, sum);
  }
};

struct Int8 : UnitFormat<Int8, i32x16> {
  static constexpr int64_t kStepInputs = 4, kOffset = 128;
  SLUICE_INLINE i32x16 dot(i32x16 w, i32x16 x, i32x16 sum) { return dot_bytes(w, x, sum); }
};

// Formats whose step is a group with its own scale. Codes are summed exactly within a group.
template <class Format, int64_t CodeBytes, bool Shift>
struct GroupFormat {
  using Total = f32x16;
  static constexpr int64_t kStepInputs = kGroup, kStepUnits = kGroup / 4 + 2, kCodeUnits = kGroup / 4;
  static constexpr int64_t kStepBytes = CodeBytes + (Shift ? 128 : 64), kBlock = 16384 / CodeBytes;
  static constexpr int64_t kScales = CodeBytes, kShifts = Shift ? CodeBytes + 64 : 0;
  static constexpr int kMaxRows = kGroupRows;

  template <int R, int C>
  static void multiply(const uint32_t* x, const uint8_t* weight, int64_t steps, int first, Prefetch next,
                       f32x16* totals) {
    f32x16 sums[R][C];
    SLUICE_UNROLL for (int r = 0; r < R; r++) {
      SLUICE_UNROLL for (int c = 0; c < C; c++) sums[r][c] = totals[2 * r + first + c];
    }
    for (int64_t step = 0; step < steps; step++, x += kStepUnits * R, weight += kStepBytes) {
      advance<kStepBytes>(next);
      const uint32_t *surplus = x + 8 * R, *x_scales = x + 9 * R;
      i32x16 codes[R][C];
      SLUICE_UNROLL for (int r = 0; r < R; r++) {
        SLUICE_UNROLL for (int c = 0; c < C; c++) codes[r][c] = i32x16{} + int32_t(surplus[r]);
      }
      SLUICE_UNROLL for (int unit = 0; unit < 8; unit++) {
        i32x16 w[C];
        SLUICE_UNROLL for (int c = 0; c < C; c++) w[c] = Format::load_unit(weight + 64 * (first + c), unit);
        SLUICE_UNROLL for (int r = 0; r < R; r++) {
          const i32x16 xs = i32x16{} + int32_t(x[unit * R + r]);
          SLUICE_UNROLL for (int c = 0; c < C; c++) codes[r][c] = dot_bytes(w[c], xs, codes[r][c]);
        }
      }
      const f16* scales = (const f16*)(weight + kScales) + 16 * first;
      SLUICE_UNROLL for (int c = 0; c < C; c++) {
        const f32x16 scale = load(scales + 16 * c);
        SLUICE_UNROLL for (int r = 0; r < R; r++) {
          f32x16 product = __builtin_convertvector(codes[r][c], f32x16);
          if (Shift) product = fma(load(scales + kPanel + 16 * c), splat(int32_t(surplus[r])), product);
          sums[r][c] = fma(product, scale * as_float(x_scales[r]), sums[r][c]);
        }
      }
    }
    SLUICE_UNROLL for (int r = 0; r < R; r++) {
      SLUICE_UNROLL for (int c = 0; c < C; c++) totals[2 * r + first + c] = sums[r][c];
    }
  }
};

struct Int8Group : GroupFormat<Int8Group, 1024, false> {
  static constexpr int64_t kOffset = 128;
  SLUICE_INLINE i32x16 load_unit(const uint8_t* codes, int unit) { return load_bits(codes + 128 * unit); }
};

template <bool Shift>
struct Int4 : GroupFormat<Int4<Shift>, 512, Shift> {
  static constexpr int64_t kOffset = 8;
  SLUICE_INLINE i32x16 load_unit(const uint8_t* codes, int unit) {
    const i32x16 both = load_bits(codes + 128 * (unit / 2));
    return (unit % 2 ? both >> 4 : both) & 0x0f0f0f0f;
  }
};

}  // namespace sluice::SLUICE_ISA
