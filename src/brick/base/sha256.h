// SHA-256 (OpenSSL), for the provenance of artifacts.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace brick {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  Sha256& update(std::span<const std::byte> bytes);
  Sha256& update(std::string_view text);
  std::string hex();  // 64 lower-case digits; the object is spent

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace brick
