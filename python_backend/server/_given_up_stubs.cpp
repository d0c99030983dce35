// Preloaded into tritonserver, so that no Python process ("stub") answers a request that was given up.
//
// The Python backend gives a request up if its stub sent nothing and showed no sign of life for a second
// (StubLauncher::ReceiveMessageFromStub): the process was stopped, frozen, or got no processor. It answers the request
// with an error, frees its memory, and takes the next request. When the stub goes on, it writes into freed memory, and
// its late answer lies in the queue of answers, where the next request takes it for its own. Triton 2.51 does that.
//
// So here a stub ends with the request that was given up. Before the error is made, the stub is killed, and nothing
// that is in its shared memory is waited for any more. The model is loaded again as after any crash
// (stub_supervisor.py).
#include <dirent.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "_preloaded.hpp"

struct TRITONSERVER_Error;

namespace {

constexpr int64_t kFrozenNs = 100 * kMs;
constexpr const char* kSharedMemory = "/dev/shm/";

std::mutex given_up_mutex;
std::vector<Range> given_up;              // shared memory of stubs that were killed
std::atomic<bool> any_given_up{false};    // spares a healthy server the lock
thread_local const void* waited_in_vain;  // the semaphore or lock of this thread's last wait, if its time ran out
thread_local bool talks_to_stub = false;  // whether this thread gives requests to a stub: only these threads wait so

// A new stub's shared memory may lie where that of a killed one was.
void forget(const void* address) {
  if (!any_given_up.load(std::memory_order_acquire)) return;
  const std::lock_guard<std::mutex> lock(given_up_mutex);
  for (size_t i = given_up.size(); i-- > 0;)
    if (given_up[i].holds(address)) given_up.erase(given_up.begin() + static_cast<std::ptrdiff_t>(i));
  any_given_up.store(!given_up.empty(), std::memory_order_release);
}

// The stub that has the name of its shared memory in its command line; 0: there is none.
pid_t find_stub(const std::string& region) {
  DIR* processes = opendir("/proc");
  if (processes == nullptr) return 0;
  pid_t found = 0;
  const std::string wanted = '\0' + region + '\0';
  while (const dirent* entry = readdir(processes)) {
    const pid_t pid = std::atoi(entry->d_name);
    if (pid <= 0) continue;
    std::ostringstream command;
    command << std::ifstream("/proc/" + std::string(entry->d_name) + "/cmdline", std::ios::binary).rdbuf();
    if (command.str().find(wanted) != std::string::npos) found = pid;
  }
  closedir(processes);
  return found;
}

// The process is our child and stays a zombie until the model is unloaded, so its number means no other process.
void kill_and_wait(pid_t stub) {
  kill(stub, SIGKILL);
  for (int waited_ms = 0; waited_ms < 1000; ++waited_ms) {
    siginfo_t info{};
    if (waitid(P_PID, static_cast<id_t>(stub), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != 0) return;
    usleep(1000);
  }
}

void give_up_stub() {
  Range range;
  std::string region;
  const void* address = waited_in_vain;
  waited_in_vain = nullptr;
  if (address == nullptr || !find_region(address, &range, &region) || is_given_up(address)) return;
  {
    const std::lock_guard<std::mutex> lock(given_up_mutex);
    given_up.push_back(range);
    any_given_up.store(true, std::memory_order_release);
  }
  if (const pid_t stub = find_stub(region)) {
    std::fprintf(stderr, "nann: Python process %d stood still and its request was given up; it is killed\n", stub);
    kill_and_wait(stub);
  }
}

// The words with which the backend gives up. Errors that are passed on have more words in front.
bool gives_up(const char* message) {
  static const std::string start = "Stub process ", end = " is not healthy.";
  const std::string words = message;
  if (words == "Failed to obtain the health mutex.") return true;
  return words.size() >= end.size() && words.compare(0, start.size(), start) == 0 &&
         words.compare(words.size() - end.size(), end.size(), end) == 0;
}

int wait_until(sem_t* semaphore, int64_t until_ns) {
  const timespec deadline = to_timespec(until_ns);
  int result;
  do result = sem_clockwait(semaphore, CLOCK_MONOTONIC, &deadline);
  while (result != 0 && errno == EINTR);
  return result;
}

}  // namespace

bool is_given_up(const void* address) {
  if (!any_given_up.load(std::memory_order_acquire)) return false;
  const std::lock_guard<std::mutex> lock(given_up_mutex);
  for (const Range& range : given_up)
    if (range.holds(address)) return true;
  return false;
}

bool find_region(const void* address, Range* range, std::string* name) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long first, end;
    if (std::sscanf(line.c_str(), "%lx-%lx", &first, &end) != 2) continue;
    *range = {first, end};
    const size_t path = line.find(kSharedMemory);
    if (!range->holds(address)) continue;
    if (path == std::string::npos) return false;
    *name = line.substr(path + std::strlen(kSharedMemory));
    *name = name->substr(0, name->find(' '));  // " (deleted)" may follow
    return true;
  }
  return false;
}

EXPORTED int sem_timedwait(sem_t* semaphore, const timespec* deadline) {
  talks_to_stub = true;
  if (is_given_up(semaphore)) {
    errno = ETIMEDOUT;
    return -1;
  }
  // On the monotonic clock, so that setting the machine's clock ends no wait.
  const int64_t left = to_ns(*deadline) - now_ns(CLOCK_REALTIME);
  const int64_t until = now_ns(CLOCK_MONOTONIC) + left;
  int result = wait_until(semaphore, until);
  // If this process stood still too, as in a paused container, the stub had no time to answer.
  const int64_t now = now_ns(CLOCK_MONOTONIC);
  if (result != 0 && errno == ETIMEDOUT && left > 0 && now > until + kFrozenNs)
    result = wait_until(semaphore, now + left);
  waited_in_vain = result != 0 && errno == ETIMEDOUT ? semaphore : nullptr;
  return result;
}

// The backend ends each request, failed ones too, with a message to the stub, and waits for a place in the queue of its
// messages. A dead stub takes none out, so this wait would never end once the queue is full.
EXPORTED int sem_wait(sem_t* semaphore) {
  static const auto real = replaced<decltype(sem_wait)>("sem_wait");
  if (talks_to_stub && is_given_up(semaphore)) return 0;
  return is_for_answers(semaphore) ? wait_for_answer(semaphore) : real(semaphore);
}

EXPORTED int pthread_mutex_timedlock(pthread_mutex_t* mutex, const timespec* deadline) {
  static const auto real = replaced<decltype(pthread_mutex_timedlock)>("pthread_mutex_timedlock");
  const int result = recovered(mutex, real(mutex, deadline));
  if (result == ETIMEDOUT) waited_in_vain = mutex;
  return result;
}

EXPORTED int sem_init(sem_t* semaphore, int shared, unsigned int value) {
  static const auto real = replaced<decltype(sem_init)>("sem_init");
  forget(semaphore);
  begin_queue(semaphore);
  return real(semaphore, shared, value);
}

EXPORTED TRITONSERVER_Error* TRITONSERVER_ErrorNew(int code, const char* message) {
  static const auto real = replaced<decltype(TRITONSERVER_ErrorNew)>("TRITONSERVER_ErrorNew");
  if (gives_up(message)) {
    give_up_stub();
    lose_factories();
  }
  return real(code, message);
}
