// Helpers of the C++ tests: checks that end the program at the first failure and print its line.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <string>
#include <vector>

#if __has_include(<ATen/ATen.h>)
#include <ATen/ATen.h>
#endif

using namespace std::string_literals;

#define require(...) require_at(__LINE__, __VA_ARGS__)
#define is(found, expected) is_at(__LINE__, (found), (expected))
#define same(...) same_at(__LINE__, __VA_ARGS__)

inline void require_at(int line, bool condition, const std::string& what) {
    if (condition) return;
    std::fprintf(stderr, "line %d: not so: %s\n", line, what.c_str());
    std::exit(1);
}

inline void is_at(int line, const std::string& found, const std::string& expected) {
    require_at(line, found == expected, "\"" + found + "\" is \"" + expected + "\"");
}

inline void same_at(int line, const std::vector<std::string>& found, const std::vector<std::string>& expected) {
    std::string text;
    for (const auto& name : found) text += name + " ";
    require_at(line, found == expected, "these are the names: " + text);
}

#if __has_include(<ATen/ATen.h>)
inline void same_at(int line, const at::Tensor& found, const at::Tensor& expected) {
    require_at(line, found.defined() && at::equal(found, expected), "the tensors are equal");
}
#endif

// The body throws an Exception that says `words`.
template <class Exception, class Body>
void throws(Body body, const std::string& words) {
    try {
        body();
    } catch (const Exception& error) {
        if (std::string(error.what()).find(words) != std::string::npos) return;
        std::fprintf(stderr, "thrown: %s\n", error.what());
        require(false, "it says " + words);
    }
    require(false, "it throws, and says " + words);
}

inline int checked(int argc, char** argv, const std::map<std::string, void (*)()>& checks) {
    for (const auto& check : checks)
        if (argc < 2) std::puts(check.first.c_str());
    if (argc < 2) return 0;
    try {
        checks.at(argv[1])();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", argv[1], error.what());
        return 1;
    }
    std::puts("all as it must be");
    return 0;
}
