// The search's inner loops. Knows nothing of Python; `_kernels.cpp` binds it, `kernels_numpy.py` specifies it.
//
// No content of the arrays makes a function read or write out of range: a bad id throws std::out_of_range, any other
// invalid argument throws std::invalid_argument.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "_kernels_threads.hpp"

#if defined(__GNUC__) || defined(__clang__)
#define NANN_PREFETCH(address) __builtin_prefetch(address)
// Into the second cache: many at once into the first would hold up the reads that come next.
#define NANN_PREFETCH_MANY(address) __builtin_prefetch(address, 0, 2)
#else
#define NANN_PREFETCH(address) ((void)(address))
#define NANN_PREFETCH_MANY(address) ((void)(address))
#endif

// Where compiler and system support it, a function is compiled for several processors and the loader picks one.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__)
#include <immintrin.h>
#define NANN_CLONES __attribute__((target_clones("avx2", "default")))
#define NANN_AVX2 __attribute__((target("avx2")))
#define NANN_ALWAYS_INLINE __attribute__((always_inline)) inline
#else
#define NANN_CLONES
#define NANN_ALWAYS_INLINE inline
#endif

namespace nann {

constexpr int32_t kPaddingItem = -1;
constexpr float kPaddingScore = std::numeric_limits<float>::lowest();

// A C-contiguous matrix that is not owned.
template <typename T>
struct Matrix {
  T* data;
  size_t rows;
  size_t cols;

  T* row(size_t index) const { return data + index * cols; }
};

// Neighbour lists of one layer: those of item v are neighbors[indptr[v]] .. neighbors[indptr[v + 1] - 1].
struct Csr {
  const int32_t* indptr;
  const int32_t* neighbors;
  size_t item_count;
  size_t neighbor_count;
};

// Rows of different lengths.
struct Ragged {
  std::vector<std::vector<int32_t>> rows;

  size_t longest_row() const {
    size_t longest = 0;
    for (const std::vector<int32_t>& row : rows) longest = std::max(longest, row.size());
    return longest;
  }

