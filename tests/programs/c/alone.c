/* Calls that work in a process without libtorch, and the errors of calls that need it.
 *
 *   alone GRAPH.json FOLDER
 *
 * GRAPH.json is a saved graph of the TupleOutputModule; FOLDER is where files may be written. Ends with status 0 if all
 * is as it must be, and with nothing left allocated. */
#include "check.h"

#include <math.h>

/* Takes over text from the library and compares it. */
static void text_is(char *text, const char *expected) {
  require(strcmp(text, expected) == 0, text);
  gp_string_free(text);
}

static void check_text(void) {
  char *text;
  int64_t elements = -1;
  const int64_t sizes[] = {3, 2};

  require(strlen(gp_version()) >= 5, "the version");
  require(gp_abi_version() == GRAPHPATCH_ABI_VERSION, "the header's ABI is the library's");
  ok(gp_path_parse("layers_0.chunk|sub_1.key", &text));
  text_is(text, "layers_0.chunk|sub_1.key");
  ok(gp_path_parse("a.b", NULL));
  refused(GP_STATUS_PARSE, gp_path_parse("a..b", &text));
  says("at character 2");

  ok(gp_slice_parse("[ 1:, ..., ::2,None ]", &text));
  text_is(text, "[1:, ..., ::2, None]");
  ok(gp_slice_parse("[0]", NULL));
  refused(GP_STATUS_PARSE, gp_slice_parse("[1", NULL));
  refused(GP_STATUS_PARSE, gp_slice_parse("[::0]", NULL));

  ok(gp_slice_check("[-1]", sizes, 2, &elements));
  require(elements == 2, "one row of two");
  ok(gp_slice_check("[::2, 0]", sizes, 2, &elements));
  require(elements == 2, "two of the first column");
  ok(gp_slice_check("[5:]", sizes, 2, &elements));
  require(elements == 0, "rows beyond the end are none");
  ok(gp_slice_check("[...]", NULL, 0, &elements));
  require(elements == 1, "a tensor without dimensions is one element");
  ok(gp_slice_check("[0]", sizes, 1, NULL));
  refused(GP_STATUS_SLICE, gp_slice_check("[3]", sizes, 2, &elements));
  says("(3, 2)");
  refused(GP_STATUS_SLICE, gp_slice_check("[0, 0, 0]", sizes, 2, NULL));
  require(elements == 1, "a refusal writes nothing");
}

/* What is known of the node at a path. */
static gp_node node_at(const gp_graphs *graphs, const char *path) {
  gp_node node = GP_NODE_INIT;
  ok(gp_graphs_node(graphs, 0, path, &node));
  return node;
}

static void check_nodes(const gp_graphs *graphs) {
  gp_node node = node_at(graphs, NULL);
  int64_t smallest[] = {-1, -1, -1}, largest[] = {-1, -1, -1};
  struct {
    size_t size;
    uint32_t kind, value, seen, rank;
    size_t children;
    uint64_t later;
  } grown;

  require(node.kind == GP_NODE_KIND_SCOPE && node.children == 5, "the root");
  require(node.value == 0 && node.seen == 0 && node.rank == 0, "a scope has no value");
  require(node_at(graphs, "linear_1").children == 5, "a scope below it");
  node = node_at(graphs, "x");
  require(node.kind == GP_NODE_KIND_INPUT && node.value == GP_VALUE_KIND_TENSOR && node.rank == 2, "an input");
  require(node.seen == GP_VALUE_KIND_TENSOR && node.children == 0, "a tensor whenever it was seen");
  require(node_at(graphs, "linear.weight").kind == GP_NODE_KIND_PARAMETER, "a parameter");
  require(node_at(graphs, "add").kind == GP_NODE_KIND_OP, "an operation");
  node = node_at(graphs, "output");
  require(node.kind == GP_NODE_KIND_OUTPUT && node.value == GP_VALUE_KIND_TUPLE && node.children == 2, "a tuple");
  node = node_at(graphs, "output|sub_1");
  require(node.kind == GP_NODE_KIND_ELEMENT && node.value == GP_VALUE_KIND_TENSOR && node.rank == 2, "an element");
  refused(GP_STATUS_PATH, gp_graphs_node(graphs, 0, "output|sub_2", &node));
  refused(GP_STATUS_PATH, gp_graphs_node(graphs, 0, "linear|x", &node));
  refused(GP_STATUS_PARSE, gp_graphs_node(graphs, 0, "a..b", &node));
  refused(GP_STATUS_ARGUMENT, gp_graphs_node(graphs, 1, NULL, &node));
  node.size = sizeof(node) - 1;
  refused(GP_STATUS_ARGUMENT, gp_graphs_node(graphs, 0, NULL, &node));
  says("GP_..._INIT");
  memset(&grown, 7, sizeof(grown));
  grown.size = sizeof(grown);
  ok(gp_graphs_node(graphs, 0, "output", (gp_node *)&grown));
  require(grown.children == 2 && grown.later == 0, "a later header's struct");

  ok(gp_graphs_sizes(graphs, 0, "output|sub_1", smallest, largest, 3));
  require(smallest[0] == 3 && smallest[1] == 3 && smallest[2] == -1, "the smallest sizes of two dimensions");
  require(largest[0] == 3 && largest[1] == 3 && largest[2] == -1, "the largest ones");
  ok(gp_graphs_sizes(graphs, 0, "linear", smallest, largest, 3));
  ok(gp_graphs_sizes(graphs, 0, "output", NULL, NULL, 0));
  require(smallest[0] == 3, "what is no tensor has no sizes");
  refused(GP_STATUS_ARGUMENT, gp_graphs_sizes(graphs, 0, "x", smallest, largest, 1));
  says("2 dimensions");
  refused(GP_STATUS_ARGUMENT, gp_graphs_sizes(graphs, 0, "x", smallest, NULL, 2));
  refused(GP_STATUS_PATH, gp_graphs_sizes(graphs, 0, "nothing", smallest, largest, 3));
}

