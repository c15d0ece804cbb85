// Readers of a parameter's memory that a patch of the parameter does not reach.
#include "adapter.h"

#include <algorithm>

namespace graphpatch {

static const c10::StorageImpl* memory_shown_by(const at::Tensor& tensor) {
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  const bool known = tensor.has_storage() && !tensor.is_nested() && !impl->has_symbolic_sizes_strides();
  return known ? tensor.storage().unsafeGetStorageImpl() : nullptr;
}

// The elements that the tensor shows lie between these two, which belong to them.
static std::pair<int64_t, int64_t> ends_of(const at::Tensor& tensor) {
  int64_t last = tensor.storage_offset();
  for (int64_t d = 0; d < tensor.dim(); ++d)
    last += (tensor.size(d) - 1) * tensor.stride(d);
  return {tensor.storage_offset(), last};
}

void Readers::tell(Patched& one) {
  one.told = true;
  const std::string text = one.patch + ": an operation reads the parameter's memory by another tensor, as `.data` or a view "
                                       "that was made before: the patch does not hold there";
  core->note(gp_str(text));
}

void Readers::patched(uint32_t scope, const at::Tensor& parameter, const at::Tensor& copy, const std::string& patch) {
  const c10::StorageImpl* memory = memory_shown_by(parameter);
  if (!memory || !parameter.numel())
    return;
  const void* identity = parameter.unsafeGetTensorImpl();
  const auto ends = ends_of(parameter);
  const auto is_it = [&](const Patched& one) { return one.scope == scope && one.parameter == identity; };
  auto one = std::find_if(patched_.begin(), patched_.end(), is_it);
  const bool told = one != patched_.end() && one->told && one->memory._unsafe_get_target() == memory;
  Patched now{scope,
              identity,
              parameter.storage().getWeakStorageImpl(),
              Memory(c10::intrusive_ptr<c10::StorageImpl>()),
              ends.first,
              ends.second,
              patch,
              told};
  if (memory_shown_by(copy))
    now.copy = copy.storage().getWeakStorageImpl();
  if (one != patched_.end())
    *one = std::move(now);
  else
    one = patched_.insert(patched_.end(), std::move(now));
  const auto found = read_.find(memory);
  if (one->told || found == read_.end())
    return;
  const auto is_past = [&](const Part& part) {
    return part.scope >= scope && part.reader != identity && part.first <= ends.second && ends.first <= part.last;
  };
  if (std::any_of(found->second.parts.begin(), found->second.parts.end(), is_past))
    tell(*one);
}

void Readers::read(uint32_t scope, const at::Tensor& tensor) {
  const c10::StorageImpl* memory = memory_shown_by(tensor);
  // A memory that one tensor alone shows is no parameter's.
  if (!memory || tensor.storage().use_count() < 2 || !tensor.numel())
    return;
  for (Patched& one : patched_) {
    if (one.told || one.scope > scope || one.parameter == tensor.unsafeGetTensorImpl() ||
        one.memory._unsafe_get_target() != memory || one.copy._unsafe_get_target() == memory)
      continue;
    const auto ends = ends_of(tensor);
    if (ends.first <= one.last && one.first <= ends.second)
      tell(one);
  }
  keep(scope, tensor);
}

void Readers::keep(uint32_t scope, const at::Tensor& tensor) {
  // A model reads few parts of a memory that many tensors show; one that reads more is told of those.
  constexpr size_t kParts = 64;
  if (read_.size() >= most_) {
    for (auto at = read_.begin(); at != read_.end();)
      at = at->second.memory.expired() ? read_.erase(at) : std::next(at);
    most_ = 2 * read_.size() + 64;
  }
  const c10::StorageImpl* memory = memory_shown_by(tensor);
  auto found = read_.find(memory);
  if (found == read_.end())
    found = read_.emplace(memory, Read{tensor.storage().getWeakStorageImpl(), {}}).first;
  const auto ends = ends_of(tensor);
  const void* reader = tensor.unsafeGetTensorImpl();
  auto& parts = found->second.parts;
  const auto same = std::find_if(parts.begin(), parts.end(), [&](const Part& part) {
    return part.first == ends.first && part.last == ends.second && part.reader == reader;
  });
  if (same != parts.end())
    same->scope = std::max(same->scope, scope);
  else if (parts.size() < kParts)
    parts.push_back({ends.first, ends.second, reader, scope});
}

void Readers::left(uint32_t scope) {
  keep_if(patched_, [&](const Patched& one) { return one.scope != scope; });
}

} // namespace graphpatch
