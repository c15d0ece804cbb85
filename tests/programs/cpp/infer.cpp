// An ordinary inference program: loads a sentence encoder saved as TorchScript, embeds sentences that come as token ids,
// and prints how similar neighbouring sentences are.
//
//   infer MODEL.pt TOKENS.txt [--repeat N] [--threads N] [--grad]
//
// TOKENS.txt holds one sentence per line, its token ids separated by spaces; lines 1 and 2 are a pair, 3 and 4 the
// next, and so on. --repeat runs everything N times (and prints once), --threads lets N threads do so at once on the
// one model, --grad leaves autograd on.

#include <torch/script.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

namespace {

struct Options {
    std::string model, tokens;
    int repeat = 1, threads = 1;
    bool grad = false;
};

constexpr const char* kUsage = "usage: infer MODEL.pt TOKENS.txt [--repeat N] [--threads N] [--grad]";

int positive(const char* option, const char* text) {
    char* end = nullptr;
    long n = text ? std::strtol(text, &end, 10) : 0;
    if (n < 1 || *end != '\0') throw std::runtime_error(std::string(option) + " needs a number of at least 1");
    return static_cast<int>(n);
}

Options parse(int argc, char** argv) {
    Options o;
    std::vector<std::string> files;
    for (int i = 1; i < argc; ++i) {
        const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
        if (!std::strcmp(argv[i], "--repeat")) o.repeat = positive("--repeat", value), ++i;
        else if (!std::strcmp(argv[i], "--threads")) o.threads = positive("--threads", value), ++i;
        else if (!std::strcmp(argv[i], "--grad")) o.grad = true;
        else if (argv[i][0] == '-') throw std::runtime_error(std::string("unknown option ") + argv[i] + "\n" + kUsage);
        else files.emplace_back(argv[i]);
    }
    if (files.size() != 2) throw std::runtime_error(kUsage);
    o.model = files[0], o.tokens = files[1];
    return o;
}

std::vector<std::vector<int64_t>> read_sentences(const std::string& file) {
    std::ifstream in(file);
    if (!in) throw std::runtime_error("cannot open the token file " + file);
    std::vector<std::vector<int64_t>> sentences;
    for (std::string line; std::getline(in, line);) {
        std::istringstream words(line);
        std::vector<int64_t> ids;
        for (int64_t id; words >> id;) ids.push_back(id);
        if (!words.eof()) throw std::runtime_error(file + " holds something that is no token id: " + line);
        if (!ids.empty()) sentences.push_back(std::move(ids));
    }
    if (sentences.empty() || sentences.size() % 2) throw std::runtime_error(file + " must hold pairs of sentences");
    return sentences;
}

// One sentence per forward, so none needs padding; the mean over its tokens, scaled to length 1, is its embedding.
torch::Tensor embed(torch::jit::Module& model, const std::vector<int64_t>& ids) {
    auto tokens = torch::tensor(ids, torch::kInt64).unsqueeze(0);
    auto hidden = model.forward({tokens, torch::ones_like(tokens)}).toTensor();
    auto mean = hidden[0].mean(0);
    return mean / mean.norm();
}

std::vector<double> similarities(torch::jit::Module& model, const Options& o,
                                 const std::vector<std::vector<int64_t>>& sentences) {
    torch::AutoGradMode grad(o.grad);  // a mode of the thread, so each thread sets it
    std::vector<double> result;
    for (int r = 0; r < o.repeat; ++r) {
        result.clear();
        for (size_t i = 0; i + 1 < sentences.size(); i += 2)
            result.push_back(embed(model, sentences[i]).dot(embed(model, sentences[i + 1])).item<double>());
    }
    return result;
}

bool same(const std::vector<double>& a, const std::vector<double>& b) {
    auto equal = [](double x, double y) { return x == y || (std::isnan(x) && std::isnan(y)); };
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), equal);
}

int run(int argc, char** argv) {
    Options o = parse(argc, argv);
    auto sentences = read_sentences(o.tokens);
    if (!std::ifstream(o.model)) throw std::runtime_error("cannot open the model " + o.model);
    torch::jit::Module model = torch::jit::load(o.model);
    model.eval();

    std::vector<std::vector<double>> results(o.threads);
    std::vector<std::string> errors(o.threads);
    auto work = [&](int t) {
        try {
            results[t] = similarities(model, o, sentences);
        } catch (const std::exception& e) {
            errors[t] = e.what();
        }
    };
    std::vector<std::thread> threads;
    for (int t = 1; t < o.threads; ++t) threads.emplace_back(work, t);
    work(0);
    for (auto& thread : threads) thread.join();

    for (int t = 0; t < o.threads; ++t) {
        if (!errors[t].empty()) throw std::runtime_error("inference failed: " + errors[t]);
        if (!same(results[t], results[0])) throw std::runtime_error("threads disagree");
    }
    for (size_t i = 0; i < results[0].size(); ++i)
        std::printf("sentences %zu and %zu: similarity %.6f%s\n", 2 * i + 1, 2 * i + 2, results[0][i],
                    std::isnan(results[0][i]) ? " (a similarity is not a number: an embedding is zero or not finite)" : "");
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "infer: %s\n", e.what());
        return 1;
    }
}
