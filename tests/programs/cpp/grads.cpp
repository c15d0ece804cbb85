// Gradients through patches: runs a scripted module once for each case, goes backward, and says what arrived where.
//
//   grads MODEL.pt DATA.pt CASES.txt OUT.pt
//
// DATA.pt is (inputs, values, loss weight): the arguments of forward, whose floating-point tensors all require
// gradients; the patches' tensors, which do too; and what the output is multiplied with before it is summed and goes
// backward. A line of CASES.txt is a case: a mode (grad, no_grad, inference) and patches, separated by tabs, each
// `PATH[SLICE]=zero`, `=add:VALUE`, `=replace:VALUE` or `=custom:halve`, a function that gives half of what it sees. VALUE
// is a number; "&3", value 3 as libtorch's tensor; or "@3", a copy of its numbers.
//
// OUT.pt has one tuple a case: (output, gradients of the inputs, of the weights as (name, gradient), of the values);
// gradients that did not arrive are None. Where the run or the way back threw: its message. Then the inputs, weights
// and values as they are after all cases.

#include "host.h"
#include "specs.h"

#include <c10/core/InferenceMode.h>

#include <cstdio>

namespace {

std::vector<std::string> split(const std::string& line) {
    std::vector<std::string> parts;
    size_t at = 0;
    for (size_t end; (end = line.find('\t', at)) != std::string::npos; at = end + 1) parts.push_back(line.substr(at, end - at));
    parts.push_back(line.substr(at));
    return parts;
}

c10::IValue tensor_or_none(const at::Tensor& tensor) { return tensor.defined() ? c10::IValue(tensor.clone()) : c10::IValue(); }

// Fresh leaves that require gradients, of the same numbers.
std::vector<c10::IValue> leaves(const std::vector<c10::IValue>& from) {
    std::vector<c10::IValue> out;
    for (const auto& value : from) {
        auto leaf = value.toTensor().detach().clone();
        out.emplace_back(leaf.is_floating_point() ? leaf.requires_grad_() : leaf);
    }
    return out;
}

int halve(void*, DLManagedTensorVersioned* seen, DLManagedTensorVersioned** made) {
    *made = at::toDLPackVersioned(at::fromDLPackVersioned(seen) * 0.5);
    return 0;
}

class Grads {
public:
    Grads(torch::jit::Module module, std::vector<c10::IValue> data)
        : module_(std::move(module)), inputs_(data.at(0).toTupleRef().elements().vec()),
          values_(data.at(1).toTupleRef().elements().vec()), weight_(data.at(2).toTensor()) {}

    c10::IValue run(const std::string& line) {
        auto fields = split(line);
        auto inputs = leaves(inputs_), values = leaves(values_);
        std::vector<uint64_t> ids;
        c10::IValue result;
        for (const auto& p : module_.parameters()) p.mutable_grad() = at::Tensor();
        try {
            for (size_t i = 1; i < fields.size(); ++i)
                if (!fields[i].empty()) ids.push_back(add(fields[i], values));
            result = host::tuple(passes(fields[0], inputs, values));
        } catch (const c10::Error& e) {
            result = std::string(e.what_without_backtrace());
        } catch (const std::exception& e) {
            result = std::string(e.what());
        }
        for (auto id : ids) session_.remove(id);
        return result;
    }

    c10::IValue after() const { return host::tuple({host::tuple(inputs_), host::weights(module_), host::tuple(values_)}); }

private:
    uint64_t add(const std::string& text, const std::vector<c10::IValue>& values) {
        size_t at = text.find_first_of("&@");
        bool halves = text.find("=custom:halve") != std::string::npos;
        if (at == std::string::npos && !halves) return session_.add(text);
        // Text cannot express this value or function, so build a spec.
        at = text.find(':', text.find('='));
        size_t equals = text.rfind('=', at), bracket = text.find('[');
        bool sliced = bracket != std::string::npos && bracket < equals;
        abi::Spec spec(text.substr(0, sliced ? bracket : equals));
        if (sliced) spec.slice(text.substr(bracket, equals - bracket));
        if (halves) return spec.custom(halve, nullptr).add_to(session_);
        auto tensor = values.at(std::stoul(text.substr(at + 2))).toTensor();
        auto value = text[at + 1] == '&' ? abi::Value::torch(tensor) : abi::Value::copy(tensor);
        text.compare(equals + 1, 4, "add:") == 0 ? spec.add(value) : spec.replace(value);
        return spec.add_to(session_);
    }

    std::vector<c10::IValue> passes(const std::string& mode, const std::vector<c10::IValue>& inputs,
                                    const std::vector<c10::IValue>& values) {
        // Switching inference mode off switches gradients on, so it comes first.
        c10::InferenceMode inference(mode == "inference");
        torch::AutoGradMode grad(mode == "grad");
        auto output = module_.forward(inputs).toTensor();
        if (mode == "grad" && output.requires_grad()) (output * weight_).sum().backward();
        std::vector<c10::IValue> of_inputs, of_weights, of_values;
        for (const auto& input : inputs) of_inputs.push_back(tensor_or_none(input.toTensor().grad()));
        for (const auto& p : module_.named_parameters())
            of_weights.push_back(host::tuple({p.name, tensor_or_none(p.value.grad())}));
        for (const auto& value : values) of_values.push_back(tensor_or_none(value.toTensor().grad()));
        return {output.detach().clone(), host::tuple(of_inputs), host::tuple(of_weights), host::tuple(of_values)};
    }

    torch::jit::Module module_;
    std::vector<c10::IValue> inputs_, values_;
    at::Tensor weight_;
    abi::Session session_;
};

void run(int argc, char** argv) {
    if (argc != 5) throw std::runtime_error("usage: grads MODEL.pt DATA.pt CASES.txt OUT.pt");
    Grads grads(host::load(argv[1]), host::read_inputs(argv[2]));
    std::ifstream lines(argv[3]);
    if (!lines) throw std::runtime_error(std::string("cannot open ") + argv[3]);
    std::vector<c10::IValue> cases;
    for (std::string line; std::getline(lines, line);) cases.push_back(grads.run(line));
    host::write_bytes(argv[4], torch::jit::pickle_save(host::tuple({host::tuple(cases), grads.after()})));
}

}  // namespace

int main(int argc, char** argv) {
    return host::guarded("grads", [&] { return run(argc, argv); });
}
