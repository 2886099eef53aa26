// Paged attention, prefill and decode alike, and the layout of the cache.
//
// The cache of a layer, for blocks of B tokens, G kv heads, head dimension D padded to W (a multiple of 16),
// and packs of P numbers (two bf16 or one float, see `vector_math.h`):
//     keys    [blocks, G, B / L, W / P, L, P]   panels of L tokens: their scores are sums of column vectors
//     values  [blocks, G, B / P, W, P]          tokens in packs: outputs are sums of row vectors
// L is the largest power of two up to 16 that divides B; B is even. A cache of int8 codes has the same order,
// P being that of the activations, and behind the codes of a block and kv head the scales of its B tokens.
//
// The rows of an item are query rows times the query heads that share a kv head, so that a key is read once
// for all of them. The context is cut at multiples of kSplit and scored in tiles at multiples of kTile, both
// absolute positions. Within a split the softmax runs on; splits are merged in order, by whichever thread is
// last. What a row does not see contributes exact zeros. Hence a row's bits do not depend on the other rows,
// on how its prompt was cut into chunks, or on the number of threads.
//
// Softmax weights are rounded to the type of the activations before they multiply the values (as in
// FlashAttention, Dao et al., 2022); everything else is float32. Codes are exact in that type: a tile of them
// is widened, keys' scales multiply the scores, and values' scales the weights. The split decode is
// "Flash-Decoding" (Dao et al., 2023).
#pragma once

#include <atomic>
#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

#include "vector_math.h"

