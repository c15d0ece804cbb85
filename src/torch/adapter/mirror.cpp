// What operations write into a patched copy is also written into the memory of the original, and the other way round. A change
// that the patch itself has made is not passed on.
//
// Each pair of a copy and its original is an edge of a tree, since a copy may be made of a view of a copy. A write is passed on
// along all edges except the one that it came by.
#include "mirror.h"
#include "geometry.h"
#include "write.h"

#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

namespace graphpatch {

namespace mirroring {

using WeakStorage = c10::weak_intrusive_ptr<c10::StorageImpl>;

// A copy and its original.
struct Edge {
  std::weak_ptr<const char> run;
  WeakStorage memory; // the copy's
  WeakTensor copy;
  at::Tensor original; // its memory would live as long as the view that the copy stands for
  Geometry in_copy;
  Geometry in_original;
  const void* let_go = nullptr; // the copy, while `copy` does not hold it

  // Both have the same strides, so the gaps between their elements correspond as well.
  bool parallel() const {
    return in_copy.strides == in_original.strides;
  }
  bool expired() const {
    return run.expired() || memory.expired();
  }
};

// Elements of a memory that were written: those at `where` that `hit` marks, or all of them if `hit` is undefined.
struct Written {
  c10::StorageImpl* memory;
  Geometry where;
  at::Tensor values;
  at::Tensor hit;
};

at::ScalarType type_of_size(int64_t unit) {
  switch (unit) {
    case 2:
      return at::kShort;
    case 4:
      return at::kInt;
    case 8:
      return at::kLong;
    case 16:
      return at::kComplexDouble;
    default:
      return at::kByte;
  }
}

// A part of a memory as a tensor without history and without conj and neg bits.
at::Tensor elements_at(c10::StorageImpl* memory, const Geometry& where, int64_t unit, at::ScalarType type) {
  const Geometry counted = where.in_units(unit);
  at::Tensor bits = at::empty({0}, at::TensorOptions(memory->device()).dtype(type));
  c10::TensorImpl* impl = bits.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(c10::Storage(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(memory)));
  impl->set_sizes_and_strides(counted.sizes, counted.strides, counted.offset);
  return bits;
}

// How a write is passed on: as bits, in units of some size, or as a part of autograd's graph.
struct Transfer {
  bool graph;
  int64_t unit;
  at::ScalarType type;
};

// One end of an edge, which is to be written.
struct End {
  c10::StorageImpl* memory;
  at::Tensor tensor; // undefined if only its memory still exists
  Transfer transfer;

