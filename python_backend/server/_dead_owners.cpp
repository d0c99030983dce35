// Preloaded into tritonserver, so that it survives a Python process ("stub") that dies while it holds a lock.
//
// The locks in the shared memory of a stub are robust mutexes: who takes one whose owner died has it, and is told so
// (EOWNERDEAD). Boost takes that for a failure and throws, in threads that catch nothing, so tritonserver aborts.
// Triton 2.51 does that. Here the lock is taken as any other. What it protects is read no more than needed to end the
// requests of the dead stub: the model is loaded again with new shared memory (stub_supervisor.py).
//
// Nor does a dead stub wake anybody. The threads of its scorer calls would wait until their memory is gone, which ends
// tritonserver too, so they go on once the stub was given up, as if woken for no reason (_given_up_stubs.cpp).
#include <pthread.h>

#include <cerrno>
#include <ctime>

#include "_preloaded.hpp"

namespace {

constexpr int kRobust = 16;  // in the kind of a mutex: PTHREAD_MUTEX_ROBUST_NORMAL_NP of glibc

bool lies_in_shared_memory(const pthread_mutex_t* mutex) { return (mutex->__data.__kind & kRobust) != 0; }

}  // namespace

EXPORTED int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  static const auto real = replaced<int(pthread_mutex_t*) noexcept>("pthread_mutex_lock");
  return recovered(mutex, real(mutex));
}

EXPORTED int pthread_mutex_trylock(pthread_mutex_t* mutex) noexcept {
  static const auto real = replaced<int(pthread_mutex_t*) noexcept>("pthread_mutex_trylock");
  return recovered(mutex, real(mutex));
}

EXPORTED int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) {
  static const auto real = replaced<decltype(pthread_cond_wait)>("pthread_cond_wait");
  static const auto wait_until = replaced<decltype(pthread_cond_clockwait)>("pthread_cond_clockwait");
  if (!lies_in_shared_memory(mutex)) {
    wake_batchers();
    return real(condition, mutex);
  }
  for (;;) {
    const timespec look = next_look();
    const int result = recovered(mutex, wait_until(condition, mutex, CLOCK_MONOTONIC, &look));
    if (result != ETIMEDOUT) return result;
    if (is_given_up(mutex)) return 0;
  }
}

EXPORTED int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex, const timespec* deadline) {
  static const auto real = replaced<decltype(pthread_cond_timedwait)>("pthread_cond_timedwait");
  return recovered(mutex, real(condition, mutex, deadline));
}
