// A host program that runs a TorchScript module and then ends in one of the ways a program can end.
//
//   endings MODEL.pt INPUTS.pt WAY
//
// WAY: return, exit, _exit, quick_exit (all with code 7), throw, terminate, abort, sigterm, sigint, fork (a child runs
// the model too, then both end), exec (replaces itself by another run of this program), thread (a worker thread ends
// the program by exit while main sleeps).

#include "host.h"

#include <ATen/Parallel.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace {

void forward(torch::jit::Module& module, const std::vector<c10::IValue>& inputs) {
    torch::NoGradGuard no_grad;
    module.forward(inputs);
    // Output from before the end must be neither lost nor doubled.
    std::puts("ran");
    std::fflush(stdout);
}

int forked(torch::jit::Module& module, const std::vector<c10::IValue>& inputs) {
    pid_t child = fork();
    if (child == 0) {
        forward(module, inputs);
        std::exit(5);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 5 ? 7 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: endings MODEL.pt INPUTS.pt WAY\n");
        return 1;
    }
    at::set_num_threads(1);  // a forked child must not need the parent's worker threads
    auto module = host::load(argv[1]);
    auto inputs = host::read_inputs(argv[2]);
    forward(module, inputs);

    const std::string way = argv[3];
    if (way == "return") return 7;
    if (way == "exit") std::exit(7);
    if (way == "_exit") _exit(7);
    if (way == "quick_exit") std::quick_exit(7);
    if (way == "throw") throw std::runtime_error("nobody catches this");
    if (way == "terminate") std::terminate();
    if (way == "abort") std::abort();
    if (way == "sigterm") raise(SIGTERM);
    if (way == "sigint") {
        // A shell that starts the program in the background lets it ignore this signal.
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
    }
    if (way == "fork") return forked(module, inputs);
    if (way == "exec") {
        char last[] = "return";
        char* args[] = {argv[0], argv[1], argv[2], last, nullptr};
        execv("/proc/self/exe", args);
    }
    if (way == "thread") {
        std::thread([] { std::exit(7); }).detach();
        for (;;) pause();
    }
    std::fprintf(stderr, "endings: unknown way %s\n", way.c_str());
    return 1;
}