static void check_ways(const gp_graphs *graphs) {
  char *name, *path;

  ok(gp_graphs_child(graphs, 0, NULL, 3, &name, &path));
  text_is(name, "linear_1");
  text_is(path, "linear_1");
  ok(gp_graphs_child(graphs, 0, "linear_0", 1, &name, &path));
  text_is(name, "weight");
  text_is(path, "linear.weight");
  ok(gp_graphs_child(graphs, 0, "output", 1, NULL, &path));
  text_is(path, "output|sub_1");
  refused(GP_STATUS_ARGUMENT, gp_graphs_child(graphs, 0, "output", 2, NULL, &path));
  says("of 2");
  refused(GP_STATUS_ARGUMENT, gp_graphs_child(graphs, 0, "add", 0, NULL, &path));
  refused(GP_STATUS_ARGUMENT, gp_graphs_child(graphs, 0, "output", 0, &name, NULL));
  refused(GP_STATUS_PATH, gp_graphs_child(graphs, 0, "nothing", 0, NULL, &path));

  ok(gp_graphs_find(graphs, 0, NULL, "linear_0.output", &path));
  text_is(path, "linear.output");
  ok(gp_graphs_find(graphs, 0, "linear_1", "bias", &path));
  text_is(path, "linear_1.bias");
  ok(gp_graphs_find(graphs, 0, "", "output.sub_0", &path));
  text_is(path, "output|sub_0");
  ok(gp_graphs_find(graphs, 0, "output", "", &path));
  text_is(path, "output");
  refused(GP_STATUS_PATH, gp_graphs_find(graphs, 0, "linear", "nope", &path));
  says("linear has no node 'nope'; it has input, weight, bias, linear, output");
  refused(GP_STATUS_PATH, gp_graphs_find(graphs, 0, "nothing", "x", &path));
  refused(GP_STATUS_PARSE, gp_graphs_find(graphs, 0, NULL, "a..b", &path));

  ok(gp_graphs_search(graphs, 0, "*.{weight,bias}", NULL, NULL, "3", &path));
  text_is(path, "linear.bias\nlinear_1.bias");
  ok(gp_graphs_search(graphs, 0, NULL, "add", NULL, NULL, &path));
  text_is(path, "add");
  ok(gp_graphs_search(graphs, 0, "nothing.*", NULL, NULL, NULL, &path));
  text_is(path, "");
  refused(GP_STATUS_PARSE, gp_graphs_search(graphs, 0, "a[", NULL, NULL, NULL, &path));
}

