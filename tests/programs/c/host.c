/* A program that reports its modules to the library, as a binding does: roots, scopes, their values, and patches of these.
 *
 *   host FOLDER
 *
 * The model is a root `net` that calls a module `layer` (see forward below). What a patch gives is compared with the same
 * computation without a run, changed by hand at that place. FOLDER is where files may be written. Ends with status 0 if
 * all is as it must be. */
#include "check.h"

#include <pthread.h>
#include <ucontext.h>

#include "model.h"

#define ROWS 3
#define COLUMNS 2
#define SIZE 6

/* The values that the model has. */
enum {
  X,
  WEIGHT,
  MUL,
  INPUT,
  GAIN,
  SHIFT,
  START,
  ROUNDS,
  RELU,
  ADD,
  ADD_1,
  BIAS,
  MUL_0,
  MUL_1,
  VALUE,
  COUNT,
  SUM,
  FIRST,
  SECOND,
  PLACES
};

static const char *PATHS[PLACES] = {
    "x",
    "weight",
    "mul",
    "layer.input",
    "layer.options|gain",
    "layer.options|shift.sub_0",
    "layer.options|shift.sub_1",
    "layer.rounds",
    "layer.relu",
    "layer.add",
    "layer.add_1",
    "layer.bias",
    "layer.mul",
    "layer.mul_1",
    "layer.output|value",
    "layer.output|count",
    "add",
    "output|sub_0",
    "output|sub_1"};

static const char *TREE =
    "<root>: Graph(6)\n"
    "├─x: Tensor(3, 2)\n"
    "├─weight: Tensor(1, 2)\n"
    "├─mul: Tensor(3, 2)\n"
    "├─layer: Graph(11)\n"
    "│ ├─input: Tensor(3, 2)\n"
    "│ ├─options: dict(2)\n"
    "│ │ ├─gain: float\n"
    "│ │ └─shift: list(2)\n"
    "│ │   ├─sub_0: Tensor(3, 2)\n"
    "│ │   └─sub_1: int\n"
    "│ ├─rounds: int\n"
    "│ ├─relu: Tensor(3, 2)\n"
    "│ ├─add: Tensor(3, 2)\n"
    "│ ├─add_1: Tensor(3, 2)\n"
    "│ ├─add_2: Tensor(3, 2)\n"
    "│ ├─bias: Tensor(3, 2)\n"
    "│ ├─mul: Tensor(3, 2)\n"
    "│ ├─mul_1: Tensor(3, 2)\n"
    "│ └─output: dict(2)\n"
    "│   ├─value: Tensor(3, 2)\n"
    "│   └─count: int\n"
    "├─add: Tensor(3, 2)\n"
    "└─output: tuple(2)\n"
    "  ├─sub_0: Tensor(3, 2)\n"
    "  └─sub_1: Tensor(3, 2)\n";

/* A patch that is applied by hand: the value, what to do with it, and the row (-1: all rows). */
typedef struct {
  int place;
  char kind; /* 'z' zero, 'a' add, 'r' replace */
  double number;
  int row;
} edit;

static const float INPUTS[SIZE] = {0.5f, -1, 2, 0.25f, -0.75f, 1.5f}, BIASES[SIZE] = {1, -2, 0.5f, 3, -1, 0.25f};
static const float SHIFTS[SIZE] = {2, 1, -1, 0.5f, 4, -3}, WEIGHTS[COLUMNS] = {1.5f, -2};
static model_tensor *inputs, *weight, *bias, *shift;
static gp_root *net;
static gp_scope *layer;

/* One call of the model. */
typedef struct {
  /* If `told`, the call is reported in a run of `session`, or of the attached session if that is NULL. */
  bool told, owned;
  const gp_session *session;
  uint32_t wants, inside;
  uint64_t plan;
  /* Otherwise the call is not reported, `by_hand` changes a value, and `seen` receives all values. */
  const edit *by_hand;
  float seen[PLACES][SIZE], out[2][SIZE];
  int64_t rounds;
  model_tensor *made[64];
  int n_made;
} call;

static model_tensor *hold(call *c, model_tensor *tensor) {
  require(tensor != NULL && c->n_made < 64, model_error());
  return c->made[c->n_made++] = tensor;
}

static void let_go(call *c) {
  while (c->n_made) model_tensor_free(c->made[--c->n_made]);
}

static float edited(const edit *e, float value) {
  return e->kind == 'z' ? 0 : e->kind == 'a' ? value + (float)e->number : (float)e->number;
}

/* Called for each tensor of the model. Without a report, notes its numbers and applies the change by hand. */
static model_tensor *tensor_at(call *c, int place, model_tensor *tensor) {
  float values[SIZE];
  if (c->told) return tensor;
  long n = model_tensor_read(tensor, values, SIZE);
  memcpy(c->seen[place], values, sizeof values);
  if (!c->by_hand || c->by_hand->place != place) return tensor;
  for (int i = 0; i < n; ++i)
    if (c->by_hand->row < 0 || i / COLUMNS == c->by_hand->row) values[i] = edited(c->by_hand, values[i]);
  return hold(c, model_tensor_new(values, n / COLUMNS, COLUMNS, 0));
}

static double number_at(call *c, int place, double number) {
  if (c->told) return number;
  c->seen[place][0] = (float)number;
  return c->by_hand && c->by_hand->place == place ? edited(c->by_hand, (float)number) : number;
}

/* A leaf of the value that was shown last, as the patches left it. */
static model_tensor *leaf_tensor(call *c, size_t index, model_tensor *tensor) {
  gp_leaf leaf = GP_LEAF_INIT;
  ok(gp_scope_leaf(index, &leaf));
  require(leaf.number == 0 && leaf.changed == (leaf.tensor != NULL), "a tensor, if it changed");
  return leaf.changed ? hold(c, model_tensor_at(leaf.tensor)) : tensor;
}

static double leaf_number(size_t index, char kind, double number) {
  gp_leaf leaf = GP_LEAF_INIT;
  ok(gp_scope_leaf(index, &leaf));
  require(leaf.tensor == NULL && leaf.number == (leaf.changed ? kind : 0), "a number, if it changed");
  return !leaf.changed ? number : kind == 'f' ? leaf.real : (double)leaf.integer;
}

static model_tensor *layer_of(call *c, model_tensor *x, int64_t *count) {
  const void *tensors[] = {NULL, NULL};
  char structure[128];
  uint32_t changed;
  double gain = 0.25, start = 3, rounds = 2;
  model_tensor *by = shift, *y;

  if (c->told) ok(gp_scope_open(layer, &c->inside));
  if (c->told && c->inside & GP_WANTS_INPUTS) {
    tensors[0] = model_tensor_impl(x), tensors[1] = model_tensor_impl(by);
    sprintf(structure, "(3;T{2;4:gainF%g;5:shift[2;TI%d;I%d;", gain, (int)start, (int)rounds);
    ok(gp_scope_inputs(structure, tensors, 2, &changed));
    if (changed) {
      x = leaf_tensor(c, 0, x);
      gain = leaf_number(1, 'f', gain);
      by = leaf_tensor(c, 2, by);
      start = leaf_number(3, 'i', start);
      rounds = leaf_number(4, 'i', rounds);
    }
  }
  x = tensor_at(c, INPUT, x);
  gain = number_at(c, GAIN, gain);
  by = tensor_at(c, SHIFT, by);
  start = number_at(c, START, start);
  rounds = number_at(c, ROUNDS, rounds);

  y = tensor_at(c, RELU, hold(c, model_tensor_relu(x)));
  y = tensor_at(c, ADD, hold(c, model_tensor_add(y, start)));
  for (int i = 0; i < (int)rounds; ++i) y = hold(c, model_tensor_add(y, gain)), y = i ? y : tensor_at(c, ADD_1, y);
  y = tensor_at(c, MUL_0, hold(c, model_tensor_multiply(y, tensor_at(c, BIAS, bias))));
  y = tensor_at(c, MUL_1, hold(c, model_tensor_multiply(y, by)));
  *count = (int64_t)rounds;

  if (c->told && c->inside & GP_WANTS_OUTPUT) {
    tensors[0] = model_tensor_impl(y);
    sprintf(structure, "{2;5:valueT5:countI%d;", (int)*count);
    ok(gp_scope_output(structure, tensors, 1, c->owned, &changed));
    if (changed) {
      y = leaf_tensor(c, 0, y);
      *count = (int64_t)leaf_number(1, 'i', (double)*count);
    }
  }
  if (c->told) ok(gp_scope_leave());
  *count = (int64_t)number_at(c, COUNT, (double)*count);
  return tensor_at(c, VALUE, y);
}

