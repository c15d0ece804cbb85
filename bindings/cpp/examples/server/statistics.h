// Counts answers, and measures how long they took.
#pragma once

#include "requests.h"

#include <cstdio>

// Any number of threads may use it at once.
class Statistics {
public:
    void batch(const std::vector<Request>& batch, bool failed) {
        const auto now = Clock::now();
        std::lock_guard lock(mutex_);
        ++batches_;
        (failed ? failed_ : answered_) += batch.size();
        for (const Request& request : batch) {
            const double ms = std::chrono::duration<double, std::milli>(now - request.since).count();
            if (latest_.size() < kKept) latest_.push_back(ms);
            else latest_[next_++ % kKept] = ms;
        }
    }

    std::string text() const {
        std::lock_guard lock(mutex_);
        const double seconds = std::chrono::duration<double>(Clock::now() - since_).count();
        std::vector<double> sorted = latest_;
        std::sort(sorted.begin(), sorted.end());
        const auto quantile = [&](double q) {
            return sorted.empty() ? 0.0 : sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1))];
        };
        char text[256];
        std::snprintf(text, sizeof text,
                      "requests %zu answered, %zu failed, in %zu batches\n"
                      "latency %.2f ms median, %.2f ms at 99 %%\nthroughput %.1f requests/s\n",
                      answered_, failed_, batches_, quantile(0.5), quantile(0.99), static_cast<double>(answered_) / seconds);
        return text;
    }

private:
    // Quantiles are those of the latest requests.
    static constexpr size_t kKept = 10000;

    mutable std::mutex mutex_;
    const Clock::time_point since_ = Clock::now();
    size_t answered_ = 0, failed_ = 0, batches_ = 0, next_ = 0;
    std::vector<double> latest_;
};