static void check_graphs(const char *file, const char *folder) {
  gp_graphs *graphs, *again;
  char *tree, *same, *names;
  const char *good[] = {"linear.output", "linear_0.weight", "output|sub_1"};
  const char *bad[] = {"linear", "add", "linear_1.outptu", "output|sub_2"};

  ok(gp_graphs_load(file, &graphs));
  require(gp_graphs_count(graphs) == 1, "one graph");
  require(strstr(gp_graphs_name(graphs, 0), "TupleOutputModule") != NULL, "its name");
  require(gp_graphs_name(graphs, 1) == NULL, "there is no second one");
  ok(gp_graphs_tree(graphs, 0, "", &tree));
  require(strncmp(tree, "<root>: Graph(5)\n├─x: Tensor(3, 2)\n", 30) == 0, tree);
  ok(gp_graphs_tree(graphs, 0, "linear_1.output", &same));
  text_is(same, "output: Tensor(3, 3)\n");
  refused(GP_STATUS_ARGUMENT, gp_graphs_tree(graphs, 1, NULL, &same));
  refused(GP_STATUS_PATH, gp_graphs_tree(graphs, 0, "linear.nothing", &same));
  refused(GP_STATUS_PARSE, gp_graphs_tree(graphs, 0, "a..b", &same));

  ok(gp_graphs_children(graphs, 0, NULL, &names));
  text_is(names, "x\nlinear\nadd\nlinear_1\noutput");
  ok(gp_graphs_children(graphs, 0, "linear_1", &names));
  text_is(names, "input\nweight\nbias\nlinear\noutput");
  ok(gp_graphs_children(graphs, 0, "add", &names));
  text_is(names, "");
  ok(gp_graphs_children(graphs, 0, "output", &names));
  text_is(names, "sub_0\nsub_1");
  ok(gp_graphs_children(graphs, 0, "output|sub_1", &names));
  text_is(names, "");
  refused(GP_STATUS_PATH, gp_graphs_children(graphs, 0, "nothing", &names));
  refused(GP_STATUS_PATH, gp_graphs_children(graphs, 0, "output|sub_2", &names));
  ok(gp_graphs_shape(graphs, 0, "output", &names));
  text_is(names, "tuple(2)");
  ok(gp_graphs_shape(graphs, 0, "output|sub_1", &names));
  text_is(names, "Tensor(3, 3)");
  refused(GP_STATUS_PATH, gp_graphs_shape(graphs, 0, "linear", &names));
  refused(GP_STATUS_PARSE, gp_graphs_shape(graphs, 0, "a..b", &names));

  check_nodes(graphs);
  check_ways(graphs);

  ok(gp_graphs_complete(graphs, "linear_1.o", &names));
  text_is(names, "linear_1.output");
  ok(gp_graphs_complete(graphs, "output|", &names));
  text_is(names, "output|sub_0\noutput|sub_1");
  ok(gp_graphs_complete(graphs, "no such", &names));
  text_is(names, "");

  ok(gp_graphs_check(graphs, good, 3));
  ok(gp_graphs_check(graphs, NULL, 0));
  refused(GP_STATUS_PATH, gp_graphs_check(graphs, bad, 4));
  says("linear_1.output");
  require(strstr(gp_last_error(), "outptu") && strstr(gp_last_error(), "sub_2"), "all bad paths in one message");

  ok(gp_graphs_save(graphs, path_in(folder, "again.json")));
  ok(gp_graphs_load(path_in(folder, "again.json"), &again));
  ok(gp_graphs_tree(again, 0, NULL, &same));
  text_is(same, tree);
  gp_string_free(tree);
  gp_graphs_free(again);

  refused(GP_STATUS_FILE, gp_graphs_load(path_in(folder, "none.json"), &again));
  says("none.json");
  refused(GP_STATUS_FILE, gp_graphs_save(graphs, path_in(folder, "no/such/folder.json")));
  write_file(path_in(folder, "foreign.json"), "{\"format\": \"other\"}", 19);
  refused(GP_STATUS_FORMAT, gp_graphs_load(path_in(folder, "foreign.json"), &again));
  says("foreign.json");
  gp_graphs_free(graphs);
}

/* Passes a tensor that must be refused. Its deleter must still be called exactly once. */
static void refused_tensor(DLManagedTensorVersioned *tensor, const char *why) {
  gp_value *value;
  int before = deleted;
  refused(GP_STATUS_REFUSED, gp_value_dlpack(tensor, false, &value));
  require(strstr(gp_last_error(), why) != NULL, why);
  require(deleted == before, "a borrowed tensor stays");
  refused(GP_STATUS_REFUSED, gp_value_dlpack(tensor, true, &value));
  require(deleted == before + 1, "a refused tensor that was handed over is ended");
}

static DLManagedTensorVersioned *floats(void) {
  static const float data[] = {1, 2, 3, 4, 5, 6};
  return new_tensor(DL_FLOAT, 32, data, 3, 2);
}

static void check_dlpack(void) {
  gp_value *value;
  DLManagedTensorVersioned *tensor = floats();
  int64_t strides[] = {1, 3};
  double number = 2.5;

  ok(gp_value_dlpack(tensor, false, &value));
  gp_value_free(value);
  tensor->dl_tensor.strides = strides;
  ok(gp_value_dlpack(tensor, false, &value));
  gp_value_free(value);
  require(deleted == 0, "a borrowed tensor stays");
  ok(gp_value_dlpack(tensor, true, &value));
  require(deleted == 1, "a tensor that was handed over is ended before the call returns");
  gp_value_free(value);
  ok(gp_value_dlpack(new_tensor(DL_FLOAT, 64, &number, 0, 0), true, &value));
  gp_value_free(value);
  tensor = floats();
  refused(GP_STATUS_ARGUMENT, gp_value_dlpack(tensor, true, NULL));
  require(deleted == 3, "also when there is no place for the answer");
  tensor = floats();
  tensor->deleter = NULL;
  ok(gp_value_dlpack(tensor, true, &value));
  gp_value_free(value);
  delete_own(tensor);
  tensor = floats();
  tensor->dl_tensor.shape[0] = 0;
  ok(gp_value_dlpack(tensor, true, &value));
  gp_value_free(value);

  tensor = floats();
  tensor->version.major = 2;
  refused_tensor(tensor, "version 2");
  tensor = floats();
  tensor->dl_tensor.device.device_type = DL_CUDA;
  refused_tensor(tensor, "gp_value_torch");
  tensor = floats();
  tensor->dl_tensor.dtype.lanes = 4;
  refused_tensor(tensor, "4 lanes");
  tensor = floats();
  tensor->dl_tensor.dtype.code = 77;
  refused_tensor(tensor, "code 77");
  tensor = floats();
  tensor->dl_tensor.shape[1] = -2;
  refused_tensor(tensor, "-2");
}

/* Tensors that no producer should make, and one that is valid but larger than any memory: all of them are refused. */
static void check_hostile_dlpack(void) {
  DLManagedTensorVersioned *tensor = floats();
  int64_t zero[] = {0, 0};
  void *data;

  tensor->dl_tensor.ndim = -1;
  refused_tensor(tensor, "-1");
  tensor = floats();
  tensor->dl_tensor.shape = NULL;
  refused_tensor(tensor, "shape");
  tensor = floats();
  data = tensor->dl_tensor.data;
  tensor->dl_tensor.data = NULL;
  refused_tensor(tensor, "data");
  free(data);
  tensor = floats();
  tensor->dl_tensor.shape[0] = (int64_t)1 << 54;
  tensor->dl_tensor.strides = zero;
  refused_tensor(tensor, "");
}

