// A host program for the tests of live control: it runs a TorchScript module whenever a line on stdin says so. It knows
// nothing of libgraphpatch.
//
//   served MODEL.pt INPUTS.pt
//
// Lines: `run` prints the elements of the output (a tensor, or a tuple of them) as hexadecimal numbers on one line; `fork`
// prints the sockets that a forked child has open; `leave` ends the first thread alone, by pthread_exit. At the end of stdin
// the program returns 7.

#include "host.h"

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

void print(const c10::IValue& value) {
    if (value.isTuple()) {
        for (const auto& element : value.toTupleRef().elements()) print(element);
        return;
    }
    const at::Tensor flat = value.toTensor().to(at::kDouble).flatten();
    for (int64_t i = 0; i < flat.numel(); ++i) std::printf("%a ", flat[i].item<double>());
}

int sockets() {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code gone;
        if (std::filesystem::read_symlink(entry.path(), gone).string().rfind("socket:", 0) == 0) ++count;
    }
    return count;
}

void fork_once() {
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        std::printf("%d\n", sockets());
        std::fflush(stdout);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    c10::InferenceMode no_grad;
    auto module = host::load(argv[1]);
    module.eval();
    const auto inputs = host::read_inputs(argv[2]);
    for (std::string line; std::getline(std::cin, line);) {
        if (line == "run") {
            print(module.forward(inputs));
            std::printf("\n");
        } else if (line == "fork") {
            fork_once();
        } else if (line == "leave") {
            std::fflush(stdout);
            pthread_exit(nullptr);
        }
        std::fflush(stdout);
    }
    return 7;
}
