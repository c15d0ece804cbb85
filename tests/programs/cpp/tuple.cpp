// TupleOutputModule (tests/helpers/models.py) in C++, which reports its calls through the C ABI.
//
//   tuple GRAPH.json [--generated]
//
// Runs the module and saves its graph. With --generated, it is called through generated code without unwind tables.

#include "abi.h"
#include "host.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstring>

namespace net {

struct Linear {
    at::Tensor weight = torch::randn({3, 2}), bias = torch::randn({3});
    gp_scope* scope = nullptr;

    Linear() {
        const char* inputs[] = {"input"};
        abi::check(gp_scope_new("linear", "linear", "Linear", inputs, 1, false, &scope));
    }
    ~Linear() { gp_scope_free(scope); }

    at::Tensor forward(const at::Tensor& input) { return torch::linear(input, weight, bias); }

    at::Tensor operator()(const at::Tensor& input) {
        uint32_t wants = 0, changed = 0;
        const void* given[] = {input.unsafeGetTensorImpl()};
        abi::check(gp_scope_open(scope, &wants));
        abi::check(gp_scope_input(0, "T", given, 1, &changed));
        at::Tensor output = forward(input);
        const void* result[] = {output.unsafeGetTensorImpl()};
        abi::check(gp_scope_output("T", result, 1, false, &changed));
        abi::check(gp_scope_leave());
        return output;
    }
};

struct TupleOutput {
    Linear linear;
    gp_root* root = nullptr;

    TupleOutput() {
        const char* inputs[] = {"x"};
        const char* parameters[] = {"linear.weight", "linear.bias"};
        abi::check(gp_root_new("TupleOutput.forward", "TupleOutput", inputs, 1, parameters, 2, false, &root));
    }
    ~TupleOutput() { gp_root_free(root); }

    std::pair<at::Tensor, at::Tensor> forward(const at::Tensor& x) {
        auto first = linear(x);
        auto second = linear(x + 1);
        return {first, second};
    }

    void operator()(const at::Tensor& x) {
        uint32_t wants = 0, changed = 0;
        const void* given[] = {x.unsafeGetTensorImpl()};
        const void* parameters[] = {linear.weight.unsafeGetTensorImpl(), linear.bias.unsafeGetTensorImpl()};
        abi::check(gp_run_open(nullptr, root, &wants, nullptr));
        if (!wants) return;
        abi::check(gp_run_parameters(parameters, 2));
        abi::check(gp_scope_input(0, "T", given, 1, &changed));
        auto pair = forward(x);
        const void* result[] = {pair.first.unsafeGetTensorImpl(), pair.second.unsafeGetTensorImpl()};
        abi::check(gp_scope_output("(2;TT", result, 2, false, &changed));
        abi::check(gp_run_end());
    }
};

// Calls a function through a page of generated machine code that has no unwind tables.
void call_generated(void (*function)(void*), void* argument) {
#if defined(__x86_64__)
    const unsigned char code[] = {0x48, 0x83, 0xec, 0x08,  // sub rsp, 8
                                  0x48, 0x89, 0xf8,        // mov rax, rdi
                                  0x48, 0x89, 0xf7,        // mov rdi, rsi
                                  0xff, 0xd0,              // call rax
                                  0x48, 0x83, 0xc4, 0x08,  // add rsp, 8
                                  0xc3};                   // ret
#elif defined(__aarch64__)
    const uint32_t code[] = {0xf81f0ffe,   // str x30, [sp, #-16]!
                             0xaa0003e8,   // mov x8, x0
                             0xaa0103e0,   // mov x0, x1
                             0xd63f0100,   // blr x8
                             0xf84107fe,   // ldr x30, [sp], #16
                             0xd65f03c0};  // ret
#endif
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) throw std::runtime_error("no page");
    std::memcpy(page, code, sizeof code);
    if (mprotect(page, 4096, PROT_READ | PROT_EXEC) != 0) throw std::runtime_error("no code");
    __builtin___clear_cache(static_cast<char*>(page), static_cast<char*>(page) + sizeof code);
    reinterpret_cast<void (*)(void (*)(void*), void*)>(page)(function, argument);
}

}  // namespace net

int main(int argc, char** argv) {
    try {
        if (argc < 2) throw std::runtime_error("usage: tuple GRAPH.json [--generated]");
        torch::NoGradGuard no_grad;
        abi::Session session;
        session.record(true);
        net::TupleOutput model;
        auto run = [](void* model) { (*static_cast<net::TupleOutput*>(model))(torch::randn({3, 2})); };
        if (argc > 2) net::call_generated(run, &model);
        else run(&model);
        session.save(argv[1]);
        return 0;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "tuple: %s\n", e.what());
        return 1;
    }
}
