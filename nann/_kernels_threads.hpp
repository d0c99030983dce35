// Shares the rows of a batch, one a user, out among threads.
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

// Calls what `make()` returns, one of them a thread, with each row in turn; on this thread and at most `threads` - 1
// more. Rows that follow a failed one may be left out; one of the failures is thrown again.
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
    // No further thread is to be had: those there are share the rows.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace nann
