/* Objects used in every wrong way: after their end, twice freed, as another type, made up, and by two threads at once.
 *
 *   handles GRAPH.json
 *
 * GRAPH.json is a saved graph. Needs no libtorch. Ends with status 0 if each wrong use was refused with the right words, and
 * every object that lives works on. */
#include "check.h"

#include <pthread.h>

typedef struct {
  gp_session *session;
  gp_graphs *graphs;
  gp_spec *spec;
  gp_value *value;
  gp_root *root;
  gp_scope *scope;
} objects;

static objects all_new(const char *graph) {
  objects made;
  ok(gp_session_open(&made.session));
  ok(gp_graphs_load(graph, &made.graphs));
  ok(gp_spec_new("linear.output", &made.spec));
  ok(gp_value_int(1, &made.value));
  ok(gp_root_new("r", "R", NULL, 0, NULL, 0, false, &made.root));
  ok(gp_scope_new("s", "s", "S", NULL, 0, false, &made.scope));
  return made;
}

static void free_all(objects old) {
  gp_session_close(old.session);
  gp_graphs_free(old.graphs);
  gp_spec_free(old.spec);
  gp_value_free(old.value);
  gp_root_free(old.root);
  gp_scope_free(old.scope);
}

static int called(void *user, DLManagedTensorVersioned *value, DLManagedTensorVersioned **replacement) {
  (void)user, (void)value, (void)replacement;
  return 0;
}

#define bad(call)                                                                                                              \
  (refused(GP_STATUS_ARGUMENT, call), check_that(__FILE__, __LINE__, strstr(gp_last_error(), words) != NULL, words))

/* Makes each call that takes objects, with a bad object in each place in turn; the other places get live ones from `good`. */
static void each_call_refuses(objects wrong, objects good, const char *words) {
  char *text;
  uint64_t number;
  uint32_t wants;
  gp_graphs *graphs;
  gp_node node = GP_NODE_INIT;
  gp_patch_counts counts = GP_PATCH_COUNTS_INIT;
  DLManagedTensorVersioned *tensor;
  const char *path = "linear.output";
  const gp_spec *specs[] = {good.spec, wrong.spec};
  uint64_t ids[2];

  bad(gp_session_attach(wrong.session)), bad(gp_session_detach(wrong.session));
  bad(gp_session_record(wrong.session, true)), bad(gp_session_on_error(wrong.session, 0));
  bad(gp_session_runs(wrong.session, &number)), bad(gp_session_note(wrong.session, "note"));
  bad(gp_session_notes(wrong.session, &text)), bad(gp_session_graphs(wrong.session, &graphs));
  bad(gp_session_source(wrong.session, NULL, NULL));
  bad(gp_patch_add(wrong.session, "linear.output=zero", &number)), bad(gp_patch_remove(wrong.session, 1));
  bad(gp_patch_remove_all(wrong.session, ids, 0)), bad(gp_patch_enable(wrong.session, 1, true));
  bad(gp_patch_get_counts(wrong.session, 1, &counts)), bad(gp_patch_last_error(wrong.session, 1, &text));
  bad(gp_patch_register(wrong.session, good.spec, &number)), bad(gp_patch_register(good.session, wrong.spec, &number));
  bad(gp_patch_register_all(wrong.session, specs, 1, ids)), bad(gp_patch_register_all(good.session, specs, 2, ids));
  bad(gp_patch_set_value(wrong.session, 1, good.value)), bad(gp_patch_set_value(good.session, 1, wrong.value));
  bad(gp_set_begin(wrong.session, &number)), bad(gp_set_end(wrong.session, 0));
  bad(gp_kept_count(wrong.session, 1, &number, NULL)), bad(gp_kept_tensor(wrong.session, 1, 0, &tensor));
  bad(gp_kept_save(wrong.session, "never-written")), bad(gp_cuda_prepare(wrong.session, 0));

  bad(gp_graphs_save(wrong.graphs, "never-written")), bad(gp_graphs_tree(wrong.graphs, 0, NULL, &text));
  bad(gp_graphs_children(wrong.graphs, 0, NULL, &text)), bad(gp_graphs_shape(wrong.graphs, 0, path, &text));
  bad(gp_graphs_code(wrong.graphs, 0, NULL, &text)), bad(gp_graphs_json(wrong.graphs, 0, &text));
  bad(gp_graphs_complete(wrong.graphs, "", &text)), bad(gp_graphs_check(wrong.graphs, &path, 1));
  bad(gp_graphs_node(wrong.graphs, 0, NULL, &node)), bad(gp_graphs_sizes(wrong.graphs, 0, NULL, NULL, NULL, 0));
  bad(gp_graphs_child(wrong.graphs, 0, NULL, 0, NULL, &text)), bad(gp_graphs_find(wrong.graphs, 0, NULL, path, &text));
  bad(gp_graphs_search(wrong.graphs, 0, NULL, NULL, NULL, NULL, &text));
  require(gp_graphs_count(wrong.graphs) == 0 && gp_graphs_name(wrong.graphs, 0) == NULL, "no graphs are there");

  bad(gp_spec_slice(wrong.spec, "[0]")), bad(gp_spec_index(wrong.spec, 0)), bad(gp_spec_zero(wrong.spec));
  bad(gp_spec_add(wrong.spec, good.value)), bad(gp_spec_add(good.spec, wrong.value));
  bad(gp_value_tensor(wrong.value, &tensor));
  bad(gp_spec_replace(wrong.spec, good.value)), bad(gp_spec_replace(good.spec, wrong.value));
  bad(gp_spec_probe(wrong.spec)), bad(gp_spec_record(wrong.spec, 1)), bad(gp_spec_custom(wrong.spec, called, NULL));
  bad(gp_spec_runs(wrong.spec, "0")), bad(gp_spec_this_thread(wrong.spec, true)), bad(gp_spec_live(wrong.spec, true));
  bad(gp_spec_keep_on_device(wrong.spec, true));

  bad(gp_run_open(wrong.session, good.root, &wants, NULL)), bad(gp_run_open(good.session, wrong.root, &wants, NULL));
  bad(gp_scope_open(wrong.scope, &wants)), bad(gp_scope_script(wrong.scope, &wants));
}

