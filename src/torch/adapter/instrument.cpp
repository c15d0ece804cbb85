// Copies a function's graph, inlines its calls the way libtorch's inliner does, and puts markers around the calls of
// modules: `enter` before a callee's first node, `input` on each of its arguments, `leave` on its result. The chain of
// attribute look-ups behind a call gives the module's full path, which libtorch's own inlining forgets.
#include "instrument.h"
#include "containers.h"
#include "gradients.h"
#include "source.h"

#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/custom_operator.h>

#include <mutex>
#include <string_view>
#include <unordered_map>

namespace graphpatch {

using namespace torch::jit;

Scope::Scope(const std::string& module_path, const std::string& absolute_path, const std::string& class_name,
             const std::vector<std::string>& inputs) {
  std::vector<GpStr> names;
  for (const std::string& input : inputs)
    names.push_back(gp_str(input));
  GpScopeInfo info{gp_str(module_path), gp_str(absolute_path), gp_str(class_name), names.data(), names.size()};
  handle_ = core->scope_define(&info, &family_);
}

Scope::~Scope() {
  core->scope_free(handle_);
}

// ---- markers ----

// Made when they are first used, not while the adapter is loaded: an exception for lack of memory that is thrown during loading
// passes through the dynamic linker and ends the process.
struct Symbols {
  const Symbol enter_root = Symbol::fromQualString("graphpatch::enter_root");
  const Symbol enter = Symbol::fromQualString("graphpatch::enter");
  const Symbol input = Symbol::fromQualString("graphpatch::input");
  const Symbol leave = Symbol::fromQualString("graphpatch::leave");
  const Symbol grad = Symbol::fromQualString("aten::grad");
  const Symbol backward = Symbol::fromQualString("aten::backward");
  const Symbol scope = Symbol::attr("graphpatch_scope");
  const Symbol index = Symbol::attr("graphpatch_index");
  const Symbol function = Symbol::attr("graphpatch_function");
};
static const Symbols& symbols() {
  static const Symbols all;
  return all;
}

// Nodes carry numbers only; the scopes behind them live as long as any code made from the nodes.
static std::mutex scopes_mutex;
static NeverDestroyed<std::unordered_map<int64_t, std::weak_ptr<Scope>>> scopes;

static int64_t number_of(const std::shared_ptr<Scope>& scope) {
  static int64_t next = 0;
  const Lock lock(scopes_mutex);
  scopes.value.emplace(++next, scope);
  return next;
}

static std::shared_ptr<Scope> scope_of(const Node* node) {
  const Lock lock(scopes_mutex);
  auto found = scopes.value.find(node->i(symbols().scope));
  auto scope = found == scopes.value.end() ? nullptr : found->second.lock();
  TORCH_CHECK(scope, "a graph with markers of graphpatch outlived what they refer to");
  return scope;
}

static void give_wanted_source(uint32_t wants) {
  if (wants & GP_WANTS_SOURCE)
    has_memory_for(give_scope_source);
}

static Operation enter_root_marker(const Node* node) {
  return [scope = scope_of(node)](Stack& stack) {
    const c10::IValue module = std::exchange(stack.back(), c10::IValue());
    if (!this_thread().run)
      begin_waiting(scope->handle(), module);
    if (!this_thread().run)
      return;
    give_wanted_source(core->root_enter(scope->handle()));
    begin_gradients();
  };
}

// Nothing is wanted of the scope that begins, so the core need not be asked. It takes over when the scope is left.
static void enter_cold(GpThread& thread) {
  thread.cold = 1;
  thread.wants = thread.frame = thread.outer_wants = thread.outer_frame = 0;
  thread.families = thread.scopes = 0;
  if (thread.armed && !thread.flat) {
    thread.armed = 0;
    arm(0);
  }
}

static Operation enter_marker(const Node* node) {
  return [scope = scope_of(node), family = scope_of(node)->family()](Stack& stack) {
    stack.back() = c10::IValue();
    GpThread& thread = this_thread();
    settle_containers();
    if (thread.cold)
      ++thread.cold;
    else if (is_inside(thread) && !(thread.scopes & family))
      enter_cold(thread);
    else if (thread.run)
      give_wanted_source(core->scope_enter(scope->handle()));
  };
}

// Outside of a run, or below a scope where nothing is wanted, the value passes through unchanged.
static Operation input_marker(const Node* node) {
  return [scope = scope_of(node), index = static_cast<uint32_t>(node->i(symbols().index))](Stack& stack) {
    if (!is_inside(this_thread()))
      return;
    c10::impl::ExcludeDispatchKeyGuard outside(kKey);
    handle_scope_value(GP_VALUE_INPUT, index, &stack.back(), Ownership::Borrowed);
  };
}

static Operation leave_marker(const Node* node) {
  return [function = node->s(symbols().function)](Stack& stack) {
    GpThread& thread = this_thread();
    if (thread.run && !function.empty())
      watch_gradients(stack.back(), function);
    if (thread.cold > 1) {
      --thread.cold;
      return;
    }
    if (!thread.run)
      return;
    if (is_inside(thread)) {
      c10::impl::ExcludeDispatchKeyGuard outside(kKey);
      handle_scope_value(GP_VALUE_OUTPUT, 0, &stack.back(), Ownership::Result);
      leave_containers(thread.frame, thread.outer_frame);
    }
    core->scope_leave();
  };
}

void register_markers() {
  // Conservative alias analysis: no pass of libtorch moves, merges or drops a marker.
  const auto alias = c10::AliasAnalysisKind::CONSERVATIVE;
  static auto* operators = new RegisterOperators({
      Operator(symbols().enter_root, enter_root_marker, alias),
      Operator(symbols().enter, enter_marker, alias),
      Operator(symbols().input, input_marker, alias),
      Operator(symbols().leave, leave_marker, alias),
  });
  (void)operators;
}

// ---- instrumentation ----

namespace {

class Instrumenter {
public:
  std::string lost;

