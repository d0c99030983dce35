// What native scorers share: rows of items, and the way through a call's users and candidates. Knows nothing of Python.
#pragma once

#include <array>

#include "_kernels.hpp"

namespace nann {

// Rows of items 0..N-1, and of items `first`.. that came later.
struct RowTable {
  Matrix<const float> base, delta;
  size_t first;

  const float* row(int32_t item) const {
    if (detail::in_range(item, base.rows)) return base.row(static_cast<size_t>(item));
    const size_t later = static_cast<size_t>(item) - first;
    if (item < 0 || static_cast<size_t>(item) < first || later >= delta.rows)
      detail::bad_item("candidates", item,
                       detail::items_below(base.rows) + ", or one of " + std::to_string(delta.rows) + " from " +
                           std::to_string(first) + ", or -1");
    return delta.row(later);
  }
};

struct ScorerInput {
  Matrix<const float> states;  // a row per user
  Matrix<const int32_t> candidates;
  RowTable table;
};

constexpr size_t kScored = 12;  // candidates that a scorer takes at a time

// Up to kScored candidates. The places behind `count` repeat one of them.
struct Candidates {
  std::array<const float*, kScored> rows;
  std::array<int32_t, kScored> items;
  size_t count = 0;

  void fill() {
    for (size_t i = count; i < kScored; ++i) {
      rows[i] = rows[0];
      items[i] = items[0];
    }
  }
};

namespace detail {

// Scores one user's `candidates`; padding (-1) keeps what is in `scores`.
template <typename User>
void score_user(User& user, const RowTable& table, const int32_t* candidates, size_t count, float* scores) {
  constexpr size_t kLine = 64 / sizeof(float);
  std::array<Candidates, 2> blocks;  // one is scored while the rows of the other are on their way
  std::array<std::array<size_t, kScored>, 2> places;
  size_t at = 0;
  const auto take = [&](size_t which) {
    Candidates& block = blocks[which];
    for (block.count = 0; at < count && block.count < kScored; ++at) {
      if (candidates[at] == kPaddingItem) continue;
      const float* row = table.row(candidates[at]);
      for (size_t column = 0; column < table.base.cols; column += kLine) NANN_PREFETCH_MANY(row + column);
      block.rows[block.count] = row;
      block.items[block.count] = candidates[at];
      places[which][block.count++] = at;
    }
    if (block.count > 0) block.fill();
  };
  std::array<float, kScored> found;
  take(0);
  for (size_t which = 0; blocks[which].count > 0; which = 1 - which) {
    take(1 - which);
    user.score(blocks[which], found.data());
    for (size_t i = 0; i < blocks[which].count; ++i) scores[places[which][i]] = found[i];
  }
}

}  // namespace detail

// Scores all candidates of all users; 0 where a candidate is padding. At most `threads` threads share them.
//
// `make()` gives a thread an object whose `start(state)` prepares a user and whose `score(candidates, scores)` scores
// a few candidates.
template <typename Make>
void score_all(const ScorerInput& in, Matrix<float> scores, size_t threads, const Make& make) {
  constexpr size_t kShare = 1024;  // candidates of a user that a thread takes at once
  if (in.table.delta.rows > 0 && in.table.delta.cols != in.table.base.cols)
    throw std::invalid_argument("delta has " + std::to_string(in.table.delta.cols) + " columns; expected " +
                                std::to_string(in.table.base.cols) + ", as base");
  detail::require_rows("candidates", in.candidates.rows, in.states.rows);
  const size_t width = in.candidates.cols, share = threads == 1 ? std::max<size_t>(width, 1) : kShare;
  const size_t parts = (width + share - 1) / share;
  std::fill_n(scores.data, scores.rows * scores.cols, 0.0f);
  share_rows(in.states.rows * parts, threads, [&] {
    return [&, user = make()](size_t part) mutable {
      const size_t row = part / parts, first = part % parts * share;
      user.start(in.states.row(row));
      detail::score_user(user, in.table, in.candidates.row(row) + first, std::min(share, width - first),
                         scores.row(row) + first);
    };
  });
}

inline void require_columns(const char* array, size_t columns, size_t expected) {
  if (columns != expected)
    throw std::invalid_argument(std::string(array) + " has " + std::to_string(columns) + " columns; expected " +
                                std::to_string(expected) + ", as the scorer was exported; run `nann export` again");
}

}  // namespace nann
