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
/* Tensors cross as DLPack 1; include <dlpack/dlpack.h> to make or read one. */
struct DLManagedTensorVersioned;

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

// A patch to be: a path, an index and what to do. One thread at a time.
typedef struct gp_spec gp_spec;

// A number or a tensor. Any number of specs may use one; it may be freed once they have it. Any thread.
typedef struct gp_value gp_value;

// A function of the user's. `value` is the picked part of the tensor, read-only and borrowed for the call; in
// `replacement` the function may leave a tensor that broadcasts to it, which is then written in its place (and whose
// deleter is called when it is needed no more), or NULL to leave the value alone. Anything but 0 is a failure. It is
// called on the thread that runs the model, perhaps on several at once, and must not throw.
typedef int32_t (*gp_callback)(void *user,
                               struct DLManagedTensorVersioned *value,
                               struct DLManagedTensorVersioned **replacement);

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

// The children of the scope at `path` (NULL or "": the root) in graph number `index`, in order, one name a line. `out`
// receives new text, empty for a leaf; free it with gp_string_free. Errors: GP_STATUS_PARSE, GP_STATUS_PATH.
gp_status gp_graphs_children(const gp_graphs *graphs,
                             size_t index,
                             const char *path,
                             char **out);

// What was seen of the value at `path` (with a dig, of the element) in graph number `index`, as the tree shows it:
// "Tensor(1, 5..128, 768)", "tuple(2)", "int". `out` receives new text; free it with gp_string_free. Errors:
// GP_STATUS_PARSE; GP_STATUS_PATH for no such node and for a scope.
gp_status gp_graphs_shape(const gp_graphs *graphs,
                          size_t index,
                          const char *path,
                          char **out);

// What may come next behind `prefix` (a beginning of a path) in any of the graphs, one full path a line. `out`
// receives new text; free it with gp_string_free.
gp_status gp_graphs_complete(const gp_graphs *graphs,
                             const char *prefix,
                             char **out);

// Whether each of the `n` paths names a leaf of any of the graphs, so that a patch may stand there. GP_STATUS_PATH if
// not: the message lists every bad path, why, and its nearest valid completions.
gp_status gp_graphs_check(const gp_graphs *graphs,
                          const char *const *paths,
                          size_t n);

// Whether `path` is well-formed; `canonical` (may be NULL) receives it as it is printed, new text to be freed with
// gp_string_free. GP_STATUS_PARSE: the message names the character.
gp_status gp_path_parse(const char *path,
                        char **canonical);

// The same for a slice such as "[..., ::2]".
gp_status gp_slice_parse(const char *slice, char **canonical);

// Whether `slice` fits a tensor of `rank` sizes; `elements` (may be NULL) receives how many elements it picks.
// GP_STATUS_PARSE, GP_STATUS_SLICE.
gp_status gp_slice_check(const char *slice,
                         const int64_t *sizes,
                         size_t rank,
                         int64_t *elements);

// A value from text: a number as in a patch's text ("3", "-0.5", "true", "1+2j"), or "@FILE.npy" or
// "@FILE.safetensors#KEY", which is read now. `out` receives a new value; free it with gp_value_free. Errors:
// GP_STATUS_PARSE, GP_STATUS_FILE, GP_STATUS_FORMAT.
gp_status gp_value_text(const char *value,
                        gp_value **out);

// The integer `value`. As gp_value_text otherwise.
gp_status gp_value_int(int64_t value, gp_value **out);

// The real number `value`. As gp_value_text otherwise.
gp_status gp_value_float(double value, gp_value **out);

// A copy of a tensor in CPU memory, of any strides. With `take` the tensor is handed over, and its deleter is called
// before this returns, also on error; without, it is borrowed for the call. `out` receives a new value; free it with
// gp_value_free. GP_STATUS_REFUSED for a device, dtype or DLPack version that is not taken.
gp_status gp_value_dlpack(struct DLManagedTensorVersioned *tensor,
                          bool take,
                          gp_value **out);

// libtorch's own tensor, on any device: the at::TensorImpl* that at::Tensor::unsafeGetTensorImpl() gives. The value
// holds a reference of its own; gradients flow to the tensor if it requires them. `out` receives a new value; free it
// with gp_value_free. GP_STATUS_TORCH before any session was attached.
gp_status gp_value_torch(const void *tensor_impl,
                         gp_value **out);

