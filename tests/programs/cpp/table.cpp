// Tries thousands of patches on single operations, through the C ABI: one run, one operation, one patch a case.
//
//   table DATA.pt CASES.txt OUT.pt
//
// DATA.pt is (bases, index tensors, values), tuples of tensors. A line of CASES.txt is a case, five fields separated by
// tabs: the number of its base; the operation that hands the base's numbers on (clone: a fresh value, in the base's
// layout where that is dense; alias, transpose: the base's own memory; copy_: written in place into a tensor of the
// base's layout); the kind (zero, add, replace, probe, record, flip, leave, fail, custom); its value (nothing, a
// number, "@3": value 3 by DLPack, "&3": by libtorch's tensor); and its index, items separated by spaces: "i-1" an
// integer, "@2" index tensor 2, anything else text in brackets.
//
// OUT.pt is (statuses, bytes, messages): one status a case - 0 done, 1 refused at the operation, 2 refused when it was
// registered, 3 broken; the row-major bytes of the results of all that were done, one after the other; and a message
// for each that was not. Broken is what no patch may do: change the base, its neighbours in memory, a value it refused,
// the shape or the dtype, or keep something else than it saw.

#include "host.h"
#include "specs.h"

#include <cstdio>
#include <cstring>

namespace {

enum Status : uint8_t { kDone, kRefused, kUnregistered, kBroken };

struct Tables {
    std::vector<at::Tensor> bases, indices, values;
};

std::vector<at::Tensor> tensors(const c10::IValue& tuple) {
    std::vector<at::Tensor> out;
    for (const auto& item : tuple.toTupleRef().elements()) out.push_back(item.toTensor());
    return out;
}

std::vector<std::string> split(const std::string& line, char by) {
    std::vector<std::string> parts;
    size_t at = 0;
    for (size_t end; (end = line.find(by, at)) != std::string::npos; at = end + 1) parts.push_back(line.substr(at, end - at));
    parts.push_back(line.substr(at));
    return parts;
}

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
    if (a.dtype() != b.dtype() || a.sizes() != b.sizes()) return false;
    auto x = a.contiguous(), y = b.contiguous();
    return x.nbytes() == 0 || std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0;
}

// All memory of a tensor, including the gaps between its elements.
at::Tensor memory_of(const at::Tensor& tensor) {
    int64_t n = static_cast<int64_t>(tensor.storage().nbytes() / tensor.itemsize());
    return at::empty({0}, tensor.options()).set_(tensor.storage(), 0, {n}, {1});
}

struct Base {
    explicit Base(at::Tensor base)
        : tensor(std::move(base)), turned(tensor.transpose(0, -1)), memory(memory_of(tensor)), backup(memory.clone()) {}
    at::Tensor tensor, turned, memory, backup;
};

// What the function of a patch shall do, by kind.
struct Function {
    std::string kind;
    at::Tensor value;
};

int call(void* user, DLManagedTensorVersioned* seen, DLManagedTensorVersioned** made) {
    auto& function = *static_cast<Function*>(user);
    if (function.kind == "fail") return 7;
    if (function.kind == "flip") {
        auto part = at::fromDLPackVersioned(seen);
        std::vector<int64_t> dims(part.dim());
        for (int64_t d = 0; d < part.dim(); ++d) dims[d] = d;
        *made = at::toDLPackVersioned(part.flip(dims));
    }
    if (function.kind == "custom") *made = at::toDLPackVersioned(function.value);
    return 0;
}

class Table {
public:
    explicit Table(Tables tables) : tables_(std::move(tables)) {
        for (const auto& base : tables_.bases) bases_.emplace_back(base);
    }

