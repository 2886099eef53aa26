// Every operation of the library: one line each, OPERATION(name, (parameters), (arguments)).
//
// `variant.cpp` puts the three compilations of `name` into its tables, `dispatch.cpp` exports `sluice_name`,
// and `library.py` declares the same parameters to ctypes. Parameters are pointers, int64_t and float; data
// types are `DType`. Nothing is checked here: the Python side does.
#pragma once

#include <cstdint>

namespace sluice {

enum DType : int64_t { kFloat32 = 0, kBFloat16 = 1, kInt8 = 2 };  // int8 is for caches

// Formats of packed weights, see `weight_formats.h`.
enum WeightFormat : int64_t {
  kWeightFloat32 = 0,
  kWeightBFloat16 = 1,
  kWeightInt8 = 2,
  kWeightInt8Group = 3,
  kWeightInt4Group = 4,
  kWeightInt4Shift = 5,
};

// A packed linear layer, as `packed.py` hands it over.
struct PackedLinear {
  const void* panels;
  const float *scales, *bias;  // [outputs], or null
  int64_t inputs, outputs, format;
};

// What attention needs of a step for the layers with one sliding window, see `attention.h`.
struct AttentionPlan {
  const void* items;
  void *partials, *finished;
  int64_t num_items, window;
};

// One layer of a decoder, as `decoder.py` hands it over.
struct DecoderLayer {
  const PackedLinear *qkv, *out, *gate_up, *down;
  const void *input_norm, *post_norm;
  const void *q_norm, *k_norm;  // or null
  void *keys, *values;          // its cache
  int64_t plan;                 // index of its attention plan
};

// One step of all layers: where its rows are, and memory for what passes between operations. Activations have
// the type `dtype`.
struct DecoderStep {
  const DecoderLayer* layers;
  const AttentionPlan* plans;
  const int32_t* tables;
  const float* cos_sin;
  const int64_t *positions, *slots;
  void *x, *residual, *normed;        // [rows, hidden]
  void *qkv, *query, *attended;       // [rows, heads + 2 * kv_heads or heads, head_dim]
  void *gate_up, *gated;              // [rows, 2 * inner], [rows, inner]
  int64_t num_layers, rows, hidden, heads, kv_heads, head_dim, inner, block_size, dtype, cache_dtype;
  float norm_eps, qk_norm_eps;
};

#define SLUICE_OPERATIONS(OPERATION) \
  OPERATION(packed_bytes, \
            (int64_t outputs, int64_t inputs, int64_t format, void* bytes), \
            (outputs, inputs, format, bytes)) \
  OPERATION(pack_weight, \
            (const void* weight, const void* scales, const void* shifts, void* packed, int64_t outputs, \
             int64_t inputs, int64_t format), \
            (weight, scales, shifts, packed, outputs, inputs, format)) \
  OPERATION(quantize_weight, \
            (const void* weight, void* codes, void* scales, int64_t outputs, int64_t inputs, int64_t format, \
             int64_t dtype), \
            (weight, codes, scales, outputs, inputs, format, dtype)) \
  OPERATION(unpack_rows, \
            (const void* layer, const void* indices, void* out, int64_t rows, int64_t out_dtype), \
            (layer, indices, out, rows, out_dtype)) \
  OPERATION(linear, \
            (const void* layer, const void* x, void* out, int64_t rows, int64_t x_dtype, int64_t out_dtype), \
            (layer, x, out, rows, x_dtype, out_dtype)) \
  OPERATION(plan_attention, \
            (const void* queries, int64_t count, int64_t window, void* items, void* totals), \
            (queries, count, window, items, totals)) \
  OPERATION(attention, \
            (const void* query, const void* keys, const void* values, void* out, const void* items, int64_t \
             num_items, const void* tables, void* partials, void* finished, int64_t heads, int64_t kv_heads, \
             int64_t head_dim, int64_t block_size, int64_t window, int64_t dtype, int64_t cache_dtype), \
            (query, keys, values, out, items, num_items, tables, partials, finished, heads, kv_heads, head_dim, \
             block_size, window, dtype, cache_dtype)) \
  OPERATION(rms_norm, \
            (const void* x, const void* weight, void* out, int64_t rows, int64_t width, float eps, int64_t \
             dtype), \
            (x, weight, out, rows, width, eps, dtype)) \
  OPERATION(add_rms_norm, \
            (const void* x, const void* residual, const void* weight, void* total, void* out, int64_t rows, \
             int64_t width, float eps, int64_t dtype), \
            (x, residual, weight, total, out, rows, width, eps, dtype)) \
  OPERATION(silu_mul, \
            (const void* gate_up, void* out, int64_t rows, int64_t width, int64_t dtype), \
            (gate_up, out, rows, width, dtype)) \
  OPERATION(rope_and_cache, \
            (const void* query, const void* key, const void* value, int64_t stride, const void* cos_sin, const \
             void* positions, const void* slots, const void* q_norm, const void* k_norm, float eps, void* out, \
             void* keys, void* values, int64_t rows, int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t \
             block_size, int64_t dtype, int64_t cache_dtype), \
            (query, key, value, stride, cos_sin, positions, slots, q_norm, k_norm, eps, out, keys, values, rows, \
             heads, kv_heads, head_dim, block_size, dtype, cache_dtype)) \
  OPERATION(embed, \
            (const void* table, const void* indices, void* out, int64_t rows, int64_t row_bytes), \
            (table, indices, out, rows, row_bytes)) \
  OPERATION(copy_blocks, \
            (void* cache, const void* pairs, int64_t count, int64_t block_bytes), \
            (cache, pairs, count, block_bytes)) \
  OPERATION(sample, \
            (const void* logits, const void* draws, void* tokens, int64_t rows, int64_t size, int64_t stride, \
             int64_t dtype), \
            (logits, draws, tokens, rows, size, stride, dtype)) \
  OPERATION(log_sum_exp, \
            (const void* logits, void* out, int64_t rows, int64_t size, int64_t stride, int64_t dtype), \
            (logits, out, rows, size, stride, dtype))

// One compilation of all operations.
struct Variant {
  const char* name;
#define SLUICE_FIELD(name, parameters, arguments) void(*name) parameters;
  SLUICE_OPERATIONS(SLUICE_FIELD)
#undef SLUICE_FIELD
};

extern const Variant plain_variant;
#if defined(__x86_64__)
extern const Variant avx2_variant;
extern const Variant avx512_variant;
#endif

// The best one for this CPU.
const Variant& variant();

// All layers of a step, see `decoder.cpp`.
void decode(const DecoderStep& step);

}  // namespace sluice