  std::shared_ptr<Graph> root(GraphFunction& function, const c10::ClassTypePtr& type, std::shared_ptr<Scope>& scope) {
    auto graph = function.graph()->copy();
    scope = std::make_shared<Scope>("", "", class_name(type), input_names(function, type));
    keep_.push_back(scope);
    walk(graph->block(), {{graph->inputs().at(0), ""}}, "");
    enclose(*graph, scope, symbols().enter_root, class_name(type) + "." + function.name());
    return graph;
  }

  // Scopes that the graph's nodes refer to by number.
  std::vector<std::shared_ptr<Scope>> take() {
    return std::move(keep_);
  }

private:
  using Paths = std::unordered_map<Value*, std::string>; // paths below the called module, of values that are modules

  static std::string class_name(const c10::ClassTypePtr& type) {
    return type->name() ? type->name()->qualifiedName() : std::string();
  }

  // A call of a module, as opposed to a helper method of it. Traced modules called twice have forward1, forward2 ... An
  // overloaded forward, as nn.LSTM has, is forward__0, forward__1 ...
  static bool is_forward(std::string_view method) {
    constexpr std::string_view kForward = "forward", kOverload = "__";
    if (method.substr(0, kForward.size()) != kForward)
      return false;
    method.remove_prefix(kForward.size());
    if (method.size() > kOverload.size() && method.substr(0, kOverload.size()) == kOverload)
      method.remove_prefix(kOverload.size());
    return method.find_first_not_of("0123456789") == std::string_view::npos;
  }

  static std::vector<std::string> input_names(const Function& function, const c10::ClassTypePtr& type) {
    std::vector<std::string> names;
    const auto& arguments = function.getSchema().arguments();
    for (size_t i = 1; i < arguments.size(); ++i)
      names.push_back(arguments[i].name());
    // Tracing names an argument after the caller's value. For a class of libtorch's own, the names in its forward are known.
    constexpr std::string_view kLayers = "__torch__.torch.nn.modules.";
    const std::string name = class_name(type);
    const auto at = name.compare(0, kLayers.size(), kLayers) == 0 ? name.find('.', kLayers.size()) : std::string::npos;
    if (names.size() == 1 && at != std::string::npos) {
      const std::string file = name.substr(kLayers.size(), at - kLayers.size());
      if (file != "container" && file != "transformer" && file != "loss" && file != "distance")
        names[0] = "input";
      else if (name.find(".Sequential", at) != std::string::npos)
        names[0] = "input";
    }
    return names;
  }

