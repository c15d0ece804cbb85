/* The whole contract between the Rust core and the C++ adapter: plain structs and two function tables.
 *
 * No type of libtorch and no number of it appears here; the adapter translates. Both sides check
 * GP_SEAM_VERSION when they meet; `seam_generated.rs` is generated from this file (`make generate`).
 *
 * Ownership: every pointer that a call receives is borrowed for that call, unless said otherwise.
 * Threads: the core owns the state of each thread; a call that speaks of "the run" means the one of the calling thread.
 * Errors: no C++ exception and no Rust panic crosses. The core answers with flags, the adapter with a GpStr
 * that is empty when all went well.
 */
#ifndef GRAPHPATCH_SEAM_H
#define GRAPHPATCH_SEAM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GP_SEAM_VERSION 14u

/* UTF-8 text, not terminated. */
typedef struct GpStr {
  const char* data;
  size_t size;
} GpStr;

enum GpTag {
  GP_TENSOR = 0,
  GP_UNDEFINED = 1, /* a tensor slot without a tensor */
  GP_NONE = 2,
  GP_BOOL = 3,
  GP_INT = 4,
  GP_FLOAT = 5,
  GP_COMPLEX = 6,
  GP_STR = 7,
  GP_TUPLE = 8,
  GP_LIST = 9,
  GP_DICT = 10,
  GP_OTHER = 11
};

enum GpDtype {
  GP_DTYPE_OTHER = 0,
  GP_BOOL8 = 1,
  GP_U8 = 2,
  GP_I8 = 3,
  GP_I16 = 4,
  GP_I32 = 5,
  GP_I64 = 6,
  GP_F16 = 7,
  GP_BF16 = 8,
  GP_F32 = 9,
  GP_F64 = 10,
  GP_C32 = 11,
  GP_C64 = 12,
  GP_C128 = 13,
  GP_U16 = 14,
  GP_U32 = 15,
  GP_U64 = 16,
  GP_F8_E4M3FN = 17,
  GP_F8_E5M2 = 18,
  GP_F8_E4M3FNUZ = 19,
  GP_F8_E5M2FNUZ = 20
};

/* A plain number. */
typedef struct GpScalar {
  uint8_t tag; /* GP_BOOL, GP_INT, GP_FLOAT, GP_COMPLEX */
  int64_t i;   /* bool and int */
  double re;   /* float, and the complex number's parts */
  double im;
} GpScalar;

/* One element of a value in preorder: a container is followed by its elements. */
typedef struct GpItem {
  uint8_t tag;         /* GpTag */
  uint8_t dtype;       /* GpDtype of a tensor */
  int16_t device_index; /* -1: none */
  uint32_t count;      /* tensor: rank; tuple, list, dict: direct elements */
  const int64_t* sizes; /* tensor: `count` sizes */
  const void* identity; /* tensor: same pointer, same tensor, as long as the run lasts */
  const char* device;  /* tensor: static ASCII text such as "cpu", "cuda" */
  const char* layout;  /* tensor: static ASCII text such as "strided" */
  const char* dtype_name; /* tensor: static ASCII text such as "float32" */
  GpStr key;           /* the element's key, if its container is a dict; an argument's keyword */
  GpStr text;          /* GP_OTHER: the type's name; GP_STR: the text; a tensor that is an argument: the text to write if
               * no node has it, or empty */
  GpScalar number;     /* GP_BOOL, GP_INT, GP_FLOAT, GP_COMPLEX */
} GpItem;

/* A place in the user's source, as libtorch knows it. */
typedef struct GpFrame {
  GpStr file;
  GpStr function;
  GpStr text; /* the line itself */
  uint32_t line;
} GpFrame;

/* One leaf of a value that a program has shown, after its patches were applied. */
typedef struct GpLeaf {
  uint32_t changed;
  const void* tensor; /* at::TensorImpl, alive until the thread shows its next value; NULL where there is none */
  GpScalar number;
} GpLeaf;

