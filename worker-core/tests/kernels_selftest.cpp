// Every operation of the kernels against the obvious scalar loop, without Python: for processors that are
// emulated, and for sanitizers. Buffers are as large as their contents, so that AddressSanitizer sees a read
// past an end.
//
//     kernels_selftest plain|avx2|avx512            prints what failed, and returns how many
//     kernels_selftest plain|avx2|avx512 overrun    has a kernel read one number past a buffer
//
// Sizes are small and odd: tails of vectors, empty batches, blocks and heads that no vector length divides.

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "ops.h"
#include "team.h"

using namespace sluice;

namespace {

const Variant* ops;
int failures = 0;

// Exactly `size` elements on the heap; a vector may keep room behind its end.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size) : size_(size), data_(new T[size]()) {}
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  int64_t size() const { return size_; }

 private:
  int64_t size_;
  std::unique_ptr<T[]> data_;
};

// Numbers of one activation type, read and written as floats.
class Numbers {
 public:
  Numbers(int64_t size, DType dtype)
      : dtype(dtype), bytes_(size * (dtype == kFloat32 ? 4 : 2)), size_(size) {}
  float get(int64_t i) const {
    uint32_t bits = 0;
    if (dtype == kFloat32)
      memcpy(&bits, bytes_.data() + 4 * i, 4);
    else
      memcpy(reinterpret_cast<char*>(&bits) + 2, bytes_.data() + 2 * i, 2);
    float value;
    memcpy(&value, &bits, 4);
    return value;
  }
  void set(int64_t i, float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (dtype == kFloat32) {
      memcpy(bytes_.data() + 4 * i, &bits, 4);
    } else {
      bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
      memcpy(bytes_.data() + 2 * i, &bits, 2);
    }
  }
  char* data() { return bytes_.data(); }
  int64_t size() const { return size_; }
  const DType dtype;

 private:
  Buffer<char> bytes_;
  int64_t size_;
};

std::mt19937 generator(7);

Numbers random_numbers(int64_t size, DType dtype, float scale = 1) {
  std::normal_distribution<float> normal(0, scale);
  Numbers x(size, dtype);
  for (int64_t i = 0; i < size; i++) x.set(i, normal(generator));
  return x;
}

int random_below(int bound) { return std::uniform_int_distribution<int>(0, bound - 1)(generator); }

void check(bool good, const std::string& what) {
  if (good) return;
  std::printf("%s: %s\n", ops->name, what.c_str());
  failures++;
}

void check_close(const Numbers& found, int64_t i, double expected, double tolerance,
                 const std::string& what) {
  if (found.dtype == kBFloat16) tolerance = std::max(tolerance, 0.012);
  const double error = std::abs(found.get(i) - expected);
  if (!(error <= tolerance * (1 + std::abs(expected))))
    check(false, what + " at " + std::to_string(i) + ": " + std::to_string(found.get(i)) + ", not " +
                     std::to_string(expected));
}