  // Nobody uses the result: inlining records the place of the call only for nodes that have a result. It takes the place of the
  // module on the interpreter's stack, which so needs no more memory.
  static Node* create_enter(Graph& graph, Symbol kind, int64_t number, Value* module) {
    Node* node = graph.create(kind, {module}, 1);
    node->i_(symbols().scope, number);
    node->output()->setType(c10::NoneType::get());
    return node;
  }

  // `function`: the name of what is called as a root; empty for a scope.
  void enclose(Graph& graph, const std::shared_ptr<Scope>& scope, Symbol enter, const std::string& function) {
    const int64_t number = number_of(scope);
    Node* last = create_enter(graph, enter, number, graph.inputs().at(0));
    graph.prependNode(last);
    for (size_t i = 1; i < graph.inputs().size(); ++i) {
      Value* input = graph.inputs()[i];
      Node* marker = graph.create(symbols().input, {input}, 1);
      marker->i_(symbols().scope, number)->i_(symbols().index, static_cast<int64_t>(i - 1));
      marker->output()->setType(input->type());
      marker->insertAfter(last);
      input->replaceAllUsesAfterNodeWith(marker, marker->output());
      last = marker;
    }
    Value* result = graph.return_node()->input(0);
    Node* leave = graph.create(symbols().leave, {result}, 1);
    leave->s_(symbols().function, function);
    leave->output()->setType(result->type());
    graph.appendNode(leave);
    graph.return_node()->replaceInput(0, leave->output());
  }

  // `absolute`: the path of the called module below the root.
  void walk(Block* block, Paths paths, const std::string& absolute) {
    for (auto it = block->nodes().begin(); it != block->nodes().end();) {
      Node* node = *it++;
      keep_places(node);
      if (node->kind() == prim::GetAttr) {
        auto found = paths.find(node->input());
        if (found != paths.end())
          paths[node->output()] = join_path(found->second, node->s(attr::name));
      } else if (node->kind() == prim::CallMethod) {
        call_method(node, paths, absolute);
      } else if (node->kind() == prim::CallFunction) {
        call_function(node, absolute);
      } else if (node->kind() == aten::Int && node->input()->node()->kind() == prim::NumToTensor) {
        // Tracing writes `size` as a tensor made of an int that is read back at once. That is not an operation of the model's.
        node->output()->replaceAllUsesWith(node->input()->node()->input());
        node->destroy();
      } else if (node->hasAttribute(attr::Subgraph)) {
        // prim::fork: the body reads modules through the node's inputs. The body runs on a thread that has no run.
        forks = true;
        auto graph = node->g(attr::Subgraph)->copy();
        Paths inner;
        for (size_t i = 0; i < node->inputs().size() && i < graph->inputs().size(); ++i) {
          auto found = paths.find(node->input(i));
          if (found != paths.end())
            inner[graph->inputs()[i]] = found->second;
        }
        walk(graph->block(), inner, absolute);
        node->g_(attr::Subgraph, graph);
      } else {
        forks = forks || node->kind() == aten::wait; // for a task that somebody else has started
        differentiates = differentiates || node->kind() == symbols().grad || node->kind() == symbols().backward;
        if (node->kind() == prim::Constant && node->hasAttribute(attr::value) &&
            node->kindOf(attr::value) == AttributeKind::t && node->t(attr::value).dim() > 0)
          constant_tensors = true;
        if (std::string(node->kind().toUnqualString()).find("mkldnn") != std::string::npos)
          opaque = true;
        for (Block* inner : node->blocks())
          walk(inner, paths, absolute);
      }
    }
  }

  void call_function(Node* node, const std::string& absolute) {
    GraphFunction* callee = tryToGraphFunction(node);
    if (!callee)
      return;
    auto graph = callee->graph()->copy();
    walk(graph->block(), {}, absolute);
    node->removeInput(0);
    inlineCallTo(node, callee, graph.get());
  }