// Frees a value. NULL is fine.
void gp_value_free(gp_value *value);

// A spec that zeroes the whole value at `path`. `out` receives a new spec; free it with gp_spec_free.
// GP_STATUS_PARSE.
gp_status gp_spec_new(const char *path,
                      gp_spec **out);

// Frees a spec; patches that were registered from it stay. NULL is fine.
void gp_spec_free(gp_spec *spec);

// Appends to the index what `slice` says ("[3, ::2]"). GP_STATUS_PARSE.
gp_status gp_spec_slice(gp_spec *spec, const char *slice);

// Appends an integer to the index; negative ones count from the end.
gp_status gp_spec_index(gp_spec *spec, int64_t index);

// Appends a tensor to the index: int32 or int64 indices, which broadcast against the other index tensors, or a bool
// mask (uint8 is a mask too, as in libtorch). As gp_value_dlpack says of `tensor` and `take`. GP_STATUS_REFUSED for another dtype.
gp_status gp_spec_index_tensor(gp_spec *spec,
                               struct DLManagedTensorVersioned *tensor,
                               bool take);

// The spec zeroes.
gp_status gp_spec_zero(gp_spec *spec);

// The spec adds `value`.
gp_status gp_spec_add(gp_spec *spec, const gp_value *value);

// The spec writes `value`.
gp_status gp_spec_replace(gp_spec *spec, const gp_value *value);

// The spec keeps a copy of the last value. It takes no index.
gp_status gp_spec_probe(gp_spec *spec);

// The spec keeps a copy of every value, in order; of the first `limit` ones, if that is not 0. It takes no index.
gp_status gp_spec_record(gp_spec *spec,
                         uint64_t limit);

// The spec calls `callback` with `user` and the value. `user` must stay valid until the patch is removed and runs that
// began before have ended.
gp_status gp_spec_custom(gp_spec *spec,
                         gp_callback callback,
                         void *user);

// The spec holds for these runs of its root only, counted from 0: "3", "2..", "0..4" (without 4). GP_STATUS_PARSE.
gp_status gp_spec_runs(gp_spec *spec,
                       const char *runs);

// Whether the spec holds only for runs on the thread that registers it.
gp_status gp_spec_this_thread(gp_spec *spec, bool only);

// Registers a patch from the spec, which stays the caller's and may be registered again. As gp_patch_add otherwise.
// GP_STATUS_ARGUMENT for a probe or record with an index.
gp_status gp_patch_register(const gp_session *session,
                            const gp_spec *spec,
                            uint64_t *id);

// Registers a patch, `PATH[SLICE]=zero`, `...=add:VALUE` or `...=replace:VALUE`, `PATH=probe` or `PATH=record:LIMIT`,
// behind those that are there. VALUE is as in gp_value_text. It holds for runs that begin from now on, on any thread.
// `id` receives its number. What text cannot say, a gp_spec can.
//
// Errors: GP_STATUS_PARSE; GP_STATUS_PATH when graphs were recorded and none has such a leaf; GP_STATUS_FILE and
// GP_STATUS_FORMAT for a value's file.
gp_status gp_patch_add(const gp_session *session,
                       const char *patch,
                       uint64_t *id);

// Takes a patch away, for runs that begin from now on. GP_STATUS_STATE when there is no such patch.
gp_status gp_patch_remove(const gp_session *session, uint64_t id);

// Switches a patch off or on again, for runs that begin from now on; it keeps its place among the others.
gp_status gp_patch_enable(const gp_session *session,
                          uint64_t id,
                          bool on);

// Opens a set: patches registered from now on belong to it, until gp_set_end takes them away together. Sets nest.
// `set` receives its number.
gp_status gp_set_begin(const gp_session *session,
                       uint64_t *set);

// Takes away all patches that were registered since the set was opened, inner sets with it. GP_STATUS_STATE when the
// set is not open.
gp_status gp_set_end(const gp_session *session,
                     uint64_t set);

// How often a patch was met, applied, and failed so far.
gp_status gp_patch_get_counts(const gp_session *session, uint64_t id, gp_patch_counts *out);

