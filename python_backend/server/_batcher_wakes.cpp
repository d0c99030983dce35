// Preloaded into tritonserver, so that its dynamic batchers see a request that came while the model was busy.
//
// If a queue is bounded, has priorities or a timeout, an arriving request wakes the batcher only if an instance is idle
// at that moment (DynamicBatchScheduler::Enqueue, RateLimiter::PayloadSlotAvailable). Nothing wakes the batcher when
// the instance becomes idle: the request waits for the next one, or for the end of the batcher's own wait of 500 ms.
// Triton 2.51 has this fault; newer releases have fixed it.
//
// The next request of a client that waits for its answers comes so early that it meets this nearly always: the thread
// of an instance sends the answer first, and has something to do then. So this thread wakes the batchers here, as it
// begins to wait for its next batch. To a batcher that is a spurious wake-up, which it must expect anyway. And a wait
// of 500 ms returns every 5 ms, for what is missed, such as a batcher that is not waiting yet.
#include <pthread.h>

#include <cerrno>
#include <cstdint>
#include <ctime>
#include <mutex>
#include <unordered_set>

#include "_preloaded.hpp"

struct TRITONBACKEND_ModelInstance;
struct TRITONSERVER_Error;

namespace {

// The batcher passes an absolute time, and some of the 500 ms may be over already.
constexpr int64_t kLongestNs = 500 * kMs, kShortestNs = 400 * kMs;
constexpr int64_t kInsteadNs = 5 * kMs;

// The end of this thread's last shortened wait, as the batcher asked for it: an idle batcher waits for it again.
thread_local int64_t shortened_until = 0;

// Whether this thread has executed a batch, and not waited since.
thread_local bool has_executed = false;

std::mutex waiting_mutex;
// The conditions on which batchers wait.
std::unordered_set<pthread_cond_t*>& waiting() {
  static auto* all = new std::unordered_set<pthread_cond_t*>;  // never destroyed: threads use it until the process ends
  return *all;
}

}  // namespace

// A backend calls it at the end of each batch.
EXPORTED TRITONSERVER_Error* TRITONBACKEND_ModelInstanceReportBatchStatistics(TRITONBACKEND_ModelInstance* instance,
                                                                              uint64_t batch_size, uint64_t start_ns,
                                                                              uint64_t compute_start_ns,
                                                                              uint64_t compute_end_ns,
                                                                              uint64_t end_ns) {
  static const auto real = replaced<decltype(TRITONBACKEND_ModelInstanceReportBatchStatistics)>(
      "TRITONBACKEND_ModelInstanceReportBatchStatistics");
  has_executed = true;
  return real(instance, batch_size, start_ns, compute_start_ns, compute_end_ns, end_ns);
}

void wake_batchers() {
  if (!has_executed) return;
  has_executed = false;
  const std::lock_guard<std::mutex> lock(waiting_mutex);  // none of them is destroyed meanwhile
  for (pthread_cond_t* condition : waiting()) pthread_cond_signal(condition);
}

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
  {
    const std::lock_guard<std::mutex> lock(waiting_mutex);
    waiting().insert(condition);
  }
  const int result = wait(condition, mutex, clock, &end);
  {
    const std::lock_guard<std::mutex> lock(waiting_mutex);
    waiting().erase(condition);
  }
  return result == ETIMEDOUT ? 0 : result;
}
#endif