/* add(layer(x * weight, {gain, shift: [shift, 3]}, 2)) and x * weight. */
static void forward(call *c) {
  const void *tensors[] = {NULL, NULL};
  uint32_t changed;
  model_tensor *x = inputs, *y, *z;
  const bool told = c->told;

  if (told) {
    ok(gp_run_open(c->session, net, &c->wants, &c->plan));
    c->told = c->wants != 0;
  }
  if (c->told && c->wants & GP_WANTS_PARAMETERS) {
    tensors[0] = model_tensor_impl(weight), tensors[1] = model_tensor_impl(bias);
    ok(gp_run_parameters(tensors, 2));
  }
  if (c->told && c->wants & GP_WANTS_INPUTS) {
    tensors[0] = model_tensor_impl(x);
    ok(gp_scope_input(0, "T", tensors, 1, &changed));
    if (changed) x = leaf_tensor(c, 0, x);
  }
  x = tensor_at(c, X, x);
  x = tensor_at(c, MUL, hold(c, model_tensor_multiply(x, tensor_at(c, WEIGHT, weight))));
  y = layer_of(c, x, &c->rounds);
  z = tensor_at(c, SUM, hold(c, model_tensor_add(y, (double)c->rounds)));
  if (c->told && c->wants & GP_WANTS_OUTPUT) {
    tensors[0] = model_tensor_impl(z), tensors[1] = model_tensor_impl(x);
    ok(gp_scope_output("(2;TT", tensors, 2, c->owned, &changed));
    if (changed) z = leaf_tensor(c, 0, z), x = leaf_tensor(c, 1, x);
  }
  if (c->told) ok(gp_run_end());
  z = tensor_at(c, FIRST, z);
  x = tensor_at(c, SECOND, x);
  require(model_tensor_read(z, c->out[0], SIZE) == SIZE && model_tensor_read(x, c->out[1], SIZE) == SIZE, "the results");
  c->told = told;
  let_go(c);
}

static call told(const gp_session *session, bool owned) {
  call c = {0};
  c.told = true;
  c.owned = owned;
  c.session = session;
  forward(&c);
  return c;
}

static call by_hand(const edit *e) {
  call c = {0};
  c.by_hand = e;
  forward(&c);
  return c;
}

static void same(const call *found, const call *expected, const char *what) {
  require(memcmp(found->out, expected->out, sizeof found->out) == 0, what);
}

static gp_session *opened(void) {
  gp_session *session;
  ok(gp_session_open(&session));
  return session;
}

static uint64_t patch(const gp_session *session, const char *text) {
  uint64_t id;
  ok(gp_patch_add(session, text, &id));
  return id;
}

static uint64_t registered(const gp_session *session, gp_spec *spec) {
  uint64_t id;
  ok(gp_patch_register(session, spec, &id));
  gp_spec_free(spec);
  return id;
}

static gp_patch_counts counts(const gp_session *session, uint64_t id) {
  gp_patch_counts found = GP_PATCH_COUNTS_INIT;
  ok(gp_patch_get_counts(session, id, &found));
  return found;
}

static uint64_t runs(const gp_session *session) {
  uint64_t n;
  ok(gp_session_runs(session, &n));
  return n;
}

/* Takes over text from the library. */
static void text_is(char *text, const char *expected) {
  require(strcmp(text, expected) == 0, text);
  gp_string_free(text);
}

static char *tree_of(const gp_session *session, size_t index) {
  gp_graphs *graphs;
  char *tree;
  ok(gp_session_graphs(session, &graphs));
  ok(gp_graphs_tree(graphs, index, NULL, &tree));
  gp_graphs_free(graphs);
  return tree;
}

/* Compares two tensors and frees both. */
static void is(model_tensor *tensor, model_tensor *expected, const char *what) {
  float found[SIZE], values[SIZE];
  require(tensor && expected, model_error());
  require(model_tensor_read(tensor, found, SIZE) == SIZE && model_tensor_read(expected, values, SIZE) == SIZE, what);
  require(memcmp(found, values, sizeof found) == 0, what);
  model_tensor_free(tensor);
  model_tensor_free(expected);
}

static model_tensor *full(float value) {
  float values[SIZE];
  for (int i = 0; i < SIZE; ++i) values[i] = value;
  return model_tensor_new(values, ROWS, COLUMNS, 0);
}

static model_tensor *relu(void) {
  return model_tensor_relu(inputs);
}

/* What relu gives without a patch. */
static model_tensor *plain(void) {
  float values[SIZE];
  for (int i = 0; i < SIZE; ++i) values[i] = INPUTS[i] > 0 ? INPUTS[i] : 0;
  return model_tensor_new(values, ROWS, COLUMNS, 0);
}

/* --- patches ------------------------------------------------------------------------------------------------------ */

/* A patch can change every value of the model, and changes no other value. */
static void check_patches(gp_session *session) {
  static const edit EDITS[] = {
      {0, 'a', 2, -1}, {0, 'r', 3, -1}, {0, 'z', 0, -1}, {0, 'a', -0.75, 0}, {0, 'r', 4, 0}, {0, 'z', 0, 0}};
  call bare = by_hand(NULL), found;

  for (int place = 0; place < PLACES; ++place) {
    bool plain = place == GAIN || place == START || place == ROUNDS || place == COUNT;
    for (size_t i = 0; i < sizeof EDITS / sizeof *EDITS; ++i) {
      edit e = EDITS[i];
      char text[128];
      if (plain && (e.row >= 0 || e.number < 0)) continue;
      e.place = place;
      const char *index = e.row < 0 ? "" : "[0]";
      if (e.kind == 'z') sprintf(text, "%s%s=zero", PATHS[place], index);
      else sprintf(text, "%s%s=%s:%g", PATHS[place], index, e.kind == 'a' ? "add" : "replace", e.number);
      call expected = by_hand(&e);
      for (int owned = 0; owned < 2; ++owned) {
        uint64_t id = patch(session, text);
        found = told(session, owned);
        same(&found, &expected, text);
        require(found.rounds == expected.rounds, text);
        gp_patch_counts n = counts(session, id);
        require(n.matched == 1 && n.applied == 1 && n.failed == 0, text);
        ok(gp_patch_remove(session, id));
      }
    }
  }
  found = told(session, true);
  same(&found, &bare, "nothing is left of the patches");
  bare = by_hand(NULL);
  same(&found, &bare, "nor in the model's own tensors");
}

/* Probes keep the same values that the model computes without a run. */
static void check_probes(gp_session *session) {
  call expected = by_hand(NULL), found;
  uint64_t ids[PLACES], n;
  DLManagedTensorVersioned *kept;

  for (int place = 0; place < PLACES; ++place) {
    char text[128];
    sprintf(text, "%s=probe", PATHS[place]);
    ids[place] = patch(session, text);
  }
  found = told(session, true);
  same(&found, &expected, "probes change nothing");
  for (int place = 0; place < PLACES; ++place) {
    ok(gp_kept_count(session, ids[place], &n, NULL));
    require(n == 1, PATHS[place]);
    ok(gp_kept_tensor(session, ids[place], 0, &kept));
    DLTensor *t = &kept->dl_tensor;
    void *data = (char *)t->data + t->byte_offset;
    int64_t elements = 1;
    for (int d = 0; d < t->ndim; ++d) elements *= t->shape[d];
    if (t->ndim) require(memcmp(data, expected.seen[place], (size_t)elements * sizeof(float)) == 0, PATHS[place]);
    else
      require((t->dtype.code == DL_INT ? (double)*(int64_t *)data : *(double *)data) == expected.seen[place][0], PATHS[place]);
    end_tensor(kept);
    ok(gp_patch_remove(session, ids[place]));
  }
}

