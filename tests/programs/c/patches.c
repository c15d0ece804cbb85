/* Patches that text cannot express, on a TorchScript module and on plain operations: every kind, index and value, and how kept
 * values are read.
 *
 *   patches TUPLE_OUTPUT.pt FOLDER
 *
 * The model is the TupleOutputModule of session.c; FOLDER is where files may be written. What a patch does to the
 * value of `linear.linear`, which is the first result, is computed by this program as well. Ends with status 0 if all is as it
 * must be. */
#include "check.h"

#include <pthread.h>

#include "model.h"

#define ROWS 3
#define COLUMNS 2
#define SIDE 3
#define OUTPUTS 9
#define NODE "linear.linear"

static const float INPUT[ROWS * COLUMNS] = {0.5f, -1.0f, 2.0f, 0.25f, -0.75f, 1.5f};

static model *m;
static gp_session *session;
static float bare[OUTPUTS], expected[OUTPUTS], out[OUTPUTS];

static void run(void) {
  require(model_run(m, INPUT, ROWS, COLUMNS, out, OUTPUTS) == OUTPUTS, model_error());
}

static void throws(const char *why) {
  require(model_run(m, INPUT, ROWS, COLUMNS, out, OUTPUTS) == -1, "the model throws");
  require(strstr(model_error(), why) != NULL, model_error());
}

static void run_gives(const float *values, const char *what) {
  run();
  require(memcmp(out, values, sizeof out) == 0, what);
}

/* Sets the expected values to those without a patch. */
static void expect_bare(void) {
  memcpy(expected, bare, sizeof expected);
}

static gp_spec *spec_of(const char *path) {
  gp_spec *spec;
  ok(gp_spec_new(path, &spec));
  return spec;
}

static uint64_t registered(gp_spec *spec) {
  uint64_t id;
  ok(gp_patch_register(session, spec, &id));
  gp_spec_free(spec);
  return id;
}

static gp_patch_counts counts(uint64_t id) {
  gp_patch_counts found = GP_PATCH_COUNTS_INIT;
  ok(gp_patch_get_counts(session, id, &found));
  return found;
}

/* Registers the spec and frees it, compares one run with `expected`, and removes the patch. */
static void spec_gives(gp_spec *spec, const char *what) {
  uint64_t id = registered(spec);
  run_gives(expected, what);
  require(counts(id).matched == 1 && counts(id).applied == 1 && counts(id).failed == 0, what);
  ok(gp_patch_remove(session, id));
}

static void spec_throws(gp_spec *spec, const char *why) {
  uint64_t id = registered(spec);
  char *last;
  throws(why);
  require(counts(id).matched == 1 && counts(id).applied == 0 && counts(id).failed == 1, "a failure is counted");
  ok(gp_patch_last_error(session, id, &last));
  require(strstr(last, why) != NULL, last);
  gp_string_free(last);
  ok(gp_patch_remove(session, id));
}

static void use(gp_status (*kind)(gp_spec *, const gp_value *), gp_spec *spec, gp_value *value) {
  ok(kind(spec, value));
  gp_value_free(value);
}

static gp_value *number(double value) {
  gp_value *made;
  ok(gp_value_float(value, &made));
  return made;
}

static gp_value *text_value(const char *text) {
  gp_value *made;
  ok(gp_value_text(text, &made));
  return made;
}

static gp_value *tensor_value(DLManagedTensorVersioned *tensor) {
  gp_value *made;
  ok(gp_value_dlpack(tensor, true, &made));
  return made;
}

/* --- values ------------------------------------------------------------------------------------------------------- */

