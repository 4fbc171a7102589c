// One new column of rows through layers of a plain Llama decoder: norm, products, rotation, cache, attention, FFN.
//
// Weights and cache are float32 or bfloat16; the stream, norms, scores, softmax and all sums are float32. A number is
// summed up in one order whatever else is in the batch, so a row's result does not depend on the other rows.
// Widths are known at run time and are multiples of 16; matrices lie as [outputs, inputs], as PyTorch keeps them.

#include <cmath>
#include <type_traits>
#include <vector>
#if defined(__AMX_BF16__) && defined(__linux__)
#define HAS_TILES 1
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "vectors.h"

extern "C" {

struct Layer {
  const float *attention_norm, *ffn_norm;                // [width]
  const void *q, *k, *v, *o, *gate, *up, *down;          // q is null where the FFN alone is wanted
  const float* keeps;                                    // [heads], 0 where one may be silent; null: none may
  void *keys, *values;                                   // [rows, groups, capacity, size]
};

struct Step {
  int64_t rows, width, inner, heads, groups, size, threads;
  int64_t column;                                        // of the new token; the cache holds those before it
  int64_t cache_row, cache_group;                        // strides of keys and values, in numbers
  int64_t angle_row;                                     // stride of cosines and sines: 0 where all rows share them
  int64_t silent_step;                                   // rows silent_step - 1, 2 silent_step - 1 ... lack the silent
                                                         // heads; 0: no row does
  int64_t is_uniform;                                    // such a head attends to all columns alike, else gives nothing
  const int64_t* first;                                  // [rows], the first column that a row sees
  const float *cosines, *sines;                          // [rows or 1, size]
  float* hidden;                                         // [rows, width], changed in place
  float eps;
};

}

namespace {

constexpr int ROWS = 4;  // rows that use a weight while it is in a register

// R rows against O outputs, O * R at most 16: lane r * O + o of the result.
template <int O, int R, class Number>
inline Vec block(const Number* weights, const float* x, int64_t inputs) {
  Vec parts[LANES] = {};
  for (int64_t k = 0; k < inputs; k += LANES) {
    Vec piece[O];
    for (int o = 0; o < O; ++o) {
      piece[o] = load(weights + o * inputs + k);
      if (O < LANES) __builtin_prefetch(weights + (o + O) * inputs + k);  // one row alone streams better without
    }
    for (int r = 0; r < R; ++r) {
      const Vec number = load(x + r * inputs + k);
      for (int o = 0; o < O; ++o) parts[r * O + o] += piece[o] * number;
    }
  }
  return sums(parts);
}

template <int R, class Number>
inline void quarters(const Number* weights, const float* x, int64_t inputs, float (*out)[LANES]) {
  for (int o = 0; o < LANES; o += 4) {
    const Vec found = block<4, R>(weights + o * inputs, x, inputs);
    for (int r = 0; r < R; ++r)
      for (int i = 0; i < 4; ++i) out[r][o + i] = found[r * 4 + i];
  }
}

// Up to four rows against 16 outputs.
template <class Number>
inline void tile(const Number* weights, const float* x, int64_t inputs, int64_t rows, float (*out)[LANES]) {
  switch (rows) {
    case 1: store(out[0], block<LANES, 1>(weights, x, inputs)); break;
    case 2: quarters<2>(weights, x, inputs, out); break;
    case 3: quarters<3>(weights, x, inputs, out); break;
    default: quarters<4>(weights, x, inputs, out);
  }
}

#if HAS_TILES
constexpr int DEPTH = 32, TILES = 4;  // inputs that a tile holds; tiles of 16 rows that use one tile of weights

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Tiles of this thread are ours while it lives; oneDNN finds its own again.
class OurTiles {
  alignas(64) TileConfig before;
  const bool is_on;

