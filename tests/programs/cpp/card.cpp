// Patches on CUDA values without a card: libtorch's values, the adapter, the library's launches, CUDA's driver and the
// kernels all run, on a stand-in of two cards in the memory of the CPU (tests/gpu/stand_in). Values are compared with what
// libtorch computes on the CPU. What only a card can show is in tests/gpu.
//
//   card CASE        runs one check; without CASE lists them
#include <graphpatch.hpp>
#include <torch/nn.h>

#include "../../gpu/stand_in/device.h"
#include "check.hpp"

namespace gp = graphpatch;
using torch::Tensor;

namespace {

const c10::Device kCard(c10::kCUDA, 0);

struct TwiceImpl : torch::nn::Module {
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        return scope.output(x.mul(2).add(1));
    }
};
TORCH_MODULE(Twice);

// Makes a stream the current one as long as this object lives.
class OnStream {
public:
    explicit OnStream(int64_t id, c10::Device device = kCard)
        : before_(guard().exchangeStream(c10::Stream(c10::Stream::UNSAFE, device, id))) {}
    ~OnStream() { guard().exchangeStream(before_); }
    OnStream(const OnStream&) = delete;
    OnStream& operator=(const OnStream&) = delete;

private:
    static c10::impl::VirtualGuardImpl guard() { return c10::impl::VirtualGuardImpl(c10::kCUDA); }
    c10::Stream before_;
};

Tensor numbers() { return torch::arange(12, torch::kFloat).reshape({3, 4}); }

int count(const std::vector<std::string>& calls, const std::string& what) {
    int n = 0;
    for (const auto& call : calls) n += call.rfind(what, 0) == 0;
    return n;
}

// Checks that no note says that libtorch did the work in the place of our kernels.
void by_kernels(const gp::Session& session) {
    for (const auto& note : session.notes()) require(note.find("not by our kernels") == std::string::npos, note);
}

void values() {
    gp::Session session;
    Twice module;
    const Tensor there = numbers().to(kCard);
    const auto check = [&](const gp::Spec& spec, const std::function<void(Tensor&)>& change, int launches) {
        const auto patch = session.patch(spec);
        card::calls();
        const Tensor out = module->forward(there);
        is(std::to_string(count(card::calls(), "launch")), std::to_string(launches));
        Tensor expected = numbers().mul(2);
        change(expected);
        same(out.cpu(), expected.add(1));
        is(std::to_string(patch.counts().applied), "1");
    };
    const Tensor row = torch::tensor({5.0f, 6.0f, 7.0f, 8.0f});
    const gp::Value host(gp::Array(row.const_data_ptr<float>(), {4}));
    check(gp::zero("mul"), [](Tensor& t) { t.zero_(); }, 1);
    check(gp::zero("mul").slice("[:, ::2]"), [](Tensor& t) { t.slice(1, 0, std::nullopt, 2).zero_(); }, 1);
    check(gp::add("mul", 0.5), [](Tensor& t) { t.add_(0.5); }, 1);
    check(gp::add("mul", host), [&](Tensor& t) { t.add_(row); }, 1);
    check(gp::add("mul", row.to(kCard)), [&](Tensor& t) { t.add_(row); }, 1);
    check(gp::replace("mul", host).slice("[1]"), [&](Tensor& t) { t[1].copy_(row); }, 1);
    check(
        gp::replace("mul", 3).index(torch::tensor({2, 0})),
        [](Tensor& t) {
            t[0].fill_(3);
            t[2].fill_(3);
        },
        1);
    // A host tensor of libtorch's and a function cannot be applied by our kernels, so libtorch does it.
    check(gp::add("mul", row), [&](Tensor& t) { t.add_(row); }, 0);
    check(gp::custom("mul", [](const Tensor& t) { return t.neg(); }), [](Tensor& t) { t.neg_(); }, 0);
    by_kernels(session);
}

void several() {
    gp::Session session;
    Twice module;
    const auto first = session.patch("mul[0]=zero"), second = session.patch("mul[1]=add:1"),
               third = session.patch("mul[2]=replace:7");
    card::calls();
    const Tensor out = module->forward(numbers().to(kCard));
    const auto calls = card::calls();
    is(std::to_string(count(calls, "launch")) + " " + std::to_string(count(calls, "launch gp_batch")), "1 1");
    Tensor expected = numbers().mul(2);
    expected[0].zero_();
    expected[1].add_(1);
    expected[2].fill_(7);
    same(out.cpu(), expected.add(1));
    by_kernels(session);
}

struct ScaleImpl : torch::nn::Module {
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        return x.mul(2);
    }
};
TORCH_MODULE(Scale);