void test_linear(WeightFormat format, DType dtype, int64_t rows, int64_t outputs, int64_t inputs) {
  const std::string what = "linear, format " + std::to_string(format) + ", rows " + std::to_string(rows);
  const bool plain = format <= kWeightBFloat16, grouped = format >= kWeightInt8Group;
  const bool shifted = format == kWeightInt4Shift, narrow = format >= kWeightInt4Group;
  const int64_t groups = (inputs + 31) / 32;
  Numbers x = random_numbers(rows * inputs, dtype), out(rows * outputs, kFloat32);
  Numbers weight = random_numbers(outputs * inputs, format == kWeightBFloat16 ? kBFloat16 : kFloat32);
  Buffer<int8_t> codes(outputs * inputs);
  Buffer<float> scales(outputs), bias(outputs);
  Buffer<uint16_t> group_scales(outputs * groups), shifts(outputs * groups);
  for (int64_t i = 0; i < codes.size(); i++)
    codes[i] = narrow ? random_below(16) - 8 : random_below(255) - 127;
  for (int64_t i = 0; i < outputs; i++) scales[i] = 0.01f * (1 + i % 3), bias[i] = 0.5f * i;
  for (int64_t i = 0; i < group_scales.size(); i++)
    group_scales[i] = 0x2000 + i % 2 * 0x400, shifts[i] = i % 2 * 0x3800;  // 2^-7 or 2^-6; 0 or 0.5
  const auto dequantized = [&](int64_t output, int64_t input) -> double {
    const int64_t at = output * inputs + input, group = output * groups + input / 32;
    if (plain) return weight.get(at);
    if (!grouped) return codes[at] * scales[output];
    return (codes[at] - (shifted ? group % 2 * 4 : 0)) * (group % 2 ? 0x1p-6 : 0x1p-7);
  };
  int64_t bytes = 0;
  ops->packed_bytes(outputs, inputs, format, &bytes);
  Buffer<char> panels(bytes);
  ops->pack_weight(plain ? static_cast<void*>(weight.data()) : codes.data(),
                   grouped ? group_scales.data() : nullptr, shifted ? shifts.data() : nullptr, panels.data(),
                   outputs, inputs, format);
  const PackedLinear layer{panels.data(), scales.data(), bias.data(), inputs, outputs, format};
  ops->linear(&layer, x.data(), out.data(), rows, dtype, kFloat32);
  for (int64_t row = 0; row < rows; row++)
    for (int64_t output = 0; output < outputs; output++) {
      double sum = bias[output], size = 0;
      for (int64_t input = 0; input < inputs; input++) {
        const double product = x.get(row * inputs + input) * dequantized(output, input);
        sum += product, size += product * product;
      }
      const double tolerance = format == kWeightFloat32 ? 1e-5 : 0.03 * std::sqrt(size);
      check_close(out, row * outputs + output, sum, tolerance, what);
    }
  Buffer<int64_t> indices(1);
  indices[0] = outputs - 1;
  Numbers unpacked(inputs, kFloat32);
  ops->unpack_rows(&layer, indices.data(), unpacked.data(), 1, kFloat32);
  for (int64_t input = 0; input < inputs; input++)
    check_close(unpacked, input, dequantized(outputs - 1, input), 1e-6, "unpack_rows");
}

void test_quantize(WeightFormat format, DType dtype, int64_t outputs, int64_t inputs) {
  const int64_t groups = (inputs + 31) / 32;
  Numbers weight = random_numbers(outputs * inputs, dtype);
  Buffer<int8_t> codes(outputs * inputs);
  Buffer<char> scales(outputs * (format == kWeightInt8 ? 4 : 2 * groups));
  ops->quantize_weight(weight.data(), codes.data(), scales.data(), outputs, inputs, format, dtype);
  for (int64_t i = 0; i < codes.size(); i++) {
    if (format == kWeightInt4Group) check(codes[i] >= -8 && codes[i] <= 7, "a 4-bit code");
    if (format != kWeightInt8) continue;
    float scale;
    memcpy(&scale, scales.data() + i / inputs * 4, 4);
    check(std::abs(codes[i] * scale - weight.get(i)) <= 0.501f * scale, "an int8 code");
  }
}

void test_norms(DType dtype, int64_t rows, int64_t width) {
  Numbers x = random_numbers(rows * width, dtype), residual = random_numbers(rows * width, dtype);
  Numbers weight = random_numbers(width, dtype);
  Numbers total(rows * width, dtype), out(rows * width, dtype), again(rows * width, dtype);
  ops->add_rms_norm(x.data(), residual.data(), weight.data(), total.data(), out.data(), rows, width, 1e-5f,
                    dtype);
  ops->rms_norm(total.data(), weight.data(), again.data(), rows, width, 1e-5f, dtype);
  check(!memcmp(out.data(), again.data(), out.size() * (dtype == kFloat32 ? 4 : 2)),
        "rms_norm is not add_rms_norm");
  for (int64_t row = 0; row < rows; row++) {
    double squares = 0;
    for (int64_t i = row * width; i < (row + 1) * width; i++) {
      check_close(total, i, x.get(i) + residual.get(i), 1e-7, "add");
      squares += total.get(i) * total.get(i);
    }
    for (int64_t i = 0; i < width; i++)
      check_close(out, row * width + i,
                  total.get(row * width + i) / std::sqrt(squares / width + 1e-5) * weight.get(i), 1e-5,
                  "norm");
  }
}

void test_silu(DType dtype, int64_t rows, int64_t width) {
  Numbers x = random_numbers(2 * rows * width, dtype, 3), out(rows * width, dtype);
  ops->silu_mul(x.data(), out.data(), rows, width, dtype);
  for (int64_t i = 0; i < rows * width; i++) {
    const int64_t at = i / width * 2 * width + i % width;
    check_close(out, i, x.get(at) / (1 + std::exp(-double(x.get(at)))) * x.get(at + width), 1e-5, "silu");
  }
}

