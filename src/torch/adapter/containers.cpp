// A patched element stands in a copy of its list or dict, since others who hold the container must not see it. What the scope
// that got the copy then appends, sets or removes belongs to the original, too: models fill a cache or a list of results that
// way.
#include "containers.h"

#include <algorithm>

namespace graphpatch {

static bool is_container(const c10::IValue& value) {
  return value.isTuple() || value.isList() || value.isGenericDict();
}

// The elements in order; those of a dict as keys and values in turn.
static std::vector<c10::IValue> elements_of(const c10::IValue& value) {
  std::vector<c10::IValue> elements;
  if (value.isTuple()) {
    elements = value.toTupleRef().elements().vec();
  } else if (value.isList()) {
    elements = value.toListRef().vec();
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) {
      elements.push_back(entry.key());
      elements.push_back(entry.value());
    }
  }
  return elements;
}

static bool same(const std::vector<c10::IValue>& left, const std::vector<c10::IValue>& right) {
  return left.size() == right.size() &&
         std::equal(left.begin(), left.end(), right.begin(), [](const auto& a, const auto& b) { return a.is(b); });
}

bool is_shared_container(const c10::IValue& value) {
  if (!is_container(value))
    return false;
  if (!value.isTuple() && value.use_count() > 1)
    return true;
  if (value.isIntList() || value.isDoubleList() || value.isBoolList() || value.isTensorList())
    return false;
  const auto elements = elements_of(value);
  // Each element is held by the container and by `elements`.
  return std::any_of(elements.begin(), elements.end(), [](const c10::IValue& element) {
    return is_container(element) && ((!element.isTuple() && element.use_count() > 2) || is_shared_container(element));
  });
}

void note_copies(uint32_t frame, const c10::IValue& before, const c10::IValue& after) {
  if (!is_container(before) || before.is(after) || before.tagKind() != after.tagKind())
    return;
  std::vector<c10::IValue> held_elements = elements_of(before), given = elements_of(after);
  if (held_elements.size() != given.size())
    return;
  for (size_t i = 0; i < given.size(); ++i)
    note_copies(frame, held_elements[i], given[i]);
  if (!before.isTuple())
    held().containers.push_back({frame, before, after, std::move(held_elements), std::move(given)});
}

// What the original has to hold for an element that the copy has now, at `index`: a patched one stands for what it was made
// from.
static c10::IValue unpatched(const CopiedContainer& container, size_t index, const c10::IValue& element) {
  if (index < container.given.size() && container.given[index].is(element))
    return container.held[index];
  if (element.isTensor() || is_container(element))
    for (size_t i = 0; i < container.given.size(); ++i)
      if (container.given[i].is(element))
        return container.held[i];
  return element;
}

static void settle(const CopiedContainer& container) {
  const std::vector<c10::IValue> now = elements_of(container.copy);
  if (same(now, container.given))
    return;
  if (container.original.isList()) {
    c10::List<c10::IValue> list = container.original.toList();
    list.clear();
    for (size_t i = 0; i < now.size(); ++i)
      list.push_back(unpatched(container, i, now[i]));
    return;
  }
  auto dict = container.original.toGenericDict();
  const auto copy = container.copy.toGenericDict();
  for (size_t i = 0; i < container.given.size(); i += 2)
    if (!copy.contains(container.given[i]))
      dict.erase(container.given[i]);
  for (size_t i = 0; i < now.size(); i += 2)
    dict.insert_or_assign(now[i], unpatched(container, i + 1, now[i + 1]));
}

void settle_containers(Held& held, uint32_t frame, uint32_t outer) {
  if (held.containers.empty())
    return;
  // The inner containers come first: they stand in the outer ones.
  for (CopiedContainer& container : held.containers) {
    if (container.frame != frame)
      continue;
    settle(container);
    container.frame = outer;
    container.held = elements_of(container.original);
    container.given = elements_of(container.copy);
  }
  // A copy that the scope has returned is written into by the scope around it.
  keep_if(held.containers,
          [&](const CopiedContainer& container) { return container.frame != outer || container.copy.use_count() > 1; });
}

void settle_all_containers(Held& held) {
  for (const CopiedContainer& container : held.containers)
    settle(container);
  held.containers.clear();
}

} // namespace graphpatch
