/* One run of a model on a fixed input, as one number that changes with every output. */
#ifndef MODEL_SUM_H
#define MODEL_SUM_H

#include "model.h"

static inline float model_sum(model *m) {
  float input[8] = {1, -2, 3, -4, 5, -6, 7, -8}, output[64] = {0}, sum = 0;
  long n = model_run(m, input, 2, 4, output, 64);
  for (long i = 0; i < n; ++i) sum += output[i] * (float)(i + 1);
  return n < 0 ? -1e9f : sum;
}

#endif
