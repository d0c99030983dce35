// What the parts of the preloaded library share.
#pragma once

#include <dlfcn.h>

#define EXPORTED extern "C" __attribute__((visibility("default")))

// The function that a function of the same name here stands in for.
template <typename Function>
Function* replaced(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// Key of the restricted endpoints; `_hidden_key.cpp` sets it before main().
extern const char* admin_key;

// Whether the HTTP request that this thread has read last carries the key; `_http_guard.cpp` sets it.
extern thread_local bool http_request_has_key;
