// Something is called four times at once in one of the ways that libtorch and C++ have, and once more by the main thread.
//
//   regions WAY ops|nn|script MODEL.pt OUT.pt [after]
//
// WAY: for (at::parallel_for), omp, helpers (OpenMP's helper threads alone), launch (at::launch), intraop (at::intraop_launch),
//      async (std::async)
// What is called: plain operations, a torch::nn module, or a TorchScript module (MODEL.pt).
// With `after` the main thread computes something before.
//
// OUT.pt is a tuple: the weights of the torch::nn module by name, and the five results; all inputs are ones.
#include "host.h"
#include "region.h"

#include <torch/torch.h>

#include <cstring>
#include <future>

namespace {

constexpr int kCalls = 4;

using Call = std::function<void(int)>;

void in_tasks(const Call& call) {
    std::vector<std::promise<void>> done(kCalls);
    for (int i = 0; i < kCalls; ++i)
        at::launch([&, i] {
            call(i);
            done[i].set_value();
        });
    for (auto& one : done) one.get_future().wait();
}

void in_async(const Call& call) {
    std::vector<std::future<void>> all;
    for (int i = 0; i < kCalls; ++i) all.push_back(std::async(std::launch::async, call, i));
    for (auto& one : all) one.get();
}

void run(const std::string& way, const Call& call) {
    if (way == "for") in_parallel_for(kCalls, call);
    if (way == "omp") in_omp(kCalls, call);
    if (way == "helpers") in_omp_helpers(kCalls, call);
    if (way == "launch") in_tasks(call);
    if (way == "async") in_async(call);
    if (way == "intraop")
        for (int i = 0; i < kCalls; ++i) at::intraop_launch([&, i] { call(i); });
}

} // namespace

int main(int argc, char** argv) {
    if (argc < 5) return std::fprintf(stderr, "usage: regions WAY ops|nn|script MODEL.pt OUT.pt [after]\n"), 1;
    const std::string way = argv[1], what = argv[2];
    torch::NoGradGuard no_grad;
    torch::manual_seed(0);
    at::set_num_threads(4);
    if (argc > 5) at::ones({1}).neg();
    torch::nn::Linear linear(3, 3);
    linear->eval();
    torch::jit::Module scripted;
    if (what == "script") scripted = host::load(argv[3]);
    std::vector<c10::IValue> results(kCalls + 1);
    const Call call = [&](int i) {
        torch::NoGradGuard no_grad;
        const at::Tensor x = at::ones({2, 3});
        if (what == "script") results[i] = scripted.forward({x});
        if (what == "nn") results[i] = linear->forward(x);
        if (what == "ops") results[i] = at::relu(x);
    };
    run(way, call);
    call(kCalls);
    std::vector<c10::IValue> pairs;
    for (const auto& p : linear->named_parameters()) pairs.push_back(host::tuple({p.key(), p.value().variable_data()}));
    host::write_bytes(argv[4],
                      torch::pickle_save(host::tuple({host::tuple(std::move(pairs)), host::tuple(std::move(results))})));
}
