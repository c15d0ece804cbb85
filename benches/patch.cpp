// What one patch costs beside the same ATen expression, on one thread.
//
//   patch [ROUNDS]
//
// A patch happens inside an operation, so it cannot be timed alone. Therefore both sides time the same operation followed by
// the same change, in turns:
//   ours  a run of one operation, for which a patch is registered
//   ATen  the same run without a patch at that node, and after the run, where the library does not observe the calls, the
//         expression: t.index_put_(...), t.index(...).add_(...)
// The operation is `detach_` (in place, touches no element, and its result is the operand, so that the value persists and
// nothing is allocated): what is left to compare is finding and applying the patch against calling ATen. "op alone" is the
// operation in its run without either; it is in both sides.

#include "abi.h"
#include "host.h"
#include "quantile.hpp"

#include <ATen/DLConvertor.h>
#include <ATen/Parallel.h>
#include <ATen/TensorIndexing.h>
#include <torch/script.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

namespace {

using abi::check;

struct Times {
    std::vector<double> all = {};
    double quantile(double q) const { return ::quantile(all, q); }
};

struct Layout {
    const char* name;
    std::function<at::Tensor(int64_t side)> make;
};

struct Kind {
    const char* name;
    std::function<void(gp_spec*, const at::Tensor& value)> patch;
    std::function<void(at::Tensor&, const at::Tensor& value)> expression;
};

// The processor time of this thread, so that other processes of the machine do not matter.
double now() {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <class Body>
double seconds(int repeats, Body body) {
    double begin = now();
    for (int i = 0; i < repeats; ++i) body();
    return (now() - begin) / repeats;
}

class Bench {
public:
    explicit Bench(int rounds) : rounds_(rounds) {
        check(gp_session_open(&session_));
        check(gp_session_attach(session_));
    }
    ~Bench() { gp_session_close(session_); }

    // Times both sides, prints a line of the table, and returns the median of the rounds' ratios.
    double compare(const std::string& name, const Kind& kind, at::Tensor tensor, int repeats) {
        auto value = at::rand(tensor.sizes());
        Times ours, aten, alone, ratios;
        for (int round = 0; round < rounds_ + 2; ++round) {
            double one = 0, other = 0, none = 0;
            auto patched = [&] {
                uint64_t id = add(kind, "detach_", value);
                one = run(repeats, [&] { tensor.detach_(); });
                check(gp_patch_remove(session_, id));
            };
            auto by_hand = [&] {
                // A session without patches opens no run, so this side registers a patch of an operation that is never called.
                uint64_t id = add(kind, "relu", value);
                other = run(repeats, [&] { tensor.detach_(); }, [&] { kind.expression(tensor, value); });
                none = run(repeats, [&] { tensor.detach_(); });
                check(gp_patch_remove(session_, id));
            };
            // The side that comes second finds warm caches and a raised clock, so the order changes every round.
            if (round % 2) by_hand();
            patched();
            if (!(round % 2)) by_hand();
            if (round < 2) continue;
            ours.all.push_back(one);
            aten.all.push_back(other);
            alone.all.push_back(none);
            ratios.all.push_back(one / other);
        }
        verify(kind, value, tensor);
        std::printf("%-42s %11.2f %10.2f ..%10.2f %11.2f %10.2f ..%10.2f %9.2f %7.3f %6.3f ..%6.3f\n", name.c_str(),
                    us(ours, 0.5), us(ours, 0.25), us(ours, 0.75), us(aten, 0.5), us(aten, 0.25), us(aten, 0.75),
                    us(alone, 0.5), ratios.quantile(0.5), ratios.quantile(0.25), ratios.quantile(0.75));
        std::fflush(stdout);
        return ratios.quantile(0.5);
    }

private:
    static double us(const Times& times, double q) { return times.quantile(q) * 1e6; }

    uint64_t add(const Kind& kind, const char* path, const at::Tensor& value) {
        gp_spec* spec = nullptr;
        uint64_t id = 0;
        check(gp_spec_new(path, &spec));
        kind.patch(spec, value);
        check(gp_patch_register(session_, spec, &id));
        gp_spec_free(spec);
        return id;
    }

    // Each repetition is a run of its own: in a single run, a second call of the operation would be another node.
    template <class Body, class Behind>
    double run(int repeats, Body body, Behind behind) {
        return seconds(repeats, [&] {
            check(gp_run_begin("bench"));
            body();
            check(gp_run_end());
            behind();
        });
    }
    template <class Body>
    double run(int repeats, Body body) {
        return run(repeats, body, [] {});
    }

    // Checks that both sides compute the same.
    void verify(const Kind& kind, const at::Tensor& value, at::Tensor& tensor) {
        tensor.copy_(at::arange(tensor.numel(), at::kFloat).reshape(tensor.sizes()));
        auto expected = tensor.clone();
        kind.expression(expected, value);
        uint64_t id = add(kind, "detach_", value);
        run(1, [&] { tensor.detach_(); });
        gp_patch_counts counts = GP_PATCH_COUNTS_INIT;
        check(gp_patch_get_counts(session_, id, &counts));
        check(gp_patch_remove(session_, id));
        if (counts.applied != 1 || !at::equal(tensor, expected)) throw std::runtime_error("the two sides differ");
    }

    int rounds_;
    gp_session* session_ = nullptr;
};

void set(gp_spec* spec, const char* number, bool add) {
    gp_value* value = nullptr;
    check(gp_value_text(number, &value));
    check(add ? gp_spec_add(spec, value) : gp_spec_replace(spec, value));
    gp_value_free(value);
}

void set(gp_spec* spec, const at::Tensor& tensor, bool add) {
    gp_value* value = nullptr;
    check(gp_value_dlpack(at::toDLPackVersioned(tensor), true, &value));
    check(add ? gp_spec_add(spec, value) : gp_spec_replace(spec, value));
    gp_value_free(value);
}

// A strided tensor that autograd does not take for a view, because views cannot be detached in place.
at::Tensor strided(const at::Tensor& memory, at::IntArrayRef sizes, at::IntArrayRef strides) {
    return at::empty({0}).set_(memory.storage(), 0, sizes, strides);
}

int run(int argc, char** argv) {
    using at::indexing::Ellipsis;
    int rounds = argc > 1 ? std::stoi(argv[1]) : 40;
    at::set_num_threads(1);
    torch::NoGradGuard no_grad;

    const std::vector<Kind> kinds = {
        {"zero", [](gp_spec* s, const at::Tensor&) { check(gp_spec_zero(s)); },
         [](at::Tensor& t, const at::Tensor&) { t.index_put_({Ellipsis}, at::Scalar(0)); }},
        {"add number", [](gp_spec* s, const at::Tensor&) { set(s, "0.5", true); },
         [](at::Tensor& t, const at::Tensor&) { t.index({Ellipsis}).add_(at::Scalar(0.5)); }},
        {"replace number", [](gp_spec* s, const at::Tensor&) { set(s, "0.5", false); },
         [](at::Tensor& t, const at::Tensor&) { t.index_put_({Ellipsis}, at::Scalar(0.5)); }},
        {"add tensor", [](gp_spec* s, const at::Tensor& v) { set(s, v, true); },
         [](at::Tensor& t, const at::Tensor& v) { t.index({Ellipsis}).add_(v); }},
        {"replace tensor", [](gp_spec* s, const at::Tensor& v) { set(s, v, false); },
         [](at::Tensor& t, const at::Tensor& v) { t.index_put_({Ellipsis}, v); }},
    };
    // The sizes of the values; the strided ones lie in larger memory.
    const std::vector<Layout> layouts = {
        {"contiguous", [](int64_t side) { return at::rand({side, side}); }},
        {"transposed", [](int64_t side) { return strided(at::rand({side, side}), {side, side}, {1, side}); }},
        {"every second column", [](int64_t side) { return strided(at::rand({side, 2 * side}), {side, side}, {2 * side, 2}); }},
    };
    struct Size {
        const char* name;
        int64_t side;
        int repeats;
    };
    const std::vector<Size> sizes = {{"1 KB", 16, 2000}, {"1 MB", 512, 40}, {"100 MB", 5120, 1}};

    std::printf(
        "One patch: a run of one operation with a patch on it, against the same run without one and then the ATen\n"
        "expression outside it; in turns. The operation is detach_, in place, which touches no element. float32, one\n"
        "thread, %d rounds; microseconds of this thread's CPU time. \"op alone\" is that run without either, and part of\n"
        "both sides. The ratio is the median of the rounds' own ratios, with quartiles.\n\n",
        rounds);
    std::printf("%-42s %11s %22s %11s %22s %9s %7s %15s\n", "", "ours", "quartiles", "ATen", "quartiles", "op alone", "ratio",
                "quartiles");
    Bench bench(rounds);
    double worst = 0;
    for (const auto& size : sizes)
        for (const auto& layout : layouts)
            for (const auto& kind : kinds)
                worst = std::max(worst, bench.compare(std::string(size.name) + ", " + layout.name + ", " + kind.name, kind,
                                                      layout.make(size.side), size.repeats));
    std::printf("\nworst ratio %.3f\n", worst);
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    return host::guarded("patch", [&] { return run(argc, argv); });
}