/* One step of a dig into a container: index for tuples and lists, key for dicts. */
typedef struct GpStep {
  int64_t index; /* -1: a key only */
  GpStr key;
} GpStep;

/* A tensor of the core's, dense and row-major, or one of libtorch's that the adapter holds. */
typedef struct GpTensorArg {
  const void* data;
  const int64_t* sizes;
  uint32_t rank;
  uint8_t dtype;  /* GpDtype */
  void* foreign;  /* not NULL: the handle that tensor_from_torch gave; all else is empty */
} GpTensorArg;

enum GpSliceTag {
  GP_SLICE_INDEX = 0,
  GP_SLICE_RANGE = 1,
  GP_SLICE_ELLIPSIS = 2,
  GP_SLICE_NEWAXIS = 3,
  GP_SLICE_TENSOR = 4 /* integer indices or a boolean mask */
};

typedef struct GpSliceItem {
  uint8_t tag;       /* GpSliceTag */
  uint8_t has_start; /* 0: the bound is missing, as it may be in Python */
  uint8_t has_stop;
  uint8_t reserved;
  int64_t start; /* index, or start of the range */
  int64_t stop;
  int64_t step;
  const GpTensorArg* tensor;
} GpSliceItem;

enum GpAction { GP_ZERO = 0, GP_ADD = 1, GP_REPLACE = 2, GP_KEEP = 3, GP_CUSTOM = 4, GP_CUSTOM_TORCH = 5 };

/* One patch at one leaf of the value at hand; lives as long as the run. */
typedef struct GpTarget {
  uint32_t patch;  /* the core's number for it */
  uint8_t action;  /* GpAction */
  uint8_t raises;  /* 1: a failure is thrown into the program; 0: it is only noted */
  uint8_t tensors; /* 1: the path is a pattern, so values that are not tensors are skipped */
  GpStr text;      /* the patch as a person reads it */
  GpScalar value;  /* add, replace: a number, */
  const GpTensorArg* tensor; /* or, where this is not NULL, a tensor */
  void* callback;  /* custom: a gp_callback of the C header; custom_torch: a gp_torch_callback */
  void* user;      /* its first argument */
  const GpStep* dig;
  size_t dig_len;
  const GpSliceItem* slice; /* slice_len 0: the whole value */
  size_t slice_len;
} GpTarget;

/* A strided tensor in CPU memory that may be written. */
typedef struct GpTensor {
  void* data; /* the element at index 0, 0, ... */
  const int64_t* sizes;
  const int64_t* strides; /* in elements */
  uint32_t rank;
  uint8_t dtype; /* GpDtype */
} GpTensor;

/* A strided tensor in the memory of a CUDA device, to be read and written in the order of `stream`. */
typedef struct GpDeviceTensor {
  GpTensor tensor;
  int32_t device;
  uint32_t reserved;
  void* stream; /* libtorch's current cudaStream_t of that device */
} GpDeviceTensor;

/* A copy of a CUDA value that libtorch has made and that the core keeps: see keep_on_device. */
typedef struct GpKept {
  void* handle; /* given back by kept_free */
  const int64_t* sizes;
  uint32_t rank;
  uint8_t dtype; /* GpDtype */
} GpKept;

/* Opaque, owned by the core. */
typedef struct GpScope GpScope; /* what is known of a scope before it runs; freed by scope_free */
typedef struct GpTargets GpTargets; /* what an array of targets points into; freed by targets_free */

typedef struct GpScopeInfo {
  GpStr module_path;   /* attribute path below the nearest enclosing called module; "" for a root */
  GpStr absolute_path; /* attribute path below the root; "" for a root */
  GpStr class_name;    /* for people */
  const GpStr* inputs; /* names of forward's arguments */
  size_t n_inputs;
} GpScopeInfo;

typedef struct GpRootInfo {
  GpScope* scope;
  GpStr name;               /* what is called: class and method */
  const GpStr* parameters;  /* attribute paths below the root, in the order run_parameters gives them */
  size_t n_parameters;
} GpRootInfo;

typedef struct GpRoot GpRoot; /* freed by root_free */