  at::Tensor at(const Geometry& where) const {
    const int64_t unit = transfer.unit;
    if (!transfer.graph || !tensor.defined())
      return elements_at(memory, where, unit, transfer.type);
    const Geometry counted = where.in_units(unit);
    return tensor.as_strided(counted.sizes, counted.strides, counted.offset);
  }
  bool holds(const Geometry& where) const {
    return where.offset >= 0 && where.end() <= static_cast<int64_t>(memory->nbytes());
  }
  // Autograd does not see that bits were written. If it has saved this memory, it has to notice the change.
  void bump() const {
    if (!transfer.graph && tensor.defined() && !tensor.is_inference())
      tensor.unsafeGetTensorImpl()->bump_version();
  }
};

void write_where(const at::Tensor& place, const at::Tensor& values, const at::Tensor& hit) {
  at::Tensor(place).copy_(hit.defined() ? at::where(hit, values, place) : values);
}

// The elements in which a copy differs from its original: the patch has changed them, and they stay different.
at::Tensor differences(const Edge& edge, c10::StorageImpl* copy) {
  const int64_t unit = edge.in_copy.element;
  const auto bits = [&](c10::StorageImpl* memory, const Geometry& where) {
    return elements_at(memory, where, unit, type_of_size(unit));
  };
  c10::StorageImpl* original = edge.original.storage().unsafeGetStorageImpl();
  return bits(copy, edge.in_copy).ne(bits(original, edge.in_original));
}

// Passes on what was written at one end of an edge, whose elements lie at `from`, to the other end, where they lie at `to`,
// except elements in `stay`. Returns false if none of the written elements belongs to the edge.
bool pass(Written& written, const Geometry& from, const End& end, const Geometry& to, const at::Tensor& stay) {
  if (written.where.end() <= from.offset || from.end() <= written.where.offset)
    return false;
  const Geometry there = written.where.moved(to.offset - from.offset);
  if (!stay.defined() && from.strides == to.strides && end.holds(there)) {
    write_where(end.at(there), written.values, written.hit);
    written = {end.memory, there, written.values, written.hit};
    return true;
  }
  // A picture of the affected part of the memory: what was written, and where.
  const int64_t first = std::min(written.where.offset, from.offset);
  const int64_t unit = end.transfer.unit;
  const int64_t size = (std::max(written.where.end(), from.end()) - first) / unit;
  const auto at = [&](const at::Tensor& picture, const Geometry& where) {
    const Geometry counted = where.moved(-first).in_units(unit);
    return picture.as_strided(counted.sizes, counted.strides, counted.offset);
  };
  at::Tensor values = at::zeros({size}, written.values.options().requires_grad(false));
  at::Tensor hit = at::zeros({size}, values.options().dtype(at::kBool));
  at(values, written.where).copy_(written.values);
  if (written.hit.defined())
    at(hit, written.where).copy_(written.hit);
  else
    at(hit, written.where).fill_(true);
  values = at(values, from);
  hit = at(hit, from);
  if (stay.defined())
    hit = hit.logical_and((hit.dim() > stay.dim() ? stay.unsqueeze(-1) : stay).logical_not());
  write_where(end.at(to), values, hit);
  written = {end.memory, to, values, hit};
  return true;
}

// What must be known of a memory before it is written: the copies to which the written elements may be passed on.
struct Reached {
  std::vector<Edge> edges;
  std::vector<at::Tensor> stay; // of each copy's elements, those that the patch has changed
};

class Mirrors {
public:
  void add(Edge edge) {
    prune();
    edges_.push_back(std::move(edge));
  }
  bool empty() const {
    return edges_.empty();
  }
  bool let_go(const void* copy) {
    bool any = false;
    for (Edge& edge : edges_)
      if (edge.copy._unsafe_get_target() == copy) {
        edge.copy = WeakTensor(c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>());
        edge.let_go = copy;
        any = true;
      }
    return any;
  }
  void keep(const void* copy) {
    for (Edge& edge : edges_)
      if (edge.let_go == copy) {
        edge.copy = WeakTensor(tensor_at(copy).getIntrusivePtr());
        edge.let_go = nullptr;
      }
  }
  // Drops the edges of copies that nobody sees any more, and their originals with them. Also drops the edges of originals that
  // nobody sees any more and that are not copies themselves: their copies then stand for themselves.
  void prune() {
    const auto is_copy = [&](const c10::StorageImpl* memory) {
      return std::any_of(edges_.begin(), edges_.end(), [&](const Edge& edge) { return edge.memory.lock().get() == memory; });
    };
    const auto lives = [&](const Edge& edge) {
      return !edge.expired() && (!is_forgotten(edge.original) || is_copy(edge.original.storage().unsafeGetStorageImpl()));
    };
    while (!std::all_of(edges_.begin(), edges_.end(), lives))
      keep_if(edges_, lives);
  }

