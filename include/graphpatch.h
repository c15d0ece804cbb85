/* libgraphpatch: look inside, and change, any running libtorch model.
 *
 * Every fallible call returns a gp_status; gp_last_error() then says more, on the same thread. Text is UTF-8 and
 * ends with a NUL. What a call hands over ("new") is the caller's, and is freed by the call its comment names; all
 * else, given or answered, is borrowed: what a call is given it needs until it returns, unless its comment says longer.
 * No C++ exception, Rust panic or abort comes out of any call. Functions of the caller's that the library calls without a
 * result (gp_release, gp_source_callback, a tensor's deleter) must not throw.
 *
 * A pointer to an object is a number of the library's, no address. One that was freed, that is of another type, or that no call
 * has answered is refused with GP_STATUS_ARGUMENT, and changes nothing; calls without a status say so by gp_last_error(). What
 * one thread frees while another one's call uses it ends with that call.
 *
 * Each call's comment ends with these words:
 *   Thread: any                any thread, while other threads use the same object.
 *           one at a time      any thread, while no other one uses the same object: GP_STATUS_STATE, if one does.
 *           its own            what it does or says is the calling thread's alone.
 *           the last           any thread; no other one uses the object later.
 *   NULL:   refused            a pointer that is NULL answers GP_STATUS_ARGUMENT.
 *           the arguments      that may be NULL; the others are refused.
 *           fine               does nothing.
 *   Errors: the statuses       that it may answer, beside GP_STATUS_ARGUMENT and GP_STATUS_INTERNAL, which every call may, and
 *                              GP_STATUS_STATE, which every call of an object may that is used one at a time.
 *                              Where it fails it changes nothing, but for numbers behind `out` pointers, which may be 0.
 *   Since   the version        of the library that had it first. Types say that too.
 *
 * The ABI. A program runs with later libraries of the same ABI number (the SONAME's): calls, types, numbers and layouts
 * stay as they are, and new ones come. A struct that the caller allocates begins with its size and may grow at its end:
 * begin it with its GP_..._INIT. A member that the library is too old to know is zeroed.
 *
 * Generated from src/library/ffi by cbindgen; change it there. */

#ifndef GRAPHPATCH_H
#define GRAPHPATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/* The version of this header; gp_version() says the library's. */
#define GRAPHPATCH_VERSION_MAJOR 0
#define GRAPHPATCH_VERSION_MINOR 1
#define GRAPHPATCH_VERSION_PATCH 0
#define GRAPHPATCH_VERSION "0.1.0"
/* The same as a number to compare: 10203 is 1.2.3. */
#define GRAPHPATCH_VERSION_NUMBER \
  (GRAPHPATCH_VERSION_MAJOR * 10000 + GRAPHPATCH_VERSION_MINOR * 100 + GRAPHPATCH_VERSION_PATCH)
/* The ABI's number; gp_abi_version() says the library's. */
#define GRAPHPATCH_ABI_VERSION 0

/* What a struct that the caller allocates begins as: gp_leaf leaf = GP_LEAF_INIT; */
#define GP_PATCH_COUNTS_INIT {sizeof(gp_patch_counts), 0, 0, 0, 0}
#define GP_LEAF_INIT {sizeof(gp_leaf), false, 0, NULL, 0, 0}
#define GP_NODE_INIT {sizeof(gp_node), 0, 0, 0, 0, 0}

/* Tensors cross as DLPack 1; include <dlpack/dlpack.h> to make or read one. */
struct DLManagedTensorVersioned;

// What a call answers. Numbers never change their meaning; new ones may come. Since 0.1.0.
enum gp_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // All went well.
  GP_STATUS_OK = 0,
  // An argument is NULL, no UTF-8, out of range, or an object that was freed or is of another type.
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
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum gp_status gp_status;
#else
typedef int32_t gp_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a patch that cannot be applied in a run does. Since 0.1.0.
enum gp_on_error
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Throws a c10::Error that the program's own error handling sees.
  GP_ON_ERROR_RAISE = 0,
  // Leaves the value alone and counts the failure.
  GP_ON_ERROR_SKIP = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum gp_on_error gp_on_error;
#else
typedef uint32_t gp_on_error;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What is wanted of a run or a scope, as bits of a number. From bit 16 on the number holds the scope's place among the
// patches, counted from 1: equal places of a session whose patches did not change get equal answers. Since 0.1.0.
enum gp_wants
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Show its inputs: gp_scope_input.
  GP_WANTS_INPUTS = 1,
  // Show its output: gp_scope_output.
  GP_WANTS_OUTPUT = 2,
  // Something in it or below it matters: report calls in it.
  GP_WANTS_INSIDE = 4,
  // Of a run: gp_run_parameters.
  GP_WANTS_PARAMETERS = 8,
  // The run is recorded.
  GP_WANTS_RECORD = 16,
  // Its operations are intercepted. Report calls in it, whether they matter or not.
  GP_WANTS_OPERATIONS = 32,
  // No call of this module from the same scope matters, as long as the patches stay as they are.
  GP_WANTS_IGNORED = 64,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum gp_wants gp_wants;
#else
typedef uint32_t gp_wants;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a node stands for. Since 0.1.0.
enum gp_node_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // An argument of the scope's forward.
  GP_NODE_KIND_INPUT = 1,
  // A parameter or buffer of the scope's module.
  GP_NODE_KIND_PARAMETER = 2,
  // An operation.
  GP_NODE_KIND_OP = 3,
  // A call of a module; its children are nodes.
  GP_NODE_KIND_SCOPE = 4,
  // What the scope returned.
  GP_NODE_KIND_OUTPUT = 5,
  // No node, but an element of the container that a node's value is.
  GP_NODE_KIND_ELEMENT = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum gp_node_kind gp_node_kind;