/* What is wanted of a scope, as bits. Those that gp_wants of the C header also has are equal to it. */
enum GpWants {
  GP_WANTS_INPUTS = 1,      /* its inputs are wanted */
  GP_WANTS_OUTPUT = 2,      /* its output is wanted */
  GP_WANTS_INSIDE = 4,      /* something in it or below it matters */
  GP_WANTS_PARAMETERS = 8,  /* of a run: call run_parameters */
  GP_WANTS_RECORD = 16,     /* the run is recorded */
  GP_WANTS_OPERATIONS = 32, /* intercept operations in this scope */
  GP_WANTS_IGNORED = 64,    /* no call of this scope from the one around it matters */
  GP_WANTS_OPERANDS = 128,  /* call `operands` before each operation, input of a child, and output */
  GP_WANTS_SOURCE = 256     /* call scope_source if the lines that the scope is called from are known */
};

/* From this bit on, the number of the scope's place among the patches, counted from 1. Two scopes at the same place are wanted
 * in the same way, as long as the plan stays the same. */
#define GP_WANTS_SITE_SHIFT 16

/* The state of a thread. The core owns and writes it, on that thread alone; the adapter only reads it, except where it enters
 * or leaves a scope of which nothing is wanted. */
typedef struct GpThread {
  uint32_t run;         /* 1: a run is open */
  uint32_t wants;       /* GpWants of the innermost scope; 0 before the root's code has begun, and where nothing is wanted */
  uint32_t frame;       /* a number that no other scope of the run has */
  uint32_t outer_wants; /* GpWants of the scope around, and its number */
  uint32_t outer_frame;
  uint32_t cold; /* 0: something is wanted of the innermost scope, or none is open. Otherwise the number of open scopes of
                  * which nothing is wanted: to enter a further one, and to leave any but the first, the adapter
                  * adds or takes 1 and makes no call */
  uint32_t armed; /* 1: operations of the innermost scope are to be intercepted */
  uint64_t families; /* bits of op_define: an operation whose bit is not among them needs no value_begin */
  uint64_t scopes; /* bits of scope_define: nothing is wanted of a scope whose bit is not among them. The adapter may enter
                    * it without a call: it sets `cold` to 1, this struct's other fields about the innermost scope to
                    * 0, and lets operations pass where no flat run wants them. scope_leave ends that */
  uint32_t declined; /* calls of roots that are open of which nothing is wanted */
  uint32_t flat; /* 1: operations outside of other runs are in flat runs; 2: the same, and one is open */
  uint32_t flat_now; /* 1: the run is the flat one, for the time of one operation */
  const void* node; /* the node of the backward pass in which the run began, or NULL */
  void* held; /* what the adapter has given to `hold` for this run, or NULL */
} GpThread;

/* A value that has begun. It belongs to the run and the scope in which it began, whatever is called before it appears. */
typedef struct GpToken {
  uint64_t run;
  uint32_t serial;
  uint32_t depth;
  uint32_t kind; /* GpValueKind */
  uint32_t id;
  uint32_t base; /* its name: the base, and the number or -1 */
  int32_t number;
  uint32_t site; /* its place among the patches, counted from 1; 0: none */
  uint32_t reserved;
} GpToken;

/* How a flat run goes on. */
enum GpNext {
  GP_NEXT_GO_ON = 0,
  GP_NEXT_OVER = 1 /* nothing is wanted of it any more */
};

/* Answers of value_begin: what is wanted of the value that is about to appear. */
enum GpValueFlags {
  GP_VALUE_ITEMS = 1, /* call value_items with the (patched) value */
  GP_VALUE_TARGETS = 2, /* apply the targets that value_targets gives */
  GP_VALUE_ARGS = 4, /* call value_args before the value appears */
  GP_VALUE_INSIDE = 8, /* compute the values inside of the operation and show them: see inner */
  GP_VALUE_INSIDE_TARGETS = 16 /* patches stand there */
};

