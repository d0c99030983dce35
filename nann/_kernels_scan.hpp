// The light scan: the best items by light score of all that are not blocked. Knows nothing of Python; `_kernels.cpp`
// binds it, `kernels_numpy.py` specifies it.
#pragma once

#include "_kernels_light.hpp"
#include "_kernels_sets.hpp"

namespace nann {

struct ScanInput {
  Matrix<const float> vectors;
  Matrix<const float> users;
  Matrix<const uint64_t> blocked;  // a row per user
  Matrix<const int32_t> counts;    // one row
};

struct ScanOutput {
  Matrix<int32_t> items;
  Matrix<float> scores;
};

namespace detail {

// Keeps the best of the keys that are added.
class Best {
 public:
  explicit Best(size_t count) : count_(count) {}

  void add(uint64_t key) {
    if (key > worst_) return;
    keys_.push_back(key);
    if (keys_.size() == 2 * count_) cut();
  }

  // In no order.
  const std::vector<uint64_t>& keys() {
    if (keys_.size() > count_) cut();
    return keys_;
  }

 private:
  void cut() {
    std::nth_element(keys_.begin(), keys_.begin() + (count_ - 1), keys_.end());
    keys_.resize(count_);
    worst_ = keys_.back();
  }

  size_t count_;
  std::vector<uint64_t> keys_;
  uint64_t worst_ = UINT64_MAX;  // the count-th best key so far, or more
};

// One part of the corpus for all users, block by block: the users share the block's vectors in a cache.
class ScanPart {
 public:
  explicit ScanPart(const ScanInput& in) : in_(in) {}

  // Scans the words from `first` to before `last`; `best` has one entry per user.
  void run(size_t first, size_t last, std::vector<Best>& best) {
    constexpr size_t kWords = 16;  // 1,024 items: 256 KB of vectors of 64 numbers
    for (size_t start = first; start < last; start += kWords)
      for (size_t user = 0; user < in_.users.rows; ++user)
        if (in_.counts.data[user] > 0) scan_block(user, start, std::min(start + kWords, last), best[user]);
  }

 private:
  void scan_block(size_t user, size_t first, size_t last, Best& best) {
    items_.clear();
    append_allowed(in_.blocked.row(user), first, last, in_.vectors.rows, items_);
    scores_.resize(items_.size());
    inner_products(in_.users.row(user), in_.vectors, items_.data(), items_.size(), scores_.data());
    for (size_t i = 0; i < items_.size(); ++i) best.add(key_of(scores_[i], items_[i]));
  }

  const ScanInput& in_;
  std::vector<int32_t> items_;
  std::vector<float> scores_;
};

inline void check_scan(const ScanInput& in, const ScanOutput& out) {
  require_columns(in.users, in.vectors);
  require_rows("blocked", in.blocked.rows, in.users.rows);
  require_words("blocked", in.blocked.cols, in.vectors.rows);
  require_rows("counts", in.counts.cols, in.users.rows);
  require_rows("items", out.items.rows, in.users.rows);
}

}  // namespace detail

// How many columns a scan's output has.
inline size_t scan_width(const ScanInput& in) {
  int32_t widest = 0;
  for (size_t user = 0; user < in.counts.cols; ++user) widest = std::max(widest, in.counts.data[user]);
  return static_cast<size_t>(widest);
}

// Per user: the `counts` best items that are not blocked, best first, padded. At most `threads` threads share the
// items.
inline void light_scan(const ScanInput& in, const ScanOutput& out, size_t threads) {
  using namespace detail;
  check_scan(in, out);
  const size_t words = (in.vectors.rows + 63) / 64, parts = std::min(threads == 1 ? 1 : 4 * threads, words);
  std::vector<Best> one_part;
  for (size_t user = 0; user < in.users.rows; ++user)
    one_part.emplace_back(static_cast<size_t>(std::max(in.counts.data[user], 0)));
  std::vector<std::vector<Best>> best(parts, one_part);
  share_rows(parts, threads, [&] {
    return [&, scan = ScanPart(in)](size_t part) mutable {
      scan.run(words * part / parts, words * (part + 1) / parts, best[part]);
    };
  });
  for (size_t user = 0; user < in.users.rows; ++user) {
    std::vector<uint64_t> keys;
    for (std::vector<Best>& part : best) keys.insert(keys.end(), part[user].keys().begin(), part[user].keys().end());
    write_best(keys, static_cast<size_t>(std::max(in.counts.data[user], 0)), out.items, out.scores, user);
  }
}

}  // namespace nann
