// What a patched copy keeps of the value that it stands for, and values of which no copy can be made: each check on models of
// its own. Values are compared with what plain libtorch computes.
//
//   copies CASE        runs one check; without CASE lists them
#include <graphpatch.hpp>
#include <torch/nn.h>

#include <functional>
#include <sstream>

#include "check.hpp"

namespace gp = graphpatch;
using torch::Tensor;

namespace {

// All that code which reads a tensor may ask of it, besides its elements.
std::string layout(const Tensor& t) {
    std::ostringstream out;
    out << t.strides() << " place " << reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 64 << (t.is_conj() ? " conj" : "")
        << (t.is_neg() ? " neg" : "") << (t.requires_grad() ? " grad" : "") << ' ' << t.dtype() << ' '
        << static_cast<int>(t.suggest_memory_format()) << (t.is_inference() ? " inference" : "");
    if (t.has_names())
        for (const auto& name : t.names()) out << ' ' << name;
    return out.str();
}

using Make = std::function<Tensor(const Tensor&)>;

// Notes how the value looks that it is given.
struct LooksImpl : torch::nn::Module {
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        seen.push_back(layout(x));
        return scope.output(x);
    }
    std::vector<std::string> seen;
};
TORCH_MODULE(Looks);

struct MakesImpl : torch::nn::Module {
    explicit MakesImpl(Make make) : make(std::move(make)), looks(register_module("looks", Looks())) {}
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        auto made = make(x);
        looks->seen.push_back(layout(made));
        made = looks(made);
        looks->seen.push_back(layout(made));
        return scope.output(torch::add(made, made));
    }
    Make make;
    Looks looks;
};
TORCH_MODULE(Makes);

// A patch at the value of `operation`, at an input and at an output leaves all of this as it is: one that changes nothing, and
// unless elements lie at one place, one that does.
void keeps(const std::string& operation, const Tensor& x, const Make& make, bool overlaps = false) {
    Makes net(make);
    gp::Session session;
    gp::Root root(net, "Makes");
    const auto bare = net(x);
    const auto expected = net->looks->seen;
    const auto value = make(x);
    for (const std::string& path : {operation, "looks.x"s, "looks.output"s}) {
        for (const double added : {-0.0, 1.0}) {
            if (overlaps && added != 0) continue;
            net->looks->seen.clear();
            auto patch = session.patch(gp::add(path, added));
            const auto found = net(x);
            require(patch.counts().applied == 1, path + " is patched");
            same(net->looks->seen, expected);
            const auto patched = value.rename({}) + added;
            require(at::equal(found.rename({}).resolve_conj(), (patched + patched).resolve_conj()), path);
            is(layout(found), layout(bare));
        }
    }
    same(net(x).rename({}).resolve_conj(), bare.rename({}).resolve_conj());
}

void strides() {
    const auto x = torch::randn({24, 24});
    keeps("narrow", x, [](const Tensor& x) { return (x + 0).narrow(1, 12, 12); });
    keeps("narrow", x, [](const Tensor& x) { return (x + 0).narrow(1, 9, 3); });
    keeps("split|sub_1", x, [](const Tensor& x) { return (x + 0).split(8, 1)[1]; });
    keeps("slice_1", x, [](const Tensor& x) { return (x + 0).slice(0, 0, 24, 3); });
    keeps("select", x, [](const Tensor& x) { return (x + 0).select(1, 5); });
    keeps("t", x, [](const Tensor& x) { return (x + 0).t(); });
    keeps("permute", x, [](const Tensor& x) { return (x + 0).view({4, 3, 2, 24}).permute({3, 0, 2, 1}); });
    keeps("diagonal", x, [](const Tensor& x) { return (x + 0).diagonal(); });
    keeps("expand", x, [](const Tensor& x) { return (x + 0).narrow(0, 0, 1).expand({5, 24}); }, true);
    keeps("unfold", x, [](const Tensor& x) { return (x + 0).view(-1).unfold(0, 8, 2); }, true);
}