#else
typedef uint32_t gp_node_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a value is, each as a bit of its own: several add up to all that was seen. Since 0.1.0.
enum gp_value_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  GP_VALUE_KIND_TENSOR = 1,
  GP_VALUE_KIND_INT = 2,
  GP_VALUE_KIND_FLOAT = 4,
  GP_VALUE_KIND_BOOL = 8,
  GP_VALUE_KIND_COMPLEX = 16,
  GP_VALUE_KIND_STR = 32,
  // Python's None, and an undefined tensor.
  GP_VALUE_KIND_NONE = 64,
  GP_VALUE_KIND_TUPLE = 128,
  GP_VALUE_KIND_LIST = 256,
  GP_VALUE_KIND_DICT = 512,
  // Any other type.
  GP_VALUE_KIND_OTHER = 1024,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum gp_value_kind gp_value_kind;
#else
typedef uint32_t gp_value_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The calls that were under way on a thread, set aside. Thread: that one. Since 0.1.0.
typedef struct gp_aside gp_aside;

// A list of frames that a gp_source_callback fills. Since 0.1.0.
typedef struct gp_frames gp_frames;

// Graphs at one moment; they do not change with the session they came from. Any thread may read them. Since 0.1.0.
typedef struct gp_graphs gp_graphs;

// A module that runs are calls of, and all its parameters. Any number of runs on any thread may use one. Since 0.1.0.
typedef struct gp_root gp_root;

// A module as it is called from another one. Any number of calls on any thread may use one. Since 0.1.0.
typedef struct gp_scope gp_scope;

// A session. Opened by gp_session_open, ended by gp_session_close. All calls may be made from any thread. Since 0.1.0.
typedef struct gp_session gp_session;

// Where a run stood, for a part of it that is computed again. Any thread. Since 0.1.0.
typedef struct gp_snapshot gp_snapshot;

// A patch that is not registered yet: a path, an index and what to do. One thread at a time. Since 0.1.0.
typedef struct gp_spec gp_spec;

// A number or a tensor. Any number of specs may use one; it may be freed once they have it. Any thread. Since 0.1.0.
typedef struct gp_value gp_value;

// What is known of a node, or of an element of a container. Since 0.1.0.
typedef struct {
  // To be set by the caller: sizeof(gp_node).
  size_t size;
  // What it stands for: a gp_node_kind.
  uint32_t kind;
  // What its value is: a gp_value_kind; 0 for a scope, which has none. Where runs gave values of several kinds, the
  // first tensor or container among them, or else the first one.
  uint32_t value;
  // All kinds of values that runs gave, as the bits of gp_value_kind; 0 for a scope.
  uint32_t seen;
  // How many dimensions the value has, where it is a tensor; gp_graphs_sizes says their sizes.
  uint32_t rank;
  // How many children a scope has, or how many elements a container.
  size_t children;
} gp_node;

// A function of the user's. `value` is the picked part of the tensor, read-only and borrowed for the call; in
// `replacement` the function may leave a tensor that broadcasts to it, which is then written in its place (and whose
// deleter is called when it is no longer needed), or NULL to leave the value alone. Anything but 0 is a failure, and so is
// a C++ exception of any type, whose text becomes the patch's message. It is called on the thread that runs the model,
// perhaps on several at once. Since 0.1.0.
typedef int32_t (*gp_callback)(void *user,
                               struct DLManagedTensorVersioned *value,
                               struct DLManagedTensorVersioned **replacement);

// A function of the user's that takes libtorch's own tensor: `tensor` is the at::TensorImpl of the picked part, with
// its gradient history, borrowed for the call and not to be written. In `replacement` the function may leave the
// at::TensorImpl of a tensor that takes its place: one that may be written into the picked part where there is an
// index; else of any shape and dtype, but those of the value where that is a plain number or was written into an
// operand. It must stay alive until the thread's next call of a function. Anything but 0 is a failure. A plain number
// comes and goes as a tensor without dimensions; None comes as NULL.
// Otherwise as gp_callback. Since 0.1.0.
typedef int32_t (*gp_torch_callback)(void *user, const void *tensor, const void **replacement);

// What is called once with a function's `user` when nobody can call that function any more. It may run in the middle of
// any call of the library, on any thread, so nothing can take an exception from it: one that leaves it ends the process.
// Since 0.1.0.
typedef void (*gp_release)(void *user);

// How often a patch's node was reached, and how often the patch changed the value there, or could not. Since 0.1.0.
typedef struct {
  // To be set by the caller: sizeof(gp_patch_counts).
  size_t size;
  // How often a run reached the patch's node.
  uint64_t matched;
  // How often the patch changed (or kept, or was shown) the value there.
  uint64_t applied;
  // How often it could not; gp_patch_last_error says why.
  uint64_t failed;
  // 1 while runs are under way that began with the patch and may still reach it, else 0.
  uint64_t pending;
} gp_patch_counts;

// A leaf of a value that was shown, as its patches left it. Since 0.1.0.
typedef struct {
  // To be set by the caller: sizeof(gp_leaf).
  size_t size;
  // Whether it is another one than was shown; if not, all that follows is 0.
  bool changed;
  // What kind of number it is now: 'b' a bool and 'i' an integer (in `integer`), 'f' a float (in `real`). 0: none.
  char number;
  // A tensor: its at::TensorImpl, borrowed until the thread shows its next value. NULL for a number.
  const void *tensor;
  // The number, where `number` is 'b' or 'i'.
  int64_t integer;
  // The number, where `number` is 'f'.
  double real;
} gp_leaf;

// Says where in the user's source the calling thread is: one gp_frames_add for each frame, innermost last, without
// those of libtorch and of libraries that are not the user's. It is called while an operation is about to run, perhaps
// on several threads at once, and must not call operations itself. Nothing can take a C++ exception from it: one that
// leaves it ends the process. Since 0.1.0.
typedef void (*gp_source_callback)(void *user, gp_frames *frames);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// What the last call on this thread that did not answer GP_STATUS_OK had to say. Never NULL; empty at first. Borrowed:
// valid until the next failing call on the same thread.
//
// Thread: its own. Since 0.1.0.
const char *gp_last_error(void);

// The library's version, such as "0.1.0": what GRAPHPATCH_VERSION says of the header. Static text.
//
// Thread: any. Since 0.1.0.
const char *gp_version(void);