  void call_method(Node* node, const Paths& paths, const std::string& absolute) {
    auto found = paths.find(node->input(0));
    const bool known = found != paths.end();
    const std::string method = node->s(attr::name);
    GraphFunction* callee = tryToGraphFunction(node);
    auto type = node->input(0)->type()->cast<c10::ClassType>();
    const bool is_module = type ? type->is_module() : node->input(0)->type()->cast<c10::InterfaceType>() != nullptr;
    const bool is_scope = is_module && is_forward(method) && !(known && found->second.empty());

    if (!callee) { // behind an interface, so the called module is known only when the call runs
      if (is_scope)
        enclose_call(node, known ? found->second : "module", absolute);
      return;
    }
    auto graph = callee->graph()->copy();
    if (!is_scope) { // a helper method runs in its caller's scope
      walk(graph->block(), {{graph->inputs().at(0), known ? found->second : ""}}, absolute);
      inlineCallTo(node, callee, graph.get());
      return;
    }
    const std::string path = known ? found->second : type->name()->name();
    const std::string below = join_path(absolute, path);
    auto scope = std::make_shared<Scope>(path, below, class_name(type), input_names(*callee, type));
    keep_.push_back(scope);
    walk(graph->block(), {{graph->inputs().at(0), ""}}, below);
    enclose(*graph, scope, symbols().enter, "");
    inlineCallTo(node, callee, graph.get());
  }

  // Puts markers around a call that is not inlined.
  void enclose_call(Node* node, const std::string& path, const std::string& absolute) {
    Graph& graph = *node->owningGraph();
    std::vector<std::string> names;
    if (auto interface = node->input(0)->type()->cast<c10::InterfaceType>())
      if (const auto* schema = interface->getMethod(node->s(attr::name)))
        for (size_t i = 1; i < schema->arguments().size(); ++i)
          names.push_back(schema->arguments()[i].name());
    while (names.size() + 1 < node->inputs().size())
      names.push_back("argument_" + std::to_string(names.size()));
    auto scope = std::make_shared<Scope>(path, join_path(absolute, path), "", names);
    keep_.push_back(scope);
    const int64_t number = number_of(scope);
    Node* enter = create_enter(graph, symbols().enter, number, node->input(0));
    enter->insertBefore(node);
    for (size_t i = 1; i < node->inputs().size(); ++i) {
      Node* marker = graph.create(symbols().input, {node->input(i)}, 1);
      marker->i_(symbols().scope, number)->i_(symbols().index, static_cast<int64_t>(i - 1));
      marker->output()->setType(node->input(i)->type());
      marker->insertBefore(node);
      node->replaceInput(i, marker->output());
    }
    Node* leave = graph.create(symbols().leave, {node->output()}, 1);
    leave->s_(symbols().function, "");
    leave->output()->setType(node->output()->type());
    leave->insertAfter(node);
    node->output()->replaceAllUsesAfterNodeWith(leave, leave->output());
    behind_interface = true;
  }

public:
  bool constant_tensors = false;
  bool opaque = false;
  bool behind_interface = false;
  bool forks = false;
  bool differentiates = false;

private:
  std::vector<std::shared_ptr<Scope>> keep_;
};

} // namespace

std::shared_ptr<Graph> instrument(GraphFunction& function, const c10::ClassTypePtr& type, std::shared_ptr<Scope>& root,
                                  std::vector<std::shared_ptr<Scope>>& keep, std::string& lost, bool& waits) {
  Instrumenter instrumenter;
  auto graph = instrumenter.root(function, type, root);
  bool parameters = false;
  for (size_t i = 0; i < type->numAttributes(); ++i) {
    auto below = type->getAttribute(i)->cast<c10::ClassType>();
    parameters = parameters || (below && below->is_module()) || type->getAttribute(i) == c10::TensorType::get();
  }
  const auto say = [&](const std::string& text) { lost += (lost.empty() ? "" : "; ") + text; };
  if (instrumenter.constant_tensors && !parameters)
    say("a frozen module, whose graph no longer tells its submodules and parameters: operations are listed flat");
  if (instrumenter.opaque)
    say("its graph has operations that were handed to oneDNN, whose values are not visible");
  if (instrumenter.behind_interface)
    say("a module is called through an interface: its operations are listed flat in its scope");
  waits = instrumenter.forks;
  if (waits)
    say("parts of it run as parallel tasks (fork): what they do, and what follows a wait for them, is not seen");
  if (instrumenter.differentiates)
    say(std::string("it takes gradients itself; ") + kOtherFormulas);
  keep = instrumenter.take();
  return graph;
}

} // namespace graphpatch
