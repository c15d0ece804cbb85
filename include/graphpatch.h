/* libgraphpatch: look inside, and change, any running libtorch model.
 *
 * Every fallible call returns a gp_status; gp_last_error() then says more, on the same thread. Text is UTF-8 and
 * ends with a NUL. What a call hands over ("new") is freed by the call its comment names; everything else is
 * borrowed. No C++ exception, Rust panic or abort comes out of any call.
 *
 * Generated from src/ffi by cbindgen; change it there. */

#ifndef GRAPHPATCH_H
#define GRAPHPATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What a call answers. Numbers never change their meaning; new ones may come.
typedef enum {
  // All went well.
  GP_STATUS_OK = 0,
  // An argument is NULL, no UTF-8, or out of range.
  GP_STATUS_ARGUMENT = 1,
  // Text that is no path, slice, patch or value.
  GP_STATUS_PARSE = 2,
  // A path that names no leaf of the recorded graphs.
  GP_STATUS_PATH = 3,
  // A slice that does not fit a shape.
  GP_STATUS_SLICE = 4,
  // A patch that a value refuses.
  GP_STATUS_REFUSED = 5,
  // A file that cannot be read or written.
  GP_STATUS_FILE = 6,
  // A file that is damaged, foreign, or of a later version.
  GP_STATUS_FORMAT = 7,
  // No libtorch in this process, or one that cannot be used.
  GP_STATUS_TORCH = 8,
  // The adapter for this libtorch could not be found, built or loaded.
  GP_STATUS_ADAPTER = 9,
  // A call that is not valid now.
  GP_STATUS_STATE = 10,
  // A bug of the library, caught.
  GP_STATUS_INTERNAL = 99,
} gp_status;

// What a patch that cannot be applied in a run does.
typedef enum {
  // Throws a c10::Error that the program's own error handling sees.
  GP_ON_ERROR_RAISE = 0,
  // Leaves the value alone and counts the failure.
  GP_ON_ERROR_SKIP = 1,
} gp_on_error;

// Graphs at one moment; they do not change with the session they came from. Any thread may read them.
typedef struct gp_graphs gp_graphs;

// A session. Opened by gp_session_open, ended by gp_session_close. All calls may be made from any thread.
typedef struct gp_session gp_session;

// How often a patch met its node, changed the value there, or could not.
typedef struct {
  uint64_t matched;
  uint64_t applied;
  uint64_t failed;
} gp_patch_counts;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// What the last call on this thread that did not answer GP_STATUS_OK had to say. Never NULL; empty at first. Borrowed:
// valid until the next failing call on the same thread.
const char *gp_last_error(void);

// The library's version, such as "0.1.0". Static text.
const char *gp_version(void);

// Frees text that the library handed over. NULL is fine.
void gp_string_free(char *text);

// Opens a session that records nothing and is attached to nothing. `out` receives a new session; end it with
// gp_session_close.
gp_status gp_session_open(gp_session **out);

// Detaches the session and frees it. NULL is fine. Runs under way on other threads end as they began.
void gp_session_close(gp_session *session);

// Makes the session the one that this process's runs belong to. Loads the adapter for the process's libtorch, and
// builds it first if that has never been done on this machine (about half a minute). libtorch must be loaded. Best
// called before other threads run models: an executor that is compiling on another thread at this very moment keeps
// its first plan.
//
// Errors: GP_STATUS_TORCH without libtorch, GP_STATUS_ADAPTER when the adapter cannot be had, GP_STATUS_STATE when another session is
// attached.
gp_status gp_session_attach(const gp_session *session);

// Lets go of the process; patches and graphs stay with the session.
gp_status gp_session_detach(const gp_session *session);

// Whether runs that begin from now on are recorded into the session's graphs.
gp_status gp_session_record(const gp_session *session, bool on);

// What patches that cannot be applied do (a gp_on_error), for runs that begin from now on. GP_ON_ERROR_RAISE at
// first.
gp_status gp_session_on_error(const gp_session *session,
                              uint32_t on_error);

