// How several patches work together: order, sets, enabling, runs, threads, records, counters. Each check is independent, has a
// session of its own, and prints its name when it passes.
//
//   sets [CHECK]

#include "host.h"
#include "specs.h"

#include <atomic>
#include <cstdio>
#include <functional>
#include <thread>

namespace {

using abi::Session;
using abi::Spec;
using abi::Value;

#define EXPECT(condition)                                                                                                      \
    do {                                                                                                                       \
        if (!(condition)) throw std::runtime_error("line " + std::to_string(__LINE__) + ": not " #condition);                  \
    } while (false)

// One run of two operations on ones: clone, then mul by 2.
at::Tensor model(const char* root = "model") {
    abi::check(gp_run_begin(root));
    at::Tensor out;
    try {
        out = at::mul(at::clone(at::ones({2, 2})), 2.0);
    } catch (...) {
        gp_run_end();
        throw;
    }
    abi::check(gp_run_end());
    return out;
}

bool is(const at::Tensor& tensor, double number) { return tensor.eq(number).all().item<bool>(); }

bool throws() {
    try {
        model();
        return false;
    } catch (const c10::Error&) {
        return true;
    }
}

uint64_t begin_set(const Session& session) {
    uint64_t set = 0;
    abi::check(gp_set_begin(session.raw(), &set));
    return set;
}

void enable(const Session& session, uint64_t id, bool on) { abi::check(gp_patch_enable(session.raw(), id, on)); }

void a_probe_sees_what_is_there_at_its_place() {
    Session session;
    uint64_t before = Spec("clone").probe().add_to(session);
    session.add("clone[0]=zero");
    uint64_t between = Spec("clone").probe().add_to(session);
    session.add("clone=add:5");
    session.add("clone[1]=replace:-1");
    uint64_t after = Spec("clone").probe().add_to(session);
    uint64_t downstream = Spec("mul").probe().add_to(session);
    auto out = model();
    EXPECT(is(abi::kept_tensor(session, before), 1));
    EXPECT(is(abi::kept_tensor(session, between)[0], 0) && is(abi::kept_tensor(session, between)[1], 1));
    EXPECT(is(abi::kept_tensor(session, after)[0], 5) && is(abi::kept_tensor(session, after)[1], -1));
    EXPECT(at::equal(abi::kept_tensor(session, downstream), out) && is(out[0], 10) && is(out[1], -2));
}

void a_probe_keeps_the_last_value_and_a_record_every_one() {
    Session session;
    uint64_t probe = Spec("clone").probe().add_to(session), record = Spec("clone").record(0).add_to(session);
    EXPECT(abi::kept(session, probe).count == 0 && abi::kept(session, record).count == 0);
    uint64_t change = session.add("mul=zero");
    for (int i = 0; i < 3; ++i) model();
    session.remove(change);
    session.remove(probe);
    probe = Spec("mul").probe().add_to(session);
    uint64_t number = session.add("clone=add:3");
    auto fourth = model();
    EXPECT(abi::kept(session, record).count == 4 && abi::kept(session, record).dropped == 0);
    EXPECT(abi::kept(session, probe).count == 1 && is(abi::kept_tensor(session, probe), 8) && is(fourth, 8));
    // The record does not have the change by a later patch, and its tensors share no memory with others.
    for (uint64_t i = 0; i < 4; ++i) EXPECT(is(abi::kept_tensor(session, record, i), 1));
    session.remove(number);
    auto held = abi::kept_tensor(session, record, 2);
    session.remove(record);
    model();
    EXPECT(is(held, 1));
    EXPECT(gp_kept_count(session.raw(), record, &number, nullptr) == GP_STATUS_STATE);
}

void a_record_stops_at_its_limit_and_counts_the_rest() {
    Session session;
    uint64_t add = session.add("clone=add:1");
    uint64_t record = Spec("clone").record(2).add_to(session);
    model();
    session.remove(add);
    for (int i = 0; i < 4; ++i) model();
    auto kept = abi::kept(session, record);
    EXPECT(kept.count == 2 && kept.dropped == 3);
    EXPECT(is(abi::kept_tensor(session, record, 0), 2) && is(abi::kept_tensor(session, record, 1), 1));
    DLManagedTensorVersioned* none = nullptr;
    EXPECT(gp_kept_tensor(session.raw(), record, 2, &none) == GP_STATUS_ARGUMENT && !none);
    EXPECT(abi::counts(session, record).matched == 5);
}

void sets_nest_and_go_away_together() {
    Session session;
    session.add("clone=add:1");
    uint64_t outer = begin_set(session);
    session.add("clone=add:10");
    uint64_t inner = begin_set(session);
    session.add("clone=replace:0");
    session.add("clone=add:100");
    EXPECT(is(model(), 200));
    abi::check(gp_set_end(session.raw(), inner));
    EXPECT(is(model(), 24));
    // A patch that is added after an inner set has ended belongs to the outer set.
    session.add("clone=add:1000");
    EXPECT(is(model(), 2024));
    uint64_t third = begin_set(session);
    session.add("clone=add:-1");
    abi::check(gp_set_end(session.raw(), outer));
    EXPECT(is(model(), 4));
    EXPECT(gp_set_end(session.raw(), third) == GP_STATUS_STATE && gp_set_end(session.raw(), outer) == GP_STATUS_STATE);
    // An empty set, and a patch that was removed before its set ended.
    uint64_t last = begin_set(session);
    session.remove(session.add("clone=zero"));
    abi::check(gp_set_end(session.raw(), last));
    EXPECT(is(model(), 4));
}

void a_disabled_patch_keeps_its_place() {
    Session session;
    uint64_t first = session.add("clone=add:1"), second = session.add("clone=replace:7"), third = session.add("clone=add:2");
    EXPECT(is(model(), 18));
    enable(session, second, false);
    EXPECT(is(model(), 8));
    enable(session, second, false);
    enable(session, first, false);
    enable(session, third, false);
    EXPECT(is(model(), 2));
    enable(session, third, true);
    enable(session, second, true);
    EXPECT(is(model(), 18));
    EXPECT(abi::counts(session, second).applied == 2 && abi::counts(session, first).applied == 2);
    EXPECT(gp_patch_enable(session.raw(), 999, true) == GP_STATUS_STATE);
}

void patches_are_limited_to_runs() {
    Session session;
    // Each root counts its own runs.
    Spec("clone").replace(Value::text("0")).runs("0").add_to(session);
    Spec("clone").replace(Value::text("5")).runs("1..3").add_to(session);
    uint64_t later = Spec("clone").add(Value::text("1")).runs("2..").add_to(session);
    EXPECT(is(model("runs"), 0) && is(model("runs"), 10) && is(model("runs"), 12) && is(model("runs"), 4));
    EXPECT(is(model("others"), 0));
    EXPECT(abi::counts(session, later).matched == 2 && abi::counts(session, later).applied == 2);
    EXPECT(gp_spec_runs(nullptr, "0") == GP_STATUS_ARGUMENT);
    bool refused = false;
    try {
        Spec("clone").runs("x");
    } catch (const std::exception&) {
        refused = true;
    }
    EXPECT(refused);
}

void a_patch_may_hold_for_one_thread() {
    Session session;
    uint64_t mine = Spec("clone").add(Value::text("1")).this_thread().add_to(session);
    uint64_t everybodys = session.add("clone=add:10");
    double elsewhere = 0, its_own = 0;
    std::thread([&] {
        elsewhere = model()[0][0].item<double>();
        uint64_t theirs = Spec("clone").add(Value::text("100")).this_thread().add_to(session);
        its_own = model()[0][0].item<double>();
        (void)theirs;
    }).join();
    EXPECT(elsewhere == 22 && its_own == 222);
    EXPECT(is(model(), 24));
    // A later thread is another thread, even if it gets the handle of one that has ended.
    double later = 0;
    std::thread([&] { later = model()[0][0].item<double>(); }).join();
    EXPECT(later == 22);
    EXPECT(abi::counts(session, mine).matched == 1 && abi::counts(session, everybodys).matched == 4);
}

void threads_run_at_once() {
    Session session;
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    uint64_t all = session.add("clone=add:1");
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            Spec("clone").add(Value::number(t)).this_thread().add_to(session);
            for (int i = 0; i < 200; ++i) wrong += !is(model(), 2.0 * (2 + t));
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT(wrong == 0);
    EXPECT(abi::counts(session, all).applied == 800);
}

void counters_tell_what_became_of_a_patch() {
    Session session;
    uint64_t good = session.add("clone=add:1"), elsewhere = session.add("relu=zero"), bad = session.add("clone[7]=zero");
    uint64_t behind = session.add("mul=zero");
    EXPECT(throws());
    EXPECT(abi::counts(session, good).matched == 1 && abi::counts(session, good).applied == 1);
    EXPECT(abi::counts(session, bad).matched == 1 && abi::counts(session, bad).failed == 1 &&
           abi::counts(session, bad).applied == 0);
    EXPECT(abi::counts(session, behind).matched == 0 && abi::counts(session, elsewhere).matched == 0);
    auto why = abi::last_error(session, bad);
    EXPECT(why.find("clone") != std::string::npos && why.find("[7]") != std::string::npos &&
           why.find("(2, 2)") != std::string::npos);
    EXPECT(abi::last_error(session, good).empty());
    abi::check(gp_session_on_error(session.raw(), GP_ON_ERROR_SKIP));
    EXPECT(is(model(), 0));
    EXPECT(abi::counts(session, bad).failed == 2 && abi::counts(session, behind).applied == 1);
    session.remove(behind);
    EXPECT(is(model(), 4));
    abi::check(gp_session_on_error(session.raw(), GP_ON_ERROR_RAISE));
    EXPECT(throws());
}

void a_skipped_patch_leaves_the_value_alone() {
    Session session;
    abi::check(gp_session_on_error(session.raw(), GP_ON_ERROR_SKIP));
    // The patches are refused for different reasons: the slice, the shape, the number.
    session.add("clone[0, 0, 0]=zero");
    Spec("clone").add(Value::copy(at::ones({3}))).add_to(session);
    Spec("clone").replace(Value::copy(at::ones({3}))).add_to(session);
    Spec("clone").add(Value::text("1+2j")).add_to(session);
    EXPECT(is(model(), 2));
}

void an_index_out_of_range_writes_nothing() {
    Session session;
    abi::check(gp_session_on_error(session.raw(), GP_ON_ERROR_SKIP));
    // libtorch itself writes row 0 before it finds that there is no row 5.
    uint64_t far = Spec("clone").index(at::tensor({0, 5})).zero().add_to(session);
    auto out = model();
    EXPECT(abi::counts(session, far).failed == 1);
    EXPECT(is(out, 2));
}

struct Seen {
    int calls = 0;
    int answer = 0;
};

int look(void* user, DLManagedTensorVersioned* value, DLManagedTensorVersioned**) {
    auto& seen = *static_cast<Seen*>(user);
    ++seen.calls;
    auto part = at::fromDLPackVersioned(value);
    // The function may run a model itself: that is no part of this run.
    at::clone(part);
    return part.numel() ? seen.answer : -1;
}

void a_function_is_called_at_its_place() {
    Session session;
    Seen seen, failing{0, 3};
    session.add("clone=add:1");
    uint64_t looks = Spec("clone").slice("[0]").custom(look, &seen).add_to(session);
    session.add("clone=add:1");
    EXPECT(is(model(), 6) && seen.calls == 1);
    EXPECT(abi::counts(session, looks).matched == 1);
    uint64_t fails = Spec("clone").custom(look, &failing).add_to(session);
    EXPECT(throws() && failing.calls == 1 && seen.calls == 2);
    EXPECT(abi::last_error(session, fails).find("3") != std::string::npos);
    enable(session, fails, false);
    EXPECT(is(model(), 6) && failing.calls == 1);
}

void changes_hold_from_the_next_run() {
    Session session;
    session.add("mul=add:1");
    abi::check(gp_run_begin("model"));
    auto x = at::clone(at::ones({2, 2}));
    uint64_t late = session.add("mul=zero");
    auto y = at::mul(x, 2.0);
    abi::check(gp_run_end());
    EXPECT(is(y, 3));
    EXPECT(is(model(), 0));
    session.remove(late);
    EXPECT(is(model(), 3));
}

void a_spec_may_be_registered_again() {
    Session session;
    Spec add("clone");
    add.add(Value::text("1"));
    Spec probe("mul");
    probe.probe();
    uint64_t one = probe.add_to(session);
    add.add_to(session);
    add.add_to(session);
    model();
    uint64_t two = probe.add_to(session);
    EXPECT(abi::kept(session, one).count == 1 && abi::kept(session, two).count == 0);
    add.slice("[0]");
    add.add_to(session);
    auto out = model();
    EXPECT(is(out[0], 8) && is(out[1], 6) && abi::kept(session, two).count == 1);
}

void one_value_serves_many_patches() {
    Session session;
    auto value = Value::copy(at::tensor({1.0, 2.0}));
    Spec("clone").add(value).add_to(session);
    Spec("clone").slice("[1]").add(value).add_to(session);
    Spec("mul").replace(value).add_to(session);
    auto out = model();
    EXPECT(is(out.select(1, 0), 1) && is(out.select(1, 1), 2));
    out = model();
    EXPECT(is(out.select(1, 0), 1) && is(out.select(1, 1), 2));
}

// libtorch looks for callbacks at each call of a TorchScript function. A process without a session has none of ours.
void without_a_session_nothing_is_told() {
    auto is_told = [] { return at::getStepCallbacksUnlessEmpty(at::RecordScope::TORCHSCRIPT_FUNCTION).has_value(); };
    torch::jit::Module doubles("doubles");
    doubles.define("def forward(self, x):\n    return x * 2\n");
    auto call = [&] { return doubles.forward({at::ones(2)}).toTensor(); };
    {
        Session session;
        session.add("mul=zero");
        EXPECT(is_told() && is(call(), 0));
        abi::check(gp_session_detach(session.raw()));
        EXPECT(!is_told() && is(call(), 2));
        abi::check(gp_session_detach(session.raw()));
        EXPECT(!is_told());
        abi::check(gp_session_attach(session.raw()));
        EXPECT(is_told() && is(call(), 0));
        bool on_another = false;
        std::thread([&] { on_another = is_told(); }).join();
        EXPECT(on_another);
    }
    EXPECT(!is_told() && is(call(), 2));
}

const std::vector<std::pair<const char*, std::function<void()>>> kChecks = {
#define NAMED(name) {#name, name}
    NAMED(a_probe_sees_what_is_there_at_its_place),
    NAMED(a_probe_keeps_the_last_value_and_a_record_every_one),
    NAMED(a_record_stops_at_its_limit_and_counts_the_rest),
    NAMED(sets_nest_and_go_away_together),
    NAMED(a_disabled_patch_keeps_its_place),
    NAMED(patches_are_limited_to_runs),
    NAMED(a_patch_may_hold_for_one_thread),
    NAMED(threads_run_at_once),
    NAMED(counters_tell_what_became_of_a_patch),
    NAMED(a_skipped_patch_leaves_the_value_alone),
    NAMED(an_index_out_of_range_writes_nothing),
    NAMED(a_function_is_called_at_its_place),
    NAMED(changes_hold_from_the_next_run),
    NAMED(a_spec_may_be_registered_again),
    NAMED(one_value_serves_many_patches),
    NAMED(without_a_session_nothing_is_told),
};

}  // namespace

int main(int argc, char** argv) {
    int failed = 0;
    for (const auto& [name, check] : kChecks) {
        if (argc > 1 && std::string(argv[1]) != name) continue;
        try {
            check();
            std::printf("%s\tok\n", name);
        } catch (const std::exception& e) {
            gp_run_end();
            std::printf("%s\t%s\n", name, e.what());
            failed = 1;
        }
        std::fflush(stdout);
    }
    return failed;
}
