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
// `multiply<R>` adds the products of `steps` steps with R rows to `totals` [R][32]: to kColumns vectors, from
// `first` of the panel on. The order of additions within one total is the same for every R: that is what
// keeps a row's result independent of the rows beside it.
#pragma once

#include "registers.h"
#include "vector_math.h"

namespace sluice::SLUICE_ISA {

constexpr int64_t kPanel = 32;
constexpr int64_t kGroup = 32;
constexpr int kPanelVectors = kPanel / kLanes;

// Rows of a tile, at most, and vectors of a panel worked on together: as many sums as the registers hold.
// Grouped formats keep two for each output, the group's and the total.
constexpr int kColumns = kPanelVectors < 4 ? kPanelVectors : 4;
#if defined(__AVX512F__)
constexpr int kRows = 12, kGroupRows = 6;
#elif defined(__ARM_NEON)
constexpr int kRows = 6, kGroupRows = 3;
#else
constexpr int kRows = 3, kGroupRows = 3;
#endif

// Weights to come, fetched a little with every step, so that memory is never idle while sums are computed.
struct Prefetch {
  const uint8_t* address;
  int64_t stride;
};

// A single tile uses them soon. For several, they go to the second cache: the nearest one has too few places
// for lines under way, and waits when they are taken.
template <int64_t Bytes>
SLUICE_INLINE void advance(Prefetch& next) {
  if (next.stride == Bytes) {
    SLUICE_UNROLL for (int64_t i = 0; i < Bytes; i += 64) __builtin_prefetch(next.address + i);
  } else {
    for (int64_t i = 0; i < next.stride; i += 64) __builtin_prefetch(next.address + i, 0, 2);
  }
  next.address += next.stride;
}

// Formats whose step is one unit. `kBlock` steps are summed in registers before they are added to a total:
// 16 KB of weights, which stay in the nearest cache while tile after tile of rows uses them.
template <class Format, class Sum>
struct UnitFormat {
  using Total = Sum;
  static constexpr int64_t kStepUnits = 1, kCodeUnits = 1, kStepBytes = 128, kBlock = 128;
  static constexpr int kMaxRows = kRows;

  template <int R>
  static void multiply(const uint32_t* x, const uint8_t* weight, int64_t steps, int first, Prefetch next,
                       Sum* totals) {
    constexpr int C = kColumns;
    Sum sums[R][C] = {};
    weight += kRegisterBytes * first;
    for (int64_t step = 0; step < steps; step++, x += R, weight += kStepBytes) {
      advance<kStepBytes>(next);
      Ints w[C];
      SLUICE_UNROLL for (int c = 0; c < C; c++) w[c] = load_register(weight + kRegisterBytes * c);
      SLUICE_UNROLL for (int r = 0; r < R; r++) {
        const Ints unit = Ints{} + int32_t(x[r]);
        SLUICE_UNROLL for (int c = 0; c < C; c++) sums[r][c] = Format::dot(w[c], unit, sums[r][c]);
      }
    }
    SLUICE_UNROLL for (int r = 0; r < R; r++) {
      SLUICE_UNROLL for (int c = 0; c < C; c++) totals[kPanelVectors * r + first + c] += sums[r][c];
    }
  }
};

struct Float32 : UnitFormat<Float32, Floats> {
  static constexpr int64_t kStepInputs = 1, kOffset = 0;
  SLUICE_INLINE Floats dot(Ints w, Ints x, Floats sum) { return multiply_add((Floats)w, (Floats)x, sum); }
};

struct BFloat16 : UnitFormat<BFloat16, Floats> {
  static constexpr int64_t kStepInputs = 2, kOffset = 0;
  SLUICE_INLINE Floats dot(Ints w, Ints x, Floats sum) { return dot_pairs(w, x, sum); }
};

struct Int8 : UnitFormat<Int8, Ints> {
  static constexpr int64_t kStepInputs = 4, kOffset = 128;
  SLUICE_INLINE Ints dot(Ints w, Ints x, Ints sum) { return dot_bytes(w, x, sum); }
};

// Formats whose step is a group with its own scale. Codes are summed exactly within a group.
template <class Format, int64_t CodeBytes, bool Shift>
struct GroupFormat {
  using Total = Floats;
  static constexpr int64_t kStepInputs = kGroup, kStepUnits = kGroup / 4 + 2, kCodeUnits = kGroup / 4;
  static constexpr int64_t kStepBytes = CodeBytes + (Shift ? 128 : 64), kBlock = 16384 / CodeBytes;
  static constexpr int64_t kScales = CodeBytes, kShifts = Shift ? CodeBytes + 64 : 0;
  static constexpr int kMaxRows = kGroupRows;

