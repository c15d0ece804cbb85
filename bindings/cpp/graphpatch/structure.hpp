// Converts C++ values to the library's form, a text that describes their structure and a list of their tensors, and writes
// changed leaves back.
//
// gp_scope_input describes the text. A type of the program's own becomes a leaf with the name of the type, unless the program
// lists its members:
//
//   template <> struct graphpatch::Fields<Output> {
//       static auto of(Output& o) { return graphpatch::fields("logits", o.logits, "loss", o.loss); }
//   };
#pragma once

#include "copied.hpp"
#include "value.hpp"

#include <ATen/core/Dict.h>
#include <ATen/core/List.h>
#include <ATen/core/ivalue.h>
#include <c10/util/SmallVector.h>
#include <c10/util/Type.h>
#include <torch/ordered_dict.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <string_view>
#include <tuple>
#include <typeinfo>
#include <unordered_map>

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {

// The members of a struct, each behind its name.
template <class... Members>
struct FieldList {
    std::array<const char*, sizeof...(Members)> names;
    std::tuple<Members&...> members;
};

namespace detail {
template <class... Arguments, size_t... I>
auto make_fields(std::index_sequence<I...>, std::tuple<Arguments...> all) {
    return FieldList<std::remove_reference_t<std::tuple_element_t<2 * I + 1, std::tuple<Arguments...>>>...>{
        {std::get<2 * I>(all)...}, std::tie(std::get<2 * I + 1>(all)...)};
}
}  // namespace detail

template <class... Arguments>
auto fields(Arguments&&... names_and_members) {
    static_assert(sizeof...(Arguments) % 2 == 0, "each member has its name in front");
    return detail::make_fields(std::make_index_sequence<sizeof...(Arguments) / 2>(),
                               std::forward_as_tuple(names_and_members...));
}

// Specialized by the program to list the members of a struct; see above.
template <class T>
struct Fields;

namespace detail {

inline bool is_utf8(std::string_view text) {
    for (size_t at = 0; at < text.size();) {
        const auto byte = static_cast<unsigned char>(text[at++]);
        const size_t more = byte < 0x80 ? 0 : byte < 0xC2 ? 4 : byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : byte < 0xF5 ? 3 : 4;
        if (more == 4 || text.size() - at < more) return false;
        const auto second = static_cast<unsigned char>(more ? text[at] : 0);
        if ((byte == 0xE0 && second < 0xA0) || (byte == 0xED && second > 0x9F) || (byte == 0xF0 && second < 0x90) ||
            (byte == 0xF4 && second > 0x8F))
            return false;
        for (size_t end = at + more; at < end; ++at)
            if ((static_cast<unsigned char>(text[at]) & 0xC0) != 0x80) return false;
    }
    return true;
}

// The description of a value, built up step by step: text and tensors.
struct Structure {
    std::string text;
    c10::SmallVector<const void*, 8> tensors;

    void number(char tag, int64_t value) { (text += tag) += std::to_string(value) + ';'; }
    void real(double value) {
        char digits[40] = "nan";
        if (!std::isnan(value)) std::snprintf(digits, sizeof digits, "%.17g", value);
        std::replace(digits, digits + sizeof digits, ',', '.');  // some locales write a comma
        (text += 'F') += std::string(digits) + ';';
    }
    // Appends a word with its length. Bytes that the C ABI refuses, NUL and those that are not UTF-8, become '?'.
    void sized(std::string_view word) {
        const bool utf8 = is_utf8(word);
        (text += std::to_string(word.size())) += ':';
        for (char c : word) text += c == 0 || (c < 0 && !utf8) ? '?' : c;
    }
    // Appends a tag and a word, of which only the first 200 bytes are kept.
    void tagged(char tag, std::string_view word) { text += tag, sized(word.substr(0, 200)); }
    void tensor(const at::Tensor& tensor) {
        text += 'T';
        tensors.push_back(address_of(tensor));
    }
};

// The leaves of the value that this thread showed last, one after the other.
struct Leaves {
    size_t index = 0;
    Copies copies; // the containers that were copied for them
    gp_leaf next() {
        gp_leaf leaf = GP_LEAF_INIT;
        check(gp_scope_leaf(index++, &leaf));
        return leaf;
    }
    void skip(size_t leaves) { index += leaves; }
};

// Throws because a patch gave a value that the program's type cannot hold.
[[noreturn]] inline void cannot_hold(const char* type) {
    throw Error(GP_STATUS_REFUSED, std::string("a patch gave a value that a ") + type + " of the program cannot hold");
}

// Describes and changes values of one type. `add` appends a value's description; `take` writes the leaves that patches changed
// into the value and returns whether there were any.
template <class T, class = void>
struct StructureOf {
    static void add(const T&, Structure& out) { out.tagged('O', c10::demangle(typeid(T).name())); }
    static bool take(T&, Leaves& leaves) {
        leaves.skip(1);
        return false;
    }
};

template <>
struct StructureOf<at::Tensor> {
    static void add(const at::Tensor& value, Structure& out) { out.tensor(value); }
    static bool take(at::Tensor& value, Leaves& leaves) {
        const gp_leaf leaf = leaves.next();
        if (leaf.changed) value = leaf.tensor ? tensor_at(leaf.tensor) : at::Tensor();
        return leaf.changed;
    }
};

template <class T>
struct StructureOf<T, std::enable_if_t<std::is_arithmetic_v<T>>> {
    static void add(const T& value, Structure& out) {
        if constexpr (std::is_same_v<T, bool>) out.number('B', value);
        else if constexpr (std::is_floating_point_v<T>) out.real(static_cast<double>(value));
        else out.number('I', static_cast<int64_t>(value));
    }
    static bool take(T& value, Leaves& leaves) {
        const gp_leaf leaf = leaves.next();
        if (!leaf.changed) return false;
        if (leaf.tensor) cannot_hold("number");
        value = leaf.number == 'f' ? static_cast<T>(leaf.real) : static_cast<T>(leaf.integer);
        return true;
    }
};

// Text is described, but patches cannot change it.
struct StructureOfText {
    static void add(std::string_view value, Structure& out) { out.tagged('S', value); }
    template <class T>
    static bool take(T&, Leaves& leaves) {
        leaves.skip(1);
        return false;
    }
};
template <> struct StructureOf<std::string> : StructureOfText {};
template <> struct StructureOf<std::string_view> : StructureOfText {};
template <> struct StructureOf<const char*> : StructureOfText {};

template <class T>
struct StructureOf<std::optional<T>> {
    static void add(const std::optional<T>& value, Structure& out) {
        if (value) StructureOf<T>::add(*value, out);
        else out.text += 'N';
    }
    static bool take(std::optional<T>& value, Leaves& leaves) {
        if (value) return StructureOf<T>::take(*value, leaves);
        const gp_leaf leaf = leaves.next();
        if (!leaf.changed) return false;
        if constexpr (std::is_same_v<T, at::Tensor>)
            if (leaf.tensor) return value = tensor_at(leaf.tensor), true;
        cannot_hold("std::optional");
    }
};

template <class List>
struct StructureOfList {
    using T = typename List::value_type;
    static void add(const List& value, Structure& out) {
        out.number('[', static_cast<int64_t>(value.size()));
        for (const T& element : value) StructureOf<T>::add(element, out);
    }
    static bool take(List& value, Leaves& leaves) {
        bool changed = false;
        for (size_t i = 0; i < value.size(); ++i) {
            T element = value[i];
            if (StructureOf<T>::take(element, leaves)) value[i] = std::move(element), changed = true;
        }
        return changed;
    }
};
template <class T, class A> struct StructureOf<std::vector<T, A>> : StructureOfList<std::vector<T, A>> {};
template <class T, size_t N> struct StructureOf<std::array<T, N>> : StructureOfList<std::array<T, N>> {};
template <class T, unsigned N> struct StructureOf<c10::SmallVector<T, N>> : StructureOfList<c10::SmallVector<T, N>> {};

// A view of the caller's list is described, but patches cannot change it.
template <class T>
struct StructureOf<c10::ArrayRef<T>> {
    static void add(const c10::ArrayRef<T>& value, Structure& out) { StructureOfList<c10::ArrayRef<T>>::add(value, out); }
    static bool take(c10::ArrayRef<T>& value, Leaves& leaves) {
        std::vector<T> copy = value.vec();
        if (StructureOf<std::vector<T>>::take(copy, leaves)) cannot_hold("c10::ArrayRef (take a std::vector)");
        return false;
    }
};

template <class Tuple>
struct StructureOfTuple {
    static void add(const Tuple& value, Structure& out) {
        out.number('(', std::tuple_size_v<Tuple>);
        std::apply([&](const auto&... e) { (StructureOf<std::decay_t<decltype(e)>>::add(e, out), ...); }, value);
    }
    static bool take(Tuple& value, Leaves& leaves) {
        bool changed = false;
        std::apply([&](auto&... e) { ((changed |= StructureOf<std::decay_t<decltype(e)>>::take(e, leaves)), ...); }, value);
        return changed;
    }
};
template <class... T> struct StructureOf<std::tuple<T...>> : StructureOfTuple<std::tuple<T...>> {};
template <class A, class B> struct StructureOf<std::pair<A, B>> : StructureOfTuple<std::pair<A, B>> {};

// Maps are described in the order of their keys, because unordered maps have no order of their own.
template <class Map>
struct StructureOfMap {
    using T = typename Map::mapped_type;
    template <class M>
    static auto sorted(M& value) {
        std::vector<decltype(&*value.begin())> entries;
        for (auto& entry : value) entries.push_back(&entry);
        std::sort(entries.begin(), entries.end(), [](auto* a, auto* b) { return a->first < b->first; });
        return entries;
    }
    static void add(const Map& value, Structure& out) {
        out.number('{', static_cast<int64_t>(value.size()));
        for (const auto* entry : sorted(value)) out.sized(entry->first), StructureOf<T>::add(entry->second, out);
    }
    static bool take(Map& value, Leaves& leaves) {
        bool changed = false;
        for (auto* entry : sorted(value)) changed |= StructureOf<T>::take(entry->second, leaves);
        return changed;
    }
};
template <class T, class... R> struct StructureOf<std::map<std::string, T, R...>>
    : StructureOfMap<std::map<std::string, T, R...>> {};
template <class T, class... R>
struct StructureOf<std::unordered_map<std::string, T, R...>> : StructureOfMap<std::unordered_map<std::string, T, R...>> {};

template <class T>
struct StructureOf<torch::OrderedDict<std::string, T>> {
    static void add(const torch::OrderedDict<std::string, T>& value, Structure& out) {
        out.number('{', static_cast<int64_t>(value.size()));
        for (const auto& item : value) out.sized(item.key()), StructureOf<T>::add(item.value(), out);
    }
    static bool take(torch::OrderedDict<std::string, T>& value, Leaves& leaves) {
        bool changed = false;
        for (auto& item : value) changed |= StructureOf<T>::take(item.value(), leaves);
        return changed;
    }
};

// A struct for which the program has specialized Fields.
template <class T>
struct StructureOf<T, std::void_t<decltype(Fields<T>::of(std::declval<T&>()))>> {
    static void add(const T& value, Structure& out) {
        const auto list = Fields<T>::of(const_cast<T&>(value));
        out.number('{', static_cast<int64_t>(list.names.size()));
        size_t at = 0;
        std::apply(
            [&](const auto&... m) {
                ((out.sized(list.names[at++]), StructureOf<std::decay_t<decltype(m)>>::add(m, out)), ...);
            },
            list.members);
    }
    static bool take(T& value, Leaves& leaves) {
        const auto list = Fields<T>::of(value);
        bool changed = false;
        std::apply([&](auto&... m) { ((changed |= StructureOf<std::decay_t<decltype(m)>>::take(m, leaves)), ...); },
                   list.members);
        return changed;
    }
};

// TorchScript's value. Changed containers are new objects, which are settled with the old ones: see copied.hpp.
template <>
struct StructureOf<c10::IValue> {
    static void add(const c10::IValue& value, Structure& out) {
        if (value.isTensor()) out.tensor(value.toTensor());
        else if (value.isNone()) out.text += 'N';
        else if (value.isBool()) out.number('B', value.toBool());
        else if (value.isInt()) out.number('I', value.toInt());
        else if (value.isDouble()) out.real(value.toDouble());
        else if (value.isString()) out.tagged('S', value.toStringRef());
        else if (value.isTuple()) {
            const auto& elements = value.toTupleRef().elements();
            out.number('(', static_cast<int64_t>(elements.size()));
            for (const c10::IValue& element : elements) add(element, out);
        } else if (value.isList()) {
            const auto list = value.toList();
            out.number('[', static_cast<int64_t>(list.size()));
            for (size_t i = 0; i < list.size(); ++i) add(list.get(i), out);
        } else if (is_dict(value)) {
            const auto dict = value.toGenericDict();
            out.number('{', static_cast<int64_t>(dict.size()));
            for (const auto& entry : dict) out.sized(entry.key().toStringRef()), add(entry.value(), out);
        } else {
            out.tagged('O', value.tagKind());
        }
    }
    static bool take(c10::IValue& value, Leaves& leaves) {
        bool changed = false;
        if (value.isTuple()) {
            auto tuple = value.toTuple();
            std::vector<c10::IValue> elements = tuple->elements().vec();
            for (c10::IValue& element : elements) changed |= take(element, leaves);
            const auto type = changed ? tuple->type<c10::TupleType>() : nullptr;
            if (type && type->schema()) value = c10::ivalue::Tuple::createNamed(std::move(elements), type);
            else if (changed) value = c10::ivalue::Tuple::create(std::move(elements));
        } else if (value.isList()) {
            auto list = value.toList();
            for (size_t i = 0; i < list.size(); ++i) {
                c10::IValue element = list.get(i);
                if (!take(element, leaves)) continue;
                if (!std::exchange(changed, true)) list = list.copy();
                list.set(i, std::move(element));
            }
            if (changed) leaves.copies.emplace_back(value, list), value = list;
        } else if (is_dict(value)) {
            auto dict = value.toGenericDict().copy();
            for (const auto& entry : dict) {
                c10::IValue element = entry.value();
                if (take(element, leaves)) entry.setValue(std::move(element)), changed = true;
            }
            if (changed) leaves.copies.emplace_back(value, dict), value = dict;
        } else {
            changed = take_leaf(value, leaves.next());
        }
        return changed;
    }

private:
    static bool is_dict(const c10::IValue& value) {
        return value.isGenericDict() && value.toGenericDict().keyType()->kind() == c10::TypeKind::StringType;
    }
    static bool take_leaf(c10::IValue& value, const gp_leaf& leaf) {
        if (!leaf.changed) return false;
        if (leaf.tensor) value = tensor_at(leaf.tensor);
        else if (leaf.number == 'b') value = leaf.integer != 0;
        else if (leaf.number == 'f') value = leaf.real;
        else value = leaf.integer;
        return true;
    }
};

}  // namespace detail
}  // namespace GRAPHPATCH_NAMESPACE
}  // namespace graphpatch
