// Readers of a parameter's memory that a patch of the parameter does not reach. `.data` makes another tensor of the same
// memory, of which no operation tells; a view of a parameter that was made before the run is one, too.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <unordered_map>
#include <vector>

namespace graphpatch {

// What a run knows of its patched parameters, and of tensors that were read and may show memory of a parameter. Scopes are
// known by their numbers: a scope inside of another one has the larger number.
class Readers {
public:
  // The number of a flat run's operations, which are in no scope of a patch, as readers; and of its patches, which hold for
  // all.
  static constexpr uint32_t kInnermost = UINT32_MAX, kOutermost = 0;

  // A patch has put `copy` in the place of the parameter, in this scope and inside of it. Says so if the parameter's memory was
  // read past the patch.
  void patched(uint32_t scope, const at::Tensor& parameter, const at::Tensor& copy, const std::string& patch);
  // An operation of this scope reads the tensor. Says so if a parameter whose memory it shows has been patched.
  void read(uint32_t scope, const at::Tensor& tensor);
  // The scope has ended.
  void left(uint32_t scope);

private:
  using Memory = c10::weak_intrusive_ptr<c10::StorageImpl>;
  struct Patched {
    uint32_t scope;
    const void* parameter; // its identity
    Memory memory;
    Memory copy;
    int64_t first, last; // elements of the memory
    std::string patch;
    bool told;
  };
  // Elements that were read, from the first to the last one, by which tensor, and the innermost scope that did.
  struct Part {
    int64_t first, last;
    const void* reader;
    uint32_t scope;
  };
  // A memory that several tensors show. The address is in use as long as this is here.
  struct Read {
    Memory memory;
    std::vector<Part> parts;
  };

  void keep(uint32_t scope, const at::Tensor& tensor);
  static void tell(Patched& one);

  std::vector<Patched> patched_;
  std::unordered_map<const c10::StorageImpl*, Read> read_;
  size_t most_ = 64; // so many memories are kept before those that are gone are dropped
};

} // namespace graphpatch