static void check_values_and_specs(gp_session *session, const char *folder) {
  const float delta[] = {1, 2, 3, 4, 5, 6};
  const int64_t indices[] = {0, -1};
  const char *texts[] = {"3", "-0.5", "true", "1+2j", "inf"};
  gp_value *value;
  gp_spec *spec;
  uint64_t id;
  char at_file[4200];

  for (size_t i = 0; i < sizeof texts / sizeof *texts; ++i) {
    ok(gp_value_text(texts[i], &value));
    gp_value_free(value);
  }
  ok(gp_value_int(INT64_MIN, &value));
  gp_value_free(value);
  ok(gp_value_float(HUGE_VAL, &value));
  gp_value_free(value);
  refused(GP_STATUS_PARSE, gp_value_text("three", &value));
  refused(GP_STATUS_PARSE, gp_value_text("@delta.txt", &value));
  snprintf(at_file, sizeof at_file, "@%s", path_in(folder, "new.npy"));
  remove(at_file + 1);
  refused(GP_STATUS_FILE, gp_value_text(at_file, &value));
  write_file(at_file + 1, "no array", 8);
  refused(GP_STATUS_FORMAT, gp_value_text(at_file, &value));
  snprintf(at_file, sizeof at_file, "@%s", path_in(folder, "delta.npy"));
  write_npy(at_file + 1, delta, 3, 2);
  ok(gp_value_text(at_file, &value));
  DLManagedTensorVersioned *read;
  ok(gp_value_tensor(value, &read));
  require((read->flags & DL_READ_ONLY) && read->dl_tensor.ndim == 2 && read->dl_tensor.shape[0] == 3, "the file's sizes");
  require(memcmp(read->dl_tensor.data, delta, sizeof delta) == 0, "the file's numbers");
  end_tensor(read);
  gp_value *plain;
  ok(gp_value_int(1, &plain));
  refused(GP_STATUS_REFUSED, gp_value_tensor(plain, &read));
  says("a number is no tensor");
  gp_value_free(plain);

  refused(GP_STATUS_PARSE, gp_spec_new("a..b", &spec));
  ok(gp_spec_new("linear.output", &spec));
  ok(gp_spec_zero(spec));
  ok(gp_patch_register(session, spec, &id));
  ok(gp_spec_add(spec, value));
  ok(gp_spec_replace(spec, value));
  gp_value_free(value);
  ok(gp_spec_index(spec, -1));
  ok(gp_spec_slice(spec, "[..., ::2]"));
  refused(GP_STATUS_PARSE, gp_spec_slice(spec, "[::"));
  ok(gp_spec_index_tensor(spec, new_tensor(DL_INT, 64, indices, 2, 0), true));
  int before = deleted;
  refused(GP_STATUS_REFUSED, gp_spec_index_tensor(spec, floats(), true));
  says("float32");
  refused(GP_STATUS_ARGUMENT, gp_spec_index_tensor(NULL, floats(), true));
  require(deleted == before + 2, "a refused index that was handed over is ended");
  ok(gp_spec_runs(spec, "2.."));
  refused(GP_STATUS_PARSE, gp_spec_runs(spec, "4..4"));
  ok(gp_spec_this_thread(spec, true));
  ok(gp_patch_register(session, spec, &id));
  ok(gp_spec_probe(spec));
  refused(GP_STATUS_ARGUMENT, gp_patch_register(session, spec, &id));
  says("whole values");
  ok(gp_spec_record(spec, 3));
  refused(GP_STATUS_ARGUMENT, gp_patch_register(session, spec, &id));
  gp_spec_free(spec);
}

static int32_t never(void *user, DLManagedTensorVersioned *value, DLManagedTensorVersioned **replacement) {
  (void)user, (void)value, (void)replacement;
  return 1;
}

static int released;

static void release(void *user) {
  require(user == &released, "what is released is the function's");
  ++released;
}

/* Several specs are registered together or not at all. A function's `user` is released when the last patch and spec that need
 * it are gone. */
static void check_all_at_once(gp_session *session) {
  gp_spec *good, *function, *bad[2];
  uint64_t ids[2];
  gp_patch_counts counts = GP_PATCH_COUNTS_INIT;
  ok(gp_spec_new("linear.output", &good));
  ok(gp_spec_new("nowhere", &bad[0]));
  ok(gp_spec_new("linear.nothing", &bad[1]));
  ok(gp_spec_new("add", &function));
  refused(GP_STATUS_ARGUMENT, gp_spec_release(function, release));
  says("calls no function");
  ok(gp_spec_custom(function, never, &released));
  ok(gp_spec_release(function, release));
  refused(GP_STATUS_ARGUMENT, gp_spec_release(function, release));

  const gp_spec *both[] = {good, function};
  ok(gp_patch_register_all(session, NULL, 0, NULL));
  ok(gp_patch_register_all(session, both, 2, ids));
  require(ids[0] != 0 && ids[1] > ids[0], "in order");
  gp_spec_free(good);
  gp_spec_free(function);
  require(released == 0, "a patch needs the function still");
  ok(gp_patch_remove_all(session, ids, 2));
  require(released == 1, "now nobody does");
  refused(GP_STATUS_STATE, gp_patch_remove_all(session, ids, 2));
  ok(gp_patch_remove_all(session, NULL, 0));
  refused(GP_STATUS_STATE, gp_patch_get_counts(session, ids[0], &counts));
  gp_spec_free(bad[0]);
  gp_spec_free(bad[1]);
}

