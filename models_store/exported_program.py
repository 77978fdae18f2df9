"""The JSON of an exported program, checked against a closed schema before torch builds anything of it.

Field names and meaning: torch/_export/serde/schema.py of torch 2.13 (schema version 8.20). torch makes Python source of
names, resolves operators by walking through its own modules, imports modules that a tree of arguments names, and
evaluates sizes and guards; so each of these has a rule here. Custom objects, tokens and named tuples have none.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from models_store.errors import InvalidModel
from models_store.expressions import check_guard, check_size

DEPTH_MAX = 64
TREE_DEPTH_MAX = 16
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_MODULE = re.compile(r"[A-Za-z0-9_.@]*")
_RANGE = re.compile(r"[a-z]{1,4}[0-9]{1,6}")
_FLOATS = ("Infinity", "-Infinity", "NaN")

_OPERATORS = re.compile(
    r"torch\.ops\.aten\.[a-z_][A-Za-z0-9_]*\.[A-Za-z][A-Za-z0-9_]*"
    r"|torch\.ops\.higher_order\.(cond|while_loop|map_impl|scan|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|torch\.sym_(max|min|not|float|int|ite|sum)"
    r"|math\.(ceil|floor|trunc)"
)
_OUTSIDE = re.compile(r"torch\.ops\.aten\.(from_file|save|load|_?print|warn)\b")
"""Operators of aten that open files or write to the terminal."""

_RECORDS: dict[str, dict[str, str]] = {
    "ExportedProgram": {
        "graph_module": "GraphModule", "opset_version": "{}whole", "range_constraints": "{}Range",
        "schema_version": "SchemaVersion", "verifiers": "[]name", "torch_version": "text", "guards_code": "[]guard",
    },
    "SchemaVersion": {"major": "whole", "minor": "whole"},
    "Range": {"min_val": "?whole", "max_val": "?whole"},
    "GraphModule": {
        "graph": "Graph", "signature": "Signature", "module_call_graph": "[]ModuleCall", "metadata": "{}text",
        "treespec_namedtuple_fields": "{}nothing",
    },
    "Graph": {
        "inputs": "[]Argument", "outputs": "[]Argument", "nodes": "[]Node", "tensor_values": "{}TensorMeta",
        "sym_int_values": "{}SymInt", "sym_bool_values": "{}SymBool", "is_single_tensor_return": "bool",
        "custom_obj_values": "{}nothing", "sym_float_values": "{}SymFloat",
    },
    "Node": {
        "target": "operator", "inputs": "[]NamedArgument", "outputs": "[]Argument", "metadata": "{}text",
        "is_hop_single_tensor_return": "?bool", "name": "?name",
    },
    "NamedArgument": {"name": "name or empty", "arg": "Argument", "kind": "?whole"},
    "TensorMeta": {
        "dtype": "whole", "sizes": "[]SymInt", "requires_grad": "bool", "device": "Device", "strides": "[]SymInt",
        "storage_offset": "SymInt", "layout": "whole",
    },
    "Device": {"type": "name", "index": "?whole"},
    "Expression": {"expr_str": "size", "hint": "?Hint"},
    "Named": {"name": "name"},
    "GraphArgument": {"name": "name", "graph": "Graph"},
    "Complex": {"real": "float", "imag": "float"},
    "Signature": {"input_specs": "[]InputSpec", "output_specs": "[]OutputSpec"},
    "UserInput": {"arg": "Argument"},
    "Parameter": {"arg": "Named", "parameter_name": "path"},
    "Buffer": {"arg": "Named", "buffer_name": "path", "persistent": "bool"},
    "BufferMutation": {"arg": "Named", "buffer_name": "path"},
    "TensorConstant": {"arg": "Named", "tensor_constant_name": "path"},
    "ConstantInput": {"name": "name", "value": "Constant"},
    "OnlyTensor": {"arg": "Named"},
    "UserInputMutation": {"arg": "Named", "user_input_name": "name"},
    "ModuleCall": {"fqn": "module", "signature": "?CallSignature"},
    "CallSignature": {
        "inputs": "[]Argument", "outputs": "[]Argument", "in_spec": "tree", "out_spec": "tree",
        "forward_arg_names": "?[]name",
    },
    "PayloadConfig": {"config": "paths{}Payload"},
    "Payload": {"path_name": "name", "is_param": "bool", "use_pickle": "false", "tensor_meta": "TensorMeta"},
}  # fmt: skip
"""Objects: the fields that may be there, with their kinds. `[]` list, `{}` object by name, `?` or null."""

_UNIONS: dict[str, dict[str, str]] = {
    "Hint": {"as_int": "whole", "as_bool": "bool", "as_float": "float"},
    "SymInt": {"as_expr": "Expression", "as_int": "whole"},
    "SymFloat": {"as_expr": "Expression", "as_float": "float"},
    "SymBool": {"as_expr": "Expression", "as_bool": "bool"},
    "NamedInt": {"as_name": "name", "as_int": "whole"},
    "NamedFloat": {"as_name": "name", "as_float": "float"},
    "NamedBool": {"as_name": "name", "as_bool": "bool"},
    "OptionalTensor": {"as_tensor": "Named", "as_none": "bool"},
    "Constant": {"as_none": "bool", "as_int": "whole", "as_float": "float", "as_string": "text", "as_bool": "bool"},
    "InputSpec": {
        "user_input": "UserInput", "parameter": "Parameter", "buffer": "Buffer", "tensor_constant": "TensorConstant",
        "constant_input": "ConstantInput",
    },
    "OutputSpec": {
        "user_output": "UserInput", "loss_output": "OnlyTensor", "buffer_mutation": "BufferMutation",
        "user_input_mutation": "UserInputMutation", "parameter_mutation": "Parameter",
    },
    "Argument": {
        "as_none": "bool", "as_tensor": "Named", "as_tensors": "[]Named", "as_int": "whole", "as_ints": "[]whole",
        "as_float": "float", "as_floats": "[]float", "as_string": "text", "as_strings": "[]text",
        "as_sym_int": "NamedInt", "as_sym_ints": "[]NamedInt", "as_scalar_type": "whole", "as_memory_format": "whole",
        "as_layout": "whole", "as_device": "Device", "as_bool": "bool", "as_bools": "[]bool",
        "as_sym_bool": "NamedBool", "as_sym_bools": "[]NamedBool", "as_graph": "GraphArgument",
        "as_optional_tensors": "[]OptionalTensor", "as_operator": "operator", "as_sym_float": "NamedFloat",
        "as_sym_floats": "[]NamedFloat", "as_optional_tensor": "OptionalTensor", "as_complex": "Complex",
        "as_nested_tensors": "[][]Named", "as_int_lists": "[][]whole", "as_float_lists": "[][]float",
        "as_string_to_argument": "{}Argument",
    },
}  # fmt: skip
"""Objects with exactly one of these fields."""


def check_program(content: bytes) -> None:
    """Raises InvalidModel unless `models/model.json` is what torch writes for a program of tensors alone."""
    program = load_json(content)
    _check("ExportedProgram", program, 0)
    _refuse_unless(all(_RANGE.fullmatch(name) for name in program.get("range_constraints", {})), "a range")


def check_payload(content: bytes) -> dict[str, dict[str, Any]]:
    """The members of a `..._config.json`, raw tensors all of them: none pickled. Raises InvalidModel."""
    config = load_json(content)
    _check("PayloadConfig", config, 0)
    _refuse_unless("config" in config, "a list of tensors")
    return config["config"]


def load_json(content: bytes | str) -> Any:
    try:
        text = content if isinstance(content, str) else content.decode()
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise InvalidModel("a file of the archive is not JSON") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _check(kind: str, value: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise InvalidModel("the exported program is nested too deep")
    for inner, member in _members(kind, value):
        _check(inner, member, depth + 1)


def _members(kind: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What is inside a value, with the kind that it must be of; nothing once the value itself is checked."""
    if kind.startswith("?"):
        if value is not None:
            yield kind[1:], value
    elif kind.startswith("[]"):
        _refuse_unless(type(value) is list, "a list")
        yield from ((kind[2:], member) for member in value)
    elif "{}" in kind:
        keys, _, inner = kind.partition("{}")
        pattern = _PATH if keys else _NAME
        _refuse_unless(type(value) is dict and all(pattern.fullmatch(name) for name in value), "a name")
        yield from ((inner, member) for member in value.values())
    elif kind in _RECORDS or kind in _UNIONS:
        yield from _fields(kind, value)
    else:
        _refuse_unless(_SCALARS[kind](value), f"a {kind}")


