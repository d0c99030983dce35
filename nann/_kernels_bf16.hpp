// Small matrix products in bfloat16, with sums in float32, where compiler and processor have them. Weights are packed
// once; what comes out of a product goes to an epilogue while it is in registers.
#pragma once

#include "_kernels.hpp"

#if defined(NANN_AVX2) && __GNUC__ >= 10
#define NANN_BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define NANN_BF16_INLINE NANN_BF16 __attribute__((always_inline)) inline
#endif

namespace nann {

// Whether this build and this processor have products in bfloat16.
inline bool has_bf16() {
#ifdef NANN_BF16
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

inline void require_bf16() {
  if (!has_bf16()) throw std::runtime_error("this network needs a CPU with avx512_bf16");
}

}  // namespace nann

#ifdef NANN_BF16
namespace nann::bf16 {

constexpr size_t kLanes = 16;  // float32 sums of a register

// A register of numbers, aligned as a cache line.
struct alignas(64) Line {
  uint16_t numbers[2 * kLanes];
};
struct alignas(64) Floats {
  float numbers[kLanes];
};

inline size_t groups_of(size_t columns) { return (columns + kLanes - 1) / kLanes; }
// A buffer's row: an even number of groups, since two of them make a register of bfloat16.
inline size_t padded(size_t columns) { return (columns + 2 * kLanes - 1) / (2 * kLanes) * 2 * kLanes; }

NANN_BF16_INLINE __mmask16 first_lanes(size_t count) {
  return count >= kLanes ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << count) - 1);
}

// float32[K, N], rows `stride` apart, as 16 columns by a pair of rows per line: the pairs of a group of columns follow
// one another.
struct Packed {
  std::vector<Line> lines;
  size_t pairs = 0, groups = 0;

  NANN_BF16 void assign(const float* from, size_t stride, size_t rows, size_t columns) {
    pairs = (rows + 1) / 2;
    groups = groups_of(columns);
    lines.resize(pairs * groups);
    alignas(64) uint16_t order[2 * kLanes];
    for (size_t i = 0; i < kLanes; ++i) {
      order[2 * i] = static_cast<uint16_t>(i);
      order[2 * i + 1] = static_cast<uint16_t>(kLanes + i);
    }
    const __m512i interleave = _mm512_load_si512(order);
    for (size_t group = 0; group < groups; ++group) {
      const __mmask16 lanes = first_lanes(columns - group * kLanes);
      for (size_t pair = 0; pair < pairs; ++pair) {
        const float* row = from + 2 * pair * stride + group * kLanes;
        const __m512 even = _mm512_maskz_loadu_ps(lanes, row);
        const __m512 odd = 2 * pair + 1 < rows ? _mm512_maskz_loadu_ps(lanes, row + stride) : _mm512_setzero_ps();
        const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
        _mm512_store_si512(&lines[group * pairs + pair], _mm512_permutexvar_epi16(interleave, both));
      }
    }
  }
};

// Rows of bfloat16, `stride` numbers apart.
struct Input {
  const uint16_t* data;
  size_t stride;
};

// Where sums begin: rows of float32, `stride` apart; 0 where all rows begin with the same.
struct Start {
  const float* data;
  size_t stride;
};

// N groups of columns of M rows: `done(row, group, sums)` gets each register of sums.
template <size_t M, size_t N, typename Done>
NANN_BF16_INLINE void multiply_groups(Input in, const Packed& weights, size_t group, Start start, const Done& done) {
  __m512 sums[M][N];
#pragma GCC unroll 16
  for (size_t m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (size_t n = 0; n < N; ++n) sums[m][n] = _mm512_loadu_ps(start.data + m * start.stride + (group + n) * kLanes);
  const Line* lines = weights.lines.data() + group * weights.pairs;
  for (size_t pair = 0; pair < weights.pairs; ++pair) {
    __m512bh columns[N];
#pragma GCC unroll 4
    for (size_t n = 0; n < N; ++n) columns[n] = (__m512bh)_mm512_load_si512(lines + n * weights.pairs + pair);
#pragma GCC unroll 16
    for (size_t m = 0; m < M; ++m) {
      int32_t two;
      std::memcpy(&two, in.data + m * in.stride + 2 * pair, sizeof two);
      const auto numbers = (__m512bh)_mm512_set1_epi32(two);
#pragma GCC unroll 4
      for (size_t n = 0; n < N; ++n) sums[m][n] = _mm512_dpbf16_ps(sums[m][n], numbers, columns[n]);
    }
  }
#pragma GCC unroll 16
  for (size_t m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (size_t n = 0; n < N; ++n) done(m, group + n, sums[m][n]);
}

// M rows by all columns.
template <size_t M, typename Done>
NANN_BF16_INLINE void multiply(Input in, const Packed& weights, Start start, const Done& done) {
  size_t group = 0;
  for (; group + 2 <= weights.groups; group += 2) multiply_groups<M, 2>(in, weights, group, start, done);
  if (group < weights.groups) multiply_groups<M, 1>(in, weights, group, start, done);
}

// e^x to 1e-5 of it, for x of at most 88.
NANN_BF16_INLINE __m512 exp(__m512 x) {
  const __m512 powers = _mm512_mul_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.0f)), _mm512_set1_ps(1.44269504f));
  const __m512 whole = _mm512_roundscale_ps(powers, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 rest = _mm512_sub_ps(powers, whole);
  __m512 sum = _mm512_set1_ps(0.00133336f);
  for (const float factor : {0.00961813f, 0.05550411f, 0.24022651f, 0.69314718f, 1.0f})
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(factor));
  return _mm512_scalef_ps(sum, whole);
}

NANN_BF16_INLINE __m512 leaky(__m512 x, float slope) {
  return _mm512_mask_mul_ps(x, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), x, _mm512_set1_ps(slope));
}

NANN_BF16_INLINE void store(uint16_t* to, __m512 numbers) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(numbers));
}

// Writes float32 numbers as bfloat16, and zeros up to the next whole register.
NANN_BF16_INLINE void convert(const float* from, size_t count, uint16_t* to) {
  for (size_t at = 0; at < count; at += kLanes)
    store(to + at, _mm512_maskz_loadu_ps(first_lanes(count - at), from + at));
}

// Epilogue: keeps the sums.
struct Keep {
  float* to;
  size_t stride;

  NANN_BF16_INLINE void operator()(size_t row, size_t group, __m512 sums) const {
    _mm512_storeu_ps(to + row * stride + group * kLanes, sums);
  }
};

// Epilogue of a hidden layer: LeakyReLU, and its output in bfloat16.
struct Activate {
  float slope;
  uint16_t* to;
  size_t stride;

  NANN_BF16_INLINE void operator()(size_t row, size_t group, __m512 sums) const {
    store(to + row * stride + group * kLanes, leaky(sums, slope));
  }
};

// Epilogue of the last hidden layer: LeakyReLU, and the products with the weights of the only output.
struct Output {
  float slope;
  const float* weights;
  Floats* totals;  // of each row

  NANN_BF16_INLINE void operator()(size_t row, size_t group, __m512 sums) const {
    const __m512 weight = _mm512_loadu_ps(weights + group * kLanes);
    const __m512 total = _mm512_load_ps(totals[row].numbers);
    _mm512_store_ps(totals[row].numbers, _mm512_fmadd_ps(leaky(sums, slope), weight, total));
  }
};

}  // namespace nann::bf16
#endif
