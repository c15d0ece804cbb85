// The one exception type, and the helpers that turn the C ABI's statuses into it.
#pragma once

#include "config.hpp"

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {

// An operation that failed. what() says what failed, where, and what to do about it.
class Error : public std::runtime_error {
public:
    Error(gp_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
    // The kind of failure, for example GP_STATUS_PATH.
    gp_status status() const noexcept { return status_; }

private:
    gp_status status_;
};

// The library's version, such as "0.1.0".
inline std::string version() { return gp_version(); }

namespace detail {

inline void check(gp_status status) {
    if (status != GP_STATUS_OK) throw Error(status, gp_last_error());
}

// Text that a call of the C ABI has handed over.
struct FreeText {
    void operator()(char* text) const { gp_string_free(text); }
};
using OwnedText = std::unique_ptr<char, FreeText>;

// The text that `call` hands over.
template <class Call>
std::string text(Call call) {
    char* raw = nullptr;
    check(call(&raw));
    return OwnedText(raw).get();
}

inline std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> lines;
    for (size_t at = 0; at < text.size();) {
        const size_t end = text.find('\n', at);
        lines.push_back(text.substr(at, end == std::string::npos ? end : end - at));
        at = end == std::string::npos ? text.size() : end + 1;
    }
    return lines;
}

// An object that a call of the C ABI hands over, shared by those that need it.
template <class T, class Call>
std::shared_ptr<T> made(Call call, void (*free)(T*)) {
    T* raw = nullptr;
    check(call(&raw));
    return std::shared_ptr<T>(raw, free);
}

}  // namespace detail
}  // namespace GRAPHPATCH_NAMESPACE
}  // namespace graphpatch
