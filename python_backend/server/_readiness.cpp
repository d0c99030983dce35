// Preloaded into tritonserver: the server is ready while the ensemble, the model that clients ask, is.
//
// By itself Triton is not ready while any version of any model loads, and never again after one did not load, although
// the current version answers all the time. A deploy, or one that fails, would take a healthy server out of service.
//
// And Triton does not know of a Python process that died or hangs. `nann serve` makes the file that NANN_NOT_READY_FILE
// names while one of the version that answers is away.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

#include "_preloaded.hpp"

namespace {

constexpr const char* kEnsemble = "nann";
constexpr int64_t kAnyVersion = -1;

}  // namespace

// Both protocols ask for readiness here. Returns Triton's error object, or nullptr.
EXPORTED void* TRITONSERVER_ServerIsReady(void* server, bool* ready) {
  static const char* const not_ready_file = std::getenv("NANN_NOT_READY_FILE");
  if (not_ready_file != nullptr && access(not_ready_file, F_OK) == 0) {
    *ready = false;
    return nullptr;
  }
  using ModelIsReady = void* (*)(void*, const char*, int64_t, bool*);
  static const auto model_is_ready =
      reinterpret_cast<ModelIsReady>(dlsym(RTLD_DEFAULT, "TRITONSERVER_ServerModelIsReady"));
  return model_is_ready(server, kEnsemble, kAnyVersion, ready);
}