  // Gaps between the elements of a copy are about to be read: fills them from the gaps between the elements of its original.
  void fill_gaps(const at::Tensor& tensor) {
    const c10::StorageImpl* memory = tensor.storage().unsafeGetStorageImpl();
    const c10::AutoGradMode none(false);
    for (Edge& edge : edges_) {
      const auto copy = edge.memory.lock();
      if (copy.get() != memory || !edge.parallel())
        continue;
      c10::StorageImpl* original = edge.original.storage().unsafeGetStorageImpl();
      const int64_t unit = edge.in_copy.element;
      const int64_t moved = edge.in_original.offset - edge.in_copy.offset;
      Geometry all = edge.in_copy;
      all.offset = std::max<int64_t>(0, -moved);
      all.sizes = {(std::min(int64_t(copy->nbytes()), int64_t(original->nbytes()) - moved) - all.offset) / unit};
      all.strides = {unit};
      const at::Tensor gap = at::ones(all.sizes, at::TensorOptions(copy->device()).dtype(at::kBool));
      const Geometry elements = edge.in_copy.moved(-all.offset).in_units(unit);
      gap.as_strided(elements.sizes, elements.strides, elements.offset).fill_(false);
      const auto bits = [&](c10::StorageImpl* held, const Geometry& where) {
        return elements_at(held, where, unit, type_of_size(unit));
      };
      write_where(bits(copy.get(), all), bits(original, all.moved(moved)), gap);
      edge.in_copy = all;
      edge.in_original = all.moved(moved);
    }
  }

  // The edges that lead from a memory to others, and from those to further ones.
  Reached reached_from(const at::Tensor& tensor) const {
    Reached found;
    std::vector<const c10::StorageImpl*> reached{tensor.storage().unsafeGetStorageImpl()};
    std::vector<bool> taken(edges_.size());
    const c10::AutoGradMode none(false);
    for (size_t at = 0; at < reached.size(); ++at)
      for (size_t i = 0; i < edges_.size(); ++i) {
        const auto copy = edges_[i].memory.lock();
        const c10::StorageImpl* original = edges_[i].original.storage().unsafeGetStorageImpl();
        if (taken[i] || !copy || (copy.get() != reached[at] && original != reached[at]))
          continue;
        taken[i] = true;
        found.edges.push_back(edges_[i]);
        // A write into the copy is passed on to all elements of the original.
        found.stay.push_back(original == reached[at] ? differences(edges_[i], copy.get()) : at::Tensor());
        reached.push_back(copy.get() == reached[at] ? original : copy.get());
      }
    return found;
  }

  // Passes on what was written into the tensor.
  static void reflect(const Reached& reached, const at::Tensor& tensor) {
    if (reached.edges.empty() || !tensor.numel())
      return;
    c10::StorageImpl* memory = tensor.storage().unsafeGetStorageImpl();
    const Transfer transfer = transfer_of(reached.edges, tensor);
    const Geometry where(tensor);
    const at::Tensor values = transfer.graph ? tensor : elements_at(memory, where, transfer.unit, transfer.type);
    pass_on(reached, {memory, where, values, {}}, nullptr, transfer);
  }

private:
  static Transfer transfer_of(const std::vector<Edge>& edges, const at::Tensor& written) {
    const Geometry where(written);
    const bool graph = at::GradMode::is_enabled() &&
                       (written.requires_grad() || std::any_of(edges.begin(), edges.end(),
                                                               [](const Edge& edge) { return edge.original.requires_grad(); }));
    const bool even = where.divides_by(where.element) && std::all_of(edges.begin(), edges.end(), [&](const Edge& edge) {
                        return edge.in_copy.divides_by(where.element) && edge.in_original.divides_by(where.element);
                      });
    if (!graph)
      return {false, even ? where.element : 1, type_of_size(even ? where.element : 1)};
    for (const Edge& edge : edges)
      TORCH_CHECK(even && edge.original.scalar_type() == written.scalar_type() &&
                      edge.original.is_conj() == written.is_conj() && edge.original.is_neg() == written.is_neg(),
                  "graphpatch: gradients cannot follow what is written into a patched value as elements of another type");
    return {true, where.element, written.scalar_type()};
  }

