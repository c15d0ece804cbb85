// What the small host programs of the tests share: reading and writing the files that tests/torch exchanges with them.
#pragma once

#include <torch/script.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <type_traits>

namespace host {

inline std::vector<char> read_bytes(const std::string& file) {
    std::ifstream in(file, std::ios::binary);
    if (!in) throw std::runtime_error("cannot open " + file);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline void write_bytes(const std::string& file, const std::vector<char>& bytes) {
    std::ofstream out(file, std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!out.flush()) throw std::runtime_error("cannot write " + file);
}

// The arguments of one forward: a tuple saved by torch.save.
inline std::vector<c10::IValue> read_inputs(const std::string& file) {
    return torch::jit::pickle_load(read_bytes(file)).toTupleRef().elements().vec();
}

inline torch::jit::Module load(const std::string& file) {
    if (!std::ifstream(file)) throw std::runtime_error("cannot open the model " + file);
    return torch::jit::load(file);
}

inline c10::IValue tuple(std::vector<c10::IValue> values) { return c10::ivalue::Tuple::create(std::move(values)); }

// Parameters and buffers as a tuple of (name, tensor) tuples, which torch.load reads unchanged.
inline c10::IValue weights(const torch::jit::Module& module) {
    std::vector<c10::IValue> pairs;
    for (const auto& p : module.named_parameters()) pairs.push_back(tuple({p.name, p.value.detach()}));
    for (const auto& b : module.named_buffers()) pairs.push_back(tuple({b.name, b.value.detach()}));
    return tuple(std::move(pairs));
}

// An output as the test compares it: detached, and a copy, so that a later run cannot change what this one returned.
inline c10::IValue snapshot(const c10::IValue& value) {
    if (value.isTensor()) return value.toTensor().defined() ? c10::IValue(value.toTensor().detach().clone()) : c10::IValue();
    if (value.isTuple() || value.isList()) {
        std::vector<c10::IValue> items;
        if (value.isTuple())
            for (const auto& item : value.toTupleRef().elements()) items.push_back(snapshot(item));
        else
            for (const auto& item : value.toListRef()) items.push_back(snapshot(item));
        return tuple(std::move(items));
    }
    if (value.isGenericDict()) {
        std::vector<c10::IValue> pairs;
        for (const auto& entry : value.toGenericDict()) pairs.push_back(tuple({entry.key(), snapshot(entry.value())}));
        return tuple(std::move(pairs));
    }
    return value;
}

// What main returns: the result of `run`, or 0 if it has none. An exception ends the program with its message and code 1.
template <class Run>
int guarded(const char* program, Run run) {
    try {
        if constexpr (std::is_void_v<decltype(run())>) return run(), 0;
        else return run();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", program, error.what());
        return 1;
    }
}

}  // namespace host