/* Structs of other sizes, as in headers of other versions. */
static void check_sizes(gp_session *session, uint64_t id) {
  struct {
    gp_patch_counts known;
    uint64_t later, behind;
  } counts = {{offsetof(gp_patch_counts, failed), 9, 9, 9, 9}, 9, 9};
  gp_leaf leaf = {0, false, 0, NULL, 0, 0};

  refused(GP_STATUS_ARGUMENT, gp_patch_get_counts(session, id, &counts.known));
  says("sizeof");
  require(counts.known.matched == 9, "nothing is written into a struct that is too small");
  counts.known.size = sizeof counts.known + sizeof counts.later;
  ok(gp_patch_get_counts(session, id, &counts.known));
  require(counts.known.failed == 0 && counts.later == 0, "a later header's member is zeroed");
  require(counts.behind == 9, "nothing is written behind the struct");
  require(counts.known.size == sizeof counts.known + sizeof counts.later, "its size stays");
  refused(GP_STATUS_ARGUMENT, gp_scope_leaf(0, &leaf));
  says("sizeof");
}

static void check_session(gp_session *session, const char *folder) {
  gp_spec *spec;
  gp_graphs *graphs;
  gp_patch_counts counts = {sizeof counts, 9, 9, 9, 9};
  DLManagedTensorVersioned *tensor;
  uint64_t outer, inner, a, b, c, count = 9, dropped = 9;
  char *text;
  size_t n;
  int nothing;

  ok(gp_session_record(session, true));
  ok(gp_session_inside(session, "attention", true));
  ok(gp_session_inside(session, "attention", false));
  refused(GP_STATUS_ARGUMENT, gp_session_inside(session, "softmax", true));
  says("attention");
  ok(gp_session_on_error(session, GP_ON_ERROR_SKIP));
  refused(GP_STATUS_ARGUMENT, gp_session_on_error(session, 2));
  ok(gp_session_runs(session, &count));
  require(count == 0, "no runs");
  ok(gp_session_notes(session, &text));
  text_is(text, "");
  ok(gp_session_graphs(session, &graphs));
  require(gp_graphs_count(graphs) == 0, "no graphs");
  gp_graphs_free(graphs);

  ok(gp_set_begin(session, &outer));
  ok(gp_patch_add(session, "linear.output=zero", &a));
  ok(gp_set_begin(session, &inner));
  ok(gp_spec_new("linear.output", &spec));
  ok(gp_spec_custom(spec, never, NULL));
  ok(gp_patch_register(session, spec, &b));
  ok(gp_spec_probe(spec));
  ok(gp_patch_register(session, spec, &c));
  gp_spec_free(spec);
  ok(gp_patch_enable(session, a, false));
  ok(gp_patch_enable(session, a, true));
  ok(gp_patch_get_counts(session, b, &counts));
  require(counts.matched == 0 && counts.applied == 0 && counts.failed == 0, "nothing has run");
  check_sizes(session, b);
  ok(gp_patch_last_error(session, b, &text));
  text_is(text, "");
  ok(gp_kept_count(session, c, &count, &dropped));
  require(count == 0 && dropped == 0, "nothing was kept");
  refused(GP_STATUS_ARGUMENT, gp_kept_tensor(session, c, 0, &tensor));
  refused(GP_STATUS_STATE, gp_kept_tensor(session, a, 0, &tensor));
  ok(gp_kept_save(session, path_in(folder, "kept.safetensors")));
  free(read_file(path_in(folder, "kept.safetensors"), &n));
  require(n > 8, "a file without tensors");
  refused(GP_STATUS_FILE, gp_kept_save(session, path_in(folder, "no/such/folder.safetensors")));
  ok(gp_set_end(session, outer));
  refused(GP_STATUS_STATE, gp_set_end(session, inner));
  refused(GP_STATUS_STATE, gp_set_end(session, outer));
  refused(GP_STATUS_STATE, gp_patch_get_counts(session, a, &counts));
  refused(GP_STATUS_STATE, gp_patch_enable(session, b, true));
  refused(GP_STATUS_STATE, gp_patch_remove(session, c));
  refused(GP_STATUS_STATE, gp_kept_count(session, c, &count, NULL));
  ok(gp_patch_add(session, "linear.output=record:2", &a));
  ok(gp_patch_remove(session, a));
  check_all_at_once(session);

  require(!gp_runs_wanted(), "no session is attached");
  refused(GP_STATUS_TORCH, gp_session_attach(session));
  says("libtorch");
  refused(GP_STATUS_TORCH, gp_value_torch(&nothing, (gp_value **)&text));
  ok(gp_run_decline(true)), ok(gp_run_decline(false)), ok(gp_run_decline(false));
  refused(GP_STATUS_TORCH, gp_run_begin("model"));
  refused(GP_STATUS_TORCH, gp_scope_enter("layers.0"));
  refused(GP_STATUS_TORCH, gp_scope_leave());
  refused(GP_STATUS_TORCH, gp_run_end());
  ok(gp_session_detach(session));

  ok(gp_session_note(session, "a note"));
  ok(gp_session_note(session, "größe"));
  ok(gp_session_note(session, "a note"));
  ok(gp_session_notes(session, &text));
  text_is(text, "a note\ngröße");
}

