// Paged attention, prefill and decode alike, and the layout of the cache.
//
// The cache of a layer, for blocks of B tokens, G kv heads, head dimension D padded to W (a multiple of 16),
// and packs of P numbers (two bf16 or one float, see `vector_math.h`):
//     keys    [blocks, G, B / L, W / P, L, P]   panels of L tokens: their scores are sums of column vectors
//     values  [blocks, G, B / P, W, P]          tokens in packs: outputs are sums of row vectors
// L is the largest power of two up to 16 that divides B; B is even.
//
// The rows of an item are query rows times the query heads that share a kv head, so that a key is read once
// for all of them. The context is cut at multiples of kSplit and scored in tiles at multiples of kTile, both
// absolute positions. Within a split the softmax runs on; splits are merged in order, by whichever thread is
// last. What a row does not see contributes exact zeros. Hence a row's bits do not depend on the other rows,
// on how its prompt was cut into chunks, or on the number of threads.
//
// Softmax weights are rounded to the type of the values before they multiply them (as in FlashAttention, Dao
// et al., 2022); everything else is float32. The split decode is "Flash-Decoding" (Dao et al., 2023).
#pragma once

#include <atomic>
#include <cmath>
#include <utility>
#include <vector>

#include "vector_math.h"

namespace sluice::SLUICE_ISA {

constexpr int64_t kSplit = 512;
constexpr int64_t kTile = 64;
constexpr int64_t kPanels = kTile / kLanes;
constexpr int64_t kQueryTile = 16;  // query rows of an item
constexpr int kRowBlock = 4;        // rows whose sums are in registers together
#if defined(__AVX512F__)
constexpr int kVectors = 4;  // times vectors of each
#else
constexpr int kVectors = 1;
#endif
constexpr float kNoScore = -1e30f;  // below every score, and finite: differences of maxima stay numbers

inline int64_t padded_width(int64_t head_dim) { return (head_dim + kLanes - 1) / kLanes * kLanes; }

inline int64_t panel_length(int64_t block_size) { return std::min(kLanes, block_size & -block_size); }

// Consecutive query rows of one request, and the part of the context they attend to in this item.
struct AttentionItem {
  int32_t row, rows;      // in the batch
  int32_t position;       // of the first row
  int32_t table;          // where the request's block table starts
  int32_t begin, end;     // positions
  int32_t split, splits;  // this one, of how many, when other items do the other splits of these rows
  int32_t partial;        // first row of partial results, counted in query rows; -1: the item does all splits
  int32_t group;          // of the items that share these rows
};

// Cut a step into items. `queries` holds first row, rows, context and table start of each request; `window`
// is 0 without one. Writes the items and {items, partial rows, groups}. Long chunks come first, their latest
// rows (with the longest contexts) before all: what is taken last should be small.
inline void plan_attention(const void* queries, int64_t count, int64_t window, void* items, void* totals) {
  auto* item = static_cast<AttentionItem*>(items);
  auto* total = static_cast<int64_t*>(totals);
  int32_t partial = 0, group = 0;
  const auto plan_query = [&](const int32_t* query) {
    const int32_t row = query[0], rows = query[1], context = query[2], table = query[3];
    for (int32_t from = (rows - 1) / kQueryTile * kQueryTile; from >= 0; from -= kQueryTile) {
      const int32_t length = std::min<int32_t>(kQueryTile, rows - from);
      const int32_t position = context - rows + from, end = position + length;
      const int32_t begin = window ? std::max<int32_t>(0, position - window + 1) : 0;
      const int32_t first = begin / kSplit, splits = (end - 1) / kSplit - first + 1;
      if (rows > kQueryTile || splits == 1) {
        *item++ = {row + from, length, position, table, begin, end, 0, splits, -1, 0};
        continue;
      }
      for (int32_t split = 0; split < splits; split++) {
        const int32_t start = (first + split) * kSplit;
        const int32_t stop = std::min<int32_t>(end, start + kSplit);
        *item++ = {row + from, length, position, table,   std::max(begin, start),
                   stop,       split,  splits,   partial, group};
      }
      partial += splits * length;
      group++;
    }
  };
  const auto* query = static_cast<const int32_t*>(queries);
  for (int64_t i = 0; i < count; i++)
    if (query[4 * i + 1] > kQueryTile) plan_query(query + 4 * i);
  for (int64_t i = 0; i < count; i++)
    if (query[4 * i + 1] <= kQueryTile) plan_query(query + 4 * i);
  total[0] = item - static_cast<AttentionItem*>(items);
  total[1] = partial;
  total[2] = group;
}

// Keys and values of sixteen positions.
template <class T>
struct Panel {
  const T *keys, *values;
};

// What a block of rows fetches of the next tile while it computes: panels of keys, or vectors of every pack
// of values, [first, last). Decode waits for nothing but memory, and memory should never wait for arithmetic,
// so the lines are spread evenly over the arithmetic.
template <class T>
struct Ahead {
  const Panel<T>* panels;
  int first, last;
};

// scores[r][c * 16...] = query[r] . keys of panel c.
template <class T, int R, int C>
inline void score(const T* query, int64_t width, const Panel<T>* panels, Ahead<T> ahead, float* scores) {
  f32x16 sums[R][C];
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) sums[r][c] = splat(0);
  for (int64_t i = 0; i < width; i += kPack<T>) {
    decltype(load_packs(query)) keys[C];
    for (int c = 0; c < C; c++) keys[c] = load_packs(panels[c].keys + i * kLanes);
    for (int c = ahead.first; c < ahead.last; c++) __builtin_prefetch(ahead.panels[c].keys + i * kLanes);
    for (int r = 0; r < R; r++) {
      const auto q = repeat_pack(query + r * width + i);
      for (int c = 0; c < C; c++) sums[r][c] = dot(q, keys[c], sums[r][c]);
    }
  }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) store(scores + r * kTile + c * kLanes, sums[r][c]);
}

