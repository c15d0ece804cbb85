// Applies one target to one tensor: the core writes plain CPU memory, libtorch everything else.
#include "device.h"
#include "dlpack_abi.h"
#include "write.h"

#include <ATen/TensorIndexing.h>

#include <atomic>

namespace graphpatch {

[[noreturn]] static void raise() {
  TORCH_CHECK(false, to_string(core->failure()));
}

void verdict(uint32_t answer) {
  if (answer == GP_RAISE)
    raise();
}

static c10::Scalar scalar(const GpScalar& number) {
  return value_of(number).toScalar();
}

// The core's tensor as one of libtorch's. Unless `owned`, it borrows the core's memory for this call.
static at::Tensor tensor_of(const GpTensorArg& arg, const at::Tensor& like, bool owned) {
  at::Tensor tensor;
  if (arg.foreign) {
    tensor = *static_cast<const at::Tensor*>(arg.foreign);
  } else {
    tensor = at::from_blob(const_cast<void*>(arg.data), c10::IntArrayRef(arg.sizes, arg.rank),
                           at::TensorOptions(dtype_of(arg.dtype)));
    if (owned)
      tensor = tensor.clone();
  }
  return tensor.device() == like.device() || tensor.dim() == 0 ? tensor : tensor.to(like.device());
}

struct Index {
  std::vector<at::indexing::TensorIndex> items;
  bool advanced = false; // reads a copy rather than a view
};

static Index index_of(const GpTarget& target, const at::Tensor& like) {
  using namespace at::indexing;
  Index out;
  for (size_t i = 0; i < target.slice_len; ++i) {
    const GpSliceItem& item = target.slice[i];
    switch (item.tag) {
      case GP_SLICE_INDEX:
        out.items.emplace_back(item.start);
        break;
      case GP_SLICE_RANGE: {
        std::optional<c10::SymInt> start, stop;
        if (item.has_start)
          start = item.start;
        if (item.has_stop)
          stop = item.stop;
        out.items.emplace_back(Slice(start, stop, item.step));
        break;
      }
      case GP_SLICE_ELLIPSIS:
        out.items.emplace_back(Ellipsis);
        break;
      case GP_SLICE_TENSOR:
        out.items.emplace_back(tensor_of(*item.tensor, like, true));
        out.advanced = true;
        break;
      default:
        out.items.emplace_back(None);
    }
  }
  if (out.items.empty())
    out.items.emplace_back(Ellipsis);
  return out;
}

// The kind of a tensor that is not plain strided memory, for messages.
static std::string kind_of(const at::Tensor& tensor) {
  if (tensor.is_nested())
    return "nested";
  if (tensor.is_quantized())
    return "quantized";
  if (tensor.is_meta())
    return "meta (it has no memory)";
  if (tensor.layout() != c10::kStrided)
    return c10::str(tensor.layout());
  return c10::str("wrapped ", tensor.scalar_type());
}

// Calls the user's function on the picked part. Returns an undefined tensor if the function left the part alone.
static at::Tensor call_user(const GpTarget& target, at::Tensor part) {
  part = part.detach();
  if (!is_plain(part))
    part = part.clone().resolve_conj().resolve_neg();
  TORCH_CHECK(is_plain(part) && !part.is_meta(), "a ", kind_of(part), " tensor cannot be shown to a function");
  auto shown = dlpack::borrow(part);
  DlManagedTensor* made = nullptr;
  int status;
  {
    Apart apart;
    const auto function = reinterpret_cast<int (*)(void*, DlManagedTensor*, DlManagedTensor**)>(target.callback);
    status = call_a_host([&] { return function(target.user, &shown.managed, &made); });
  }
  at::Tensor result = made ? dlpack::take(made) : at::Tensor();
  TORCH_CHECK(status == 0, "the function returned ", status);
  return result;
}

// Calls a function of the host's with libtorch's own tensor. Returns an undefined tensor if it made none.
static at::Tensor call_host(TorchCallback callback, void* user, const at::Tensor& part) {
  const void* made = nullptr;
  const void* shown = part.defined() ? part.unsafeGetTensorImpl() : nullptr;
  int status;
  {
    Apart apart;
    status = call_a_host([&] { return callback(user, shown, &made); });
  }
  TORCH_CHECK(status == 0, "the function returned ", status);
  return tensor_at(made);
}

// The same as call_user, but gradients go through the function.
static at::Tensor call_user_torch(const GpTarget& target, const at::Tensor& part) {
  return call_host(reinterpret_cast<TorchCallback>(target.callback), target.user, part);
}

// The function of Python's that keep_class calls, or null.
static std::atomic<TorchCallback> class_keeper{nullptr};

void keep_classes_by(TorchCallback callback) {
  class_keeper = callback;
}

void keep_class(const at::Tensor& before, at::Tensor& after) {
  const TorchCallback callback = class_keeper;
  if (!callback)
    return;
  at::Tensor made;
  const std::string why = reason([&] { made = call_host(callback, after.unsafeGetTensorImpl(), before); });
  TORCH_CHECK(why.empty(), "graphpatch: patch of a value with a class of its own: ", why);
  if (made.defined())
    after = made;
}

const char* const kLosesGradient =
    "it is computed inside a torch.autograd.Function, whose backward gives the gradient of the value without the patch: patch "
    "what the function returns, or call it under torch.no_grad()";

bool loses_gradient(const at::Tensor& tensor) {
  return has_own_backward() && tensor.defined() && (tensor.is_floating_point() || tensor.is_complex());
}

bool is_alike(const at::Tensor& one, const at::Tensor& other) {
  return one.sizes() == other.sizes() && one.scalar_type() == other.scalar_type();
}

uint32_t show_to_function(const GpTarget& target, at::Tensor& tensor, bool keeps_kind) {
  at::Tensor made;
  const std::string why = reason([&] {
    if (!tensor.defined()) { // the value is None, and the function may return a tensor for it
      TORCH_CHECK(!target.slice_len, "the value in this run is None, which takes no slice");
      made = call_user_torch(target, tensor);
      if (made.defined())
        tensor = made;
      return;
    }
    const Part part = part_of(tensor);
    const at::Tensor shown = part.known ? shown_whole(part, tensor, target.slice_len != 0) : tensor;
    Index where = index_of(target, shown);
    made = call_user_torch(target, target.slice_len ? shown.index(where.items) : shown);
    if (!made.defined() || (!target.slice_len && made.is_same(shown)))
      return;
    TORCH_CHECK(!loses_gradient(tensor), kLosesGradient);
    TORCH_CHECK(target.slice_len || !keeps_kind || is_alike(made, shown), "the function returned a ", made.scalar_type(),
                " tensor of shape ", made.sizes(), " for one of ", tensor.scalar_type(), " and ", tensor.sizes(),
                ", which is written where it lies");
    if (target.slice_len) {
      at::Tensor copy = copy_of(shown);
      copy.index_put_(where.items, made.to(tensor.device()));
      made = copy;
    }
    tensor = part.known ? taken_apart(part, tensor, made) : made;
  });
  return elsewhere(target, why, &tensor);
}

// The same as Python's `tensor[slice] = value` and `tensor[slice] += value`, with autograd and every layout.
static void apply_with_libtorch(at::Tensor& tensor, const GpTarget& target, bool differentiable) {
  Index where = index_of(target, tensor);
  // Reading fails if an index is out of range; writing would find that out halfway.
  if (where.advanced && (target.action == GP_ZERO || target.action == GP_REPLACE))
    tensor.index(where.items);
  switch (target.action) {
    case GP_ZERO:
      tensor.index_put_(where.items, c10::Scalar(0));
      break;
    case GP_REPLACE:
      if (target.tensor)
        tensor.index_put_(where.items, tensor_of(*target.tensor, tensor, differentiable));
      else
        tensor.index_put_(where.items, scalar(target.value));
      break;
    case GP_CUSTOM: {
      at::Tensor made = call_user(target, tensor.index(where.items));
      if (made.defined())
        tensor.index_put_(where.items, made.to(tensor.device()));
      break;
    }
    default: {
      at::Tensor part = tensor.index(where.items);
      if (target.tensor)
        part.add_(tensor_of(*target.tensor, tensor, differentiable));
      else
        part.add_(scalar(target.value));
      if (where.advanced)
        tensor.index_put_(where.items, part);
    }
  }
}

void mark(const GpTarget& target, at::Tensor& mask) {
  mask.index_put_(index_of(target, mask).items, c10::Scalar(true));
}

at::Tensor values_for(const GpTarget& target, at::IntArrayRef sizes, const at::TensorOptions& options, bool differentiable) {
  const auto dtype = c10::typeMetaToScalarType(options.dtype());
  if (target.action == GP_ZERO)
    return at::zeros({}, options);
  if (!target.tensor)
    return target.action == GP_ADD ? at::scalar_tensor(scalar(target.value), options.dtype(scalar(target.value).type()))
                                   : at::empty({}, options).fill_(scalar(target.value));
  // A sum is computed in the wider dtype of the two, and then converted.
  auto wide = dtype;
  if (target.action == GP_ADD) {
    const auto sum = c10::promoteTypes(dtype, tensor_of(*target.tensor, at::empty({}, options), false).scalar_type());
    wide = c10::canCast(sum, dtype) ? sum : dtype;
  }
  at::Tensor values = at::zeros(sizes, options.dtype(wide));
  apply_with_libtorch(values, target, differentiable);
  return values;
}

uint32_t elsewhere(const GpTarget& target, const std::string& why, const at::Tensor* tensor) {
  c10::IntArrayRef sizes;
  bool known = false;
  if (tensor && tensor->defined() && !tensor->is_nested() && !tensor->unsafeGetTensorImpl()->has_symbolic_sizes_strides())
    known = true, sizes = tensor->sizes();
  return core->applied_elsewhere(&target, gp_str(why), sizes.data(), known ? sizes.size() : SIZE_MAX);
}

static GpTensor view_of(const at::Tensor& tensor, void* data) {
  GpTensor view{};
  view.data = data;
  view.sizes = tensor.sizes().data();
  view.strides = tensor.strides().data();
  view.rank = static_cast<uint32_t>(tensor.dim());
  view.dtype = dtype_code(tensor.scalar_type());
  return view;
}

static bool is_plain_cpu(const at::Tensor& tensor) {
  return is_plain(tensor) && tensor.device().is_cpu() && dtype_code(tensor.scalar_type()) != GP_DTYPE_OTHER;
}

uint32_t write(const GpTarget& target, at::Tensor& tensor, bool differentiable) {
  if (!differentiable && is_plain_cpu(tensor)) {
    GpTensor view = view_of(tensor, tensor.mutable_data_ptr());
    uint32_t answer = core->apply(&target, &view);
    if (answer != GP_ELSEWHERE)
      return answer;
  } else if (!differentiable && target.action <= GP_REPLACE && is_plain_cuda(tensor)) {
    uint32_t answer = write_on_device(target, tensor);
    if (answer != GP_ELSEWHERE)
      return answer;
  }
  flush_device();
  std::string why = reason([&] { apply_with_libtorch(tensor, target, differentiable); });
  if (!why.empty() && tensor.layout() != c10::kStrided)
    why = "libtorch cannot do this to a " + kind_of(tensor) + " tensor: " + why;
  return elsewhere(target, why, &tensor);
}

void keep_tensor(const GpTarget& target, const at::Tensor& tensor) {
  if (!core->keep_wanted(&target))
    return;
  if (tensor.defined() && is_plain_cuda(tensor))
    return keep_on_device(target, tensor);
  at::Tensor plain = tensor;
  std::string why = tensor.defined() ? "" : "there is no tensor here in this run";
  if (const Part part = part_of(tensor); part.known) {
    // The ranks do not wait for each other here: one of them may be the only one that was asked for the value.
    why = reason([&] { plain = local_part(part, tensor); });
    const char* layout = part_layout(tensor);
    core->note(gp_str(to_string(target.text) + ": what is kept is this rank's part: " + (layout ? layout : "of a DTensor")));
  }
  if (why.empty() && !is_plain_cpu(plain)) {
    why = reason([&] {
      TORCH_CHECK(!tensor.is_meta(), "a ", kind_of(tensor), " tensor cannot be kept");
      plain = plain.detach().resolve_conj().resolve_neg().to(c10::kCPU);
      TORCH_CHECK(is_plain_cpu(plain), "a ", kind_of(tensor), " tensor cannot be kept");
    });
  }
  if (!why.empty()) {
    verdict(elsewhere(target, why, &tensor));
    return;
  }
  GpTensor view = view_of(plain, const_cast<void*>(plain.const_data_ptr()));
  verdict(core->keep(&target, &view));
}

} // namespace graphpatch
