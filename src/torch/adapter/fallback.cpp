// The boxed fallback: every dispatcher call of a thread whose scope is armed comes through here, above autograd and
// autocast, as the model wrote it. What the operation calls inside is not seen, because the key is excluded meanwhile.
#include "gradients.h"
#include "mirror.h"

#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace graphpatch {

// TorchScript dispatches these; Python and C++ answer them without the dispatcher. They compute nothing, and paths
// are to agree between hosts.
static bool is_query(const c10::FunctionSchema& schema) {
  static const std::unordered_set<std::string> kQueries = {"aten::size",
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
                                                           "aten::dim"};
  // Marks of the profiler stand for nothing that is computed.
  return schema.name().compare(0, 10, "profiler::") == 0 || kQueries.count(schema.name()) != 0;
}

// How often an operator came or went. A schema lies inside its operator: another one may take its place at the same
// address, so what is known by an address holds for one generation.
static std::atomic<uint64_t> generation{1};

// Batch norms write into their running statistics, and the schemas of most do not say so.
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

// Facts live as long as the process: an operator may be taken back while it runs. Operators of one name that differ in
// nothing that matters here share theirs, so registering one again and again adds nothing.
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

// A small cache per thread keeps the lock off the hot path.
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

// torch.compile, torch.export and the like are looking at the code with tensors that are none.
static bool is_tracing() {
  using Key = c10::impl::TorchDispatchModeKey;
  using Modes = c10::impl::TorchDispatchModeTLS;
  return Modes::stack_len() != 0 && (Modes::get_mode(Key::FAKE) || Modes::get_mode(Key::PROXY));
}

// A backward pass inside the run: its operations are the engine's. A run that began inside of one (a checkpoint that is
// computed again) is another matter.
static bool is_engines(const GpThread& thread) {
  return backward_node() != thread.node;
}

// The value of an operation without results: what it wrote into. Many fused kernels and `_foreach_` operations are such.
static std::vector<c10::IValue> written_operands(const OpInfo& info, const c10::IValue* arguments) {
  std::vector<c10::IValue> operands;
  for (uint32_t i = 0; i < info.n_arguments && i < 64; ++i)
    if (info.written >> i & 1)
      operands.push_back(arguments[i]);
  return operands;
}

void intercept(const c10::OperatorHandle& op, torch::jit::Stack* stack, const OpInfo& info, uint64_t unseen) {
  const GpThread& thread = this_thread();
  if (thread.held && at::GradMode::is_enabled())
    refuse_gradients(held());
  // The stack may hold the caller's other values below ours.
  if (thread.wants & GP_WANTS_OPERANDS) {
    c10::IValue* arguments = stack->data() + (stack->size() - info.n_arguments);
    has_memory_for([&] { handle_operands(0, arguments, info.n_arguments, unseen, written_by(info, arguments)); });
  }
  GpToken token;
  const bool matters = (thread.families & info.family) && !info.cast;
  const uint32_t wanted = matters ? core->value_begin(GP_VALUE_OP, info.id, &token) : 0;
  const auto results = [&] { return stack->data() + (stack->size() - info.n_returns); };
  if (!wanted) {
    op.callBoxed(stack);
    came_to_be(results(), info.n_returns);
    return;
  }
  const auto* arguments = stack->data() + (stack->size() - info.n_arguments);
  const bool told = !(wanted & GP_VALUE_ARGS) || has_memory_for([&] { give_op_args(token, op.schema(), arguments); });
  std::vector<c10::IValue> operands;
  if (info.n_returns == 0 && info.written)
    has_memory_for([&] { operands = written_operands(info, arguments); });
  try {
    op.callBoxed(stack);
  } catch (...) {
    core->value_abandon(&token);
    throw;
  }
  const bool writes = info.in_place || !operands.empty();
  const Ownership how = writes ? Ownership::InPlace : Ownership::Result;
  c10::IValue* values = operands.empty() ? results() : operands.data();
  const size_t n = operands.empty() ? info.n_returns : operands.size();
  if (!told || !has_memory_for([&] { handle_value(token, wanted, values, n, how, info.rewrapped); }))
    core->value_abandon(&token);
  if (!(thread.wants & GP_WANTS_OPERATIONS)) // it was the last one that matters here
    watch_rest_of_scope();
  came_to_be(results(), info.n_returns);
}

static void handle(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const GpThread& thread = this_thread();
  const bool flat = thread.flat && !thread.run;
  // With a flat run beside it, a thread is armed in every scope of another run.
  const bool wanted = flat ? !thread.declined : thread.wants & GP_WANTS_OPERATIONS;
  if (!wanted) {
    const bool watched = !flat && watches_scope();
    if (watched && at::GradMode::is_enabled())
      refuse_gradients(held());
    op.callBoxed(stack);
    if (watched) {
      const size_t n = op.schema().returns().size();
      came_to_be(stack->data() + (stack->size() - n), n);
    }
    return;
  }
  const OpInfo& info = info_of(op);
  if (info.query || is_tracing()) {
    op.callBoxed(stack);
  } else if (flat) {
    intercept_flat(op, stack, info);
  } else if (is_engines(thread)) {
    op.callBoxed(stack);
  } else {
    intercept(op, stack, info, 0);
  }
}

static void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard outside(kKey);
  if (!has_mirrors() || is_tracing())
    return handle(op, stack);
  const OpInfo& info = info_of(op);
  // Some only change what their tensor is a view of (`t_`), or its place in autograd's graph (`detach_`).
  const bool stores = !op.hasTag(at::Tag::inplace_view);
  Writes writes(info, stack->data() + (stack->size() - info.n_arguments), stores);
  handle(op, stack);
  writes.reflect();
}

// Tells the core of every operator that there is, and that comes to be: only scopes in which a patched name could be an
// operation's need their operations counted.
class Existing : public c10::OpRegistrationListener {
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

// Never taken back, as the fallback below: a thread may be inside the dispatcher whenever that could be done.
c10::RegistrationHandleRAII* existing = nullptr;

void start_fallback() {
  if (!existing)
    existing =
        new c10::RegistrationHandleRAII(c10::Dispatcher::singleton().addRegistrationListener(std::make_unique<Existing>()));
  // Kept for the life of the process: a thread may be inside a run whenever this could be taken back.
  static auto* library = new torch::Library(torch::Library::IMPL, "_", std::make_optional(kKey), __FILE__, __LINE__);
  library->fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

} // namespace graphpatch