// How many runs were recorded or patched so far.
gp_status gp_session_runs(const gp_session *session, uint64_t *out);

// What a person should know of the runs so far (what a frozen graph no longer tells, say), one note a line. `out`
// receives new text; free it with gp_string_free.
gp_status gp_session_notes(const gp_session *session,
                           char **out);

// What the session recorded so far. `out` receives new graphs; free them with gp_graphs_free.
gp_status gp_session_graphs(const gp_session *session, gp_graphs **out);

// Loads graphs that gp_graphs_save or `graphpatch run --graph` saved. `out` receives new graphs; free them with
// gp_graphs_free. Errors: GP_STATUS_FILE, GP_STATUS_FORMAT (the message names the place in the file).
gp_status gp_graphs_load(const char *file,
                         gp_graphs **out);

// Saves the graphs as JSON; a file that was there is replaced as a whole.
gp_status gp_graphs_save(const gp_graphs *graphs, const char *file);

// Frees graphs. NULL is fine.
void gp_graphs_free(gp_graphs *graphs);

// How many graphs there are; 0 for NULL.
size_t gp_graphs_count(const gp_graphs *graphs);

// What graph number `index` was recorded of: class and method of the root. Borrowed from `graphs`; NULL if there is
// no such graph.
const char *gp_graphs_name(const gp_graphs *graphs,
                           size_t index);

// The tree of graph number `index` as text, or of its subtree at `path` (NULL or "": the whole). `out` receives new
// text; free it with gp_string_free. Errors: GP_STATUS_PARSE, GP_STATUS_PATH.
gp_status gp_graphs_tree(const gp_graphs *graphs,
                         size_t index,
                         const char *path,
                         char **out);

// What may come next behind `prefix` (a beginning of a path) in any of the graphs, one full path a line. `out`
// receives new text; free it with gp_string_free.
gp_status gp_graphs_complete(const gp_graphs *graphs,
                             const char *prefix,
                             char **out);

// Whether each of the `n` paths names a leaf of any of the graphs, so that a patch may stand there. GP_STATUS_PATH if not:
// the message lists every bad path, why, and its nearest valid completions.
gp_status gp_graphs_check(const gp_graphs *graphs,
                          const char *const *paths,
                          size_t n);

// Registers a patch, `PATH[SLICE]=zero`, `...=add:NUMBER` or `...=replace:NUMBER`, behind those that are there. It
// holds for runs that begin from now on, on any thread. `id` receives its number.
//
// Errors: GP_STATUS_PARSE; GP_STATUS_PATH when graphs were recorded and none has such a leaf.
gp_status gp_patch_add(const gp_session *session,
                       const char *patch,
                       uint64_t *id);

// Takes a patch away, for runs that begin from now on. GP_STATUS_STATE when there is no such patch.
gp_status gp_patch_remove(const gp_session *session, uint64_t id);

// How often a patch was met, applied, and failed so far.
gp_status gp_patch_get_counts(const gp_session *session, uint64_t id, gp_patch_counts *out);

// Why a patch failed last; empty if it never did. `out` receives new text; free it with gp_string_free.
gp_status gp_patch_last_error(const gp_session *session,
                              uint64_t id,
                              char **out);

// Begins a run on this thread: until gp_run_end, operations that the thread calls are nodes of the root `name`. Does
// nothing while no attached session records or patches. GP_STATUS_STATE when a run is open on this thread; GP_STATUS_TORCH before
// any session was attached.
gp_status gp_run_begin(const char *name);

// Ends this thread's run, and the scopes that are open in it. Without one it does nothing.
gp_status gp_run_end(void);

// Enters the scope of a module, called by the attribute path `path` ("layers.8") from the scope around it. Does
// nothing outside a run.
gp_status gp_scope_enter(const char *path);

// Leaves the innermost scope that gp_scope_enter entered. Does nothing outside a run.
gp_status gp_scope_leave(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* GRAPHPATCH_H */
