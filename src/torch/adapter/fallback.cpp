// The boxed fallback. Every dispatcher call of a thread whose scope is armed comes through here, above autograd and autocast,
// as the model wrote it. Calls inside of an operation are not seen, because the key is excluded while it runs.
#include "attention.h"
#include "distributed.h"
#include "gradients.h"
#include "mirror.h"
#include "operation.h"

#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace graphpatch {

// TorchScript dispatches these, while Python and C++ answer them without the dispatcher. They compute nothing, and are left out
// so that all hosts give the same paths.
static bool is_query(const c10::FunctionSchema& schema) {
  static const auto& kQueries = *new std::unordered_set<std::string>{"aten::size",
                                                                     "aten::sym_size",
                                                                     "aten::stride",
                                                                     "aten::sym_stride",
                                                                     "aten::numel",
                                                                     "aten::sym_numel",
                                                                     "aten::is_leaf",
                                                                     "aten::is_floating_point",
                                                                     "aten::is_complex",
                                                                     "aten::is_conj",
                                                                     "aten::is_neg",
                                                                     "aten::is_inference",
                                                                     "aten::is_signed",
                                                                     "aten::output_nr",
                                                                     "aten::_version",
                                                                     "aten::storage_offset",
                                                                     "aten::sym_storage_offset",
                                                                     "aten::dim",
                                                                     "aten::_has_compatible_shallow_copy_type"};
  // Marks of the profiler compute nothing.
  return schema.name().compare(0, 10, "profiler::") == 0 || kQueries.count(schema.name()) != 0;
}

// How often an operator was registered or deregistered. A schema lies inside its operator, and another operator may take its
// place at the same address, so facts that are cached by address hold for one generation.
static std::atomic<uint64_t> generation{1};

// Batch norms write into their running statistics, but most of their schemas do not say so.
static void read_statistics(const c10::FunctionSchema& schema, OpInfo& info) {
  const std::string& name = schema.name();
  for (const char* reader : {"backward", "functional", "no_training", "no_update"})
    if (name.find(reader) != std::string::npos)
      return;
  for (size_t i = 0; i < schema.arguments().size() && i < 64; ++i) {
    const std::string& argument = schema.arguments()[i].name();
    if (argument == "running_mean" || argument == "running_var")
      info.statistics |= uint64_t{1} << i;
    else if (argument == "training" || argument == "train" || argument == "use_input_stats")
      info.training = static_cast<int>(i);
  }
}

static OpInfo read(const c10::FunctionSchema& schema) {
  OpInfo info;
  info.query = is_query(schema);
  info.cast = schema.name() == "aten::_autocast_to_reduced_precision" || schema.name() == "aten::_autocast_to_full_precision";
  info.reaches = schema.name().compare(0, 16, "aten::as_strided") == 0 && !schema.arguments().empty();
  info.rewrapped = schema.name() == "aten::detach" || schema.name() == "aten::alias";
  info.starts = may_start_run(schema);
  info.n_arguments = static_cast<uint32_t>(schema.arguments().size());
  info.n_returns = static_cast<uint32_t>(schema.returns().size());
  for (const c10::Argument& result : schema.returns())
    if (result.alias_info() && result.alias_info()->isWrite())
      info.in_place = true;
  for (size_t i = 0; i < schema.arguments().size() && i < 64; ++i)
    if (const c10::AliasInfo* alias = schema.arguments()[i].alias_info())
      info.written |= uint64_t{alias->isWrite()} << i;
  read_statistics(schema, info);
  return info;
}

// The facts are kept as long as the process lives, since an operator may be deregistered while it runs. Operators of one name
// with the same facts share them, so registering one again and again uses no more memory.
static const OpInfo& define(const c10::FunctionSchema& schema) {
  struct Known {
    uint64_t generation = 0;
    const OpInfo* info = nullptr;
  };
  static std::mutex mutex;
  const Lock lock(mutex);
  static auto& by_schema = *new std::unordered_map<const c10::FunctionSchema*, Known>;
  static auto& by_name = *new std::unordered_map<std::string, std::vector<std::unique_ptr<const OpInfo>>>;
  const uint64_t now = generation.load(std::memory_order_acquire);
  Known& known = by_schema[&schema];
  if (known.info && known.generation == now)
    return *known.info;
  const std::string name = c10::toString(schema.operator_name());
  OpInfo info = read(schema);
  auto& all = by_name[name];
  const auto same = std::find_if(all.begin(), all.end(), [&](const auto& one) { return one->same_facts(info); });
  if (same == all.end()) {
    info.id = core->op_define(gp_str(name), &info.family);
    all.push_back(std::make_unique<const OpInfo>(info));
    known.info = all.back().get();
  } else {
    known.info = same->get();
  }
  known.generation = now;
  return *known.info;
}

