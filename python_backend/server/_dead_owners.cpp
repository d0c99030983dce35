// Preloaded into tritonserver, so that it survives a Python process ("stub") that dies while it holds a lock.
//
// The locks in the shared memory of a stub are robust mutexes: who takes one whose owner died has it, and is told so
// (EOWNERDEAD). Boost takes that for a failure and throws, in threads that catch nothing, so tritonserver aborts.
// Triton 2.51 does that. Here the lock is taken as any other. What it protects is read no more than needed to end the
// requests of the dead stub: the model is loaded again with new shared memory (stub_supervisor.py).
#include <pthread.h>

#include <ctime>

#include "_preloaded.hpp"

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
  return recovered(mutex, real(condition, mutex));
}

EXPORTED int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex, const timespec* deadline) {
  static const auto real = replaced<decltype(pthread_cond_timedwait)>("pthread_cond_timedwait");
  return recovered(mutex, real(condition, mutex, deadline));
}
