// From logits to token ids without a sort and without noise for tokens that cannot win.
//
// The rules are those of `sluice_worker/sampling` (truncation.py, noise.py, sampler.py): the same bounds, the
// same noise for (key, token id), ties to the lowest id. Only the way there differs:
//   - a bound is found by bisection on values: each step weighs the upper half and drops one half;
//   - a token can only win if its uniform number u satisfies 1 - u <= e^(logit - best score yet), so most
//     tokens cost one hash, and no logarithm.
// A row is computed by one thread in a fixed order: its token does not depend on the batch.
#pragma once

#include <cmath>
#include <vector>

#include "elementwise.h"
#include "vector_math.h"

namespace sluice::SLUICE_ISA {

// Of these, two hold the lanes of a register of floats.
typedef double Doubles __attribute__((vector_size(kRegisterBytes)));
typedef uint64_t Longs __attribute__((vector_size(kRegisterBytes)));
typedef float HalfFloats __attribute__((vector_size(kRegisterBytes / 2)));
typedef uint32_t HalfWords __attribute__((vector_size(kRegisterBytes / 2)));

// One row's draw; the layout is shared with `kernels.py`.
struct Draw {
  float temperature;  // 0: greedy
  int32_t top_k;      // 0: all
  double top_p;       // 1: all
  double log_min_p;   // minus infinity: all
  uint64_t key;       // of the noise
};

struct Largest {
  float value;
  int64_t index;
};

// Store the lanes whose mask is set, densely; returns how many. May write all lanes.
SLUICE_INLINE int64_t store_selected(float* p, Floats v, Ints mask) {
#if defined(__AVX512F__)
  const __mmask16 set = _mm512_movepi32_mask((__m512i)mask);
  _mm512_storeu_ps(p, _mm512_maskz_compress_ps(set, (__m512)v));
  return __builtin_popcount(set);
#else
  int64_t count = 0;
  for (int i = 0; i < kLanes; i++) {
    p[count] = v[i];
    count -= mask[i];
  }
  return count;
#endif
}

// The largest number and where it stands first. `size` is at least 1.
template <class T>
inline Largest find_largest(const T* x, int64_t size) {
  Floats top = splat(-kInfinity);
  Ints where = {};
  for_lanes(size, [&](int64_t i, int64_t count) {
    const Floats lanes = load(x + i, count);
    const Floats v = lane_index() < static_cast<int32_t>(count) ? lanes : splat(-kInfinity);
    const Ints better = v > top;
    top = larger(v, top);
    where = better ? lane_index() + static_cast<int32_t>(i) : where;
  });
  Largest best{top[0], where[0]};
  for (int lane = 1; lane < kLanes; lane++)
    if (top[lane] > best.value || (top[lane] == best.value && where[lane] < best.index))
      best = {top[lane], where[lane]};
  return best;
}

// A sum of floats in double, in the lanes of one register until it is read.
class WideSum {
 public:
  void add(Floats v) {
    HalfFloats halves[2];
    memcpy(halves, &v, sizeof v);
    lanes_ += __builtin_convertvector(halves[0], Doubles) + __builtin_convertvector(halves[1], Doubles);
  }

  double value() const {
    double total = 0;
    for (int i = 0; i < kLanes / 2; i++) total += lanes_[i];
    return total;
  }

 private:
  Doubles lanes_ = {};
};

// A multiset of floats that shrinks. Padded with not-a-number, which no comparison selects.
class Candidates {
 public:
  // Those of `x` that are at least `bound` and not minus infinity. `x` is padded with minus infinity.
  Candidates(const float* x, int64_t size, float bound) {
    thread_local std::vector<float> memory;
    if (memory.size() < static_cast<size_t>(size + 2 * kLanes)) memory.resize(size + 2 * kLanes);
    values_ = memory.data();
    keep(x, size, [bound](Floats v) { return (v >= bound) & (v > -kInfinity); });
  }

  int64_t count() const { return count_; }

  // The largest bound such that the values at or above it weigh at least `target`. `weigh` gives the weights
  // of a register of values. All values weigh at least `target`, and there are some.
  template <class Weigh>
  float bound(double target, Weigh weigh) {
    double above = 0;
    while (low_ < high_) {
      float middle = low_ * 0.5f + high_ * 0.5f;
      if (!(middle > low_ && middle <= high_)) middle = high_;
      const double upper = above + weight(middle, weigh);
      if (upper >= target) {
        keep(values_, count_, [middle](Floats v) { return v >= middle; });
      } else {
        above = upper;
        keep(values_, count_, [middle](Floats v) { return v < middle; });
      }
    }
    return low_;
  }

  template <class Weigh>
  double weight(float bound, Weigh weigh) const {
    WideSum total;
    for (int64_t i = 0; i < count_; i += kLanes) {
      const Floats v = load(values_ + i);
      total.add(v >= bound ? weigh(v) : splat(0));
    }
    return total.value();
  }

 private:
  template <class Select>
  void keep(const float* x, int64_t size, Select select) {
    Floats low = splat(kInfinity), high = splat(-kInfinity);
    count_ = 0;
    for (int64_t i = 0; i < size; i += kLanes) {
      const Floats v = load(x + i);
      const Ints chosen = select(v);
      count_ += store_selected(values_ + count_, v, chosen);
      high = chosen & (v > high) ? v : high;
      low = chosen & (v < low) ? v : low;
    }
    store(values_ + count_, splat(std::numeric_limits<float>::quiet_NaN()));
    low_ = -largest(-low);
    high_ = largest(high);
  }

