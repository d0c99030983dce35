// The light scan: the best items by light score, in eight bits, of all that are not blocked. Knows nothing of Python;
// `_kernels.cpp` binds it, `kernels_numpy.py` specifies it.
#pragma once

#include "_kernels_sets.hpp"

namespace nann {

struct ScanInput {
  Matrix<const int8_t> codes;
  Matrix<const int16_t> users;
  Matrix<const uint64_t> blocked;  // a row per user
  Matrix<const int32_t> counts;    // one row
};

struct ScanOutput {
  Matrix<int32_t> items;
  Matrix<int32_t> products;
};

namespace detail {

constexpr size_t kCodeLanes = 16;  // codes are rows of a multiple of this

// `product` of the user's code and the codes of `count` items.
template <typename Product>
NANN_ALWAYS_INLINE void for_codes(Matrix<const int8_t> codes, const int32_t* items, size_t count, int32_t* products,
                                  const Product& product) {
  constexpr size_t kAhead = 16, kLine = 64;
  for (size_t i = 0; i < count; ++i) {
    if (i + kAhead < count)
      for (size_t at = 0; at < codes.cols; at += kLine)
        NANN_PREFETCH(codes.row(static_cast<size_t>(items[i + kAhead])) + at);
    products[i] = product(codes.row(static_cast<size_t>(items[i])));
  }
}

#ifdef NANN_AVX2
// The next function with AVX2, twice as fast as what compilers make of it.
NANN_AVX2 static void code_products(const int16_t* user, Matrix<const int8_t> codes, const int32_t* items, size_t count,
                                    int32_t* products) {
  for_codes(codes, items, count, products, [&](const int8_t* item) NANN_AVX2 {
    __m256i sums = _mm256_setzero_si256();
    for (size_t at = 0; at < codes.cols; at += kCodeLanes) {
      const __m256i numbers = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(item + at)));
      const __m256i others = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(user + at));
      sums = _mm256_add_epi32(sums, _mm256_madd_epi16(numbers, others));
    }
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
  });
}

__attribute__((target("default")))
#endif
// <user, item> in codes of `count` items. Sums fit, as `light_codes.py` chooses the codes; others wrap around.
static void code_products(const int16_t* user, Matrix<const int8_t> codes, const int32_t* items, size_t count,
                          int32_t* products) {
  for_codes(codes, items, count, products, [&](const int8_t* item) {
    uint32_t sum = 0;
    for (size_t at = 0; at < codes.cols; ++at) sum += static_cast<uint32_t>(item[at] * user[at]);
    return static_cast<int32_t>(sum);
  });
}

// Packs (product, item) into one integer that sorts as (-product, item).
inline uint64_t code_key(int32_t product, int32_t item) {
  return uint64_t{0x7fffffffu - static_cast<uint32_t>(product)} << 32 | static_cast<uint32_t>(item);
}

// The reverse of `code_key`.
inline int32_t product_of(uint64_t key) { return static_cast<int32_t>(0x7fffffffu - static_cast<uint32_t>(key >> 32)); }

// Keeps the best of the keys that are added.
class Best {
 public:
  explicit Best(size_t count) : count_(count) {}

  // Items of smaller products are not among the best.
  int32_t least() const { return product_of(worst_); }

  void add(uint64_t key) {
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

// One part of the corpus for all users, block by block: the users share the block's codes in a cache.
class ScanPart {
 public:
  explicit ScanPart(const ScanInput& in) : in_(in) {}

  // Scans the words from `first` to before `last`; `best` has one entry per user.
  void run(size_t first, size_t last, std::vector<Best>& best) {
    constexpr size_t kWords = 64;  // 4,096 items: 256 KB of codes of 64 numbers
    for (size_t start = first; start < last; start += kWords)
      for (size_t user = 0; user < in_.users.rows; ++user)
        if (in_.counts.data[user] > 0) scan_block(user, start, std::min(start + kWords, last), best[user]);
  }

 private:
  void scan_block(size_t user, size_t first, size_t last, Best& best) {
    items_.clear();
    append_allowed(in_.blocked.row(user), first, last, in_.codes.rows, items_);
    products_.resize(items_.size());
    code_products(in_.users.row(user), in_.codes, items_.data(), items_.size(), products_.data());
    for (size_t i = 0; i < items_.size(); ++i)
      if (products_[i] >= best.least()) best.add(code_key(products_[i], items_[i]));
  }

  const ScanInput& in_;
  std::vector<int32_t> items_;
  std::vector<int32_t> products_;
};

inline void check_scan(const ScanInput& in, const ScanOutput& out) {
  if (in.codes.cols % kCodeLanes != 0)
    throw std::invalid_argument("codes has " + std::to_string(in.codes.cols) + " columns; expected a multiple of " +
                                std::to_string(kCodeLanes));
  if (in.users.cols != in.codes.cols)
    throw std::invalid_argument("users has " + std::to_string(in.users.cols) + " columns; expected " +
                                std::to_string(in.codes.cols) + ", as codes");
  require_rows("blocked", in.blocked.rows, in.users.rows);
  require_words("blocked", in.blocked.cols, in.codes.rows);
  require_rows("counts", in.counts.cols, in.users.rows);
  require_rows("items", out.items.rows, in.users.rows);
}

// Writes the `count` best of a user's keys, the best first, padded.
inline void write_best_codes(std::vector<uint64_t>& keys, size_t count, const ScanOutput& out, size_t user) {
  const size_t width = out.items.cols, kept = std::min(count, keys.size());
  const auto end = keys.begin() + static_cast<std::ptrdiff_t>(kept);
  if (kept < keys.size()) std::nth_element(keys.begin(), end, keys.end());
  std::sort(keys.begin(), end);  // smaller keys are better
  for (size_t i = 0; i < width; ++i) {
    out.items.row(user)[i] = i < kept ? static_cast<int32_t>(keys[i] & 0xffffffffu) : kPaddingItem;
    out.products.row(user)[i] = i < kept ? product_of(keys[i]) : std::numeric_limits<int32_t>::min();
  }
}

}  // namespace detail

// How many columns a scan's output has.
inline size_t scan_width(const ScanInput& in) {
  int32_t widest = 0;
  for (size_t user = 0; user < in.counts.cols; ++user) widest = std::max(widest, in.counts.data[user]);
  return static_cast<size_t>(widest);
}

// Per user: the `counts` items that are not blocked with the greatest products, best first, padded. At most `threads`
// threads share the items.
inline void light_scan(const ScanInput& in, const ScanOutput& out, size_t threads) {
  using namespace detail;
  check_scan(in, out);
  const size_t words = (in.codes.rows + 63) / 64, parts = std::min(threads == 1 ? 1 : 4 * threads, words);
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
    write_best_codes(keys, static_cast<size_t>(std::max(in.counts.data[user], 0)), out, user);
  }
}

}  // namespace nann