// The number of the library's ABI: what GRAPHPATCH_ABI_VERSION says of the header, and the number of the SONAME. A
// program runs with every library of the ABI that it was made for and of its header's version or a later one. Those
// that open the library by its file name should compare the two.
//
// Thread: any. Since 0.1.0.
uint32_t gp_abi_version(void);

// Frees text that the library handed over. NULL is fine.
//
// Thread: the last. NULL: fine. Since 0.1.0.
void gp_string_free(char *text);

// Opens a session that records nothing and is attached to nothing. `out` receives a new session; end it with
// gp_session_close.
//
// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_session_open(gp_session **out);

// Detaches the session and frees it. NULL is fine. Runs under way on other threads end as they began.
//
// Thread: the last. NULL: fine. Since 0.1.0.
void gp_session_close(gp_session *session);

// Makes the session the one that this process's runs belong to. Loads the adapter for the process's libtorch, and
// builds it first if that has never been done on this machine (about half a minute). libtorch must be loaded. Best
// called before other threads run models: an executor that is compiling on another thread at this very moment keeps
// its first plan.
//
// Errors: GP_STATUS_TORCH without libtorch, GP_STATUS_ADAPTER when the adapter cannot be had, GP_STATUS_STATE when
// another session is attached. In a program that `graphpatch run` has started, the command's session is attached
// beside this one: it sees only the runs that this session does not use, and says so to its user.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_TORCH, GP_STATUS_ADAPTER, GP_STATUS_STATE. Since 0.1.0.
gp_status gp_session_attach(const gp_session *session);

// Detaches the session from the process. It keeps its patches and graphs.
//
// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_session_detach(const gp_session *session);

// Whether runs that begin from now on are recorded into the session's graphs. A NULL session stands for the attached one;
// GP_STATUS_STATE without.
//
// Thread: any. NULL: session. Errors: GP_STATUS_STATE. Since 0.1.0.
gp_status gp_session_record(const gp_session *session,
                            bool on);

// Whether runs that begin from now on show the inside of an operation. `operation` is "attention"; any other is an
// error. Each call of `scaled_dot_product_attention` is then recorded as a scope with the values that the operation
// computes on its way. A patch whose path leads inside shows the inside of the calls that it means, whatever is set here.
// A NULL session stands for the attached one; GP_STATUS_STATE without. Off at first.
//
// Thread: any. NULL: session. Errors: GP_STATUS_STATE, GP_STATUS_ARGUMENT. Since 0.1.0.
gp_status gp_session_inside(const gp_session *session,
                            const char *operation,
                            bool on);

// What patches that cannot be applied do (a gp_on_error), for runs that begin from now on. GP_ON_ERROR_RAISE at first.
//
// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_session_on_error(const gp_session *session,
                              uint32_t on_error);

// How many runs were recorded or patched so far.
//
// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_session_runs(const gp_session *session, uint64_t *out);

// Adds to what gp_session_notes says; the same text is kept once. A NULL session stands for the attached one;
// GP_STATUS_STATE without.
//
// Thread: any. NULL: session. Errors: GP_STATUS_STATE. Since 0.1.0.
gp_status gp_session_note(const gp_session *session,
                          const char *note);

// Notes on the runs so far for a person, one on each line: what a frozen graph no longer shows, for example. `out`
// receives new text; free it with gp_string_free.
//
// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_session_notes(const gp_session *session,
                           char **out);

// The patches whose node no run has reached so far, one on each line, as the text that registers it: first those that were
// removed (of many, the first hundred), then those that are registered. Empty if there are none. Ask before
// gp_session_close, which reports nothing. `out` receives new text; free it with gp_string_free.
//
// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_session_missed(const gp_session *session,
                            char **out);

// What the session recorded so far. `out` receives new graphs; free them with gp_graphs_free.
//
// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_session_graphs(const gp_session *session, gp_graphs **out);

// Loads graphs that gp_graphs_save or `graphpatch run --graph` saved. `out` receives new graphs; free them with
// gp_graphs_free. Errors: GP_STATUS_FILE, GP_STATUS_FORMAT (the message names the place in the file).
//
// Thread: any. NULL: refused. Errors: GP_STATUS_FILE, GP_STATUS_FORMAT. Since 0.1.0.
gp_status gp_graphs_load(const char *file,
                         gp_graphs **out);

// Saves the graphs as JSON; a file that was there is replaced as a whole.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_FILE. Since 0.1.0.
gp_status gp_graphs_save(const gp_graphs *graphs, const char *file);

// Frees graphs. NULL is fine.
//
// Thread: the last. NULL: fine. Since 0.1.0.
void gp_graphs_free(gp_graphs *graphs);

// How many graphs there are; 0 for NULL.
//
// Thread: any. NULL: graphs. Since 0.1.0.
size_t gp_graphs_count(const gp_graphs *graphs);

// What graph number `index` was recorded of: class and method of the root. Borrowed from `graphs`; NULL if there is no
// such graph.
//
// Thread: any. NULL: graphs. Since 0.1.0.
const char *gp_graphs_name(const gp_graphs *graphs,
                           size_t index);

// The tree of graph number `index` as text, or of its subtree at `path` (NULL or "": the whole). `out` receives new
// text; free it with gp_string_free.
//
// Thread: any. NULL: path. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
gp_status gp_graphs_tree(const gp_graphs *graphs,
                         size_t index,
                         const char *path,
                         char **out);

// The children of the scope at `path` (NULL or "": the root) in graph number `index`, or the elements of the container
// there, in order, one name a line. `out` receives new text, empty for a leaf; free it with gp_string_free.
//
// Thread: any. NULL: path. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
gp_status gp_graphs_children(const gp_graphs *graphs,
                             size_t index,
                             const char *path,
                             char **out);

// What was seen of the value at `path` (with a dig, of the element) in graph number `index`, as the tree shows it:
// "Tensor(1, 5..128, 768)", "tuple(2)", "int". `out` receives new text; free it with gp_string_free. Errors:
// GP_STATUS_PARSE; GP_STATUS_PATH for no such node and for a scope.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
gp_status gp_graphs_shape(const gp_graphs *graphs,
                          size_t index,
                          const char *path,
                          char **out);