// A small cache for each thread avoids the lock in nearly all calls.
static const OpInfo& info_of(const c10::OperatorHandle& op) {
  struct Slot {
    const c10::FunctionSchema* schema = nullptr;
    uint64_t generation = 0;
    const OpInfo* info = nullptr;
  };
  static thread_local std::array<Slot, 256> cache{};
  const c10::FunctionSchema* schema = &op.schema();
  const uint64_t now = generation.load(std::memory_order_acquire);
  Slot& slot = cache[(reinterpret_cast<uintptr_t>(schema) >> 6) & 255];
  if (slot.schema != schema || slot.generation != now)
    slot = {schema, now, &define(*schema)};
  return *slot.info;
}

// NULL if there is no memory for the facts of an operator that was not called before: then the call is left alone.
static const OpInfo* known_info(const c10::OperatorHandle& op) {
  const OpInfo* info = nullptr;
  has_memory_for([&] { info = &info_of(op); });
  return info;
}

// Whether torch.compile, torch.export or the like run the code with tensors that hold no data.
static bool is_tracing() {
  using Key = c10::impl::TorchDispatchModeKey;
  using Modes = c10::impl::TorchDispatchModeTLS;
  return Modes::stack_len() != 0 && (Modes::get_mode(Key::FAKE) || Modes::get_mode(Key::PROXY));
}

// Whether the call belongs to a backward pass inside the run; such operations are the engine's. This is not so in a run that
// itself began inside of a backward pass (a checkpoint that is computed again).
static bool is_engines(const GpThread& thread) {
  return backward_node() != thread.node;
}

// The value of an operation without results: the operands that it wrote into. Many fused kernels and `_foreach_` operations
// have none.
static std::vector<c10::IValue> written_operands(const OpInfo& info, const c10::IValue* arguments) {
  std::vector<c10::IValue> operands;
  for (uint32_t i = 0; i < info.n_arguments; ++i)
    if (has_bit(info.written, i))
      operands.push_back(arguments[i]);
  return operands;
}

void intercept(const GpThread& thread, const Dispatched& call, const OpInfo& info, uint64_t unseen) {
  torch::jit::Stack* stack = call.stack;
  if (thread.held && at::GradMode::is_enabled())
    refuse_gradients(held());
  // The stack may hold other values of the caller's below the arguments.
  bool replaced = thread.wants & GP_WANTS_OPERANDS; // or some of them, if memory ran out
  if (replaced) {
    c10::IValue* arguments = stack->data() + (stack->size() - info.n_arguments);
    has_memory_for([&] { replaced = handle_operands(0, arguments, info.n_arguments, unseen, written_by(info, arguments)); });
  }
  GpToken token;
  const bool matters = (thread.families & info.family) && !info.cast;
  const uint32_t wanted = matters ? core->value_begin(GP_VALUE_OP, info.id, &token) : 0;
  const auto run = [&] { replaced ? call.run_anew() : call.run(); };
  const auto results = [&] { return stack->data() + (stack->size() - info.n_returns); };
  std::optional<Parts> parts;
  if (has_parts())
    has_memory_for([&] { parts.emplace(call.op, stack->data() + (stack->size() - info.n_arguments), info.n_arguments); });
  if (!wanted) {
    run();
    if (parts)
      has_memory_for([&] { parts->follow(results(), info.n_returns); });
    if (thread.held)
      came_to_be(results(), info.n_returns);
    return;
  }
  const auto* arguments = stack->data() + (stack->size() - info.n_arguments);
  const bool described = !(wanted & GP_VALUE_ARGS) || has_memory_for([&] { give_op_args(token, call.op.schema(), arguments); });
  std::vector<c10::IValue> operands;
  if (info.n_returns == 0 && info.written)
    has_memory_for([&] { operands = written_operands(info, arguments); });
  std::optional<Attention> attention;
  if (wanted & GP_VALUE_INSIDE)
    has_memory_for([&] { attention.emplace(token, wanted, call, info); });
  try {
    run();
    if (attention)
      has_memory_for([&] { attention->show(results()[0]); });
  } catch (...) {
    core->value_abandon(&token);
    throw;
  }
  const bool writes = info.in_place || !operands.empty();
  const Ownership how = writes ? Ownership::InPlace : Ownership::Result;
  c10::IValue* values = operands.empty() ? results() : operands.data();
  const size_t n = operands.empty() ? info.n_returns : operands.size();
  if (parts)
    has_memory_for([&] { parts->follow(values, n); });
  if (!described || !has_memory_for([&] { handle_value(token, wanted, values, n, how, info.rewrapped); }))
    core->value_abandon(&token);
  if (attention)
    has_memory_for([&] { attention->finish(results()[0]); });
  if (!(thread.wants & GP_WANTS_OPERATIONS)) // it was the last one that matters here
    watch_rest_of_scope();
  if (thread.held)
    came_to_be(results(), info.n_returns);
}

