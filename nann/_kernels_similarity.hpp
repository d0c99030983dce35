// The scorer of inner products, similarities and repeats (`training/models/kernel_scorer.py`). Similarities are
// products in bfloat16; all else is float32, and runs on every processor.
#pragma once

#include "_kernels_bf16.hpp"
#include "_kernels_light.hpp"
#include "_kernels_scorer.hpp"

namespace nann {

// A user's state is
//
//     keys [heads, depth, attended] | weights [heads, attended] | digits [digits, repeats] | repeat weights [repeats] |
//     gates [evidences] | user vector [width]        with depth = width - 1
//
// and an item's row is vector [width] | queries [heads, depth] | gates [evidences], with the `digits` of the item's
// index behind them if rows come from elsewhere than the scorer's own table.
struct SimilarityShape {
  size_t width, heads, attended, repeats, digits, evidences;

  size_t depth() const { return width - 1; }
  size_t own_width() const { return width + heads * depth() + evidences; }
  size_t state_width() const { return heads * attended * (depth() + 1) + repeats * (digits + 1) + evidences + width; }
};

// log(1 + sum e^g) = s + log(e^-s + sum e^(g - s)), as in `training/export/kernel_modules.py`.
constexpr float kMaxSimilarity = 12.0f, kShift = kMaxSimilarity / 2;

namespace detail {

constexpr int64_t kDigit = 2048;

// Weights of a few item indices.
class RepeatWeights {
 public:
  // `digits` are rows of one digit of each behaviour's index, the lowest first.
  void assign(const float* digits, size_t digit_count, const float* weights, size_t count) {
    size_t size = 2;
    while (size < 2 * count) size *= 2;
    slots_.assign(size, {-1, 0.0f});
    for (size_t i = 0; i < count; ++i) {
      if (weights[i] == 0) continue;
      Slot& slot = slots_[place(index(digits + i, digit_count, count))];
      slot.item = index(digits + i, digit_count, count);
      slot.weight += weights[i];
    }
  }

  // 0 if the item is none of them.
  float of(int64_t item) const { return slots_[place(item)].weight; }

  // An index from its digits, `stride` numbers apart; nobody's if one is no digit.
  static int64_t index(const float* digits, size_t count, size_t stride) {
    int64_t item = 0;
    for (size_t at = std::min<size_t>(count, 5); at-- > 0;) {  // more would overflow
      const float digit = digits[at * stride];
      if (!(digit >= 0 && digit < kDigit)) return -2;
      item = item * kDigit + static_cast<int64_t>(digit);
    }
    return item;
  }

 private:
  struct Slot {
    int64_t item;
    float weight;
  };

  // The item's slot, or the empty one where it would be.
  size_t place(int64_t item) const {
    size_t at = static_cast<size_t>(static_cast<uint64_t>(item) * 0x9e3779b97f4a7c15u >> 32) & (slots_.size() - 1);
    while (slots_[at].item != item && slots_[at].item != -1) at = (at + 1) & (slots_.size() - 1);
    return at;
  }

  std::vector<Slot> slots_;
};

NANN_CLONES static void inner_products_of_rows(const float* user, const Candidates& candidates, size_t width,
                                               float* scores) {
  for (size_t i = 0; i < candidates.count; ++i) scores[i] = inner_product(user, candidates.rows[i], width);
}

#ifdef NANN_BF16
// Epilogue: the weighted sum of e^(similarity - shift).
struct Similarities {
  const float* weights;
  bf16::Floats* totals;

  NANN_BF16_INLINE void operator()(size_t row, size_t group, __m512 sums) const {
    const __m512 shifted = _mm512_sub_ps(_mm512_min_ps(sums, _mm512_set1_ps(kMaxSimilarity)), _mm512_set1_ps(kShift));
    const __m512 weight = _mm512_loadu_ps(weights + group * bf16::kLanes);
    const __m512 total = _mm512_load_ps(totals[row].numbers);
    _mm512_store_ps(totals[row].numbers, _mm512_fmadd_ps(bf16::exp(shifted), weight, total));
  }
};

// The heads of one user.
class Heads {
 public:
  explicit Heads(const SimilarityShape& shape)
      : shape_(shape), keys_(shape.heads), weights_(shape.heads), queries_(kScored * bf16::padded(shape.depth())) {}

  NANN_BF16 void start(const float* keys, const float* weights) {
    for (size_t head = 0; head < shape_.heads; ++head) {
      keys_[head].assign(keys + head * shape_.depth() * shape_.attended, shape_.attended, shape_.depth(),
                         shape_.attended);
      weights_[head].assign(bf16::padded(shape_.attended), 0.0f);
      std::copy_n(weights + head * shape_.attended, shape_.attended, weights_[head].begin());
    }
    zeros_.assign(bf16::padded(shape_.attended), 0.0f);
  }