/* Shows every kind of leaf and container, as a single input and as several inputs at once. */
static void check_structures(gp_session *session) {
  const char *values = "(9;TNB1;I-3;F0.5;S7:größeO4:Type(2;[0;{1;1:aT{0;";
  const char *expected =
      "<root>: Graph(3)\n├─x: tuple(9)\n│ ├─sub_0: Tensor(3, 2)\n│ ├─sub_1: NoneType\n│ ├─sub_2: bool\n│ ├─sub_3: int\n"
      "│ ├─sub_4: float\n│ ├─sub_5: str\n│ ├─sub_6: Type\n│ ├─sub_7: tuple(2)\n│ │ ├─sub_0: list(0)\n"
      "│ │ └─sub_1: dict(1)\n│ │   └─a: Tensor(3, 2)\n│ └─sub_8: dict(0)\n├─more: bool\n└─output: Tensor(3, 2)\n";
  const char *names[] = {"x", "more"};
  const void *tensors[] = {model_tensor_impl(inputs), model_tensor_impl(bias)}, *none[] = {NULL};
  gp_root *root;
  gp_leaf leaf = GP_LEAF_INIT;
  uint32_t wants, changed;
  uint64_t id, inner;

  ok(gp_root_new("values", "Values", names, 2, NULL, 0, false, &root));
  ok(gp_session_record(session, true));
  ok(gp_run_open(session, root, &wants, NULL));
  ok(gp_scope_input(0, values, tensors, 2, &changed));
  require(changed == 0, "nothing is patched");
  for (size_t i = 0; i < 8; ++i) {
    ok(gp_scope_leaf(i, &leaf));
    require(!leaf.changed && !leaf.tensor && !leaf.number, "what did not change");
  }
  refused(GP_STATUS_ARGUMENT, gp_scope_leaf(8, &leaf));
  says("8");
  ok(gp_scope_input(1, "B0;", NULL, 0, &changed));
  ok(gp_scope_output("T", tensors, 1, false, &changed));
  ok(gp_run_end());
  ok(gp_session_record(session, false));
  text_is(tree_of(session, 0), expected);

  /* An undefined tensor is one without a value. */
  id = patch(session, "x|sub_0=add:1");
  inner = patch(session, "x|sub_7.sub_1.a[1]=zero");
  uint64_t number = patch(session, "x|sub_2=zero"), more = patch(session, "more=add:1");
  ok(gp_run_open(session, root, &wants, NULL));
  require(wants & GP_WANTS_INPUTS && !(wants & (GP_WANTS_OUTPUT | GP_WANTS_PARAMETERS | GP_WANTS_RECORD)), "inputs alone");
  refused(GP_STATUS_REFUSED, gp_scope_input(0, "(1;T", none, 1, &changed));
  says("no tensor");
  ok(gp_run_end());
  ok(gp_patch_remove(session, more));
  more = patch(session, "more=replace:true");
  uint64_t unmet = patch(session, "output=zero"), unmet_later = patch(session, "output=zero");
  require(!counts(session, more).pending, "no run is under way");
  ok(gp_run_open(session, root, &wants, NULL));
  require(counts(session, unmet).pending && counts(session, more).pending, "a run has begun with them");
  ok(gp_patch_remove(session, unmet));
  require(counts(session, unmet).pending, "the run may still reach what was removed");
  char both[128];
  sprintf(both, "(2;%sB0;", values);
  ok(gp_scope_inputs(both, tensors, 2, &changed));
  require(changed == 4, "three leaves of one input, and the other one");
  model_tensor *before[] = {inputs, bias};
  for (size_t i = 0; i < 9; ++i) {
    ok(gp_scope_leaf(i, &leaf));
    require(leaf.changed == (i == 0 || i == 2 || i == 7 || i == 8), "which ones changed");
    if (i == 2 || i == 8) require(leaf.number == 'b' && leaf.integer == (i == 8), "a bool");
    if (i != 0 && i != 7) continue;
    float found[SIZE], expected_values[SIZE];
    model_tensor *after = model_tensor_at(leaf.tensor), *plain = model_tensor_add(before[i == 7], i == 0);
    model_tensor_read(after, found, SIZE);
    model_tensor_read(plain, expected_values, SIZE);
    if (i == 7) expected_values[COLUMNS] = expected_values[COLUMNS + 1] = 0;
    require(memcmp(found, expected_values, sizeof found) == 0, "the changed tensor");
    model_tensor_free(plain);
    model_tensor_free(after);
  }
  refused(GP_STATUS_ARGUMENT, gp_scope_leaf(9, &leaf));
  ok(gp_run_end());
  require(!counts(session, unmet).pending && !counts(session, unmet).matched, "no run can reach it any more");
  ok(gp_patch_remove(session, unmet_later));
  gp_patch_counts gone = GP_PATCH_COUNTS_INIT;
  refused(GP_STATUS_STATE, gp_patch_get_counts(session, unmet_later, &gone));
  gp_root_free(root);
  ok(gp_patch_remove(session, id)), ok(gp_patch_remove(session, inner));
  ok(gp_patch_remove(session, number)), ok(gp_patch_remove(session, more));
}

/* A value that the program gives away is patched in place. Any other value is patched on a copy. */
static void check_owned(gp_session *session) {
  uint64_t id = patch(session, "output=add:1");
  gp_root *root;
  gp_leaf leaf = GP_LEAF_INIT;
  uint32_t wants, changed;

  ok(gp_root_new("owned", "Owned", NULL, 0, NULL, 0, false, &root));
  for (int how = 0; how < 4; ++how) {
    const bool owned = how > 0, in_place = how == 1;
    model_tensor *tensor = model_tensor_new(INPUTS, ROWS, COLUMNS, how == 3), *expected = model_tensor_add(tensor, 1);
    model_tensor *second = how == 2 ? model_tensor_at(model_tensor_impl(tensor)) : NULL;
    const void *impl = model_tensor_impl(tensor);
    float found[SIZE], values[SIZE], after[SIZE];
    ok(gp_run_open(session, root, &wants, NULL));
    ok(gp_scope_output("T", &impl, 1, owned, &changed));
    ok(gp_scope_leaf(0, &leaf));
    require(changed == !in_place && leaf.changed == !in_place, "whether it is another tensor");
    model_tensor *result = model_tensor_at(in_place ? impl : leaf.tensor);
    ok(gp_run_end());
    model_tensor_read(result, found, SIZE);
    model_tensor_read(expected, values, SIZE);
    require(memcmp(found, values, sizeof found) == 0, "one more");
    model_tensor_read(tensor, after, SIZE);
    require(memcmp(after, in_place ? values : INPUTS, sizeof after) == 0, "what was shown");
    model_tensor_free(result);
    model_tensor_free(expected);
    model_tensor_free(tensor);
    model_tensor_free(second);
  }
  gp_root_free(root);
  ok(gp_patch_remove(session, id));
}

/* --- what is wanted ----------------------------------------------------------------------------------------------- */

#define PLACE_OF(wants) ((wants) >> 16)

static uint32_t entered(gp_scope *scope) {
  uint32_t wants;
  ok(gp_scope_open(scope, &wants));
  return wants;
}

