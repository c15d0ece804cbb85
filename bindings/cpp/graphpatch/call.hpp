// Calls of modules that have no Scope line of their own: torch::nn's.
//
//   x = graphpatch::call(linear, x);          // as linear(x), with a scope
//   x = graphpatch::call(sequential, x);      // and one for each of its modules
#pragma once

#include "scope.hpp"

#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/container/sequential.h>

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {

// The names that call() gives to the arguments of a module of torch::nn, where there are several: those of Python's forward.
template <class M>
struct ArgumentNames {
    static constexpr std::array<const char*, 1> value{"input"};
};

}  // namespace GRAPHPATCH_NAMESPACE
}  // namespace graphpatch

namespace torch::nn {
class BilinearImpl;
class MultiheadAttentionImpl;
class TransformerImpl;
class TransformerEncoderImpl;
class TransformerEncoderLayerImpl;
class TransformerDecoderImpl;
class TransformerDecoderLayerImpl;
class LSTMImpl;
class GRUImpl;
class RNNImpl;
class LSTMCellImpl;
class GRUCellImpl;
class RNNCellImpl;
class EmbeddingBagImpl;
class CosineSimilarityImpl;
class PairwiseDistanceImpl;
}  // namespace torch::nn

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {
namespace detail {

template <size_t N>
using NameList = std::array<const char*, N>;
struct RecurrentNames {
    static constexpr NameList<2> value{"input", "hx"};
};
struct PairNames {
    static constexpr NameList<2> value{"x1", "x2"};
};
struct EncoderNames {
    static constexpr NameList<3> value{"src", "src_mask", "src_key_padding_mask"};
};
struct DecoderNames {
    static constexpr NameList<6> value{
        "tgt", "memory", "tgt_mask", "memory_mask", "tgt_key_padding_mask", "memory_key_padding_mask"};
};

}  // namespace detail

template <> struct ArgumentNames<torch::nn::LSTMImpl> : detail::RecurrentNames {};
template <> struct ArgumentNames<torch::nn::GRUImpl> : detail::RecurrentNames {};
template <> struct ArgumentNames<torch::nn::RNNImpl> : detail::RecurrentNames {};
template <> struct ArgumentNames<torch::nn::LSTMCellImpl> : detail::RecurrentNames {};
template <> struct ArgumentNames<torch::nn::GRUCellImpl> : detail::RecurrentNames {};
template <> struct ArgumentNames<torch::nn::RNNCellImpl> : detail::RecurrentNames {};
template <> struct ArgumentNames<torch::nn::CosineSimilarityImpl> : detail::PairNames {};
template <> struct ArgumentNames<torch::nn::PairwiseDistanceImpl> : detail::PairNames {};
template <> struct ArgumentNames<torch::nn::TransformerEncoderLayerImpl> : detail::EncoderNames {};
template <> struct ArgumentNames<torch::nn::TransformerDecoderLayerImpl> : detail::DecoderNames {};
template <> struct ArgumentNames<torch::nn::TransformerDecoderImpl> : detail::DecoderNames {};
template <> struct ArgumentNames<torch::nn::TransformerEncoderImpl> {
    static constexpr detail::NameList<3> value{"src", "mask", "src_key_padding_mask"};
};
template <> struct ArgumentNames<torch::nn::TransformerImpl> {
    static constexpr detail::NameList<8> value{"src",
                                               "tgt",
                                               "src_mask",
                                               "tgt_mask",
                                               "memory_mask",
                                               "src_key_padding_mask",
                                               "tgt_key_padding_mask",
                                               "memory_key_padding_mask"};
};
template <> struct ArgumentNames<torch::nn::BilinearImpl> {
    static constexpr detail::NameList<2> value{"input1", "input2"};
};
template <> struct ArgumentNames<torch::nn::EmbeddingBagImpl> {
    static constexpr detail::NameList<3> value{"input", "offsets", "per_sample_weights"};
};
template <> struct ArgumentNames<torch::nn::MultiheadAttentionImpl> {
    static constexpr detail::NameList<7> value{
        "query", "key", "value", "key_padding_mask", "need_weights", "attn_mask", "average_attn_weights"};
};

namespace detail {

// The module that a reference, a pointer or a holder stands for.
template <class M, std::enable_if_t<std::is_base_of_v<Module, M>, int> = 0>
M& module_of(M& module) {
    return module;
}
template <class M>
M& module_of(M* module) {
    return *module;
}
template <class M>
M& module_of(const std::shared_ptr<M>& module) {
    return *module;
}
template <class M>
M& module_of(const torch::nn::ModuleHolder<M>& module) {
    return *module.ptr();
}

// Whether the module is one of torch::nn's, which have no Scope line. The mangled name of its class tells.
inline bool is_torchs(const Module& module) {
    constexpr std::string_view kPrefix = "N5torch2nn";
    return std::string_view(typeid(module).name()).substr(0, kPrefix.size()) == kPrefix;
}

// The arguments of a call, held as long as it is open, and their names.
template <class... Arguments>
struct Held {
    std::tuple<std::decay_t<Arguments>...> values;
    std::vector<std::string> own;

    // Arguments beyond the given names are called input_1, input_2 and so on, by their position.
    template <class Names>
    std::vector<Input> inputs(const Names& names) {
        own.reserve(sizeof...(Arguments));
        size_t at = 0;
        std::vector<Input> inputs;
        const auto name = [&]() -> const char* {
            const size_t i = at++;
            return i < names.size() ? names.begin()[i] : own.emplace_back("input_" + std::to_string(i)).c_str();
        };
        inputs.reserve(sizeof...(Arguments));
        std::apply([&](auto&... value) { (inputs.emplace_back(name(), value), ...); }, values);
        return inputs;
    }
};

template <class M, class Names, class... Arguments>
auto call_as(M& module, const Names& names, Arguments&&... arguments) {
    Held<Arguments...> held{{std::forward<Arguments>(arguments)...}, {}};
    const std::vector<Input> inputs = held.inputs(names);
    Call call;
    call.begin(module, inputs.data(), inputs.size(), true);
    return call.output(std::apply([&](auto&... value) { return module.forward(std::move(value)...); }, held.values));
}

// What a Sequential hands from one of its modules to the next.
template <>
struct StructureOf<torch::nn::AnyValue> {
    static void add(const torch::nn::AnyValue& value, Structure& out) {
        const bool known = each(const_cast<torch::nn::AnyValue&>(value), [&](auto& held) {
            StructureOf<std::decay_t<decltype(held)>>::add(held, out);
            return true;
        });
        if (!known) out.tagged('O', c10::demangle(value.type_info().name()));
    }
    static bool take(torch::nn::AnyValue& value, Leaves& leaves) {
        return each(value, [&](auto& held) { return StructureOf<std::decay_t<decltype(held)>>::take(held, leaves); });
    }

private:
    // Calls `body` with the value that is held, if it has a type that modules usually hand on. Otherwise returns false.
    template <class Body>
    static bool each(torch::nn::AnyValue& value, Body body) {
        using at::Tensor;
        return one_of<Tensor, std::vector<Tensor>, std::tuple<Tensor, Tensor>, std::tuple<Tensor, Tensor, Tensor>,
                      std::tuple<Tensor, std::tuple<Tensor, Tensor>>, std::pair<Tensor, Tensor>, std::optional<Tensor>,
                      std::map<std::string, Tensor>, std::unordered_map<std::string, Tensor>, c10::IValue, double, int64_t,
                      bool>(value, body);
    }
    template <class... T, class Body>
    static bool one_of(torch::nn::AnyValue& value, Body body) {
        bool answer = false;
        const auto tried = [&](auto* held) {
            if (held) answer = body(*held);
            return held != nullptr;
        };
        (tried(value.try_get<T>()) || ...);
        return answer;
    }
};

// A module behind an AnyModule.
template <class... Values>
torch::nn::AnyValue call_any(torch::nn::AnyModule& any, Values... inputs) {
    const auto module = any.ptr();
    Call call;
    if (Call::matters() && is_torchs(*module)) {
        size_t at = 0;
        std::vector<std::string> names;
        for (size_t i = 0; i < sizeof...(inputs); ++i) names.push_back(i ? "input_" + std::to_string(i) : "input");
        const std::array<Input, sizeof...(inputs)> shown{Input(names[at++].c_str(), inputs)...};
        call.begin(*module, shown.data(), shown.size(), true);
    }
    return call.output(any.any_forward(std::move(inputs)...));
}

template <class Return>
Return unpacked(torch::nn::AnyValue value) {
    if (auto* held = value.try_get<Return>()) return std::move(*held);
    throw Error(GP_STATUS_ARGUMENT, "the modules return a " + c10::demangle(value.type_info().name()) + ", not the " +
                                        c10::demangle(typeid(Return).name()) + " that was asked for");
}

}  // namespace detail

// Calls a Sequential as sequential->forward(...) does, with a scope for it and one for each of its modules.
template <class Return = at::Tensor, class... Arguments>
Return sequence(torch::nn::SequentialImpl& modules, Arguments&&... arguments) {
    if (!detail::Call::matters() || modules.is_empty()) {
        detail::Call call;
        call.pass();
        return modules.forward<Return>(std::forward<Arguments>(arguments)...);
    }
    detail::Held<Arguments...> held{{std::forward<Arguments>(arguments)...}, {}};
    const std::vector<Input> inputs = held.inputs(ArgumentNames<torch::nn::SequentialImpl>::value);
    detail::Call call;
    call.begin(modules, inputs.data(), inputs.size(), true);
    auto at = modules.begin();
    auto value = std::apply([&](auto&... first) { return detail::call_any(*at, torch::nn::AnyValue(std::move(first))...); },
                            held.values);
    for (++at; at != modules.end(); ++at) value = detail::call_any(*at, std::move(value));
    return call.output(detail::unpacked<Return>(std::move(value)));
}

// Calls an AnyModule; the scope is as call() says.
template <class Return = at::Tensor, class... Arguments>
Return call(torch::nn::AnyModule& module, Arguments&&... arguments) {
    using torch::nn::AnyValue;
    return detail::unpacked<Return>(
        detail::call_any(module, AnyValue(std::decay_t<Arguments>(std::forward<Arguments>(arguments)))...));
}

// Calls a module, given by reference, pointer or holder. A module of torch::nn gets a scope, whose inputs have the names that
// Python gives them. A module of the program's own has a Scope line for that, and is called as it is.
template <class M, class... Arguments, std::enable_if_t<!std::is_same_v<std::decay_t<M>, torch::nn::AnyModule>, int> = 0>
auto call(M&& held, Arguments&&... arguments) {
    auto& module = detail::module_of(held);
    using Impl = std::decay_t<decltype(module)>;
    if constexpr (std::is_same_v<Impl, torch::nn::SequentialImpl>) {
        return sequence(module, std::forward<Arguments>(arguments)...);
    } else {
        if (detail::Call::matters() && detail::is_torchs(module))
            return detail::call_as(module, ArgumentNames<Impl>::value, std::forward<Arguments>(arguments)...);
        return std::decay_t<decltype(module.forward(std::forward<Arguments>(arguments)...))>(
            module.forward(std::forward<Arguments>(arguments)...));
    }
}

// The same for a module of any class, with names for its arguments: for example a module of another library.
template <class M, class... Arguments>
auto call(M&& held, std::initializer_list<const char*> names, Arguments&&... arguments) {
    auto& module = detail::module_of(held);
    if (detail::Call::matters()) return detail::call_as(module, names, std::forward<Arguments>(arguments)...);
    return std::decay_t<decltype(module.forward(std::forward<Arguments>(arguments)...))>(
        module.forward(std::forward<Arguments>(arguments)...));
}

}  // namespace GRAPHPATCH_NAMESPACE
}  // namespace graphpatch