def _fields(kind: str, value: Any) -> Iterator[tuple[str, Any]]:
    fields = _RECORDS.get(kind) or _UNIONS[kind]
    known = type(value) is dict and value.keys() <= fields.keys()
    _refuse_unless(known and (kind in _RECORDS or len(value) == 1), f"a {kind}")
    yield from ((fields[name], member) for name, member in value.items())


def _is_operator(value: Any) -> bool:
    return type(value) is str and bool(_OPERATORS.fullmatch(value)) and not _OUTSIDE.match(value)


def _is_expression(check: Callable[[str], None]) -> Callable[[Any], bool]:
    def is_expression(value: Any) -> bool:
        if type(value) is str:
            check(value)
        return type(value) is str

    return is_expression


def _is_tree(value: Any) -> bool:
    """`[1, node]`, in JSON, of tuples, lists, objects with names as keys, and leaves."""
    tree = load_json(value) if type(value) is str else None
    return type(tree) is list and len(tree) == 2 and tree[0] == 1 and _is_branch(tree[1], TREE_DEPTH_MAX)


def _is_branch(node: Any, depth: int) -> bool:
    if not depth or type(node) is not dict or node.keys() != {"type", "context", "children_spec"}:
        return False
    children, context = node["children_spec"], node["context"]
    if type(children) is not list or not all(_is_branch(child, depth - 1) for child in children):
        return False
    match node["type"]:
        case None:
            return context is None and not children
        case "builtins.tuple" | "builtins.list":
            return context == "null"
        case "builtins.dict":
            keys = load_json(context) if type(context) is str else None
            return type(keys) is list and all(_is_name(key) for key in keys)
    return False


def _matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: type(value) is str and bool(pattern.fullmatch(value))


_is_name = _matches(_NAME)
_SCALARS: dict[str, Callable[[Any], bool]] = {
    "whole": lambda value: type(value) is int,
    "bool": lambda value: type(value) is bool,
    "false": lambda value: value is False,
    "float": lambda value: type(value) in (int, float) or value in _FLOATS,
    "text": lambda value: type(value) is str,
    "name": _is_name,
    "name or empty": lambda value: value == "" or _is_name(value),
    "path": _matches(_PATH),
    "module": _matches(_MODULE),
    "operator": _is_operator,
    "size": _is_expression(check_size),
    "guard": _is_expression(check_guard),
    "tree": _is_tree,
    "nothing": lambda _value: False,
}


def _refuse_unless(holds: Any, what: str) -> None:
    if not holds:
        raise InvalidModel(f"the exported program holds {what} that this node does not take")