void memory_formats() {
    const auto x = torch::randn({2, 3, 4, 5}), deep = torch::randn({1, 3, 2, 4, 5});
    keeps("contiguous", x, [](const Tensor& x) { return (x + 0).contiguous(at::MemoryFormat::ChannelsLast); });
    keeps("alias", x, [](const Tensor& x) { return at::alias((x + 0).contiguous(at::MemoryFormat::ChannelsLast)); });
    keeps("contiguous", deep, [](const Tensor& x) { return (x + 0).contiguous(at::MemoryFormat::ChannelsLast3d); });
    keeps("clone", x, [](const Tensor& x) { return (x + 0).clone(at::MemoryFormat::ChannelsLast); });
}

void conjugates() {
    const auto x = torch::randn({6, 5}, torch::kComplexFloat);
    keeps("_conj", x, [](const Tensor& x) { return (x + 0)._conj(); });
    keeps("imag", x, [](const Tensor& x) { return at::imag((x + 0)._conj()); });
    keeps("narrow", x, [](const Tensor& x) { return (x + 0)._conj().narrow(1, 1, 3); });
}

void names() {
    const std::vector<at::Dimname> named = {at::Dimname::fromSymbol(at::Symbol::dimname("N")),
                                            at::Dimname::fromSymbol(at::Symbol::dimname("C"))};
    const auto x = torch::randn({3, 4});
    keeps("alias", x, [&](const Tensor& x) { return at::alias((x + 0).refine_names(named)); });
    keeps("abs_1", x, [&](const Tensor& x) { return (x + 0).refine_names(named).abs(); });
    keeps("narrow", x, [&](const Tensor& x) { return (x + 0).refine_names(named).narrow(1, 1, 2); });
}

// A parameter under no_grad, and one in inference mode.
struct ReadsImpl : torch::nn::Module {
    ReadsImpl() : w(register_parameter("w", torch::randn({33, 17}))), b(register_buffer("b", torch::randn({17}))) {}
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        const auto read = torch::dropout(w, 0.5, false); // hands back the tensor that the operation got
        seen.push_back(layout(read));
        seen.push_back(layout(torch::dropout(b, 0.5, false)));
        return scope.output(torch::matmul(x, w) + b);
    }
    std::vector<std::string> seen;
    Tensor w, b;
};
TORCH_MODULE(Reads);

void parameters() {
    Reads net;
    const auto x = torch::randn({5, 7, 33});
    gp::Session session;
    gp::Root root(net, "Reads");
    const auto check = [&] {
        net->seen.clear();
        const auto bare = net(x);
        const auto expected = net->seen;
        require(expected[0].find(" grad") != std::string::npos, "the parameter requires grad");
        for (const char* path : {"w", "b"}) {
            net->seen.clear();
            auto patch = session.patch(gp::add(path, -0.0));
            same(net(x), bare);
            same(net->seen, expected);
        }
        auto patch = session.patch(gp::add("w", 1));
        net->seen.clear();
        const auto found = net(x);
        require(net->seen[0].find(" grad") != std::string::npos, "so does the copy");
        patch.remove();
        require(torch::allclose(found, torch::matmul(x, net->w + 1) + net->b), "the patched product");
    };
    check();
    torch::GradMode::set_enabled(true);
    check();
    torch::GradMode::set_enabled(false);
    {
        c10::InferenceMode inference;
        check();
    }
}

// --- values of every kind ---

Tensor of_type(at::ScalarType type) { return at::empty({4, 4}, at::TensorOptions(at::kByte)).zero_().view(type); }

