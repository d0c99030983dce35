// What the parts of the preloaded library share.
#pragma once

#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>

#include <cerrno>
#include <cstdint>
#include <ctime>
#include <string>

#define EXPORTED extern "C" __attribute__((visibility("default")))

// The function that a function of the same name here stands in for.
template <typename Function>
Function* replaced(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

constexpr int64_t kMs = 1'000'000, kSecond = 1000 * kMs;  // in nanoseconds

inline int64_t to_ns(const timespec& time) { return time.tv_sec * kSecond + time.tv_nsec; }

inline timespec to_timespec(int64_t ns) { return {static_cast<time_t>(ns / kSecond), static_cast<long>(ns % kSecond)}; }

inline int64_t now_ns(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return to_ns(time);
}

// When a thread that waits for a stub looks next whether the stub lives, on the monotonic clock.
inline timespec next_look() { return to_timespec(now_ns(CLOCK_MONOTONIC) + 100 * kMs); }

// What taking a lock returned, if a lock whose owner died is taken as any other (`_dead_owners.cpp`).
inline int recovered(pthread_mutex_t* mutex, int result) {
  return result == EOWNERDEAD ? pthread_mutex_consistent(mutex) : result;
}

// Whether a text is the admin key, found in a time that does not tell how much of it is right (`_hidden_key.cpp`).
bool is_admin_key(const std::string& text);

// Whether the HTTP request that this thread has read last carries the key; `_http_guard.cpp` sets it.
extern thread_local bool http_request_has_key;

// A part of the memory of this process.
struct Range {
  uintptr_t first, end;
  bool holds(const void* address) const {
    const auto place = reinterpret_cast<uintptr_t>(address);
    return first <= place && place < end;
  }
};

// Where the shared memory that holds the address is mapped; `name` becomes its name below /dev/shm.
bool find_region(const void* address, Range* range, std::string* name);

// Whether the address lies in the shared memory of a stub that was killed (`_given_up_stubs.cpp`).
bool is_given_up(const void* address);

// Says that the stub to which this thread gives requests is dead (`_lost_factories.cpp`).
void lose_factories();

// Says that this thread begins to wait; if it has just executed a batch, it is idle now (`_batcher_wakes.cpp`).
void wake_batchers();

// Says that this thread makes a queue, and so loads a model.
void begin_queue(const void* semaphore);

// Whether the backend waits in this semaphore for a stub that loads or ends its model; how it waits then.
bool is_for_answers(const void* semaphore);
int wait_for_answer(sem_t* semaphore);