namespace sluice::SLUICE_ISA {

constexpr int64_t kSplit = 512;
constexpr int64_t kTile = 64;
constexpr int kTileVectors = kTile / kLanes;
constexpr int64_t kPanelTokens = 16;  // and the multiple that head dimensions are padded to
constexpr int64_t kPanels = kTile / kPanelTokens;
constexpr int64_t kQueryTile = 16;  // query rows of an item
constexpr int kRowBlock = 4;        // rows whose sums are in registers together
#if defined(__AVX512F__) || defined(__ARM_NEON)
constexpr int kVectors = 4;  // times vectors of each
#else
constexpr int kVectors = 2;
#endif
constexpr float kNoScore = -1e30f;  // below every score, and finite: differences of maxima stay numbers

inline int64_t padded_width(int64_t head_dim) {
  return (head_dim + kPanelTokens - 1) / kPanelTokens * kPanelTokens;
}

inline int64_t panel_length(int64_t block_size) { return std::min(kPanelTokens, block_size & -block_size); }

// What the cache stores: activations as they are, or int8 codes.
template <class Stored>
constexpr bool kCodes = std::is_same_v<Stored, int8_t>;

// Numbers that the keys, or the values, of one block and kv head take.
template <class Stored>
int64_t block_numbers(int64_t block_size, int64_t width) {
  return block_size * (width + (kCodes<Stored> ? int64_t{sizeof(float)} : 0));
}

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

// Keys and values of sixteen positions, and their scales if they are codes.
template <class Stored>
struct Panel {
  const Stored *keys, *values;
  const float *key_scales, *value_scales;
};

// What a block of rows fetches of the next tile while it computes: panels of keys, or vectors of every pack
// of values, [first, last). Decode waits for nothing but memory, and memory should never wait for arithmetic,
// so the lines are spread evenly over the arithmetic.
template <class Stored>
struct Ahead {
  const Panel<Stored>* panels;
  int first, last;
};

// Into the second cache: the nearest one has too few places for lines under way, and waits when they are
// taken.
SLUICE_INLINE void fetch(const void* line) { __builtin_prefetch(line, 0, 2); }

// Not inlined: their loops need all registers.
#define SLUICE_APART __attribute__((noinline))

// scores[r][...] = query[r] . keys, for C vectors of keys. `width` numbers in each.
template <class T, class Stored, int R, int C>
SLUICE_APART void score(const T* query, int64_t width, const T* const* keys, Ahead<Stored> ahead,
                        float* scores) {
  Floats sums[R][C] = {};
  for (int64_t i = 0; i < width; i += kPack<T>) {
    Ints k[C];
    SLUICE_UNROLL for (int c = 0; c < C; c++) k[c] = load_register(keys[c] + i * kPanelTokens);
    for (int c = ahead.first; c < ahead.last; c++) fetch(ahead.panels[c].keys + i * kPanelTokens);
    SLUICE_UNROLL for (int r = 0; r < R; r++) {
      const Ints q = repeat_pack(query + r * width + i);
      SLUICE_UNROLL for (int c = 0; c < C; c++) sums[r][c] = dot<T>(q, k[c], sums[r][c]);
    }
  }
  SLUICE_UNROLL for (int r = 0; r < R; r++) {
    SLUICE_UNROLL for (int c = 0; c < C; c++) store(scores + r * kTile + c * kLanes, sums[r][c]);
  }
}

// out[r][...] += sum of weights[r][i] * values of position i, for positions [begin, end) of the tile and C
// vectors from `column` on.
template <class T, class Stored, int R, int C>
SLUICE_APART void mix(const T* weights, const T* const* panels, Ahead<Stored> ahead, int64_t begin,
                      int64_t end, int64_t width, int64_t column, float* out, int64_t stride) {
  Floats sums[R][C];
  SLUICE_UNROLL for (int r = 0; r < R; r++) {
    SLUICE_UNROLL for (int c = 0; c < C; c++) sums[r][c] = load(out + r * stride + column + c * kLanes);
  }
  for (int64_t i = begin; i < end;) {
    const int64_t panel = i / kPanelTokens, offset = i % kPanelTokens * width + column * kPack<T>;
    const T* values = panels[panel] + offset;
    const Stored* next = ahead.panels[panel].values + offset;
    for (const int64_t stop = std::min(end, (panel + 1) * kPanelTokens); i < stop; i += kPack<T>) {
      Ints v[C];
      SLUICE_UNROLL for (int c = 0; c < C; c++) v[c] = load_register(values + c * kLanes * kPack<T>);
      for (int c = ahead.first; c < ahead.last; c++) fetch(next + c * kLanes * kPack<T>);
      SLUICE_UNROLL for (int r = 0; r < R; r++) {
        const Ints w = repeat_pack(weights + r * kTile + i);
        SLUICE_UNROLL for (int c = 0; c < C; c++) sums[r][c] = dot<T>(w, v[c], sums[r][c]);
      }
      values += kPack<T> * width, next += kPack<T> * width;
    }
  }
  SLUICE_UNROLL for (int r = 0; r < R; r++) {
    SLUICE_UNROLL for (int c = 0; c < C; c++) store(out + r * stride + column + c * kLanes, sums[r][c]);
  }
}

// Call `visit(block, row, index)` for blocks of kRowBlock rows and the rest; `block.value` rows each.
template <class Visit>
inline void for_row_blocks(int64_t rows, Visit visit) {
  int64_t row = 0;
  int index = 0;
  for (; row + kRowBlock <= rows; row += kRowBlock)
    visit(std::integral_constant<int, kRowBlock>{}, row, index++);
  switch (rows - row) {
    case 3:
      return visit(std::integral_constant<int, 3>{}, row, index);
    case 2:
      return visit(std::integral_constant<int, 2>{}, row, index);
    case 1:
      return visit(std::integral_constant<int, 1>{}, row, index);
  }
}

template <class T, class Stored>
struct AttentionArgs {
  const T* query;  // [rows, heads, head_dim]
  const Stored *keys, *values;
  T* out;
  const AttentionItem* items;
  int64_t num_items;
  const int32_t* tables;
  float* partials;                 // [partial rows, heads, padded width + 32]
  std::atomic<int32_t>* finished;  // [groups, kv_heads], zero between calls
  int64_t heads, kv_heads, head_dim, block_size, window;
};

// One item on one kv head, the `index`th of all. A "row" here is one of `rows_` pairs of query row and query
// head. The state of a row's softmax is `width + 32` floats: weighted values [width], sums of weights [16],
// largest score.
template <class T, class Stored>
class ItemAttention {
 public:
  ItemAttention(const AttentionArgs<T, Stored>& args, int64_t index)
      : args_(args),
        index_(index),
        item_(args.items[index % args.num_items]),
        kv_head_(index / args.num_items),
        per_kv_(args.heads / args.kv_heads),
        width_(padded_width(args.head_dim)),
        stride_(width_ + 2 * kPanelTokens),
        rows_(item_.rows * per_kv_),
        scale_(kLog2E / std::sqrt(static_cast<float>(args.head_dim))) {
    thread_local std::vector<float> scratch;
    const size_t needed =
        rows_ * (width_ + 2 * kTile + 2 * stride_) + kTile * (3 * width_ + 2) + kPanelTokens;
    if (scratch.size() < needed) scratch.resize(needed);
    float* next = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64);
    const auto take = [&next](int64_t floats) { return std::exchange(next, next + floats); };
    query_ = reinterpret_cast<T*>(take(rows_ * width_));
    weights_ = reinterpret_cast<T*>(take(rows_ * kTile));
    scores_ = take(rows_ * kTile);
    result_ = take(rows_ * stride_);
    state_ = item_.partial < 0 ? take(rows_ * stride_) : partial(item_.split);
    copies_ = reinterpret_cast<T*>(take(3 * kTile * width_));
    key_scales_ = take(kTile), value_scales_ = take(kTile);
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
  template <class Number>
  Number* query_row(Number* base, int64_t row) const {
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
    for (int64_t row = 0; row < rows_; row++) top(state, row) = kNoScore;
  }