    void run(const std::string& line) {
        auto fields = split(line, '\t');
        if (fields.size() != 5) throw std::runtime_error("not five fields: " + line);
        Base& base = bases_.at(std::stoul(fields[0]));
        const std::string &op = fields[1], &kind = fields[2];
        Function function{kind, {}};
        uint64_t id = 0;
        try {
            id = add(op, kind, fields[3], fields[4], function);
        } catch (const std::exception& e) {
            return done(kUnregistered, e.what());
        }
        at::Tensor into, memory;
        if (op == "copy_") {
            memory = base.backup.clone();
            into = memory.as_strided(base.tensor.sizes(), base.tensor.strides(), base.tensor.storage_offset());
        }
        at::Tensor result;
        std::string refusal;
        abi::check(gp_run_begin("table"));
        try {
            if (op == "clone") result = at::clone(base.tensor);
            else if (op == "alias") result = at::alias(base.tensor);
            else if (op == "transpose") result = at::transpose(base.turned, 0, -1);
            else if (op == "copy_") result = into.copy_(base.tensor);
            else throw std::logic_error("no operation " + op);
        } catch (const c10::Error& e) {
            refusal = e.what_without_backtrace();
        }
        abi::check(gp_run_end());
        std::string broken;
        if (!same_bytes(base.memory, base.backup)) {
            broken = "the operand changed";
            base.memory.copy_(base.backup);
        }
        if (!refusal.empty() && into.defined() && !same_bytes(into, base.tensor)) broken = "refused, but changed";
        if (refusal.empty()) {
            if (result.sizes() != base.tensor.sizes() || result.dtype() != base.tensor.dtype())
                broken = "another shape or dtype";
            if (into.defined() && result.data_ptr() != into.data_ptr()) broken = "not in place";
        }
        if ((kind == "probe" || kind == "record") && broken.empty()) {
            if (abi::kept(session_, id).count != 1) broken = "kept nothing";
            else if (!same_bytes(abi::kept_tensor(session_, id), base.tensor)) broken = "kept something else";
        }
        auto counts = abi::counts(session_, id);
        if (counts.matched != 1 || counts.applied != refusal.empty() || counts.failed != !refusal.empty())
            broken = "wrong counts";
        session_.remove(id);
        if (broken.empty() && refusal.empty()) append(result);
        if (into.defined()) {
            into.copy_(base.tensor);
            if (!same_bytes(memory, base.backup)) broken = "memory between the elements changed";
        }
        if (!broken.empty()) return done(kBroken, broken);
        refusal.empty() ? statuses_.push_back(kDone) : done(kRefused, refusal);
    }

    c10::IValue results() const {
        auto statuses = at::empty({static_cast<int64_t>(statuses_.size())}, at::kByte);
        std::memcpy(statuses.data_ptr(), statuses_.data(), statuses_.size());
        auto bytes = at::empty({static_cast<int64_t>(bytes_.size())}, at::kByte);
        std::memcpy(bytes.data_ptr(), bytes_.data(), bytes_.size());
        return host::tuple({statuses, bytes, host::tuple(messages_)});
    }

private:
    uint64_t add(const std::string& op, const std::string& kind, const std::string& value, const std::string& index,
                 Function& function) {
        abi::Spec spec(op);
        if (!index.empty()) {
            for (const auto& item : split(index, ' ')) {
                if (item[0] == 'i') spec.index(std::stoll(item.substr(1)));
                else if (item[0] == '@') spec.index(tables_.indices.at(std::stoul(item.substr(1))));
                else spec.slice(item);
            }
        }
        if (kind == "zero") spec.zero();
        else if (kind == "add") spec.add(value_of(value));
        else if (kind == "replace") spec.replace(value_of(value));
        else if (kind == "probe") spec.probe();
        else if (kind == "record") spec.record(3);
        else {
            if (kind == "custom") function.value = tables_.values.at(std::stoul(value.substr(1)));
            spec.custom(call, &function);
        }
        return spec.add_to(session_);
    }

    abi::Value value_of(const std::string& text) const {
        if (text[0] == '@') return abi::Value::copy(tables_.values.at(std::stoul(text.substr(1))));
        if (text[0] == '&') return abi::Value::torch(tables_.values.at(std::stoul(text.substr(1))));
        return abi::Value::text(text);
    }

    void append(const at::Tensor& result) {
        auto dense = result.contiguous();
        const char* data = static_cast<const char*>(dense.data_ptr());
        bytes_.insert(bytes_.end(), data, data + dense.nbytes());
    }

    void done(Status status, const std::string& message) {
        statuses_.push_back(status);
        messages_.emplace_back(message.substr(0, message.find("\nException raised")));
    }

    Tables tables_;
    std::vector<Base> bases_;
    abi::Session session_;
    std::vector<uint8_t> statuses_;
    std::vector<char> bytes_;
    std::vector<c10::IValue> messages_;
};

void run(int argc, char** argv) {
    if (argc != 4) throw std::runtime_error("usage: table DATA.pt CASES.txt OUT.pt");
    torch::NoGradGuard no_grad;
    auto data = torch::jit::pickle_load(host::read_bytes(argv[1])).toTuple();
    Table table({tensors(data->elements()[0]), tensors(data->elements()[1]), tensors(data->elements()[2])});
    std::ifstream lines(argv[2]);
    if (!lines) throw std::runtime_error(std::string("cannot open ") + argv[2]);
    for (std::string line; std::getline(lines, line);) table.run(line);
    host::write_bytes(argv[3], torch::jit::pickle_save(table.results()));
}

}  // namespace

int main(int argc, char** argv) {
    return host::guarded("table", [&] { return run(argc, argv); });
}