// The code of the node at `path` (NULL or "": the root) in graph number `index`: a scope as a function with one line
// for each node, a leaf as the place in the user's source that called it. `out` receives new text; free it with
// gp_string_free.
//
// Thread: any. NULL: path. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
gp_status gp_graphs_code(const gp_graphs *graphs,
                         size_t index,
                         const char *path,
                         char **out);

// Graph number `index` as JSON text, as gp_graphs_save writes it into a file's `graphs`. `out` receives new text; free
// it with gp_string_free.
//
// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_graphs_json(const gp_graphs *graphs,
                         size_t index,
                         char **out);

// What may come next after `prefix` (a beginning of a path) in any of the graphs, one full path a line. `out`
// receives new text; free it with gp_string_free.
//
// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_graphs_complete(const gp_graphs *graphs,
                             const char *prefix,
                             char **out);

// Whether each of the `n` paths names a leaf of any of the graphs, so that a patch may stand there. GP_STATUS_PATH if
// not: the message lists every bad path, why, and its nearest valid completions.
//
// Thread: any. NULL: paths with `n` 0. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
gp_status gp_graphs_check(const gp_graphs *graphs,
                          const char *const *paths,
                          size_t n);

// What is known of the node at `path` (NULL or "": the root) in graph number `index`, or with a dig of the element
// there. Begin `out` with GP_NODE_INIT.
//
// Thread: any. NULL: path. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
gp_status gp_graphs_node(const gp_graphs *graphs,
                         size_t index,
                         const char *path,
                         gp_node *out);

// The sizes of the tensor at `path` (with a dig, of the element) in graph number `index`, over all runs: for each of
// its dimensions, which gp_graphs_node counts as `rank`, the smallest and the largest one that was seen. `n` says how many
// numbers `smallest` and `largest` take. Nothing is written for what is no tensor. GP_STATUS_ARGUMENT where `n` is less
// than the rank; GP_STATUS_PATH for no such node.
//
// Thread: any. NULL: path, and smallest and largest with `n` 0. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
gp_status gp_graphs_sizes(const gp_graphs *graphs,
                          size_t index,
                          const char *path,
                          int64_t *smallest,
                          int64_t *largest,
                          size_t n);

// Child number `number` of the scope at `path` (NULL or "": the root) in graph number `index`, or element number `number`
// of the container there, counted from 0. `name` (may be NULL) receives its name, new text, and `child` its path from
// the root, new text; free both with gp_string_free. The key "" of a dict has no path: `child` is then one that is
// refused wherever a path is read. GP_STATUS_ARGUMENT where it has not so many.
//
// Thread: any. NULL: path, name. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
gp_status gp_graphs_child(const gp_graphs *graphs,
                          size_t index,
                          const char *path,
                          size_t number,
                          char **name,
                          char **child);

// The path, as the graph itself writes it, of what `below` names as seen from the node at `path` (NULL or "": the root) in
// graph number `index`: `linear_0`, the first call of a module that was called more than once, becomes `linear`. Names
// after a container's are those of elements, whether a `|` or a `.` stands before them. `out` receives new text; free
// it with gp_string_free. GP_STATUS_PATH says what there is instead.
//
// Thread: any. NULL: path. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
gp_status gp_graphs_find(const gp_graphs *graphs,
                         size_t index,
                         const char *path,
                         const char *below,
                         char **out);

// The paths in graph number `index`, one a line, of what fits all that is asked for; NULL asks for nothing. `pattern` is a
// path with `*` (anything within a name), `**` (any names), `?`, `[0-5]` and `{a,b}`; `op` an operation's schema
// (`aten::add.Tensor`) or its name (`add`); `module` a class, whole or its last part (`Linear`): its calls; `shape`
// sizes as `graphpatch show --shape` reads them (`*,768`, `...` for any): only tensors, also those in containers, one by
// one. A path in which a line break stands is left out. `out` receives new text, empty where nothing fits; free it with
// gp_string_free.
//
// Thread: any. NULL: pattern, op, module, shape. Errors: GP_STATUS_PARSE. Since 0.1.0.
gp_status gp_graphs_search(const gp_graphs *graphs,
                           size_t index,
                           const char *pattern,
                           const char *op,
                           const char *module,
                           const char *shape,
                           char **out);

// Whether `path` is well-formed; `canonical` (may be NULL) receives it as it is printed, new text to be freed with
// gp_string_free. GP_STATUS_PARSE: the message names the character.
//
// Thread: any. NULL: canonical. Errors: GP_STATUS_PARSE. Since 0.1.0.
gp_status gp_path_parse(const char *path,
                        char **canonical);

// The same for a slice such as "[..., ::2]": `canonical` receives new text, to be freed with gp_string_free.
//
// Thread: any. NULL: canonical. Errors: GP_STATUS_PARSE. Since 0.1.0.
gp_status gp_slice_parse(const char *slice,
                         char **canonical);

// Whether `slice` fits a tensor of `rank` sizes; `elements` (may be NULL) receives how many elements it picks.
//
// Thread: any. NULL: elements, and sizes with `rank` 0. Errors: GP_STATUS_PARSE, GP_STATUS_SLICE. Since 0.1.0.
gp_status gp_slice_check(const char *slice,
                         const int64_t *sizes,
                         size_t rank,
                         int64_t *elements);

// A value from text: a number as in a patch's text ("3", "-0.5", "true", "1+2j"), or a tensor in a file, which is read now:
// "@FILE.npy", "@FILE.safetensors#KEY", "@FILE.gguf#NAME", "@FILE.pt" or "@FILE.pt#KEY". `out` receives a new value; free it with gp_value_free.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_PARSE, GP_STATUS_FILE, GP_STATUS_FORMAT. Since 0.1.0.
gp_status gp_value_text(const char *value,
                        gp_value **out);

// The integer `value`. `out` receives a new value; free it with gp_value_free.
//
// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_value_int(int64_t value, gp_value **out);

// The real number `value`. `out` receives a new value; free it with gp_value_free.
//
// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_value_float(double value, gp_value **out);