 public:
  explicit OurTiles(bool is_wanted) : is_on(is_wanted) {
    static const TileConfig ours;
    if (is_on) _tile_storeconfig(&before), _tile_loadconfig(&ours);
  }
  ~OurTiles() {
    if (is_on) before.palette ? _tile_loadconfig(&before) : _tile_release();
  }
};

bool has_tiles() {  // the kernel of the system hands out the registers on request
  static const bool found = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  return found;
}

// 16 rows a tile, pairs of inputs side by side: [tile of rows][tile of inputs][16 pairs][16 rows][2].
void pack(const float* x, int64_t rows, int64_t inputs, std::vector<Bfloat16>& packed) {
  const int64_t whole = (rows + LANES - 1) / LANES * LANES;
  packed.assign(whole * inputs, Bfloat16{0});
  alignas(64) uint32_t pairs[LANES / 2];
  for (int64_t row = 0; row < rows; ++row) {
    Bfloat16* to = packed.data() + row / LANES * LANES * inputs + row % LANES * 2;
    for (int64_t k = 0; k < inputs; k += LANES) {
      store(reinterpret_cast<Bfloat16*>(pairs), load(x + row * inputs + k));
      for (int p = 0; p < LANES / 2; ++p) std::memcpy(to + (k / 2 + p) * LANES * 2, pairs + p, sizeof(uint32_t));
    }
  }
}

// N tiles of rows against 16 outputs; out[n][output][row].
template <int N>
inline void tiles(const Bfloat16* weights, const Bfloat16* packed, int64_t inputs, float (*out)[LANES][LANES]) {
  _tile_zero(0);
  if (N > 1) { _tile_zero(1); }
  if (N > 2) { _tile_zero(2); }
  if (N > 3) { _tile_zero(3); }
  const int64_t next = LANES * inputs;
  for (int64_t k = 0; k < inputs; k += DEPTH) {
    _tile_loadd(4, weights + k, inputs * sizeof(Bfloat16));
    for (int o = 0; o < LANES; ++o) __builtin_prefetch(weights + next + o * inputs + k);
    const Bfloat16* here = packed + k * LANES;
    _tile_loadd(5, here, 64);
    _tile_dpbf16ps(0, 4, 5);
    if (N > 1) {
      _tile_loadd(6, here + next, 64);
      _tile_dpbf16ps(1, 4, 6);
    }
    if (N > 2) {
      _tile_loadd(5, here + 2 * next, 64);
      _tile_dpbf16ps(2, 4, 5);
    }
    if (N > 3) {
      _tile_loadd(6, here + 3 * next, 64);
      _tile_dpbf16ps(3, 4, 6);
    }
  }
  _tile_stored(0, out[0], 64);
  if (N > 1) { _tile_stored(1, out[1], 64); }
  if (N > 2) { _tile_stored(2, out[2], 64); }
  if (N > 3) { _tile_stored(3, out[3], 64); }
}

inline void tiles(const Bfloat16* weights, const Bfloat16* packed, int64_t inputs, int64_t count,
                  float (*out)[LANES][LANES]) {
  switch (count) {
    case 1: return tiles<1>(weights, packed, inputs, out);
    case 2: return tiles<2>(weights, packed, inputs, out);
    case 3: return tiles<3>(weights, packed, inputs, out);
    default: return tiles<4>(weights, packed, inputs, out);
  }
}
#endif

// Rows that are multiplied by matrices, in the form that the processor wants.
template <class Number>
struct Rows {
  const float* x;
  int64_t rows, inputs;
#if HAS_TILES
  bool is_packed = false;
  std::vector<Bfloat16> packed;
  Rows(const float* x, int64_t rows, int64_t inputs) : x(x), rows(rows), inputs(inputs) {
    is_packed = std::is_same_v<Number, Bfloat16> && inputs % DEPTH == 0 && has_tiles();
    if (is_packed) pack(x, rows, inputs, packed);
  }
#else
  static constexpr bool is_packed = false;
#endif