// A patch is removed while its launch still waits in the stream: its value must stay until the launch ran, and the host must
// not wait for that.
void removal() {
    gp::Session session;
    Scale module;
    const OnStream stream(3);
    const Tensor there = numbers().to(kCard), row = torch::tensor({5.0f, 6.0f, 7.0f, 8.0f});
    Tensor out;
    {
        const auto patch = session.patch(gp::replace("mul", gp::Value(gp::Array(row.const_data_ptr<float>(), {4}))));
        out = module->forward(there);
        card::calls();
    }
    const auto calls = card::calls();
    is(std::to_string(count(calls, "free")), "1");
    is(std::to_string(count(calls, "wait for all")), "0");
    same(out.cpu(), row.expand({3, 4}));
    by_kernels(session);
}

void contexts() {
    gp::Session session;
    Twice module;
    card::take_away(card::native(0, 9));
    const OnStream stream(9);
    const auto patch = session.patch("mul=zero");
    card::calls();
    const Tensor out = module->forward(numbers().to(kCard));
    is(std::to_string(count(card::calls(), "launch")), "0");
    same(out.cpu(), torch::ones({3, 4}));
    bool said = false;
    for (const auto& note : session.notes()) said = said || note.find("green context") != std::string::npos;
    require(said, "a note names the other context");
}

void devices() {
    gp::Session session;
    Twice module;
    const auto patch = session.patch("mul[0]=zero");
    for (const int device : {1, 0, 1}) {
        const Tensor out = module->forward(numbers().to(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device))));
        Tensor expected = numbers().mul(2);
        expected[0].zero_();
        same(out.cpu(), expected.add(1));
    }
    by_kernels(session);
}

// The first run on a card may be a capture: kernels and values must have been uploaded before it.
void first_capture() {
    Twice module;
    const Tensor there = numbers().to(kCard), row = torch::tensor({5.0f, 6.0f, 7.0f, 8.0f});
    gp::Session session;
    const auto patch = session.patch(gp::add("mul", gp::Value(gp::Array(row.const_data_ptr<float>(), {4}))));
    // Until now, nothing has used the card.
    card::use(0);
    const OnStream stream(4);
    void* const native = card::native(0, 4);
    card::capture(native);
    const Tensor out = module->forward(there);
    card::end_capture(native);
    there.copy_(numbers().add(1));
    card::replay(native);
    same(out.cpu(), numbers().add(1).mul(2).add(row).add(1));
    by_kernels(session);
}

void live() {
    Twice module;
    gp::Session session;
    auto number = session.patch(gp::add("mul", 1.0).live());
    const Tensor there = numbers().to(kCard);
    const OnStream stream(5);
    void* const native = card::native(0, 5);
    same(module->forward(there).cpu(), numbers().mul(2).add(2));
    card::capture(native);
    const Tensor out = module->forward(there);
    card::end_capture(native);
    const auto replayed = [&](double added) {
        card::replay(native);
        same(out.cpu(), numbers().mul(2).add(added).add(1));
    };
    replayed(1);
    number.set_value(5);
    replayed(5);
    number.enable(false);
    replayed(0);
    number.enable(true);
    replayed(5);
    number.remove();
    replayed(0);
    by_kernels(session);
}

void kept() {
    Twice module;
    gp::Session session;
    auto probe = session.probe("mul");
    auto there = session.patch(gp::probe("mul").keep_on_device());
    {
        const OnStream stream(6);
        module->forward(numbers().to(kCard));
        card::finish(card::native(0, 6));
    }
    same(probe.value().cpu(), numbers().mul(2));
    {
        // A reader on another stream borrows the tensor and frees it on a third one. The allocator must know of both streams.
        const OnStream reader(7);
        card::calls();
        auto array = there.array();
        auto calls = card::calls();
        is(std::to_string(count(calls, "stream 7 waits")), "1");
        is(std::to_string(count(calls, "memory is used by stream 7")), "1");
        require(!array.is_on_cpu(), "it stays on its device");
        const OnStream other(8);
        array = gp::Array(std::vector<float>{0}, {1});
        is(std::to_string(count(card::calls(), "memory is used by stream 8")), "1");
    }
    // During a capture a kept value cannot be read, because captured work is not done yet.
    auto again = session.probe("mul");
    module->forward(numbers().to(kCard));
    const OnStream captured(10);
    card::capture(card::native(0, 10));
    throws<gp::Error>([&] { again.value(); }, "captured into a CUDA graph");
    throws<gp::Error>([&] { there.array(); }, "captured into a CUDA graph");
    card::end_capture(card::native(0, 10));
    same(again.value().cpu(), numbers().mul(2));
}

} // namespace

int main(int argc, char** argv) {
    card::plug_in();
    return checked(argc, argv,
                   {{"values", values},
                    {"several", several},
                    {"removal", removal},
                    {"contexts", contexts},
                    {"devices", devices},
                    {"first_capture", first_capture},
                    {"live", live},
                    {"kept", kept}});
}