static int32_t no_tensor(void *user, const void *tensor, const void **replacement) {
  (void)user, (void)tensor, (void)replacement;
  return 1;
}

static void no_place(void *user, gp_frames *frames) {
  (void)user, (void)frames;
}

/* The calls by which a program reports its modules, in a process in which no session wants to know. */
static void check_host(gp_session *session) {
  const char *names[] = {"x", "mask"}, *parameters[] = {"layers.0.weight"};
  const void *tensors[] = {NULL};
  gp_root *root;
  gp_scope *scope;
  gp_snapshot *snapshot;
  gp_spec *spec;
  gp_leaf leaf = GP_LEAF_INIT;
  char *paths;
  bool fits = true;
  uint32_t number = 9;
  uint64_t plan = 9, id;

  refused(GP_STATUS_TORCH, gp_torch_load());
  says("libtorch");
  ok(gp_root_new("model", "my.Model", names, 2, parameters, 1, false, &root));
  ok(gp_scope_new("layers.0", "layers.0", "my.Layer", NULL, 0, true, &scope));
  ok(gp_session_record(session, true));
  refused(GP_STATUS_TORCH, gp_run_open(NULL, root, &number, &plan));
  refused(GP_STATUS_TORCH, gp_run_open(session, root, &number, NULL));
  require(number == 0, "nothing is wanted");
  refused(GP_STATUS_TORCH, gp_run_parameters(tensors, 1));
  refused(GP_STATUS_TORCH, gp_run_snapshot(&snapshot));
  refused(GP_STATUS_TORCH, gp_run_named(&paths));
  refused(GP_STATUS_TORCH, gp_run_patched(&fits, &paths));
  refused(GP_STATUS_TORCH, gp_run_computes("add\nlinear", &fits));
  require(!fits, "no run is open");
  refused(GP_STATUS_TORCH, gp_live_start(NULL));
  ok(gp_live_stop());
  refused(GP_STATUS_TORCH, gp_scope_open(scope, &number));
  refused(GP_STATUS_TORCH, gp_scope_script(scope, &number));
  refused(GP_STATUS_TORCH, gp_scope_unwind(0));
  refused(GP_STATUS_TORCH, gp_scope_input(0, "T", tensors, 1, &number));
  refused(GP_STATUS_TORCH, gp_scope_inputs("(1;N", NULL, 0, &number));
  refused(GP_STATUS_TORCH, gp_scope_output("T", tensors, 1, true, &number));
  refused(GP_STATUS_TORCH, gp_scope_leaf(0, &leaf));
  ok(gp_session_source(session, no_place, NULL));
  ok(gp_session_source(session, NULL, NULL));
  refused(GP_STATUS_STATE, gp_session_note(NULL, "nobody is attached"));
  refused(GP_STATUS_STATE, gp_session_source(NULL, no_place, NULL));
  gp_scope_free(scope);
  gp_root_free(root);

  ok(gp_spec_new("x", &spec));
  ok(gp_spec_custom_torch(spec, no_tensor, NULL));
  ok(gp_patch_register(session, spec, &id));
  ok(gp_patch_remove(session, id));
  gp_spec_free(spec);
}

#define null(call) refused(GP_STATUS_ARGUMENT, call)

