// The light walk: best-first search with an inner product as the score. Knows nothing of Python; `_kernels.cpp` binds
// it, `kernels_numpy.py` specifies it.
#pragma once

#include <functional>

#include "_kernels.hpp"
#include "_kernels_threads.hpp"

namespace nann {

// The layer to walk, and the users and vectors of the light score <user, vector>.
struct LightInput {
  Csr ground;
  Matrix<const int32_t> entry_points;  // one row
  Matrix<const float> vectors;
  Matrix<const float> users;
  Matrix<const int32_t> ef;  // one row, as the next
  Matrix<const int32_t> steps;
};

struct LightOutput {
  Matrix<int32_t> items;
  Matrix<float> scores;
  Matrix<int32_t> scored;  // one row
};

namespace detail {

// A fixed number of partial sums, added in a fixed order: compilers can use vector instructions without reordering, and
// the result has the same bits on every machine.
constexpr size_t kLanes = 16;

NANN_ALWAYS_INLINE float inner_product(const float* left, const float* right, size_t width) {
  float lanes[kLanes] = {};
  size_t at = 0;
  for (; at + kLanes <= width; at += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += left[at + lane] * right[at + lane];
  for (size_t lane = 0; at + lane < width; ++lane) lanes[lane] += left[at + lane] * right[at + lane];
  for (size_t half = kLanes / 2; half > 0; half /= 2)
    for (size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

// <user, vector> of `count` items. The bits are the same in every clone: lanes, and their order, do not change.
NANN_CLONES static void inner_products(const float* user, Matrix<const float> vectors, const int32_t* items,
                                              size_t count, float* scores) {
  constexpr size_t kAhead = 8;
  const auto prefetch = [&](int32_t item) {
    constexpr size_t kLine = 64 / sizeof(float);
    const float* vector = vectors.row(static_cast<size_t>(item));
    for (size_t at = 0; at < vectors.cols; at += kLine) NANN_PREFETCH(vector + at);
  };
  for (size_t i = 0; i < std::min(kAhead, count); ++i) prefetch(items[i]);
  for (size_t i = 0; i < count; ++i) {
    if (i + kAhead < count) prefetch(items[i + kAhead]);
    scores[i] = inner_product(user, vectors.row(static_cast<size_t>(items[i])), vectors.cols);
  }
}

inline int32_t item_of(uint64_t key) { return static_cast<int32_t>(key & 0xffffffffu); }

// The reverse of `sort_key`.
inline float score_of(uint64_t key) {
  const uint32_t ascending = ~static_cast<uint32_t>(key >> 32);
  const uint32_t bits = ascending & 0x80000000u ? ascending & 0x7fffffffu : ~ascending;
  float score;
  std::memcpy(&score, &bits, sizeof score);
  return score;
}

// One user's walk; an object serves one user after the other and reuses its memory.
//
// W, the ef best scored items, is selected only at the end. Until then it would only tell when to stop: when ef items
// are better than the best open (not yet expanded) one. Those are all expanded, as no open item is better than
// the best open one. So it suffices to keep the ef best expanded items, which change once per step, not once per item.
class LightWalk {
 public:
  explicit LightWalk(const LightInput& in) : in_(in), visited_((in.vectors.rows + 63) / 64) {}

  void run(size_t user, const LightOutput& out) {
    user_ = in_.users.row(user);
    ef_ = static_cast<size_t>(in_.ef.data[user]);
    scored_.clear();
    open_.clear();
    expanded_.clear();
    std::fill(visited_.begin(), visited_.end(), 0);
    candidates_.assign(in_.entry_points.data, in_.entry_points.data + in_.entry_points.cols);
    for (int32_t item : candidates_) test_and_set(visited_.data(), static_cast<uint32_t>(item));
    score_candidates();
    for (int32_t step = 0; step < in_.steps.data[user] && !open_.empty(); ++step) {
      std::pop_heap(open_.begin(), open_.end(), std::greater<>());
      const uint64_t next = open_.back();
      open_.pop_back();
      if (expanded_.size() == ef_ && next > expanded_.front()) break;
      note_expanded(next);
      expand(item_of(next));
    }
    write(out.items.row(user), out.scores.row(user), out.items.cols);
    out.scored.data[user] = static_cast<int32_t>(scored_.size());
  }

 private:
  void expand(int32_t item) {
    // The best open item is likely to be the next: prefetch its list while this one's candidates are scored.
    if (!open_.empty()) NANN_PREFETCH(in_.ground.indptr + item_of(open_.front()));
    candidates_.resize(find_lists(in_.ground, &item, 1, lists_));
    candidates_.resize(collect(in_.ground, lists_, visited_.data(), candidates_.data()));
    if (!open_.empty()) {
      const int32_t likely = item_of(open_.front());
      NANN_PREFETCH(in_.ground.neighbors + in_.ground.indptr[likely]);
    }
    score_candidates();
  }

  // Scores the candidates; all of them are open.
  void score_candidates() {
    scores_.resize(candidates_.size());
    inner_products(user_, in_.vectors, candidates_.data(), candidates_.size(), scores_.data());
    for (size_t i = 0; i < candidates_.size(); ++i) {
      if (std::isnan(scores_[i]))
        throw std::invalid_argument("the score of item " + std::to_string(candidates_[i]) +
                                    " is NaN; expected a number");
      const uint64_t key = sort_key(scores_[i], candidates_[i]);
      scored_.push_back(key);
      open_.push_back(key);
      std::push_heap(open_.begin(), open_.end(), std::greater<>());
    }
  }

  void note_expanded(uint64_t key) {
    if (expanded_.size() == ef_) {
      std::pop_heap(expanded_.begin(), expanded_.end());
      expanded_.pop_back();
    }
    expanded_.push_back(key);
    std::push_heap(expanded_.begin(), expanded_.end());
  }

  void write(int32_t* items, float* scores, size_t width) {
    const size_t kept = std::min({ef_, width, scored_.size()});
    if (kept < scored_.size()) std::nth_element(scored_.begin(), scored_.begin() + kept, scored_.end());
    std::sort(scored_.begin(), scored_.begin() + kept);  // smaller keys are better
    for (size_t i = 0; i < width; ++i) {
      items[i] = i < kept ? item_of(scored_[i]) : kPaddingItem;
      scores[i] = i < kept ? score_of(scored_[i]) : kPaddingScore;
    }
  }

  const LightInput& in_;
  const float* user_ = nullptr;
  size_t ef_ = 0;
  std::vector<uint64_t> visited_;
  std::vector<Range> lists_;
  std::vector<int32_t> candidates_;
  std::vector<float> scores_;       // of the candidates
  std::vector<uint64_t> scored_;    // sort keys of all scored items
  std::vector<uint64_t> open_;      // not yet expanded, the best on top
  std::vector<uint64_t> expanded_;  // the ef best expanded items, the worst on top
};

inline void check_light(const LightInput& in, const LightOutput& out) {
  if (in.vectors.cols != in.users.cols)
    throw std::invalid_argument("users has " + std::to_string(in.users.cols) + " columns; expected " +
                                std::to_string(in.vectors.cols) + ", as vectors");
  if (in.ground.item_count != in.vectors.rows)
    throw std::invalid_argument("the layer has " + std::to_string(in.ground.item_count) + " items; expected " +
                                std::to_string(in.vectors.rows) + ", as vectors");
  for (size_t i = 0; i < in.entry_points.cols; ++i)
    if (!in_range(in.entry_points.data[i], in.vectors.rows))
      bad_item("entry_points", in.entry_points.data[i], items_below(in.vectors.rows));
  require_rows("ef", in.ef.cols, in.users.rows);
  require_rows("steps", in.steps.cols, in.users.rows);
  require_rows("items", out.items.rows, in.users.rows);
  for (size_t i = 0; i < in.ef.cols; ++i)
    if (in.ef.data[i] < 1)
      throw std::invalid_argument("ef holds " + std::to_string(in.ef.data[i]) + "; expected at least 1");
}

}  // namespace detail

// Per user: the best of the `ef` items that best-first search finds, best first, padded.
// At most `threads` threads share the users.
inline void light_walk(const LightInput& in, const LightOutput& out, size_t threads) {
  detail::check_light(in, out);
  share_rows(in.users.rows, threads,
             [&] { return [&out, walk = detail::LightWalk(in)](size_t user) mutable { walk.run(user, out); }; });
}

}  // namespace nann