static void check_wants(gp_session *session) {
  call c = told(session, true);
  uint64_t id, second, plan, none = 9;
  uint32_t wants = 9, first, again, other_wants, below, all;
  gp_scope *other;

  require(c.wants == 0 && c.plan == 0 && runs(session) == 0, "nothing is wanted of a session that does nothing");
  ok(gp_scope_open(layer, &wants));
  require(wants == 0, "nothing is wanted outside a run");
  ok(gp_scope_leave());
  ok(gp_run_end());

  ok(gp_session_record(session, true));
  c = told(session, true);
  all = GP_WANTS_INPUTS | GP_WANTS_OUTPUT | GP_WANTS_INSIDE | GP_WANTS_PARAMETERS | GP_WANTS_RECORD | GP_WANTS_OPERATIONS;
  require(c.wants == all && c.inside == (all & ~(uint32_t)GP_WANTS_PARAMETERS) && c.plan == 0, "all, to record it");
  require(runs(session) == 1, "one run");
  ok(gp_session_record(session, false));
  text_is(tree_of(session, 0), TREE);

  id = patch(session, "layer.output|value=zero");
  c = told(session, true);
  plan = c.plan;
  require((c.wants & 0xffff) == GP_WANTS_INSIDE && PLACE_OF(c.wants) && plan, "nothing of the root itself");
  require((c.inside & 0xffff) == (GP_WANTS_OUTPUT | GP_WANTS_INSIDE), "the output alone");
  first = c.inside;
  c = told(session, true);
  require(c.plan == plan && c.inside == first, "the same patches, the same answers");

  second = patch(session, "layer.relu=zero");
  c = told(session, true);
  require(c.plan && c.plan != plan, "another plan");
  require((c.inside & 0xffff) == (GP_WANTS_OUTPUT | GP_WANTS_INSIDE | GP_WANTS_OPERATIONS), "operations too");
  plan = c.plan;
  ok(gp_patch_enable(session, second, false));
  c = told(session, true);
  require(c.plan && c.plan != plan && c.inside == first, "without the second one");
  ok(gp_patch_remove(session, second));
  second = patch(session, "layer.bias=zero");
  c = told(session, true);
  require(c.wants & GP_WANTS_PARAMETERS && c.inside & GP_WANTS_OPERATIONS, "parameters");
  ok(gp_patch_remove(session, second));

  /* No patch names this module, so neither its calls nor those inside it matter until the patches change. */
  ok(gp_scope_new("other", "other", "Other", NULL, 0, false, &other));
  ok(gp_run_open(session, net, &wants, NULL));
  other_wants = entered(other);
  require((other_wants & GP_WANTS_IGNORED) && !(other_wants & GP_WANTS_INSIDE), "a module that no patch names");
  below = entered(layer);
  require(!(below & (GP_WANTS_INSIDE | GP_WANTS_IGNORED)), "what it calls; called from elsewhere it may matter");
  ok(gp_scope_leave()), ok(gp_scope_leave());
  first = entered(layer);
  require(first & GP_WANTS_OUTPUT && PLACE_OF(first), "the one that is patched");
  again = entered(layer);
  require(!(again & GP_WANTS_INSIDE), "layer.layer is not");
  ok(gp_scope_leave()), ok(gp_scope_leave());
  again = entered(layer);
  require(!(again & (GP_WANTS_INSIDE | GP_WANTS_IGNORED)), "a second call of it is not, but its name may be");
  ok(gp_run_end());
  gp_scope_free(other);
  ok(gp_patch_remove(session, id));

  ok(gp_run_open(session, net, &wants, &none));
  require(wants == 0 && none == 0, "nothing again");
}

/* The inside of compiled code is not looked at. */
static void check_opaque(gp_session *session) {
  const char *names[] = {"input"}, *parameters[] = {"weight"};
  const void *tensors[] = {model_tensor_impl(inputs)}, *weights[] = {model_tensor_impl(weight)};
  gp_root *root;
  gp_scope *scope;
  uint32_t wants, changed;
  model_tensor *y, *z;

  ok(gp_root_new("opaque", "Compiled", names, 1, parameters, 1, true, &root));
  ok(gp_scope_new("part", "part", "Part", names, 1, true, &scope));
  ok(gp_session_record(session, true));
  ok(gp_run_open(session, root, &wants, NULL));
  require(wants & GP_WANTS_INPUTS && wants & GP_WANTS_OUTPUT && !(wants & GP_WANTS_OPERATIONS), "only its values");
  ok(gp_run_parameters(weights, 1));
  ok(gp_scope_input(0, "T", tensors, 1, &changed));
  y = model_tensor_multiply(inputs, weight);
  ok(gp_scope_output("T", tensors, 1, false, &changed));
  ok(gp_run_end());
  model_tensor_free(y);
  text_is(tree_of(session, 0), "<root>: Graph(2)\n├─input: Tensor(3, 2)\n└─output: Tensor(3, 2)\n");
  gp_root_free(root);

  ok(gp_root_new("around", "Around", NULL, 0, parameters, 1, false, &root));
  ok(gp_run_open(session, root, &wants, NULL));
  ok(gp_run_parameters(weights, 1));
  wants = entered(scope);
  require(wants & GP_WANTS_INPUTS && wants & GP_WANTS_OUTPUT && !(wants & GP_WANTS_OPERATIONS), "only its values");
  ok(gp_scope_input(0, "T", tensors, 1, &changed));
  y = model_tensor_multiply(inputs, weight);
  ok(gp_scope_output("T", tensors, 1, false, &changed));
  ok(gp_scope_leave());
  z = model_tensor_relu(y);
  ok(gp_run_end());
  ok(gp_session_record(session, false));
  text_is(tree_of(session, 1),
          "<root>: Graph(2)\n├─part: Graph(2)\n│ ├─input: Tensor(3, 2)\n│ └─output: Tensor(3, 2)\n└─relu: Tensor(3, 2)\n");
  model_tensor_free(y);
  model_tensor_free(z);
  gp_scope_free(scope);
  gp_root_free(root);
}

/* --- runs in runs, at once, and again ----------------------------------------------------------------------------- */

/* A run of another session may begin and end inside a run, which then continues where it was. */
static void check_nested(gp_session *session, gp_session *other) {
  const edit zero = {VALUE, 'z', 0, -1};
  call bare = by_hand(NULL), expected = by_hand(&zero), inner;
  uint64_t first = patch(session, "layer.relu=replace:7"), second = patch(session, "layer.relu_1=replace:8");
  uint64_t third = patch(session, "relu=replace:9"), id, before = runs(session), others = runs(other);
  uint32_t wants, depth;

  inner = told(other, true);
  same(&inner, &bare, "nothing is wanted for the other session");
  ok(gp_run_open(session, net, &wants, NULL));
  entered(layer);
  is(relu(), full(7), "the outer run");
  ok(gp_run_open(other, net, &depth, NULL));
  require(depth == 0, "nothing is wanted for the other session");
  is(relu(), full(8), "and nothing is suspended for it");
  id = patch(other, "layer.output|value=zero");
  inner = told(other, true);
  require(inner.wants != 0, "the inner run");
  same(&inner, &expected, "patched for the other session alone");
  is(relu(), plain(), "the third relu of the outer run: operations of the inner one were none of its");
  ok(gp_scope_leave());
  is(relu(), full(9), "the outer run's own");
  refused(GP_STATUS_STATE, gp_run_open(NULL, net, &wants, NULL));
  says("already open");
  require(wants == 0, "and wants nothing");
  refused(GP_STATUS_STATE, gp_run_begin("third"));

  /* A run may also begin inside a run of the same session. Scopes that are left open in the inner run end with it. */
  ok(gp_run_open(session, net, &wants, NULL));
  entered(layer);
  is(relu(), full(7), "a run of the same session inside its own");
  ok(gp_run_end());
  is(relu(), plain(), "relu_1 of the outer run");
  ok(gp_run_end());
  is(relu(), plain(), "outside of all runs");
  ok(gp_run_end());
  require(runs(session) == before + 2 && runs(other) == others + 1, "each run counts for its session");

  /* gp_scope_unwind leaves scopes that an early return has left open. */
  ok(gp_run_open(session, net, &wants, NULL));
  ok(gp_scope_script(layer, &depth));
  entered(layer), entered(layer), entered(layer);
  ok(gp_scope_unwind(depth));
  ok(gp_scope_unwind(depth));
  is(relu(), full(9), "the root again");
  entered(layer);
  is(relu(), plain(), "a second call of the layer, which no patch names");
  ok(gp_run_end());
  ok(gp_scope_leave());
  ok(gp_scope_script(layer, &depth));
  ok(gp_scope_unwind(depth));
  ok(gp_scope_unwind(0));
  ok(gp_run_open(session, net, &wants, NULL));
  is(relu(), full(9), "the next run begins in its root");
  ok(gp_run_end());

  /* Leaving a scope that was not entered changes nothing. */
  ok(gp_run_open(session, net, &wants, NULL));
  ok(gp_scope_leave());
  is(relu(), full(9), "there is no scope to leave: the root stays open");
  ok(gp_run_end());

  ok(gp_patch_remove(other, id));
  ok(gp_patch_remove(session, first)), ok(gp_patch_remove(session, second)), ok(gp_patch_remove(session, third));
}

/* A session is closed inside its own run, which continues. */
static void check_closed(void) {
  gp_session *session = opened();
  uint32_t wants;
  patch(session, "relu=replace:9");
  ok(gp_run_open(session, net, &wants, NULL));
  gp_session_close(session);
  is(relu(), full(9), "a run outlives its session");
  ok(gp_run_end());
}

typedef struct {
  gp_session *session;
  edit by_hand;
  const char *text;
  bool failed;
} worker;

static void *run_often(void *given) {
  worker *w = given;
  call expected = by_hand(&w->by_hand);
  for (int i = 0; i < 50; ++i) {
    call found = told(w->session, i % 2);
    w->failed |= memcmp(found.out, expected.out, sizeof found.out) != 0;
  }
  return NULL;
}

