// Values of libtorch as structs of the seam. Nothing here changes a value.
#include "distributed.h"
#include "dlpack_abi.h"

#include <ATen/TensorSubclassLikeUtils.h>

namespace graphpatch {

// libtorch's names of dtypes whose elements we neither read nor write.
static const char* quantized_name(c10::ScalarType type) {
  switch (type) {
    case at::kQInt8:
      return "qint8";
    case at::kQUInt8:
      return "quint8";
    case at::kQInt32:
      return "qint32";
    default:
      return nullptr;
  }
}

uint8_t dtype_code(c10::ScalarType type) {
  const dlpack::Kind* known = dlpack::find_kind(type);
  return known ? known->seam : uint8_t{GP_DTYPE_OTHER};
}

const char* dtype_name(c10::ScalarType type) {
  if (const dlpack::Kind* known = dlpack::find_kind(type))
    return known->name;
  const char* name = quantized_name(type);
  return name ? name : c10::toString(type);
}

c10::ScalarType dtype_of(uint8_t code) {
  for (const dlpack::Kind& known : dlpack::kKinds)
    if (known.seam == code)
      return known.type;
  TORCH_CHECK(false, "no dtype has the number ", int(code));
}

static const char* layout_name(c10::Layout layout) {
  switch (layout) {
    case c10::kStrided:
      return "strided";
    case c10::kSparse:
      return "sparse_coo";
    case c10::kSparseCsr:
      return "sparse_csr";
    case c10::kSparseCsc:
      return "sparse_csc";
    case c10::kSparseBsr:
      return "sparse_bsr";
    case c10::kSparseBsc:
      return "sparse_bsc";
    case c10::kMkldnn:
      return "mkldnn";
    default:
      return "other";
  }
}

static const char* device_name(c10::DeviceType type) {
  switch (type) {
    case c10::kCPU:
      return "cpu";
    case c10::kCUDA:
      return "cuda";
    case c10::kMeta:
      return "meta";
    case c10::kMPS:
      return "mps";
    case c10::kXPU:
      return "xpu";
    default:
      return "other";
  }
}

bool is_plain(const at::Tensor& tensor) {
  return tensor.layout() == c10::kStrided && tensor.has_storage() && !tensor.is_quantized() && !tensor.is_nested() &&
         !tensor.is_conj() && !tensor.is_neg() && !at::isTensorSubclassLike(tensor) &&
         !tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
}

void Items::add_tensor(const at::Tensor& tensor) {
  GpItem item{};
  if (!tensor.defined()) {
    item.tag = GP_UNDEFINED;
  } else if (tensor.is_nested() || tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides()) {
    item.tag = GP_OTHER;
    item.text = gp_str(tensor.is_nested() ? "NestedTensor" : "SymbolicTensor");
    item.identity = tensor.unsafeGetTensorImpl();
  } else {
    item.tag = GP_TENSOR;
    item.count = static_cast<uint32_t>(tensor.dim());
    item.sizes = tensor.sizes().data();
    item.identity = tensor.unsafeGetTensorImpl();
    item.dtype = dtype_code(tensor.scalar_type());
    item.dtype_name = dtype_name(tensor.scalar_type());
    item.device = device_name(tensor.device().type());
    item.device_index = tensor.device().has_index() ? tensor.device().index() : -1;
    // A tensor that vmap has wrapped shows the shape that the model's code sees, which is the shape of one example.
    const bool is_batched = tensor.unsafeGetTensorImpl()->key_set().has(c10::DispatchKey::FuncTorchBatched);
    const char* part = part_layout(tensor);
    item.layout = part ? part : is_batched ? "batched" : layout_name(tensor.layout());
  }
  items_.push_back(item);
}

void Items::rename(const GpItem* like) {
  for (size_t i = 0; i < items_.size(); ++i)
    if (like[i].tag == GP_OTHER) {
      items_[i].tag = GP_OTHER;
      items_[i].text = like[i].text;
    }
}

void Items::open_tuple(size_t n) {
  GpItem item{};
  item.tag = GP_TUPLE;
  item.count = static_cast<uint32_t>(n);
  items_.push_back(item);
}

static uint8_t plain_tag(const c10::IValue& value) {
  if (value.isNone())
    return GP_NONE;
  if (value.isBool())
    return GP_BOOL;
  if (value.isInt())
    return GP_INT;
  if (value.isDouble())
    return GP_FLOAT;
  if (value.isComplexDouble())
    return GP_COMPLEX;
  if (value.isString())
    return GP_STR;
  return GP_OTHER;
}

GpScalar number_of(const c10::IValue& value) {
  GpScalar number{};
  number.tag = plain_tag(value);
  if (number.tag == GP_BOOL) {
    number.i = value.toBool();
  } else if (number.tag == GP_INT) {
    number.i = value.toInt();
  } else if (number.tag == GP_FLOAT) {
    number.re = value.toDouble();
  } else if (number.tag == GP_COMPLEX) {
    number.re = value.toComplexDouble().real();
    number.im = value.toComplexDouble().imag();
  }
  return number;
}

c10::IValue value_of(const GpScalar& number) {
  switch (number.tag) {
    case GP_BOOL:
      return number.i != 0;
    case GP_INT:
      return number.i;
    case GP_COMPLEX:
      return c10::complex<double>(number.re, number.im);
    default:
      return number.re;
  }
}

std::optional<std::string> key_text(const c10::IValue& key) {
  if (key.isString())
    return key.toStringRef();
  if (key.isBool())
    return std::string(key.toBool() ? "True" : "False");
  if (key.isInt())
    return std::to_string(key.toInt());
  return std::nullopt;
}

c10::IValue key_named(const c10::Dict<c10::IValue, c10::IValue>& dict, const std::string& name) {
  const c10::IValue text(name);
  if (dict.contains(text))
    return text;
  for (const auto& entry : dict)
    if (key_text(entry.key()) == name)
      return entry.key();
  return c10::IValue();
}

void Items::add(const c10::IValue& value) {
  if (value.isTensor()) {
    add_tensor(value.toTensor());
    return;
  }
  GpItem item{};
  if (value.isTuple()) {
    const auto& elements = value.toTupleRef().elements();
    open_tuple(elements.size());
    for (const c10::IValue& element : elements)
      add(element);
  } else if (value.isList()) {
    const auto elements = value.toListRef();
    item.tag = GP_LIST;
    item.count = static_cast<uint32_t>(elements.size());
    items_.push_back(item);
    for (const c10::IValue& element : elements)
      add(element);
  } else if (value.isGenericDict()) {
    const auto dict = value.toGenericDict();
    item.tag = GP_DICT;
    item.count = static_cast<uint32_t>(dict.size());
    if (dict.size() && !key_text(dict.begin()->key())) { // all keys of a TorchScript dict are of one type
      item.tag = GP_OTHER;
      item.text = gp_str("dict (keys without names)");
    }
    items_.push_back(item);
    if (item.tag == GP_OTHER)
      return;
    for (const auto& entry : dict) {
      size_t at = items_.size();
      add(entry.value());
      if (entry.key().isString()) {
        items_[at].key = gp_str(entry.key().toStringRef());
      } else {
        keys_.push_back(std::make_unique<const std::string>(key_text(entry.key()).value_or("")));
        items_[at].key = gp_str(*keys_.back());
      }
    }
  } else {
    item.number = number_of(value);
    item.tag = item.number.tag;
    if (item.tag == GP_STR)
      item.text = gp_str(value.toStringRef());
    else if (item.tag == GP_OTHER)
      item.text = gp_str("object");
    items_.push_back(item);
  }
}

} // namespace graphpatch