static void check_values(const char *folder) {
  const float row[] = {1, -2, 0.5f}, square[] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, wrong[] = {1, 2};
  const int64_t integers[] = {1, 2, 3};
  int64_t turned[] = {1, SIDE};
  gp_spec *spec = spec_of(NODE);
  gp_value *value;
  DLManagedTensorVersioned *tensor;
  char at_file[4200];
  uint64_t id;
  int before = deleted;

  memset(expected, 0, sizeof expected);
  spec_gives(spec, "a new spec zeroes everything");
  spec = spec_of(NODE);
  use(gp_spec_add, spec, number(1));
  ok(gp_spec_zero(spec));
  spec_gives(spec, "the last kind counts");

  spec = spec_of(NODE);
  ok(gp_value_int(-3, &value));
  use(gp_spec_replace, spec, value);
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = -3;
  spec_gives(spec, "an integer is written");

  spec = spec_of(NODE);
  use(gp_spec_add, spec, number(0.1));
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = bare[i] + (float)0.1;
  spec_gives(spec, "a real number is added");

  spec = spec_of(NODE);
  use(gp_spec_add, spec, text_value("true"));
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = bare[i] + 1;
  spec_gives(spec, "a bool is added");

  snprintf(at_file, sizeof at_file, "@%s", path_in(folder, "square.npy"));
  write_npy(at_file + 1, square, SIDE, SIDE);
  spec = spec_of(NODE);
  use(gp_spec_add, spec, text_value(at_file));
  require(remove(at_file + 1) == 0, "the file was read already");
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = bare[i] + square[i];
  spec_gives(spec, "a file is added");

  tensor = new_tensor(DL_FLOAT, 32, square, SIDE, SIDE);
  tensor->dl_tensor.strides = turned;
  ok(gp_value_dlpack(tensor, false, &value));
  memset(tensor->dl_tensor.data, 0, sizeof square);
  spec = spec_of(NODE);
  use(gp_spec_replace, spec, value);
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = square[i % SIDE * SIDE + i / SIDE];
  spec_gives(spec, "a borrowed, transposed tensor is copied and written");
  require(deleted == before, "a borrowed tensor stays");
  end_tensor(tensor);

  tensor = new_tensor(DL_FLOAT, 32, square, SIDE, SIDE);
  tensor->dl_tensor.ndim = 1;
  tensor->dl_tensor.byte_offset = SIDE * sizeof *square;
  spec = spec_of(NODE);
  use(gp_spec_replace, spec, tensor_value(tensor));
  require(deleted == before + 2, "a tensor that was handed over is ended at once");
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = square[SIDE + i % SIDE];
  spec_gives(spec, "one row behind an offset is written to every row");

  spec = spec_of(NODE);
  use(gp_spec_add, spec, tensor_value(new_tensor(DL_FLOAT, 32, row, SIDE, 0)));
  ok(gp_spec_slice(spec, "[1:]"));
  expect_bare();
  for (int i = SIDE; i < OUTPUTS; ++i) expected[i] += row[i % SIDE];
  spec_gives(spec, "a row is added to every row but the first");

  spec = spec_of(NODE);
  use(gp_spec_add, spec, tensor_value(new_tensor(DL_INT, 64, integers, SIDE, 0)));
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = bare[i] + (float)integers[i % SIDE];
  spec_gives(spec, "integers are added to floats");

  spec = spec_of(NODE);
  use(gp_spec_add, spec, tensor_value(new_tensor(DL_FLOAT, 32, wrong, 2, 0)));
  spec_throws(spec, "(3, 3)");

  spec = spec_of(NODE);
  use(gp_spec_add, spec, number(2));
  ok(gp_patch_register(session, spec, &id));
  ok(gp_patch_register(session, spec, &id));
  ok(gp_spec_zero(spec));
  gp_spec_free(spec);
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = bare[i] + 2 + 2;
  run_gives(expected, "one spec makes two patches, which later changes of it leave alone");
  ok(gp_patch_remove(session, id));
  ok(gp_patch_remove(session, id - 1));
  require(deleted == before + 5, "every tensor was ended once");
}

