// The declarations that the adapter's files share: the core's table, the state of this thread, and the entries of each file.
#pragma once

#include "seam.h"

// Headers of libtorch's then include the operators that they use, one by one, instead of all: see ATen/Functions.h.
#ifndef AT_PER_OPERATOR_HEADERS
#define AT_PER_OPERATOR_HEADERS
#endif
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/stack.h>
#include <ATen/ops/_neg_view.h>
#include <ATen/ops/alias.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/view_as_real.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "readers.h"

#include <cxxabi.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace graphpatch {

// Set once in graphpatch_adapter_entry, before any hook is installed.
extern const GpCore* core;

// The dispatch key above autograd and autocast whose boxed fallback sees every call of a thread that includes it.
constexpr c10::DispatchKey kKey = c10::DispatchKey::TESTING_ONLY_GenericMode;

// While it lives, a fork of the process waits, so that the child finds the locks free that this thread takes. It stands around
// calls that take locks of libtorch's or of the dynamic linker's and that the program alone would not make at this time.
class ForksWait {
public:
  ForksWait() {
    core->lock_enter();
  }
  ~ForksWait() {
    core->lock_leave();
  }
  ForksWait(const ForksWait&) = delete;
  ForksWait& operator=(const ForksWait&) = delete;
};

// Holds a mutex. Every mutex of the adapter's is held through this class.
class Lock {
public:
  explicit Lock(std::mutex& mutex) : held_(mutex) {
  }

private:
  const ForksWait forks_wait_; // made before the mutex is locked, and destroyed after it is unlocked
  const std::lock_guard<std::mutex> held_;
};

inline GpStr gp_str(const std::string& s) {
  return {s.data(), s.size()};
}
inline GpStr gp_str(const char* s) {
  return {s, std::char_traits<char>::length(s)};
}
inline std::string to_string(GpStr s) {
  return std::string(s.data, s.size);
}
// A text that is returned to the core. It lasts until the thread's next answer.
inline GpStr answer(std::string text) {
  static thread_local std::string last;
  last = std::move(text);
  return gp_str(last);
}

// Keeps the address of a tensor from being used again, without keeping its memory.
using WeakTensor = c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;

// A new reference to the tensor whose at::TensorImpl lies there; an undefined tensor for NULL.
inline at::Tensor tensor_at(const void* impl) {
  if (!impl)
    return at::Tensor();
  auto* tensor = static_cast<c10::TensorImpl*>(const_cast<void*>(impl));
  return at::Tensor(c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim_copy(tensor));
}

// Calls a function of a host's, which may be Python's. An interpreter that is being shut down ends the thread in there when the
// function asks for the GIL, by pthread_exit, which unwinds the stack. That may go neither through functions of libtorch that
// throw nothing nor through the core, so the thread stays where it is.
template <class Body>
auto call_a_host(Body body) {
  try {
    return body();
  } catch (abi::__forced_unwind&) {
    for (;;)
      ::pause();
  }
}

// gp_torch_callback of the C header.
using TorchCallback = int (*)(void* user, const void* tensor, const void** replacement);

// Bit `i` of the bits that an operator has for its arguments. Arguments from the 65th on have none.
inline bool has_bit(uint64_t bits, size_t i) {
  return i < 64 && (bits >> i & 1);
}

inline void note_no_memory() {
  core->note(gp_str("there was no memory to record or patch a value with: it was left alone"));
}

// If there is no memory for our own work, that is no error of the program's: the work is left undone, and false is returned.
template <class Body>
bool has_memory_for(Body body) {
  try {
    body();
    return true;
  } catch (const std::bad_alloc&) {
    note_no_memory();
    return false;
  }
}

// What the core calls here ends in no exception: there is Rust above it, through which none may go. Returns whether the body
// came to its end.
template <class Body>
bool without_exceptions(Body body) noexcept {
  try {
    return has_memory_for(body);
  } catch (const std::exception& error) {
    core->note(gp_str(error.what()));
  } catch (...) {
    core->note(gp_str("an exception of an unknown kind ended a part of recording or patching"));
  }
  return false;
}

// A static that is never destroyed, since a program's own statics may still run a model when ours would be gone. It lies in
// static memory: an allocation that fails while the adapter is being loaded would end the process.
template <class T>
union NeverDestroyed {
  T value;
  NeverDestroyed() : value() {
  }
  ~NeverDestroyed() {
  }
};

// Keeps the elements for which `stays` is true, in their order. Destroying the others may run code of the user's, which may
// come back here, so they are taken out first.
template <class T, class Stays>
void keep_if(std::vector<T>& elements, Stays stays) {
  const auto left = std::stable_partition(elements.begin(), elements.end(), stays);
  const std::vector<T> gone(std::make_move_iterator(left), std::make_move_iterator(elements.end()));
  elements.erase(left, elements.end());
}

// ---- thread.cpp: the state of this thread, and what is kept alive for its run ----

