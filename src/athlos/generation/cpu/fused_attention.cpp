// Attention over a cache in one pass: scores, their alignment over heads, softmax and the mixing of values, block by
// block of keys, so that nothing of the length of the cache is written but the scores that the next layer asks for.
//
// Compiled for one shape: HEADS query heads, GROUPS key-value heads, RANK numbers a key, VALUE numbers a value (a
// multiple of 16), HIDDEN units of the aligner (0 = none), HAS_BELOW whether scores of the layer below come in,
// HAS_MIX whether they are mixed by a matrix (else they are added as they are, if HAS_RESIDUAL), ACT its activation.
//
//     S[h] = q[h] . k[group of h] + sum_g mix[h, g] below[g] + outer act(inner below + inner_bias) + outer_bias
//
// Row t of T sees the first columns - T + t + 1 columns, less those that `mask` hides. Layouts: see `Arguments`.

#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

constexpr int BLOCK = 64, PIECES = BLOCK / LANES, SHARED = HEADS / GROUPS;
constexpr int RANK_PIECES = (RANK + LANES - 1) / LANES, PADDED = RANK_PIECES * LANES, VALUE_PIECES = VALUE / LANES;
constexpr int TILE = 16;      // query rows that use a block of keys together
constexpr int SPLIT = 512;    // keys a task takes when there is one query row

inline Vec activated(Vec x) {
#if ACT == 0  // GELU: x times the normal distribution, whose half is odd; a rational fit, absolute error 2.4e-7
  const Vec c = larger(all(-5.2f), x < 5.2f ? x : all(5.2f)), u = c * c;
  Vec top = all(5.83784853e-6f), bottom = all(5.01685934e-7f);
  top = top * u + 3.14114505e-4f;
  top = top * u + 5.51784125e-3f;
  top = top * u + 4.95809069e-2f;
  top = top * u + 3.98941919e-1f;
  bottom = bottom * u + 1.12683201e-4f;
  bottom = bottom * u + 2.70293134e-3f;
  bottom = bottom * u + 3.73323238e-2f;
  bottom = bottom * u + 2.90941689e-1f;
  bottom = bottom * u + 1.0f;
  return x * (0.5f + c * top * one_over(bottom));
#elif ACT == 1
  return silu(x);
#elif ACT == 2  // ReLU
  return larger(x, Vec{});
#else
  return x;
#endif
}

}  // namespace

extern "C" {

// Strides are in numbers; the last dimension of everything is contiguous but for keys, which may be turned.
struct Arguments {
  int64_t rows, queries, columns, threads;
  const float *query, *key, *value, *below;                 // [B, H, T, r], [B, G, N, r], [B, G, N, d], [B, H, T, N]
  int64_t query_row, query_head, query_step;
  int64_t key_row, key_group, key_column, key_number;       // one of the last two is 1; if it is that of the columns,
                                                            // whole blocks of them may be read
  int64_t value_row, value_group, value_column;
  int64_t below_row, below_head, below_step;
  const uint8_t* mask;                                      // [B, T, N], not 0 where a query may look; or null
  int64_t mask_row, mask_step;
  const float *mix, *inner, *inner_bias, *outer, *outer_bias;  // [H, H], [m, H], [m], [m, H] (transposed), [H]
  float* scores;                                            // [B, H, T, N] or null
  int64_t scores_row, scores_head, scores_step;
  float* output;                                            // [B, T, H, d], contiguous
};

}

namespace {

// What a query row has gathered so far.
struct State {
  float highest[HEADS], weight[HEADS];
  alignas(64) float mixed[HEADS][VALUE];

