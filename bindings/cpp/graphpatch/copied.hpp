// Lists and dicts of TorchScript's type, c10::IValue, of which a call got copies, because an element is patched and others who
// hold the container must not see that.
//
// What is then put into the copy, or taken out, belongs to the original, too, and the other way round. Both are looked at when
// calls begin and end.
#pragma once

#include "config.hpp"

#include <ATen/core/Dict.h>
#include <ATen/core/List.h>
#include <ATen/core/ivalue.h>

#include <algorithm>
#include <exception>
#include <vector>

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {
namespace detail {

class Copied {
public:
    Copied(c10::IValue original, c10::IValue copy) : original_(std::move(original)), copy_(std::move(copy)) { look(); }

    // Makes the changes that were made in one of the two since the last time in the other one; where both were changed, those
    // in the copy count.
    void settle() {
        const Elements copy = elements_of(copy_), original = elements_of(original_);
        if (!same(copy, given_)) carry(copy, given_, held_, original_);
        else if (!same(original, held_)) carry(original, held_, given_, copy_);
        else return;
        look();
    }

private:
    using Elements = std::vector<c10::IValue>; // those of a dict as keys and values in turn

    void look() {
        held_ = elements_of(original_);
        given_ = elements_of(copy_);
    }
    static Elements elements_of(const c10::IValue& value) {
        if (value.isList()) return value.toListRef().vec();
        Elements elements;
        for (const auto& entry : value.toGenericDict()) {
            elements.push_back(entry.key());
            elements.push_back(entry.value());
        }
        return elements;
    }
    static bool same(const Elements& left, const Elements& right) {
        return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                          [](const auto& a, const auto& b) { return a.is(b); });
    }
    // A patched element stands for the one that it was made from.
    static c10::IValue counterpart(const Elements& before, const Elements& others, size_t index, const c10::IValue& element) {
        if (index < before.size() && before[index].is(element)) return others[index];
        const bool has_identity = element.isTensor() || element.isList() || element.isGenericDict() || element.isTuple();
        for (size_t i = 0; has_identity && i < before.size(); ++i)
            if (before[i].is(element)) return others[i];
        return element;
    }
    static void carry(const Elements& now, const Elements& before, const Elements& others, const c10::IValue& other) {
        if (other.isList()) {
            auto list = other.toList();
            list.clear();
            for (size_t i = 0; i < now.size(); ++i) list.push_back(counterpart(before, others, i, now[i]));
            return;
        }
        auto dict = other.toGenericDict();
        const auto is_key = [&](const c10::IValue& key) {
            for (size_t i = 0; i < now.size(); i += 2)
                if (now[i] == key) return true;
            return false;
        };
        for (size_t i = 0; i < before.size(); i += 2)
            if (!is_key(before[i])) (void)dict.erase(before[i]);
        for (size_t i = 0; i < now.size(); i += 2)
            dict.insert_or_assign(now[i], counterpart(before, others, i + 1, now[i + 1]));
    }

    c10::IValue original_, copy_;
    Elements held_, given_; // what both held when they were last settled
};

using Copies = std::vector<Copied>;

// The inner containers come first: they stand in the outer ones.
inline void settle(Copies& copies) noexcept {
    try {
        for (Copied& copied : copies) copied.settle();
    } catch (const std::exception&) {
        // No memory is left for it.
    }
}

} // namespace detail
} // namespace GRAPHPATCH_NAMESPACE
} // namespace graphpatch