static void check_torch_values(void) {
  const float square[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  model_tensor *tensor = model_tensor_new(square, SIDE, SIDE, 0), *x, *y, *gradient;
  gp_spec *spec = spec_of(NODE);
  gp_value *value;
  uint64_t id;
  float ones[OUTPUTS];

  refused(GP_STATUS_ARGUMENT, gp_value_torch(NULL, &value));
  refused(GP_STATUS_ARGUMENT, gp_value_torch(model_tensor_impl(tensor), NULL));
  require(model_tensor_references(tensor) == 1, "a failed call keeps nothing");
  ok(gp_value_torch(model_tensor_impl(tensor), &value));
  require(model_tensor_references(tensor) == 2, "the value holds a reference");
  use(gp_spec_add, spec, value);
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = bare[i] + square[i];
  spec_gives(spec, "libtorch's own tensor is added");
  require(model_tensor_references(tensor) == 1, "and let go of with the patch");
  model_tensor_free(tensor);

  /* Gradients flow through the patch to the value, on operations that the program calls itself. */
  x = model_tensor_new(square, SIDE, SIDE, 1);
  tensor = model_tensor_new(square, SIDE, SIDE, 1);
  spec = spec_of("add");
  ok(gp_value_torch(model_tensor_impl(tensor), &value));
  use(gp_spec_add, spec, value);
  ok(gp_spec_index(spec, 0));
  ok(gp_spec_slice(spec, "[None]"));
  gp_spec_free(spec);
  spec = spec_of("add");
  ok(gp_value_torch(model_tensor_impl(tensor), &value));
  use(gp_spec_replace, spec, value);
  id = registered(spec);
  ok(gp_run_begin("gradient"));
  y = model_tensor_add(x, 10);
  ok(gp_run_end());
  require(y != NULL, model_error());
  require(model_tensor_read(y, out, OUTPUTS) == OUTPUTS && memcmp(out, square, sizeof out) == 0, "the value was replaced");
  gradient = model_tensor_gradient(y, tensor);
  require(gradient != NULL, model_error());
  model_tensor_read(gradient, ones, OUTPUTS);
  for (int i = 0; i < OUTPUTS; ++i) require(ones[i] == 1, "the value's gradient");
  ok(gp_patch_remove(session, id));
  model_tensor_free(gradient);
  model_tensor_free(y);
  model_tensor_free(x);
  require(model_tensor_references(tensor) == 1, "nobody else holds the value any more");
  model_tensor_free(tensor);
}

/* --- indices ------------------------------------------------------------------------------------------------------ */

static DLManagedTensorVersioned *indices(int64_t a, int64_t b, int64_t rows, int64_t columns) {
  int64_t data[] = {a, b};
  return new_tensor(DL_INT, 64, data, rows, columns);
}

static void check_indices(void) {
  const uint8_t mask[OUTPUTS] = {1, 0, 0, 0, 1, 1, 0, 0, 1}, rows[SIDE] = {0, 1, 1};
  const float pair[] = {10, 20};
  DLManagedTensorVersioned *tensor;
  gp_spec *spec = spec_of(NODE);
  int before = deleted;

  ok(gp_spec_index(spec, -1));
  ok(gp_spec_index(spec, 1));
  expect_bare();
  expected[7] = 0;
  spec_gives(spec, "two integers");

  spec = spec_of(NODE);
  ok(gp_spec_slice(spec, "[..., ::2]"));
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = i % SIDE == 1 ? bare[i] : 0;
  spec_gives(spec, "a slice");

  spec = spec_of(NODE);
  ok(gp_spec_index(spec, 1));
  ok(gp_spec_slice(spec, "[:2]"));
  expect_bare();
  expected[3] = expected[4] = 0;
  spec_gives(spec, "an integer and a slice");

  spec = spec_of(NODE);
  tensor = indices(0, -1, 2, 0);
  ok(gp_spec_index_tensor(spec, tensor, false));
  require(deleted == before, "a borrowed index stays");
  end_tensor(tensor);
  use(gp_spec_replace, spec, number(4));
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = i / SIDE == 1 ? bare[i] : 4;
  spec_gives(spec, "rows by an index tensor");

  spec = spec_of(NODE);
  ok(gp_spec_slice(spec, "[:]"));
  ok(gp_spec_index_tensor(spec, indices(2, 0, 2, 0), true));
  require(deleted == before + 2, "an index that was handed over is ended at once");
  use(gp_spec_add, spec, tensor_value(new_tensor(DL_FLOAT, 32, pair, 2, 0)));
  expect_bare();
  for (int i = 0; i < OUTPUTS; ++i) expected[i] += i % SIDE == 2 ? 10 : i % SIDE == 0 ? 20 : 0;
  spec_gives(spec, "a range and an index tensor");

  spec = spec_of(NODE);
  ok(gp_spec_index_tensor(spec, indices(0, 2, 2, 1), true));
  ok(gp_spec_index_tensor(spec, indices(0, 1, 2, 0), true));
  use(gp_spec_add, spec, number(1));
  expect_bare();
  expected[0] += 1, expected[1] += 1, expected[6] += 1, expected[7] += 1;
  spec_gives(spec, "two index tensors broadcast against each other");

  spec = spec_of(NODE);
  ok(gp_spec_index_tensor(spec, indices(1, 1, 2, 0), true));
  use(gp_spec_add, spec, number(1));
  expect_bare();
  for (int i = SIDE; i < 2 * SIDE; ++i) expected[i] += 1;
  spec_gives(spec, "a row named twice is added to once, as in PyTorch");

  spec = spec_of(NODE);
  ok(gp_spec_index_tensor(spec, new_tensor(DL_BOOL, 8, mask, SIDE, SIDE), true));
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = mask[i] ? 0 : bare[i];
  spec_gives(spec, "a mask of all elements");

  spec = spec_of(NODE);
  ok(gp_spec_index_tensor(spec, new_tensor(DL_BOOL, 8, rows, SIDE, 0), true));
  ok(gp_spec_index(spec, 0));
  use(gp_spec_replace, spec, number(-1));
  expect_bare();
  expected[3] = expected[6] = -1;
  spec_gives(spec, "a mask of rows and an integer");

  spec = spec_of(NODE);
  ok(gp_spec_index(spec, 3));
  spec_throws(spec, "(3, 3)");
  spec = spec_of(NODE);
  ok(gp_spec_index_tensor(spec, indices(0, 3, 2, 0), true));
  spec_throws(spec, "(3, 3)");
  spec = spec_of(NODE);
  ok(gp_spec_index_tensor(spec, new_tensor(DL_BOOL, 8, mask, 2, 2), true));
  spec_throws(spec, "(3, 3)");
}

/* --- when a patch holds ------------------------------------------------------------------------------------------- */

static void *run_bare_elsewhere(void *thread_out) {
  (void)thread_out;
  return model_run(m, INPUT, ROWS, COLUMNS, thread_out, OUTPUTS) == OUTPUTS ? NULL : (void *)model_error();
}

static int32_t next_of(void *user, DLManagedTensorVersioned *value, DLManagedTensorVersioned **replacement) {
  (void)value, (void)replacement;
  ++*(int *)user;
  return 0;
}

static void count_release(void *user) {
  *(int *)user += 100;
}

static void check_all_at_once(void) {
  gp_spec *specs[2] = {spec_of(NODE), spec_of(NODE)};
  uint64_t ids[2];
  int called = 0;
  require(!gp_runs_wanted(), "nobody wants a run yet");
  ok(gp_spec_custom(specs[1], next_of, &called));
  ok(gp_spec_release(specs[1], count_release));
  ok(gp_patch_register_all(session, (const gp_spec *const *)specs, 2, ids));
  require(gp_runs_wanted(), "now somebody does");
  gp_spec_free(specs[0]), gp_spec_free(specs[1]);
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = 0;
  run_gives(expected, "both hold");
  require(called == 1, "the function was called, and is still there");
  ok(gp_run_decline(true)), ok(gp_run_decline(true)), ok(gp_run_decline(false));
  run_gives(bare, "what runs in a call that was declined is no run of its own");
  ok(gp_run_decline(false));
  run_gives(expected, "the call has ended");
  require(called == 2, "once for each run");
  ok(gp_patch_remove_all(session, ids, 2));
  require(called == 102 && !gp_runs_wanted(), "it is let go of once");
  run_gives(bare, "both are gone");
}

/* After a graph was recorded, one error names all bad paths. */
static void check_paths_at_once(void) {
  gp_spec *specs[2] = {spec_of("nowhere"), spec_of("layers_8.nothing")};
  uint64_t ids[2];
  refused(GP_STATUS_PATH, gp_patch_register_all(session, (const gp_spec *const *)specs, 2, ids));
  says("nowhere"), says("layers_8.nothing");
  gp_spec_free(specs[0]), gp_spec_free(specs[1]);
}

static void check_sets(void) {
  uint64_t outer, inner, first, second, third;
  float plus1[OUTPUTS], zero[OUTPUTS] = {0};

  for (int i = 0; i < OUTPUTS; ++i) plus1[i] = bare[i] + 1;
  ok(gp_patch_add(session, NODE "=add:1", &first));
  ok(gp_set_begin(session, &outer));
  ok(gp_patch_add(session, NODE "=zero", &second));
  ok(gp_set_begin(session, &inner));
  ok(gp_patch_add(session, NODE "=add:4", &third));
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = 4;
  run_gives(expected, "patches act in the order in which they came");
  ok(gp_patch_enable(session, second, false));
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = plus1[i] + 4;
  run_gives(expected, "one is switched off");
  ok(gp_patch_enable(session, second, true));
  ok(gp_set_end(session, inner));
  run_gives(zero, "the inner set is gone, the one that is on again is in its place");
  ok(gp_set_begin(session, &inner));
  ok(gp_patch_add(session, NODE "=add:4", &third));
  ok(gp_set_end(session, outer));
  run_gives(plus1, "the outer set takes the inner one with it");
  refused(GP_STATUS_STATE, gp_set_end(session, inner));
  refused(GP_STATUS_STATE, gp_patch_enable(session, third, true));
  ok(gp_patch_remove(session, first));
  run_gives(bare, "and all is as before");
}

static void check_conditions(void) {
  gp_spec *spec = spec_of("added.add");
  uint64_t id;
  float other[OUTPUTS];
  pthread_t thread;
  void *failed;
  model_tensor *x = model_tensor_new(INPUT, ROWS, COLUMNS, 0), *y;

  /* Runs are counted by root; this root has not run yet. */
  gp_spec_free(spec);
  spec = spec_of("add");
  ok(gp_spec_runs(spec, "1..3"));
  id = registered(spec);
  for (int i = 0; i < 5; ++i) {
    ok(gp_run_begin("counted"));
    y = model_tensor_add(x, 1);
    ok(gp_run_end());
    require(y != NULL && model_tensor_read(y, out, OUTPUTS) == ROWS * COLUMNS, model_error());
    require(out[0] == (i == 1 || i == 2 ? 0 : INPUT[0] + 1), "runs 1 and 2 are patched, no others");
    model_tensor_free(y);
  }
  require(counts(id).applied == 2, "in two runs");
  ok(gp_patch_remove(session, id));
  model_tensor_free(x);

  spec = spec_of(NODE);
  ok(gp_spec_this_thread(spec, true));
  ok(gp_spec_this_thread(spec, false));
  ok(gp_spec_this_thread(spec, true));
  id = registered(spec);
  require(pthread_create(&thread, NULL, run_bare_elsewhere, other) == 0, "a thread");
  require(pthread_join(thread, &failed) == 0 && failed == NULL, "the model runs on it");
  require(memcmp(other, bare, sizeof bare) == 0, "another thread is left alone");
  memset(expected, 0, sizeof expected);
  run_gives(expected, "this thread is not");
  ok(gp_patch_remove(session, id));
}

/* --- probes and records ------------------------------------------------------------------------------------------- */

static void kept_is(uint64_t id, uint64_t index, const float *values, const char *what) {
  DLManagedTensorVersioned *tensor;
  ok(gp_kept_tensor(session, id, index, &tensor));
  DLTensor *t = &tensor->dl_tensor;
  require(tensor->version.major == 1 && (tensor->flags & DL_READ_ONLY) && t->device.device_type == DL_CPU, what);
  require(t->ndim == 2 && t->shape[0] == SIDE && t->shape[1] == SIDE && t->strides == NULL, what);
  require(t->dtype.code == DL_FLOAT && t->dtype.bits == 32 && t->dtype.lanes == 1, what);
  require(memcmp((char *)t->data + t->byte_offset, values, OUTPUTS * sizeof *values) == 0, what);
  end_tensor(tensor);
}

/* Returns a kept tensor, which must stay valid after the patch and the session have ended. */
static DLManagedTensorVersioned *check_kept(const char *folder) {
  gp_spec *spec = spec_of(NODE);
  uint64_t before, zero, after, record, limited, all, number_of, dropped;
  DLManagedTensorVersioned *tensor;
  float zeros[OUTPUTS] = {0};
  size_t n;
  uint64_t header;

  ok(gp_spec_probe(spec));
  ok(gp_patch_register(session, spec, &before));
  ok(gp_patch_add(session, NODE "[0]=zero", &zero));
  ok(gp_patch_register(session, spec, &after));
  ok(gp_spec_record(spec, 2));
  ok(gp_patch_register(session, spec, &limited));
  ok(gp_spec_record(spec, 0));
  all = registered(spec);
  ok(gp_patch_add(session, "linear_1.input=record:1", &record));

  ok(gp_kept_count(session, before, &number_of, NULL));
  require(number_of == 0, "nothing has run");
  refused(GP_STATUS_ARGUMENT, gp_kept_tensor(session, before, 0, &tensor));
  expect_bare();
  memset(expected, 0, SIDE * sizeof *expected);
  for (int i = 0; i < 3; ++i) run_gives(expected, "probes and records change nothing");

  ok(gp_kept_count(session, before, &number_of, &dropped));
  require(number_of == 1 && dropped == 0, "a probe keeps the last value");
  kept_is(before, 0, bare, "a probe in front of the zero");
  kept_is(after, 0, expected, "a probe behind it");
  ok(gp_kept_count(session, limited, &number_of, &dropped));
  require(number_of == 2 && dropped == 1, "a record keeps as many as it may");
  kept_is(limited, 1, expected, "the second value of the record");
  refused(GP_STATUS_ARGUMENT, gp_kept_tensor(session, limited, 2, &tensor));
  ok(gp_kept_count(session, all, &number_of, &dropped));
  require(number_of == 3 && dropped == 0, "a record without a limit keeps all");
  refused(GP_STATUS_STATE, gp_kept_tensor(session, zero, 0, &tensor));
  require(counts(before).matched == 3 && counts(before).applied == 3, "a probe counts");
  require(counts(limited).matched == 3 && counts(limited).applied == 2, "values that are dropped were matched");

  ok(gp_patch_remove(session, after));
  ok(gp_patch_remove(session, limited));
  ok(gp_kept_save(session, path_in(folder, "kept.safetensors")));
  char *file = read_file(path_in(folder, "kept.safetensors"), &n);
  memcpy(&header, file, sizeof header);
  require(header < n, "the header's length");
  require(strstr(file + 8, "\"" NODE "\"") && strstr(file + 8, "\"" NODE "#0\"") && strstr(file + 8, "\"linear_1.input#0\"") &&
              strstr(file + 8, "\"" NODE "#2\""),
          "the keys");
  require(n == 8 + header + sizeof(float) * (OUTPUTS + 3 * OUTPUTS + ROWS * COLUMNS), "all values");
  free(file);

  ok(gp_kept_tensor(session, before, 0, &tensor));
  for (uint64_t id = before; id <= record; ++id)
    if (id != after && id != limited) ok(gp_patch_remove(session, id));
  refused(GP_STATUS_STATE, gp_kept_count(session, before, &number_of, NULL));
  ok(gp_patch_add(session, NODE "=zero", &zero));
  run_gives(zeros, "another run");
  ok(gp_patch_remove(session, zero));
  require(memcmp(tensor->dl_tensor.data, bare, sizeof bare) == 0, "the tensor outlives the patch");
  return tensor;
}

/* --- functions ---------------------------------------------------------------------------------------------------- */

typedef struct {
  int calls;
  int32_t answer;
  DLManagedTensorVersioned *give;
} plan;

/* The function of a patch: checks that it sees column 1, and returns what the test has chosen. */
static int32_t give(void *user, DLManagedTensorVersioned *value, DLManagedTensorVersioned **replacement) {
  plan *p = user;
  DLTensor *t = &value->dl_tensor;
  ++p->calls;
  require((value->flags & DL_READ_ONLY) && *replacement == NULL && t->ndim == 1 && t->shape[0] == SIDE, "what is shown");
  for (int i = 0; i < SIDE; ++i) {
    int64_t at = i * (t->strides ? t->strides[0] : 1);
    require(((float *)((char *)t->data + t->byte_offset))[at] == bare[i * SIDE + 1], "the values that are shown");
  }
  *replacement = p->give;
  return p->answer;
}

static int32_t twice(void *user, DLManagedTensorVersioned *value, DLManagedTensorVersioned **replacement) {
  DLTensor *t = &value->dl_tensor;
  float made[OUTPUTS];
  (void)user;
  require(t->ndim == 2 && t->shape[0] == SIDE && t->shape[1] == SIDE, "the whole value is shown");
  for (int64_t i = 0; i < OUTPUTS; ++i) {
    int64_t at = t->strides ? i / SIDE * t->strides[0] + i % SIDE * t->strides[1] : i;
    made[i] = 2 * ((float *)((char *)t->data + t->byte_offset))[at];
  }
  *replacement = new_tensor(DL_FLOAT, 32, made, SIDE, SIDE);
  return 0;
}

static int32_t fail(void *user, DLManagedTensorVersioned *value, DLManagedTensorVersioned **replacement) {
  (void)value, (void)replacement;
  return gp_callback_fail(user);
}

static gp_spec *custom(plan *p) {
  gp_spec *spec = spec_of(NODE);
  ok(gp_spec_slice(spec, "[:, 1]"));
  ok(gp_spec_custom(spec, give, p));
  return spec;
}

static void check_custom(void) {
  const float column[] = {7, 8, 9}, wrong[] = {1, 2}, one = 5;
  gp_spec *spec = spec_of(NODE);
  int before = deleted;
  plan p = {0};

  ok(gp_spec_custom(spec, twice, NULL));
  for (int i = 0; i < OUTPUTS; ++i) expected[i] = 2 * bare[i];
  spec_gives(spec, "a function replaces the value");
  require(deleted == before + 1, "and its tensor is ended");

  expect_bare();
  spec_gives(custom(&p), "a function leaves the value alone");
  require(p.calls == 1, "it was called once");

  p.give = new_tensor(DL_FLOAT, 32, column, SIDE, 0);
  for (int i = 0; i < SIDE; ++i) expected[i * SIDE + 1] = column[i];
  spec_gives(custom(&p), "a function replaces a column");
  p.give = new_tensor(DL_FLOAT, 32, &one, 0, 0);
  for (int i = 0; i < SIDE; ++i) expected[i * SIDE + 1] = one;
  spec_gives(custom(&p), "its tensor is broadcast");
  require(deleted == before + 3, "every tensor was ended once");

  p.give = NULL;
  p.answer = 7;
  spec_throws(custom(&p), "the function returned 7");
  p.give = new_tensor(DL_FLOAT, 32, column, SIDE, 0);
  spec_throws(custom(&p), "the function returned 7");
  require(deleted == before + 4, "a tensor that comes with a failure is ended");
  spec = spec_of(NODE);
  ok(gp_spec_custom(spec, fail, "too hot"));
  spec_throws(spec, "the function failed: too hot");
  p.give = NULL;
  spec_throws(custom(&p), "the function returned 7");
  p.answer = 0;
  p.give = new_tensor(DL_FLOAT, 32, wrong, 2, 0);
  spec_throws(custom(&p), "(3, 3)");
  p.give = new_tensor(DL_FLOAT, 32, column, SIDE, 0);
  p.give->version.major = 9;
  spec_throws(custom(&p), "version 9");
  p.give = new_tensor(DL_FLOAT, 32, column, SIDE, 0);
  p.give->dl_tensor.dtype.code = 77;
  spec_throws(custom(&p), "dtype");
  require(deleted == before + 7, "a tensor that is refused is ended");

  ok(gp_session_on_error(session, GP_ON_ERROR_SKIP));
  p.give = NULL;
  p.answer = -1;
  uint64_t id = registered(custom(&p));
  run_gives(bare, "a failure that is skipped leaves the value alone");
  require(counts(id).failed == 1, "and is counted");
  ok(gp_patch_remove(session, id));
  ok(gp_session_on_error(session, GP_ON_ERROR_RAISE));
}

/* --- runs and scopes of the program's own ------------------------------------------------------------------------- */

static const char *PLAIN =
    "<root>: Graph(4)\n"
    "├─add: Tensor(3, 2)\n"
    "├─layers_8: Graph(2)\n"
    "│ ├─relu: Tensor(3, 2)\n"
    "│ └─inner: Graph(1)\n"
    "│   └─add: Tensor(3, 2)\n"
    "├─layers_1: Graph(1)\n"
    "│ └─relu: Tensor(3, 2)\n"
    "└─add_1: Tensor(3, 2)\n";

/* Computes relu(relu(x + 1) + 2) and further values that nobody uses. Keeps the result of the second relu. */
static void run_plain(const float *input) {
  model_tensor *x = model_tensor_new(input, ROWS, COLUMNS, 0), *a, *b, *c, *d, *e;
  ok(gp_run_begin("plain"));
  a = model_tensor_add(x, 1);
  ok(gp_scope_enter("layers.8"));
  b = model_tensor_relu(a);
  ok(gp_scope_enter("inner"));
  c = model_tensor_add(b, 2);
  ok(gp_scope_leave());
  ok(gp_scope_leave());
  ok(gp_scope_enter("layers.8"));
  d = model_tensor_relu(c);
  ok(gp_scope_leave());
  e = model_tensor_add(d, 3);
  ok(gp_run_end());
  require(a && b && c && d && e, model_error());
  require(model_tensor_read(d, out, OUTPUTS) == ROWS * COLUMNS, "six elements");
  model_tensor *all[] = {x, a, b, c, d, e};
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) model_tensor_free(all[i]);
}