  float* values_;
  int64_t count_;
  float low_, high_;
};

// The smallest logit that may be drawn, by top-k, top-p and min-p; see `truncation.py`.
inline float truncation_bound(const float* scaled, int64_t size, float top, const Draw& draw) {
  float bound = -kInfinity;
  if (draw.top_k > 0 && draw.top_k < size) {
    Candidates all(scaled, size, bound);
    if (all.count() >= draw.top_k) bound = all.bound(draw.top_k, [](Floats) { return splat(1); });
  }
  if (draw.top_p < 1) {
    const auto mass = [top](Floats v) { return exp(v - top); };
    WideSum total;
    for (int64_t i = 0; i < size; i += kLanes) {
      const Floats v = load(scaled + i);
      total.add(v >= bound ? mass(v) : splat(0));
    }
    // All tokens below this one together weigh less than 1 - top_p of the largest alone.
    const double negligible = top - std::log(size / (1 - draw.top_p)) - 1e-3;
    Candidates likely(scaled, size, std::max(bound, static_cast<float>(negligible)));
    bound = likely.bound(draw.top_p * total.value(), mass);
  }
  if (draw.log_min_p > -kInfinity)
    bound = std::max(bound, static_cast<float>(std::min<double>(top, top + draw.log_min_p)));
  return bound;
}

constexpr uint64_t kGamma = 0x9E3779B97F4A7C15;
constexpr float kMaxGumbel = 22.8741f;  // of a 32-bit uniform number: rounded up

// SplitMix64 at random access, see `noise.py`; the upper half counts. `V` is uint64_t or a vector of them.
template <class V>
SLUICE_INLINE V random_bits(uint64_t key, V token) {
  V state = key + (token + 1) * kGamma;
  state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9;
  state = (state ^ state >> 27) * 0x94D049BB133111EB;
  return (state ^ state >> 31) >> 32;
}

inline float gumbel(uint64_t key, int64_t token) {
  const double uniform = (static_cast<double>(random_bits<uint64_t>(key, token)) + 0.5) * 0x1p-32;
  return static_cast<float>(-std::log(-std::log(uniform)));
}

// 1 - u of the tokens from `first` on, to float32's precision.
SLUICE_INLINE Floats complements(uint64_t key, int64_t first) {
  HalfWords bits[2];
  for (int half = 0; half < 2; half++) {
    const Longs tokens = __builtin_convertvector(lane_index<HalfWords>(), Longs);
    bits[half] = __builtin_convertvector(
        random_bits(key, tokens + static_cast<uint64_t>(first + half * (kLanes / 2))), HalfWords);
  }
  const Words all = load_as<Words>(bits);
  return (__builtin_convertvector(~all, Floats) + 0.5f) * 0x1p-32f;
}

// The token with the largest sum of logit and noise among those at or above `bound`; the lowest id of equals.
inline int64_t draw_token(const float* scaled, int64_t size, Largest favourite, float bound, uint64_t key) {
  const float rounding = 1e-3f + 2.4e-7f * std::abs(favourite.value);  // of a score, more than once
  Largest best{favourite.value + gumbel(key, favourite.index), favourite.index};
  for (int64_t i = 0; i < size; i += kLanes) {
    const Floats logits = load(scaled + i);
    const Floats lead = logits - (best.value - rounding);
    Ints possible = (logits >= bound) & (lead >= -kMaxGumbel);
    if (!any(possible)) continue;
    possible &=
        complements(key, i) <= exp(lead);  // for noise -log(-log(u)) to exceed g, 1 - u <= -log(u) < e^-g
    if (!any(possible)) continue;
    for (int lane = 0; lane < kLanes; lane++) {
      if (!possible[lane]) continue;
      const float score = logits[lane] + gumbel(key, i + lane);
      if (score > best.value || (score == best.value && i + lane < best.index)) best = {score, i + lane};
    }
  }
  return best.index;
}

template <class T>
inline int64_t sample_row(const T* logits, int64_t size, const Draw& draw) {
  if (draw.temperature == 0) return find_largest(logits, size).index;
  thread_local std::vector<float> memory;
  const int64_t padded = padded_width(size);
  if (memory.size() < static_cast<size_t>(padded)) memory.resize(padded);
  float* scaled = memory.data();
  std::fill(scaled + size, scaled + padded, -kInfinity);
  for_lanes(size, [&](int64_t i, int64_t count) {
    store(scaled + i, load(logits + i, count) / draw.temperature, count);
  });
  const Largest favourite = find_largest(scaled, size);
  if (!std::isfinite(favourite.value)) return favourite.index;
  return draw_token(scaled, padded, favourite, truncation_bound(scaled, padded, favourite.value, draw),
                    draw.key);
}

// A token for each row of `logits` [rows, at least size], `stride` numbers apart.
inline void sample(const void* logits, const void* draws, void* tokens, int64_t rows, int64_t size,
                   int64_t stride, int64_t dtype) {
  with_type(dtype, [=](auto type) {
    using T = decltype(type);
    parallel(rows, [=](int64_t row) {
      ((int64_t*)tokens)[row] = sample_row((const T*)logits + row * stride, size, ((const Draw*)draws)[row]);
    });
  });
}

// log(sum(e^x)) of each row.
inline void log_sum_exp(const void* logits, void* out, int64_t rows, int64_t size, int64_t stride,
                        int64_t dtype) {
  with_type(dtype, [=](auto type) {
    using T = decltype(type);
    parallel(rows, [=](int64_t row) {
      const T* x = (const T*)logits + row * stride;
      const float top = find_largest(x, size).value;
      WideSum total;
      for_lanes(size, [&](int64_t i, int64_t count) {
        total.add(lane_index() < static_cast<int32_t>(count) ? exp(load(x + i, count) - top) : splat(0));
      });
      ((float*)out)[row] = static_cast<float>(top + std::log(total.value()));
    });
  });
}

}  // namespace sluice::SLUICE_ISA