void test_copies() {
  Buffer<int32_t> table(5 * 7), out(2 * 7);
  for (int64_t i = 0; i < table.size(); i++) table[i] = i;
  Buffer<int64_t> indices(2), pair(2);
  indices[0] = 4, indices[1] = 2, pair[0] = 1, pair[1] = 3;
  ops->embed(table.data(), indices.data(), out.data(), 2, 28);
  check(out[0] == 28 && out[13] == 20, "embed");
  ops->copy_blocks(table.data(), pair.data(), 1, 28);
  check(table[21] == 7 && table[27] == 13 && table[20] == 20 && table[28] == 28, "copy_blocks");
}

struct CacheCase {
  DType dtype;
  bool codes;
  int64_t kv_heads, per_kv, head_dim, block_size, window;
};

// A prompt of `context` tokens is written and attended to in two chunks, the second of `chunk` tokens.
void test_attention(const CacheCase& c, int64_t context, int64_t chunk) {
  const int64_t heads = c.kv_heads * c.per_kv, dim = c.head_dim, width = (dim + 15) / 16 * 16;
  const int64_t blocks = (context + c.block_size - 1) / c.block_size, all = heads + 2 * c.kv_heads;
  const int64_t number = c.codes ? 1 : c.dtype == kFloat32 ? 4 : 2, cache_dtype = c.codes ? kInt8 : c.dtype;
  const int64_t size = blocks * c.kv_heads * c.block_size * (width * number + (c.codes ? 4 : 0));
  Buffer<char> keys(size), values(size);
  Numbers qkv = random_numbers(context * all * dim, c.dtype), rotated(context * heads * dim, c.dtype);
  Buffer<float> cos_sin(context * dim);
  Buffer<int64_t> positions(context), slots(context);
  Buffer<int32_t> table(blocks);
  for (int64_t i = 0; i < blocks; i++) table[i] = int32_t(blocks - 1 - i);
  for (int64_t p = 0; p < context; p++) {
    positions[p] = p, slots[p] = table[p / c.block_size] * c.block_size + p % c.block_size;
    for (int64_t i = 0; i < dim / 2; i++)
      cos_sin[p * dim + i] = std::cos(p * 0.1f * i), cos_sin[p * dim + dim / 2 + i] = std::sin(p * 0.1f * i);
  }
  const int64_t bytes = c.dtype == kFloat32 ? 4 : 2;
  char* first = qkv.data();
  ops->rope_and_cache(first, first + heads * dim * bytes, first + (heads + c.kv_heads) * dim * bytes,
                      all * dim, cos_sin.data(), positions.data(), slots.data(), nullptr, nullptr, 0,
                      rotated.data(), keys.data(), values.data(), context, heads, c.kv_heads, dim,
                      c.block_size, c.dtype, cache_dtype);
  const auto turned = [&](int64_t p, int64_t head, int64_t i) -> double {
    const int64_t at = (p * all + head) * dim, half = dim / 2, other = i < half ? i + half : i - half;
    const double cos = cos_sin[p * dim + i % half], sin = cos_sin[p * dim + half + i % half];
    return qkv.get(at + i) * cos + (i < half ? -1 : 1) * qkv.get(at + other) * sin;
  };
  for (int64_t i = 0; i < rotated.size(); i++)
    check_close(rotated, i, turned(i / dim / heads, i / dim % heads, i % dim), 1e-5, "rope");

  const std::string what = "attention, head_dim " + std::to_string(dim) + ", block " +
                           std::to_string(c.block_size) + ", codes " + std::to_string(c.codes) +
                           ", context " + std::to_string(context);
  Numbers query(chunk * heads * dim, c.dtype), out(chunk * heads * dim, c.dtype);
  memcpy(query.data(), rotated.data() + (context - chunk) * heads * dim * bytes, query.size() * bytes);
  Buffer<int32_t> request(4), items(10 * (chunk / 16 + context / 512 + 2));
  request[0] = 0, request[1] = int32_t(chunk), request[2] = int32_t(context), request[3] = 0;
  Buffer<int64_t> totals(3);
  ops->plan_attention(request.data(), chunk ? 1 : 0, c.window, items.data(), totals.data());
  Buffer<float> partials(totals[1] * heads * (width + 32));
  Buffer<int32_t> finished(totals[2] * c.kv_heads);
  ops->attention(query.data(), keys.data(), values.data(), out.data(), items.data(), totals[0], table.data(),
                 partials.data(), finished.data(), heads, c.kv_heads, dim, c.block_size, c.window, c.dtype,
                 cache_dtype);
  for (int64_t row = 0; row < chunk; row++)
    for (int64_t head = 0; head < heads; head++) {
      const int64_t last = context - chunk + row,
                    from = c.window ? std::max<int64_t>(0, last - c.window + 1) : 0;
      std::vector<double> weights, expected(dim);
      double sum = 0;
      for (int64_t p = from; p <= last; p++) {
        double score = 0;
        for (int64_t i = 0; i < dim; i++)
          score += query.get((row * heads + head) * dim + i) * turned(p, heads + head / c.per_kv, i);
        weights.push_back(std::exp(score / std::sqrt(double(dim))));
        sum += weights.back();
      }
      for (int64_t p = from; p <= last; p++)
        for (int64_t i = 0; i < dim; i++)
          expected[i] +=
              weights[p - from] / sum * qkv.get((p * all + heads + c.kv_heads + head / c.per_kv) * dim + i);
      for (int64_t i = 0; i < dim; i++)
        check_close(out, (row * heads + head) * dim + i, expected[i], c.codes ? 0.04 : 1e-5, what);
    }
}