static void plain_gives(int patched, const char *what) {
  run_plain(INPUT);
  for (int i = 0; i < ROWS * COLUMNS; ++i) {
    float a = INPUT[i] + 1;
    float b = patched && i % COLUMNS == 0 ? 0 : a > 0 ? a : 0;
    require(out[i] == b + 2, what);
  }
}

static void check_plain(const char *folder) {
  gp_graphs *graphs, *loaded;
  char *tree, *same, *names;
  uint64_t id, runs, more;
  const char *good[] = {"layers_8.inner.add", "layers_1.relu"}, *bad[] = {"layers_8.inner", "layers_8.rleu"};
  size_t at = 0;
  model_tensor *x;

  ok(gp_session_runs(session, &runs));
  ok(gp_session_record(session, true));
  plain_gives(0, "plain operations");
  ok(gp_session_record(session, false));
  ok(gp_run_begin("unwanted"));
  ok(gp_run_begin("unwanted too"));
  ok(gp_session_runs(session, &more));
  require(more == runs + 1, "one run");
  ok(gp_run_end());
  ok(gp_scope_enter("outside"));
  ok(gp_scope_leave());

  ok(gp_session_graphs(session, &graphs));
  while (at < gp_graphs_count(graphs) && strcmp(gp_graphs_name(graphs, at), "plain") != 0) ++at;
  ok(gp_graphs_tree(graphs, at, NULL, &tree));
  require(strcmp(tree, PLAIN) == 0, tree);
  ok(gp_graphs_complete(graphs, "layers_8.in", &names));
  require(strcmp(names, "layers_8.inner") == 0, names);
  gp_string_free(names);
  ok(gp_graphs_check(graphs, good, 2));
  refused(GP_STATUS_PATH, gp_graphs_check(graphs, bad, 2));
  says("layers_8.relu");
  ok(gp_graphs_save(graphs, path_in(folder, "plain.json")));
  ok(gp_graphs_load(path_in(folder, "plain.json"), &loaded));
  require(gp_graphs_count(loaded) == gp_graphs_count(graphs), "all graphs are loaded");
  ok(gp_graphs_tree(loaded, at, "", &same));
  require(strcmp(tree, same) == 0, same);
  gp_string_free(tree);
  gp_string_free(same);
  gp_graphs_free(loaded);
  gp_graphs_free(graphs);

  refused(GP_STATUS_PATH, gp_patch_add(session, "layers_8.inner=zero", &id));
  ok(gp_patch_add(session, "layers_8.relu[9]=zero", &id));
  ok(gp_run_begin("plain"));
  refused(GP_STATUS_STATE, gp_run_begin("second"));
  x = model_tensor_new(INPUT, ROWS, COLUMNS, 0);
  ok(gp_scope_enter("layers.8"));
  require(model_tensor_relu(x) == NULL && strstr(model_error(), "layers_8.relu[9]=zero") != NULL, "an operation throws");
  ok(gp_run_end());
  model_tensor_free(x);
  ok(gp_patch_remove(session, id));
  ok(gp_patch_add(session, "layers_8.relu[:, 0]=zero", &id));
  plain_gives(1, "a patch in a scope of the program's own");
  require(counts(id).applied == 1, "it was applied once");
  ok(gp_patch_remove(session, id));
  plain_gives(0, "without it");
}