// out[r][c * 16...] += sum of weights[r][i] * values of position i, for positions [begin, end) of the tile
// and C vectors from `column` on.
template <class T, int R, int C>
inline void mix(const T* weights, const Panel<T>* panels, Ahead<T> ahead, int64_t begin, int64_t end,
                int64_t width, int64_t column, float* out, int64_t stride) {
  f32x16 sums[R][C];
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) sums[r][c] = load(out + r * stride + column + c * kLanes);
  for (int64_t i = begin; i < end;) {
    const int64_t panel = i / kLanes, offset = i % kLanes * width + column * kPack<T>;
    const T *values = panels[panel].values + offset, *next = ahead.panels[panel].values + offset;
    for (const int64_t stop = std::min(end, (panel + 1) * kLanes); i < stop; i += kPack<T>) {
      decltype(load_packs(values)) v[C];
      for (int c = 0; c < C; c++) v[c] = load_packs(values + c * kLanes * kPack<T>);
      for (int c = ahead.first; c < ahead.last; c++) __builtin_prefetch(next + c * kLanes * kPack<T>);
      for (int r = 0; r < R; r++) {
        const auto w = repeat_pack(weights + r * kTile + i);
        for (int c = 0; c < C; c++) sums[r][c] = dot(w, v[c], sums[r][c]);
      }
      values += kPack<T> * width, next += kPack<T> * width;
    }
  }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) store(out + r * stride + column + c * kLanes, sums[r][c]);
}

// Call `visit(block, row, index)` for blocks of kRowBlock rows, then for single ones; `block.value` rows
// each.
template <class Visit>
inline void for_row_blocks(int64_t rows, Visit visit) {
  int64_t row = 0;
  int index = 0;
  for (; row + kRowBlock <= rows; row += kRowBlock)
    visit(std::integral_constant<int, kRowBlock>{}, row, index++);
  for (; row < rows; row++) visit(std::integral_constant<int, 1>{}, row, index++);
}

template <class T>
struct AttentionArgs {
  const T *query, *keys, *values;  // query [rows, heads, head_dim]
  T* out;
  const AttentionItem* items;
  const int32_t* tables;
  float* partials;                 // [partial rows, heads, padded width + 32]
  std::atomic<int32_t>* finished;  // [groups, kv_heads], zero between calls
  int64_t heads, kv_heads, head_dim, block_size, window;
};

