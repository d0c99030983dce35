// Preloaded into tritonserver: refuses HTTP requests that would take it down before Triton's HTTP server sees them.
//
// Triton 2.51 parses JSON by recursion, to any depth, and reads or unpacks bodies of any size into memory. One request
// with 100,000 brackets, or a small gzip of half a gigabyte, ends the process. So what Triton reads from its HTTP
// connections is followed here: head, length of the body, depth of its JSON. A request that is refused gets an answer
// that says why, and its connection is closed.
//
// The rules for a head are stricter than Triton's, so that both always agree on where a body begins and ends.
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>

#include "_preloaded.hpp"

thread_local bool http_request_has_key = false;

namespace {

constexpr size_t kMostHead = 64 << 10;
constexpr uint64_t kMostBody = 16 << 20;
constexpr int kDeepest = 32;
constexpr const char* kLength = "content-length";
constexpr const char* kJsonLength = "inference-header-content-length";
constexpr const char* kEncoding = "content-encoding";
constexpr const char* kChunks = "transfer-encoding";
constexpr const char* kAdminHeader = "nann-admin-key";

struct Refusal {
  const char* status;
  const char* why;
};

constexpr Refusal kBadHead{"400 Bad Request", "the head of the request is not plain HTTP/1.1"};
constexpr Refusal kLongHead{"431 Request Header Fields Too Large", "the head of the request exceeds 64 KiB"};
constexpr Refusal kNoLength{"411 Length Required", "the body comes in chunks; send it with a Content-Length"};
constexpr Refusal kTooLarge{"413 Content Too Large", "the body exceeds 16 MiB"};
constexpr Refusal kCompressed{"415 Unsupported Media Type", "the body is compressed; send it as it is"};
constexpr Refusal kTooDeep{"400 Bad Request", "the JSON is nested more than 32 levels deep"};

// Follows the requests of one connection.
class Connection {
 public:
  bool has_key = false;
  bool refused = false;

  // Takes what was read. Returns why the request must be refused, or nullptr.
  const Refusal* feed(const char* data, size_t size) {
    while (size > 0) {
      size_t taken = 1;
      if (body_left_ > 0) {
        taken = static_cast<size_t>(std::min<uint64_t>(body_left_, size));
        const auto json = static_cast<size_t>(std::min<uint64_t>(json_left_, taken));
        if (!is_shallow(data, json)) return &kTooDeep;
        body_left_ -= taken;
        json_left_ -= json;
      } else {
        const bool follows_return = !head_.empty() && head_.back() == '\r';
        if ((*data == '\n') != follows_return || *data == '\0') return &kBadHead;  // lines end with \r\n
        head_ += *data;
        if (head_.size() > kMostHead) return &kLongHead;
        if (head_ == "\r\n") head_.clear();  // an empty line before a request means nothing
        if (ends_head()) {
          if (const Refusal* refusal = read_head()) return refusal;
          head_.clear();
        }
      }
      data += taken;
      size -= taken;
    }
    return nullptr;
  }

 private:
  bool ends_head() const { return head_.size() > 4 && head_.compare(head_.size() - 4, 4, "\r\n\r\n") == 0; }

