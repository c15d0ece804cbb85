/* A TorchScript module behind three C functions, and a few plain operations, for programs in languages that cannot call
 * libtorch. It does not use libgraphpatch: it stands for the model code that such a program has anyway. */
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

/* The message of the last exception that made a call on this thread fail (return -1 or NULL). */
const char *model_error(void);

void model_free(model *m);

/* One of libtorch's own tensors. Each call that returns one hands it over; NULL when the operation threw. */
typedef struct model_tensor model_tensor;

/* A (rows, columns) float tensor; with `gradient`, one whose gradient will be asked for. */
model_tensor *model_tensor_new(const float *values, long rows, long columns, int gradient);
model_tensor *model_tensor_add(const model_tensor *tensor, double number);
model_tensor *model_tensor_multiply(const model_tensor *tensor, const model_tensor *other);
model_tensor *model_tensor_relu(const model_tensor *tensor);
/* Another reference to the tensor behind an at::TensorImpl. */
model_tensor *model_tensor_at(const void *impl);
void model_tensor_free(model_tensor *tensor);

/* Copies at most `capacity` elements to `out`; returns how many there are. */
long model_tensor_read(const model_tensor *tensor, float *out, size_t capacity);

/* The gradient of the sum of all elements of `tensor` in `leaf`; NULL also when there is none. */
model_tensor *model_tensor_gradient(const model_tensor *tensor, const model_tensor *leaf);

/* The at::TensorImpl behind it, and how many references it has. */
const void *model_tensor_impl(const model_tensor *tensor);
long model_tensor_references(const model_tensor *tensor);

#ifdef __cplusplus
}
#endif
#endif
