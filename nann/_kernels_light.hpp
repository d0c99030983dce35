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
  Matrix<const uint64_t> blocked;  // a row per user, or no rows: nothing is blocked
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

// `sort_key` of a light score.
inline uint64_t key_of(float score, int32_t item) {
  if (std::isnan(score))
    throw std::invalid_argument("the score of item " + std::to_string(item) + " is NaN; expected a number");
  return sort_key(score, item);
}

// Sorts the `most` best of the keys, and writes them into one row, padded.
inline void write_best(std::vector<uint64_t>& keys, size_t most, Matrix<int32_t> items, Matrix<float> scores,
                       size_t row) {
  const size_t width = items.cols, kept = std::min({most, width, keys.size()});
  const auto end = keys.begin() + static_cast<std::ptrdiff_t>(kept);
  if (kept < keys.size()) std::nth_element(keys.begin(), end, keys.end());
  std::sort(keys.begin(), end);  // smaller keys are better
  for (size_t i = 0; i < width; ++i) {
    items.row(row)[i] = i < kept ? item_of(keys[i]) : kPaddingItem;
    scores.row(row)[i] = i < kept ? score_of(keys[i]) : kPaddingScore;
  }
}

// One user's walk; an object serves one user after the other and reuses its memory. Blocked items are scored and
// expanded as the others, but W never holds them.
//
// W, the ef best scored items, is selected only at the end. Until then it would only tell when to stop: when ef items
// are better than the best open (not yet expanded) one. Those are all expanded, as no open item is better than
// the best open one. So it suffices to keep the ef best expanded items, which change once per step, not once per item.
class LightWalk {
 public:
  explicit LightWalk(const LightInput& in) : in_(in), visited_((in.vectors.rows + 63) / 64) {}

  void run(size_t user, const LightOutput& out) {
    user_ = in_.users.row(user);
    blocked_ = in_.blocked.rows == 0 ? nullptr : in_.blocked.row(user);
    count_ = 0;
    ef_ = static_cast<size_t>(in_.ef.data[user]);
    scored_.clear();
    open_.clear();
    expanded_.clear();
    std::fill(visited_.begin(), visited_.end(), 0);
    candidates_.assign(in_.entry_points.data, in_.entry_points.data + in_.entry_points.cols);
    for (int32_t item : candidates_) test_and_set(visited_.data(), static_cast<uint32_t>(item));
    score_candidates();
    const auto ends = [&] { return open_.empty() || (expanded_.size() == ef_ && open_.front() > expanded_.front()); };
    for (int32_t step = 0; !ends(); ++step) {
      if (step >= in_.steps.data[user]) {
        if (blocked_ != nullptr) scored_.clear();  // W may not hold the best
        break;
      }
      std::pop_heap(open_.begin(), open_.end(), std::greater<>());
      const uint64_t next = open_.back();
      open_.pop_back();
      if (is_allowed(item_of(next))) note_expanded(next);
      expand(item_of(next));
    }
    write_best(scored_, ef_, out.items, out.scores, user);
    out.scored.data[user] = static_cast<int32_t>(count_);
  }

 private:
  bool is_allowed(int32_t item) const { return blocked_ == nullptr || !test(blocked_, static_cast<uint32_t>(item)); }

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
    count_ += candidates_.size();
    scores_.resize(candidates_.size());
    inner_products(user_, in_.vectors, candidates_.data(), candidates_.size(), scores_.data());
    for (size_t i = 0; i < candidates_.size(); ++i) {
      const uint64_t key = key_of(scores_[i], candidates_[i]);
      if (is_allowed(candidates_[i])) scored_.push_back(key);
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

  const LightInput& in_;
  const float* user_ = nullptr;
  const uint64_t* blocked_ = nullptr;
  size_t count_ = 0;  // of scored items
  size_t ef_ = 0;
  std::vector<uint64_t> visited_;
  std::vector<Range> lists_;
  std::vector<int32_t> candidates_;
  std::vector<float> scores_;       // of the candidates
  std::vector<uint64_t> scored_;    // sort keys of all scored items that are not blocked
  std::vector<uint64_t> open_;      // not yet expanded, the best on top
  std::vector<uint64_t> expanded_;  // the ef best of those that are not blocked, the worst on top
};

inline void require_columns(Matrix<const float> users, Matrix<const float> vectors) {
  if (users.cols != vectors.cols)
    throw std::invalid_argument("users has " + std::to_string(users.cols) + " columns; expected " +
                                std::to_string(vectors.cols) + ", as vectors");
}

inline void check_light(const LightInput& in, const LightOutput& out) {
  require_columns(in.users, in.vectors);
  if (in.ground.item_count != in.vectors.rows)
    throw std::invalid_argument("the layer has " + std::to_string(in.ground.item_count) + " items; expected " +
                                std::to_string(in.vectors.rows) + ", as vectors");
  for (size_t i = 0; i < in.entry_points.cols; ++i)
    if (!in_range(in.entry_points.data[i], in.vectors.rows))
      bad_item("entry_points", in.entry_points.data[i], items_below(in.vectors.rows));
  require_rows("ef", in.ef.cols, in.users.rows);
  require_rows("steps", in.steps.cols, in.users.rows);
  require_rows("items", out.items.rows, in.users.rows);
  if (in.blocked.rows != 0) {
    require_rows("blocked", in.blocked.rows, in.users.rows);
    require_words("blocked", in.blocked.cols, in.ground.item_count);
  }
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