  const Refusal* read_head() {
    std::map<std::string, std::string> fields;
    size_t at = head_.find('\n') + 1;  // after the request line
    const std::string target = head_.substr(0, std::min(head_.find('?'), head_.rfind(" HTTP/", at)));
    while (at < head_.size() - 2) {
      const size_t end = head_.find('\n', at) + 1, colon = head_.find(':', at);
      if (colon >= end || colon == at) return &kBadHead;
      std::string name = head_.substr(at, colon - at);
      for (char& letter : name) {
        if (letter <= ' ' || letter > '~') return &kBadHead;  // also a line that continues the one before
        if ('A' <= letter && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
      }
      std::string value = head_.substr(colon + 1, end - 2 - colon - 1);
      value.erase(0, value.find_first_not_of(" \t"));
      value.erase(value.find_last_not_of(" \t") + 1);
      if (!fields.emplace(name, value).second && decides(name)) return &kBadHead;
      at = end;
    }
    // Only this endpoint has tensors behind its JSON.
    const bool infers = target.size() > 6 && target.compare(target.size() - 6, 6, "/infer") == 0;
    return take(fields, infers);
  }

  static bool decides(const std::string& name) {
    return name == kLength || name == kJsonLength || name == kEncoding || name == kChunks || name == kAdminHeader;
  }

  const Refusal* take(const std::map<std::string, std::string>& fields, bool infers) {
    const auto value = [&fields](const char* name) {
      const auto found = fields.find(name);
      return found == fields.end() ? std::string() : found->second;
    };
    if (fields.count(kChunks) != 0) return &kNoLength;
    if (const std::string encoding = value(kEncoding); !encoding.empty() && encoding != "identity") return &kCompressed;
    body_left_ = 0;
    if (fields.count(kLength) != 0 && !read_number(value(kLength), &body_left_)) return &kBadHead;
    json_left_ = body_left_;
    if (infers && fields.count(kJsonLength) != 0 && !read_number(value(kJsonLength), &json_left_)) return &kBadHead;
    if (body_left_ > kMostBody) return &kTooLarge;
    if (json_left_ > body_left_) return &kBadHead;
    has_key = is_admin_key(value(kAdminHeader));
    depth_ = 0;
    in_text_ = escaped_ = false;
    return nullptr;
  }

  static bool read_number(const std::string& text, uint64_t* number) {
    if (text.empty() || text.size() > 15 || text.find_first_not_of("0123456789") != std::string::npos) return false;
    *number = std::stoull(text);
    return true;
  }

  bool is_shallow(const char* json, size_t size) {
    for (size_t i = 0; i < size; ++i) {
      if (escaped_)
        escaped_ = false;
      else if (in_text_)
        in_text_ = json[i] != '"', escaped_ = json[i] == '\\';
      else if (json[i] == '"')
        in_text_ = true;
      else if (json[i] == '[' || json[i] == '{')
        ++depth_;
      else if (json[i] == ']' || json[i] == '}')
        --depth_;
      if (depth_ > kDeepest) return false;
    }
    return true;
  }

  std::string head_;
  uint64_t body_left_ = 0, json_left_ = 0;
  int depth_ = 0;
  bool in_text_ = false, escaped_ = false;
};

std::mutex connections_mutex;
std::unordered_map<int, Connection>& connections() {
  static auto* all = new std::unordered_map<int, Connection>;  // never destroyed: threads use it until the process ends
  return *all;
}

Connection* connection_of(int socket) {
  const std::lock_guard<std::mutex> lock(connections_mutex);
  const auto found = connections().find(socket);
  return found == connections().end() ? nullptr : &found->second;
}

int begin_connection(int socket) {
  if (socket >= 0) {
    const std::lock_guard<std::mutex> lock(connections_mutex);
    connections()[socket] = Connection();
  }
  return socket;
}

// Says why and sends nothing more. What the client still sends is read and dropped, so that it can read the answer.
void refuse(int socket, const Refusal& refusal) {
  const std::string body = std::string("{\"error\":\"") + refusal.why + "\"}";
  const std::string answer =
      std::string("HTTP/1.1 ") + refusal.status +
      "\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size()) +
      "\r\n\r\n" + body;
  send(socket, answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  shutdown(socket, SHUT_WR);
}

}  // namespace

EXPORTED int accept4(int listening, sockaddr* address, socklen_t* size, int flags) {
  static const auto real = replaced<decltype(accept4)>("accept4");
  return begin_connection(real(listening, address, size, flags));
}

EXPORTED int accept(int listening, sockaddr* address, socklen_t* size) {
  static const auto real = replaced<decltype(accept)>("accept");
  return begin_connection(real(listening, address, size));
}

// What Triton's HTTP servers read with; its gRPC server does not.
EXPORTED ssize_t readv(int socket, const iovec* parts, int count) {
  static const auto real = replaced<decltype(readv)>("readv");
  const ssize_t size = real(socket, parts, count);
  Connection* connection = size > 0 ? connection_of(socket) : nullptr;
  if (connection == nullptr) return size;
  auto left = static_cast<size_t>(size);
  for (int i = 0; i < count && left > 0 && !connection->refused; ++i) {
    const size_t length = std::min(left, parts[i].iov_len);
    left -= length;
    if (const Refusal* refusal = connection->feed(static_cast<const char*>(parts[i].iov_base), length)) {
      connection->refused = true;
      refuse(socket, *refusal);
    }
  }
  http_request_has_key = connection->has_key && !connection->refused;
  if (!connection->refused) return size;
  errno = EAGAIN;
  return -1;
}
