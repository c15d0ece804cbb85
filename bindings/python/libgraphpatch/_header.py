"""The C header as ctypes has it: numbers, structs, callbacks and calls under the header's names, and the
exception that each status stands for. Generated from include/graphpatch.h (`make generate`).

A pointer to text that is borrowed is a c_char_p; every other pointer that a call takes, and every function, is an
address.
"""

from __future__ import annotations

from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char,
    c_char_p,
    c_double,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any, Final

from .errors import AdapterError, GraphPatchError, PatchError, PathError


ABI_VERSION: Final = 0

GP_STATUS_OK: Final = 0
GP_STATUS_ARGUMENT: Final = 1
GP_STATUS_PARSE: Final = 2
GP_STATUS_PATH: Final = 3
GP_STATUS_SLICE: Final = 4
GP_STATUS_REFUSED: Final = 5
GP_STATUS_FILE: Final = 6
GP_STATUS_FORMAT: Final = 7
GP_STATUS_TORCH: Final = 8
GP_STATUS_ADAPTER: Final = 9
GP_STATUS_STATE: Final = 10
GP_STATUS_INTERNAL: Final = 99

GP_ON_ERROR_RAISE: Final = 0
GP_ON_ERROR_SKIP: Final = 1

GP_WANTS_INPUTS: Final = 1
GP_WANTS_OUTPUT: Final = 2
GP_WANTS_INSIDE: Final = 4
GP_WANTS_PARAMETERS: Final = 8
GP_WANTS_RECORD: Final = 16
GP_WANTS_OPERATIONS: Final = 32
GP_WANTS_IGNORED: Final = 64

GP_NODE_KIND_INPUT: Final = 1
GP_NODE_KIND_PARAMETER: Final = 2
GP_NODE_KIND_OP: Final = 3
GP_NODE_KIND_SCOPE: Final = 4
GP_NODE_KIND_OUTPUT: Final = 5
GP_NODE_KIND_ELEMENT: Final = 6

GP_VALUE_KIND_TENSOR: Final = 1
GP_VALUE_KIND_INT: Final = 2
GP_VALUE_KIND_FLOAT: Final = 4
GP_VALUE_KIND_BOOL: Final = 8
GP_VALUE_KIND_COMPLEX: Final = 16
GP_VALUE_KIND_STR: Final = 32
GP_VALUE_KIND_NONE: Final = 64
GP_VALUE_KIND_TUPLE: Final = 128
GP_VALUE_KIND_LIST: Final = 256
GP_VALUE_KIND_DICT: Final = 512
GP_VALUE_KIND_OTHER: Final = 1024

# How far a number of gp_wants is shifted to the right for the scope's place among the patches.
GP_WANTS_PLACE_SHIFT: Final = 16

# By gp_status.
EXCEPTIONS: Final[dict[int, type[Exception]]] = {
    GP_STATUS_ARGUMENT: ValueError,
    GP_STATUS_PARSE: ValueError,
    GP_STATUS_PATH: PathError,
    GP_STATUS_SLICE: ValueError,
    GP_STATUS_REFUSED: PatchError,
    GP_STATUS_FILE: OSError,
    GP_STATUS_FORMAT: ValueError,
    GP_STATUS_TORCH: AdapterError,
    GP_STATUS_ADAPTER: AdapterError,
    GP_STATUS_STATE: GraphPatchError,
    GP_STATUS_INTERNAL: GraphPatchError,
}


class gp_node(Structure):
    size: int
    kind: int
    value: int
    seen: int
    rank: int
    children: int
    _fields_ = [
        ("size", c_size_t),
        ("kind", c_uint32),
        ("value", c_uint32),
        ("seen", c_uint32),
        ("rank", c_uint32),
        ("children", c_size_t),
    ]


class gp_patch_counts(Structure):
    size: int
    matched: int
    applied: int
    failed: int
    pending: int
    _fields_ = [
        ("size", c_size_t),
        ("matched", c_uint64),
        ("applied", c_uint64),
        ("failed", c_uint64),
        ("pending", c_uint64),
    ]


class gp_leaf(Structure):
    size: int
    changed: bool
    number: bytes
    tensor: int | None
    integer: int
    real: float
    _fields_ = [
        ("size", c_size_t),
        ("changed", c_bool),
        ("number", c_char),
        ("tensor", c_void_p),
        ("integer", c_int64),
        ("real", c_double),
    ]


gp_callback = CFUNCTYPE(c_int32, c_void_p, c_void_p, POINTER(c_void_p))
gp_torch_callback = CFUNCTYPE(c_int32, c_void_p, c_void_p, POINTER(c_void_p))
gp_release = CFUNCTYPE(None, c_void_p)
gp_source_callback = CFUNCTYPE(None, c_void_p, c_void_p)