// What is asked for at every operation. It stands in one place, so that it costs one look-up of thread-local memory.
struct Here {
  GpThread* thread = nullptr;
  // Who wants the key included on this thread: the core, or the copies whose writes must be seen. A third reason is
  // watches_scope: values that are computed without history after a patch.
  bool core = false;
  bool mirrors = false;
};

// A plain object without a first-use guard, which each marker and operation would have to look at.
static thread_local Here here;

// The core writes this, except where a scope is entered of which nothing is wanted (instrument.cpp).
inline GpThread& this_thread() {
  if (!here.thread)
    here.thread = core->thread();
  return *here.thread;
}

// Whether a scope is open in which something matters.
inline bool is_inside(const GpThread& thread) {
  return thread.wants & GP_WANTS_INSIDE;
}

// Whether the call that this thread is about to make is a run, a part of one, or may become a run.
inline bool may_matter(const GpThread& thread) {
  return thread.run ? !thread.cold : *core->active == GP_WANTED && !thread.declined;
}

// A leaf of a value that a host has shown. `value` is empty if the leaf did not change.
struct Leaf {
  bool changed = false;
  c10::IValue value;
};

// See gradients.cpp: patches that may have been applied inside of a C++ function with a backward of its own.
struct WithoutHistory;

// See containers.h.
struct CopiedContainer;

// Objects that belong to one run. They are freed when the last one who uses them is gone.
struct Held {
  Held();
  ~Held();
  // Weak references that keep addresses from being used again, since the run knows tensors by address: parameters and, while
  // recording, all tensors that were seen.
  std::vector<WeakTensor> seen;
  // Patched copies of parameters, by the frame that reads them.
  struct Copy {
    uint32_t frame;
    const void* parameter;
    // The parameter's memory and shape when the copy was made. A program may give a parameter other memory (`.data = `,
    // `set_`).
    c10::weak_intrusive_ptr<c10::StorageImpl> memory;
    c10::SmallVector<int64_t, 5> sizes;
    int64_t offset;
    at::Tensor patched;
    uint64_t noted = 0; // see loses_history
  };
  std::vector<Copy> copies;
  Readers readers;
  // Forgets the copies of this parameter that were made of other memory than it has now.
  void forget_stale_copies(const at::Tensor& parameter);
  std::vector<CopiedContainer> containers;
  // The number of operations that autograd had counted on this thread when the root was called.
  uint64_t history = 0;
  std::unique_ptr<WithoutHistory> without_history;
  // Plain tensors that are this rank's part of a DTensor, or computed from one; see distributed.h.
  struct Part {
    WeakTensor tensor;
    at::Tensor like;
  };
  std::unordered_map<const void*, Part> parts;
  // The leaves of the value that the host has shown last.
  std::vector<Leaf> shown;
  // Expires when the run ends.
  std::shared_ptr<const char> life;
};

// The objects of this thread's run, which must be open.
Held& held();
void held_leave(void* held, uint32_t frame);
void held_end(void* held);
void held_free(void* held);
// Keeps the addresses of these tensors in use while the run of this thread lasts.
void keep_addresses(const void* const* identities, size_t n);
// The run of this thread holds one tensor no more, not even weakly. Returns whether it did.
bool let_go(const void* identity);
// The run holds that tensor again.
void keep(const void* identity);

// Includes the dispatch key on this thread: `arm` for the core, `watch` while there are copies whose writes must be seen.
void arm(uint32_t on);
void watch(bool on);
void rearm();
// Whether this thread computes the forward of a function with a backward of its own, through which gradients will go. The
// setter returns the value before.
bool set_own_backward(bool on);
bool has_own_backward();
// In mirror.cpp: forgets copies whose run has ended, or that nobody sees any more.
void prune_mirrors();
// Copies are held weakly. These let go of one, and hold it again; the first one returns whether it was held.
bool mirrors_let_go(const void* copy);
void mirrors_keep(const void* copy);
uint32_t suspend();
void resume(uint32_t before);
const void* backward_node();

// Lives during a call of a function of the user's. Models that the function runs are not part of the run.
class Apart {
public:
  Apart() {
    core->function_begin();
  }
  ~Apart() {
    core->function_end();
  }
};

// ---- value.cpp: libtorch's values as structs of the seam ----

// A flat list of a value's elements, in preorder. Borrows from the value.
class Items {
public:
  void add(const c10::IValue& value);
  void add_tensor(const at::Tensor& tensor);
  void open_tuple(size_t n);
  // Adds an operation's argument; enumerations and devices are written as in Python.
  void add_argument(const c10::Argument& argument, const c10::IValue& value, bool by_keyword);
  // Copies the names of types without a tag from a list of the same structure.
  void rename(const GpItem* like);
  const GpItem* data() const {
    return items_.data();
  }
  size_t size() const {
    return items_.size();
  }
  void clear() {
    items_.clear();
    keys_.clear();
  }

private:
  std::vector<GpItem> items_;
  std::vector<std::unique_ptr<const std::string>> keys_; // the names of keys that are no texts
};

// The name of a dict's key, as in Python: of a text, an integer or a boolean. Other keys have none.
std::optional<std::string> key_text(const c10::IValue& key);
// The dict's key of that name; None if it has none.
c10::IValue key_named(const c10::Dict<c10::IValue, c10::IValue>& dict, const std::string& name);

