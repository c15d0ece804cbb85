// Quantiles of measured times.
#pragma once

#include <algorithm>
#include <vector>

inline double quantile(std::vector<double> times, double q) {
    std::sort(times.begin(), times.end());
    return times[static_cast<size_t>(q * (times.size() - 1))];
}