  void copy_padded(Matrix<int32_t> out) const {
    for (size_t r = 0; r < rows.size(); ++r) {
      int32_t* rest = std::copy(rows[r].begin(), rows[r].end(), out.row(r));
      std::fill(rest, out.row(r) + out.cols, kPaddingItem);
    }
  }
};

namespace detail {

// A negative id becomes a huge unsigned one: a single comparison covers both ends of the range.
inline bool in_range(int32_t item, size_t limit) { return static_cast<uint32_t>(item) < limit; }

[[noreturn]] inline void bad_item(const std::string& array, int32_t item, const std::string& expected) {
  throw std::out_of_range(array + " holds " + std::to_string(item) + "; expected " + expected);
}

inline std::string items_below(size_t limit) { return "an item of 0 <= item < " + std::to_string(limit); }

inline void require_rows(const char* array, size_t rows, size_t expected) {
  if (rows != expected)
    throw std::invalid_argument(std::string(array) + " has " + std::to_string(rows) + " rows; expected " +
                                std::to_string(expected) + ", one per user");
}

inline void require_words(const char* array, size_t words, size_t item_count) {
  if (words * 64 < item_count)
    throw std::invalid_argument(std::string(array) + " has " + std::to_string(words) +
                                " words per row; expected at least " + std::to_string((item_count + 63) / 64) +
                                " for " + std::to_string(item_count) + " items");
}

inline bool test(const uint64_t* bits, uint32_t item) { return (bits[item >> 6] >> (item & 63) & 1) != 0; }

// Sets the item's bit; true if it was clear.
inline bool test_and_set(uint64_t* bits, uint32_t item) {
  uint64_t& word = bits[item >> 6];
  const uint64_t mask = uint64_t{1} << (item & 63);
  const bool was_clear = (word & mask) == 0;
  word |= mask;
  return was_clear;
}

struct Range {
  int32_t start, stop;
};

inline void prefetch_list(const Csr& layer, Range list) {
  constexpr uintptr_t kLine = 64;
  // Starts at the cache line that the list begins in: a list of a dozen neighbours mostly spans two lines.
  const auto stop = reinterpret_cast<uintptr_t>(layer.neighbors + list.stop);
  for (auto at = reinterpret_cast<uintptr_t>(layer.neighbors + list.start) & ~(kLine - 1); at < stop; at += kLine)
    NANN_PREFETCH(reinterpret_cast<const char*>(at));
}

// Looks up the neighbour lists of one frontier; returns their total length.
inline size_t find_lists(const Csr& layer, const int32_t* frontier, size_t count, std::vector<Range>& lists) {
  constexpr size_t kAhead = 16;  // indptr is far larger than a cache: keep several reads in flight
  size_t total = 0;
  lists.clear();
  for (size_t i = 0; i < count; ++i) {
    if (i + kAhead < count && in_range(frontier[i + kAhead], layer.item_count))
      NANN_PREFETCH(layer.indptr + frontier[i + kAhead]);
    const int32_t item = frontier[i];
    if (item == kPaddingItem) continue;
    if (!in_range(item, layer.item_count)) bad_item("frontier", item, items_below(layer.item_count) + ", or -1");
    const Range list{layer.indptr[item], layer.indptr[item + 1]};
    if (list.start < 0 || list.stop < list.start || static_cast<size_t>(list.stop) > layer.neighbor_count)
      throw std::out_of_range("indptr of item " + std::to_string(item) + " is " + std::to_string(list.start) + ":" +
                              std::to_string(list.stop) +
                              "; expected a range within 0:" + std::to_string(layer.neighbor_count));
    lists.push_back(list);
    total += static_cast<size_t>(list.stop - list.start);
  }
  return total;
}

struct Always {
  bool operator()() const { return true; }
};

// Calls `visit` with every neighbour in the lists; asks before each list whether to go on.
template <typename Visit, typename GoOn = Always>
NANN_ALWAYS_INLINE void for_neighbors(const Csr& layer, const std::vector<Range>& lists, const Visit& visit,
                                      const GoOn& go_on = {}) {
  constexpr size_t kAhead = 16;
  for (size_t i = 0; i < std::min(kAhead, lists.size()); ++i) prefetch_list(layer, lists[i]);
  for (size_t i = 0; i < lists.size() && go_on(); ++i) {
    if (i + kAhead < lists.size()) prefetch_list(layer, lists[i + kAhead]);
    const Range list = lists[i];  // a copy: the compiler can't know that `visit` does not change it
    for (int32_t at = list.start; at < list.stop; ++at) {
      const int32_t item = layer.neighbors[at];
      if (!in_range(item, layer.item_count)) bad_item("neighbors", item, items_below(layer.item_count));
      visit(item);
    }
  }
}

// Appends to `out` every neighbour whose bit was clear, and sets the bits; returns how many.
// `out` needs room for all neighbours: each is written, and only a new one advances, so no branch can be mispredicted.
inline size_t collect(const Csr& layer, const std::vector<Range>& lists, uint64_t* bits, int32_t* out) {
  size_t count = 0;
  for_neighbors(layer, lists, [&](int32_t item) {
    out[count] = item;
    count += test_and_set(bits, static_cast<uint32_t>(item));
  });
  return count;
}

// One entry of a merge. Entries sort best first: higher score, then smaller item, then earlier position.
struct Entry {
  uint64_t key;
  uint32_t position;