enum GpValueKind {
  GP_VALUE_OP = 0,
  GP_VALUE_INPUT = 1,
  GP_VALUE_OUTPUT = 2,
  GP_VALUE_INPUTS = 3 /* for `value` only */,
  GP_VALUE_UNSEEN = 4 /* for `inner` only */
};

/* The values inside of an attention, in their order. */
enum GpAttention {
  GP_ATTENTION_QUERY = 0,
  GP_ATTENTION_KEY = 1,
  GP_ATTENTION_VALUE = 2,
  GP_ATTENTION_SCORES = 3,
  GP_ATTENTION_MASK = 4,
  GP_ATTENTION_MASKED_SCORES = 5,
  GP_ATTENTION_PROBABILITIES = 6,
  GP_ATTENTION_OUTPUT = 7
};

/* What an operand is for the scope that reads it. */
enum GpOperand {
  GP_OPERAND_PLAIN = 0,
  GP_OPERAND_PATCHED = 1, /* a parameter that the core has patches for: see parameter_targets */
  GP_OPERAND_UNDESCRIBED = 2 /* a parameter that is to be recorded: call `operand` */
};

enum GpVerdict {
  GP_APPLIED = 0,
  GP_SKIPPED = 1,
  GP_RAISE = 2,
  GP_ELSEWHERE = 3 /* apply only: nothing was written; do it with libtorch and call applied_elsewhere */
};

enum GpActive {
  GP_DETACHED = 0, /* no session */
  GP_IDLE = 1, /* a session that neither records nor patches */
  GP_WANTED = 2
};

/* How a call of a compiled model gives a value: its argument is the address of the data, the handle of a tensor, or the address
 * where the call stores such a handle. */
enum GpHow { GP_HOW_DATA = 0, GP_HOW_HANDLE = 1, GP_HOW_RESULT = 2 };

/* An argument of a call of a compiled model that is a value when the call has returned. */
typedef struct GpOutput {
  uint8_t how; /* GpHow */
  uint32_t position; /* among the arguments that are passed as integers or pointers */
} GpOutput;

enum GpShows {
  GP_SHOWS_ALL = 0, /* the outputs of the call */
  GP_SHOWS_ONE = 1, /* one of them */
  GP_SHOWS_NOTHING = 2 /* the value was fused away, as `text` says */
};

/* A node of a compiled model. */
typedef struct GpNode {
  const void* place; /* the core's */
  uint32_t operation; /* op_define */
  uint8_t shows; /* GpShows */
  uint8_t reshaped; /* 1: the value has `sizes` in the model; a number n below 0 is the size of an input: its dimension
                     * (-1 - n) % 64 of input (-1 - n) / 64 */
  uint32_t output;
  const int64_t* sizes;
  size_t rank;
  const uint32_t* order; /* the value's dimensions in the order of memory; NULL: its elements have the order of the tensor's */
  GpStr text; /* what became of a value that was fused away */
} GpNode;

/* A call that a compiled model makes in a run. */
typedef struct GpCall {
  GpStr symbol;
  uint32_t integers; /* how many arguments are passed as integers or pointers, and as floating-point numbers */
  uint32_t floats;
  const GpOutput* outputs;
  size_t n_outputs;
  const GpNode* nodes;
  size_t n_nodes;
} GpCall;

/* The inside of a model that AOTInductor has compiled, as the sources in its package tell it. Lives as long as the process. */
typedef struct GpPackage {
  GpRoot* root;
  GpScope* scope; /* the root's; it is entered where the model is called inside a run */
  const GpCall* calls; /* in the order of the model's run */
  size_t n_calls;
  size_t n_inputs;
} GpPackage;

