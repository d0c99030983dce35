// Preloaded into tritonserver, so that no other user can read the memory that it shares with its Python processes.
//
// Users' histories and answers pass through that memory, in /dev/shm. The Python backend makes its regions with boost,
// which asks for mode 0644 and then repeats it with fchmod, so that the umask has no effect.
#include <sys/mman.h>
#include <sys/stat.h>

#include "_preloaded.hpp"

namespace {

constexpr mode_t kOwner = S_IRWXU;
thread_local int just_opened = -1;

}  // namespace

EXPORTED int shm_open(const char* name, int flags, mode_t mode) {
  static const auto open = replaced<decltype(shm_open)>("shm_open");
  just_opened = open(name, flags, mode & kOwner);
  return just_opened;
}

EXPORTED int fchmod(int file, mode_t mode) noexcept {
  static const auto change = replaced<int(int, mode_t)>("fchmod");
  const bool is_region = file == just_opened;
  just_opened = -1;  // the number may be given to another file
  return change(file, is_region ? mode & kOwner : mode);
}