  static void pass_on(const Reached& reached, const Written& written, const Edge* came_by, const Transfer& transfer) {
    const c10::AutoGradMode mode(transfer.graph);
    for (size_t i = 0; i < reached.edges.size(); ++i) {
      const Edge& edge = reached.edges[i];
      const auto copy = edge.memory.lock();
      c10::StorageImpl* original = edge.original.storage().unsafeGetStorageImpl();
      if (&edge == came_by || !copy)
        continue;
      Written further = written;
      bool passed = false;
      End end{original, edge.original, transfer};
      if (copy.get() == written.memory) {
        passed = pass(further, edge.in_copy, end, edge.in_original, {});
      } else if (original == written.memory) {
        end = {copy.get(), at::Tensor(edge.copy.lock()), transfer};
        passed = pass(further, edge.in_original, end, edge.in_copy, reached.stay[i]);
      }
      if (!passed)
        continue;
      end.bump();
      pass_on(reached, further, &edge, transfer);
    }
  }

  std::vector<Edge> edges_;
};

Mirrors& mirrors() {
  static thread_local Mirrors mirrors;
  return mirrors;
}

// Forgets the patched copies of parameters that a write makes stale. They are made again when they are read.
void forget_copies(const at::Tensor& written) {
  if (!this_thread().held)
    return;
  keep_if(held().copies, [&](const Held::Copy& copy) {
    return copy.patched.unsafeGetTensorImpl() == copy.parameter || // only probes are there
           copy.memory._unsafe_get_target() != written.storage().unsafeGetStorageImpl();
  });
}

} // namespace mirroring

using namespace mirroring;

bool is_memory(const at::Tensor& tensor) {
  return tensor.defined() && tensor.layout() == c10::kStrided && tensor.has_storage() && !tensor.is_nested() &&
         !tensor.is_meta() && !at::isTensorSubclassLike(tensor) && !tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
}

void prune_mirrors() {
  mirrors().prune();
  watch(!mirrors().empty());
}

bool mirrors_let_go(const void* copy) {
  return mirrors().let_go(copy);
}

void mirrors_keep(const void* copy) {
  mirrors().keep(copy);
}

void mirror(const at::Tensor& original, const at::Tensor& copy) {
  if (!is_memory(original) || !is_memory(copy) || !copy.numel() || original.sizes() != copy.sizes() ||
      original.element_size() != copy.element_size() || original.is_alias_of(copy))
    return;
  Held& run = held();
  if (!run.life)
    run.life = std::make_shared<const char>();
  mirrors().add({run.life, WeakStorage(copy.storage().getWeakStorageImpl()), WeakTensor(copy.getIntrusivePtr()), original,
                 Geometry(copy), Geometry(original)});
  watch(true);
}

struct Writes::Reach {
  std::vector<Reached> of; // one for each of the tensors
};

Writes::Writes(const OpInfo& info, const c10::IValue* arguments, bool stores) {
  if (info.reaches && arguments[0].isTensor() && is_memory(arguments[0].toTensor()))
    mirrors().fill_gaps(arguments[0].toTensor());
  const uint64_t written = stores ? written_by(info, arguments) : 0;
  for (size_t i = 0; i < 64 && written >> i; ++i)
    if (has_bit(written, i))
      for_each_tensor(arguments[i], [&](const at::Tensor& tensor) {
        if (is_memory(tensor))
          written_.push_back(tensor);
      });
  if (written_.empty())
    return;
  reached_ = std::make_unique<Reach>();
  for (const at::Tensor& tensor : written_)
    reached_->of.push_back(mirrors().reached_from(tensor));
}

Writes::~Writes() = default;

void Writes::reflect() {
  for (size_t i = 0; i < written_.size(); ++i) {
    forget_copies(written_[i]);
    Mirrors::reflect(reached_->of[i], written_[i]);
  }
  written_.clear();
  prune_mirrors();
}

} // namespace graphpatch