/* What the core offers to the adapter. */
typedef struct GpCore {
  uint32_t version; /* GP_SEAM_VERSION */
  uint32_t size; /* sizeof(GpCore) */

  /* A GpActive. A process in which nothing is wanted looks at nothing else. */
  const uint32_t* active;

  /* Definitions. Each may be made once and used by any number of runs. */
  /* Returns the operator's number, and sets the bit of its family (see GpThread). */
  uint32_t (*op_define)(GpStr schema_name, uint64_t* family);
  /* Notes that this process has an operator, defined or not: its name with its namespace, without its overload. */
  void (*op_exists)(GpStr name);
  /* Sets `family` to the bit of the scope's family (see GpThread). */
  GpScope* (*scope_define)(const GpScopeInfo* info, uint64_t* family);
  void (*scope_free)(GpScope* scope);
  GpRoot* (*root_define)(const GpRootInfo* info);
  void (*root_free)(GpRoot* root);

  /* The state of the calling thread; the same pointer as long as the thread lives. */
  GpThread* (*thread)(void);

  /* A call of a TorchScript root begins, for the attached session. Returns GpWants. If these are 0, the adapter leaves this
   * call, and the calls inside of it, alone until call_end. */
  uint32_t (*call_begin)(GpRoot* root);
  void (*call_end)(void);
  /* The code of a root begins: of the run's own root, or of one that is called inside a run, as `scope` or as the host
   * announced. */
  uint32_t (*root_enter)(GpScope* scope);
  /* The tensors that are the root's parameters. The adapter keeps their addresses in use while the run lasts. */
  void (*run_parameters)(const void* const* identities, size_t n);
  void (*run_end)(void);
  /* Hands over an object that lives as long as the run and everything that continues it. The core returns it by held_free. */
  void (*hold)(void* held);
  /* Called around a call of a function of the user's. Models that the function runs are not part of the run. */
  void (*function_begin)(void);
  void (*function_end)(void);
  uint32_t (*scope_enter)(GpScope* scope);
  void (*scope_leave)(void);
  /* The place that the innermost scope is called from, innermost frame last. */
  void (*scope_source)(const GpFrame* frames, size_t n_frames);

  /* Operands that are about to be read: the identities of tensors. Sets answers[i] to a GpOperand. level 0 is the present
   * scope, level 1 the scope around it (for an input that is being passed in). */
  void (*operands)(uint32_t level, const void* const* identities, size_t n, uint8_t* answers);
  /* An operand that was GP_OPERAND_UNDESCRIBED, in the order of the operands. Returns what it is now. */
  uint32_t (*operand)(uint32_t level, const GpItem* tensor);
  /* The targets for the parameter `identity` in the scope at `level`; as value_targets. `frame` gets the number of the scope
   * that the patched copy belongs to, where that is a scope around. */
  size_t (*parameter_targets)(uint32_t level, const void* identity, uint32_t* frame, GpTargets** owner,
                              const GpTarget** targets);

  /* A value is about to appear: an operation's result (id: from op_define), or an input (id: its index) or the output of the
   * present scope. This decides the value's name, so it is called once for each value, in order. Returns GpValueFlags. `token`
   * stands for the value in the calls below, and has no meaning if the flags are 0. */
  uint32_t (*value_begin)(uint32_t kind, uint32_t id, GpToken* token);
  /* What the value is made from, each argument in preorder and keyword arguments with their key: an operation's arguments, the
   * input as the caller gave it, or the output before its patches. For an operation, also where it is called, innermost frame
   * last. */
  void (*value_args)(const GpToken* token, const GpItem* items, size_t n, const GpFrame* frames, size_t n_frames);
  /* The targets at the value's place. They live until targets_free(owner). */
  size_t (*value_targets)(const GpToken* token, GpTargets** owner, const GpTarget** targets);
  void (*targets_free)(GpTargets* owner);
  void (*value_items)(const GpToken* token, const GpItem* items, size_t n);
  /* The operation threw: its node is dropped. */
  void (*value_abandon)(const GpToken* token);

  /* Applies one target to a tensor whose memory may be written. GP_RAISE: the adapter has to throw failure(). */
  uint32_t (*apply)(const GpTarget* target, const GpTensor* tensor);
  /* For a target that keeps values: 0 if its limit is reached, so that no further copy is wanted. */
  uint32_t (*keep_wanted)(const GpTarget* target);
  /* Keeps a copy of the tensor. The tensor does not change. */
  uint32_t (*keep)(const GpTarget* target, const GpTensor* tensor);
  /* The same as apply and keep for a plain number. */
  uint32_t (*apply_scalar)(const GpTarget* target, GpScalar* number);
  /* The adapter has applied the target through libtorch, or could not. `why` is empty if it has. rank is SIZE_MAX if there is
   * no shape. */
  uint32_t (*applied_elsewhere)(const GpTarget* target, GpStr why, const int64_t* sizes, size_t rank);
  GpStr (*failure)(void);

  /* A note for the user about a root: what was lost, or why the root was left alone. */
  void (*note)(GpStr text);
  /* 1 if a session that `note` now reaches meets this number for the first time: for a note whose text is costly to make. The
   * number stands for the text. */
  uint32_t (*first_note)(uint64_t about);

  /* Applies one target to a CUDA tensor whose memory may be written. `value` is the target's tensor if that is libtorch's and
   * on the same device, else NULL. Answers as apply. If `more` targets follow, the launch may wait for flush_device, which must
   * be called before anything else reads or writes the tensor, and which gives the verdict then. */
  uint32_t (*apply_on_device)(const GpTarget* target, const GpDeviceTensor* tensor, const GpDeviceTensor* value, uint32_t more);
  uint32_t (*flush_device)(void);
  /* Keeps a copy that libtorch has enqueued. The core owns the handle from now on, whatever the answer is. */
  uint32_t (*keep_on_device)(const GpTarget* target, const GpKept* kept);
  /* 1 while work for the stream goes into a CUDA graph. */
  uint32_t (*is_capturing)(const void* stream);

  /* Sets whether the thread's operations outside of other runs are in flat runs. When switched off, its flat run ends. */
  void (*flat_thread)(uint32_t on);
  /* Begins a flat run for the attached session, in place of the one before. Its thread calls flat_next before each operation. A
   * flat run may enter a scope again that it has left. Returns GpWants; 0: nothing is wanted. */
  uint32_t (*flat_begin)(GpRoot* root, const void* const* identities, size_t n);
  uint32_t (*flat_next)(void); /* GpNext */
  /* From now on these are the root's parameters. They begin with the parameters of the root before, at the same indices. The
   * adapter keeps their addresses in use. */
  void (*flat_root)(GpRoot* root, const void* const* identities, size_t n);
  /* Makes the flat run the thread's run for one operation, or ends that. */
  void (*flat_now)(uint32_t on);
  void (*flat_end)(void);

  /* Called before the adapter takes a lock, or lets others take theirs, and after that. A fork of the process waits until no
   * thread is between the two calls, so that the child finds these locks free. Calls nest. */
  void (*lock_enter)(void);
  void (*lock_leave)(void);

  /* Compiled code has computed the value at this path, counted from the innermost scope. Returns 0 if no patch of the run names
   * the value; otherwise `token` stands for it, and only value_targets may be called with that token. */
  uint32_t (*tap)(GpStr path, GpToken* token);

  /* Reads the sources beside the library of a model that AOTInductor has compiled. NULL if its inside cannot be seen: then
   * `why` is set, which stays until the thread calls this again. */
  const GpPackage* (*package_read)(GpStr library, GpStr* why);
  /* The model has computed the value of this node. Answers as value_begin; the node's name needs no finding out. */
  uint32_t (*computed)(const GpNode* node, GpToken* token);

  /* Value `which` (a GpAttention) inside of the operation `outer`, which has not been given by value_items yet, is there.
   * `kind` and `id` as for value_begin; GP_VALUE_UNSEEN: the value cannot be computed, and its targets are to be told so.
   * Answers as value_begin. The values come in their order. The last one is the operation's result, after its own patches. */
  uint32_t (*inner)(const GpToken* outer, uint32_t which, uint32_t kind, uint32_t id, GpToken* token);
} GpCore;