  // Calls finish(row, start, numbers) for the 16 outputs from `start` on of each row.
  template <class Finish>
  void outputs(const void* matrix, int64_t start, Finish finish) const {
    const Number* weights = static_cast<const Number*>(matrix) + start * inputs;
#if HAS_TILES
    if constexpr (std::is_same_v<Number, Bfloat16>) {
      if (is_packed) {
        alignas(64) float out[TILES][LANES][LANES], turned[LANES];
        for (int64_t row = 0; row < rows; row += TILES * LANES) {
          const int64_t here = std::min<int64_t>(TILES * LANES, rows - row);
          tiles(weights, packed.data() + row * inputs, inputs, (here + LANES - 1) / LANES, out);
          for (int64_t r = 0; r < here; ++r) {
            for (int o = 0; o < LANES; ++o) turned[o] = out[r / LANES][o][r % LANES];
            finish(row + r, start, load(turned));
          }
        }
        return;
      }
    }
#endif
    alignas(64) float out[ROWS][LANES];
    for (int64_t row = 0; row < rows; row += ROWS) {
      const int64_t here = std::min<int64_t>(ROWS, rows - row);
      tile(weights, x + row * inputs, inputs, here, out);
      for (int64_t r = 0; r < here; ++r) finish(row + r, start, load(out[r]));
    }
  }
};

// Calls task(number) for all numbers, on several threads; each thread takes a run of neighbours.
template <class Task>
void in_parallel(int64_t count, int64_t threads, bool has_tiles, Task task) {
#pragma omp parallel num_threads(static_cast<int>(threads))
  {
#if HAS_TILES
    const OurTiles ours(has_tiles);
#endif
#pragma omp for schedule(static)
    for (int64_t number = 0; number < count; ++number) task(number);
  }
}

inline int64_t tiles_of(int64_t outputs) { return (outputs + LANES - 1) / LANES; }

void normed(const float* hidden, const float* weight, int64_t rows, int64_t width, float eps, float* out) {
  for (int64_t row = 0; row < rows; ++row) {
    Vec squares = {};
    for (int64_t i = 0; i < width; i += LANES) squares += load(hidden + row * width + i) * load(hidden + row * width + i);
    const float factor = 1.0f / std::sqrt(total(squares) / width + eps);
    for (int64_t i = 0; i < width; i += LANES)
      store(out + row * width + i, load(weight + i) * (load(hidden + row * width + i) * factor));
  }
}

inline void rotate(const float* x, const float* cosines, const float* sines, int64_t size, float scale, float* out) {
  const int64_t half = size / 2;
  for (int64_t i = 0; i < half; ++i) {
    out[i] = (x[i] * cosines[i] - x[i + half] * sines[i]) * scale;
    out[i + half] = (x[i + half] * cosines[i + half] + x[i] * sines[i + half]) * scale;
  }
}

// One query head over the columns [first, end) of a cache. `scores` has room for 16 columns more.
template <int PIECES, class Number>
inline void attend(const float* query, const Number* keys, const Number* values, int64_t first, int64_t end,
                   float* scores, float* out) {
  constexpr int64_t SIZE = PIECES * LANES;
  Vec asked[PIECES], highest = all(HIDDEN_SCORE);
  for (int c = 0; c < PIECES; ++c) asked[c] = load(query + c * LANES);
  for (int64_t start = first; start < end; start += LANES) {
    Vec parts[LANES] = {};
    const int here = static_cast<int>(std::min<int64_t>(LANES, end - start));
    for (int n = 0; n < here; ++n) {
      Vec sum = asked[0] * load(keys + (start + n) * SIZE);
      for (int c = 1; c < PIECES; ++c) sum += asked[c] * load(keys + (start + n) * SIZE + c * LANES);
      parts[n] = sum;
    }
    store(scores + start - first, sums(parts));
    for (int n = here; n < LANES; ++n) scores[start - first + n] = HIDDEN_SCORE;
    highest = larger(highest, load(scores + start - first));
  }
  const float top = largest(highest);
  Vec weight = {}, mixed[PIECES] = {};
  for (int64_t start = first; start < end; start += LANES) {
    const Vec here = exp_below(load(scores + start - first) - top);
    store(scores + start - first, here);
    weight += here;  // a hidden column adds exp(-87)
  }
  for (int64_t n = first; n < end; ++n)
    for (int c = 0; c < PIECES; ++c) mixed[c] += scores[n - first] * load(values + n * SIZE + c * LANES);
  const float share = 1.0f / total(weight);
  for (int c = 0; c < PIECES; ++c) store(out + c * LANES, mixed[c] * share);
}

template <class Number>
void attend(int64_t size, const float* query, const Number* keys, const Number* values, int64_t first, int64_t end,
            float* scores, float* out) {
  switch (size / LANES) {
    case 1: return attend<1>(query, keys, values, first, end, scores, out);
    case 2: return attend<2>(query, keys, values, first, end, scores, out);
    case 3: return attend<3>(query, keys, values, first, end, scores, out);
    case 4: return attend<4>(query, keys, values, first, end, scores, out);
    case 5: return attend<5>(query, keys, values, first, end, scores, out);
    case 6: return attend<6>(query, keys, values, first, end, scores, out);
    case 7: return attend<7>(query, keys, values, first, end, scores, out);
    default: return attend<8>(query, keys, values, first, end, scores, out);
  }
}

// Rotates the queries and the key of one row and key-value head, keeps key and value, and attends.
template <class Number>
void head_group(const Step& s, const Layer& layer, int64_t row, int64_t group, float* joined, float* mixed) {
  const int64_t shared = s.heads / s.groups, place = row * s.cache_row + group * s.cache_group;
  const float *cosines = s.cosines + row * s.angle_row, *sines = s.sines + row * s.angle_row;
  float* key = joined + (s.heads + group) * s.size;
  const float* value = key + s.groups * s.size;
  Number *keys = static_cast<Number*>(layer.keys) + place, *values = static_cast<Number*>(layer.values) + place;
  alignas(64) float turned[8 * LANES];
  rotate(key, cosines, sines, s.size, 1.0f, turned);
  for (int64_t i = 0; i < s.size; i += LANES) {
    store(keys + s.column * s.size + i, load(turned + i));
    store(values + s.column * s.size + i, load(value + i));
  }
  thread_local std::vector<float> scores;
  scores.resize(s.column + 1 + LANES);
  const float scale = 1.0f / std::sqrt(static_cast<float>(s.size));
  const bool may_be_silent = layer.keeps && s.silent_step && (row + 1) % s.silent_step == 0;
  for (int64_t head = group * shared; head < (group + 1) * shared; ++head) {
    const bool is_silent = may_be_silent && layer.keeps[head] == 0;
    if (is_silent && !s.is_uniform) {
      std::fill_n(mixed + head * s.size, s.size, 0.0f);
      continue;
    }
    rotate(joined + head * s.size, cosines, sines, s.size, is_silent ? 0.0f : scale, turned);
    attend(s.size, turned, keys, values, s.first[row], s.column + 1, scores.data(), mixed + head * s.size);
  }
}

template <class Number>
void run(const Step& s, const Layer* layers, int64_t count) {
  const int64_t mixed_width = s.heads * s.size, kept_width = s.groups * s.size, joined_width = mixed_width + 2 * kept_width;
  std::vector<float> room(s.rows * (s.width + joined_width + mixed_width + s.inner));
  float *normal = room.data(), *joined = normal + s.rows * s.width, *mixed = joined + s.rows * joined_width;
  float* activated = mixed + s.rows * mixed_width;
  const auto add = [&](int64_t row, int64_t start, Vec numbers) {
    float* to = s.hidden + row * s.width + start;
    store(to, load(to) + numbers);
  };
  for (const Layer* layer = layers; layer < layers + count; ++layer) {
    if (layer->q) {
      normed(s.hidden, layer->attention_norm, s.rows, s.width, s.eps, normal);
      const Rows<Number> input{normal, s.rows, s.width};
      const int64_t of_q = tiles_of(mixed_width), of_k = tiles_of(kept_width);
      in_parallel(of_q + 2 * of_k, s.threads, input.is_packed, [&](int64_t task) {
        const int part = task < of_q ? 0 : task < of_q + of_k ? 1 : 2;
        const int64_t before = part == 0 ? 0 : mixed_width + (part - 1) * kept_width;
        input.outputs(part == 0 ? layer->q : part == 1 ? layer->k : layer->v, task * LANES - before,
                      [&](int64_t row, int64_t start, Vec numbers) {
                        store(joined + row * joined_width + before + start, numbers);
                      });
      });
      in_parallel(s.rows * s.groups, s.threads, false, [&](int64_t task) {
        const int64_t row = task / s.groups;
        head_group<Number>(s, *layer, row, task % s.groups, joined + row * joined_width, mixed + row * mixed_width);
      });
      const Rows<Number> output{mixed, s.rows, mixed_width};
      in_parallel(tiles_of(s.width), s.threads, output.is_packed,
                  [&](int64_t task) { output.outputs(layer->o, task * LANES, add); });
    }
    normed(s.hidden, layer->ffn_norm, s.rows, s.width, s.eps, normal);
    const Rows<Number> input{normal, s.rows, s.width};
    in_parallel(tiles_of(s.inner), s.threads, input.is_packed, [&](int64_t task) {
      const auto place = [&](int64_t row, int64_t start) { return activated + row * s.inner + start; };
      input.outputs(layer->gate, task * LANES,
                    [&](int64_t row, int64_t start, Vec numbers) { store(place(row, start), silu(numbers)); });
      input.outputs(layer->up, task * LANES, [&](int64_t row, int64_t start, Vec numbers) {
        store(place(row, start), load(place(row, start)) * numbers);
      });
    });
    const Rows<Number> output{activated, s.rows, s.inner};
    in_parallel(tiles_of(s.width), s.threads, output.is_packed,
                [&](int64_t task) { output.outputs(layer->down, task * LANES, add); });
  }
}

template <class Number>
void product_of(const void* matrix, const float* x, float* out, int64_t outputs, int64_t inputs, int64_t rows,
                int64_t threads) {
  const Rows<Number> input{x, rows, inputs};
  in_parallel(tiles_of(outputs), threads, input.is_packed, [&](int64_t task) {  // the last two tiles may overlap
    input.outputs(matrix, std::min(task * LANES, outputs - LANES),
                  [&](int64_t row, int64_t start, Vec numbers) { store(out + row * outputs + start, numbers); });
  });
}

}  // namespace

extern "C" void decoder_layers(const Step* step, const Layer* layers, int64_t count, int64_t is_half) {
  is_half ? run<Bfloat16>(*step, layers, count) : run<float>(*step, layers, count);
}

// [rows, inputs] times the transposed matrix [outputs, inputs]; at least 16 outputs.
extern "C" void product(const void* matrix, const float* x, float* out, int64_t outputs, int64_t inputs, int64_t rows,
                        int64_t threads, int64_t is_half) {
  is_half ? product_of<Bfloat16>(matrix, x, out, outputs, inputs, rows, threads)
          : product_of<float>(matrix, x, out, outputs, inputs, rows, threads);
}
