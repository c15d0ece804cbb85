// A patched element stands in a copy of its list or dict, since others who hold the container must not see it. What is then
// appended, set or removed in the copy belongs to the original, too, and the other way round: models fill a cache or a list of
// results that way. Both are looked at when scopes begin and end.
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

// What the other one of the two has to hold for an element that one has now, at `index`: a patched element stands for what it
// was made from.
static c10::IValue counterpart(const std::vector<c10::IValue>& before, const std::vector<c10::IValue>& others, size_t index,
                               const c10::IValue& element) {
  if (index < before.size() && before[index].is(element))
    return others[index];
  if (element.isTensor() || is_container(element))
    for (size_t i = 0; i < before.size(); ++i)
      if (before[i].is(element))
        return others[i];
  return element;
}

// Gives `other` what one of the two holds `now`. When they were last settled, they held `others` and `before`.
static void carry(const std::vector<c10::IValue>& now, const std::vector<c10::IValue>& before,
                  const std::vector<c10::IValue>& others, const c10::IValue& other) {
  if (other.isList()) {
    c10::List<c10::IValue> list = other.toList();
    list.clear();
    for (size_t i = 0; i < now.size(); ++i)
      list.push_back(counterpart(before, others, i, now[i]));
    return;
  }
  auto dict = other.toGenericDict();
  const auto is_key = [&](const c10::IValue& key) {
    for (size_t i = 0; i < now.size(); i += 2)
      if (now[i] == key)
        return true;
    return false;
  };
  for (size_t i = 0; i < before.size(); i += 2)
    if (!is_key(before[i]))
      (void)dict.erase(before[i]);
  for (size_t i = 0; i < now.size(); i += 2)
    dict.insert_or_assign(now[i], counterpart(before, others, i + 1, now[i + 1]));
}

// Makes the changes that were made in one of the two since the last time in the other one; where both were changed, those in
// the copy count.
static void settle(CopiedContainer& container) {
  std::vector<c10::IValue> now = elements_of(container.copy);
  if (!same(now, container.given)) {
    carry(now, container.given, container.held, container.original);
  } else {
    now = elements_of(container.original);
    if (same(now, container.held))
      return;
    carry(now, container.held, container.given, container.copy);
  }
  container.held = elements_of(container.original);
  container.given = elements_of(container.copy);
}

static void settle_each(Held& held) {
  // The inner containers come first: they stand in the outer ones.
  for (CopiedContainer& container : held.containers)
    settle(container);
}

void settle_containers() {
  if (this_thread().held)
    has_memory_for([] { settle_each(held()); });
}

void leave_containers(uint32_t frame, uint32_t outer) {
  settle_containers();
  if (!this_thread().held)
    return;
  for (CopiedContainer& container : held().containers)
    if (container.frame == frame)
      container.frame = outer;
  // A copy that the scope has returned is written into by the scope around it.
  keep_if(held().containers,
          [&](const CopiedContainer& container) { return container.frame != outer || container.copy.use_count() > 1; });
}

void settle_all_containers(Held& held) {
  settle_each(held);
  held.containers.clear();
}

} // namespace graphpatch
