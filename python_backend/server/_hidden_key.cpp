// Preloaded into tritonserver by `hidden_key.py`: passes the admin key to it without showing it in the process list.
//
// Triton takes the key of its restricted endpoints only from the command line, and everybody on a machine can read the
// command line of every process. So the server is started with a placeholder for the key. Before main() runs, this
// constructor reads the key from an inherited pipe, and points the arguments to copies that hold it. /proc/PID/cmdline
// shows the memory of the original arguments, which do not change.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "_preloaded.hpp"

namespace {

// Of the restricted endpoints; set before main().
const char* admin_key = "";

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "nann: the admin key could not be passed to Triton: %s\n", what);
  std::_Exit(1);
}

// Reads and removes a variable: the Python backend's processes inherit the environment, and must not see it.
std::string take(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) fail(name);
  const std::string taken = value;
  unsetenv(name);
  return taken;
}

void leave_preload() {
  const char* preload = std::getenv("LD_PRELOAD");
  const char* rest = preload != nullptr ? std::strchr(preload, ':') : nullptr;  // ours is the first
  if (rest != nullptr)
    setenv("LD_PRELOAD", std::string(rest + 1).c_str(), 1);
  else
    unsetenv("LD_PRELOAD");
}

std::string read_all(int pipe) {
  std::string text;
  char buffer[256];
  for (ssize_t count; (count = read(pipe, buffer, sizeof buffer)) != 0;) {
    if (count > 0)
      text.append(buffer, static_cast<size_t>(count));
    else if (errno != EINTR)
      fail(std::strerror(errno));
  }
  close(pipe);
  return text;
}

// glibc passes the constructors of shared libraries the same argument array that main() gets.
__attribute__((constructor)) void put_key_into_arguments(int argc, char** argv, char**) {
  leave_preload();
  const std::string placeholder = take("NANN_KEY_PLACEHOLDER");
  const std::string key = read_all(std::atoi(take("NANN_KEY_PIPE").c_str()));
  if (key.empty()) fail("the pipe is empty");
  admin_key = strdup(key.c_str());
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    const size_t at = argument.find(placeholder);
    if (at != std::string::npos) argv[i] = strdup(argument.replace(at, placeholder.size(), key).c_str());
  }
}

}  // namespace

bool is_admin_key(const std::string& text) {
  const std::string key = admin_key;
  int difference = text.size() == key.size() ? 0 : 1;
  for (size_t i = 0; i < text.size(); ++i) difference |= text[i] ^ key[i % key.size()];
  return difference == 0;
}