// A copy of a tensor in CPU memory, of any strides. With `take` the tensor is handed over, and its deleter is called
// before this returns, also on error; without, it is borrowed for the call. `out` receives a new value; free it with
// gp_value_free. GP_STATUS_REFUSED for a device, dtype or DLPack version that is not taken.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_REFUSED. Since 0.1.0.
gp_status gp_value_dlpack(struct DLManagedTensorVersioned *tensor,
                          bool take,
                          gp_value **out);

// libtorch's own tensor, on any device: the at::TensorImpl* that at::Tensor::unsafeGetTensorImpl() gives. The value
// holds a reference of its own; gradients flow to the tensor if it requires them. `out` receives a new value; free it
// with gp_value_free. GP_STATUS_TORCH before any session was attached.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
gp_status gp_value_torch(const void *tensor_impl,
                         gp_value **out);

// The tensor of a value that gp_value_text has read from a file or gp_value_dlpack has copied. `out` receives a new, read-only,
// row-major tensor in CPU memory, which stays valid when the value is freed; call its deleter to free it. GP_STATUS_REFUSED
// for a number, and for a tensor of libtorch's own, which its owner has.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_REFUSED. Since 0.1.0.
gp_status gp_value_tensor(const gp_value *value,
                          struct DLManagedTensorVersioned **out);

// Frees a value. NULL is fine.
//
// Thread: the last. NULL: fine. Since 0.1.0.
void gp_value_free(gp_value *value);

// A spec that zeroes the whole value at `path`. `out` receives a new spec; free it with gp_spec_free.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_PARSE. Since 0.1.0.
gp_status gp_spec_new(const char *path,
                      gp_spec **out);

// Frees a spec; patches that were registered from it stay. NULL is fine.
//
// Thread: the last. NULL: fine. Since 0.1.0.
void gp_spec_free(gp_spec *spec);

// Appends to the index what `slice` says ("[3, ::2]").
//
// Thread: one at a time. NULL: refused. Errors: GP_STATUS_PARSE. Since 0.1.0.
gp_status gp_spec_slice(gp_spec *spec, const char *slice);

// Appends an integer to the index; negative ones count from the end.
//
// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_spec_index(gp_spec *spec, int64_t index);

// Appends a tensor to the index: int32 or int64 indices, which broadcast against the other index tensors, or a bool
// mask (uint8 is a mask too, as in libtorch). As gp_value_dlpack says of `tensor` and `take`. GP_STATUS_REFUSED for
// another dtype.
//
// Thread: one at a time. NULL: refused. Errors: GP_STATUS_REFUSED. Since 0.1.0.
gp_status gp_spec_index_tensor(gp_spec *spec,
                               struct DLManagedTensorVersioned *tensor,
                               bool take);

// The spec zeroes.
//
// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_spec_zero(gp_spec *spec);

// The spec adds `value`.
//
// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_spec_add(gp_spec *spec, const gp_value *value);

// The spec writes `value`.
//
// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_spec_replace(gp_spec *spec, const gp_value *value);

// The spec keeps a copy of the last value. It takes no index.
//
// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_spec_probe(gp_spec *spec);

// The spec keeps a copy of every value, in order; of the first `limit` ones, if that is not 0. It takes no index.
//
// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_spec_record(gp_spec *spec,
                         uint64_t limit);

// The spec calls `callback` with `user` and the value. `user` must stay valid until the patch is removed and runs that
// began before have ended.
//
// Thread: one at a time. NULL: user. Errors: none of its own. Since 0.1.0.
gp_status gp_spec_custom(gp_spec *spec,
                         gp_callback callback,
                         void *user);

// The spec calls `callback` with `user` and the value, as gp_spec_custom, but with libtorch's own tensor, on any
// device; gradients go through what the function computes.
//
// Thread: one at a time. NULL: user. Errors: none of its own. Since 0.1.0.
gp_status gp_spec_custom_torch(gp_spec *spec,
                               gp_torch_callback callback,
                               void *user);

// Hands over the `user` of the spec's function: `release` is called with it, once and on whatever thread, when the spec
// and all patches that were registered from it are gone and runs that began with them have ended.
// GP_STATUS_ARGUMENT for a spec without a function, and where it was handed over already.
//
// Thread: one at a time. NULL: refused. Errors: GP_STATUS_ARGUMENT. Since 0.1.0.
gp_status gp_spec_release(gp_spec *spec,
                          gp_release release);

// To be returned by a gp_callback or gp_torch_callback that failed: keeps a copy of `why` (UTF-8; what is not becomes `?`,
// NULL says nothing) for the message of the patch that called it on this thread. Always 1.
//
// Thread: any. NULL: says nothing. Since 0.1.0.
int32_t gp_callback_fail(const char *why);

// The spec holds for these runs of its root only, counted from 0: "3", "2..", "0..4" (without 4).
//
// Thread: one at a time. NULL: refused. Errors: GP_STATUS_PARSE. Since 0.1.0.
gp_status gp_spec_runs(gp_spec *spec, const char *runs);

// Whether the spec holds only for runs on the thread that registers it.
//
// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_spec_this_thread(gp_spec *spec, bool only);

// Registers a patch from the spec, which stays the caller's and may be registered again. As gp_patch_add otherwise.
// GP_STATUS_ARGUMENT for a probe or record with an index.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_PATH. Since 0.1.0.
gp_status gp_patch_register(const gp_session *session,
                            const gp_spec *spec,
                            uint64_t *id);

// Registers a patch from each of the `n` specs, in order and all at once: a run begins with all of them or with none. `ids`
// receives `n` numbers. On error none is registered; GP_STATUS_PATH names every path that is no leaf. As gp_patch_register
// otherwise.
//
// Thread: any. NULL: refused, but for specs and ids where n is 0. Errors: GP_STATUS_ARGUMENT, GP_STATUS_PATH. Since 0.1.0.
gp_status gp_patch_register_all(const gp_session *session,
                                const gp_spec *const *specs,
                                size_t n,
                                uint64_t *ids);