  // The sums of one head.
  NANN_BF16 void sums(const Candidates& candidates, size_t head, float* found) {
    bf16::Floats totals[kScored] = {};
    const size_t stride = bf16::padded(shape_.depth());
    for (size_t m = 0; m < kScored; ++m)
      bf16::convert(candidates.rows[m] + shape_.width + head * shape_.depth(), shape_.depth(),
                    queries_.data() + m * stride);
    bf16::multiply<kScored>({queries_.data(), stride}, keys_[head], {zeros_.data(), 0},
                            Similarities{weights_[head].data(), totals});
    for (size_t m = 0; m < kScored; ++m) found[m] = _mm512_reduce_add_ps(_mm512_load_ps(totals[m].numbers));
  }

 private:
  const SimilarityShape& shape_;
  std::vector<bf16::Packed> keys_;
  std::vector<std::vector<float>> weights_;
  std::vector<float> zeros_;
  std::vector<uint16_t> queries_;
};
#endif

class SimilarityUser {
 public:
  SimilarityUser(const SimilarityShape& shape, bool digits_in_row)
      : shape_(shape),
        digits_in_row_(digits_in_row)
#ifdef NANN_BF16
        ,
        heads_(shape)
#endif
  {
  }

  void start(const float* state) {
#ifdef NANN_BF16
    const size_t keys = shape_.heads * shape_.attended * shape_.depth();
    if (shape_.heads > 0) heads_.start(state, state + keys);
#endif
    const float* digits = state + shape_.heads * shape_.attended * (shape_.depth() + 1);
    const float* weights = digits + shape_.digits * shape_.repeats;
    if (shape_.repeats > 0) repeats_.assign(digits, shape_.digits, weights, shape_.repeats);
    gates_ = weights + shape_.repeats;
    vector_ = gates_ + shape_.evidences;
  }

  void score(const Candidates& candidates, float* scores) {
    inner_products_of_rows(vector_, candidates, shape_.width, scores);
#ifdef NANN_BF16
    for (size_t head = 0; head < shape_.heads; ++head) {
      float found[kScored];
      heads_.sums(candidates, head, found);
      for (size_t i = 0; i < candidates.count; ++i) scores[i] += evidence(candidates.rows[i], head, found[i]);
    }
#endif
    if (shape_.repeats == 0) return;
    for (size_t i = 0; i < candidates.count; ++i) {
      const float* row = candidates.rows[i];
      const int64_t item =
          digits_in_row_ ? RepeatWeights::index(row + shape_.own_width(), shape_.digits, 1) : candidates.items[i];
      const float weight = repeats_.of(item);
      if (weight != 0) scores[i] += evidence(row, shape_.heads, weight * std::exp(-kShift));
    }
  }

 private:
  float evidence(const float* row, size_t which, float found) const {
    const float gate = row[shape_.own_width() - shape_.evidences + which] + gates_[which];
    return gate * (kShift + std::log(found + std::exp(-kShift)));
  }

  const SimilarityShape& shape_;
  bool digits_in_row_;
  const float* gates_ = nullptr;
  const float* vector_ = nullptr;
  RepeatWeights repeats_;
#ifdef NANN_BF16
  Heads heads_;
#endif
};

}  // namespace detail

// Scores the candidates, as `score_all`.
class SimilarityScorer {
 public:
  explicit SimilarityScorer(const SimilarityShape& shape) : shape_(shape) {
    if (shape.width == 0) throw std::invalid_argument("width is 0; expected at least 1");
    const size_t evidences = shape.heads + (shape.repeats > 0);
    if (shape.evidences != evidences)
      throw std::invalid_argument("there are " + std::to_string(shape.evidences) + " gates; expected " +
                                  std::to_string(evidences) + ", one of each head and one of repeats");
    if (shape.heads > 0) require_bf16();
  }

  void score(const ScorerInput& in, Matrix<float> scores, size_t threads) const {
    const size_t columns = in.table.base.cols, digits = shape_.repeats > 0 ? shape_.digits : 0;
    const bool in_row = digits > 0 && columns == shape_.own_width() + digits;
    require_columns("candidate_rows", columns, shape_.own_width() + (in_row ? digits : 0));
    require_columns("user_state", in.states.cols, shape_.state_width());
    score_all(in, scores, threads, [&] { return detail::SimilarityUser(shape_, in_row); });
  }

 private:
  SimilarityShape shape_;
};

}  // namespace nann
