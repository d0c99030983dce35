// Shares the rows of a batch, one per user, among threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace nann {

// At most `threads` threads, this one included, call `make()` once each, then its result with one row after another.
// After an exception rows may be skipped; one of the exceptions is thrown again.
template <typename Make>
void share_rows(size_t rows, size_t threads, const Make& make) {
  std::atomic<size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&] {
    try {
      auto each = make();
      for (size_t row; (row = next++) < rows;) each(row);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(failure_mutex);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> helpers;
  const size_t wanted = std::min(threads, rows);
  try {
    for (size_t i = 1; i < wanted; ++i) helpers.emplace_back(work);
  } catch (const std::system_error&) {
    // The system gives no further thread: those that started share the rows.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace nann