  void clear() {
    for (int h = 0; h < HEADS; ++h) highest[h] = HIDDEN_SCORE, weight[h] = 0;
    std::memset(mixed, 0, sizeof mixed);
  }
};

// Scores of the heads of a group from keys as they lie, for one query row.
inline void products(const float (*query)[PADDED], const float* keys, int64_t stride, int count, int group,
                     float (*scores)[BLOCK]) {
  alignas(64) float last[PADDED] = {};
  for (int start = 0; start < count; start += LANES) {
    Vec parts[SHARED][LANES] = {};
    const int here = std::min(LANES, count - start);
    for (int n = 0; n < here; ++n) {
      const float* key = keys + (start + n) * stride;
      if (RANK != PADDED && start + n == count - 1) {  // a whole load could leave the cache
        std::memcpy(last, key, RANK * sizeof(float));
        key = last;
      }
      Vec piece[RANK_PIECES];
      for (int c = 0; c < RANK_PIECES; ++c) piece[c] = load(key + c * LANES);
      for (int i = 0; i < SHARED; ++i) {
        Vec sum = piece[0] * load(query[group * SHARED + i]);
        for (int c = 1; c < RANK_PIECES; ++c) sum += piece[c] * load(query[group * SHARED + i] + c * LANES);
        parts[i][n] = sum;
      }
    }
    for (int i = 0; i < SHARED; ++i) store(scores[group * SHARED + i] + start, sums(parts[i]));
  }
}

// The same from keys that are turned, [r][columns]: they lie so in the cache, or several query rows pay the turning.
inline void products_turned(const float (*query)[PADDED], const float* keys, int64_t stride, int group,
                            float (*scores)[BLOCK]) {
  for (int piece = 0; piece < PIECES; ++piece) {
    Vec sum[SHARED] = {};
    for (int r = 0; r < RANK; ++r) {
      const Vec key = load(keys + r * stride + piece * LANES);
      for (int i = 0; i < SHARED; ++i) sum[i] += key * query[group * SHARED + i][r];
    }
    for (int i = 0; i < SHARED; ++i) store(scores[group * SHARED + i] + piece * LANES, sum[i]);
  }
}

// Adds the aligned scores of the layer below.
inline void align(const Arguments& a, const float (*below)[BLOCK], float (*scores)[BLOCK]) {
  for (int piece = 0; piece < PIECES; ++piece) {
    Vec s[HEADS], out[HEADS];
    for (int h = 0; h < HEADS; ++h) {
      s[h] = load(below[h] + piece * LANES);
      out[h] = load(scores[h] + piece * LANES);
    }
#if HAS_MIX
    for (int h = 0; h < HEADS; ++h)
      for (int g = 0; g < HEADS; ++g) out[h] += a.mix[h * HEADS + g] * s[g];
#elif HAS_RESIDUAL
    for (int h = 0; h < HEADS; ++h) out[h] += s[h];
#endif
#if HIDDEN > 0
    for (int h = 0; h < HEADS; ++h) out[h] += a.outer_bias[h];
    for (int u = 0; u < HIDDEN; ++u) {
      Vec unit = all(a.inner_bias[u]);
      for (int g = 0; g < HEADS; ++g) unit += a.inner[u * HEADS + g] * s[g];
      unit = activated(unit);
      for (int h = 0; h < HEADS; ++h) out[h] += a.outer[u * HEADS + h] * unit;
    }
#endif
    for (int h = 0; h < HEADS; ++h) store(scores[h] + piece * LANES, out[h]);
  }
}

// Online softmax: takes a block of scores of one query row and its values into the state.
inline void gather(State& state, float (*scores)[BLOCK], const Arguments& a, int64_t row, int64_t first, int count) {
  for (int h = 0; h < HEADS; ++h) {
    Vec highest = load(scores[h]);
    for (int piece = 1; piece < PIECES; ++piece) highest = larger(highest, load(scores[h] + piece * LANES));
    const float above = largest(highest);
    if (above > state.highest[h]) {
      const float factor = std::exp(state.highest[h] - above);
      state.highest[h] = above;
      state.weight[h] *= factor;
      for (int c = 0; c < VALUE_PIECES; ++c)
        store(state.mixed[h] + c * LANES, load(state.mixed[h] + c * LANES) * factor);
    }
    Vec sum = {};
    for (int piece = 0; piece < PIECES; ++piece) {
      const Vec weight = exp_below(load(scores[h] + piece * LANES) - state.highest[h]);
      store(scores[h] + piece * LANES, weight);
      sum += weight;
    }
    for (int n = count; n < BLOCK; ++n) sum[n % LANES] -= scores[h][n];
    state.weight[h] += total(sum);
  }
  for (int g = 0; g < GROUPS; ++g) {
    const float* values = a.value + row * a.value_row + g * a.value_group + first * a.value_column;
    Vec mixed[SHARED][VALUE_PIECES];
    for (int i = 0; i < SHARED; ++i)
      for (int c = 0; c < VALUE_PIECES; ++c) mixed[i][c] = load(state.mixed[g * SHARED + i] + c * LANES);
    for (int n = 0; n < count; ++n) {
      const float* value = values + n * a.value_column;
      Vec piece[VALUE_PIECES];
      for (int c = 0; c < VALUE_PIECES; ++c) piece[c] = load(value + c * LANES);
      for (int i = 0; i < SHARED; ++i)
        for (int c = 0; c < VALUE_PIECES; ++c) mixed[i][c] += piece[c] * scores[g * SHARED + i][n];
    }
    for (int i = 0; i < SHARED; ++i)
      for (int c = 0; c < VALUE_PIECES; ++c) store(state.mixed[g * SHARED + i] + c * LANES, mixed[i][c]);
  }
}

// Query rows [from, to) of one batch row over columns [start, end).
void run(const Arguments& a, int64_t row, int64_t from, int64_t to, int64_t start, int64_t end, State* states) {
  alignas(64) float query[TILE][HEADS][PADDED] = {};
  alignas(64) float scores[HEADS][BLOCK];
#if RANK > 0
  alignas(64) float turned[GROUPS][RANK][BLOCK];
  for (int64_t t = from; t < to; ++t)
    for (int h = 0; h < HEADS; ++h)
      std::memcpy(query[t - from][h], a.query + row * a.query_row + h * a.query_head + t * a.query_step,
                  RANK * sizeof(float));
#endif
  const bool lies_turned = a.key_number != 1, is_turned = !lies_turned && to - from > 2;
  for (int64_t t = from; t < to; ++t) states[t - from].clear();
  for (int64_t first = start; first < end; first += BLOCK) {
    const int width = static_cast<int>(std::min<int64_t>(BLOCK, end - first));
#if RANK > 0
    if (is_turned) {
      for (int g = 0; g < GROUPS; ++g) {
        const float* keys = a.key + row * a.key_row + g * a.key_group + first * a.key_column;
        for (int n = 0; n < width; ++n)
          for (int r = 0; r < RANK; ++r) turned[g][r][n] = keys[n * a.key_column + r];
        for (int n = width; n < BLOCK; ++n)
          for (int r = 0; r < RANK; ++r) turned[g][r][n] = 0;
      }
    }
#endif
    for (int64_t t = from; t < to; ++t) {
      const int64_t visible = a.columns - a.queries + t + 1;
      const int count = static_cast<int>(std::min<int64_t>(width, visible - first));
      if (count <= 0) continue;
#if RANK > 0
      for (int g = 0; g < GROUPS; ++g) {
        const float* keys = a.key + row * a.key_row + g * a.key_group + first * a.key_column;
        if (lies_turned) {
          products_turned(query[t - from], keys, a.key_number, g, scores);
        } else if (is_turned) {
          products_turned(query[t - from], turned[g][0], BLOCK, g, scores);
        } else {
          products(query[t - from], keys, a.key_column, count, g, scores);
        }
      }
#else
      std::memset(scores, 0, sizeof scores);
#endif
#if HAS_BELOW
      alignas(64) float below[HEADS][BLOCK];
      for (int h = 0; h < HEADS; ++h) {
        const float* from_below = a.below + row * a.below_row + h * a.below_head + t * a.below_step + first;
        if (count == BLOCK) {
          std::memcpy(below[h], from_below, BLOCK * sizeof(float));
        } else {
          std::memset(below[h], 0, BLOCK * sizeof(float));
          std::memcpy(below[h], from_below, count * sizeof(float));
        }
      }
      align(a, below, scores);
#endif
      if (a.scores)
        for (int h = 0; h < HEADS; ++h)
          std::memcpy(a.scores + row * a.scores_row + h * a.scores_head + t * a.scores_step + first, scores[h],
                      count * sizeof(float));
      for (int h = 0; h < HEADS; ++h)
        for (int n = count; n < BLOCK; ++n) scores[h][n] = HIDDEN_SCORE;
      if (a.mask) {
        const uint8_t* sees = a.mask + row * a.mask_row + t * a.mask_step + first;
        for (int n = 0; n < count; ++n)
          if (!sees[n])
            for (int h = 0; h < HEADS; ++h) scores[h][n] = HIDDEN_SCORE;
      }
      gather(states[t - from], scores, a, row, first, count);
    }
  }
}

void finish(const State& state, float* output) {
  for (int h = 0; h < HEADS; ++h)
    for (int d = 0; d < VALUE; ++d) output[h * VALUE + d] = state.mixed[h][d] / state.weight[h];
}

void join(State& into, const State& other) {
  for (int h = 0; h < HEADS; ++h) {
    const float highest = std::max(into.highest[h], other.highest[h]);
    const float ours = std::exp(into.highest[h] - highest), theirs = std::exp(other.highest[h] - highest);
    into.highest[h] = highest;
    into.weight[h] = into.weight[h] * ours + other.weight[h] * theirs;
    for (int d = 0; d < VALUE; ++d) into.mixed[h][d] = into.mixed[h][d] * ours + other.mixed[h][d] * theirs;
  }
}

}  // namespace

