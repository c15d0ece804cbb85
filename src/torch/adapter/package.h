// Models that AOTInductor has compiled: the calls that they make, as seen from inside of them.
#pragma once

#include "adapter.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <exception>
#include <memory>
#include <string>

namespace graphpatch::packages {

// ---- package_slots.cpp: the slots through which a model's library calls other functions ----

// Replaces the word, which may be read by other threads and may have been made read-only. Returns false if the system does not
// allow that.
bool replace_word(void** word, void* with);
// How many objects the dynamic linker has ever removed. As long as none is removed, none takes the address of another.
uint64_t objects_removed();

// One function that a library calls.
struct Slot {
  std::string symbol;
  void** word;
};
// The slots of the library that this address lies in, for the functions that it does not call directly.
std::vector<Slot> slots_at(const void* address);
// The function that the library would call by this name; NULL if there is none.
void* function_for(const void* address, const std::string& symbol);

// ---- package_hooks.cpp: functions that stand in those slots ----

// A model whose calls come to us.
struct Inside {
  const GpPackage* package = nullptr;
  std::vector<uint16_t> hooks; // for each call the number of its hook, or kNoHook
  std::vector<Slot> slots; // those that were replaced
};
constexpr uint16_t kNoHook = 0xffff;

// Replaces the slots of the package's calls. The result is NULL if no value can be had this way; `why` is set then.
std::shared_ptr<const Inside> hook(const GpPackage* package, const void* address, std::string& why);
// Whether the slots are still those that were replaced: another library may lie there now.
bool is_hooked(const Inside& inside);

// ---- package_values.cpp: what such a call has computed ----

// How many arguments are in registers, and how many words on the stack are handed on; how many floating-point numbers.
constexpr size_t kRegisters = 6, kStack = 40, kFloats = 8;

// The arguments of a call that are integers or pointers.
struct Arguments {
  const uint64_t* registers;
  const uint64_t* stack;
  uint64_t at(size_t position) const {
    return position < kRegisters ? registers[position] : stack[position - kRegisters];
  }
};

// A run of a model on this thread. While it lives, its calls are looked at.
class Running {
public:
  Running(const Inside& inside, const std::vector<AtenTensorHandle>& inputs);
  ~Running();
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  // The model has asked where a tensor's data is.
  void asked(void* data, const at::Tensor& tensor) {
    has_memory_for([&] { asked_.push_back({data, tensor}); });
  }
  // The call behind the hook has returned `result`. `arguments` gives its arguments by position.
  void called(uint16_t hook, uint64_t result, const Arguments& arguments);
  // Throws what a patch has thrown inside.
  void end();

private:
  void show(const GpCall& call, const Arguments& arguments);
  at::Tensor output(const GpOutput& output, const Arguments& arguments) const;
  bool reshape(const GpNode& node, at::Tensor& tensor) const;
  void show_node(const GpNode& node, const GpToken& token, uint32_t wanted, const std::vector<c10::IValue>& outputs) const;

  struct Asked {
    void* data;
    at::Tensor tensor; // held, so that its memory is not another tensor's before the next call
  };
  const Inside& inside_;
  Running* const before_;
  std::vector<std::vector<int64_t>> inputs_; // their sizes
  std::vector<Asked> asked_;
  size_t next_ = 0;
  bool lost_ = false;
  std::exception_ptr thrown_;
};

extern thread_local Running* running;

} // namespace graphpatch::packages
