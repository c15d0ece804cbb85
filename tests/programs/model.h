/* A TorchScript module behind three C functions, for programs in languages that cannot call libtorch. No word of
 * libgraphpatch in it: it stands for the model code that such a program has anyway. */
#ifndef MODEL_H
#define MODEL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct model model;

/* NULL when the file cannot be loaded; the reason is on stderr. */
model *model_load(const char *file);

/* Runs the module on a (rows, columns) float tensor and copies the first output tensor's elements to `out`, at most
 * `capacity` of them. Returns how many elements the output has, or -1 when the module threw; then the message is in
 * model_error(). */
long model_run(model *m, const float *input, long rows, long columns, float *out, size_t capacity);

/* What the last model_run that returned -1 caught. */
const char *model_error(void);

void model_free(model *m);

#ifdef __cplusplus
}
#endif
#endif
