// Requests that wait for a worker, given out as batches.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <future>
#include <mutex>
#include <string>
#include <vector>

using Clock = std::chrono::steady_clock;

struct Request {
    std::vector<int64_t> tokens;
    Clock::time_point since = Clock::now();
    std::promise<std::string> answer;
};

// Any number of threads may add requests, and any number may take batches.
class Requests {
public:
    Requests(size_t largest, std::chrono::microseconds patience) : largest_(largest), patience_(patience) {}

    void put(Request request) {
        std::lock_guard lock(mutex_);
        waiting_.push_back(std::move(request));
        changed_.notify_all();
    }

    // The oldest request and those of the same length, at most `largest` of them; a batch that is not full waits
    // `patience` for more. The result is empty when the queue is closed and nothing is left in it.
    std::vector<Request> take() {
        std::unique_lock lock(mutex_);
        for (;;) {
            changed_.wait(lock, [&] { return closed_ || !waiting_.empty(); });
            if (waiting_.empty()) return {};
            const size_t length = waiting_.front().tokens.size();
            const auto fits = [&](const Request& r) { return r.tokens.size() == length; };
            const auto full = [&] {
                // Another worker may have taken them meanwhile.
                return closed_ || waiting_.empty() ||
                       static_cast<size_t>(std::count_if(waiting_.begin(), waiting_.end(), fits)) >= largest_;
            };
            changed_.wait_until(lock, waiting_.front().since + patience_, full);
            std::vector<Request> batch;
            for (auto r = waiting_.begin(); r != waiting_.end() && batch.size() < largest_;) {
                if (!fits(*r)) {
                    ++r;
                    continue;
                }
                batch.push_back(std::move(*r));
                r = waiting_.erase(r);
            }
            if (!batch.empty()) return batch;
        }
    }

    void close() {
        std::lock_guard lock(mutex_);
        closed_ = true;
        changed_.notify_all();
    }

private:
    const size_t largest_;
    const std::chrono::microseconds patience_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Request> waiting_;
    bool closed_ = false;
};
