// What happens to a row between two matrix products: norms, rotation and the write to the cache, the gate,
// and copies. Rounded where `reference.py` rounds, so that float32 agrees to the last bits and bfloat16 to
// one.
#pragma once

#include <cmath>

#include "activations.h"
#include "attention.h"
#include "vector_math.h"

namespace sluice::SLUICE_ISA {

constexpr int64_t kMaxHeadDim = 512;

// Normalized, rounded, then scaled: the order of the Hugging Face models.
template <class T>
inline void normalize(const T* x, const T* weight, int64_t width, float eps, T* out) {
  Floats squares = splat(0);
  for_lanes(width, [&](int64_t i, int64_t count) {
    const Floats v = load(x + i, count);
    squares = multiply_add(v, v, squares);
  });
  const Floats factor = splat(1 / std::sqrt(sum(squares) / static_cast<float>(width) + eps));
  for_lanes(width, [&](int64_t i, int64_t count) {
    store(out + i, rounded<T>(load(x + i, count) * factor) * load(weight + i, count), count);
  });
}

inline void rms_norm(const void* x, const void* weight, void* out, int64_t rows, int64_t width, float eps,
                     int64_t dtype) {
  with_type(dtype, [=](auto type) {
    using T = decltype(type);
    parallel_rows(rows, width, [=](int64_t row) {
      normalize((const T*)x + row * width, (const T*)weight, width, eps, (T*)out + row * width);
    });
  });
}

// `total` = x + residual, rounded; `out` = its norm. `total` may be `residual`.
inline void add_rms_norm(const void* x, const void* residual, const void* weight, void* total, void* out,
                         int64_t rows, int64_t width, float eps, int64_t dtype) {
  with_type(dtype, [=](auto type) {
    using T = decltype(type);
    parallel_rows(rows, width, [=](int64_t row) {
      const T *a = (const T*)x + row * width, *b = (const T*)residual + row * width;
      T* to = (T*)total + row * width;
      for_lanes(width, [=](int64_t i, int64_t count) {
        store(to + i, load(a + i, count) + load(b + i, count), count);
      });
      normalize(to, (const T*)weight, width, eps, (T*)out + row * width);
    });
  });
}

// The gate and the product are rounded one after the other. `gate_up` [rows, 2 * width].
inline void silu_mul(const void* gate_up, void* out, int64_t rows, int64_t width, int64_t dtype) {
  with_type(dtype, [=](auto type) {
    using T = decltype(type);
    parallel_rows(rows, 4 * width, [=](int64_t row) {
      const T *gate = (const T*)gate_up + 2 * row * width, *up = gate + width;
      for_lanes(width, [=](int64_t i, int64_t count) {
        const Floats g = load(gate + i, count), bounded = larger(g, splat(-87.0f));
        const Floats silu = g / (exp(-bounded) + 1.f);
        store((T*)out + row * width + i, rounded<T>(silu) * load(up + i, count), count);
      });
    });
  });
}

template <class T, class Stored>
struct RopeArgs {
  const T *query, *key, *value;  // rows of whole heads, `stride` numbers apart
  int64_t stride, heads, kv_heads, head_dim, block_size;
  const float* cos_sin;  // [positions, head_dim]: cosines, then sines
  const int64_t *positions, *slots;
  const T *q_norm, *k_norm;  // [head_dim] or null
  float eps;
  T* out;  // [rows, heads, head_dim]
  Stored *keys, *values;
};

// Norm (if any) and rotation of one head: its halves turn against each other. No fused products here: what
// goes into the cache is what the reference writes.
template <class T>
inline void rotate(const T* x, const T* norm, float eps, const float* cos_sin, int64_t head_dim, T* out) {
  T normed[kMaxHeadDim];
  if (norm) normalize(x, norm, head_dim, eps, normed);
  const int64_t half = head_dim / 2;
  const T *first = norm ? normed : x, *second = first + half;
  for_lanes(half, [=](int64_t i, int64_t count) {
    const Floats a = load(first + i, count), b = load(second + i, count);
    const Floats c = load(cos_sin + i, count), s = load(cos_sin + half + i, count);
    store(out + i, a * c - b * s, count);
    store(out + half + i, b * c + a * s, count);
  });
}

// Symmetric codes of one head, in `codes`; returns their scale. Products are rounded before they become
// integers, with and without fused ones: codes are the same on every instruction set.
template <class T>
inline float quantize_head(const T* x, int64_t size, int8_t* codes) {
  Ints bits = {};
  for_lanes(size, [&](int64_t i, int64_t count) { bits = larger_magnitude(bits, load(x + i, count)); });
  const float magnitude = largest_magnitude(bits), inverse = inverse_scale(magnitude);
  for_lanes(size, [&](int64_t i, int64_t count) {
    const Bytes some =
        __builtin_convertvector(__builtin_convertvector(nearest(load(x + i, count) * inverse), Ints), Bytes);
    memcpy(codes + i, &some, count);
  });
  return magnitude / 127.f;
}

// One kv head of one token into its slot, see `attention.h` for the layout.
template <class T, class Stored>
inline void write_slot(const RopeArgs<T, Stored>& args, int64_t head, int64_t slot, const T* key,
                       const T* value) {
  const int64_t width = padded_width(args.head_dim), panel = panel_length(args.block_size);
  const int64_t block = slot / args.block_size, offset = slot % args.block_size;
  const int64_t first = (block * args.kv_heads + head) * block_numbers<Stored>(args.block_size, width);
  Stored* keys = args.keys + first + offset / panel * panel * width + offset % panel * kPack<T>;
  Stored* values = args.values + first + offset / kPack<T> * kPack<T> * width + offset % kPack<T>;
  const auto write = [&](const Stored* new_key, const Stored* new_value) {
    for (int64_t i = 0; i < args.head_dim; i += kPack<T>)
      memcpy(keys + i * panel, new_key + i, kPack<T> * sizeof(Stored));
    for (int64_t i = 0; i < args.head_dim; i++) values[i * kPack<T>] = new_value[i];
  };
  if constexpr (kCodes<Stored>) {
    int8_t codes[2][kMaxHeadDim];
    const int64_t scales = first + args.block_size * width;
    ((float*)(args.keys + scales))[offset] = quantize_head(key, args.head_dim, codes[0]);
    ((float*)(args.values + scales))[offset] = quantize_head(value, args.head_dim, codes[1]);
    write(codes[0], codes[1]);
  } else {
    write(key, value);
  }
}

template <class T, class Stored>
inline void rope_row(const RopeArgs<T, Stored>& args, int64_t row) {
  const int64_t dim = args.head_dim, start = row * args.stride;
  const float* cos_sin = args.cos_sin + args.positions[row] * dim;
  for (int64_t h = 0; h < args.heads; h++)
    rotate(args.query + start + h * dim, args.q_norm, args.eps, cos_sin, dim,
           args.out + (row * args.heads + h) * dim);
  for (int64_t h = 0; h < args.kv_heads; h++) {
    T key[kMaxHeadDim];
    rotate(args.key + start + h * dim, args.k_norm, args.eps, cos_sin, dim, key);
    write_slot(args, h, args.slots[row], key, args.value + start + h * dim);
  }
}

inline void rope_and_cache(const void* query, const void* key, const void* value, int64_t stride,
                           const void* cos_sin, const void* positions, const void* slots, const void* q_norm,
                           const void* k_norm, float eps, void* out, void* keys, void* values, int64_t rows,
                           int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t block_size,
                           int64_t dtype, int64_t cache_dtype) {
  with_type(dtype, [=](auto type) {
    using T = decltype(type);
    with_cache<T>(cache_dtype, [=](auto stored) {
      using Stored = decltype(stored);
      const RopeArgs<T, Stored> args{(const T*)query,
                                     (const T*)key,
                                     (const T*)value,
                                     stride,
                                     heads,
                                     kv_heads,
                                     head_dim,
                                     block_size,
                                     (const float*)cos_sin,
                                     (const int64_t*)positions,
                                     (const int64_t*)slots,
                                     (const T*)q_norm,
                                     (const T*)k_norm,
                                     eps,
                                     (T*)out,
                                     (Stored*)keys,
                                     (Stored*)values};
      parallel_rows(rows, (heads + kv_heads) * head_dim, [&args](int64_t row) { rope_row(args, row); });
    });
  });
}

// Rows of `table`, `row_bytes` each, for `indices` int64 [rows].
inline void embed(const void* table, const void* indices, void* out, int64_t rows, int64_t row_bytes) {
  parallel_rows(rows, row_bytes, [=](int64_t row) {
    memcpy((char*)out + row * row_bytes, (const char*)table + ((const int64_t*)indices)[row] * row_bytes,
           row_bytes);
  });
}

// Copy block `pairs[i][0]` to `pairs[i][1]` in one cache tensor; no target is also a source.
inline void copy_blocks(void* cache, const void* pairs, int64_t count, int64_t block_bytes) {
  parallel_rows(count, block_bytes, [=](int64_t i) {
    const int64_t* pair = (const int64_t*)pairs + 2 * i;
    memcpy((char*)cache + pair[1] * block_bytes, (const char*)cache + pair[0] * block_bytes, block_bytes);
  });
}

}  // namespace sluice::SLUICE_ISA