// Registers a patch, `PATH[SLICE]=zero`, `...=add:VALUE` or `...=replace:VALUE`, `PATH=probe` or `PATH=record:LIMIT`,
// after the existing ones. VALUE is as in gp_value_text. It holds for runs that begin from now on, on any thread.
// `id` receives its number. What text cannot say, a gp_spec can.
//
// Errors: GP_STATUS_PARSE; GP_STATUS_PATH when graphs were recorded and none has such a leaf; GP_STATUS_FILE and
// GP_STATUS_FORMAT for a value's file.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_PARSE, GP_STATUS_PATH, GP_STATUS_FILE, GP_STATUS_FORMAT. Since 0.1.0.
gp_status gp_patch_add(const gp_session *session,
                       const char *patch,
                       uint64_t *id);

// Removes a patch, for runs that begin from now on. GP_STATUS_STATE when there is no such patch.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_STATE. Since 0.1.0.
gp_status gp_patch_remove(const gp_session *session, uint64_t id);

// Removes `n` patches at once: a run begins with all of them or with none. GP_STATUS_STATE when there is one that is
// not registered; the others are removed nevertheless.
//
// Thread: any. NULL: refused, but for ids where n is 0. Errors: GP_STATUS_ARGUMENT, GP_STATUS_STATE. Since 0.1.0.
gp_status gp_patch_remove_all(const gp_session *session,
                              const uint64_t *ids,
                              size_t n);

// Switches a patch off or on again, for runs that begin from now on; it keeps its place among the others.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_STATE. Since 0.1.0.
gp_status gp_patch_enable(const gp_session *session,
                          uint64_t id,
                          bool on);

// Opens a set: patches registered from now on belong to it, until gp_set_end removes them together. Sets nest.
// `set` receives its number.
//
// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_set_begin(const gp_session *session,
                       uint64_t *set);

// Removes all patches that were registered since the set was opened, inner sets with it. GP_STATUS_STATE when the
// set is not open.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_STATE. Since 0.1.0.
gp_status gp_set_end(const gp_session *session,
                     uint64_t set);

// How often a patch was met, applied, and failed so far. If the patch was removed before a run had reached it, and runs
// were `pending` then or when this was called before, this still tells what becomes of it; GP_STATUS_STATE then says that
// a run has reached it, and that none of them is under way any more.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_STATE. Since 0.1.0.
gp_status gp_patch_get_counts(const gp_session *session,
                              uint64_t id,
                              gp_patch_counts *out);

// Why a patch failed last; empty if it never did. `out` receives new text; free it with gp_string_free.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_STATE. Since 0.1.0.
gp_status gp_patch_last_error(const gp_session *session,
                              uint64_t id,
                              char **out);

// How many values the probe (0 or 1) or record `id` has kept, and how many came after a record's limit was reached
// (`dropped` may be NULL).
//
// Thread: any. NULL: dropped. Errors: GP_STATUS_STATE. Since 0.1.0.
gp_status gp_kept_count(const gp_session *session,
                        uint64_t id,
                        uint64_t *count,
                        uint64_t *dropped);

// Value number `index` that the probe or record `id` has kept: a plain number as a tensor without dimensions. `out`
// receives a new, read-only, row-major tensor in CPU memory (a CUDA value is read back now; on its own device after
// gp_spec_keep_on_device), which stays valid after the patch is gone; call its deleter to free it.
// GP_STATUS_ARGUMENT when there are not so many values.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_STATE, GP_STATUS_REFUSED. Since 0.1.0.
gp_status gp_kept_tensor(const gp_session *session,
                         uint64_t id,
                         uint64_t index,
                         struct DLManagedTensorVersioned **out);

// Saves what all probes and records of the session have kept as safetensors; a file that was there is replaced as a
// whole. A probe's value has its path as the key (`PATH~2` for the second probe of one path), a record's values have
// `PATH#0`, `PATH#1` and so on. Errors: GP_STATUS_FILE; GP_STATUS_REFUSED for a dtype that the format does not know,
// then nothing is written.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_FILE, GP_STATUS_REFUSED. Since 0.1.0.
gp_status gp_kept_save(const gp_session *session,
                       const char *file);

// Whether a session is attached that records or patches. It costs no more than reading a number, so a program asks
// before it prepares the arguments of gp_run_open and of the calls that follow it.
//
// Thread: any. Since 0.1.0.
bool gp_runs_wanted(void);

// Begins a run on this thread: until gp_run_end, operations that the thread calls are nodes of the root `name`. Does
// nothing while no attached session records or patches. GP_STATUS_STATE when a run is open on this thread. This and
// the three calls below answer GP_STATUS_TORCH before any session was attached.
//
// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
gp_status gp_run_begin(const char *name);

// Ends this thread's run, and the scopes that are open in it. Without one it does nothing.
//
// Thread: its own. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
gp_status gp_run_end(void);

// Says that a call begins on this thread of which nothing is wanted (`on`), or that it has ended: what runs in it is no
// run of its own, whatever other threads ask for meanwhile. To be called where gp_runs_wanted() answers false or
// gp_run_open() wants nothing, as often with false as with true; such calls may be nested. TorchScript modules, which
// begin runs by themselves, need it. Other hosts may leave it out.
//
// Thread: its own. Errors: none of its own. Since 0.1.0.
gp_status gp_run_decline(bool on);

// Enters the scope of a module, called by the attribute path `path` ("layers.8") from the scope around it. Does
// nothing outside a run. What is more than 1,000 scopes deep is neither recorded nor patched; the session has a note then.
//
// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
gp_status gp_scope_enter(const char *path);

// Leaves the innermost scope that gp_scope_enter entered. Does nothing outside a run.
//
// Thread: its own. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
gp_status gp_scope_leave(void);

// Sets the calls aside that are under way on this thread: its runs, the scopes that are open in them, and the calls that
// gp_run_decline told of. For a program that leaves a call in its middle, makes others on the same thread and goes back later,
// as fibers do; without this the others would be taken for parts of the first. It calls this right before it switches to another
// fiber, and gp_calls_take_up when it is back. `out` receives a new object, or NULL where no call is under way.
//
// Thread: its own. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_calls_set_aside(gp_aside **out);

// Goes on with calls that were set aside on this thread, and frees `aside`. NULL does nothing. GP_STATUS_STATE on another
// thread, and while other calls are under way on this one; `aside` is not freed then.
//
// Thread: its own. NULL: fine. Errors: GP_STATUS_STATE. Since 0.1.0.
gp_status gp_calls_take_up(gp_aside *aside);

