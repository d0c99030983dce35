// Preloaded into tritonserver: checks the requests that its HTTP and gRPC servers make, before Triton computes with
// them.
//
// - Triton 2.51 multiplies the sizes of a shape without looking for overflow, and its HTTP server allocates the product
//   before it looks at the data: 48 bytes can end a Python process or the server.
// - An element of text may have any size: only the data says how much the Python processes would copy.
// - Its gRPC server unpacks a compressed message to as much as 2 GB.
// - Clients may call the ensemble alone. Its steps trust each other's tensors. Operators may call them over HTTP with
//   the admin key, and `catalog`, which changes what is served, over both protocols. gRPC's metadata come as parameters
//   of the request (--grpc-header-forward-pattern); the key is taken out here, so that no model ever gets it.
//
// It also notes when a request came: its deadline counts from then, although it may wait in a queue.
//
// The calls of models to models (BLS) come from the Python backend's library and pass.
#include <link.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <mutex>
#include <string>
#include <unordered_set>

#include "_preloaded.hpp"

struct TRITONSERVER_BufferAttributes;
struct TRITONSERVER_Error;
struct TRITONSERVER_InferenceRequest;
struct TRITONSERVER_InferenceTrace;
struct TRITONSERVER_Server;
extern "C" TRITONSERVER_Error* TRITONSERVER_ErrorNew(int code, const char* message);
extern "C" TRITONSERVER_Error* TRITONSERVER_InferenceRequestSetIntParameter(TRITONSERVER_InferenceRequest* request,
                                                                            const char* key, int64_t value);
extern "C" TRITONSERVER_Error* TRITONSERVER_BufferAttributesByteSize(TRITONSERVER_BufferAttributes* attributes,
                                                                     size_t* bytes);

namespace {

constexpr int kInvalidArgument = 3;
// A tensor of the largest request that a server with default limits takes has 160,000.
constexpr uint64_t kMostElements = 1 << 22;
// As much as 160,000 of the longest text ids have, each behind its length, and some room.
constexpr size_t kMostBytes = 48 << 20;
constexpr uint64_t kMostUnpacked = 16 << 20;
constexpr const char* kPublicModel = "nann";
constexpr const char* kCatalog = "catalog";
constexpr const char* kArrived = "triton_nann_arrived_ns";
constexpr const char* kAdminMetadata = "triton-grpc-protocol-nann-admin-key";

// The begin of zlib's z_stream, and its Z_DATA_ERROR.
struct Stream {
  const void* next_in;
  unsigned avail_in;
  unsigned long total_in;
  void* next_out;
  unsigned avail_out;
  unsigned long total_out;
};
constexpr int kBadData = -3;

struct Segment {
  uintptr_t first = 0, end = 0;
};

int find_program(dl_phdr_info* info, size_t, void* found) {
  auto* segment = static_cast<Segment*>(found);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type != PT_LOAD || (header.p_flags & PF_X) == 0) continue;
    segment->first = info->dlpi_addr + header.p_vaddr;
    segment->end = segment->first + header.p_memsz;
  }
  return 1;  // the program itself is the first object
}

// Whether the code at this address is tritonserver's own, where the HTTP and gRPC servers are.
bool is_program(const void* address) {
  static const Segment program = [] {
    Segment segment;
    dl_iterate_phdr(find_program, &segment);
    return segment;
  }();
  const auto place = reinterpret_cast<uintptr_t>(address);
  return program.first <= place && place < program.end;
}

bool is_small(const int64_t* shape, uint64_t rank) {
  uint64_t elements = 1;
  for (uint64_t i = 0; i < rank; ++i) {
    if (shape[i] < 0) return false;
    if (shape[i] == 0) continue;
    if (static_cast<uint64_t>(shape[i]) > kMostElements / elements) return false;
    elements *= static_cast<uint64_t>(shape[i]);
  }
  return true;
}

TRITONSERVER_Error* invalid(const std::string& message) {
  return TRITONSERVER_ErrorNew(kInvalidArgument, message.c_str());
}

// Requests to the catalog that have not shown the admin key yet. Nearly always empty, which costs other requests
// nothing.
class Unproven {
 public:
  void add(const void* request) {
    const std::lock_guard<std::mutex> lock(mutex_);
    requests_.insert(request);
    count_ = requests_.size();
  }
  void remove(const void* request) {
    if (count_ == 0) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    requests_.erase(request);
    count_ = requests_.size();
  }
  bool holds(const void* request) {
    if (count_ == 0) return false;
    const std::lock_guard<std::mutex> lock(mutex_);
    return requests_.count(request) != 0;
  }

 private:
  std::mutex mutex_;
  std::unordered_set<const void*> requests_;
  std::atomic<size_t> count_{0};
};

Unproven& unproven() {
  static auto* all = new Unproven;  // never destroyed: threads use it until the process ends
  return *all;
}

TRITONSERVER_Error* too_large(const char* name, size_t bytes) {
  return invalid(std::string(name) + " has " + std::to_string(bytes) + " bytes; expected at most " +
                 std::to_string(kMostBytes));
}

}  // namespace