  bool operator<(const Entry& other) const { return key != other.key ? key < other.key : position < other.position; }
};

// Packs (score, item) into one integer that sorts as (-score, item).
inline uint64_t sort_key(float score, int32_t item) {
  score += 0.0f;  // -0.0 and 0.0 are the same score
  uint32_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t{~ascending} << 32 | static_cast<uint32_t>(item);
}

// Drops all but the ef best; returns the key that a further entry must not exceed to be among them.
inline uint64_t keep_best(std::vector<Entry>& entries, size_t ef) {
  std::nth_element(entries.begin(), entries.begin() + (ef - 1), entries.end());
  entries.resize(ef);
  return entries.back().key;
}

// Appends the entries of one list, except some that can't be among the ef best.
inline void append_entries(const char* array, const int32_t* items, const float* scores, size_t count, size_t offset,
                           size_t ef, std::vector<Entry>& entries) {
  // Once W is full, most new items are worse than all of it. Cutting to ef whenever there are 2 ef entries keeps both
  // the appends and the selections cheap.
  uint64_t worst_key = entries.size() >= ef ? keep_best(entries, ef) : UINT64_MAX;
  for (size_t i = 0; i < count; ++i) {
    if (items[i] == kPaddingItem) continue;
    if (items[i] < 0) bad_item(array, items[i], "an item, or -1");
    if (std::isnan(scores[i]))
      throw std::invalid_argument("the score of item " + std::to_string(items[i]) + " is NaN; expected a number");
    const uint64_t key = sort_key(scores[i], items[i]);
    if (key > worst_key) continue;
    entries.push_back({key, static_cast<uint32_t>(offset + i)});
    if (entries.size() == 2 * ef) worst_key = keep_best(entries, ef);
  }
}

}  // namespace detail

// Sets the bits of each row's items; -1 is ignored.
inline void mark(Matrix<uint64_t> visited, Matrix<const int32_t> items) {
  detail::require_rows("items", items.rows, visited.rows);
  const size_t limit = visited.cols * 64;
  for (size_t r = 0; r < items.rows; ++r)
    for (size_t i = 0; i < items.cols; ++i) {
      const int32_t item = items.row(r)[i];
      if (item == kPaddingItem) continue;
      if (!detail::in_range(item, limit)) detail::bad_item("items", item, detail::items_below(limit) + ", or -1");
      detail::test_and_set(visited.row(r), static_cast<uint32_t>(item));
    }
}

// Per row: the unvisited neighbours of the frontier in order of first discovery, which become visited.
// At most `threads` threads share the rows.
inline Ragged expand(const Csr& layer, Matrix<uint64_t> visited, Matrix<const int32_t> frontier, size_t threads) {
  detail::require_rows("frontier", frontier.rows, visited.rows);
  detail::require_words("visited", visited.cols, layer.item_count);
  Ragged found{std::vector<std::vector<int32_t>>(frontier.rows)};
  share_rows(frontier.rows, threads, [&] {
    return [&, lists = std::vector<detail::Range>()](size_t r) mutable {
      std::vector<int32_t>& row = found.rows[r];
      lists.reserve(frontier.cols);
      row.resize(detail::find_lists(layer, frontier.row(r), frontier.cols, lists));
      row.resize(detail::collect(layer, lists, visited.row(r), row.data()));
    };
  });
  return found;
}

struct MergeInput {
  Matrix<const int32_t> items;
  Matrix<const float> scores;
  Matrix<const int32_t> new_items;
  Matrix<const float> new_scores;
  Matrix<const int32_t> ef;  // one row
};

struct MergeOutput {
  Matrix<int32_t> items;
  Matrix<float> scores;
  Matrix<bool> is_new;
};

// How many columns a merge's output has. Throws if the input's shapes or ef are invalid.
inline size_t merge_width(const MergeInput& in) {
  const auto same_shape = [](auto left, auto right) { return left.rows == right.rows && left.cols == right.cols; };
  if (!same_shape(in.items, in.scores) || !same_shape(in.new_items, in.new_scores))
    throw std::invalid_argument("items and scores differ in shape; expected one score per item");
  detail::require_rows("new_items", in.new_items.rows, in.items.rows);
  detail::require_rows("ef", in.ef.cols, in.items.rows);
  int32_t widest = 0;
  for (size_t r = 0; r < in.ef.cols; ++r) {
    if (in.ef.data[r] < 1)
      throw std::invalid_argument("ef holds " + std::to_string(in.ef.data[r]) + "; expected at least 1");
    widest = std::max(widest, in.ef.data[r]);
  }
  return std::min(static_cast<size_t>(widest), in.items.cols + in.new_items.cols);
}

namespace detail {

// `merge_top` of one row. `entries` is scratch memory.
inline void merge_row(const MergeInput& in, const MergeOutput& out, size_t r, std::vector<Entry>& entries) {
  const size_t old_cols = in.items.cols, ef = static_cast<size_t>(in.ef.data[r]);
  entries.clear();
  append_entries("items", in.items.row(r), in.scores.row(r), old_cols, 0, ef, entries);
  append_entries("new_items", in.new_items.row(r), in.new_scores.row(r), in.new_items.cols, old_cols, ef, entries);
  const size_t kept = std::min(ef, entries.size());
  if (kept < entries.size()) std::nth_element(entries.begin(), entries.begin() + kept, entries.end());
  std::sort(entries.begin(), entries.begin() + kept);
  for (size_t i = 0; i < kept; ++i) {
    const size_t at = entries[i].position;
    const bool is_new = at >= old_cols;
    out.items.row(r)[i] = is_new ? in.new_items.row(r)[at - old_cols] : in.items.row(r)[at];
    out.scores.row(r)[i] = is_new ? in.new_scores.row(r)[at - old_cols] : in.scores.row(r)[at];
    out.is_new.row(r)[i] = is_new;
  }
  std::fill(out.items.row(r) + kept, out.items.row(r) + out.items.cols, kPaddingItem);
  std::fill(out.scores.row(r) + kept, out.scores.row(r) + out.scores.cols, kPaddingScore);
  std::fill(out.is_new.row(r) + kept, out.is_new.row(r) + out.is_new.cols, false);
}

}  // namespace detail

// Per row: the ef best of items and new_items, best first, padded to merge_width(in) columns.
// At most `threads` threads share the rows.
inline void merge_top(const MergeInput& in, const MergeOutput& out, size_t threads) {
  share_rows(in.items.rows, threads, [&] {
    return [&, entries = std::vector<detail::Entry>()](size_t r) mutable {
      entries.reserve(2 * out.items.cols);
      detail::merge_row(in, out, r, entries);
    };
  });
}

}  // namespace nann