static void handle(const GpThread& thread, const Dispatched& call) {
  const bool flat = thread.flat && !thread.run;
  // A thread with a flat run beside another run is armed in every scope of the other run.
  const bool wanted = flat ? !thread.declined : thread.wants & GP_WANTS_OPERATIONS;
  if (!wanted) {
    if (!thread.flat && !thread.run && !thread.declined)
      has_memory_for([] { tell_of_task(); });
    const bool watched = !flat && watches_scope();
    if (watched && at::GradMode::is_enabled())
      refuse_gradients(held());
    call.run();
    if (watched) {
      const size_t n = call.op.schema().returns().size();
      came_to_be(call.stack->data() + (call.stack->size() - n), n);
    }
    return;
  }
  const OpInfo* info = known_info(call.op);
  if (!info || info->query || is_tracing()) {
    call.run();
  } else if (flat) {
    intercept_flat(call, *info);
  } else if (is_engines(thread)) {
    call.run();
  } else {
    intercept(thread, call, *info, 0);
  }
}

static void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard outside(kKey);
  const Dispatched call{op, keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, kKey), stack};
  const GpThread& thread = this_thread();
  if (!here.mirrors || is_tracing())
    return handle(thread, call);
  // Some operators change only how their tensor views memory (`t_`), or its place in autograd's graph (`detach_`).
  const bool stores = !op.hasTag(at::Tag::inplace_view);
  std::optional<Writes> writes;
  if (const OpInfo* info = known_info(op))
    has_memory_for([&] { writes.emplace(*info, stack->data() + (stack->size() - info->n_arguments), stores); });
  handle(thread, call);
  if (writes)
    has_memory_for([&] { writes->reflect(); });
}

// Reports every operator to the core, present or registered later. Operations have to be counted only in scopes in which a
// patched name could be the name of an operation.
class OperatorListener : public c10::OpRegistrationListener {
public:
  void onOperatorRegistered(const c10::OperatorHandle& op) override {
    const std::string& name = op.operator_name().name;
    core->op_exists(gp_str(name));
    generation.fetch_add(1, std::memory_order_release);
  }
  void onOperatorDeregistered(const c10::OperatorHandle&) override {
    generation.fetch_add(1, std::memory_order_release);
  }
};

// Never removed, like the fallback below: at any time some thread may be inside the dispatcher.
c10::RegistrationHandleRAII* listener = nullptr;

void start_fallback() {
  if (!listener)
    listener = new c10::RegistrationHandleRAII(
        c10::Dispatcher::singleton().addRegistrationListener(std::make_unique<OperatorListener>()));
  // Kept as long as the process lives: at any time some thread may be inside a run.
  static auto* library = new torch::Library(torch::Library::IMPL, "_", std::make_optional(kKey), __FILE__, __LINE__);
  library->fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

} // namespace graphpatch