# By name: what a call answers, and what it takes.
CALLS: Final[dict[str, tuple[Any, list[Any]]]] = {
    "gp_last_error": (c_char_p, []),
    "gp_version": (c_char_p, []),
    "gp_abi_version": (c_uint32, []),
    "gp_string_free": (None, [c_void_p]),
    "gp_session_open": (c_int32, [c_void_p]),
    "gp_session_close": (None, [c_void_p]),
    "gp_session_attach": (c_int32, [c_void_p]),
    "gp_session_detach": (c_int32, [c_void_p]),
    "gp_session_record": (c_int32, [c_void_p, c_bool]),
    "gp_session_inside": (c_int32, [c_void_p, c_char_p, c_bool]),
    "gp_session_on_error": (c_int32, [c_void_p, c_uint32]),
    "gp_session_runs": (c_int32, [c_void_p, c_void_p]),
    "gp_session_note": (c_int32, [c_void_p, c_char_p]),
    "gp_session_notes": (c_int32, [c_void_p, c_void_p]),
    "gp_session_missed": (c_int32, [c_void_p, c_void_p]),
    "gp_session_graphs": (c_int32, [c_void_p, c_void_p]),
    "gp_graphs_load": (c_int32, [c_char_p, c_void_p]),
    "gp_graphs_save": (c_int32, [c_void_p, c_char_p]),
    "gp_graphs_free": (None, [c_void_p]),
    "gp_graphs_count": (c_size_t, [c_void_p]),
    "gp_graphs_name": (c_char_p, [c_void_p, c_size_t]),
    "gp_graphs_tree": (c_int32, [c_void_p, c_size_t, c_char_p, c_void_p]),
    "gp_graphs_children": (c_int32, [c_void_p, c_size_t, c_char_p, c_void_p]),
    "gp_graphs_shape": (c_int32, [c_void_p, c_size_t, c_char_p, c_void_p]),
    "gp_graphs_code": (c_int32, [c_void_p, c_size_t, c_char_p, c_void_p]),
    "gp_graphs_json": (c_int32, [c_void_p, c_size_t, c_void_p]),
    "gp_graphs_complete": (c_int32, [c_void_p, c_char_p, c_void_p]),
    "gp_graphs_check": (c_int32, [c_void_p, c_void_p, c_size_t]),
    "gp_graphs_node": (c_int32, [c_void_p, c_size_t, c_char_p, c_void_p]),
    "gp_graphs_sizes": (c_int32, [c_void_p, c_size_t, c_char_p, c_void_p, c_void_p, c_size_t]),
    "gp_graphs_child": (c_int32, [c_void_p, c_size_t, c_char_p, c_size_t, c_void_p, c_void_p]),
    "gp_graphs_find": (c_int32, [c_void_p, c_size_t, c_char_p, c_char_p, c_void_p]),
    "gp_graphs_search": (c_int32, [c_void_p, c_size_t, c_char_p, c_char_p, c_char_p, c_char_p, c_void_p]),
    "gp_path_parse": (c_int32, [c_char_p, c_void_p]),
    "gp_slice_parse": (c_int32, [c_char_p, c_void_p]),
    "gp_slice_check": (c_int32, [c_char_p, c_void_p, c_size_t, c_void_p]),
    "gp_value_text": (c_int32, [c_char_p, c_void_p]),
    "gp_value_int": (c_int32, [c_int64, c_void_p]),
    "gp_value_float": (c_int32, [c_double, c_void_p]),
    "gp_value_dlpack": (c_int32, [c_void_p, c_bool, c_void_p]),
    "gp_value_torch": (c_int32, [c_void_p, c_void_p]),
    "gp_value_tensor": (c_int32, [c_void_p, c_void_p]),
    "gp_value_free": (None, [c_void_p]),
    "gp_spec_new": (c_int32, [c_char_p, c_void_p]),
    "gp_spec_free": (None, [c_void_p]),
    "gp_spec_slice": (c_int32, [c_void_p, c_char_p]),
    "gp_spec_index": (c_int32, [c_void_p, c_int64]),
    "gp_spec_index_tensor": (c_int32, [c_void_p, c_void_p, c_bool]),
    "gp_spec_zero": (c_int32, [c_void_p]),
    "gp_spec_add": (c_int32, [c_void_p, c_void_p]),
    "gp_spec_replace": (c_int32, [c_void_p, c_void_p]),
    "gp_spec_probe": (c_int32, [c_void_p]),
    "gp_spec_record": (c_int32, [c_void_p, c_uint64]),
    "gp_spec_custom": (c_int32, [c_void_p, c_void_p, c_void_p]),
    "gp_spec_custom_torch": (c_int32, [c_void_p, c_void_p, c_void_p]),
    "gp_spec_release": (c_int32, [c_void_p, c_void_p]),
    "gp_callback_fail": (c_int32, [c_char_p]),
    "gp_spec_runs": (c_int32, [c_void_p, c_char_p]),
    "gp_spec_this_thread": (c_int32, [c_void_p, c_bool]),
    "gp_patch_register": (c_int32, [c_void_p, c_void_p, c_void_p]),
    "gp_patch_register_all": (c_int32, [c_void_p, c_void_p, c_size_t, c_void_p]),
    "gp_patch_add": (c_int32, [c_void_p, c_char_p, c_void_p]),
    "gp_patch_remove": (c_int32, [c_void_p, c_uint64]),
    "gp_patch_remove_all": (c_int32, [c_void_p, c_void_p, c_size_t]),
    "gp_patch_enable": (c_int32, [c_void_p, c_uint64, c_bool]),
    "gp_set_begin": (c_int32, [c_void_p, c_void_p]),
    "gp_set_end": (c_int32, [c_void_p, c_uint64]),
    "gp_patch_get_counts": (c_int32, [c_void_p, c_uint64, c_void_p]),
    "gp_patch_last_error": (c_int32, [c_void_p, c_uint64, c_void_p]),
    "gp_kept_count": (c_int32, [c_void_p, c_uint64, c_void_p, c_void_p]),
    "gp_kept_tensor": (c_int32, [c_void_p, c_uint64, c_uint64, c_void_p]),
    "gp_kept_save": (c_int32, [c_void_p, c_char_p]),
    "gp_runs_wanted": (c_bool, []),
    "gp_run_begin": (c_int32, [c_char_p]),
    "gp_run_end": (c_int32, []),
    "gp_run_decline": (c_int32, [c_bool]),
    "gp_scope_enter": (c_int32, [c_char_p]),
    "gp_scope_leave": (c_int32, []),
    "gp_calls_set_aside": (c_int32, [c_void_p]),
    "gp_calls_take_up": (c_int32, [c_void_p]),
    "gp_aside_free": (None, [c_void_p]),
    "gp_torch_load": (c_int32, []),
    "gp_root_new": (c_int32, [c_char_p, c_char_p, c_void_p, c_size_t, c_void_p, c_size_t, c_bool, c_void_p]),
    "gp_root_free": (None, [c_void_p]),
    "gp_scope_new": (c_int32, [c_char_p, c_char_p, c_char_p, c_void_p, c_size_t, c_bool, c_void_p]),
    "gp_scope_free": (None, [c_void_p]),
    "gp_run_open": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p]),
    "gp_run_parameters": (c_int32, [c_void_p, c_size_t]),
    "gp_run_snapshot": (c_int32, [c_void_p]),
    "gp_snapshot_free": (None, [c_void_p]),
    "gp_run_resume": (c_int32, [c_void_p, c_bool, c_void_p, c_void_p]),
    "gp_scope_open": (c_int32, [c_void_p, c_void_p]),
    "gp_scope_script": (c_int32, [c_void_p, c_void_p]),
    "gp_scope_unwind": (c_int32, [c_uint32]),
    "gp_run_named": (c_int32, [c_void_p]),
    "gp_run_patched": (c_int32, [c_void_p, c_void_p]),
    "gp_run_computes": (c_int32, [c_char_p, c_void_p]),
    "gp_scope_input": (c_int32, [c_uint32, c_char_p, c_void_p, c_size_t, c_void_p]),
    "gp_scope_inputs": (c_int32, [c_char_p, c_void_p, c_size_t, c_void_p]),
    "gp_scope_output": (c_int32, [c_char_p, c_void_p, c_size_t, c_bool, c_void_p]),
    "gp_scope_leaf": (c_int32, [c_size_t, c_void_p]),
    "gp_session_source": (c_int32, [c_void_p, c_void_p, c_void_p]),
    "gp_frames_add": (c_int32, [c_void_p, c_char_p, c_uint32, c_char_p, c_char_p]),
    "gp_cuda_status": (c_int32, [c_void_p]),
    "gp_cuda_prepare": (c_int32, [c_void_p, c_uint32]),
    "gp_spec_live": (c_int32, [c_void_p, c_bool]),
    "gp_spec_keep_on_device": (c_int32, [c_void_p, c_bool]),
    "gp_patch_set_value": (c_int32, [c_void_p, c_uint64, c_void_p]),
    "gp_live_start": (c_int32, [c_void_p]),
    "gp_live_stop": (c_int32, []),
}