/* Passes NULL for every pointer of every call. */
static void check_null(gp_session *session, const char *file) {
  gp_graphs *graphs;
  gp_spec *spec;
  gp_value *value;
  gp_patch_counts counts = GP_PATCH_COUNTS_INIT;
  DLManagedTensorVersioned *tensor;
  const char *paths[] = {"linear.output", NULL};
  uint64_t id, set;
  char *text;

  ok(gp_graphs_load(file, &graphs));
  ok(gp_spec_new("x", &spec));
  ok(gp_value_int(1, &value));
  ok(gp_patch_add(session, "x=probe", &id));

  gp_string_free(NULL);
  gp_session_close(NULL);
  gp_graphs_free(NULL);
  gp_value_free(NULL);
  gp_spec_free(NULL);
  require(gp_graphs_count(NULL) == 0 && gp_graphs_name(NULL, 0) == NULL, "NULL graphs are none");

  null(gp_session_open(NULL));
  says("out");
  null(gp_session_attach(NULL));
  null(gp_session_detach(NULL));
  refused(GP_STATUS_STATE, gp_session_inside(NULL, "attention", true));
  null(gp_session_inside(session, NULL, true));
  refused(GP_STATUS_STATE, gp_session_record(NULL, true)); // NULL is the attached session, and there is none
  null(gp_session_on_error(NULL, 0));
  null(gp_session_runs(NULL, &id)), null(gp_session_runs(session, NULL));
  null(gp_session_notes(NULL, &text)), null(gp_session_notes(session, NULL));
  null(gp_session_graphs(NULL, &graphs)), null(gp_session_graphs(session, NULL));
  null(gp_graphs_load(NULL, &graphs)), null(gp_graphs_load(file, NULL));
  null(gp_graphs_save(NULL, file)), null(gp_graphs_save(graphs, NULL));
  null(gp_graphs_tree(NULL, 0, NULL, &text)), null(gp_graphs_tree(graphs, 0, NULL, NULL));
  null(gp_graphs_children(NULL, 0, NULL, &text)), null(gp_graphs_children(graphs, 0, NULL, NULL));
  null(gp_graphs_shape(NULL, 0, "x", &text)), null(gp_graphs_shape(graphs, 0, NULL, &text));
  null(gp_graphs_shape(graphs, 0, "x", NULL));
  null(gp_graphs_complete(NULL, "", &text)), null(gp_graphs_complete(graphs, NULL, &text));
  null(gp_graphs_complete(graphs, "", NULL));
  null(gp_graphs_check(NULL, paths, 1)), null(gp_graphs_check(graphs, NULL, 1)), null(gp_graphs_check(graphs, paths, 2));
  null(gp_path_parse(NULL, &text));
  null(gp_slice_parse(NULL, &text));
  null(gp_slice_check(NULL, NULL, 0, NULL)), null(gp_slice_check("[0]", NULL, 1, NULL));
  null(gp_value_text(NULL, &value)), null(gp_value_text("1", NULL));
  null(gp_value_int(1, NULL));
  null(gp_value_float(1, NULL));
  null(gp_value_dlpack(NULL, true, &value)), null(gp_value_dlpack(NULL, false, &value));
  null(gp_value_tensor(NULL, &tensor)), null(gp_value_tensor(value, NULL));
  null(gp_spec_new(NULL, &spec)), null(gp_spec_new("x", NULL));
  null(gp_spec_slice(NULL, "[0]")), null(gp_spec_slice(spec, NULL));
  null(gp_spec_index(NULL, 0));
  null(gp_spec_index_tensor(spec, NULL, true)), null(gp_spec_index_tensor(spec, NULL, false));
  null(gp_spec_zero(NULL));
  null(gp_spec_add(NULL, value)), null(gp_spec_add(spec, NULL));
  null(gp_spec_replace(NULL, value)), null(gp_spec_replace(spec, NULL));
  null(gp_spec_probe(NULL));
  null(gp_spec_record(NULL, 0));
  null(gp_spec_custom(NULL, never, NULL)), null(gp_spec_custom(spec, NULL, NULL));
  null(gp_spec_release(NULL, release)), null(gp_spec_release(spec, NULL));
  null(gp_spec_runs(NULL, "0")), null(gp_spec_runs(spec, NULL));
  null(gp_spec_this_thread(NULL, true));
  null(gp_patch_register(NULL, spec, &set)), null(gp_patch_register(session, NULL, &set));
  null(gp_patch_register(session, spec, NULL));
  const gp_spec *one = spec, *none = NULL;
  null(gp_patch_register_all(NULL, &one, 1, &set)), null(gp_patch_register_all(session, NULL, 1, &set));
  null(gp_patch_register_all(session, &one, 1, NULL)), null(gp_patch_register_all(session, &none, 1, &set));
  null(gp_patch_remove_all(NULL, &set, 1)), null(gp_patch_remove_all(session, NULL, 1));
  require(gp_callback_fail(NULL) == 1, "nothing to say is a failure too");
  null(gp_patch_add(NULL, "x=zero", &set)), null(gp_patch_add(session, NULL, &set));
  null(gp_patch_add(session, "x=zero", NULL));
  null(gp_patch_remove(NULL, id));
  null(gp_patch_enable(NULL, id, true));
  null(gp_set_begin(NULL, &set)), null(gp_set_begin(session, NULL));
  null(gp_set_end(NULL, 0));
  null(gp_patch_get_counts(NULL, id, &counts)), null(gp_patch_get_counts(session, id, NULL));
  null(gp_patch_last_error(NULL, id, &text)), null(gp_patch_last_error(session, id, NULL));
  null(gp_kept_count(NULL, id, &set, &set)), null(gp_kept_count(session, id, NULL, &set));
  null(gp_kept_tensor(NULL, id, 0, &tensor)), null(gp_kept_tensor(session, id, 0, NULL));
  null(gp_kept_save(NULL, file)), null(gp_kept_save(session, NULL));
  null(gp_cuda_status(NULL));
  null(gp_cuda_prepare(NULL, 0));
  null(gp_spec_live(NULL, true));
  null(gp_spec_keep_on_device(NULL, true)), null(gp_spec_keep_on_device(spec, true));
  null(gp_patch_set_value(NULL, id, value)), null(gp_patch_set_value(session, id, NULL));
  null(gp_run_begin(NULL));
  null(gp_scope_enter(NULL));

  gp_root *root;
  gp_scope *scope;
  bool fits;
  char *patched;
  uint32_t number;
  gp_root_free(NULL);
  gp_scope_free(NULL);
  gp_snapshot_free(NULL);
  gp_aside_free(NULL);
  null(gp_calls_set_aside(NULL)), ok(gp_calls_take_up(NULL));
  null(gp_session_note(session, NULL));
  null(gp_frames_add(NULL, "x.c", 1, "x", "x"));
  null(gp_graphs_code(NULL, 0, NULL, &text)), null(gp_graphs_code(graphs, 0, NULL, NULL));
  null(gp_graphs_json(NULL, 0, &text)), null(gp_graphs_json(graphs, 0, NULL)), null(gp_graphs_json(graphs, 1, &text));
  null(gp_spec_custom_torch(NULL, no_tensor, NULL)), null(gp_spec_custom_torch(spec, NULL, NULL));
  null(gp_root_new(NULL, "R", NULL, 0, NULL, 0, false, &root)), null(gp_root_new("r", NULL, NULL, 0, NULL, 0, false, &root));
  null(gp_root_new("r", "R", NULL, 1, NULL, 0, false, &root)), null(gp_root_new("r", "R", NULL, 0, NULL, 1, false, &root));
  null(gp_root_new("r", "R", NULL, 0, NULL, 0, false, NULL)), null(gp_root_new("r", "R", paths, 2, NULL, 0, false, &root));
  null(gp_scope_new(NULL, "s", "S", NULL, 0, false, &scope)), null(gp_scope_new("s", NULL, "S", NULL, 0, false, &scope));
  null(gp_scope_new("s", "s", NULL, NULL, 0, false, &scope)), null(gp_scope_new("s", "s", "S", NULL, 1, false, &scope));
  null(gp_scope_new("s", "s", "S", NULL, 0, false, NULL));
  ok(gp_root_new("r", "R", NULL, 0, NULL, 0, false, &root));
  ok(gp_scope_new("s", "s", "S", NULL, 0, false, &scope));
  null(gp_run_open(session, NULL, &number, NULL)), null(gp_run_open(session, root, NULL, NULL));
  null(gp_run_parameters(NULL, 1));
  null(gp_run_snapshot(NULL));
  null(gp_run_named(NULL)), null(gp_run_patched(NULL, &patched)), null(gp_run_patched(&fits, NULL));
  null(gp_run_computes(NULL, &fits)), null(gp_run_computes("add", NULL));
  null(gp_run_resume(NULL, false, &number, NULL));
  null(gp_scope_open(NULL, &number)), null(gp_scope_open(scope, NULL));
  null(gp_scope_script(NULL, &number)), null(gp_scope_script(scope, NULL));
  null(gp_scope_input(0, NULL, NULL, 0, &number)), null(gp_scope_input(0, "T", NULL, 1, &number));
  null(gp_scope_input(0, "N", NULL, 0, NULL));
  null(gp_scope_inputs(NULL, NULL, 0, &number)), null(gp_scope_inputs("(1;T", NULL, 1, &number));
  null(gp_scope_inputs("(1;N", NULL, 0, NULL));
  null(gp_scope_output(NULL, NULL, 0, false, &number)), null(gp_scope_output("T", NULL, 1, false, &number));
  null(gp_scope_output("N", NULL, 0, false, NULL));
  gp_scope_free(scope);
  gp_root_free(root);

  null(gp_path_parse("\xff", NULL));
  says("UTF-8");

  gp_value_free(value);
  gp_spec_free(spec);
  gp_graphs_free(graphs);
}

