/* The main job from C: see a TorchScript module's tree, patch it, take the patch away, and read why a patch failed.
 *
 *   session TUPLE_OUTPUT.pt
 *
 * The model is the TupleOutputModule: one Linear(2, 3) called on x and on x + 1; x is (3, 2). docs/how-to/binding.md
 * refers to this program. Ends with status 0 if all is as it must be. */
#include <graphpatch.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

#define ROWS 3
#define COLUMNS 2
#define OUTPUTS 9

static const char *EXPECTED =
    "<root>: Graph(5)\n"
    "├─x: Tensor(3, 2)\n"
    "├─linear: Graph(5)\n"
    "│ ├─input: Tensor(3, 2)\n"
    "│ ├─weight: Tensor(3, 2)\n"
    "│ ├─bias: Tensor(3)\n"
    "│ ├─linear: Tensor(3, 3)\n"
    "│ └─output: Tensor(3, 3)\n"
    "├─add: Tensor(3, 2)\n"
    "├─linear_1: Graph(5)\n"
    "│ ├─input: Tensor(3, 2)\n"
    "│ ├─weight: Tensor(3, 2)\n"
    "│ ├─bias: Tensor(3)\n"
    "│ ├─linear: Tensor(3, 3)\n"
    "│ └─output: Tensor(3, 3)\n"
    "└─output: tuple(2)\n"
    "  ├─sub_0: Tensor(3, 3)\n"
    "  └─sub_1: Tensor(3, 3)\n";

static void ok(gp_status status) {
  if (status != GP_STATUS_OK) {
    fprintf(stderr, "status %d: %s\n", (int)status, gp_last_error());
    exit(1);
  }
}

static void require(int condition, const char *what) {
  if (!condition) {
    fprintf(stderr, "not so: %s (last error: %s)\n", what, gp_last_error());
    exit(1);
  }
}

static void run(model *m, float *out) {
  static const float input[ROWS * COLUMNS] = {0.5f, -1.0f, 2.0f, 0.25f, -0.75f, 1.5f};
  require(model_run(m, input, ROWS, COLUMNS, out, OUTPUTS) == OUTPUTS, model_error());
}

static int same(const float *a, const float *b) {
  return memcmp(a, b, OUTPUTS * sizeof *a) == 0;
}

/* Computes output 0 under one patch, which is removed again. */
static void with_patch(gp_session *session, model *m, const char *patch, float *out) {
  uint64_t id;
  gp_patch_counts counts = GP_PATCH_COUNTS_INIT;
  ok(gp_patch_add(session, patch, &id));
  run(m, out);
  ok(gp_patch_get_counts(session, id, &counts));
  require(counts.matched == 1 && counts.applied == 1 && counts.failed == 0, patch);
  ok(gp_patch_remove(session, id));
}

static void check_patches(gp_session *session, model *m, const float *bare) {
  float expected[OUTPUTS], out[OUTPUTS];

  memcpy(expected, bare, sizeof expected);
  for (int i = 0; i < 3; ++i) expected[i] = 0.0f;
  with_patch(session, m, "linear.linear[0]=zero", out);
  require(same(out, expected), "zero of row 0");

  memcpy(expected, bare, sizeof expected);
  for (int i = 2; i < OUTPUTS; i += 3) expected[i] += 1.5f;
  with_patch(session, m, "linear_0.output[..., -1]=add:1.5", out);
  require(same(out, expected), "add to the last column");

  for (int i = 0; i < OUTPUTS; ++i) expected[i] = -2.0f;
  with_patch(session, m, "output|sub_0=replace:-2", out);
  require(same(out, expected), "replace of the first result");

  run(m, out);
  require(same(out, bare), "the original result after the patches are gone");
}

