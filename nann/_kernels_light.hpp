// The light walk: Algorithms 1 and 2 with an inner product as the score. Knows nothing of Python; `_kernels.cpp` binds
// it, `kernels_numpy.py` specifies it.
#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "_kernels.hpp"

namespace nann {

// Every user's and every item's side of the light score <user, vector>.
struct LightInput {
  std::vector<Csr> layers;  // ground first, ending below the entry layer
  Matrix<const int32_t> entry_points;  // one row
  Matrix<const float> vectors;
  Matrix<const float> users;
  Matrix<const int32_t> ef;  // one row, as the next
  Matrix<const int32_t> rounds;
};

struct LightOutput {
  Matrix<int32_t> items;
  Matrix<float> scores;
  Matrix<int32_t> scored;  // one row
};

namespace detail {

// A fixed number of partial sums, added up in a fixed order: compilers turn the inner loop into vector instructions
// without being allowed to reorder, and the result is the same to the bit on every machine.
constexpr size_t kLanes = 16;

inline float inner_product(const float* left, const float* right, size_t width) {
  float lanes[kLanes] = {};
  size_t at = 0;
  for (; at + kLanes <= width; at += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += left[at + lane] * right[at + lane];
  for (size_t lane = 0; at + lane < width; ++lane) lanes[lane] += left[at + lane] * right[at + lane];
  for (size_t half = kLanes / 2; half > 0; half /= 2)
    for (size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

inline void prefetch_item(const LightInput& in, int32_t item) {
  constexpr size_t kLine = 64 / sizeof(float);
  const float* vector = in.vectors.row(static_cast<size_t>(item));
  for (size_t at = 0; at < in.vectors.cols; at += kLine) NANN_PREFETCH(vector + at);
}

// One user's walk; an object serves one user after the other and keeps its memory.
class LightWalk {
 public:
  explicit LightWalk(const LightInput& in) : in_(in), visited_((in.vectors.rows + 63) / 64) {}

  void run(size_t user, const LightOutput& out) {
    user_ = in_.users.row(user);
    ef_ = in_.ef.data[user];
    scored_ = 0;
    items_.clear();
    scores_.clear();
    candidates_.assign(in_.entry_points.data, in_.entry_points.data + in_.entry_points.cols);
    keep_best();
    for (size_t layer = in_.layers.size(); layer-- > 0;) search_layer(in_.layers[layer], in_.rounds.data[user]);
    const size_t kept = std::min(items_.size(), out.items.cols);
    std::fill(std::copy_n(items_.begin(), kept, out.items.row(user)), out.items.row(user) + out.items.cols,
              kPaddingItem);
    std::fill(std::copy_n(scores_.begin(), kept, out.scores.row(user)), out.scores.row(user) + out.scores.cols,
              kPaddingScore);
    out.scored.data[user] = scored_;
  }

 private:
  void search_layer(const Csr& layer, int32_t rounds) {
    std::fill(visited_.begin(), visited_.end(), 0);
    for (int32_t item : items_) test_and_set(visited_.data(), static_cast<uint32_t>(item));
    frontier_ = items_;
    for (int32_t round = 0; round < rounds && !frontier_.empty(); ++round) {
      candidates_.resize(find_lists(layer, frontier_.data(), frontier_.size(), lists_));
      candidates_.resize(collect(layer, lists_, visited_.data(), candidates_.data()));
      if (candidates_.empty()) return;
      keep_best();
    }
  }

  // Scores the candidates; W becomes the ef best of W and them, the frontier those of them that are in W.
  void keep_best() {
    constexpr size_t kAhead = 8;
    const size_t count = candidates_.size();
    candidate_scores_.resize(count);
    for (size_t i = 0; i < count; ++i) {
      if (i + kAhead < count) prefetch_item(in_, candidates_[i + kAhead]);
      const float* vector = in_.vectors.row(static_cast<size_t>(candidates_[i]));
      candidate_scores_[i] = inner_product(user_, vector, in_.vectors.cols);
    }
    scored_ += static_cast<int32_t>(count);
    const MergeInput merge{{items_.data(), 1, items_.size()},
                           {scores_.data(), 1, scores_.size()},
                           {candidates_.data(), 1, count},
                           {candidate_scores_.data(), 1, count},
                           {&ef_, 1, 1}};
    const size_t width = merge_width(merge);
    best_items_.resize(width);
    best_scores_.resize(width);
    if (width > is_new_size_) is_new_.reset(new bool[is_new_size_ = width]);
    merge_top(merge, {{best_items_.data(), 1, width}, {best_scores_.data(), 1, width}, {is_new_.get(), 1, width}});
    items_.swap(best_items_);
    scores_.swap(best_scores_);
    frontier_.clear();
    for (size_t i = 0; i < width; ++i)
      if (is_new_[i]) frontier_.push_back(items_[i]);
  }

  const LightInput& in_;
  const float* user_ = nullptr;
  int32_t ef_ = 0, scored_ = 0;
  std::vector<uint64_t> visited_;
  std::vector<Range> lists_;
  std::vector<int32_t> items_, best_items_, candidates_, frontier_;
  std::vector<float> scores_, best_scores_, candidate_scores_;
  std::unique_ptr<bool[]> is_new_;  // not std::vector<bool>, whose elements have no address
  size_t is_new_size_ = 0;
};

inline void check_light(const LightInput& in, const LightOutput& out) {
  if (in.vectors.cols != in.users.cols)
    throw std::invalid_argument("users has " + std::to_string(in.users.cols) + " columns; expected " +
                                std::to_string(in.vectors.cols) + ", as vectors");
  for (const Csr& layer : in.layers)
    if (layer.item_count != in.vectors.rows)
      throw std::invalid_argument("a layer has " + std::to_string(layer.item_count) + " items; expected " +
                                  std::to_string(in.vectors.rows) + ", as vectors");
  for (size_t i = 0; i < in.entry_points.cols; ++i)
    if (!in_range(in.entry_points.data[i], in.vectors.rows))
      bad_item("entry_points", in.entry_points.data[i], items_below(in.vectors.rows));
  require_rows("ef", in.ef.cols, in.users.rows);
  require_rows("rounds", in.rounds.cols, in.users.rows);
  require_rows("items", out.items.rows, in.users.rows);
}

}  // namespace detail

// Per user: the best items by the light score that a walk of `ef` and `rounds` a layer finds, best first, padded.
// Users are shared out among at most `threads` threads.
inline void light_walk(const LightInput& in, const LightOutput& out, size_t threads) {
  detail::check_light(in, out);
  std::atomic<size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&] {
    try {
      detail::LightWalk walk(in);
      for (size_t user; (user = next++) < in.users.rows;) walk.run(user, out);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(failure_mutex);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> helpers;
  const size_t wanted = std::min(threads, in.users.rows);
  for (size_t i = 1; i < wanted; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace nann