extern "C" void attend(const Arguments* arguments) {
  const Arguments& a = *arguments;
  const int64_t width = HEADS * VALUE;
  if (a.queries == 1) {
    const int64_t splits = (a.columns + SPLIT - 1) / SPLIT;
    std::vector<State> states(a.rows * splits);
#pragma omp parallel for schedule(dynamic, 1) num_threads(a.threads)
    for (int64_t task = 0; task < a.rows * splits; ++task) {
      const int64_t row = task / splits, start = task % splits * SPLIT;
      run(a, row, 0, 1, start, std::min<int64_t>(start + SPLIT, a.columns), &states[task]);
    }
    for (int64_t row = 0; row < a.rows; ++row) {
      for (int64_t split = 1; split < splits; ++split) join(states[row * splits], states[row * splits + split]);
      finish(states[row * splits], a.output + row * width);
    }
    return;
  }
  const int64_t tiles = (a.queries + TILE - 1) / TILE;
#pragma omp parallel for schedule(dynamic, 1) num_threads(a.threads)
  for (int64_t task = 0; task < a.rows * tiles; ++task) {
    const int64_t row = task % a.rows, tile = tiles - 1 - task / a.rows;  // the longest first
    const int64_t from = tile * TILE, to = std::min<int64_t>(from + TILE, a.queries);
    State states[TILE];
    run(a, row, from, to, 0, a.columns - a.queries + to, states);
    for (int64_t t = from; t < to; ++t) finish(states[t - from], a.output + (row * a.queries + t) * width);
  }
}