/* Frees each wrong object. The free must report an error and change nothing. */
static void each_free_refuses(objects wrong, const char *words) {
  gp_session_close(wrong.session);
  require(strstr(gp_last_error(), words) != NULL, "closing a session says why not");
  gp_graphs_free(wrong.graphs);
  require(strstr(gp_last_error(), words) != NULL, "freeing graphs says why not");
  gp_spec_free(wrong.spec);
  require(strstr(gp_last_error(), words) != NULL, "freeing a spec says why not");
  gp_value_free(wrong.value);
  require(strstr(gp_last_error(), words) != NULL, "freeing a value says why not");
  gp_root_free(wrong.root);
  require(strstr(gp_last_error(), words) != NULL, "freeing a root says why not");
  gp_scope_free(wrong.scope);
  require(strstr(gp_last_error(), words) != NULL, "freeing a scope says why not");
}

static void still_work(objects good) {
  uint64_t id;
  ok(gp_spec_zero(good.spec));
  ok(gp_spec_add(good.spec, good.value));
  ok(gp_patch_register(good.session, good.spec, &id));
  ok(gp_patch_remove(good.session, id));
  require(gp_graphs_count(good.graphs) == 1, "the graph is there");
}

static void check_freed(const char *graph) {
  objects old = all_new(graph);
  free_all(old);
  /* New objects take the slots of the freed ones, so that old pointers must not be taken for them. */
  objects good = all_new(graph);
  each_call_refuses(old, good, "that was freed");
  each_free_refuses(old, "that was freed");
  still_work(good);
  free_all(good);
}