static void check_threads(gp_session *one, gp_session *two) {
  worker workers[] = {{one, {MUL, 'a', 2, -1}, "mul=add:2", false}, {two, {BIAS, 'r', 3, -1}, "layer.bias=replace:3", false}};
  uint64_t ids[2];
  pthread_t threads[2];
  for (int i = 0; i < 2; ++i) ids[i] = patch(workers[i].session, workers[i].text);
  for (int i = 0; i < 2; ++i) require(pthread_create(&threads[i], NULL, run_often, &workers[i]) == 0, "a thread");
  for (int i = 0; i < 2; ++i) {
    require(pthread_join(threads[i], NULL) == 0 && !workers[i].failed, workers[i].text);
    require(counts(workers[i].session, ids[i]).applied == 50, workers[i].text);
    ok(gp_patch_remove(workers[i].session, ids[i]));
  }
}

/* A part of a run is computed again, as in checkpointing: with the same names and patches, even if the patches were removed. */
static void check_snapshot(gp_session *session, gp_session *other) {
  uint64_t first = patch(session, "layer.relu=replace:1"), second = patch(session, "layer.relu_1=replace:2");
  uint64_t third = patch(session, "layer.bias=replace:1"), before, plan, again;
  const void *tensors[] = {model_tensor_impl(weight), model_tensor_impl(bias)};
  uint32_t wants, inside;
  gp_snapshot *snapshot = NULL;

  ok(gp_run_open(session, net, &wants, &plan));
  ok(gp_run_parameters(tensors, 2));
  inside = entered(layer);
  is(relu(), full(1), "the first relu");
  ok(gp_run_snapshot(&snapshot));
  require(snapshot != NULL, "where the run stands");
  is(relu(), full(2), "the second relu");
  is(relu(), plain(), "the third relu");
  ok(gp_run_end());
  ok(gp_patch_remove(session, first)), ok(gp_patch_remove(session, second)), ok(gp_patch_remove(session, third));
  before = runs(session);

  for (int i = 0; i < 2; ++i) {
    ok(gp_run_resume(snapshot, i == 1, &wants, &again));
    require(again == plan && PLACE_OF(wants) == PLACE_OF(inside) && wants & GP_WANTS_OPERATIONS, "it stands in the layer");
    require(!(wants & GP_WANTS_RECORD), "and is not recorded");
    is(relu(), full(2), "the second relu again");
    is(model_tensor_multiply(inputs, bias), model_tensor_add(inputs, 0), "and its parameter");
    is(relu(), plain(), "the third relu again");
    ok(gp_run_end());
    is(relu(), plain(), "outside of it");
  }
  require(runs(session) == before, "a part computed again counts as no run");

  /* The same inside a run of another session, which is suspended meanwhile. */
  first = patch(other, "relu_1=replace:5");
  ok(gp_run_open(other, net, &wants, NULL));
  is(relu(), plain(), "the first relu of the other run");
  ok(gp_run_resume(snapshot, false, &wants, NULL));
  gp_snapshot_free(snapshot);
  is(relu(), full(2), "the second relu again");
  ok(gp_run_end());
  is(relu(), full(5), "the second relu of the other run");
  ok(gp_run_end());
  ok(gp_patch_remove(other, first));
}

typedef struct {
  gp_snapshot *from;
  uint32_t wants;
} part;

/* The function of a thread: continues the run there and calls two operations in the layer. */
static void *run_part(void *given) {
  part *p = given;
  ok(gp_run_resume(p->from, true, &p->wants, NULL));
  model_tensor_free(relu());
  model_tensor_free(model_tensor_multiply(inputs, bias));
  ok(gp_run_end());
  return NULL;
}

/* A part of a recorded run that another thread computes is recorded in that run's graph, if the caller asks for it. */
static void check_parts(gp_session *session, gp_session *other) {
  const void *tensors[] = {model_tensor_impl(weight), model_tensor_impl(bias)};
  uint32_t wants;
  gp_snapshot *none = (gp_snapshot *)&wants;
  part p = {NULL, 0};
  pthread_t thread;

  (void)other;
  ok(gp_run_snapshot(&none));
  require(none == NULL, "there is no run");
  ok(gp_session_record(session, true));
  ok(gp_run_open(session, net, &wants, NULL));
  ok(gp_run_parameters(tensors, 2));
  entered(layer);
  model_tensor_free(relu());
  ok(gp_run_snapshot(&p.from));
  require(pthread_create(&thread, NULL, run_part, &p) == 0 && pthread_join(thread, NULL) == 0, "a thread");
  require(p.wants & GP_WANTS_RECORD, "the part is recorded");
  ok(gp_scope_leave());
  model_tensor_free(relu());
  ok(gp_run_end());
  text_is(tree_of(session, 0),
          "<root>: Graph(2)\n├─layer: Graph(4)\n│ ├─relu: Tensor(3, 2)\n│ ├─relu_1: Tensor(3, 2)\n│ ├─bias: Tensor(3, 2)\n"
          "│ └─mul: Tensor(3, 2)\n└─relu: Tensor(3, 2)\n");
  require(runs(session) == 1, "a part counts as no run");

  ok(gp_run_resume(p.from, false, &wants, NULL));
  require(wants == 0, "nothing is wanted of a part that is not recorded");
  is(relu(), plain(), "and no run began");
  ok(gp_session_record(session, false));
  ok(gp_run_resume(p.from, true, &wants, NULL));
  require(wants & GP_WANTS_RECORD, "the run was recorded, whatever its session does now");
  ok(gp_run_end());
  gp_snapshot_free(p.from);
}

/* --- fibers -------------------------------------------------------------------------------------------------------- */

/* A second stack on the same thread, with a run of its own that it leaves in its middle. */
typedef struct {
  ucontext_t thread, own;
  gp_session *session;
  char stack[1 << 18];
} fiber;

static fiber second;

/* Leaves this fiber's calls in their middle for the other one's. */
static void switch_to(ucontext_t *from, ucontext_t *to) {
  gp_aside *aside;
  ok(gp_calls_set_aside(&aside));
  require(swapcontext(from, to) == 0, "a fiber");
  ok(gp_calls_take_up(aside));
}

static void run_in_fiber(void) {
  uint32_t wants;
  is(relu(), plain(), "no run is open here");
  ok(gp_run_open(second.session, net, &wants, NULL));
  entered(layer);
  is(relu(), full(5), "the first relu of the fiber");
  switch_to(&second.own, &second.thread);
  is(relu(), full(6), "the second relu of the fiber");
  ok(gp_scope_leave());
  ok(gp_run_end());
  is(relu(), plain(), "the fiber's run has ended");
}

/* The function of a thread. */
static void *take_up_elsewhere(void *aside) {
  refused(GP_STATUS_STATE, gp_calls_take_up(aside));
  says("another thread");
  return NULL;
}

/* A run that is left in its middle for another one on the same thread is set aside meanwhile. */
static void check_aside(gp_session *session, gp_session *other) {
  gp_aside *aside = (gp_aside *)session;
  uint64_t ended = runs(session);
  uint32_t wants;
  pthread_t thread;

  ok(gp_calls_set_aside(&aside));
  require(aside == NULL, "no call is under way");
  ok(gp_calls_take_up(NULL));
  patch(session, "layer.relu=replace:1"), patch(session, "layer.relu_1=replace:2");
  patch(other, "layer.relu=replace:5"), patch(other, "layer.relu_1=replace:6");
  second.session = other;
  require(getcontext(&second.own) == 0, "a fiber");
  second.own.uc_stack.ss_sp = second.stack, second.own.uc_stack.ss_size = sizeof second.stack;
  second.own.uc_link = &second.thread;
  makecontext(&second.own, run_in_fiber, 0);

  ok(gp_run_open(session, net, &wants, NULL));
  entered(layer);
  is(relu(), full(1), "the first relu");
  switch_to(&second.thread, &second.own);
  is(relu(), full(2), "the second relu");
  switch_to(&second.thread, &second.own);
  is(relu(), plain(), "the third relu");
  ok(gp_calls_set_aside(&aside));
  is(relu(), plain(), "no run is open");
  require(pthread_create(&thread, NULL, take_up_elsewhere, aside) == 0 && pthread_join(thread, NULL) == 0, "a thread");
  ok(gp_run_open(other, net, &wants, NULL));
  refused(GP_STATUS_STATE, gp_calls_take_up(aside));
  says("are under way");
  ok(gp_run_end());
  ok(gp_calls_take_up(aside));
  refused(GP_STATUS_ARGUMENT, gp_calls_take_up(aside));
  says("freed");
  ok(gp_scope_leave());
  is(relu(), plain(), "behind the layer");
  require(runs(session) == ended, "the run has not ended");
  ok(gp_calls_set_aside(&aside));
  gp_aside_free(aside);
  require(runs(session) == ended + 1, "a run that nobody goes on with has ended");
  is(relu(), plain(), "no run is open");

  ok(gp_run_decline(true));
  ok(gp_calls_set_aside(&aside));
  require(aside != NULL, "a call of which nothing is wanted is under way");
  ok(gp_calls_take_up(aside));
  ok(gp_run_decline(false));
}