/* --- the session -------------------------------------------------------------------------------------------------- */

static void check_session(void) {
  uint64_t id, runs, more;
  char *notes;

  ok(gp_patch_add(session, NODE "=zero", &id));
  memset(expected, 0, sizeof expected);
  run_gives(expected, "attached");
  ok(gp_session_detach(session));
  ok(gp_session_detach(session));
  ok(gp_session_runs(session, &runs));
  run_gives(bare, "detached");
  ok(gp_session_runs(session, &more));
  require(more == runs, "a run that nobody wants is not counted");
  ok(gp_session_attach(session));
  ok(gp_session_attach(session));
  run_gives(expected, "attached again, with its patches");
  ok(gp_patch_remove(session, id));
  ok(gp_session_notes(session, &notes));
  require(strcmp(notes, "") == 0, notes);
  gp_string_free(notes);
}

/* A patch's function that runs a model itself. That is not part of the run that called the function. */
static int32_t run_more(void *user, DLManagedTensorVersioned *value, DLManagedTensorVersioned **replacement) {
  model_tensor *x = model_tensor_new(INPUT, ROWS, COLUMNS, 0), *y;
  float inner[OUTPUTS];
  (void)value, (void)replacement;
  if (*(int *)user == 1) ok(gp_run_begin("inside"));
  if (*(int *)user == 2) require(model_run(m, INPUT, ROWS, COLUMNS, inner, OUTPUTS) == OUTPUTS, model_error());
  y = model_tensor_add(x, 1);
  if (*(int *)user == 1) ok(gp_run_end());
  model_tensor_free(y);
  model_tensor_free(x);
  return 0;
}

