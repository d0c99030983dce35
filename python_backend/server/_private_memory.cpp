// Preloaded into tritonserver, so that no other user can read the memory that it shares with its Python processes.
//
// Users' histories and answers pass through that memory, in /dev/shm. The Python backend makes its regions with boost,
// which asks for mode 0644 and then repeats it with fchmod, so that the umask has no effect.
#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/stat.h>

namespace {

constexpr mode_t kOwner = S_IRWXU;
thread_local int just_opened = -1;

}  // namespace

extern "C" __attribute__((visibility("default"))) int shm_open(const char* name, int flags, mode_t mode) {
  static const auto open = reinterpret_cast<decltype(&shm_open)>(dlsym(RTLD_NEXT, "shm_open"));
  just_opened = open(name, flags, mode & kOwner);
  return just_opened;
}

extern "C" __attribute__((visibility("default"))) int fchmod(int file, mode_t mode) noexcept {
  static const auto change = reinterpret_cast<int (*)(int, mode_t)>(dlsym(RTLD_NEXT, "fchmod"));
  const bool is_region = file == just_opened;
  just_opened = -1;  // the number may be given to another file
  return change(file, is_region ? mode & kOwner : mode);
}
