// Inner loops with sets of items that users may not be shown. Knows nothing of Python; `_kernels.cpp` binds it,
// `kernels_numpy.py` specifies it.
#pragma once

#include "_kernels.hpp"

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__)
#define NANN_POPCOUNT_CLONES __attribute__((target_clones("popcnt", "default")))
#else
#define NANN_POPCOUNT_CLONES
#endif

namespace nann {

namespace detail {

NANN_ALWAYS_INLINE int64_t bit_count(uint64_t word) {
#if defined(__GNUC__) || defined(__clang__)
  return __builtin_popcountll(word);
#else
  int64_t bits = 0;
  for (; word != 0; word &= word - 1) ++bits;
  return bits;
#endif
}

inline int lowest_bit(uint64_t word) {  // of a word that is not 0
#if defined(__GNUC__) || defined(__clang__)
  return __builtin_ctzll(word);
#else
  int bit = 0;
  while ((word >> bit & 1) == 0) ++bit;
  return bit;
#endif
}

// Appends the items of the words from `first` to before `last` that are not blocked.
inline void append_allowed(const uint64_t* blocked, size_t first, size_t last, size_t item_count,
                           std::vector<int32_t>& items) {
  for (size_t word = first; word < last; ++word) {
    uint64_t allowed = ~blocked[word];
    if (word == item_count / 64) allowed &= (uint64_t{1} << item_count % 64) - 1;
    for (; allowed != 0; allowed &= allowed - 1)
      items.push_back(static_cast<int32_t>(word * 64) + lowest_bit(allowed));
  }
}

// Appends the unvisited neighbours, which become visited, to `found`, or to `bridges` if they are blocked; returns how
// many of each. Both arrays need room for all neighbours.
inline std::pair<size_t, size_t> split(const Csr& layer, const std::vector<Range>& lists, uint64_t* visited,
                                       const uint64_t* blocked, int32_t* found, int32_t* bridges) {
  size_t allowed = 0, not_allowed = 0;
  for_neighbors(layer, lists, [&](int32_t item) {
    const auto bit = static_cast<uint32_t>(item);
    const bool is_new = test_and_set(visited, bit), is_blocked = test(blocked, bit);
    found[allowed] = bridges[not_allowed] = item;
    allowed += is_new & !is_blocked;
    not_allowed += is_new & is_blocked;
    return true;
  });
  return {allowed, not_allowed};
}

// Appends the unvisited neighbours that are not blocked, which become visited, to the `count` items of `found`, until
// there are `most`.
inline size_t cross(const Csr& layer, const std::vector<Range>& lists, uint64_t* visited, const uint64_t* blocked,
                    int32_t* found, size_t count, size_t most) {
  if (count >= most) return count;
  for_neighbors(layer, lists, [&](int32_t item) {
    const auto bit = static_cast<uint32_t>(item);
    found[count] = item;
    if (!test(blocked, bit)) count += test_and_set(visited, bit);
    return count < most;
  });
  return count;
}

}  // namespace detail

// How many bits are set in each row; `counts` has one row.
NANN_POPCOUNT_CLONES static void count(Matrix<const uint64_t> item_sets, Matrix<int64_t> counts) {
  detail::require_rows("counts", counts.cols, item_sets.rows);
  for (size_t r = 0; r < item_sets.rows; ++r) {
    int64_t total = 0;
    for (size_t word = 0; word < item_sets.cols; ++word) total += detail::bit_count(item_sets.row(r)[word]);
    counts.data[r] = total;
  }
}

// Per row: the unvisited neighbours of the frontier that are not blocked, then those of its blocked neighbours, the
// bridges. They become visited, and so do the bridges. A row has no more items than there were unvisited neighbours,
// blocked ones included. At most `threads` threads share the rows.
inline Ragged expand_through(const Csr& layer, Matrix<uint64_t> visited, Matrix<const uint64_t> blocked,
                             Matrix<const int32_t> frontier, size_t threads) {
  detail::require_rows("frontier", frontier.rows, visited.rows);
  detail::require_rows("blocked", blocked.rows, visited.rows);
  detail::require_words("visited", visited.cols, layer.item_count);
  detail::require_words("blocked", blocked.cols, layer.item_count);
  Ragged found{std::vector<std::vector<int32_t>>(frontier.rows)};
  share_rows(frontier.rows, threads, [&] {
    return [&, lists = std::vector<detail::Range>(), bridges = std::vector<int32_t>()](size_t r) mutable {
      std::vector<int32_t>& row = found.rows[r];
      uint64_t* seen = visited.row(r);
      bridges.resize(detail::find_lists(layer, frontier.row(r), frontier.cols, lists));
      row.resize(bridges.size());
      const auto [allowed, not_allowed] = detail::split(layer, lists, seen, blocked.row(r), row.data(), bridges.data());
      const size_t neighbors = detail::find_lists(layer, bridges.data(), not_allowed, lists);
      row.resize(allowed + neighbors);
      row.resize(detail::cross(layer, lists, seen, blocked.row(r), row.data(), allowed, allowed + not_allowed));
    };
  });
  return found;
}

}  // namespace nann
