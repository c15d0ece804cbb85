// Tries many patches on one module in one process, through the C ABI: starting a process for each would take hours.
//
//   sweep MODEL.pt INPUTS.pt PATCHES.txt OUT.pt [--graph FILE] [--grad | --no-grad] [--warm N] [--record]
//
// Each line of PATCHES.txt is one case: patches in text form, separated by tabs (an empty line: none). For each case the
// patches are added, the module runs once, and they are removed. Before the cases the module runs N times (default 3)
// unpatched and recorded, so that every case meets an executor that has settled, and paths are checked; --record goes on
// recording during the cases. OUT.pt is a tuple: one entry per case, either
// (True, output) or (False, message); the output of a run without patches after all cases; the weights and the inputs
// after all cases.

#include "abi.h"
#include "host.h"

#include <cstdio>

namespace {

struct Options {
    std::vector<std::string> files;
    std::string graph;
    int warm = 3;
    bool grad = false, record = false;
};

Options parse(int argc, char** argv) {
    Options o;
    for (int i = 1; i < argc; ++i) {
        std::string a = argv[i];
        if (a == "--grad") o.grad = true;
        else if (a == "--no-grad") o.grad = false;
        else if (a == "--record") o.record = true;
        else if (a == "--graph" && i + 1 < argc) o.graph = argv[++i];
        else if (a == "--warm" && i + 1 < argc) o.warm = std::stoi(argv[++i]);
        else o.files.push_back(a);
    }
    if (o.files.size() != 4) throw std::runtime_error("usage: sweep MODEL.pt INPUTS.pt PATCHES.txt OUT.pt [options]");
    return o;
}

std::vector<std::string> split(const std::string& line) {
    std::vector<std::string> parts;
    for (size_t at = 0; at < line.size();) {
        size_t tab = std::min(line.find('\t', at), line.size());
        parts.push_back(line.substr(at, tab - at));
        at = tab + 1;
    }
    return parts;
}

c10::IValue run_case(abi::Session& session, torch::jit::Module& module, const std::vector<c10::IValue>& inputs,
                     const std::vector<std::string>& patches) {
    std::vector<uint64_t> ids;
    c10::IValue result;
    try {
        for (const auto& patch : patches) ids.push_back(session.add(patch));
        result = host::tuple({true, host::snapshot(module.forward(inputs))});
    } catch (const std::exception& e) {
        result = host::tuple({false, std::string(e.what())});
    }
    for (auto id : ids) session.remove(id);
    return result;
}

void run(int argc, char** argv) {
    Options o = parse(argc, argv);
    torch::AutoGradMode grad(o.grad);
    auto module = host::load(o.files[0]);
    auto inputs = host::read_inputs(o.files[1]);
    abi::Session session;
    session.record(true);
    for (int i = 0; i < o.warm; ++i) module.forward(inputs);
    if (!o.graph.empty()) session.save(o.graph);
    session.record(o.record);

    std::ifstream lines(o.files[2]);
    if (!lines) throw std::runtime_error("cannot open " + o.files[2]);
    std::vector<c10::IValue> cases;
    for (std::string line; std::getline(lines, line);) cases.push_back(run_case(session, module, inputs, split(line)));

    auto bare = host::snapshot(module.forward(inputs));
    auto after = host::tuple({host::tuple(cases), bare, host::weights(module), host::snapshot(host::tuple(inputs))});
    host::write_bytes(o.files[3], torch::jit::pickle_save(after));
    std::printf("%zu case(s)\n", cases.size());
}

}  // namespace

int main(int argc, char** argv) {
    return host::guarded("sweep", [&] { return run(argc, argv); });
}
