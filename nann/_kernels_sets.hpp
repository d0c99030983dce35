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
    for (; allowed != 0; allowed &= allowed - 1) items.push_back(static_cast<int32_t>(word * 64) + lowest_bit(allowed));
  }
}

// Finds the neighbours of one user's items, and what lies behind those that are blocked: the bridges.
class Bridges {
 public:
  // Fills `found` with the unvisited neighbours that are not blocked, then with those of the bridges, one bridge after
  // the other while `found` has fewer than `most`. All of them become visited, and so do all bridges.
  void expand(const Csr& layer, const int32_t* frontier, size_t count, uint64_t* visited, const uint64_t* blocked,
              size_t most, std::vector<int32_t>& found) {
    const size_t neighbors = find_lists(layer, frontier, count, lists_);
    found.resize(neighbors);
    bridges_.resize(neighbors);
    size_t allowed = 0, not_allowed = 0;
    for_neighbors(layer, lists_, [&](int32_t item) {
      const auto bit = static_cast<uint32_t>(item);
      const bool is_new = test_and_set(visited, bit), is_blocked = test(blocked, bit);
      found[allowed] = bridges_[not_allowed] = item;
      allowed += is_new & !is_blocked;
      not_allowed += is_new & is_blocked;
    });
    not_allowed = std::min(not_allowed, most);
    constexpr size_t kAtOnce = 64;  // mostly a few bridges lead to as many items as are wanted
    for (size_t at = 0; at < not_allowed && allowed < most; at += kAtOnce) {
      found.resize(allowed + find_lists(layer, bridges_.data() + at, std::min(kAtOnce, not_allowed - at), lists_));
      allowed = cross(layer, visited, blocked, most, allowed, found.data());
    }
    found.resize(allowed);
  }

 private:
  // Appends to the `count` items of `found` what is behind the bridges whose lists were looked up.
  size_t cross(const Csr& layer, uint64_t* visited, const uint64_t* blocked, size_t most, size_t count,
               int32_t* found) const {
    for_neighbors(
        layer, lists_,
        [&](int32_t item) {
          const size_t word = static_cast<uint32_t>(item) >> 6;
          const uint64_t allowed = uint64_t{1} << (item & 63) & ~blocked[word];
          found[count] = item;
          count += (allowed & ~visited[word]) != 0;
          visited[word] |= allowed;
        },
        [&] { return count < most; });
    return count;
  }

  std::vector<Range> lists_;
  std::vector<int32_t> bridges_;
};

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
// bridges, until there are `reach` items for each of the frontier. They become visited, and so do the bridges.
// At most `threads` threads share the rows.
inline Ragged expand_through(const Csr& layer, Matrix<uint64_t> visited, Matrix<const uint64_t> blocked,
                             Matrix<const int32_t> frontier, size_t reach, size_t threads) {
  detail::require_rows("frontier", frontier.rows, visited.rows);
  detail::require_rows("blocked", blocked.rows, visited.rows);
  detail::require_words("visited", visited.cols, layer.item_count);
  detail::require_words("blocked", blocked.cols, layer.item_count);
  Ragged found{std::vector<std::vector<int32_t>>(frontier.rows)};
  share_rows(frontier.rows, threads, [&] {
    return [&, bridges = detail::Bridges()](size_t r) mutable {
      const int32_t* items = frontier.row(r);
      const auto padding = std::count(items, items + frontier.cols, kPaddingItem);
      const size_t most = reach * (frontier.cols - static_cast<size_t>(padding));
      bridges.expand(layer, items, frontier.cols, visited.row(r), blocked.row(r), most, found.rows[r]);
    };
  });
  return found;
}

}  // namespace nann
