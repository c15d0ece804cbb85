// Parts of distributed tensors. Python knows what a DTensor is; it is asked by one function.
#include "distributed.h"
#include "write.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>

namespace graphpatch {

// What Python's function is asked; the numbers of _distributed.py.
enum Question : int64_t {
  kIsDistributed,
  kLayout,
  kAdd,
  kReplace,
  kShow,
  kGather,
  kTake,
  kLocal,
};

// The same fields in the same order as in _distributed.py.
struct Request {
  int64_t question;
  const void* like; // a DTensor, where the tensor is a plain one
  const void* mask; // add, replace: the elements that change; NULL for all
  const void* other; // add, replace: what is written; take: what the function returned
  const char* text; // the answer's text, or why there is none
};

static std::atomic<TorchCallback> answerer{nullptr};

static at::Tensor ask(Request& request, const at::Tensor& tensor) {
  const void* made = nullptr;
  int status;
  {
    Apart apart;
    status = call_a_host([&] { return answerer.load()(&request, tensor.unsafeGetTensorImpl(), &made); });
  }
  TORCH_CHECK(status == 0, request.text ? request.text : "the DTensor could not be taken apart");
  return tensor_at(made);
}

static const void* address(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.unsafeGetTensorImpl() : nullptr;
}

bool has_parts() {
  return this_thread().held && !held().parts.empty();
}

static const Held::Part* known_part(const at::Tensor& tensor) {
  if (!tensor.defined() || !has_parts())
    return nullptr;
  const auto found = held().parts.find(tensor.unsafeGetTensorImpl());
  return found != held().parts.end() && !found->second.tensor.expired() ? &found->second : nullptr;
}

static bool may_be_distributed(const at::Tensor& tensor) {
  return answerer.load() && tensor.defined() && tensor.unsafeGetTensorImpl()->key_set().has(c10::DispatchKey::Python);
}

static bool is_dtensor(const at::Tensor& tensor) {
  if (!may_be_distributed(tensor))
    return false;
  Request request{kIsDistributed, nullptr, nullptr, nullptr, nullptr};
  return ask(request, tensor).defined();
}

Part part_of(const at::Tensor& tensor) {
  if (is_dtensor(tensor))
    return {true, {}, true};
  const Held::Part* part = known_part(tensor);
  return part ? Part{true, part->like, false} : Part{};
}

static const char* kept_text(const std::string& text) {
  static std::mutex mutex;
  const Lock lock(mutex);
  static auto& texts = *new std::set<std::string>;
  return texts.insert(text).first->c_str();
}

const char* part_layout(const at::Tensor& tensor) {
  const Held::Part* part = known_part(tensor);
  if (!part && !may_be_distributed(tensor))
    return nullptr;
  if (part && !part->like.defined())
    return "part of a DTensor";
  Request request{kLayout, part ? address(part->like) : nullptr, nullptr, nullptr, nullptr};
  const std::string why = reason([&] { ask(request, tensor); });
  return why.empty() && request.text ? kept_text(request.text) : nullptr;
}

static void remember_part(const at::Tensor& tensor, const at::Tensor& like) {
  if (!this_thread().held || !tensor.defined())
    return;
  held().parts.insert_or_assign(tensor.unsafeGetTensorImpl(), Held::Part{WeakTensor(tensor.getIntrusivePtr()), like});
}

// The sizes of the whole value.
static at::IntArrayRef whole_sizes(const Part& part, const at::Tensor& tensor) {
  return part.like.defined() ? part.like.sizes() : tensor.sizes();
}

at::Tensor written_in_parts(const Part& part, const at::Tensor& tensor, const GpTarget& target, bool differentiable) {
  TORCH_CHECK(target.action == GP_ZERO || target.action == GP_ADD || target.action == GP_REPLACE,
              "a part of a DTensor cannot be shown to a C function");
  if (!part.is_distributed && !part.like.defined()) {
    TORCH_CHECK(target.action == GP_ZERO && !target.slice_len,
                "it is computed from this rank's part of a DTensor, and it is not known how it lies in the value of all ranks: "
                "patch the DTensor before it, or what comes after the ranks' parts are put together; zero without a slice is "
                "possible here");
    const at::Tensor made = at::zeros_like(tensor);
    remember_part(made, {});
    return made;
  }
  const at::IntArrayRef sizes = whole_sizes(part, tensor);
  const auto options = at::TensorOptions(tensor.device()).dtype(tensor.scalar_type());
  at::Tensor mask;
  if (target.slice_len) {
    mask = at::zeros(sizes, options.dtype(at::kBool));
    mark(target, mask);
  }
  Request request{target.action == GP_ADD ? kAdd : kReplace, address(part.like), address(mask), nullptr, nullptr};
  const at::Tensor other = values_for(target, sizes, options, differentiable);
  request.other = address(other);
  at::Tensor made = ask(request, tensor);
  if (!part.is_distributed)
    remember_part(made, part.like);
  return made;
}

at::Tensor shown_whole(const Part& part, const at::Tensor& tensor, bool gathered) {
  if (!part.is_distributed && !part.like.defined())
    return tensor; // only the part itself can be shown
  Request request{gathered ? kGather : kShow, address(part.like), nullptr, nullptr, nullptr};
  return ask(request, tensor);
}

at::Tensor taken_apart(const Part& part, const at::Tensor& tensor, const at::Tensor& made) {
  if (!part.is_distributed && !part.like.defined())
    return made;
  Request request{kTake, address(part.like), nullptr, address(made), nullptr};
  at::Tensor taken = ask(request, tensor);
  if (!part.is_distributed)
    remember_part(taken, part.like);
  return taken;
}

at::Tensor local_part(const Part& part, const at::Tensor& tensor) {
  Request request{kLocal, nullptr, nullptr, nullptr, nullptr};
  return part.is_distributed ? ask(request, tensor) : tensor;
}

static bool contains(const std::string& name, const char* what) {
  return name.find(what) != std::string::npos;
}

static bool keeps_place(const c10::OperatorHandle& op) {
  static const auto& kAlike = *new std::set<std::string>{"aten::dropout", "aten::contiguous", "aten::clone", "aten::to",
                                                         "aten::detach",  "aten::alias",      "aten::copy_"};
  return op.hasTag(at::Tag::pointwise) || kAlike.count(op.schema().name()) != 0;
}

Parts::Parts(const c10::OperatorHandle& op, const c10::IValue* arguments, size_t n) : keeps_place_(keeps_place(op)) {
  const std::string& name = op.schema().name();
  const bool collective = contains(name, "c10d");
  for (size_t i = 0; i < n; ++i)
    for_each_tensor(arguments[i], [&](const at::Tensor& tensor) {
      const Held::Part* part = known_part(tensor);
      if (!part)
        return;
      if (collective && !contains(name, "reduce_scatter")) {
        held().parts.erase(tensor.unsafeGetTensorImpl()); // its value is that of all ranks from here on
        return;
      }
      operands_.push_back({tensor.sizes().vec(), part->like});
    });
}

void Parts::follow(const c10::IValue* results, size_t n) const {
  if (operands_.empty())
    return;
  for (size_t i = 0; i < n; ++i)
    for_each_tensor(results[i], [&](const at::Tensor& tensor) {
      if (may_be_distributed(tensor))
        return;
      const Operand& first = operands_[0];
      const bool same = keeps_place_ && std::all_of(operands_.begin(), operands_.end(), [&](const Operand& operand) {
                          return operand.sizes == tensor.sizes() && operand.like.is_same(first.like);
                        });
      remember_part(tensor, same ? first.like : at::Tensor());
    });
}

void register_parts() {
  using torch::jit::Operator;
  using torch::jit::Stack;
  const auto alias = c10::AliasAnalysisKind::CONSERVATIVE;
  static auto* operators = new torch::jit::RegisterOperators({
      // The address of Python's function, a gp_torch_callback whose user's pointer is a Request.
      Operator(
          "graphpatch::distribute(int callback) -> ()",
          [](Stack& stack) { answerer = reinterpret_cast<TorchCallback>(torch::jit::pop(stack).toInt()); }, alias),
      // `part` is this rank's part of a DTensor; `like` is a DTensor with its placements and its global shape.
      Operator(
          "graphpatch::part(Tensor part, Tensor like) -> ()",
          [](Stack& stack) {
            const at::Tensor like = torch::jit::pop(stack).toTensor();
            const at::Tensor part = torch::jit::pop(stack).toTensor();
            remember_part(part, like);
          },
          alias),
  });
  (void)operators;
}

} // namespace graphpatch
