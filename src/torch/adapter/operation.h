// Operations: what is known of an operator, and one call of it.
#pragma once

#include "adapter.h"

namespace graphpatch {

struct OpInfo {
  bool query = false; // only looks at what a tensor is; no node
  bool cast = false; // put there by TorchScript's own autocast pass; no node
  uint32_t id = 0;
  uint64_t family = 0; // its bit among GpThread's families
  uint32_t n_arguments = 0;
  uint32_t n_returns = 0;
  bool in_place = false; // its results are operands that it wrote into
  uint64_t written = 0; // bits of the arguments that it writes into
  uint64_t statistics = 0; // bits of those that it writes into without its schema saying so,
  int training = -1; // if this argument is true, or there is none
  bool reaches = false; // it may read what lies between the elements of its first argument
  bool rewrapped = false; // Python makes an object of another class of its result (a Parameter, say)
  bool starts = false; // a flat run may begin with it

  // Compares everything that does not follow from the operator's name.
  bool same_facts(const OpInfo& other) const {
    return n_arguments == other.n_arguments && n_returns == other.n_returns && in_place == other.in_place &&
           written == other.written && statistics == other.statistics && training == other.training;
  }
};

// Bits of the arguments that this call writes into.
inline uint64_t written_by(const OpInfo& info, const c10::IValue* arguments) {
  if (!info.statistics || (info.training >= 0 && !(arguments[info.training].isBool() && arguments[info.training].toBool())))
    return info.written;
  return info.written | info.statistics;
}

// A call of an operation that has come to the fallback.
struct Dispatched {
  const c10::OperatorHandle& op;
  c10::DispatchKeySet keys; // those below ours
  torch::jit::Stack* stack;
  // Goes on with the call. It is not called anew: profilers and other observers have been told of it already.
  void run() const {
    op.redispatchBoxed(keys, stack);
  }
  // The same if operands have been replaced, which may be of another kind.
  void run_anew() const {
    op.callBoxed(stack);
  }
};

// Runs one operation of the present scope: shows its operands, except the `unseen` ones, calls it, and handles its result.
void intercept(const GpThread& thread, const Dispatched& call, const OpInfo& info, uint64_t unseen);
// The same for an operation outside of other runs, on a thread with a flat run.
void intercept_flat(const Dispatched& call, const OpInfo& info);
// The same for one on a thread without runs, which another thread's task has brought here.
void tell_of_task();

} // namespace graphpatch
