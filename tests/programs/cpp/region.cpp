#include "region.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <omp.h>

void in_parallel_for(int n, const std::function<void(int)>& call) {
    at::parallel_for(0, n, 1, [&](int64_t first, int64_t end) {
        for (int64_t i = first; i < end; ++i) call(static_cast<int>(i));
    });
}

void in_omp(int n, const std::function<void(int)>& call) {
#pragma omp parallel for num_threads(n)
    for (int i = 0; i < n; ++i) call(i);
}

void in_omp_helpers(int n, const std::function<void(int)>& call) {
#pragma omp parallel num_threads(n + 1)
    if (omp_get_thread_num() > 0) call(omp_get_thread_num() - 1);
}