struct Draw {
  float temperature;
  int32_t top_k;
  double top_p, log_min_p;
  uint64_t key;
};

void test_sampler(DType dtype, int64_t size) {
  Numbers logits = random_numbers(3 * size, dtype, 2);
  for (int64_t row = 0; row < 3; row++) {  // twice the same number on top
    logits.set(row * size + size / 2, 50);
    logits.set(row * size + size - 1, 50);
  }
  Buffer<Draw> draws(3);
  Buffer<int64_t> tokens(3);
  draws[0] = {0, 0, 1, -INFINITY, 1};
  draws[1] = {1, 2, 0.9, -3, 2};
  draws[2] = {1, 0, 1, -INFINITY, 3};
  ops->sample(logits.data(), draws.data(), tokens.data(), 3, size, size, dtype);
  check(tokens[0] == size / 2, "argmax");
  for (int64_t row = 1; row < 3; row++)
    check(tokens[row] == size / 2 || tokens[row] == size - 1, "sample draws what cannot win");
  Numbers found(3, kFloat32);
  ops->log_sum_exp(logits.data(), found.data(), 3, size, size, dtype);
  for (int64_t row = 0; row < 3; row++) {
    double sum = 0;
    for (int64_t i = 0; i < size; i++) sum += std::exp(double(logits.get(row * size + i)) - 50);
    check_close(found, row, 50 + std::log(sum), 1e-6, "log_sum_exp");
  }
}

void test_all() {
  for (const DType dtype : {kFloat32, kBFloat16}) {
    for (int format = kWeightFloat32; format <= kWeightInt4Shift; format++)
      for (const int64_t rows : {0, 1, 5, 29}) test_linear(WeightFormat(format), dtype, rows, 43, 70);
    for (const WeightFormat format : {kWeightInt8, kWeightInt8Group, kWeightInt4Group})
      test_quantize(format, dtype, 3, 70);
    for (const int64_t width : {1, 7, 33, 100}) {
      test_norms(dtype, 3, width);
      test_silu(dtype, 3, width);
      test_sampler(dtype, width);
    }
    test_norms(dtype, 0, 8), test_silu(dtype, 0, 8);
    for (const bool codes : {false, true}) {
      test_attention({dtype, codes, 2, 3, 20, 6, 0}, 33, 33);
      test_attention({dtype, codes, 1, 1, 80, 32, 0}, 65, 0);
      test_attention({dtype, codes, 1, 7, 64, 16, 0}, 531, 3);
      test_attention({dtype, codes, 2, 2, 16, 24, 9}, 70, 18);
    }
  }
  test_copies();
}

const Variant* find_variant(const std::string& name) {
  const std::vector<const Variant*> variants = {
      &plain_variant,
#if defined(__x86_64__)
      &avx2_variant,
      &avx512_variant,
#endif
  };
  for (const Variant* variant : variants)
    if (name == variant->name) return variant;
  return nullptr;
}

}  // namespace

int main(int count, char** arguments) {
  ops = find_variant(count > 1 ? arguments[1] : "plain");
  if (!ops) return 64;
  set_threads(2);
  if (count > 2) {
    Numbers x(2 * 33 - 1, kFloat32), out(33, kFloat32);
    ops->silu_mul(x.data(), out.data(), 1, 33, kFloat32);
    return 0;
  }
  test_all();
  set_threads(1);
  std::printf("%s: %d failures\n", ops->name, failures);
  return failures ? 1 : 0;
}
