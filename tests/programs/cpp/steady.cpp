// A host program for the tests of `graphpatch attach`: it runs a TorchScript module without end, on several threads, and counts
// in a shared file how often each output came. It knows nothing of libgraphpatch.
//
//   steady MODEL.pt INPUTS.pt COUNTS THREADS waits|computes
//
// COUNTS is a file of 8-byte words: whether to end (written by the test), the longest forward in nanoseconds, how many forwards
// each of up to 16 threads has done, then pairs of an output's hash (FNV-1a over the bytes of its tensors) and its count. While
// the threads run, the first one waits in a sleep again and again, or computes as well. Nothing is printed, and a forward that
// finds enough memory makes no system call. At the end the program returns 7.

#include "host.h"

#include <atomic>
#include <chrono>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

constexpr size_t kThreads = 16;
constexpr size_t kOutputs = 64;
using Word = std::atomic<uint64_t>;

struct Counts {
    Word end;
    Word longest;
    Word forwards[kThreads];
    struct {
        Word hash;
        Word count;
    } outputs[kOutputs];
};

Counts& shared(const char* file) {
    const int descriptor = open(file, O_RDWR | O_CREAT, 0600);
    if (descriptor < 0 || ftruncate(descriptor, sizeof(Counts)) != 0) throw std::runtime_error("cannot open the counts");
    void* memory = mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("cannot map the counts");
    return *static_cast<Counts*>(memory);
}

uint64_t hash(const c10::IValue& value, uint64_t so_far) {
    if (value.isTuple()) {
        for (const auto& element : value.toTupleRef().elements()) so_far = hash(element, so_far);
        return so_far;
    }
    const at::Tensor tensor = value.toTensor().contiguous();
    const auto* bytes = static_cast<const unsigned char*>(tensor.data_ptr());
    for (size_t i = 0; i < tensor.nbytes(); ++i) so_far = (so_far ^ bytes[i]) * 1099511628211u;
    return so_far;
}

void count(Counts& counts, uint64_t of) {
    for (auto& output : counts.outputs) {
        uint64_t free = 0;
        if (output.hash.compare_exchange_strong(free, of) || free == of) {
            ++output.count;
            return;
        }
    }
}

void run(torch::jit::Module module, const std::vector<c10::IValue>& inputs, Counts& counts, size_t thread) {
    c10::InferenceMode no_grad;
    using Clock = std::chrono::steady_clock;
    while (counts.end == 0) {
        const auto begin = Clock::now();
        const auto output = module.forward(inputs);
        const uint64_t took = std::chrono::nanoseconds(Clock::now() - begin).count();
        uint64_t longest = counts.longest;
        while (took > longest && !counts.longest.compare_exchange_weak(longest, took)) {
        }
        count(counts, hash(output, 14695981039346656037u));
        ++counts.forwards[thread];
    }
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 6) return 2;
    auto module = host::load(argv[1]);
    module.eval();
    const auto inputs = host::read_inputs(argv[2]);
    Counts& counts = shared(argv[3]);
    std::vector<std::thread> threads;
    const size_t others = std::stoul(argv[4]);
    if (others >= kThreads) return 2;
    for (size_t i = 0; i < others; ++i) threads.emplace_back([&, i] { run(module, inputs, counts, i); });
    if (std::string(argv[5]) == "computes") run(module, inputs, counts, others);
    else
        while (counts.end == 0) usleep(10000);
    for (auto& thread : threads) thread.join();
    return 7;
}