/* --- source, notes, JSON ------------------------------------------------------------------------------------------ */

typedef struct {
  int asked;
  uint32_t line;
} place;

static void say_where(void *user, gp_frames *frames) {
  place *p = user;
  ++p->asked;
  ok(gp_frames_add(frames, "net.c", 3, "main", "  forward(&c);"));
  ok(gp_frames_add(frames, "net.c", p->line, "forward", NULL));
  ok(gp_frames_add(frames, NULL, 0, NULL, NULL));
  refused(GP_STATUS_ARGUMENT, gp_frames_add(frames, "\xff", 0, NULL, NULL));
}

static void check_source(gp_session *session, const char *folder) {
  place p = {0, 17};
  call c;
  gp_graphs *graphs, *loaded;
  char *text, *json;
  uint32_t wants, changed;
  uint64_t id;
  size_t n;
  const void *tensors[] = {model_tensor_impl(inputs)};
  const void *parameters[] = {model_tensor_impl(weight), model_tensor_impl(bias)};

  ok(gp_session_source(session, say_where, &p));
  id = patch(session, "mul=add:1");
  c = told(session, true);
  require(c.wants && p.asked == 0, "nobody is asked for what is only patched");
  ok(gp_patch_remove(session, id));
  ok(gp_session_record(session, true));
  c = told(session, true);
  /* In the root: mul, add, and the call of the layer. In the layer: relu, three times add, twice mul. */
  require(p.asked == 9, "asked for each operation, and for the call");
  c = told(session, true);
  require(p.asked == 9, "and for nothing twice");
  p.line = 18;
  ok(gp_run_open(session, net, &wants, NULL));
  ok(gp_run_parameters(parameters, 2));
  ok(gp_scope_input(0, "T", tensors, 1, &changed));
  model_tensor_free(model_tensor_multiply(inputs, weight));
  model_tensor_free(model_tensor_multiply(inputs, shift));
  ok(gp_run_end());
  require(p.asked == 10, "asked for the one operation that is new");
  ok(gp_session_source(session, NULL, NULL));
  ok(gp_run_open(session, net, &wants, NULL));
  model_tensor_free(relu());
  ok(gp_run_end());
  require(p.asked == 10, "nobody is asked any more");
  ok(gp_session_record(session, false));

  ok(gp_session_graphs(session, &graphs));
  ok(gp_graphs_code(graphs, 0, "mul", &text));
  text_is(text, "File \"net.c\", line 3, in main\n    forward(&c);\nFile \"net.c\", line 17, in forward\nFile \"?\"\n");
  ok(gp_graphs_code(graphs, 0, "mul_1", &text));
  require(strstr(text, "\"net.c\", line 18, in forward\n") != NULL, text);
  gp_string_free(text);
  ok(gp_graphs_code(graphs, 0, "layer", &text));
  require(strncmp(text, "Calling context:\nFile \"net.c\", line 3, in main\n", 46) == 0, text);
  require(strstr(text, "def forward(self, input, options, rounds):\n    relu = aten.relu(input)\n"
                       "    add = aten.add.Scalar(relu, 3.0)\n") != NULL,
          text);
  require(strstr(text, "    return {'value': mul_1, 'count': 2}\n") != NULL, text);
  gp_string_free(text);
  ok(gp_graphs_code(graphs, 0, NULL, &text));
  require(strstr(text, "    mul = aten.mul.Tensor(x, weight)  # in some runs\n") != NULL, text);
  require(strstr(text, "    layer = self.layer(mul, {'gain': 0.25, 'shift': [") != NULL, text);
  gp_string_free(text);
  refused(GP_STATUS_ARGUMENT, gp_graphs_code(graphs, 1, NULL, &text));
  refused(GP_STATUS_PATH, gp_graphs_code(graphs, 0, "layer.nothing", &text));
  refused(GP_STATUS_PARSE, gp_graphs_code(graphs, 0, "a..b", &text));

  /* The file's `graphs` are what the call gives. */
  ok(gp_graphs_json(graphs, 0, &json));
  refused(GP_STATUS_ARGUMENT, gp_graphs_json(graphs, 1, &text));
  require(json[0] == '{' && strstr(json, "\"net\"") && strstr(json, "\"net.c\"") && strstr(json, "\"gain\""), json);
  ok(gp_graphs_save(graphs, path_in(folder, "net.json")));
  char *file = read_file(path_in(folder, "net.json"), &n);
  require(strstr(file, json) != NULL, file);
  free(file);
  ok(gp_graphs_load(path_in(folder, "net.json"), &loaded));
  ok(gp_graphs_json(loaded, 0, &text));
  text_is(text, json);
  gp_string_free(json);
  gp_graphs_free(loaded);
  gp_graphs_free(graphs);
}

static void check_notes(gp_session *session) {
  char *notes;
  ok(gp_session_note(session, "layer: its inside is not visible"));
  ok(gp_session_note(session, "größe"));
  ok(gp_session_note(session, "layer: its inside is not visible"));
  ok(gp_session_notes(session, &notes));
  text_is(notes, "layer: its inside is not visible\ngröße");
}

/* --- scopes inside each other without end --------------------------------------------------------------------------- */

#define DEEPEST 1000
#define DEEP 20000

/* Opens `depth` scopes inside each other, with an operation in each, and closes them. */
static void nest(gp_session *session, int depth) {
  uint32_t wants;
  ok(gp_run_open(session, net, &wants, NULL));
  for (int i = 0; i < depth; ++i) {
    ok(gp_scope_open(layer, &wants));
    require((wants == 0) == (i >= DEEPEST), "what is wanted so deep");
    if (i % 100 == 0) model_tensor_free(model_tensor_multiply(inputs, inputs));
  }
  for (int i = 0; i < depth; ++i) ok(gp_scope_leave());
  ok(gp_scope_open(layer, &wants));
  require(wants != 0, "the scope after it");
  ok(gp_scope_leave());
  ok(gp_run_end());
}

static void *deep(void *of) {
  gp_session *session = of;
  gp_graphs *graphs;
  char *notes, *tree;
  int found = 0;
  ok(gp_session_record(session, true));
  nest(session, DEEPEST);
  ok(gp_session_notes(session, &notes));
  text_is(notes, "");
  nest(session, DEEP);
  nest(session, DEEP);
  ok(gp_session_notes(session, &notes));
  require(strstr(notes, "more than 1,000 deep") && !strchr(notes, '\n'), "one note");
  gp_string_free(notes);
  ok(gp_session_graphs(session, &graphs));
  ok(gp_graphs_tree(graphs, 0, "", &tree));
  for (const char *at = tree; (at = strstr(at, "layer")); ++at) ++found;
  require(found == DEEPEST + 1, "scopes in the tree");
  gp_string_free(tree);
  gp_graphs_free(graphs);
  return NULL;
}

/* On a thread whose stack is smaller than most threads have. */
static void check_deep(gp_session *session) {
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  require(pthread_attr_setstacksize(&attributes, 2 << 20) == 0, "a stack of 2 MiB");
  require(pthread_create(&thread, &attributes, deep, session) == 0 && pthread_join(thread, NULL) == 0, "a thread");
  pthread_attr_destroy(&attributes);
}

/* --- functions of the user's -------------------------------------------------------------------------------------- */

typedef struct {
  int calls, how;
  int32_t status;
  gp_session *other;
  model_tensor *seen, *given; /* `given` must live until the next call */
} function;

enum { LEAVE, TWICE, ITSELF, OTHER, ONE, RUN };

