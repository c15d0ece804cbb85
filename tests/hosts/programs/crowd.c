/* crowd SECONDS THREADS: threads that patch, record, open and end sessions, and fork, while all of them run the model that the
 * environment names. Each result must be the bare one or that of the thread's own patch, as it is at that moment. Prints how
 * many results were right and wrong, and how many children were right, wrong and hung.
 * crowd SECONDS THREADS bare: the same without a session, to compare how children of a fork end. */
#include "model.h"
#include "model_sum.h"

#include <graphpatch.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* After so many seconds a child counts as hung. */
#ifndef PATIENCE
#define PATIENCE 60
#endif

static model *shared;
static gp_session *session;
static float bare, patched;
static double end;
static atomic_long right, wrong, children[3];

static void check(gp_status status) {
  if (status != GP_STATUS_OK) fprintf(stderr, "crowd: %s\n", gp_last_error()), exit(3);
}
static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}
static float run(void) {
  return model_sum(shared);
}
static void expect(float found, float expected) {
  ++*(found == expected ? &right : &wrong);
}

/* Registers a patch that holds on this thread only. */
static uint64_t patch(void) {
  gp_spec *spec;
  uint64_t id;
  check(gp_spec_new("sub_0.linear", &spec));
  check(gp_spec_this_thread(spec, true));
  check(gp_patch_register(session, spec, &id));
  gp_spec_free(spec);
  return id;
}
static void patch_and_run(void) {
  uint64_t id = patch();
  expect(run(), patched);
  check(gp_patch_remove(session, id));
  expect(run(), bare);
}
static void read_graphs(void) {
  gp_graphs *graphs;
  char *tree;
  check(gp_session_graphs(session, &graphs));
  check(gp_graphs_tree(graphs, 0, NULL, &tree));
  expect(strstr(tree, "linear") != NULL, 1);
  gp_string_free(tree);
  gp_graphs_free(graphs);
}
/* Opens a session that is not attached, so that its patch must change no run. */
static void other_session(void) {
  gp_session *other;
  uint64_t id;
  check(gp_session_open(&other));
  check(gp_patch_add(other, "sub_0.linear=zero", &id));
  expect(run(), bare);
  gp_session_close(other);
}
/* Prints the state of a late child: whether it computes, or what it waits for. With CROWD_DEBUGGER, gdb shows its stack. */
static void tell_of(pid_t child) {
  char command[500];
  snprintf(command, sizeof command,
           "{ cat /proc/%d/wchan; echo; cut -d' ' -f3,14,15 /proc/%d/stat; cat /proc/%d/syscall; "
           "[ -z \"$CROWD_DEBUGGER\" ] || grep r-xp /proc/%d/maps; gdb -batch -p %d $CROWD_DEBUGGER -ex bt; } 2>&1 | sed "
           "'s/^/late child: /' >&2",
           child, child, child, child, child);
  if (system(command)) fprintf(stderr, "crowd: nothing is known of the late child %d\n", child);
}
static void fork_and_run(void) {
  int status = 0;
  pid_t child = fork(), done;
  if (!child) {
    if (session) patch();
    _exit(run() == (session ? patched : bare) ? 0 : 1);
  }
  double patience = now() + PATIENCE;
  while (!(done = waitpid(child, &status, WNOHANG)) && now() < patience) usleep(500);
  if (!done) tell_of(child), kill(child, SIGKILL), waitpid(child, &status, 0);
  ++children[!done ? 2 : WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : 1];
}
static void *work(void *number) {
  for (long turn = (long)number; now() < end; ++turn) {
    if (turn % 200 == 0) fork_and_run();
    else if (!session) expect(run(), bare);
    else if (turn % 4 == 0) read_graphs();
    else if (turn % 4 == 1) other_session();
    else patch_and_run();
    if (session && turn % 50 == 7) check(gp_session_record(session, turn % 100 == 7));
  }
  return NULL;
}

int main(int argc, char **argv) {
  shared = model_load(getenv("HOST_MODEL_FILE"));
  if (!shared || argc < 3) return 1;
  int threads = atoi(argv[2]);
  pthread_t busy[256];
  bare = run();
  if (argc == 3) {
    check(gp_session_open(&session));
    check(gp_session_attach(session));
    check(gp_session_record(session, true));
    expect(run(), bare);
    uint64_t id = patch();
    patched = run();
    check(gp_patch_remove(session, id));
    if (patched == bare) return 2;
  }
  for (int i = 0; i < 10; ++i) expect(run(), bare);
  end = now() + atof(argv[1]);
  for (long i = 0; i < threads; ++i) pthread_create(&busy[i], NULL, work, (void *)i);
  for (int i = 0; i < threads; ++i) pthread_join(busy[i], NULL);
  printf("right %ld wrong %ld children_right %ld children_wrong %ld children_hung %ld\n", right, wrong, children[0],
         children[1], children[2]);
  gp_session_close(session);
  return 0;
}