// Why a patch failed last; empty if it never did. `out` receives new text; free it with gp_string_free.
gp_status gp_patch_last_error(const gp_session *session,
                              uint64_t id,
                              char **out);

// How many values the probe (0 or 1) or record `id` has kept, and how many came after a record's limit was reached
// (`dropped` may be NULL).
gp_status gp_kept_count(const gp_session *session,
                        uint64_t id,
                        uint64_t *count,
                        uint64_t *dropped);

// Value number `index` that the probe or record `id` has kept: a plain number as a tensor without dimensions. `out`
// receives a new, read-only, row-major tensor in CPU memory (a CUDA value is read back now; on its own device after
// gp_spec_keep_on_device), which stays valid whatever becomes of the patch; call its
// deleter to free it. GP_STATUS_ARGUMENT when there are not so many values.
gp_status gp_kept_tensor(const gp_session *session,
                         uint64_t id,
                         uint64_t index,
                         struct DLManagedTensorVersioned **out);

// Saves what all probes and records of the session have kept as safetensors; a file that was there is replaced as a
// whole. A probe's value has its path as the key (`PATH~2` for the second probe of one path), a record's values have
// `PATH#0`, `PATH#1` and so on. Errors: GP_STATUS_FILE; GP_STATUS_REFUSED for a dtype that the format does not know,
// then nothing is written.
gp_status gp_kept_save(const gp_session *session,
                       const char *file);

// Begins a run on this thread: until gp_run_end, operations that the thread calls are nodes of the root `name`. Does
// nothing while no attached session records or patches. GP_STATUS_STATE when a run is open on this thread. This and the
// three calls below answer GP_STATUS_TORCH before any session was attached.
gp_status gp_run_begin(const char *name);

// Ends this thread's run, and the scopes that are open in it. Without one it does nothing.
gp_status gp_run_end(void);

// Enters the scope of a module, called by the attribute path `path` ("layers.8") from the scope around it. Does
// nothing outside a run.
gp_status gp_scope_enter(const char *path);

// Leaves the innermost scope that gp_scope_enter entered. Does nothing outside a run.
gp_status gp_scope_leave(void);

// What this machine's CUDA is good for: a line for the driver and one for each device, or one line that says why CUDA
// values are patched by libtorch's own operations instead of our kernels (no driver, an old one, no card, a card below
// compute capability 7.5). Loads the driver if need be; makes no context. `out` receives new text; free it with
// gp_string_free.
gp_status gp_cuda_status(char **out);

// Loads the kernels on CUDA device `device` and uploads the values and index tensors of the session's patches there.
// Otherwise that happens when a session attaches, a patch is registered, or a patch first meets a value on the device;
// but nothing can be loaded or uploaded while a CUDA graph is captured. GP_STATUS_STATE when the device cannot be used;
// gp_last_error() says why.
gp_status gp_cuda_prepare(const gp_session *session,
                          uint32_t device);

// Whether the spec's patch can be switched and changed in CUDA graphs that were captured with it: its switch and its
// value are then read from device memory each time. gp_patch_enable and gp_patch_remove switch it, gp_patch_set_value
// changes it. A replay that is under way meanwhile may see the old or the new state.
gp_status gp_spec_live(gp_spec *spec,
                       bool live);

// Whether what the spec's probe or record keeps of CUDA values stays on the device: gp_kept_tensor then gives tensors
// there, without a copy. Otherwise a value is copied on the device when it appears, and to CPU memory when it is asked
// for. In a captured CUDA graph only a kept value that stays shows what the last replay wrote. GP_STATUS_ARGUMENT for a
// spec that keeps nothing.
gp_status gp_spec_keep_on_device(gp_spec *spec,
                                 bool stay);

// Gives an add or replace another value: for runs that begin from now on, and, for a live patch (gp_spec_live), for
// every replay of a CUDA graph that was captured with it. A live patch's number must stay a number, its tensor a tensor
// of the same shape and dtype. GP_STATUS_STATE when there is no such patch, GP_STATUS_REFUSED when it takes no such
// value; it keeps its old one then.
gp_status gp_patch_set_value(const gp_session *session,
                             uint64_t id,
                             const gp_value *value);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* GRAPHPATCH_H */
