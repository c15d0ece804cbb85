// Takes patched values of inputs out of the program's variables again when their call ends.
//
// A patch of an input holds inside the call. An input that is a reference (`std::vector<Tensor>& cache`) is a variable of the caller's,
// which must find there what it would find without the patch: what it has put there itself, and what the call has put there.
#pragma once

#include "structure.hpp"

#include <utility>

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {
namespace detail {

// `put_back(now, after, before)`: where `now` still is what the patches have left (`after`), it becomes what it was before.
template <class T, class = void>
struct Unpatched {
    static void put_back(T&, const T&, const T&) {}
};

template <>
struct Unpatched<at::Tensor> {
    static void put_back(at::Tensor& now, const at::Tensor& after, const at::Tensor& before) {
        if (now.is_same(after)) now = before;
    }
};

template <class T>
struct Unpatched<T, std::enable_if_t<std::is_arithmetic_v<T>>> {
    static void put_back(T& now, const T& after, const T& before) {
        if (now == after) now = before;
    }
};

template <class T>
struct Unpatched<std::optional<T>> {
    using Value = std::optional<T>;
    static void put_back(Value& now, const Value& after, const Value& before) {
        if (!now || !after) return;
        if (before) return Unpatched<T>::put_back(*now, *after, *before);
        if constexpr (std::is_same_v<T, at::Tensor>)
            if (now->is_same(*after)) now.reset();
    }
};

template <class List>
struct UnpatchedList {
    using T = typename List::value_type;
    static void put_back(List& now, const List& after, const List& before) {
        const size_t n = std::min(after.size(), before.size());
        for (size_t i = 0; i < now.size(); ++i) {
            T element = now[i];
            if constexpr (std::is_same_v<T, at::Tensor>) { // the call may have moved it to another place
                size_t from = i < n && element.is_same(after[i]) ? i : 0;
                while (from < n && !element.is_same(after[from])) ++from;
                if (from < n) now[i] = before[from];
            } else if (i < n) {
                Unpatched<T>::put_back(element, after[i], before[i]);
                now[i] = std::move(element);
            }
        }
    }
};
template <class T, class A> struct Unpatched<std::vector<T, A>> : UnpatchedList<std::vector<T, A>> {};
template <class T, size_t N> struct Unpatched<std::array<T, N>> : UnpatchedList<std::array<T, N>> {};
template <class T, unsigned N> struct Unpatched<c10::SmallVector<T, N>> : UnpatchedList<c10::SmallVector<T, N>> {};

template <class Tuple>
struct UnpatchedTuple {
    static void put_back(Tuple& now, const Tuple& after, const Tuple& before) {
        each(now, after, before, std::make_index_sequence<std::tuple_size_v<Tuple>>());
    }
    template <size_t... I>
    static void each(Tuple& now, const Tuple& after, const Tuple& before, std::index_sequence<I...>) {
        (Unpatched<std::tuple_element_t<I, Tuple>>::put_back(std::get<I>(now), std::get<I>(after), std::get<I>(before)), ...);
    }
};
template <class... T> struct Unpatched<std::tuple<T...>> : UnpatchedTuple<std::tuple<T...>> {};
template <class A, class B> struct Unpatched<std::pair<A, B>> : UnpatchedTuple<std::pair<A, B>> {};

template <class Map>
struct UnpatchedMap {
    static void put_back(Map& now, const Map& after, const Map& before) {
        for (auto& [key, value] : now) {
            const auto changed = after.find(key), original = before.find(key);
            if (changed != after.end() && original != before.end())
                Unpatched<typename Map::mapped_type>::put_back(value, changed->second, original->second);
        }
    }
};
template <class T, class... R> struct Unpatched<std::map<std::string, T, R...>> : UnpatchedMap<std::map<std::string, T, R...>> {};
template <class T, class... R>
struct Unpatched<std::unordered_map<std::string, T, R...>> : UnpatchedMap<std::unordered_map<std::string, T, R...>> {};

template <class T>
struct Unpatched<torch::OrderedDict<std::string, T>> {
    using Dict = torch::OrderedDict<std::string, T>;
    static void put_back(Dict& now, const Dict& after, const Dict& before) {
        for (auto& item : now) {
            const T *changed = after.find(item.key()), *original = before.find(item.key());
            if (changed && original) Unpatched<T>::put_back(item.value(), *changed, *original);
        }
    }
};

template <class T>
struct Unpatched<T, std::void_t<decltype(Fields<T>::of(std::declval<T&>()))>> {
    static void put_back(T& now, const T& after, const T& before) {
        each(Fields<T>::of(now).members, Fields<T>::of(const_cast<T&>(after)).members,
             Fields<T>::of(const_cast<T&>(before)).members);
    }
    template <class... M>
    static void each(std::tuple<M&...> now, std::tuple<M&...> after, std::tuple<M&...> before) {
        each(now, after, before, std::index_sequence_for<M...>());
    }
    template <class... M, size_t... I>
    static void each(std::tuple<M&...> now, std::tuple<M&...> after, std::tuple<M&...> before, std::index_sequence<I...>) {
        (Unpatched<std::remove_const_t<M>>::put_back(std::get<I>(now), std::get<I>(after), std::get<I>(before)), ...);
    }
};

// A container in it that was changed is a new object, which only this value holds.
template <>
struct Unpatched<c10::IValue> {
    static void put_back(c10::IValue& now, const c10::IValue& after, const c10::IValue& before) {
        if (now.is(after)) now = before;
    }
};

struct PutBack {
    virtual ~PutBack() = default;
    virtual void now() noexcept = 0;
};

template <class T>
class PutBackOf : public PutBack {
public:
    PutBackOf(T& value, T before) : value_(value), before_(std::move(before)), after_(value) {}
    void now() noexcept override { Unpatched<T>::put_back(value_, after_, before_); }

private:
    T& value_;
    const T before_, after_;
};

} // namespace detail
} // namespace GRAPHPATCH_NAMESPACE
} // namespace graphpatch