// Whether this is a list whose elements may be tensors, or containers of tensors.
inline bool may_hold_tensors(const c10::IValue& value) {
  return value.isList() && !value.isIntList() && !value.isDoubleList() && !value.isBoolList();
}

// Calls `visit` for each defined tensor of a value, in order: the value itself, or those in its tuples, lists and dicts.
template <class Visit>
void for_each_tensor(const c10::IValue& value, const Visit& visit) {
  if (value.isTensor()) {
    if (value.toTensor().defined())
      visit(value.toTensor());
  } else if (value.isTuple()) {
    for (const c10::IValue& element : value.toTupleRef().elements())
      for_each_tensor(element, visit);
  } else if (may_hold_tensors(value)) {
    for (const c10::IValue& element : value.toListRef())
      for_each_tensor(element, visit);
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict())
      for_each_tensor(entry.value(), visit);
  }
}

// A plain number as the seam has it, and back. The tag says what it is, also where it is no number.
GpScalar number_of(const c10::IValue& value);
c10::IValue value_of(const GpScalar& number);

uint8_t dtype_code(c10::ScalarType type);
c10::ScalarType dtype_of(uint8_t code);
const char* dtype_name(c10::ScalarType type); // "float32"
// True if the tensor is plain strided memory: no subclass, no functorch wrapper, no conj or neg bit, no other layout.
bool is_plain(const at::Tensor& tensor);

// ---- patch.cpp, leaf.cpp, operands.cpp: applying the targets of a value, and of the operands that an operation reads ----

enum class Ownership {
  InPlace, // an in-place or out= operator wrote it: the value is the operand
  Result, // an operation's or scope's result: in place if nobody else sees its memory
  Owned, // a result that a program shows: in place if it, and we, hold it in one place only
  Borrowed, // an input: always on a copy
  Parameter // always on a copy, of which the patch may change other elements when the parameter has been written
};

// While recording, keeps the addresses of the value's tensors in use as long as the run lasts.
void remember(const c10::IValue& value);
// Applies the targets to `n` values that together are the value of the node (several for a tuple of results).
void apply_targets(const GpTarget* targets, size_t n_targets, c10::IValue* values, size_t n, Ownership how);
// The targets that the core has for a value. The core frees them when this object is destroyed.
struct Targets {
  GpTargets* owner = nullptr;
  const GpTarget* data = nullptr;
  size_t size = 0;
  Targets() = default;
  Targets(const Targets&) = delete;
  Targets& operator=(const Targets&) = delete;
  ~Targets() {
    core->targets_free(owner);
  }
};
// Does what is `wanted` of the value that has begun as `token`.
void handle_value(const GpToken& token, uint32_t wanted, c10::IValue* values, size_t n, Ownership how, bool rewrapped = false);
// Handles an input (from the scope's caller) or the output of the present scope.
void handle_scope_value(uint32_t kind, uint32_t index, c10::IValue* value, Ownership how);
// Shows the tensors among `values` to the core, except the `unseen` ones, and replaces patched parameters by patched copies,
// except those that are `written`. `unseen` and `written` have one bit for each index. Returns whether any was replaced.
bool handle_operands(uint32_t level, c10::IValue* values, size_t n, uint64_t unseen = 0, uint64_t written = 0);

// ---- args.cpp: what a value that is about to appear is made from, and where ----

// Whether to report the lines at which the interpreter is. They are reported for an operation; an input stands for its scope's
// call, an output for the return.
enum class Called { Here, Nowhere };
void give_args(const GpToken& token, const Items& items, Called called);
void give_op_args(const GpToken& token, const c10::FunctionSchema& schema, const c10::IValue* values);

// ---- host_values.cpp: values that a program shows by calls, and the operators by which Python reaches tensors ----

GpStr show_value(uint32_t kind, uint32_t index, const GpItem* items, size_t n, uint32_t owned, uint32_t* changed);
uint32_t shown_leaf(size_t index, GpLeaf* out);
void register_host_operators();

// ---- tap.cpp: the operator by which compiled code reports a value ----

void register_tap();

// ---- package.cpp: models that AOTInductor has compiled, each run of which is one operation ----

void register_packages();

// ---- flat.cpp: operations outside of all other runs ----

void flat_start(const GpStr* run_at, size_t n);
void flat_thread();
void flat_forked();
bool may_start_run(const c10::FunctionSchema& schema);
void own_enter();
void own_leave(const void* module);

// ---- modules.cpp: calls of torch::nn modules in flat runs ----

void modules_start();
uint64_t module_enter(const void* module);
void module_output(uint64_t call, void* tensor, uint32_t is_sure);
void module_leave(uint64_t call);

// ---- fallback.cpp, script.cpp: the two ways in which operations are seen; see operation.h ----

void start_fallback();
void start_script();
void listen(uint32_t on);
// Makes the next calls of the module's forward visible to us. Returns false if that is not possible.
bool prepare_script(const c10::IValue& module);

} // namespace graphpatch
