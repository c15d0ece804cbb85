// Ways to call a function several times at once. They are compiled with OpenMP, as libtorch is, in a file of their own, since
// the other programs' compiled headers are without.
#pragma once

#include <functional>

// By at::parallel_for, and by a region of OpenMP's.
void in_parallel_for(int n, const std::function<void(int)>& call);
void in_omp(int n, const std::function<void(int)>& call);
// In a region of OpenMP's, by its helper threads alone: the thread that begins it only waits.
void in_omp_helpers(int n, const std::function<void(int)>& call);
