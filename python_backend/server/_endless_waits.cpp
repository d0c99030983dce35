// Preloaded into tritonserver, so that it does not wait for a Python process ("stub") that is gone.
//
// The Python backend waits without limit while a stub loads its model, and while it ends it (StubLauncher::Launch and
// TerminateStub). If the stub is killed at that moment, the version is loading or unloading for good, and every later
// load of the model waits for it: no deploy and no rollback works until a restart. Triton 2.51 does that.
//
// Such a wait is one for the queue in which the stub answers. Here it ends with the stub. The backend then reads a
// message that is none: a load fails with "Received unexpected response", and the end of a model does not look at it.
#include <pthread.h>
#include <semaphore.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <mutex>
#include <string>
#include <unordered_map>

#include "_preloaded.hpp"

namespace {

// MessageQueueShm of the backend's message_queue.h, in the shared memory of a stub.
struct Queue {
  sem_t empty, full;
  pthread_mutex_t mutex;
  uint64_t size;
  int64_t buffer;  // handle: where in the shared memory a reference count is and, after it, the handles of messages
  int tail, head;
};
constexpr uint64_t kLongestQueue = 1 << 20;
constexpr uintptr_t kAlignment = 16;  // of what is allocated in the shared memory

std::mutex stubs_mutex;
// The stub that answers in the queue of each semaphore.
std::unordered_map<const void*, pid_t>& stubs() {
  static auto* all =
      new std::unordered_map<const void*, pid_t>;  // never destroyed: threads use it until the process ends
  return *all;
}
// A thread that loads a model makes the queues of a stub, starts the stub, and waits for its answer alone.
thread_local bool loads_model = false;
thread_local pid_t started = 0;

pid_t stub_of(const void* semaphore) {
  const std::lock_guard<std::mutex> lock(stubs_mutex);
  const auto found = stubs().find(semaphore);
  return found == stubs().end() ? 0 : found->second;
}

// Whether our child ended; it stays a zombie until the backend waits for it.
bool has_ended(pid_t stub) {
  siginfo_t info{};
  return waitid(P_PID, static_cast<id_t>(stub), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != 0;
}

// Puts a handle into the queue, that of its own buffer: it is valid, and no message.
bool put_no_message(sem_t* full, const Range& region) {
  char* const bytes = reinterpret_cast<char*>(full) - offsetof(Queue, full);
  const auto* const queue = reinterpret_cast<const Queue*>(bytes);
  if (!region.holds(bytes) || !region.holds(bytes + sizeof(Queue) - 1)) return false;
  const auto size = static_cast<int64_t>(queue->size), length = static_cast<int64_t>(region.end - region.first);
  if (queue->size == 0 || queue->size > kLongestQueue || queue->head < 0 || queue->head >= size) return false;
  const uintptr_t count = reinterpret_cast<uintptr_t>(bytes) % kAlignment;  // bytes of the reference count
  const int64_t first = queue->buffer + static_cast<int64_t>(count != 0 ? count : kAlignment);
  const int64_t place = first + queue->head * static_cast<int64_t>(sizeof(int64_t));
  if (queue->buffer <= 0 || place + static_cast<int64_t>(sizeof(int64_t)) > length) return false;
  *reinterpret_cast<int64_t*>(region.first + static_cast<uintptr_t>(place)) = queue->buffer;
  return true;
}

}  // namespace

void begin_queue(const void* semaphore) {
  loads_model = true;
  started = 0;
  const std::lock_guard<std::mutex> lock(stubs_mutex);
  stubs().erase(semaphore);  // a new one may lie where an old one was
}

bool is_for_answers(const void* semaphore) {
  const std::lock_guard<std::mutex> lock(stubs_mutex);
  if (started != 0) stubs()[semaphore] = started;
  return stubs().count(semaphore) != 0;
}

EXPORTED pid_t fork() noexcept {
  static const auto real = replaced<pid_t() noexcept>("fork");
  const pid_t child = real();
  if (loads_model && child > 0) started = child;
  return child;
}

int wait_for_answer(sem_t* semaphore) {
  static const auto real = replaced<decltype(sem_wait)>("sem_wait");
  if (sem_trywait(semaphore) == 0) return 0;
  const pid_t stub = stub_of(semaphore);
  Range range;
  std::string region;
  if (!find_region(semaphore, &range, &region) || stub == 0) return real(semaphore);
  for (;;) {
    const timespec look = next_look();
    const int result = sem_clockwait(semaphore, CLOCK_MONOTONIC, &look);
    if (result == 0 || errno != ETIMEDOUT) return result;
    if (!has_ended(stub)) continue;
    if (sem_trywait(semaphore) == 0) return 0;  // it answered, then it ended
    return put_no_message(semaphore, range) ? 0 : real(semaphore);
  }
}