static void check_runs_in_functions(void) {
  static const char *what[] = {"behind a function that calls operations", "behind a function with a run of its own",
                               "behind a function that runs a module"};
  for (int how = 0; how < 3; ++how) {
    gp_spec *spec = spec_of("layers_8.relu");
    uint64_t function, behind;
    ok(gp_spec_custom(spec, run_more, &how));
    function = registered(spec);
    ok(gp_patch_add(session, "layers_1.relu=replace:7", &behind));
    run_plain(INPUT);
    for (int i = 0; i < ROWS * COLUMNS; ++i) require(out[i] == 7, what[how]);
    require(counts(function).applied == 1 && counts(behind).applied == 1, what[how]);
    ok(gp_patch_remove(session, behind));
    ok(gp_patch_remove(session, function));
  }
}

int main(int argc, char **argv) {
  const char *folder = argc == 3 ? argv[2] : NULL;
  DLManagedTensorVersioned *kept;
  m = argc == 3 ? model_load(argv[1]) : NULL;
  require(m != NULL, "usage: patches MODEL.pt FOLDER");
  run();
  memcpy(bare, out, sizeof bare);

  ok(gp_session_open(&session));
  ok(gp_session_attach(session));
  check_values(folder);
  check_torch_values();
  check_indices();
  check_sets();
  check_all_at_once();
  check_conditions();
  kept = check_kept(folder);
  check_custom();
  check_session();
  check_plain(folder);
  check_runs_in_functions();
  check_paths_at_once();
  run_gives(bare, "the original result after all of this");
  gp_session_close(session);

  require(memcmp(kept->dl_tensor.data, bare, sizeof bare) == 0, "a kept tensor outlives the session");
  end_tensor(kept);
  run_gives(bare, "the original result without a session");
  model_free(m);
  puts("all as it must be");
  return 0;
}