  float& top(float* state, int64_t row) const { return state[row * stride_ + width_ + kPanelTokens]; }

  // The state of all rows after positions [begin, end), which lie in one split.
  void attend(int64_t begin, int64_t end) {
    reset(state_);
    for (int64_t start = begin / kTile * kTile; start < end; start += kTile)
      attend_tile(start, std::max(begin - start, int64_t{0}), std::min(end - start, kTile));
  }

  // The tile at `start`, of which positions [begin, end) are seen by some row.
  void attend_tile(int64_t start, int64_t begin, int64_t end) {
    find_panels(start, begin, end);
    Panel<Stored> next[kPanels];
    const int shares =
        find_next_panels(start + kTile, next) ? std::min<int>(kPanels, (rows_ + 3) / kRowBlock) : 0;
    const auto ahead = [&next, shares](int index) {
      if (index >= shares) return Ahead<Stored>{next, 0, 0};
      return Ahead<Stored>{next, index * int(kPanels) / shares, (index + 1) * int(kPanels) / shares};
    };
    const T* keys[kTileVectors];
    for (int64_t v = 0; v < kTileVectors; v++)
      keys[v] = keys_[v * kLanes / kPanelTokens] + v * kLanes % kPanelTokens * kPack<T>;
    for_row_blocks(rows_, [&](auto block, int64_t row, int index) {
      for (int v = 0; v < kTileVectors; v += kVectors)
        score<T, Stored, block.value, kVectors>(query_ + row * width_, width_, keys + v, ahead(index),
                                                scores_ + row * kTile + v * kLanes);
    });
    for (int64_t row = 0, last = item_.position - start; row < rows_; last++)
      for (const int64_t stop = row + per_kv_; row < stop; row++) soften(row, last);
    begin = begin / kPack<T> * kPack<T>;
    for_row_blocks(rows_, [&](auto block, int64_t row, int index) {
      const auto mix_columns = [&](auto columns, int64_t column, Ahead<Stored> lines) {
        mix<T, Stored, block.value, columns.value>(weights_ + row * kTile, values_, lines, begin, end, width_,
                                                   column, state_ + row * stride_, stride_);
      };
      int64_t column = 0;
      for (; column + kVectors * kLanes <= width_; column += kVectors * kLanes)
        mix_columns(std::integral_constant<int, kVectors>{}, column, ahead(index));
      for (; column < width_; column += kLanes)
        mix_columns(std::integral_constant<int, 1>{}, column, {next, 0, 0});
    });
  }

  bool in_place() const { return args_.block_size % kPanelTokens == 0; }

  // Panels without a visible position are replaced by a neighbour: they are scored, and not looked at.
  void find_panels(int64_t start, int64_t begin, int64_t end) {
    for (int64_t c = 0; c < kPanels; c++) {
      const int64_t first = std::clamp(c * kPanelTokens, begin, end - 1) / kPanelTokens * kPanelTokens;
      if constexpr (!kCodes<Stored>) {
        if (in_place()) {
          const Panel<Stored> panel = slots(start + first);
          keys_[c] = panel.keys, values_[c] = panel.values;
          continue;
        }
      }
      T* copy = copies_ + 2 * c * kPanelTokens * width_;
      gather(start + first, start + end, copy, copy + kPanelTokens * width_, c * kPanelTokens);
      keys_[c] = copy, values_[c] = copy + kPanelTokens * width_;
    }
    if (kCodes<Stored>) {  // a weight of zero would not silence a scale that is no number
      std::fill_n(value_scales_, begin, 0.f);
      std::fill_n(value_scales_ + end, kTile - end, 0.f);
    } else if (end % kPack<T>) {
      blank_after(end);
    }
  }

