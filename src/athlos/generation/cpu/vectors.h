// Registers of 16 numbers, and what both kernels compute with them. Numbers in memory are float32 or bfloat16.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

constexpr int LANES = 16;
constexpr float HIDDEN_SCORE = -1e30f;

typedef float Vec __attribute__((vector_size(64)));
typedef float Loose __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Bits __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32), aligned(2), may_alias));

struct Bfloat16 {  // the upper half of a float32
  uint16_t bits;
};

inline Vec load(const float* from) { return *reinterpret_cast<const Loose*>(from); }
inline Vec load(const Bfloat16* from) {
  return reinterpret_cast<Vec>(__builtin_convertvector(*reinterpret_cast<const Halves*>(from), Bits) << 16);
}
inline void store(float* to, Vec values) { *reinterpret_cast<Loose*>(to) = values; }
inline void store(Bfloat16* to, Vec values) {  // to the nearest, ties to even; what is no number stays none
  const Bits bits = reinterpret_cast<Bits>(values), rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Bits kept = values == values ? rounded : Bits{} + 0x7fc0;
  *reinterpret_cast<Halves*>(to) = __builtin_convertvector(kept, Halves);
}
inline Vec all(float value) { return Vec{} + value; }
inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

// exp of numbers that are not above 0, to float32's precision (polynomial of the Cephes library).
inline Vec exp_below(Vec x) {
  x = larger(x, all(-87.0f));
  const Ints whole = __builtin_convertvector(x * 1.44269504f - 0.5f, Ints);
  const Vec k = __builtin_convertvector(whole, Vec);
  const Vec r = x - k * 0.693359375f + k * 2.12194440e-4f;
  Vec p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return (p * r * r + r + 1.0f) * reinterpret_cast<Vec>((whole + 127) << 23);
}

// 1 / x for x of 1 or more.
inline Vec one_over(Vec x) {
#if defined(__AVX512F__)  // an estimate of 14 bits and a step of Newton's: a third of a division's time
  const Vec guess = reinterpret_cast<Vec>(_mm512_rcp14_ps(reinterpret_cast<__m512>(x)));
  return guess * (2.0f - x * guess);
#else
  return 1.0f / x;
#endif
}

inline Vec silu(Vec x) {
  const Vec e = exp_below(x < 0 ? x : -x);
  return x * (x < 0 ? e : all(1.0f)) * one_over(1.0f + e);
}

// Lane i of the result is the sum over the lanes of x[i].
template <int STEP>
inline void fold(Vec* x) {
  Ints low, high;
  for (int lane = 0; lane < LANES; ++lane) {
    low[lane] = (lane & ~STEP) + (lane & STEP ? LANES : 0);
    high[lane] = low[lane] + STEP;
  }
  for (int i = 0; i < STEP; ++i) x[i] = __builtin_shuffle(x[i], x[i + STEP], low) + __builtin_shuffle(x[i], x[i + STEP], high);
}

inline Vec sums(Vec* x) {
  fold<8>(x), fold<4>(x), fold<2>(x), fold<1>(x);
  return x[0];
}

inline float largest(Vec x) {
  float found = x[0];
  for (int lane = 1; lane < LANES; ++lane) found = std::max(found, x[lane]);
  return found;
}

inline float total(Vec x) {
  float found = 0;
  for (int lane = 0; lane < LANES; ++lane) found += x[lane];
  return found;
}

}  // namespace
