// A plain C++ loop that knows nothing of libgraphpatch: nanoseconds for one operation, early (while a run is recorded) and
// late (when its recording has ended, and only patches go on). benches/run.sh runs it bare and under `graphpatch run`.

#include <torch/torch.h>

#include <chrono>
#include <cstdio>

int main() {
    at::set_num_threads(1);
    torch::NoGradGuard no_grad;
    constexpr int kRounds = 5000, kOperations = 3;
    auto x = torch::ones({4});
    const auto rounds = [&x] {
        const auto begin = std::chrono::steady_clock::now();
        for (int i = 0; i < kRounds; ++i) x = torch::relu(x.add(1).mul(0.5));
        const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
        return took.count() / (kRounds * kOperations);
    };
    const double early = rounds();
    for (int i = 0; i < 10; ++i) rounds();
    std::printf("%.0f %.0f\n", early, rounds());
}