  template <int R>
  static void multiply(const uint32_t* x, const uint8_t* weight, int64_t steps, int first, Prefetch next,
                       Floats* totals) {
    constexpr int C = kColumns;
    Floats sums[R][C];
    SLUICE_UNROLL for (int r = 0; r < R; r++) {
      SLUICE_UNROLL for (int c = 0; c < C; c++) sums[r][c] = totals[kPanelVectors * r + first + c];
    }
    for (int64_t step = 0; step < steps; step++, x += kStepUnits * R, weight += kStepBytes) {
      advance<kStepBytes>(next);
      const uint32_t *surplus = x + 8 * R, *x_scales = x + 9 * R;
      Ints codes[R][C];
      SLUICE_UNROLL for (int r = 0; r < R; r++) {
        SLUICE_UNROLL for (int c = 0; c < C; c++) codes[r][c] = Ints{} + int32_t(surplus[r]);
      }
      SLUICE_UNROLL for (int unit = 0; unit < 8; unit++) {
        Ints w[C];
        SLUICE_UNROLL for (int c = 0; c < C; c++) {
          w[c] = Format::load_unit(weight + kRegisterBytes * (first + c), unit);
        }
        SLUICE_UNROLL for (int r = 0; r < R; r++) {
          const Ints xs = Ints{} + int32_t(x[unit * R + r]);
          SLUICE_UNROLL for (int c = 0; c < C; c++) codes[r][c] = dot_bytes(w[c], xs, codes[r][c]);
        }
      }
      const f16* scales = (const f16*)(weight + kScales) + kLanes * first;
      SLUICE_UNROLL for (int c = 0; c < C; c++) {
        const Floats scale = load_register(scales + kLanes * c);
        SLUICE_UNROLL for (int r = 0; r < R; r++) {
          Floats product = __builtin_convertvector(codes[r][c], Floats);
          if (Shift) {
            const Floats shift = load_register(scales + kPanel + kLanes * c);
            product = multiply_add(shift, Floats{} + float(int32_t(surplus[r])), product);
          }
          sums[r][c] = multiply_add(product, scale * as_float(x_scales[r]), sums[r][c]);
        }
      }
    }
    SLUICE_UNROLL for (int r = 0; r < R; r++) {
      SLUICE_UNROLL for (int c = 0; c < C; c++) totals[kPanelVectors * r + first + c] = sums[r][c];
    }
  }
};

struct Int8Group : GroupFormat<Int8Group, 1024, false> {
  static constexpr int64_t kOffset = 128;
  SLUICE_INLINE Ints load_unit(const uint8_t* codes, int unit) { return load_register(codes + 128 * unit); }
};

template <bool Shift>
struct Int4 : GroupFormat<Int4<Shift>, 512, Shift> {
  static constexpr int64_t kOffset = 8;
  SLUICE_INLINE Ints load_unit(const uint8_t* codes, int unit) {
    const Ints both = load_register(codes + 128 * (unit / 2));
    return (unit % 2 ? both >> 4 : both) & 0x0f0f0f0f;
  }
};

}  // namespace sluice::SLUICE_ISA
