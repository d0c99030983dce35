// Rows of candidates, for a scorer that gets them with the call.
#pragma once

#include "_kernels.hpp"

namespace nann {

struct RowsInput {
  Matrix<const float> base;   // rows of items 0..N-1
  Matrix<const float> delta;  // rows of items N..N+D-1
  Matrix<const int32_t> items;
};

namespace detail {

inline const float* row_of(const RowsInput& in, size_t item) {
  return item < in.base.rows ? in.base.row(item) : in.delta.row(item - in.base.rows);
}

inline void prefetch_row(const RowsInput& in, int32_t item, size_t item_count) {
  constexpr size_t kLine = 64 / sizeof(float);
  if (!in_range(item, item_count)) return;
  const float* row = row_of(in, static_cast<size_t>(item));
  for (size_t at = 0; at < in.base.cols; at += kLine) NANN_PREFETCH(row + at);
}

}  // namespace detail

// Copies the row of each item to `out`, which has one row per item; -1 gets zeros. At most `threads` threads share
// them.
inline void gather_rows(const RowsInput& in, Matrix<float> out, size_t threads) {
  constexpr size_t kAhead = 4, kShare = 256;  // items ahead whose rows are under way; items that a thread takes at once
  if (in.delta.cols != in.base.cols)
    throw std::invalid_argument("delta has " + std::to_string(in.delta.cols) + " columns; expected " +
                                std::to_string(in.base.cols) + ", as base");
  const size_t item_count = in.base.rows + in.delta.rows, count = in.items.rows * in.items.cols;
  share_rows((count + kShare - 1) / kShare, threads, [&] {
    return [&](size_t part) {
      const size_t stop = std::min(count, (part + 1) * kShare);
      for (size_t i = part * kShare; i < stop; ++i) {
        if (i + kAhead < stop) detail::prefetch_row(in, in.items.data[i + kAhead], item_count);
        const int32_t item = in.items.data[i];
        if (item == kPaddingItem) {
          std::fill_n(out.row(i), out.cols, 0.0f);
          continue;
        }
        if (!detail::in_range(item, item_count))
          detail::bad_item("items", item, detail::items_below(item_count) + ", or -1");
        std::copy_n(detail::row_of(in, static_cast<size_t>(item)), out.cols, out.row(i));
      }
    };
  });
}

}  // namespace nann