  // The tile at `start`; after the last one, the first tile of the item that this thread will probably take
  // next. False if there is none, or no use in fetching it from here.
  bool find_next_panels(int64_t start, Panel<Stored>* next) const {
    const bool here = start < item_.end;
    const int64_t last = args_.num_items * args_.kv_heads - 1, index = here ? index_ : index_ + threads();
    const AttentionItem& item = args_.items[std::min(index, last) % args_.num_items];
    if (!here) start = item.begin / kTile * kTile;
    for (int64_t c = 0; c < kPanels; c++) {
      const int64_t position = std::min<int64_t>(start + c * kPanelTokens, item.end - 1);
      next[c] = slots(item, std::min(index, last) / args_.num_items, position / kPanelTokens * kPanelTokens);
    }
    return index <= last && in_place() && kVectors == kPanels;
  }

  Panel<Stored> slots(int64_t position) const { return slots(item_, kv_head_, position); }

  // Where the positions from `position` on lie, up to the end of a panel of the cache.
  Panel<Stored> slots(const AttentionItem& item, int64_t kv_head, int64_t position) const {
    const uint32_t block_size = args_.block_size, index = uint32_t(position) / block_size;
    const int64_t block = args_.tables[item.table + index];
    const int64_t first = (block * args_.kv_heads + kv_head) * block_numbers<Stored>(block_size, width_);
    const int64_t scales = first + block_size * width_, slot = position - int64_t{index} * block_size;
    return {args_.keys + first + slot * width_, args_.values + first + slot * width_,
            reinterpret_cast<const float*>(args_.keys + scales) + slot,
            reinterpret_cast<const float*>(args_.values + scales) + slot};
  }

  // Sixteen positions, put together from the panels of this block size, codes widened. Their scales go to
  // position `at` of the tile's.
  void gather(int64_t position, int64_t end, T* keys, T* values, int64_t at) const {
    const int64_t length = panel_length(args_.block_size);
    for (int64_t lane = 0; lane < kPanelTokens; lane += length) {
      const Panel<Stored> part = slots(std::min(position + lane, (end - 1) / length * length));
      const int64_t run = length == kPanelTokens ? width_ : kPack<T>;  // of the head, that lies as it should
      for (int64_t i = 0; i < width_; i += run)
        widen(part.keys + i * length, length * run, keys + i * kPanelTokens + lane * kPack<T>);
      widen(part.values, length * width_, values + lane * width_);
      if (!kCodes<Stored>) continue;
      std::copy_n(part.key_scales, length, key_scales_ + at + lane);
      std::copy_n(part.value_scales, length, value_scales_ + at + lane);
    }
  }

  static void widen(const Stored* from, int64_t count, T* to) {
    if constexpr (kCodes<Stored>)
      for_lanes(count, [=](int64_t i, int64_t some) { store(to + i, load(from + i, some), some); });
    else
      std::copy_n(from, count, to);
  }

  // The slot after the last position shares its packs. It may hold anything, not-a-number included, which a
  // weight of zero would not silence.
  void blank_after(int64_t end) {
    const T*& values = values_[(end - 1) / kPanelTokens];
    T* copy = copies_ + 2 * kTile * width_;
    std::copy_n(values, kPanelTokens * width_, copy);
    T* last = copy + (end - 1) % kPanelTokens * width_;
    for (int64_t i = 0; i < width_; i++) last[i * kPack<T> + 1] = T{};
    values = copy;
  }

