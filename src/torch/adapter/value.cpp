// Values of libtorch in the words of the seam. Only reads.
#include "adapter.h"

#include <ATen/TensorSubclassLikeUtils.h>

namespace graphpatch {

struct DtypeName {
  c10::ScalarType type;
  uint8_t code;
  const char* name;
};

// The numbers of libtorch and ours meet here and nowhere else.
static const DtypeName kDtypes[] = {
    {at::kFloat, GP_F32, "float32"},
    {at::kHalf, GP_F16, "float16"},
    {at::kBFloat16, GP_BF16, "bfloat16"},
    {at::kDouble, GP_F64, "float64"},
    {at::kLong, GP_I64, "int64"},
    {at::kInt, GP_I32, "int32"},
    {at::kShort, GP_I16, "int16"},
    {at::kChar, GP_I8, "int8"},
    {at::kByte, GP_U8, "uint8"},
    {at::kBool, GP_BOOL8, "bool"},
    {at::kComplexFloat, GP_C64, "complex64"},
    {at::kComplexDouble, GP_C128, "complex128"},
    {at::kComplexHalf, GP_C32, "complex32"},
    {at::kUInt16, GP_U16, "uint16"},
    {at::kUInt32, GP_U32, "uint32"},
    {at::kUInt64, GP_U64, "uint64"},
    {at::kFloat8_e4m3fn, GP_F8_E4M3FN, "float8_e4m3fn"},
    {at::kFloat8_e5m2, GP_F8_E5M2, "float8_e5m2"},
    {at::kFloat8_e4m3fnuz, GP_F8_E4M3FNUZ, "float8_e4m3fnuz"},
    {at::kFloat8_e5m2fnuz, GP_F8_E5M2FNUZ, "float8_e5m2fnuz"},
    {at::kQInt8, GP_DTYPE_OTHER, "qint8"},
    {at::kQUInt8, GP_DTYPE_OTHER, "quint8"},
    {at::kQInt32, GP_DTYPE_OTHER, "qint32"},
};

static const DtypeName* find_dtype(c10::ScalarType type) {
  for (const DtypeName& entry : kDtypes)
    if (entry.type == type)
      return &entry;
  return nullptr;
}

uint8_t dtype_code(c10::ScalarType type) {
  const DtypeName* entry = find_dtype(type);
  return entry ? entry->code : uint8_t{GP_DTYPE_OTHER};
}

const char* dtype_name(c10::ScalarType type) {
  const DtypeName* entry = find_dtype(type);
  return entry ? entry->name : c10::toString(type);
}

c10::ScalarType dtype_of(uint8_t code) {
  for (const DtypeName& entry : kDtypes)
    if (entry.code == code)
      return entry.type;
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
    item.layout = layout_name(tensor.layout());
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
    item.count = 0;
    size_t head = items_.size();
    items_.push_back(item);
    for (const auto& entry : dict) {
      // Keys that are no strings (TorchScript allows int, float, bool, Tensor) have no name to dig by.
      if (!entry.key().isString())
        continue;
      size_t at = items_.size();
      add(entry.value());
      items_[at].key = gp_str(entry.key().toStringRef());
      ++items_[head].count;
    }
  } else {
    item.tag = plain_tag(value);
    item.number.tag = item.tag;
    if (item.tag == GP_BOOL) {
      item.number.i = value.toBool();
    } else if (item.tag == GP_INT) {
      item.number.i = value.toInt();
    } else if (item.tag == GP_FLOAT) {
      item.number.re = value.toDouble();
    } else if (item.tag == GP_COMPLEX) {
      item.number.re = value.toComplexDouble().real();
      item.number.im = value.toComplexDouble().imag();
    } else if (item.tag == GP_STR) {
      item.text = gp_str(value.toStringRef());
    } else if (item.tag == GP_OTHER) {
      item.text = gp_str("object");
    }
    items_.push_back(item);
  }
}

} // namespace graphpatch