static void check_failures(gp_session *session, model *m, const float *bare) {
  uint64_t id;
  float out[OUTPUTS];
  static const float input[ROWS * COLUMNS] = {0};
  gp_patch_counts counts = GP_PATCH_COUNTS_INIT;
  char *why;

  require(gp_patch_add(session, "linear=zero", &id) == GP_STATUS_PATH, "a scope is refused");
  require(strstr(gp_last_error(), "linear.output") != NULL, "the error names completions");
  require(gp_patch_add(session, "linear[=zero", &id) == GP_STATUS_PARSE, "bad text is refused");
  require(gp_patch_add(session, NULL, &id) == GP_STATUS_ARGUMENT, "NULL is refused");
  require(gp_patch_add(NULL, "add=zero", &id) == GP_STATUS_ARGUMENT, "a NULL session is refused");
  require(gp_patch_remove(session, 999) == GP_STATUS_STATE, "an unknown patch is refused");

  ok(gp_patch_add(session, "add[7]=zero", &id));
  require(model_run(m, input, ROWS, COLUMNS, out, OUTPUTS) == -1, "a slice beyond the shape throws");
  require(strstr(model_error(), "add[7]=zero") != NULL && strstr(model_error(), "(3, 2)") != NULL,
          "the exception names patch and shape");
  ok(gp_session_on_error(session, GP_ON_ERROR_SKIP));
  run(m, out);
  require(same(out, bare), "skip leaves the value alone");
  ok(gp_patch_get_counts(session, id, &counts));
  require(counts.applied == 0 && counts.failed == 2, "failures are counted");
  ok(gp_patch_last_error(session, id, &why));
  require(strstr(why, "out of bounds") != NULL, "the last error says why");
  gp_string_free(why);
  ok(gp_patch_remove(session, id));
}

/* Compares the text of gp_session_missed. */
static void missed(gp_session *session, const char *expected) {
  char *text;
  ok(gp_session_missed(session, &text));
  require(strcmp(text, expected) == 0, text);
  gp_string_free(text);
}

static void check_missed(model *m) {
  gp_session *session;
  uint64_t id, other, set;
  float out[OUTPUTS];
  char *text;

  ok(gp_session_open(&session));
  ok(gp_session_attach(session));
  missed(session, "");
  /* No graph was recorded yet, so that no path can be refused. */
  ok(gp_patch_add(session, "linear_7.output=zero", &id));
  ok(gp_patch_add(session, "linear.output=add:0", &other));
  run(m, out);
  missed(session, "linear_7.output=zero");
  ok(gp_patch_remove(session, other));
  ok(gp_patch_remove(session, id));
  missed(session, "linear_7.output=zero");

  ok(gp_set_begin(session, &set));
  ok(gp_patch_add(session, "linear_8.output=zero", &id));
  ok(gp_patch_add(session, "linear_9.output[0]=add:1.5", &other));
  ok(gp_set_end(session, set));
  ok(gp_patch_add(session, "linear_8.output=zero", &id));
  missed(session, "linear_7.output=zero\nlinear_8.output=zero\nlinear_9.output[0]=add:1.5");
  ok(gp_patch_remove(session, id));

  /* The list of missed patches is bounded, so that it does not grow in a long program. */
  for (int i = 0; i < 200; ++i) {
    char patch[64];
    snprintf(patch, sizeof patch, "nowhere_%d.output=zero", i);
    ok(gp_patch_add(session, patch, &id));
    ok(gp_patch_remove(session, id));
  }
  ok(gp_session_missed(session, &text));
  size_t lines = 1;
  for (const char *c = text; *c; ++c) lines += *c == '\n';
  require(lines == 100, "a hundred are remembered");
  gp_string_free(text);

  require(gp_session_missed(NULL, &text) == GP_STATUS_ARGUMENT, "a NULL session is refused");
  require(gp_session_missed(session, NULL) == GP_STATUS_ARGUMENT, "a NULL text is refused");
  gp_session_close(session);
}

int main(int argc, char **argv) {
  gp_session *session, *second;
  gp_graphs *graphs;
  char *tree;
  float bare[OUTPUTS], recorded[OUTPUTS];
  uint64_t runs;
  model *m = argc > 1 ? model_load(argv[1]) : NULL;
  require(m != NULL, "usage: session MODEL.pt");
  run(m, bare);

  ok(gp_session_open(&session));
  ok(gp_session_attach(session));
  ok(gp_session_record(session, true));
  run(m, recorded);
  require(same(bare, recorded), "recording changes nothing");
  ok(gp_session_runs(session, &runs));
  require(runs == 1, "one run");

  ok(gp_session_graphs(session, &graphs));
  require(gp_graphs_count(graphs) == 1, "one graph");
  ok(gp_graphs_tree(graphs, 0, NULL, &tree));
  printf("%s\n%s", gp_graphs_name(graphs, 0), tree);
  require(strcmp(tree, EXPECTED) == 0, "the tree");
  gp_string_free(tree);
  gp_graphs_free(graphs);

  ok(gp_session_open(&second));
  require(gp_session_attach(second) == GP_STATUS_STATE, "a second session is refused");
  gp_session_close(second);

  check_patches(session, m, bare);
  check_failures(session, m, bare);
  gp_session_close(session);
  run(m, recorded);
  require(same(bare, recorded), "the original result after the session is closed");
  check_missed(m);
  model_free(m);
  puts("all as it must be");
  return 0;
}
