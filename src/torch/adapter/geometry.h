// Where the elements of a tensor lie in its memory.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <algorithm>

namespace graphpatch {

// The positions of elements in a memory, in bytes.
struct Geometry {
  using Sizes = c10::SmallVector<int64_t, 6>;

  Sizes sizes;
  Sizes strides;
  int64_t offset = 0;
  int64_t element = 1;

  explicit Geometry(const at::Tensor& tensor)
      : sizes(tensor.sizes().begin(), tensor.sizes().end()), element(static_cast<int64_t>(tensor.element_size())) {
    for (const int64_t stride : tensor.strides())
      strides.push_back(stride * element);
    offset = tensor.storage_offset() * element;
  }

  // One past the last byte.
  int64_t end() const {
    int64_t last = offset + element;
    for (size_t d = 0; d < sizes.size(); ++d)
      last += (sizes[d] - 1) * strides[d];
    return last;
  }

  Geometry moved(int64_t bytes) const {
    Geometry other = *this;
    other.offset += bytes;
    return other;
  }

  bool divides_by(int64_t unit) const {
    return element == unit && offset % unit == 0 &&
           std::all_of(strides.begin(), strides.end(), [&](int64_t stride) { return stride % unit == 0; });
  }

  // The same geometry counted in units. An element may consist of several units.
  Geometry in_units(int64_t unit) const {
    Geometry other = *this;
    for (int64_t& stride : other.strides)
      stride /= unit;
    other.offset /= unit;
    if (element != unit) {
      other.sizes.push_back(element / unit);
      other.strides.push_back(1);
    }
    return other;
  }
};

} // namespace graphpatch
