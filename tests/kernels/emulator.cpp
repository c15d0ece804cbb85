// Emulates a device: the source of the kernels, compiled as C++ with the address sanitizer and run block by block.
//
// Each allocation has exactly the requested size, so that a kernel that accesses memory outside of it ends the process.
// Requests come on stdin and answers go to stdout, binary: a letter, then 64-bit numbers, then bytes.
//
//   A size            → address
//   F address
//   W address size …
//   R address size    → bytes
//   L name(24) grid block size arguments…   → 1
#define GRAPHPATCH_EMULATE
#include "../../kernels/graphpatch.cu"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

static void take(void* to, size_t size) {
  if (size && std::fread(to, 1, size, stdin) != size)
    std::exit(0); // stdin is closed: the test is over
}

static uint64_t number() {
  uint64_t value;
  take(&value, sizeof value);
  return value;
}

static void give(const void* from, size_t size) {
  std::fwrite(from, 1, size, stdout);
  std::fflush(stdout);
}

// The arguments of a launch, one behind the other, each at a multiple of 16.
template <class T>
static const T& argument(const std::vector<char>& bytes, size_t at) {
  if (at + sizeof(T) > bytes.size()) {
    std::fprintf(stderr, "arguments of %zu bytes: too short\n", bytes.size());
    std::abort();
  }
  return *reinterpret_cast<const T*>(bytes.data() + at);
}

static void run(const std::string& name, unsigned grid, unsigned block, const std::vector<char>& bytes) {
  const auto one = [&](void (*kernel)(Work)) { launch(grid, block, [&] { kernel(argument<Work>(bytes, 0)); }); };
  if (name == "gp_zero_dense")
    one(gp_zero_dense);
  else if (name == "gp_zero_strided")
    one(gp_zero_strided);
  else if (name == "gp_add_dense")
    one(gp_add_dense);
  else if (name == "gp_add_strided")
    one(gp_add_strided);
  else if (name == "gp_replace_dense")
    one(gp_replace_dense);
  else if (name == "gp_replace_strided")
    one(gp_replace_strided);
  else if (name == "gp_any")
    launch(grid, block, [&] { gp_any(argument<Work>(bytes, 0), argument<Picks>(bytes, (sizeof(Work) + 15) / 16 * 16)); });
  else if (name == "gp_batch")
    launch(grid, block, [&] { gp_batch(argument<Batch>(bytes, 0)); });
  else {
    std::fprintf(stderr, "no kernel %s\n", name.c_str());
    std::abort();
  }
}

int main() {
  for (;;) {
    char letter;
    take(&letter, 1);
    if (letter == 'A') {
      const uint64_t size = number();
      void* memory = nullptr;
      if (posix_memalign(&memory, 256, size ? size : 1))
        std::abort();
      std::memset(memory, 0xa5, size);
      give(&memory, sizeof memory);
    } else if (letter == 'F') {
      std::free(reinterpret_cast<void*>(number()));
    } else if (letter == 'W') {
      void* to = reinterpret_cast<void*>(number());
      take(to, number());
    } else if (letter == 'R') {
      const void* from = reinterpret_cast<const void*>(number());
      give(from, number());
    } else if (letter == 'L') {
      char name[25] = {};
      take(name, 24);
      const uint64_t grid = number(), block = number(), size = number();
      std::vector<char> bytes(size);
      take(bytes.data(), size);
      // The arguments are copied into a block of exactly their size, so that a read behind them is found, too.
      run(name, static_cast<unsigned>(grid), static_cast<unsigned>(block), bytes);
      give("\1", 1);
    } else {
      std::abort();
    }
  }
}
