// Preloaded into tritonserver, so that a model whose Python process ("stub") died can be unloaded.
//
// The backend makes a response factory for each request, and deletes it when the stub says that it needs it no more. A
// dead stub says nothing: the factory stays, and with it the model that it belongs to, with about 36 threads, its
// shared memory and the zombie of its stub, for every restart. Triton 2.51 does that.
//
// So the factories of a stub that was given up (_given_up_stubs.cpp) are deleted here. A word of the stub may still be
// on its way, and then the memory of the factory must not be that of another one: they are deleted some seconds later.
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "_preloaded.hpp"

struct TRITONBACKEND_ResponseFactory;
struct TRITONBACKEND_Request;
struct TRITONSERVER_Error;

namespace {

using Factory = TRITONBACKEND_ResponseFactory;
using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kLateWords(5);

std::mutex mutex;
struct State {
  std::unordered_map<Factory*, std::thread::id> used;    // by the thread that executes the requests of one stub
  std::unordered_map<Factory*, Clock::time_point> lost;  // and since when
};
State& state() {
  static auto* all = new State;  // never destroyed: threads use it until the process ends
  return *all;
}
std::atomic<bool> any_lost{false};

TRITONSERVER_Error* really_delete(Factory* factory) {
  static const auto real = replaced<TRITONSERVER_Error*(Factory*)>("TRITONBACKEND_ResponseFactoryDelete");
  return real(factory);
}

void delete_lost() {
  std::vector<Factory*> due;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    auto& lost = state().lost;
    for (auto entry = lost.begin(); entry != lost.end();) {
      const bool is_due = Clock::now() - entry->second > kLateWords;
      if (is_due) due.push_back(entry->first);
      entry = is_due ? lost.erase(entry) : std::next(entry);
    }
    any_lost = !lost.empty();
  }
  for (Factory* factory : due) really_delete(factory);  // may begin to unload the model, in another thread
}

}  // namespace

void lose_factories() {
  const std::lock_guard<std::mutex> lock(mutex);
  auto& [used, lost] = state();
  for (auto entry = used.begin(); entry != used.end();) {
    const bool is_ours = entry->second == std::this_thread::get_id();
    if (is_ours) lost.emplace(entry->first, Clock::now());
    entry = is_ours ? used.erase(entry) : std::next(entry);
  }
  any_lost = !lost.empty();
}

EXPORTED TRITONSERVER_Error* TRITONBACKEND_ResponseFactoryNew(Factory** factory, TRITONBACKEND_Request* request) {
  static const auto real =
      replaced<TRITONSERVER_Error*(Factory**, TRITONBACKEND_Request*)>("TRITONBACKEND_ResponseFactoryNew");
  if (any_lost) delete_lost();
  TRITONSERVER_Error* const error = real(factory, request);
  if (error == nullptr) {
    const std::lock_guard<std::mutex> lock(mutex);
    state().used[*factory] = std::this_thread::get_id();
  }
  return error;
}

EXPORTED TRITONSERVER_Error* TRITONBACKEND_ResponseFactoryDelete(Factory* factory) {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    state().used.erase(factory);
    state().lost.erase(factory);
  }
  return really_delete(factory);
}