EXPORTED TRITONSERVER_Error* TRITONSERVER_InferenceRequestAddInput(TRITONSERVER_InferenceRequest* request,
                                                                   const char* name, int dtype, const int64_t* shape,
                                                                   uint64_t rank) {
  static const auto real =
      replaced<decltype(TRITONSERVER_InferenceRequestAddInput)>("TRITONSERVER_InferenceRequestAddInput");
  if (is_program(__builtin_return_address(0)) && !is_small(shape, rank)) {
    std::string sizes;
    for (uint64_t i = 0; i < rank; ++i) sizes += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    return invalid(std::string(name) + " has shape [" + sizes + "]; expected no size below 0, and at most " +
                   std::to_string(kMostElements) + " elements");
  }
  return real(request, name, dtype, shape, rank);
}

EXPORTED TRITONSERVER_Error* TRITONSERVER_InferenceRequestAppendInputData(TRITONSERVER_InferenceRequest* request,
                                                                          const char* name, const void* base,
                                                                          size_t bytes, int memory_type,
                                                                          int64_t memory_id) {
  static const auto real =
      replaced<decltype(TRITONSERVER_InferenceRequestAppendInputData)>("TRITONSERVER_InferenceRequestAppendInputData");
  if (is_program(__builtin_return_address(0)) && bytes > kMostBytes) return too_large(name, bytes);
  return real(request, name, base, bytes, memory_type, memory_id);
}

EXPORTED TRITONSERVER_Error* TRITONSERVER_InferenceRequestAppendInputDataWithBufferAttributes(
    TRITONSERVER_InferenceRequest* request, const char* name, const void* base,
    TRITONSERVER_BufferAttributes* attributes) {
  static const auto real = replaced<decltype(TRITONSERVER_InferenceRequestAppendInputDataWithBufferAttributes)>(
      "TRITONSERVER_InferenceRequestAppendInputDataWithBufferAttributes");
  size_t bytes = 0;
  if (is_program(__builtin_return_address(0)) && TRITONSERVER_BufferAttributesByteSize(attributes, &bytes) == nullptr &&
      bytes > kMostBytes)
    return too_large(name, bytes);
  return real(request, name, base, attributes);
}

EXPORTED TRITONSERVER_Error* TRITONSERVER_InferenceRequestNew(TRITONSERVER_InferenceRequest** request,
                                                              TRITONSERVER_Server* server, const char* model,
                                                              int64_t version) {
  static const auto real = replaced<decltype(TRITONSERVER_InferenceRequestNew)>("TRITONSERVER_InferenceRequestNew");
  if (!is_program(__builtin_return_address(0)) || std::strcmp(model, kPublicModel) == 0 || http_request_has_key)
    return real(request, server, model, version);
  if (std::strcmp(model, kCatalog) != 0)
    return invalid("model " + std::string(model) + " can't be called from outside; send requests to " + kPublicModel);
  TRITONSERVER_Error* error = real(request, server, model, version);
  if (error == nullptr) unproven().add(*request);
  return error;
}

EXPORTED TRITONSERVER_Error* TRITONSERVER_InferenceRequestSetStringParameter(TRITONSERVER_InferenceRequest* request,
                                                                             const char* key, const char* value) {
  static const auto real = replaced<decltype(TRITONSERVER_InferenceRequestSetStringParameter)>(
      "TRITONSERVER_InferenceRequestSetStringParameter");
  if (!is_program(__builtin_return_address(0)) || std::strcmp(key, kAdminMetadata) != 0)
    return real(request, key, value);
  if (is_admin_key(value)) unproven().remove(request);
  return nullptr;
}

EXPORTED TRITONSERVER_Error* TRITONSERVER_InferenceRequestDelete(TRITONSERVER_InferenceRequest* request) {
  static const auto real =
      replaced<decltype(TRITONSERVER_InferenceRequestDelete)>("TRITONSERVER_InferenceRequestDelete");
  unproven().remove(request);
  return real(request);
}

EXPORTED TRITONSERVER_Error* TRITONSERVER_ServerInferAsync(TRITONSERVER_Server* server,
                                                           TRITONSERVER_InferenceRequest* request,
                                                           TRITONSERVER_InferenceTrace* trace) {
  static const auto real = replaced<decltype(TRITONSERVER_ServerInferAsync)>("TRITONSERVER_ServerInferAsync");
  if (unproven().holds(request))
    return invalid(std::string("model ") + kCatalog +
                   " was called without the admin key, or with another one; it belongs in the HTTP header "
                   "nann-admin-key, or in the gRPC metadata " +
                   kAdminMetadata);
  if (is_program(__builtin_return_address(0))) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);  // what Python's time.monotonic_ns reads
    const int64_t now_ns = static_cast<int64_t>(now.tv_sec) * 1000000000 + now.tv_nsec;
    if (TRITONSERVER_Error* error = TRITONSERVER_InferenceRequestSetIntParameter(request, kArrived, now_ns))
      return error;
  }
  return real(server, request, trace);
}

// zlib's. Both servers unpack with it; the HTTP guard lets no compressed body pass.
EXPORTED int inflate(Stream* stream, int flush) {
  static const auto real = replaced<decltype(inflate)>("inflate");
  return stream->total_out > kMostUnpacked ? kBadData : real(stream, flush);
}