/* Checks of CUDA that need no card; tests/gpu has the others. */
static void check_cuda(gp_session *session) {
  gp_value *value;
  gp_spec *spec;
  char *status;
  uint64_t id;

  ok(gp_cuda_status(&status));
  if (strncmp(status, "not usable: ", 12) == 0) {
    refused(GP_STATUS_STATE, gp_cuda_prepare(session, 0));
    require(strcmp(gp_last_error(), status + 12) == 0, status);
  } else {
    require(strstr(status, "driver for CUDA") != NULL, status);
  }
  gp_string_free(status);

  ok(gp_spec_new("x", &spec));
  ok(gp_value_int(1, &value));
  ok(gp_spec_add(spec, value));
  ok(gp_spec_live(spec, true));
  ok(gp_patch_register(session, spec, &id));
  ok(gp_patch_set_value(session, id, value));
  ok(gp_patch_enable(session, id, false));
  ok(gp_patch_remove(session, id));
  refused(GP_STATUS_STATE, gp_patch_set_value(session, id, value));
  ok(gp_spec_zero(spec));
  ok(gp_patch_register(session, spec, &id));
  refused(GP_STATUS_REFUSED, gp_patch_set_value(session, id, value));
  says("no value");
  ok(gp_patch_remove(session, id));
  ok(gp_spec_probe(spec));
  ok(gp_spec_keep_on_device(spec, true));
  ok(gp_patch_register(session, spec, &id));
  ok(gp_patch_remove(session, id));
  gp_value_free(value);
  gp_spec_free(spec);
}

int main(int argc, char **argv) {
  gp_session *session;
  require(argc == 3, "usage: alone GRAPH.json FOLDER");
  require(strcmp(gp_last_error(), "") == 0, "no error at first");
  ok(gp_session_open(&session));
  check_text();
  check_graphs(argv[1], argv[2]);
  check_dlpack();
  check_hostile_dlpack();
  check_values_and_specs(session, argv[2]);
  check_session(session, argv[2]);
  check_host(session);
  check_cuda(session);
  check_null(session, argv[1]);
  gp_session_close(session);
  puts("all as it must be");
  return 0;
}