// Frees calls that nobody goes on with, as their fiber was destroyed: their runs end as they stand. NULL is fine.
//
// Thread: the last. NULL: fine. Since 0.1.0.
void gp_aside_free(gp_aside *aside);

// Loads the adapter for the process's libtorch, as gp_session_attach does, without attaching a session: a session that
// is given to gp_run_open needs no more.
//
// Thread: any. Errors: GP_STATUS_TORCH, GP_STATUS_ADAPTER. Since 0.1.0.
gp_status gp_torch_load(void);

// A root: `name` names its graph, `class_name` is for people, `inputs` are the names of its forward's arguments, and
// `parameters` the attribute paths ("layers.0.weight") of all parameters and buffers below it. The inside of an
// `opaque` one (compiled code) is not looked at. `out` receives a new root; free it with gp_root_free.
//
// Thread: any. NULL: inputs and parameters with their number 0. Errors: none of its own. Since 0.1.0.
gp_status gp_root_new(const char *name,
                      const char *class_name,
                      const char *const *inputs,
                      size_t n_inputs,
                      const char *const *parameters,
                      size_t n_parameters,
                      bool opaque,
                      gp_root **out);

// Frees a root; runs of it go on. NULL is fine.
//
// Thread: the last. NULL: fine. Since 0.1.0.
void gp_root_free(gp_root *root);

// A scope: `module_path` is the module's attribute path below the nearest enclosing module that is called,
// `absolute_path` the one below the root; the rest is as in gp_root_new. `out` receives a new scope; free it with
// gp_scope_free.
//
// Thread: any. NULL: inputs with `n_inputs` 0. Errors: none of its own. Since 0.1.0.
gp_status gp_scope_new(const char *module_path,
                       const char *absolute_path,
                       const char *class_name,
                       const char *const *inputs,
                       size_t n_inputs,
                       bool opaque,
                       gp_scope **out);

// Frees a scope; calls of it go on. NULL is fine.
//
// Thread: the last. NULL: fine. Since 0.1.0.
void gp_scope_free(gp_scope *scope);

// Begins a run of `root` on this thread, until gp_run_end, for `session`, or for the attached one if that is NULL.
// `wants` receives bits of gp_wants; 0: nothing is wanted, and no run began (gp_run_end must not be called). `plan`
// (may be NULL) receives a number that changes with the patches that runs begin with; 0 without any. A run of a named
// session suspends one that is open on this thread; where nothing is wanted of it, what it does is the open run's.
// GP_STATUS_STATE where a run is open and `session` is NULL; GP_STATUS_TORCH before the adapter was loaded
// (gp_torch_load, gp_session_attach), as all calls below.
//
// Thread: its own. NULL: session, plan. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
gp_status gp_run_open(const gp_session *session,
                      const gp_root *root,
                      uint32_t *wants,
                      uint64_t *plan);

// Which tensors the root's parameters are in this run: their at::TensorImpl, in the order of gp_root_new; NULL for one
// that is not there. To be called after gp_run_open, where it is wanted.
//
// Thread: its own. NULL: tensors with `n` 0, and any of them. Errors: GP_STATUS_TORCH. Since 0.1.0.
gp_status gp_run_parameters(const void *const *tensors,
                            size_t n);

// Where this thread's run stands, for code of it that runs elsewhere: again later (activation checkpointing), or on
// another thread. `out` receives a new snapshot, to be freed with gp_snapshot_free, or NULL outside a run.
//
// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
gp_status gp_run_snapshot(gp_snapshot **out);

// Frees a snapshot. NULL is fine.
//
// Thread: the last. NULL: fine. Since 0.1.0.
void gp_snapshot_free(gp_snapshot *snapshot);

// Begins, on this thread and until gp_run_end, a run that stands where the other one stood: in the same scopes, with
// the same names given, under the same patches. With `record`, and if the other one is recorded, what it does is added
// to the graph. `wants` is the innermost scope's, `plan` as in gp_run_open; `wants` is 0 where nothing is wanted and
// no run began.
//
// Thread: its own. NULL: plan. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
gp_status gp_run_resume(const gp_snapshot *snapshot,
                        bool record,
                        uint32_t *wants,
                        uint64_t *plan);

// A module is called from the innermost scope; gp_scope_leave ends the call. `wants` receives bits of gp_wants, 0
// outside a run, and more than 1,000 scopes deep: nothing is recorded or patched there, and the session has a note.
//
// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
gp_status gp_scope_open(const gp_scope *scope,
                        uint32_t *wants);

// Instead of gp_scope_open: the next TorchScript module called on this thread, which reports its calls itself, is
// called as `scope`, which must live so long. `depth` receives what gp_scope_unwind takes.
//
// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
gp_status gp_scope_script(const gp_scope *scope,
                          uint32_t *depth);

// A call announced by gp_scope_script is over: leaves what an exception left open in it.
//
// Thread: its own. Errors: GP_STATUS_TORCH. Since 0.1.0.
gp_status gp_scope_unwind(uint32_t depth);

// The paths of the values that have appeared in this thread's run since the last call, each on a line, and counted from
// the root; the first call begins to keep them. Empty outside a run. The new text is freed with gp_string_free.
//
// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
gp_status gp_run_named(char **paths);

// The paths of what this run's patches name in the innermost scope and below it, each on a line, and counted from that
// scope. Empty outside a run. `any` receives whether patches of the run stand at patterns: then any value may be meant, and
// `paths` receives an empty text. The new text is freed with gp_string_free.
//
// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
gp_status gp_run_patched(bool *any,
                         char **paths);

// Compiled code is about to compute values of the innermost scope. `names`, each on a line, are those that nodes directly
// in that scope have, in the order of the operations. `fits` receives whether they get these names: not where the scope
// has named values before, nor while the run is recorded, nor outside a run. Then nothing has happened, and the
// operations have to be called one by one. Otherwise the operator graphpatch::tap, called with a value and its path from
// the innermost scope, applies the patches that stand there.
//
// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
gp_status gp_run_computes(const char *names,
                          bool *fits);

