// Preloaded into tritonserver, so that its dynamic batchers see a request that came while the model was busy.
//
// If a queue is bounded, has priorities or a timeout, an arriving request wakes the batcher only if an instance is idle
// at that moment (DynamicBatchScheduler::Enqueue, RateLimiter::PayloadSlotAvailable). Nothing wakes the batcher when
// the instance becomes idle: the request waits for the next one, or for the end of the batcher's own wait of 500 ms.
// Triton 2.51 has this fault; newer releases have fixed it.
//
// So a wait of 500 ms returns every 5 ms here. To the batcher that is a spurious wake-up, which it must expect anyway.
#include <pthread.h>

#include <cerrno>
#include <cstdint>
#include <ctime>

#include "_preloaded.hpp"

namespace {

// The batcher passes an absolute time, and some of the 500 ms may be over already.
constexpr int64_t kLongestNs = 500 * kMs, kShortestNs = 400 * kMs;
constexpr int64_t kInsteadNs = 5 * kMs;

// The end of this thread's last shortened wait, as the batcher asked for it: an idle batcher waits for it again.
thread_local int64_t shortened_until = 0;

}  // namespace

#if defined(__GLIBC__)  // before 2.30 it has no such function, and Triton runs on no other libc
// What std::condition_variable::wait_for calls.
EXPORTED int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                                    const timespec* deadline) {
  static const auto wait = replaced<decltype(pthread_cond_clockwait)>("pthread_cond_clockwait");
  const int64_t now = now_ns(clock), until = to_ns(*deadline), left = until - now;
  const bool is_batchers = (kShortestNs < left && left <= kLongestNs) || until == shortened_until;
  if (!is_batchers || left <= kInsteadNs) return wait(condition, mutex, clock, deadline);
  shortened_until = until;
  const timespec end = to_timespec(now + kInsteadNs);
  const int result = wait(condition, mutex, clock, &end);
  return result == ETIMEDOUT ? 0 : result;
}
#endif
