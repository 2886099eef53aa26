// Matrix products with packed weights: out = x @ weight.T + bias.
//
// Rows are cut into tiles, as even as possible, whose sums fit into the registers. An item of work is some
// tiles times some panels of outputs. It walks along the inputs in blocks whose weights stay in the nearest
// cache while the tiles take turns, so weights come from memory once for many rows. A single row is a tile of
// one: there is no other path, and a row's sums are added in the same order in every batch.
#pragma once

#include <array>
#include <utility>

#include "activations.h"

namespace sluice::SLUICE_ISA {

constexpr int64_t kItemRows = 120;         // whose images stay in the second cache while panels go by
constexpr int64_t kItemBytes = 256 << 10;  // of weights: long enough a stream for the memory to be fast
constexpr int64_t kAhead = 4096;           // bytes from the weight in use to the one fetched, with one tile

// Where part `i` of `size` things cut into `parts` begins.
SLUICE_INLINE int64_t part_begin(int64_t i, int64_t size, int64_t parts) { return i * size / parts; }

template <class Format, class Out>
struct Product {
  using Total = typename Format::Total;

  PackedLinear layer;
  const uint32_t* images;  // of all rows, interleaved tile by tile
  Out* out;
  int64_t rows;
  int64_t steps = image_steps<Format>(layer.inputs), units = image_units<Format>(layer.inputs);
  int64_t panels = (layer.outputs + kPanel - 1) / kPanel, panel_bytes = steps * Format::kStepBytes;
  int64_t tiles = (rows + Format::kMaxRows - 1) / Format::kMaxRows;
  // Blocks of equal size, so that the next one can be fetched while one is in use.
  int64_t blocks = std::max<int64_t>(1, (steps + Format::kBlock - 1) / Format::kBlock);
  int64_t block_steps = (steps + blocks - 1) / blocks;

  int64_t tile_row(int64_t tile) const { return part_begin(tile, rows, tiles); }

  // `visit(row, size, image)` for the tiles [first, last): the first row, how many, and their images.
  template <class Visit>
  void for_tiles(int64_t first, int64_t last, Visit visit) const {
    for (int64_t tile = first; tile < last; tile++) {
      const int64_t row = tile_row(tile);
      visit(row, tile_row(tile + 1) - row, images + row * units);
    }
  }

  template <int R>
  static void multiply(const uint32_t* x, const uint8_t* weight, int64_t steps, Prefetch next,
                       Total* totals) {
    for (int first = 0; first < kPanelVectors; first += kColumns)
      Format::template multiply<R>(x, weight, steps, first, next, totals);
  }

  using Multiply = void (*)(const uint32_t*, const uint8_t*, int64_t, Prefetch, Total*);
  template <size_t... R>
  static constexpr std::array<Multiply, sizeof...(R)> table(std::index_sequence<R...>) {
    return {multiply<R + 1>...};
  }
  // [rows of a tile - 1].
  static constexpr auto kMultiply = table(std::make_index_sequence<Format::kMaxRows>());

  // The outputs of panels [panel, end) for the rows of tiles [first, last). `next`: the panel that this thread
  // will probably go on with.
  void run(int64_t panel, int64_t end, int64_t next, int64_t first, int64_t last) const {
    const uint8_t* weight = (const uint8_t*)layer.panels;
    for (; panel < end; panel++) {
      Total totals[(kItemRows + kRows) * kPanelVectors];
      sum_panel(weight + panel * panel_bytes, weight + end * panel_bytes, weight + next * panel_bytes, first, last,
                totals);
      for_tiles(first, last, [&](int64_t row, int64_t size, const uint32_t* image) {
        for (int64_t r = 0; r < size; r++)
          finish(panel, row + r, totals + (row + r - tile_row(first)) * kPanelVectors,
                 image + (units - kTailUnits<Format>) * size + r, size);
      });
    }
  }