static int32_t answer(void *user, const void *tensor, const void **replacement) {
  function *f = user;
  uint32_t wants;
  ++f->calls;
  require(*replacement == NULL, "what the function gets");
  model_tensor_free(f->seen);
  model_tensor_free(f->given);
  f->seen = tensor ? model_tensor_at(tensor) : NULL;
  f->given = NULL;
  switch (f->how) {
    case TWICE: f->given = model_tensor_multiply(f->seen, f->seen); break;
    case ITSELF: f->given = model_tensor_at(tensor); break;
    case OTHER: f->given = model_tensor_new(INPUTS, COLUMNS, ROWS, 0); break;
    case ONE: f->given = model_tensor_new(WEIGHTS, 1, COLUMNS, 0); break;
    case RUN: /* the function itself begins runs, and calls operations between them */
      for (int i = 0; i < 2; ++i) {
        ok(gp_run_open(f->other, net, &wants, NULL));
        is(relu(), full(5), "a run inside a function is patched for its session");
        ok(gp_run_end());
        is(relu(), plain(), "an operation of the function's belongs to no run");
      }
      ok(gp_run_open(NULL, net, &wants, NULL)); /* does nothing: no session is attached, and the function is outside of runs */
      ok(gp_run_open(f->other, net, &wants, NULL));
      entered(layer); /* left open: runs and scopes of a function end when it returns */
      break;
    default: break;
  }
  if (f->given) *replacement = model_tensor_impl(f->given);
  return f->status;
}

static uint64_t custom(const gp_session *session, const char *path, const char *slice, function *f) {
  gp_spec *spec;
  ok(gp_spec_new(path, &spec));
  if (slice) ok(gp_spec_slice(spec, slice));
  ok(gp_spec_custom_torch(spec, answer, f));
  return registered(session, spec);
}

/* Runs relu once under the patch. Returns the output as the function leaves it. */
static model_tensor *run_custom(gp_session *session, bool output, gp_status status) {
  uint32_t wants, changed;
  gp_leaf leaf = GP_LEAF_INIT;
  ok(gp_run_open(session, net, &wants, NULL));
  model_tensor *y = relu(), *shown = y;
  const void *impl = y ? model_tensor_impl(y) : NULL;
  if (y && output) {
    refused(status, gp_scope_output("T", &impl, 1, true, &changed));
    if (status == GP_STATUS_OK) {
      ok(gp_scope_leaf(0, &leaf));
      if (leaf.changed) shown = model_tensor_at(leaf.tensor);
    }
    if (shown != y) model_tensor_free(y);
  }
  ok(gp_run_end());
  return shown;
}

static void check_custom(gp_session *session, gp_session *other) {
  function f = {0};
  for (int output = 0; output < 2; ++output) {
    const char *path = output ? "output" : "relu";
    uint64_t id = custom(session, path, NULL, &f);
    f.how = LEAVE, f.calls = 0;
    is(run_custom(session, output, GP_STATUS_OK), plain(), "the function leaves the value alone");
    require(f.calls == 1 && counts(session, id).applied == 1, "it was called once");
    is(model_tensor_add(f.seen, 0), plain(), "with the value");
    f.how = ITSELF;
    is(run_custom(session, output, GP_STATUS_OK), plain(), "the function gives the value itself");
    f.how = TWICE;
    model_tensor *p = plain();
    is(run_custom(session, output, GP_STATUS_OK), model_tensor_multiply(p, p), "the function's own tensor");
    model_tensor_free(p);

    f.how = OTHER;
    is(run_custom(session, output, GP_STATUS_OK), model_tensor_new(INPUTS, COLUMNS, ROWS, 0), "a tensor of another shape");
    f.how = TWICE, f.status = 7;
    model_tensor *y = run_custom(session, output, GP_STATUS_REFUSED);
    require((y == NULL) == !output && counts(session, id).failed == 1, "a failure");
    require(strstr(output ? gp_last_error() : model_error(), "the function returned 7") != NULL, "with its number");
    model_tensor_free(y);
    ok(gp_session_on_error(session, GP_ON_ERROR_SKIP));
    is(run_custom(session, output, GP_STATUS_OK), plain(), "a failure that is skipped");
    ok(gp_session_on_error(session, GP_ON_ERROR_RAISE));
    f.status = 0;
    ok(gp_patch_remove(session, id));

    /* With a slice, the function sees that part of the value, and its result is written there. */
    float values[SIZE];
    model_tensor *bare = plain();
    model_tensor_read(bare, values, SIZE);
    model_tensor_free(bare);
    memcpy(values + 2, WEIGHTS, sizeof WEIGHTS), memcpy(values + 4, WEIGHTS, sizeof WEIGHTS);
    id = custom(session, path, "[1:]", &f);
    f.how = ONE;
    is(run_custom(session, output, GP_STATUS_OK), model_tensor_new(values, ROWS, COLUMNS, 0), "two rows");
    float seen[SIZE];
    require(model_tensor_read(f.seen, seen, SIZE) == 4, "the picked rows are shown");
    ok(gp_patch_remove(session, id));

    /* The function begins runs itself. */
    uint64_t inner = patch(other, "relu=replace:5"), behind = patch(session, "relu_1=replace:6");
    id = custom(session, path, NULL, &f);
    f.how = RUN, f.other = other;
    uint32_t wants;
    ok(gp_run_open(session, net, &wants, NULL));
    y = relu();
    if (output) {
      const void *impl = model_tensor_impl(y);
      ok(gp_scope_output("T", &impl, 1, false, &wants));
    }
    is(y, plain(), "the function ran models and left the value alone");
    is(relu(), full(6), "behind them the run goes on");
    ok(gp_run_end());
    ok(gp_patch_remove(session, id)), ok(gp_patch_remove(session, behind)), ok(gp_patch_remove(other, inner));
  }

  /* The function receives a number as a tensor without dimensions. */
  uint64_t id = custom(session, "layer.rounds", NULL, &f);
  f.how = LEAVE;
  call bare = by_hand(NULL), c = told(session, true);
  same(&c, &bare, "a number that is left alone");
  require(counts(session, id).applied == 1, "once");
  ok(gp_patch_remove(session, id));
  id = custom(session, "layer.options|gain", NULL, &f);
  f.how = TWICE;
  edit squared = {GAIN, 'r', 0.25 * 0.25, -1};
  call expected = by_hand(&squared);
  c = told(session, true);
  same(&c, &expected, "a number that the function made");
  ok(gp_patch_remove(session, id));

  /* The function receives None as NULL and may return a tensor for it. Leaves that are neither tensor nor number nor None
   * cannot be patched. */
  static const char *NOTHING[] = {"N", "T", "S1:a", "O4:Type"};
  const void *none[] = {NULL};
  uint32_t wants, changed;
  gp_leaf leaf = GP_LEAF_INIT;
  id = custom(session, "output", NULL, &f);
  for (int kind = 0; kind < 4; ++kind) {
    for (int how = LEAVE; how <= ONE; how += ONE) {
      f.how = how, f.calls = 0;
      ok(gp_run_open(session, net, &wants, NULL));
      refused(kind < 2 ? GP_STATUS_OK : GP_STATUS_REFUSED, gp_scope_output(NOTHING[kind], none, kind == 1, true, &changed));
      require(f.calls == (kind < 2), NOTHING[kind]);
      if (kind < 2) {
        require(f.seen == NULL && changed == (how == ONE), "a tensor in its place");
        ok(gp_scope_leaf(0, &leaf));
        require(leaf.changed == (how == ONE), "a tensor in its place");
        require(leaf.tensor == (leaf.changed ? model_tensor_impl(f.given) : NULL), "the function's own");
      }
      ok(gp_run_end());
    }
  }
  ok(gp_patch_remove(session, id));

  /* Gradients go through what the function computes. */
  id = custom(session, "relu", NULL, &f);
  f.how = TWICE;
  model_tensor *x = model_tensor_new(INPUTS, ROWS, COLUMNS, 1), *y, *gradient;
  ok(gp_run_open(session, net, &wants, NULL));
  y = model_tensor_relu(x);
  ok(gp_run_end());
  gradient = model_tensor_gradient(y, x);
  model_tensor *p = plain(), *two = full(2);
  is(gradient, model_tensor_multiply(p, two), "the gradient of relu(x) squared");
  model_tensor_free(two);
  model_tensor_free(p);
  model_tensor_free(y);
  model_tensor_free(x);
  ok(gp_patch_remove(session, id));
  model_tensor_free(f.seen);
  model_tensor_free(f.given);
}

/* --- what is refused ---------------------------------------------------------------------------------------------- */