// Shows input number `index` of the innermost scope, before the module's code reads it. `structure` says what it is,
// in preorder: `T` a tensor (the next one of `tensors`; NULL for an undefined one), `N` None, `B0;` and `B1;` a bool,
// `I3;` an integer, `F0.5;` a float, `S5:hello` a string, `O4:Type` anything else by its type, and `(2;`, `[2;`, `{2;`
// a tuple, list or dict with so many elements after it; a dict's elements have their key in front, as `3:key`.
// `changed` receives how many leaves its patches changed: gp_scope_leaf has them. GP_STATUS_PARSE; GP_STATUS_REFUSED
// for a patch that cannot be applied.
//
// Thread: its own. NULL: tensors with `n` 0, and any of them. Errors: GP_STATUS_TORCH, GP_STATUS_PARSE,
// GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
gp_status gp_scope_input(uint32_t index,
                         const char *structure,
                         const void *const *tensors,
                         size_t n,
                         uint32_t *changed);

// Shows all inputs of the innermost scope at once: `structure` is a tuple of them, in order. Leaves are counted over
// all of them. Otherwise as gp_scope_input.
//
// Thread: its own. NULL: tensors with `n` 0, and any of them. Errors: GP_STATUS_TORCH, GP_STATUS_PARSE,
// GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
gp_status gp_scope_inputs(const char *structure,
                          const void *const *tensors,
                          size_t n,
                          uint32_t *changed);

// Shows what the innermost scope returns, before its caller sees it. `owned` says that the program holds each tensor
// in one place only and will take the changed one in its place, so that it may be changed where it lies. Otherwise as
// gp_scope_input.
//
// Thread: its own. NULL: tensors with `n` 0, and any of them. Errors: GP_STATUS_TORCH, GP_STATUS_PARSE,
// GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
gp_status gp_scope_output(const char *structure,
                          const void *const *tensors,
                          size_t n,
                          bool owned,
                          uint32_t *changed);

// Leaf number `index`, in preorder and counting everything that is no container, of the value that this thread showed
// last. GP_STATUS_ARGUMENT when it has not so many.
//
// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
gp_status gp_scope_leaf(size_t index,
                        gp_leaf *out);

// Has the library call `callback` with `user` when an operation or a call of a module is recorded for the first time,
// to learn where in the source it is. NULL: no callback. `user` must stay valid until another one is set and runs that
// began before have ended. A NULL session stands for the attached one; GP_STATUS_STATE without.
//
// Thread: any. NULL: session, callback, user. Errors: GP_STATUS_STATE. Since 0.1.0.
gp_status gp_session_source(const gp_session *session,
                            gp_source_callback callback,
                            void *user);

// Adds a frame: its file, the line (0: unknown), the function, and the line's text. NULL stands for what is not known.
//
// Thread: its own. NULL: file, function, code. Errors: none of its own. Since 0.1.0.
gp_status gp_frames_add(gp_frames *frames,
                        const char *file,
                        uint32_t line,
                        const char *function,
                        const char *code);

// What the library can do with this machine's CUDA: a line for the driver and one for each device, or one line that
// says why CUDA values are patched by libtorch's own operations instead of our kernels (no driver, an old one, no
// card, a card below compute capability 7.5). Loads the driver if need be; makes no context. `out` receives new text;
// free it with gp_string_free.
//
// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_cuda_status(char **out);

// Loads the kernels on CUDA device `device` and uploads the values and index tensors of the session's patches there.
// Otherwise that happens when a session attaches, a patch is registered, or a patch first meets a value on the device;
// but nothing can be loaded or uploaded while a CUDA graph is captured. GP_STATUS_STATE when the device cannot be
// used; gp_last_error() says why.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_STATE. Since 0.1.0.
gp_status gp_cuda_prepare(const gp_session *session,
                          uint32_t device);

// Whether the spec's patch can be switched and changed in CUDA graphs that were captured with it: its switch and its
// value are then read from device memory each time. gp_patch_enable and gp_patch_remove switch it, gp_patch_set_value
// changes it. A replay that is under way meanwhile may see the old or the new state.
//
// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_spec_live(gp_spec *spec,
                       bool live);

// Whether what the spec's probe or record keeps of CUDA values stays on the device: gp_kept_tensor then gives tensors
// there, without a copy. Otherwise a value is copied on the device when it appears, and to CPU memory when it is asked
// for. In a captured CUDA graph only a kept value that stays shows what the last replay wrote. GP_STATUS_ARGUMENT for
// a spec that keeps nothing.
//
// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
gp_status gp_spec_keep_on_device(gp_spec *spec,
                                 bool stay);

// Gives an add or replace another value: for runs that begin from now on, and, for a live patch (gp_spec_live), for
// every replay of a CUDA graph that was captured with it. A live patch's number must stay a number, its tensor a
// tensor of the same shape and dtype. GP_STATUS_STATE when there is no such patch, GP_STATUS_REFUSED when it takes no
// such value; it keeps its old one then.
//
// Thread: any. NULL: refused. Errors: GP_STATUS_STATE, GP_STATUS_REFUSED. Since 0.1.0.
gp_status gp_patch_set_value(const gp_session *session,
                             uint64_t id,
                             const gp_value *value);

// Listens for live control, by `graphpatch live` or any other client (docs/reference/live.md): a thread serves a unix socket that
// this user alone can open. A NULL session stands for the one of `graphpatch run`, else for a new one that is attached
// beside whatever the program attaches itself; libtorch must be loaded then. The session lives until gp_live_stop. A call
// for the session that is served already does nothing. A forked child does not listen, until it calls this itself.
//
// Thread: any. NULL: session. Errors: GP_STATUS_TORCH, GP_STATUS_ADAPTER, GP_STATUS_STATE, GP_STATUS_FILE. Since 0.1.0.
gp_status gp_live_start(const gp_session *session);

// Stops listening: the thread ends soon after, and removes the patches that came by the socket. Nothing happens where
// nobody listens.
//
// Thread: any. Errors: none of its own. Since 0.1.0.
gp_status gp_live_stop(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* GRAPHPATCH_H */