  // Scores of a row to weights, relative to its largest score so far. `last` is the last position of the tile
  // that it sees.
  void soften(int64_t row, int64_t last) {
    const int64_t first = args_.window ? last - args_.window + 1 : 0;
    Floats s[kTileVectors], most = splat(-kInfinity);
    SLUICE_UNROLL for (int v = 0; v < kTileVectors; v++) {
      s[v] = load(scores_ + row * kTile + v * kLanes);
      if (kCodes<Stored>) s[v] *= load(key_scales_ + v * kLanes);
    }
    if (first > 0 || last < kTile - 1) {
      SLUICE_UNROLL for (int v = 0; v < kTileVectors; v++) s[v] =
          visible(s[v], first - v * kLanes, last - v * kLanes);
    }
    SLUICE_UNROLL for (int v = 0; v < kTileVectors; v++) most = larger(s[v], most);
    const Floats scale = splat(scale_), shift = splat(-raise(state_, row, largest(most)) * scale_);
    float* sums = state_ + row * stride_ + width_;
    Floats total = load(sums);
    SLUICE_UNROLL for (int v = 0; v < kTileVectors; v++) {
      const Floats weight = exp2(multiply_add(s[v], scale, shift));
      total += weight;
      store(weights_ + row * kTile + v * kLanes,
            kCodes<Stored> ? weight * load(value_scales_ + v * kLanes) : weight);
    }
    store(sums, total);
  }

  static Floats visible(Floats scores, int64_t first, int64_t last) {
    const Ints lane = lane_index(), seen = (lane >= int32_t(first)) & (lane <= int32_t(last));
    return seen ? scores : splat(-kInfinity);
  }

  // Make the state of a row relative to `score` if that is its largest yet; returns the largest.
  float raise(float* state, int64_t row, float score) const {
    float& most = top(state, row);
    if (score <= most) return most;
    const Floats factor = exp2(splat((most - score) * scale_));
    float* numbers = state + row * stride_;
    for (int64_t i = 0; i < width_ + kPanelTokens; i += kLanes)
      store(numbers + i, load(numbers + i) * factor);
    return most = score;
  }

  // Add the states of the rows of one more split to the result.
  void merge(float* states) {
    for (int64_t row = 0; row < rows_; row++) {
      const float *from = states + row * stride_, most = top(states, row);
      float* to = result_ + row * stride_;
      const Floats factor = exp2(splat((most - raise(result_, row, most)) * scale_));
      for (int64_t i = 0; i < width_ + kPanelTokens; i += kLanes)
        store(to + i, multiply_add(load(from + i), factor, load(to + i)));
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
      Floats sums = {};
      for (int64_t i = 0; i < kPanelTokens; i += kLanes) sums += load(state + width_ + i);
      const Floats factor = splat(1 / sum(sums));
      T* to = query_row(args_.out, row);
      for_lanes(args_.head_dim,
                [&](int64_t i, int64_t count) { store(to + i, load(state + i) * factor, count); });
    }
  }

  const AttentionArgs<T, Stored>& args_;
  const int64_t index_;
  const AttentionItem& item_;
  const int64_t kv_head_, per_kv_, width_, stride_, rows_;
  const float scale_;  // of scores, to powers of two
  T *query_, *weights_, *copies_;
  float *scores_, *state_, *result_, *key_scales_, *value_scales_;
  const T *keys_[kPanels], *values_[kPanels];  // of the tile
};

// `run(int8_t{})` for a cache of codes, else `run(T{})`.
template <class T, class Run>
void with_cache(int64_t cache_dtype, Run run) {
  cache_dtype == kInt8 ? run(int8_t{}) : run(T{});
}

// Items of one kv head follow each other, so that their keys and values may still be in the cache.
inline void attention(const void* query, const void* keys, const void* values, void* out, const void* items,
                      int64_t num_items, const void* tables, void* partials, void* finished, int64_t heads,
                      int64_t kv_heads, int64_t head_dim, int64_t block_size, int64_t window, int64_t dtype,
                      int64_t cache_dtype) {
  with_type(dtype, [=](auto type) {
    using T = decltype(type);
    with_cache<T>(cache_dtype, [=](auto stored) {
      using Stored = decltype(stored);
      const AttentionArgs<T, Stored> args{(const T*)query,
                                          (const Stored*)keys,
                                          (const Stored*)values,
                                          (T*)out,
                                          (const AttentionItem*)items,
                                          num_items,
                                          (const int32_t*)tables,
                                          (float*)partials,
                                          (std::atomic<int32_t>*)finished,
                                          heads,
                                          kv_heads,
                                          head_dim,
                                          block_size,
                                          window};
      parallel(num_items * kv_heads, [&args](int64_t index) { ItemAttention<T, Stored>(args, index).run(); });
    });
  });
}

}  // namespace sluice::SLUICE_ISA