  // Totals of one panel. The weights of this item end at `stream_end`, and then `next_stream` is wanted.
  void sum_panel(const uint8_t* block, const uint8_t* stream_end, const uint8_t* next_stream, int64_t first,
                 int64_t last, Total* totals) const {
    memset(totals, 0, (tile_row(last) - tile_row(first)) * kPanelVectors * sizeof(Total));
    for (int64_t step = 0; step < steps; step += block_steps) {
      const int64_t count = std::min(block_steps, steps - step), bytes = count * Format::kStepBytes;
      // Several tiles share the work of fetching the next block; a single one runs a short way behind.
      Prefetch next{block + (last - first == 1 ? kAhead : bytes), Format::kStepBytes / (last - first)};
      if (next.address >= stream_end) next.address += next_stream - stream_end;
      for_tiles(first, last, [&](int64_t row, int64_t size, const uint32_t* image) {
        kMultiply[size - 1](image + step * Format::kStepUnits * size, block, count, next,
                            totals + (row - tile_row(first)) * kPanelVectors);
        next.address += count * next.stride;
      });
      block += bytes;
    }
  }

  // Scale, add the bias, round once. `tail`: the last units of the row's image, `pitch` apart.
  void finish(int64_t panel, int64_t row, const Total* totals, const uint32_t* tail, int64_t pitch) const {
    for (int c = 0; c < kPanelVectors; c++) {
      const int64_t output = panel * kPanel + c * kLanes;
      const int64_t count = std::min<int64_t>(kLanes, layer.outputs - output);
      if (count <= 0) return;
      Floats sum = load((const float*)totals + c * kLanes);
      if constexpr (std::is_same_v<Format, Int8>)
        sum = __builtin_convertvector((Ints)sum + int32_t(tail[0]), Floats) *
              load(layer.scales + output, count) * as_float(tail[pitch]);
      if (layer.bias) sum += load(layer.bias + output, count);
      store(out + row * layer.outputs + output, sum, count);
    }
  }
};

// Panels are handed out in runs, and one by one towards the end, so that threads finish together.
template <class Format, class Out>
void run_all(const Product<Format, Out>& product) {
  const int64_t panels = product.panels, blocks = (product.rows + kItemRows - 1) / kItemRows;
  const int64_t most = std::max<int64_t>(1, panels / (8 * threads()));
  const int64_t size = std::clamp<int64_t>(kItemBytes / std::max<int64_t>(1, product.panel_bytes), 1, most);
  const int64_t runs = panels * 3 / 4 / size, items = runs + (panels - runs * size), team = threads();
  const auto first_panel = [=](int64_t item) { return item < runs ? item * size : panels - (items - item); };
  parallel(blocks * items, [&](int64_t index) {
    const int64_t block = index / items, item = index % items, panel = first_panel(item);
    product.run(panel, panel + (item < runs ? size : 1), first_panel(std::min(item + team, items - 1)),
                part_begin(block, product.tiles, blocks), part_begin(block + 1, product.tiles, blocks));
  });
}

template <class Format, class X, class Out>
void multiply_rows(const PackedLinear& layer, const X* x, Out* out, int64_t rows) {
  uint32_t* images = scratch<0>(rows * image_units<Format>(layer.inputs));
  const Product<Format, Out> product{layer, images, out, rows};
  parallel(product.tiles, [&](int64_t tile) {
    const int64_t row = product.tile_row(tile), size = product.tile_row(tile + 1) - row;
    write_tile<Format>(x + row * layer.inputs, size, layer.inputs, images + row * product.units);
  });
  run_all(product);
}

// `run(Format{})` for the format named by its number.
template <class Run>
void with_format(int64_t format, Run run) {
  switch (format) {
    case kWeightFloat32: return run(Float32{});
    case kWeightBFloat16: return run(BFloat16{});
    case kWeightInt8: return run(Int8{});
    case kWeightInt8Group: return run(Int8Group{});
    case kWeightInt4Group: return run(Int4<false>{});
    case kWeightInt4Shift: return run(Int4<true>{});
  }
}

inline void linear(const void* layer, const void* x, void* out, int64_t rows, int64_t x_dtype,
                   int64_t out_dtype) {
  const PackedLinear& packed = *(const PackedLinear*)layer;
  with_format(packed.format, [=, &packed](auto weight) {
    with_type(x_dtype, [=, &packed](auto in) {
      with_type(out_dtype, [=, &packed](auto result) {
        multiply_rows<decltype(weight)>(packed, (const decltype(in)*)x, (decltype(result)*)out, rows);
      });
    });
  });
}

}  // namespace sluice::SLUICE_ISA