static void check_errors(gp_session *session) {
  static const char *BAD[] = {"",    "X",     "TT",   "NN",   "I;",   "Ix;",    "I99999999999999999999;", "F;",
                              "B;",  "S9:ab", "S1:ö", "(2;N", "{1;N", "{1;1:a", "(99999999999;N",         "(-1;",
                              "T T", "[1;"};
  const char *names[] = {"x", NULL}, *bad[] = {"\xff"};
  const void *tensors[] = {model_tensor_impl(inputs)};
  uint64_t id = patch(session, "x[9]=zero"), second = patch(session, "output|sub_1=zero"),
           third = patch(session, "mul[9]=zero");
  uint32_t wants, changed = 9;
  gp_root *root = NULL;
  gp_scope *scope = NULL;
  gp_leaf leaf = GP_LEAF_INIT;
  char deep[600];

  refused(GP_STATUS_ARGUMENT, gp_root_new("r", "R", names, 2, NULL, 0, false, &root));
  refused(GP_STATUS_ARGUMENT, gp_root_new("r", "R", NULL, 0, bad, 1, false, &root));
  refused(GP_STATUS_ARGUMENT, gp_scope_new("s", "s", "S", names, 2, false, &scope));
  require(root == NULL && scope == NULL, "nothing was made");

  ok(gp_run_open(session, net, &wants, NULL));
  for (size_t i = 0; i < sizeof BAD / sizeof *BAD; ++i) {
    refused(GP_STATUS_PARSE, gp_scope_input(0, BAD[i], tensors, 1, &changed));
    says("structure");
    refused(GP_STATUS_PARSE, gp_scope_output(BAD[i], tensors, 1, true, &changed));
    require(changed == 0, "nothing changed");
  }
  refused(GP_STATUS_PARSE, gp_scope_inputs("(2;TT", tensors, 1, &changed));
  says("more tensors than were given");
  refused(GP_STATUS_ARGUMENT, gp_scope_inputs("T", tensors, 1, &changed));
  says("tuple");
  for (int i = 0; i < 190; ++i) memcpy(deep + 3 * i, "(1;", 3);
  strcpy(deep + 3 * 190, "N");
  refused(GP_STATUS_PARSE, gp_scope_input(0, deep, NULL, 0, &changed));

  /* Patches that cannot be applied: to a shown value, to a value in a container, and to the result of an operation. */
  refused(GP_STATUS_REFUSED, gp_scope_input(0, "T", tensors, 1, &changed));
  says("x[9]=zero");
  says("(3, 2)");
  require(changed == 0, "nothing changed");
  refused(GP_STATUS_REFUSED, gp_scope_output("(1;T", tensors, 1, false, &changed));
  says("no such element");
  refused(GP_STATUS_REFUSED, gp_scope_output("(2;TN", tensors, 1, false, &changed));
  says("is None");
  refused(GP_STATUS_REFUSED, gp_scope_output("(2;TS1:a", tensors, 1, false, &changed));
  says("no patch can keep or change");
  refused(GP_STATUS_REFUSED, gp_scope_output("(2;TO4:Type", tensors, 1, false, &changed));
  refused(GP_STATUS_REFUSED, gp_scope_output("N", NULL, 0, false, &changed));
  require(model_tensor_multiply(inputs, bias) == NULL && strstr(model_error(), "mul[9]=zero"), "an operation throws");
  ok(gp_run_end());
  require(counts(session, id).failed == 1 && counts(session, second).failed == 5, "failures are counted");

  ok(gp_session_on_error(session, GP_ON_ERROR_SKIP));
  ok(gp_run_open(session, net, &wants, NULL));
  ok(gp_scope_input(0, "T", tensors, 1, &changed));
  require(changed == 0, "a failure that is skipped");
  ok(gp_scope_leaf(0, &leaf));
  require(!leaf.changed, "leaves the leaf alone");
  refused(GP_STATUS_ARGUMENT, gp_scope_leaf(1, &leaf));
  refused(GP_STATUS_ARGUMENT, gp_scope_leaf(SIZE_MAX, &leaf));
  ok(gp_scope_input(7, "T", tensors, 1, &changed));
  ok(gp_run_end());
  ok(gp_session_on_error(session, GP_ON_ERROR_RAISE));
  ok(gp_patch_remove(session, id)), ok(gp_patch_remove(session, second)), ok(gp_patch_remove(session, third));

  /* A refused call changes nothing. */
  id = patch(session, "relu=replace:9");
  ok(gp_run_open(session, net, &wants, NULL));
  refused(GP_STATUS_ARGUMENT, gp_scope_open(layer, NULL));
  refused(GP_STATUS_ARGUMENT, gp_scope_script(layer, NULL));
  refused(GP_STATUS_ARGUMENT, gp_run_open(session, net, NULL, NULL));
  refused(GP_STATUS_ARGUMENT, gp_run_snapshot(NULL));
  refused(GP_STATUS_ARGUMENT, gp_scope_output("T", tensors, 1, true, NULL));
  refused(GP_STATUS_ARGUMENT, gp_scope_leaf(0, NULL));
  is(relu(), full(9), "no scope was entered, and no run begun");
  ok(gp_run_end());
  ok(gp_patch_remove(session, id));

  /* Outside a run nothing is shown. */
  ok(gp_scope_input(0, "T", tensors, 1, &changed));
  require(changed == 0, "outside a run nothing changes");
  ok(gp_scope_output("T", tensors, 1, true, &changed));
  refused(GP_STATUS_ARGUMENT, gp_scope_leaf(0, &leaf));
  ok(gp_run_parameters(tensors, 1));
  ok(gp_run_parameters(NULL, 0));
}

/* Runs that name no session belong to the attached session. */
static void check_attached(gp_session *session) {
  const edit two = {MUL, 'r', 2, -1};
  call bare = by_hand(NULL), expected = by_hand(&two), found = told(NULL, true);
  require(found.wants == 0, "nothing is attached");
  uint64_t id = patch(session, "mul=replace:2");
  found = told(NULL, true);
  require(found.wants == 0, "a session that is not attached");
  ok(gp_session_attach(session));
  found = told(NULL, true);
  require(found.wants && found.plan, "attached");
  same(&found, &expected, "the attached session's patch");
  ok(gp_session_note(NULL, "for the attached one"));
  ok(gp_session_source(NULL, NULL, NULL));
  char *notes;
  ok(gp_session_notes(session, &notes));
  text_is(notes, "for the attached one");
  ok(gp_session_detach(session));
  found = told(NULL, true);
  same(&found, &bare, "detached");
  found = told(session, true);
  same(&found, &expected, "a session that is named need not be attached");
  ok(gp_patch_remove(session, id));
}

int main(int argc, char **argv) {
  const char *names[] = {"x"}, *parameters[] = {"weight", "layer.bias"}, *inner[] = {"input", "options", "rounds"};
  gp_session *session, *other;
  require(argc == 2, "usage: host FOLDER");
  inputs = model_tensor_new(INPUTS, ROWS, COLUMNS, 0);
  weight = model_tensor_new(WEIGHTS, 1, COLUMNS, 0);
  bias = model_tensor_new(BIASES, ROWS, COLUMNS, 0);
  shift = model_tensor_new(SHIFTS, ROWS, COLUMNS, 0);

  ok(gp_torch_load());
  ok(gp_torch_load());
  ok(gp_root_new("net", "Net", names, 1, parameters, 2, false, &net));
  ok(gp_scope_new("layer", "layer", "Layer", inner, 3, false, &layer));

  void (*const alone[])(gp_session *) = {check_patches, check_probes, check_structures, check_owned,    check_wants,
                                         check_opaque,  check_notes,  check_errors,     check_attached, check_deep};
  for (size_t i = 0; i < sizeof alone / sizeof *alone; ++i) {
    session = opened();
    alone[i](session);
    gp_session_close(session);
  }
  session = opened();
  check_source(session, argv[1]);
  gp_session_close(session);
  void (*const together[])(gp_session *, gp_session *) = {
      check_nested, check_threads, check_snapshot, check_parts, check_aside, check_custom};
  for (size_t i = 0; i < sizeof together / sizeof *together; ++i) {
    session = opened();
    other = opened();
    together[i](session, other);
    gp_session_close(other);
    gp_session_close(session);
  }
  check_closed();

  gp_scope_free(layer);
  gp_root_free(net);
  model_tensor *all[] = {inputs, weight, bias, shift};
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) model_tensor_free(all[i]);
  puts("all as it must be");
  return 0;
}