static void check_other_types(const char *graph) {
  objects good = all_new(graph), wrong;
  wrong.session = (gp_session *)good.spec;
  wrong.graphs = (gp_graphs *)good.spec;
  wrong.spec = (gp_spec *)good.session;
  wrong.value = (gp_value *)good.session;
  wrong.root = (gp_root *)good.session;
  wrong.scope = (gp_scope *)good.session;
  each_call_refuses(wrong, good, "is a gp_s");
  each_free_refuses(wrong, "is a gp_s");
  still_work(good);
  free_all(good);
}

static void check_made_up(const char *graph) {
  objects good = all_new(graph), wrong;
  char on_the_stack[256] = {0};
  void *made_up[] = {
      on_the_stack,
      on_the_stack + 1,
      (void *)1,
      (void *)-1,
      malloc(64),
      (char *)good.spec + 1,
      (char *)good.spec + ((size_t)1 << 28),
      (char *)good.spec + ((size_t)1 << 20)};
  for (size_t at = 0; at < sizeof made_up / sizeof *made_up; ++at) {
    wrong.session = made_up[at], wrong.graphs = made_up[at], wrong.spec = made_up[at];
    wrong.value = made_up[at], wrong.root = made_up[at], wrong.scope = made_up[at];
    if (at < 5) each_call_refuses(wrong, good, "of this library");
    if (at < 5) each_free_refuses(wrong, "of this library");
    refused(GP_STATUS_ARGUMENT, gp_spec_zero(wrong.spec));
    gp_spec_free(wrong.spec);
  }
  free(made_up[4]);
  still_work(good);
  free_all(good);
}

static void check_text(void) {
  char *text, own[] = "own";
  ok(gp_path_parse("a.b", &text));
  gp_string_free(text);
  gp_string_free(text);
  says("was freed");
  gp_string_free(own);
  says("no text of this library");
}

/* Threads use an object while another thread frees it: each use must either work or be refused. */

typedef struct {
  gp_session *session;
  gp_spec *spec;
  int starts, used, refusals;
} shared;

static void *use(void *given) {
  shared *with = given;
  uint64_t id;
  while (!__atomic_load_n(&with->starts, __ATOMIC_ACQUIRE)) {
  }
  for (int turn = 0; turn < 40; ++turn) {
    gp_status status = gp_spec_index(with->spec, turn);
    if (status == GP_STATUS_OK) status = gp_patch_register(with->session, with->spec, &id);
    int expected = status == GP_STATUS_OK || status == GP_STATUS_ARGUMENT || status == GP_STATUS_STATE;
    require(expected, "a use is right or refused");
    __atomic_add_fetch(status == GP_STATUS_OK ? &with->used : &with->refusals, 1, __ATOMIC_RELAXED);
    status = gp_session_note(with->session, "used");
    require(status == GP_STATUS_OK || status == GP_STATUS_ARGUMENT, "a note is taken or refused");
    if (turn == 20) gp_session_close(with->session), gp_spec_free(with->spec);
  }
  return NULL;
}

static void check_threads(int rounds) {
  int used = 0, refusals = 0;
  for (int round = 0; round < rounds; ++round) {
    pthread_t threads[4];
    shared with = {NULL, NULL, 0, 0, 0};
    ok(gp_session_open(&with.session));
    ok(gp_spec_new("linear.output", &with.spec));
    for (int at = 0; at < 4; ++at) require(pthread_create(&threads[at], NULL, use, &with) == 0, "a thread");
    __atomic_store_n(&with.starts, 1, __ATOMIC_RELEASE);
    for (int at = 0; at < 4; ++at) pthread_join(threads[at], NULL);
    refused(GP_STATUS_ARGUMENT, gp_spec_zero(with.spec));
    refused(GP_STATUS_ARGUMENT, gp_session_record(with.session, true));
    used += with.used, refusals += with.refusals;
  }
  require(used >= rounds && refusals >= rounds, "objects were used, and uses refused");
}

int main(int count, char **arguments) {
  require(count >= 2, "handles GRAPH.json");
  check_freed(arguments[1]);
  check_other_types(arguments[1]);
  check_made_up(arguments[1]);
  check_text();
  check_threads(200);
  puts("all as it must be");
  return 0;
}
