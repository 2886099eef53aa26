// All layers of a decoder in one call: what `models.decoder` does operation by operation, without the way back
// to Python between them, which takes several microseconds: for the nine operations of a small model's layer,
// as long as their arithmetic.

#include "ops.h"

namespace sluice {
namespace {

// Bytes from the start of a row of heads to the first key.
const void* offset(const void* rows, int64_t heads, const DecoderStep& step) {
  const int64_t size = step.dtype == kFloat32 ? 4 : 2;
  return static_cast<const char*>(rows) + heads * step.head_dim * size;
}

void attend(const DecoderStep& step, const DecoderLayer& layer) {
  const Variant& ops = variant();
  const AttentionPlan& plan = step.plans[layer.plan];
  ops.linear(layer.qkv, step.normed, step.qkv, step.rows, step.dtype, step.dtype);
  ops.rope_and_cache(step.qkv, offset(step.qkv, step.heads, step),
                     offset(step.qkv, step.heads + step.kv_heads, step),
                     (step.heads + 2 * step.kv_heads) * step.head_dim, step.cos_sin, step.positions,
                     step.slots, layer.q_norm, layer.k_norm, step.qk_norm_eps, step.query, layer.keys,
                     layer.values, step.rows, step.heads, step.kv_heads, step.head_dim, step.block_size,
                     step.dtype, step.cache_dtype);
  ops.attention(step.query, layer.keys, layer.values, step.attended, plan.items, plan.num_items, step.tables,
                plan.partials, plan.finished, step.heads, step.kv_heads, step.head_dim, step.block_size,
                plan.window, step.dtype, step.cache_dtype);
  ops.linear(layer.out, step.attended, step.x, step.rows, step.dtype, step.dtype);
}

void feed_forward(const DecoderStep& step, const DecoderLayer& layer) {
  const Variant& ops = variant();
  ops.linear(layer.gate_up, step.normed, step.gate_up, step.rows, step.dtype, step.dtype);
  ops.silu_mul(step.gate_up, step.gated, step.rows, step.inner, step.dtype);
  ops.linear(layer.down, step.gated, step.x, step.rows, step.dtype, step.dtype);
}

}  // namespace

// On entry `residual` holds the embeddings; on return `x` is what the last layer adds to `residual`, the
// stream before it.
void decode(const DecoderStep& step) {
  const Variant& ops = variant();
  const auto add_and_norm = [&](const void* weight) {
    ops.add_rms_norm(step.x, step.residual, weight, step.residual, step.normed, step.rows, step.hidden,
                     step.norm_eps, step.dtype);
  };
  for (int64_t i = 0; i < step.num_layers; i++) {
    const DecoderLayer& layer = step.layers[i];
    if (i == 0)
      ops.rms_norm(step.residual, layer.input_norm, step.normed, step.rows, step.hidden, step.norm_eps,
                   step.dtype);
    else
      add_and_norm(layer.input_norm);
    attend(step, layer);
    add_and_norm(layer.post_norm);
    feed_forward(step, layer);
  }
}

}  // namespace sluice