/* What the adapter offers to the core. */
typedef struct GpAdapter {
  uint32_t version; /* GP_SEAM_VERSION */
  uint32_t size; /* sizeof(GpAdapter) */
  GpStr libtorch_version;
  /* Called when the first session attaches, and again until it succeeds once. Installs the hooks, which stay as long as the
   * process. */
  GpStr (*start)(void);
  /* Sets whether libtorch tells of calls of TorchScript functions, on every thread; on at first. A process in which no session
   * is attached pays nothing for them. */
  void (*listen)(uint32_t on);
  /* Sets whether operations of this thread are intercepted from now on. */
  void (*arm)(uint32_t on);
  /* Lets all operations of this thread pass, also inside an operation that is intercepted. Returns the state before. */
  uint32_t (*suspend)(void);
  void (*resume)(uint32_t before);
  /* The node of a backward pass that this thread computes, or NULL. */
  const void* (*node)(void);
  /* For an object that was given to `hold`: a frame was left or the run has ended (both on the run's own thread), and nobody
   * uses the object any more (on any thread). */
  void (*held_leave)(void* held, uint32_t frame);
  void (*held_end)(void* held);
  void (*held_free)(void* held);
  /* Keeps the addresses of these tensors in use while the run of this thread lasts. */
  void (*keep_addresses)(const void* const* identities, size_t n);
  /* Shows an input or the output of the present scope, or all its inputs as a tuple (GP_VALUE_INPUTS). A tensor's identity is
   * its at::TensorImpl. With `owned`, the caller holds each tensor in one place only, and drops it if it is changed. `changed`
   * receives how many leaves changed. */
  GpStr (*value)(uint32_t kind, uint32_t index, const GpItem* items, size_t n, uint32_t owned, uint32_t* changed);
  /* Leaf number `index`, in preorder, of the value last shown on this thread. 0: no such leaf. */
  uint32_t (*leaf)(size_t index, GpLeaf* out);
  /* A new reference to the tensor behind an at::TensorImpl, which the core returns by tensor_free. NULL for an undefined
   * tensor. */
  void* (*tensor_from_torch)(const void* tensor_impl);
  void (*tensor_free)(void* tensor);
  /* Calls for a copy that keep_on_device handed over. kept_read writes its elements, row-major, into `bytes` of CPU memory, and
   * waits only for them. kept_lend makes a DLManagedTensorVersioned of it on its device, or returns NULL. kept_free drops it.
   * Any thread. */
  GpStr (*kept_read)(void* kept, void* bytes, size_t size);
  void* (*kept_lend)(void* kept);
  void (*kept_free)(void* kept);
  /* flat_start: from now on the operations of some threads are in flat runs of the root `operations`. If names are given
   * ("embedding", or "wte.embedding" for an embedding that reads a parameter of the module wte), a new run begins at each call
   * of such an operation; without names, a run is as long as its thread. flat_thread: the calling thread is one of those
   * threads. flat_forked: this process is a forked child, and the run of its one thread begins anew. */
  void (*flat_start)(const GpStr* run_at, size_t n);
  void (*flat_thread)(void);
  void (*flat_forked)(void);
  /* Called around a call of a libtorch member function in which libtorch does the host's own work, which gives no nodes. In
   * own_leave, `module` is the torch::nn::Module that the function was called on, or NULL. */
  void (*own_enter)(void);
  void (*own_leave)(const void* module);
  /* modules_start: from now on the core tells of calls of the forward functions of torch::nn modules, around each of them.
   * module_enter: `module` may be any address; returns 0 if it is no known module whose call is part of the thread's flat run,
   * or the call's number otherwise, with which it is left. The call of a model's outermost module is a run of its own.
   * module_output: the at::Tensor that the innermost call returns, in the caller's memory. If that is not sure, the word there
   * is a tensor only if an operation has given it lately. */
  void (*modules_start)(void);
  uint64_t (*module_enter)(const void* module);
  void (*module_output)(uint64_t call, void* tensor, uint32_t is_sure);
  void (*module_leave)(uint64_t call);
} GpAdapter;

/* The one exported symbol of the adapter: `graphpatch_adapter_entry`. NULL when the versions differ. */
typedef const GpAdapter* (*GpAdapterEntry)(const GpCore* core);

#ifdef __cplusplus
}
#endif
#endif
