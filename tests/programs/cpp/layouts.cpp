// Patches on values that are not plain strided memory: each must do what PyTorch's own expression does, or be refused.
//
//   layouts [VALUE]
//
// Prints a line for each value and patch, with tabs between: the value's name, its shape, the patch, the outcome, a message.
//   same       the patch did what the expression does, on a copy
//   refused    both refuse
//   careful    the patch is refused, though PyTorch has an expression for it
//   bold       PyTorch refuses it, the patch does not
//   different  the results differ
//   leaked     the patch changed the operand
//   failed     the patch did not meet its node, or the program is wrong

#include "host.h"
#include "specs.h"

#include <ATen/TensorIndexing.h>

#include <cstdio>
#include <functional>

namespace {

using at::Tensor;
using at::indexing::TensorIndex;

struct Case {
    std::string name, path;
    std::function<Tensor()> operand;
    std::function<Tensor(const Tensor&)> operation = [](const Tensor& x) { return at::clone(x); };
};

Tensor numbers(at::IntArrayRef sizes, at::ScalarType type = at::kFloat) {
    int64_t n = 1;
    for (auto size : sizes) n *= size;
    return at::arange(1, n + 1, at::kFloat).reshape(sizes).to(type);
}

Tensor spikes() { return numbers({4, 6}) * (numbers({4, 6}).remainder(3) == 0); }

std::vector<Case> cases() {
    auto of_type = [](at::ScalarType type) { return [type] { return numbers({2, 3}, type); }; };
    std::vector<Case> all = {
        {"sparse-coo", "clone", [] { return spikes().to_sparse(); }},
        {"sparse-csr", "clone", [] { return spikes().to_sparse_csr(); }},
        {"sparse-csc", "clone", [] { return spikes().to_sparse_csc(); }},
        {"sparse-bsr", "clone", [] { return spikes().to_sparse_bsr({2, 2}); }},
        {"mkldnn", "clone", [] { return numbers({2, 3}).to_mkldnn(); }},
        {"quantized", "clone", [] { return at::quantize_per_tensor(numbers({2, 3}), 0.5, 3, at::kQUInt8); }},
        {"quantized-int32", "clone", [] { return at::quantize_per_tensor(numbers({2, 3}), 0.5, 3, at::kQInt32); }},
        {"quantized-channels", "clone",
         [] {
             return at::quantize_per_channel(numbers({2, 3}), at::full({2}, 0.5, at::kDouble), at::zeros({2}, at::kLong), 0,
                                             at::kQInt8);
         }},
        {"nested", "clone", [] { return at::_nested_tensor_from_tensor_list({numbers({2, 3}), numbers({1, 3})}); }},
        {"conj", "_conj", [] { return numbers({2, 3}, at::kComplexFloat) * c10::complex<float>(1, 2); },
         [](const Tensor& x) { return at::_conj(x); }},
        {"conj-imag", "imag", [] { return numbers({2, 3}, at::kComplexFloat) * c10::complex<float>(1, 2); },
         [](const Tensor& x) { return at::imag(x); }},
        {"sparse-in-place", "mul_", [] { return spikes().to_sparse(); }, [](const Tensor& x) { return x.clone().mul_(2.0); }},
        {"quantized-in-place", "relu_", [] { return at::quantize_per_tensor(numbers({2, 3}), 0.5, 3, at::kQUInt8); },
         [](const Tensor& x) {
             Tensor y = x.clone();
             return at::relu_(y);
         }},
        {"quantized-result", "quantize_per_tensor", [] { return numbers({2, 3}); },
         [](const Tensor& x) { return at::quantize_per_tensor(x, 0.5, 3, at::kQUInt8); }},
        {"sparse-result", "to_sparse", [] { return spikes(); }, [](const Tensor& x) { return x.to_sparse(); }},
        {"neg", "_neg_view", of_type(at::kFloat), [](const Tensor& x) { return at::_neg_view(x); }},
        {"neg-of-fresh", "alias", [] { return at::_neg_view(numbers({2, 3})); }, [](const Tensor& x) { return at::alias(x); }},
        {"meta", "clone", [] { return at::empty({2, 3}, at::TensorOptions(at::kMeta).dtype(at::kFloat)); }},
        {"bool", "clone", of_type(at::kBool)},
        {"complex64", "clone", of_type(at::kComplexFloat)},
        {"complex128", "clone", of_type(at::kComplexDouble)},
        {"complex32", "clone", of_type(at::kComplexHalf)},
        {"float8_e4m3fn", "clone", of_type(at::kFloat8_e4m3fn)},
        {"float8_e5m2", "clone", of_type(at::kFloat8_e5m2)},
        {"float8_e4m3fnuz", "clone", of_type(at::kFloat8_e4m3fnuz)},
        {"float8_e5m2fnuz", "clone", of_type(at::kFloat8_e5m2fnuz)},
        {"uint16", "clone", of_type(at::kUInt16)},
        {"uint32", "clone", of_type(at::kUInt32)},
        {"uint64", "clone", of_type(at::kUInt64)},
        {"zero-size", "clone", [] { return numbers({0, 3}); }},
        {"zero-size-inner", "clone", [] { return numbers({3, 0, 2}); }},
        {"zero-dim", "clone", [] { return numbers({}); }},
        {"zero-dim-shared", "alias", [] { return numbers({}); }, [](const Tensor& x) { return at::alias(x); }},
        {"expanded", "expand", [] { return numbers({1, 3}); }, [](const Tensor& x) { return x.expand({2, 3}); }},
        {"expanded-zero-dim", "expand", [] { return numbers({}); }, [](const Tensor& x) { return x.expand({2, 3}); }},
        {"overlapping", "unfold", [] { return numbers({6}); }, [](const Tensor& x) { return x.unfold(0, 3, 1); }},
        {"foreign-memory", "alias",
         [] {
             static float memory[6];
             for (int i = 0; i < 6; ++i) memory[i] = static_cast<float>(i + 1);
             return at::from_blob(memory, {2, 3});
         },
         [](const Tensor& x) { return at::alias(x); }},
        {"storage-shared-later", "as_strided", [] { return numbers({4, 6}); },
         [](const Tensor& x) { return x.as_strided({2, 3}, {1, 6}, 2); }},
    };
    return all;
}

// Converts a tensor of any kind to plain numbers, for comparisons.
Tensor plain(const Tensor& t) {
    if (t.is_nested()) return t.to_padded_tensor(-7.0);
    if (t.is_quantized()) return t.int_repr().to(at::kDouble);
    if (t.is_meta()) return at::zeros(t.sizes());
    Tensor dense = t.layout() == at::kStrided ? t : t.to_dense();
    dense = dense.resolve_conj().resolve_neg();
    if (dense.is_complex()) return at::view_as_real(dense.to(at::kComplexDouble));
    return dense.to(at::kDouble);
}

bool same(const Tensor& a, const Tensor& b) {
    return a.dtype() == b.dtype() && a.layout() == b.layout() && a.device() == b.device() && a.is_nested() == b.is_nested() &&
           (a.is_nested() || a.sizes() == b.sizes()) && at::allclose(plain(a), plain(b), 0, 0, true);
}

// One patch, and PyTorch's expression for it.
struct Patch {
    std::string name;
    std::function<void(abi::Spec&)> patch;
    std::function<void(Tensor&)> expression;
};

int flip(void*, DLManagedTensorVersioned* seen, DLManagedTensorVersioned** made) {
    auto part = at::fromDLPackVersioned(seen);
    *made = at::toDLPackVersioned(part.dim() ? part.flip(0) : part.clone());
    return 0;
}

std::vector<Patch> patches() {
    using at::indexing::Ellipsis;
    static const auto one = abi::Value::text("1");
    static const auto third = abi::Value::text("0.25");
    static const auto float_tensor = at::full({1}, 2.0f);
    static const auto tensor = abi::Value::copy(float_tensor);
    auto add = [](Tensor& t, TensorIndex index, auto value) { t.index({index}).add_(value); };
    return {
        {"zero", [](abi::Spec& s) { s.zero(); }, [](Tensor& t) { t.index_put_({Ellipsis}, at::Scalar(0)); }},
        {"[0]=zero", [](abi::Spec& s) { s.slice("[0]").zero(); }, [](Tensor& t) { t.index_put_({0}, at::Scalar(0)); }},
        {"[..., 1:]=zero", [](abi::Spec& s) { s.slice("[..., 1:]").zero(); },
         [](Tensor& t) { t.index_put_({Ellipsis, at::indexing::Slice(1)}, at::Scalar(0)); }},
        {"add:1", [](abi::Spec& s) { s.add(one); }, [add](Tensor& t) { add(t, Ellipsis, at::Scalar(1)); }},
        {"[0]=add:1", [](abi::Spec& s) { s.slice("[0]").add(one); }, [add](Tensor& t) { add(t, 0, at::Scalar(1)); }},
        {"replace:0.25", [](abi::Spec& s) { s.replace(third); }, [](Tensor& t) { t.index_put_({Ellipsis}, at::Scalar(0.25)); }},
        {"add:tensor", [](abi::Spec& s) { s.add(tensor); }, [add](Tensor& t) { add(t, Ellipsis, float_tensor); }},
        {"replace:tensor", [](abi::Spec& s) { s.replace(tensor); }, [](Tensor& t) { t.index_put_({Ellipsis}, float_tensor); }},
        {"probe", [](abi::Spec& s) { s.probe(); }, [](Tensor&) {}},
        {"record", [](abi::Spec& s) { s.record(0); }, [](Tensor&) {}},
        {"flip", [](abi::Spec& s) { s.custom(flip, nullptr); },
         [](Tensor& t) { t.index_put_({Ellipsis}, t.dim() ? t.flip(0) : t.clone()); }},
    };
}

void line(const Case& c, const Tensor& value, const std::string& patch, const std::string& what, std::string message) {
    std::string shape = "-";
    if (value.defined() && !value.is_nested()) {
        shape = "(";
        for (int64_t d = 0; d < value.dim(); ++d) shape += (d ? ", " : "") + std::to_string(value.size(d));
        shape += ")";
    }
    for (char& letter : message)
        if (letter == '\n' || letter == '\t') letter = ' ';
    std::printf("%s\t%s\t%s\t%s\t%s\n", c.name.c_str(), shape.c_str(), patch.c_str(), what.c_str(), message.c_str());
    std::fflush(stdout);
}

void run(abi::Session& session, const Case& c, const Patch& patch) {
    Tensor operand = c.operand(), backup = plain(operand).clone();
    Tensor unpatched = c.operation(c.operand());
    abi::Spec spec(c.path);
    patch.patch(spec);
    uint64_t id = spec.add_to(session);

    Tensor result;
    std::string refusal;
    abi::check(gp_run_begin("layouts"));
    try {
        result = c.operation(operand);
    } catch (const c10::Error& e) {
        refusal = e.what_without_backtrace();
    }
    abi::check(gp_run_end());

    auto counts = abi::counts(session, id);
    if (counts.matched != 1)
        throw std::runtime_error(c.name + ": " + c.path + " was matched " + std::to_string(counts.matched) + " times");
    std::string kept;
    if (refusal.empty() && (patch.name == "probe" || patch.name == "record")) {
        Tensor dense = abi::kept(session, id).count == 1 ? abi::kept_tensor(session, id) : Tensor();
        if (!dense.defined() || !at::allclose(plain(dense), plain(unpatched), 0, 0, true)) kept = "kept something else";
    }
    session.remove(id);

    Tensor expected;
    std::string torch_refuses;
    try {
        expected = c.operation(c.operand()).clone();
        patch.expression(expected);
    } catch (const std::exception& e) {
        expected = Tensor();
        torch_refuses = std::string(e.what()).substr(0, 200);
    }
    bool leaked = !at::allclose(plain(operand), backup, 0, 0, true);
    if (leaked) line(c, unpatched, patch.name, "leaked", "");
    else if (!refusal.empty()) line(c, unpatched, patch.name, expected.defined() ? "careful" : "refused", refusal);
    else if (!expected.defined()) line(c, unpatched, patch.name, "bold", torch_refuses);
    else if (!kept.empty()) line(c, unpatched, patch.name, "different", kept);
    else if (!same(result, expected)) line(c, unpatched, patch.name, "different", "");
    else line(c, unpatched, patch.name, "same", "");
}

}  // namespace

int main(int argc, char** argv) {
    torch::NoGradGuard no_grad;
    try {
        abi::Session session;
        for (const auto& c : cases()) {
            if (argc > 1 && c.name != argv[1]) continue;
            for (const auto& patch : patches()) {
                try {
                    run(session, c, patch);
                } catch (const std::exception& e) {
                    gp_run_end();
                    line(c, {}, patch.name, "failed", e.what());
                }
            }
        }
        return 0;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "layouts: %s\n", e.what());
        return 1;
    }
}
