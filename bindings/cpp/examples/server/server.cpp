// Serves a TorchScript model of token ids to several clients at once, and lets them look into it and patch it meanwhile.
//
//   server MODEL.pt SOCKET [--workers N] [--batch N] [--patience MICROSECONDS]
//
// Clients write lines to the Unix socket SOCKET; each answer ends with an empty line and begins with `ok` or `error`:
//
//   infer 3 1 4 1 5            ok BATCH, then the numbers of the model's row for these token ids
//   patch layers_0.mlp=zero    from the next batch on (as `graphpatch run --patch` takes it)
//   clear                      takes all patches away
//   tree                       the NodePath tree of the first batch
//   stats                      latency, throughput, and what each patch did
//   quit                       as SIGTERM or SIGINT: answers what has arrived, prints stats and ends
//
// Requests of the same length that arrive together are one batch, and a batch is one run of the model: it is computed
// entirely with a patch or entirely without it.

#include "model.h"
#include "requests.h"
#include "socket.h"
#include "statistics.h"

#include <sys/signalfd.h>

#include <atomic>
#include <csignal>
#include <iostream>
#include <sstream>

namespace {

struct Options {
    std::string model, socket;
    int workers = 2, batch = 8, patience = 2000;
};

constexpr const char* kUsage = "usage: server MODEL.pt SOCKET [--workers N] [--batch N] [--patience MICROSECONDS]";

Options parse(int argc, char** argv) {
    Options options;
    std::vector<std::string> files;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        int* number = word == "--workers"    ? &options.workers
                      : word == "--batch"    ? &options.batch
                      : word == "--patience" ? &options.patience
                                             : nullptr;
        if (number) {
            std::istringstream text(i + 1 < argc ? argv[++i] : "");
            if (!(text >> *number) || !text.eof() || *number < 1)
                throw std::runtime_error(word + " needs a number of at least 1");
        } else if (word.rfind("--", 0) == 0) {
            throw std::runtime_error("unknown option " + word + "\n" + kUsage);
        } else {
            files.push_back(word);
        }
    }
    if (files.size() != 2) throw std::runtime_error(kUsage);
    options.model = files[0], options.socket = files[1];
    return options;
}

class Server {
public:
    explicit Server(const Options& options)
        : model_(options.model), requests_(options.batch, std::chrono::microseconds(options.patience)) {
        for (int i = 0; i < options.workers; ++i) workers_.emplace_back([this] { work(); });
    }
    // Requests that are still waiting are answered before the workers end.
    ~Server() {
        requests_.close();
        for (std::thread& worker : workers_) worker.join();
    }

    std::string answer(const std::string& line) noexcept {
        try {
            std::istringstream words(line);
            std::string command, rest;
            words >> command >> std::ws;
            std::getline(words, rest);
            return finished("ok" + answer_to(command, rest));
        } catch (const std::exception& error) {
            return finished(std::string("error ") + error.what());
        }
    }
    std::string stats() const { return statistics_.text() + model_.patches(); }

private:
    std::string answer_to(const std::string& command, const std::string& rest) {
        if (command == "infer") return " " + infer(rest);
        if (command == "patch") return model_.patch(rest), "";
        if (command == "clear") return " " + std::to_string(model_.clear());
        if (command == "tree") return "\n" + model_.tree();
        if (command == "stats") return "\n" + stats();
        if (command == "quit") return kill(getpid(), SIGTERM), "";
        throw std::runtime_error("unknown command " + command + "; there are infer, patch, clear, tree, stats and quit");
    }
    // Ends the text with an empty line, which ends an answer, and removes all other empty lines.
    static std::string finished(std::string text) {
        const auto twice = [](char a, char b) { return a == '\n' && b == '\n'; };
        text.erase(std::unique(text.begin(), text.end(), twice), text.end());
        return text + (text.back() == '\n' ? "\n" : "\n\n");
    }

    std::string infer(const std::string& text) {
        std::istringstream words(text);
        Request request;
        for (int64_t id; words >> id;) request.tokens.push_back(id);
        if (!words.eof() || request.tokens.empty()) throw std::runtime_error("infer needs token ids");
        std::future<std::string> answer = request.answer.get_future();
        requests_.put(std::move(request));
        return answer.get();
    }

    void work() {
        for (;;) {
            std::vector<Request> batch = requests_.take();
            if (batch.empty()) return;
            std::vector<std::string> answers;
            std::exception_ptr failure;
            try {
                answers = compute(batch);
            } catch (const c10::Error& error) {
                failure = std::make_exception_ptr(std::runtime_error(error.what_without_backtrace()));
            } catch (...) {
                failure = std::current_exception();
            }
            statistics_.batch(batch, failure != nullptr);
            for (size_t i = 0; i < batch.size(); ++i) {
                if (failure) batch[i].answer.set_exception(failure);
                else batch[i].answer.set_value(std::move(answers[i]));
            }
        }
    }

    // The rows' numbers as text, with enough digits that reading them gives exactly the same floats.
    std::vector<std::string> compute(const std::vector<Request>& batch) {
        const auto n = static_cast<int64_t>(batch.size()), length = static_cast<int64_t>(batch[0].tokens.size());
        torch::Tensor tokens = torch::empty({n, length}, torch::kInt64);
        for (int64_t i = 0; i < n; ++i)
            std::copy(batch[i].tokens.begin(), batch[i].tokens.end(), tokens.data_ptr<int64_t>() + i * length);
        const torch::Tensor rows = model_(tokens);
        if (rows.dim() < 1 || rows.size(0) != n) throw std::runtime_error("the model gives no row for each request");
        const std::string number = std::to_string(++batches_);
        std::vector<std::string> answers;
        for (int64_t i = 0, width = rows.numel() / n; i < n; ++i) {
            std::string text = number;
            char value[32];
            for (int64_t j = 0; j < width; ++j) {
                std::snprintf(value, sizeof value, " %.9g", rows.data_ptr<float>()[i * width + j]);
                text += value;
            }
            answers.push_back(std::move(text));
        }
        return answers;
    }

    Model model_;
    Requests requests_;
    Statistics statistics_;
    std::atomic<uint64_t> batches_{0};
    std::vector<std::thread> workers_;
};

int run(int argc, char** argv) {
    const Options options = parse(argc, argv);
    // Done before any thread is started: threads inherit the blocked signals, so that only this one receives them.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    const int stop = signalfd(-1, &signals, SFD_CLOEXEC);
    if (stop < 0) fail("signalfd");
    at::set_num_threads(1);  // the cores are used by several workers, not by threads inside one operation

    Server server(options);
    {
        Socket socket(options.socket, [&](const std::string& line) { return server.answer(line); });
        std::cerr << "server: " << options.workers << " workers, listening on " << options.socket << std::endl;
        socket.serve(stop);
        std::cerr << "server: stopping" << std::endl;
    }
    std::cout << server.stats() << std::flush;
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const c10::Error& error) {
        std::cerr << "server: " << error.what_without_backtrace() << "\n";
    } catch (const std::exception& error) {
        std::cerr << "server: " << error.what() << "\n";
    }
    return 1;
}