// One item on one kv head. A "row" here is one of `rows_` pairs of query row and query head. The state of a
// row's softmax is `width + 32` floats: weighted values [width], sums of weights [16 lanes], largest score.
template <class T>
class ItemAttention {
 public:
  ItemAttention(const AttentionArgs<T>& args, const AttentionItem& item, int64_t kv_head)
      : args_(args),
        item_(item),
        kv_head_(kv_head),
        per_kv_(args.heads / args.kv_heads),
        width_(padded_width(args.head_dim)),
        stride_(width_ + 2 * kLanes),
        rows_(item.rows * per_kv_),
        scale_(1 / std::sqrt(static_cast<float>(args.head_dim))) {
    thread_local std::vector<float> scratch;
    const size_t needed = rows_ * (width_ + 2 * kTile + 2 * stride_) + 3 * kTile * width_ + kLanes;
    if (scratch.size() < needed) scratch.resize(needed);
    float* next = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64);
    const auto take = [&next](int64_t floats) { return std::exchange(next, next + floats); };
    query_ = reinterpret_cast<T*>(take(rows_ * width_));
    weights_ = reinterpret_cast<T*>(take(rows_ * kTile));
    scores_ = take(rows_ * kTile);
    result_ = take(rows_ * stride_);
    state_ = item.partial < 0 ? take(rows_ * stride_) : partial(item.split);
    panel_copies_ = reinterpret_cast<T*>(take(3 * kTile * width_));
  }

  void run() {
    copy_query();
    if (item_.partial < 0) {
      reset(result_);
      for (int64_t at = item_.begin / kSplit * kSplit; at < item_.end; at += kSplit) {
        attend(std::max<int64_t>(at, item_.begin), std::min<int64_t>(at + kSplit, item_.end));
        merge(state_);
      }
      write_out();
    } else {
      attend(item_.begin, item_.end);
      if (is_last_of_group()) merge_group();
    }
  }

 private:
  const T* query_row(const T* base, int64_t row) const {
    return base +
           ((item_.row + row / per_kv_) * args_.heads + kv_head_ * per_kv_ + row % per_kv_) * args_.head_dim;
  }

  // The rows end to end, padded with zeros to `width_`.
  void copy_query() {
    std::fill_n(query_, rows_ * width_, T{});
    for (int64_t row = 0; row < rows_; row++)
      std::copy_n(query_row(args_.query, row), args_.head_dim, query_ + row * width_);
  }

  void reset(float* state) const {
    std::fill_n(state, rows_ * stride_, 0.f);
    for (int64_t row = 0; row < rows_; row++) state[row * stride_ + width_ + kLanes] = kNoScore;
  }

  // The state of all rows after positions [begin, end), which lie in one split.
  void attend(int64_t begin, int64_t end) {
    reset(state_);
    for (int64_t start = begin / kTile * kTile; start < end; start += kTile)
      attend_tile(start, std::max(begin - start, int64_t{0}), std::min(end - start, kTile));
  }

  // The tile at `start`, of which positions [begin, end) are seen by some row.
  void attend_tile(int64_t start, int64_t begin, int64_t end) {
    Panel<T> panels[kPanels], next[kPanels];
    find_panels(start, begin, end, panels);
    const bool has_next = find_next_panels(start + kTile, panels, next);
    const int shares = has_next ? std::min<int>(kPanels, rows_ / kRowBlock + rows_ % kRowBlock) : 0;
    const auto ahead = [&next, shares](int index) {
      if (index >= shares) return Ahead<T>{next, 0, 0};
      return Ahead<T>{next, index * int(kPanels) / shares, (index + 1) * int(kPanels) / shares};
    };
    for_row_blocks(rows_, [&](auto block, int64_t row, int index) {
      for (int c = 0; c < kPanels; c += kVectors)
        score<T, block.value, kVectors>(query_ + row * width_, width_, panels + c, ahead(index),
                                        scores_ + row * kTile + c * kLanes);
    });
    for (int64_t row = 0; row < rows_; row++) soften(row, item_.position + row / per_kv_ - start);
    begin = begin / kPack<T> * kPack<T>;
    for_row_blocks(rows_, [&](auto block, int64_t row, int index) {
      const T* weights = weights_ + row * kTile;
      float* state = state_ + row * stride_;
      int64_t column = 0;
      for (; column + kVectors * kLanes <= width_; column += kVectors * kLanes)
        mix<T, block.value, kVectors>(weights, panels, ahead(index), begin, end, width_, column, state,
                                      stride_);
      for (; column < width_; column += kLanes)
        mix<T, block.value, 1>(weights, panels, {next, 0, 0}, begin, end, width_, column, state, stride_);
    });
  }

  bool in_place() const { return args_.block_size % kLanes == 0; }

  // Panels without a visible position are replaced by a neighbour: they are scored, and not looked at.
  void find_panels(int64_t start, int64_t begin, int64_t end, Panel<T>* panels) {
    for (int c = 0; c < kPanels; c++) {
      const int64_t position = start + std::clamp(c * kLanes, begin, end - 1) / kLanes * kLanes;
      panels[c] = in_place() ? slots(position)
                             : gather(position, start + end, panel_copies_ + 2 * c * kLanes * width_);
    }
    if (end % kPack<T>) blank_after(end, panels[(end - 1) / kLanes]);
  }

  // False, and `panels` again, if this item has no next tile or there is no use in fetching it from here.
  bool find_next_panels(int64_t start, const Panel<T>* panels, Panel<T>* next) const {
    const bool exists = start < item_.end && in_place() && kVectors == kPanels;
    for (int c = 0; c < kPanels; c++)
      next[c] =
          exists ? slots(std::min<int64_t>(start + c * kLanes, item_.end - 1) / kLanes * kLanes) : panels[c];
    return exists;
  }

  // Where the positions from `position` on lie, up to the end of a panel of the cache.
  Panel<T> slots(int32_t position) const {
    const int32_t block_size = args_.block_size, block = args_.tables[item_.table + position / block_size];
    const int64_t offset =
        ((block * args_.kv_heads + kv_head_) * block_size + position % block_size) * width_;
    return {args_.keys + offset, args_.values + offset};
  }

  // A panel of sixteen positions, put together from the shorter ones of this block size.
  Panel<T> gather(int64_t position, int64_t end, T* copy) const {
    const int64_t length = panel_length(args_.block_size), size = kLanes * width_;
    for (int64_t lane = 0; lane < kLanes; lane += length) {
      const int64_t from = std::min(position + lane, (end - 1) / length * length);
      const Panel<T> part = slots(from);
      for (int64_t i = 0; i < width_; i += kPack<T>)
        std::copy_n(part.keys + i * length, length * kPack<T>, copy + i * kLanes + lane * kPack<T>);
      std::copy_n(part.values, length * width_, copy + size + lane * width_);
    }
    return {copy, copy + size};
  }

  // The slot after the last position shares its packs. It may hold anything, not-a-number included, which a
  // weight of zero would not silence.
  void blank_after(int64_t end, Panel<T>& panel) {
    T* copy = panel_copies_ + 2 * kTile * width_;
    std::copy_n(panel.values, kLanes * width_, copy);
    T* last = copy + (end - 1) % kLanes * width_;
    for (int64_t i = 0; i < width_; i++) last[i * kPack<T> + 1] = T{};
    panel.values = copy;
  }

  // Scores of a row to weights, relative to its largest score so far. `last` is the last position of the tile
  // that it sees.
  void soften(int64_t row, int64_t last) {
    const int64_t first = args_.window ? last - args_.window + 1 : 0;
    float* state = state_ + row * stride_;
    const float* from = scores_ + row * kTile;
    f32x16 s0 = load(from), s1 = load(from + 16), s2 = load(from + 32), s3 = load(from + 48);
    if (first > 0 || last < kTile - 1) {
      s0 = visible(s0, first, last), s1 = visible(s1, first - 16, last - 16);
      s2 = visible(s2, first - 32, last - 32), s3 = visible(s3, first - 48, last - 48);
    }
    const float top = raise(state, largest(larger(larger(s0, s1), larger(s2, s3))));
    const f32x16 scale = splat(scale_), shift = splat(-top * scale_);
    s0 = exp(fma(s0, scale, shift)), s1 = exp(fma(s1, scale, shift));
    s2 = exp(fma(s2, scale, shift)), s3 = exp(fma(s3, scale, shift));
    T* to = weights_ + row * kTile;
    store(to, s0), store(to + 16, s1), store(to + 32, s2), store(to + 48, s3);
    store(state + width_, load(state + width_) + ((s0 + s1) + (s2 + s3)));
  }

  static f32x16 visible(f32x16 scores, int64_t first, int64_t last) {
    const i32x16 seen =
        (kLaneIndex >= static_cast<int32_t>(first)) & (kLaneIndex <= static_cast<int32_t>(last));
    return seen ? scores : splat(-kInfinity);
  }

  // Make the state of a row relative to `score` if that is its largest yet; returns the largest.
  float raise(float* state, float score) const {
    float& top = state[width_ + kLanes];
    if (score <= top) return top;
    const f32x16 factor = exp(splat((top - score) * scale_));
    for (int64_t i = 0; i < width_ + kLanes; i += kLanes) store(state + i, load(state + i) * factor);
    return top = score;
  }

  // Add the states of the rows of one more split to the result.
  void merge(const float* states) {
    for (int64_t row = 0; row < rows_; row++) {
      const float* from = states + row * stride_;
      float* to = result_ + row * stride_;
      const float top = raise(to, from[width_ + kLanes]);
      const f32x16 factor = exp(splat((from[width_ + kLanes] - top) * scale_));
      for (int64_t i = 0; i < width_ + kLanes; i += kLanes)
        store(to + i, fma(load(from + i), factor, load(to + i)));
    }
  }

  float* partial(int64_t split) const {
    const int64_t first = (item_.partial + split * item_.rows) * args_.heads;
    return args_.partials + (first + kv_head_ * rows_) * stride_;
  }

  bool is_last_of_group() {
    std::atomic<int32_t>& finished = args_.finished[item_.group * args_.kv_heads + kv_head_];
    if (finished.fetch_add(1, std::memory_order_acq_rel) + 1 < item_.splits) return false;
    finished.store(0, std::memory_order_relaxed);
    return true;
  }

  void merge_group() {
    reset(result_);
    for (int64_t split = 0; split < item_.splits; split++) merge(partial(split));
    write_out();
  }

  void write_out() const {
    for (int64_t row = 0; row < rows_; row++) {
      const float* state = result_ + row * stride_;
      const f32x16 factor = splat(1 / sum(load(state + width_)));
      T* to = const_cast<T*>(query_row(args_.out, row));
      for_lanes(args_.head_dim,
                [&](int64_t i, int64_t count) { store(to + i, load(state + i) * factor, count); });
    }
  }

  const AttentionArgs<T>& args_;
  const AttentionItem& item_;
  const int64_t kv_head_, per_kv_, width_, stride_, rows_;
  const float scale_;
  T *query_, *weights_, *panel_copies_;
  float *scores_, *state_, *result_;
};

// Items of one kv head follow each other, so that their keys and values may still be in the cache.
template <class T>
void attention_of(const AttentionArgs<T>& args, int64_t num_items) {
  parallel(num_items * args.kv_heads, [&args, num_items](int64_t index) {
    ItemAttention<T>(args, args.items[index % num_items], index / num_items).run();
  });
}

inline void attention(const void* query, const void* keys, const void* values, void* out, const void* items,
                      int64_t num_items, const void* tables, void* partials, void* finished, int64_t heads,
                      int64_t kv_heads, int64_t head_dim, int64_t block_size, int64_t window, int64_t dtype) {
  with_type(dtype, [=](auto type) {
    using T = decltype(type);
    const AttentionArgs<T> args{(const T*)query,
                                (const T*)keys,
                                (const T*)values,
                                (T*)out,
                                (const AttentionItem*)items,
                                (const int32_t*)tables,
                                (float*)partials,
                                (std::atomic<int32_t>*)finished,
                                heads,
                                kv_heads,
                                head_dim,
                                block_size,
                                window};
    attention_of(args, num_items);
  });
}

}  // namespace sluice::SLUICE_ISA
