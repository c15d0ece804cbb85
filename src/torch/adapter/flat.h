// What the files about flat runs share: the modules that the thread knows, and where in its run an operation stands.
#pragma once

#include "registry.h"

namespace graphpatch {

// The modules that are known now. The thread keeps this registry until another one replaces it.
std::shared_ptr<const Registry> learned();
// Whether what the thread calls now is libtorch's own work for the host, such as loading weights.
bool is_own_work();
// Has `forget_calls` called when the thread ends.
void end_with_thread();

inline bool has_flat_run() {
  return this_thread().flat == 2;
}

// A call of a module at one place of a run, or a run's root. Its thread uses it again in later runs.
struct Place;

// While it lives, the flat run is the thread's run.
class FlatRunNow {
public:
  FlatRunNow() {
    core->flat_now(1);
  }
  ~FlatRunNow() {
    core->flat_now(0);
  }
  FlatRunNow(const FlatRunNow&) = delete;
  FlatRunNow& operator=(const FlatRunNow&) = delete;
};

// While it lives, the flat run is at that place: all scopes around it are entered.
class AtPlace {
public:
  explicit AtPlace(const Place* place);
  ~AtPlace();
  AtPlace(const AtPlace&) = delete;
  AtPlace& operator=(const AtPlace&) = delete;

private:
  void enter(const Place& place);
  size_t entered_ = 0;
};

// Whether the core tells of calls of modules.
bool sees_modules();
// Whether the thread is inside of a call of a model's outermost module, which is a run of its own.
bool is_in_model();
// The model whose run this is, or null.
const Model* model_of_run(const Registry& registry);
// The place of an operation that reads parameters of this module, or of none (null).
const Place* place_of(const Registry& registry, const Owner* owner);
// An operation has given these results.
void remember_results(const c10::IValue* results, size_t n);
// Nothing more is wanted of the run. Outside of models no other one begins until the next call of a model has ended.
void run_is_over();
bool is_over_outside();
void forget_calls();

} // namespace graphpatch
