// Computes expected results with one version of libtorch, for tests/versions: it defines and saves modules, runs them, and runs
// them with a value changed by hand. It knows nothing of libgraphpatch.
//
//   by_hand FOLDER             writes FOLDER/model.pt (TupleOutputModule), FOLDER/inputs.pt and FOLDER/expected.pt
//   by_hand FOLDER FLAT.pt     the same for what tests/programs/cpp/flat.cpp wrote: its operations, in FOLDER/expected.pt
//
// expected.pt is a tuple of (patch, output) pairs; the patch "" stands for none.

#include "host.h"

#include <cstdio>
#include <functional>
#include <map>

namespace {

using at::Tensor;

struct Change {
    std::string patch, path;
    std::function<void(Tensor&)> change;
};

// The value at `path` after the change; values at other paths are as they were.
Tensor at_path(const Change& change, const std::string& path, Tensor value) {
    if (change.path != path) return value;
    value = value.clone();
    change.change(value);
    return value;
}

std::vector<Change> changes(const std::vector<std::string>& paths) {
    const std::vector<std::pair<std::string, std::function<void(Tensor&)>>> kinds = {
        {"=zero", [](Tensor& t) { t.zero_(); }},
        {"[0]=zero", [](Tensor& t) { t[0].zero_(); }},
        {"[..., 1]=add:0.1", [](Tensor& t) { t.select(-1, 1).add_(0.1); }},
        {"[..., ::2]=replace:2.5", [](Tensor& t) { t.slice(-1, 0, std::nullopt, 2).fill_(2.5); }},
    };
    std::vector<Change> all = {{"", "", [](Tensor&) {}}};
    for (const auto& path : paths)
        for (const auto& [text, change] : kinds) all.push_back({path + text, path, change});
    return all;
}

// TupleOutputModule of the tests, made without Python.
torch::jit::Module tuple_output(const Tensor& weight, const Tensor& bias) {
    torch::jit::Module linear("Linear"), module("TupleOutputModule");
    linear.register_parameter("weight", weight, false);
    linear.register_parameter("bias", bias, false);
    linear.define("def forward(self, input):\n    return torch.linear(input, self.weight, self.bias)\n");
    module.register_module("linear", linear);
    module.define("def forward(self, x):\n    return self.linear.forward(x), self.linear.forward(x + 1)\n");
    return module;
}

c10::IValue script(const std::string& folder) {
    torch::manual_seed(0);
    const auto weight = torch::randn({3, 2}), bias = torch::randn({3}), x = torch::randn({3, 2});
    tuple_output(weight, bias).save(folder + "/model.pt");
    host::write_bytes(folder + "/inputs.pt", torch::jit::pickle_save(host::tuple({x})));
    std::vector<c10::IValue> pairs;
    for (const auto& c : changes({"x", "linear.weight", "linear.linear", "linear.output", "add", "linear_1.bias",
                                  "linear_1.linear", "output|sub_1"})) {
        const auto at = [&](const char* path, Tensor value) { return at_path(c, path, std::move(value)); };
        const auto seen = at("x", x);
        const auto first = at("linear.output", at("linear.linear", at::linear(seen, at("linear.weight", weight), bias)));
        const auto second = at("linear_1.linear", at::linear(at("add", seen + 1), weight, at("linear_1.bias", bias)));
        pairs.push_back(host::tuple({c.patch, host::tuple({first, at("output|sub_1", second)})}));
    }
    return host::tuple(std::move(pairs));
}

c10::IValue flat(const std::string& file) {
    const auto written = torch::jit::pickle_load(host::read_bytes(file)).toTuple();
    std::map<std::string, Tensor> w;
    for (const auto& pair : written->elements()[0].toTupleRef().elements())
        w[pair.toTupleRef().elements()[0].toStringRef()] = pair.toTupleRef().elements()[1].toTensor();
    const auto x = written->elements()[1].toTensor();
    std::vector<c10::IValue> pairs;
    for (const auto& c : changes({"addmm", "relu", "addmm_1"})) {
        const auto at = [&](const char* path, Tensor value) { return at_path(c, path, std::move(value)); };
        const auto hidden = at("relu", at::relu(at("addmm", at::addmm(w.at("b1"), x, w.at("w1")))));
        pairs.push_back(host::tuple({c.patch, at("addmm_1", at::addmm(w.at("b2"), hidden, w.at("w2")))}));
    }
    return host::tuple(std::move(pairs));
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 2 && argc != 3) return std::fprintf(stderr, "usage: by_hand FOLDER [FLAT.pt]\n"), 1;
    torch::NoGradGuard no_grad;
    try {
        const std::string folder = argv[1];
        host::write_bytes(folder + "/expected.pt", torch::jit::pickle_save(argc == 3 ? flat(argv[2]) : script(folder)));
        return 0;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "by_hand: %s\n", e.what());
        return 1;
    }
}