const std::vector<std::pair<std::string, std::function<Tensor()>>> kKinds = {
    {"sparse_coo", [] { return torch::eye(4).to_sparse(); }},
    {"sparse_csr", [] { return torch::eye(4).to_sparse_csr(); }},
    {"sparse_csc", [] { return torch::eye(4).to_sparse_csc(); }},
    {"sparse_bsr", [] { return torch::eye(4).to_sparse_bsr({2, 2}); }},
    {"sparse_bsc", [] { return torch::eye(4).to_sparse_bsc({2, 2}); }},
    {"nested", [] { return at::_nested_tensor_from_tensor_list({torch::ones({2}), torch::ones({3})}); }},
    {"mkldnn", [] { return torch::ones({4, 4}).to_mkldnn(); }},
    {"quantized", [] { return at::quantize_per_tensor(torch::ones({4, 4}), 0.1, 0, at::kQUInt8); }},
    {"meta", [] { return torch::empty({4, 4}, torch::kMeta); }},
    {"undefined", [] { return Tensor(); }},
    {"complex32", [] { return torch::ones({4, 4}, at::kComplexHalf); }},
    {"bits8", [] { return of_type(at::kBits8); }},
    {"bits1x8", [] { return of_type(at::kBits1x8); }},
    {"bits16", [] { return of_type(at::kBits16); }},
    {"uint4", [] { return of_type(at::kUInt4); }},
    {"float8", [] { return of_type(at::kFloat8_e5m2); }},
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 8
    {"float4", [] { return of_type(at::kFloat4_e2m1fn_x2); }},
#endif
};

struct TakesImpl : torch::nn::Module {
    std::pair<Tensor, Tensor> forward(Tensor x, Tensor held) {
        gp::Scope scope(this, {{"x", x}, {"held", held}});
        return scope.output(std::make_pair(x + 1, held));
    }
};
TORCH_MODULE(Takes);

struct HoldsImpl : torch::nn::Module {
    HoldsImpl(const Tensor& held, bool parameter) : takes(register_module("takes", Takes())) {
        this->held = parameter ? register_parameter("held", held, false) : register_buffer("held", held);
    }
    std::vector<Tensor> forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        auto [y, same] = takes->forward(x, held);
        return scope.output(std::vector<Tensor>{y * 2, same.defined() ? same.detach() : same, held});
    }
    Takes takes;
    Tensor held;
};
TORCH_MODULE(Holds);

void leaves(const gp::Node& node, std::vector<gp::Node>& found) {
    const auto children = node.children();
    if (children.empty()) found.push_back(node);
    for (const auto& child : children) leaves(child, found);
}

// A graph is made, every node takes a patch or says why not, nothing else is harmed by either, and the others are patched.
void kinds() {
    const auto x = torch::ones({4, 4});
    for (const auto& [name, make] : kKinds) {
        for (const bool parameter : {false, true}) {
            Holds net(make(), parameter);
            gp::Session session;
            gp::Root root(net, "Holds");
            {
                auto recording = session.recording();
                require(net(x)[2].is_same(net->held), name);
            }
            std::vector<gp::Node> nodes;
            leaves(session.graphs()["Holds"], nodes);
            session.on_error(GP_ON_ERROR_SKIP);
            for (const auto& node : nodes) {
                for (const auto& spec : {gp::probe(node.path()), gp::zero(node.path()), gp::add(node.path(), 1)}) {
                    if (node.kind() == "NestedTensor") {
                        throws<gp::Error>([&] { (void)session.patch(spec); },
                                          node.path() + ": is a NestedTensor, not a tensor");
                        continue;
                    }
                    auto patch = session.patch(spec);
                    const auto found = net(x);
                    const auto counts = patch.counts();
                    require(counts.matched > 0 && counts.applied + counts.failed == counts.matched, name + " " + node.path());
                    require((counts.failed == 0) == patch.last_error().empty(), name + " says why: " + patch.last_error());
                    if (counts.failed)
                        require(patch.last_error().find(node.path()) != std::string::npos, "where: " + patch.last_error());
                    patch.remove();
                    const auto bare = net(x);
                    require(bare[2].is_same(net->held) && at::equal(bare[0], (x + 1) * 2), name + " after " + node.path());
                }
            }
            auto patch = session.patch(gp::add("takes.x", 1));
            same(net(x)[0], (x + 2) * 2);
        }
    }
}

const std::map<std::string, void (*)()> kChecks = {
    {"conjugates", conjugates}, {"kinds", kinds},           {"memory_formats", memory_formats},
    {"names", names},           {"parameters", parameters}, {"strides", strides},
};

} // namespace

int main(int argc, char** argv) {
    torch::GradMode::set_enabled(false);
    torch::manual_seed(0);
    return checked(argc, argv, kChecks);
}
