/* Helpers of the C tests: checks that end the program at the first failure, and tensors whose deleter calls are counted. */
#ifndef CHECK_H
#define CHECK_H

#include <graphpatch.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dlpack.h"

#define ok(call) check_status(__FILE__, __LINE__, #call, (call), GP_STATUS_OK)
#define refused(status, call) check_status(__FILE__, __LINE__, #call, (call), (status))
#define require(condition, what) check_that(__FILE__, __LINE__, (condition), (what))
/* Checks that the message of the last error contains this text. */
#define says(text) check_that(__FILE__, __LINE__, strstr(gp_last_error(), (text)) != NULL, "the error says " text)

static inline void check_status(const char *file, int line, const char *call, gp_status found, gp_status expected) {
  if (found != expected) {
    fprintf(stderr, "%s:%d: %s: status %d, expected %d: %s\n", file, line, call, (int)found, (int)expected, gp_last_error());
    exit(1);
  }
}

static inline void check_that(const char *file, int line, int condition, const char *what) {
  if (!condition) {
    fprintf(stderr, "%s:%d: not so: %s (last error: %s)\n", file, line, what, gp_last_error());
    exit(1);
  }
}

/* A tensor of the test's own; `deleted` counts the deleters that were called. */
static int deleted;

typedef struct {
  DLManagedTensorVersioned managed;
  int64_t sizes[4];
} own_tensor;

static inline void delete_own(DLManagedTensorVersioned *self) {
  ++deleted;
  free(self->dl_tensor.data);
  free(self);
}

/* A row-major copy of `data`, of shape (rows, columns); columns 0: (rows); rows 0: (). */
static inline DLManagedTensorVersioned *
new_tensor(uint8_t code, uint8_t bits, const void *data, int64_t rows, int64_t columns) {
  own_tensor *made = calloc(1, sizeof *made);
  DLTensor *t = &made->managed.dl_tensor;
  size_t n = (size_t)(rows ? rows : 1) * (size_t)(columns ? columns : 1) * (bits / 8);
  made->managed.version.major = 1;
  made->managed.deleter = delete_own;
  made->sizes[0] = rows;
  made->sizes[1] = columns;
  t->data = malloc(n);
  memcpy(t->data, data, n);
  t->device.device_type = DL_CPU;
  t->ndim = (rows != 0) + (columns != 0);
  t->dtype.code = code;
  t->dtype.bits = bits;
  t->dtype.lanes = 1;
  t->shape = made->sizes;
  return &made->managed;
}

static inline void end_tensor(DLManagedTensorVersioned *tensor) {
  if (tensor->deleter) tensor->deleter(tensor);
}

/* A file's path in `folder`. */
static inline const char *path_in(const char *folder, const char *name) {
  static char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static inline void write_file(const char *path, const void *data, size_t n) {
  FILE *file = fopen(path, "wb");
  require(file != NULL && fwrite(data, 1, n, file) == n && fclose(file) == 0, path);
}

/* A whole file with a NUL behind it; `n` receives its length. */
static inline char *read_file(const char *path, size_t *n) {
  FILE *file = fopen(path, "rb");
  char *data = malloc(1 << 20);
  require(file != NULL, path);
  *n = fread(data, 1, (1 << 20) - 1, file);
  data[*n] = '\0';
  fclose(file);
  return data;
}

/* Saves a (rows, columns) float tensor as npy. */
static inline void write_npy(const char *path, const float *data, int rows, int columns) {
  char file[4096];
  size_t n = (size_t)rows * (size_t)columns * sizeof *data;
  memset(file, ' ', 128);
  memcpy(file, "\x93NUMPY\x01\x00\x76\x00", 10);
  int text = sprintf(file + 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", rows, columns);
  file[10 + text] = ' ';
  file[127] = '\n';
  memcpy(file + 128, data, n);
  write_file(path, file, 128 + n);
}

#endif
