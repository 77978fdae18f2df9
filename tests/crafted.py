"""Files made to run code when somebody opens them: each would create the canary file, none may.

`files` gives more than 200 of them, with the formats as which a node may take each one.
"""

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVERY_FORMAT = (None, "safetensors", "share", "torchscript", "torch_export", "opaque")
PAYLOADS: dict[str, Callable[[str], tuple[Callable[..., Any], tuple[Any, ...]]]] = {
    "os.system": lambda canary: (os.system, (f"touch {canary}",)),
    "os.mkdir": lambda canary: (os.mkdir, (canary,)),
    "open": lambda canary: (open, (canary, "w")),
    "eval": lambda canary: (eval, (f"open({canary!r}, 'w')",)),
    "exec": lambda canary: (exec, (f"open({canary!r}, 'w')",)),
    "os.symlink": lambda canary: (os.symlink, ("/", canary)),
}
HONEST = "honest.pt2"


@dataclass(frozen=True)
class Crafted:
    """`taken`: what a declaration is answered with; where nothing is said, refused (declared) or opaque (not)."""

    name: str
    content: bytes
    taken: dict[str | None, str]

    def expected(self, declared: str | None) -> str:
        return self.taken.get(declared, "refused" if declared not in (None, "opaque") else "opaque")


class Armed:
    """Pickles as a call."""

    def __init__(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._reduced = (call, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._reduced


def pickled(canary: Path, payload: str = "open", protocol: int = 2) -> bytes:
    return pickle.dumps(Armed(*PAYLOADS[payload](str(canary))), protocol)


def files(canary: Path, exported: bytes, scripted: bytes) -> Iterator[Crafted]:
    """`exported` and `scripted`: honest archives of torch, whose entries are exchanged."""
    for payload in PAYLOADS:
        for protocol in (0, 1, 2, 4, 5):
            yield from _disguises(f"{payload}-{protocol}", pickled(canary, payload, protocol))
    yield from _exported(canary, exported)
    yield from _scripted(canary, scripted)
    yield from _bombs(exported, scripted)


def _disguises(name: str, bad: bytes) -> Iterator[Crafted]:
    """One pickle in the clothes of other things."""
    saved = {"a/data.pkl": bad, "a/version": b"3\n", "a/byteorder": b"little", "a/data/0": bytes(8)}
    yield Crafted(f"{name}.pkl", bad, {})
    yield Crafted(f"{name}.pt", zipped(saved), {})
    yield Crafted(f"{name}.old.pt", pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + bad, {})
    yield Crafted(f"{name}.gz", gzip.compress(bad), {})
    yield Crafted(f"{name}.length", struct.pack("<Q", len(bad)) + bad, {})
    yield Crafted(f"{name}.tail", safetensors({"w": ("U8", [4])}, bytes(4)) + bad, {})
    # a tensor of bytes may hold anything; it is never more than a tensor
    held = safetensors({"w": ("U8", [len(bad)])}, bad)
    yield Crafted(f"{name}.safetensors", held, {None: "safetensors", "safetensors": "safetensors"})


def _exported(canary: Path, honest: bytes) -> Iterator[Crafted]:
    for name, changes in attacks(canary, honest).items():
        yield Crafted(f"{name}.pt2", changed(honest, changes), {})
    bad = pickled(canary)
    yield Crafted("prefixed.pt2", bad + honest, {})
    yield Crafted("followed.pt2", honest + bad, {})
    yield Crafted("commented.pt2", honest[:-2] + struct.pack("<H", len(bad)) + bad, {})
    yield Crafted("twice.pt2", honest + honest, {})
    yield Crafted("cut.pt2", honest[:-1], {})
    yield Crafted(
        "samples.pt2", changed(honest, {"data/sample_inputs/model.pt": bad}), {"torch_export": "torch_export"}
    )


def attacks(canary: Path, honest: bytes) -> dict[str, dict[str, bytes]]:
    """Entries of an exported program that run code, by the way in which they do."""
    bad, code = pickled(canary), f"open({str(canary)!r}, 'w')"
    program = json.loads(entries(honest)["models/model.json"])
    weights = json.loads(entries(honest)["data/weights/model_weights_config.json"])
    first = next(iter(weights["config"]))
    return {
        "weight": {
            "data/weights/model_weights_config.json": _json(
                weights, lambda all_: all_["config"][first].update(use_pickle=True)
            ),
            "data/weights/weight_0": bad,
        },
        "opaque": _constant("opaque_obj_0", bad),
        "custom": _constant("custom_obj_0", bad),
        "old-weights": {"data/weights/model.pt": bad},
        "old-constants": {"data/constants/model.pt": bad},
        "library": {"data/aotinductor/model/x.so": bad},
        "second": {"models/other.json": b"{}", "data/sample_inputs/other.pt": bad},
        "extra": {"extra/x.pkl": bad},
        "case": {"MODELS/model.json": b"{}"},
        **{name: {"models/model.json": _json(program, change)} for name, change in _programs(code).items()},
    }


def _programs(code: str) -> dict[str, Callable[[Any], Any]]:
    size = {"as_expr": {"expr_str": code, "hint": None}}
    tree = {
        "type": "collections.defaultdict",
        "context": {"default_factory_module": "antigravity"},
        "children_spec": [],
    }
    enum = {
        "type": "builtins.tuple",
        "context": '{"__enum__": 1, "fqn": "antigravity:x", "name": "x"}',
        "children_spec": [],
    }

    def graph(program: Any) -> Any:
        return program["graph_module"]["graph"]

    def signature(program: Any) -> Any:
        return program["graph_module"]["module_call_graph"][0]["signature"]

    return {
        "size": lambda program: graph(program)["tensor_values"]["x"]["sizes"].__setitem__(0, size),
        "guard": lambda program: program["guards_code"].append(code),
        "guard-comment": lambda program: program["guards_code"].append(f"(L['x'].size()[0] == 4 #\n) or {code}"),
        "guard-keyword": lambda program: program["guards_code"].append(f"L['x'].size(x={code})[0] == 4"),
        "operator": lambda program: graph(program)["nodes"][0].update(target="torch.os.system"),
        "file-operator": lambda program: graph(program)["nodes"][0].update(target="torch.ops.aten.from_file.default"),
        "tree": lambda program: signature(program).update(in_spec=json.dumps([1, tree])),
        "enum": lambda program: signature(program).update(in_spec=json.dumps([1, enum])),
        "argument": lambda program: signature(program).update(forward_arg_names=[f"x={code}"]),
        "node": lambda program: graph(program)["nodes"][0].update(name=f"x\n{code}"),
        "unknown": lambda program: program.update(hook=code),
    }


def _constant(name: str, bad: bytes) -> dict[str, bytes]:
    payload = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
    config = json.dumps({"config": {"c": payload}}).encode()
    return {"data/constants/model_constants_config.json": config, f"data/constants/{name}": bad}


def _json(value: Any, change: Callable[[Any], Any]) -> bytes:
    copy = json.loads(json.dumps(value))
    change(copy)
    return json.dumps(copy).encode()


def _scripted(canary: Path, honest: bytes) -> Iterator[Crafted]:
    bad = pickled(canary)
    yield Crafted("extra.ts", changed(honest, {"hook.pkl": bad}), {})
    yield Crafted("lite.ts", changed(honest, {"bytecode.pkl": bad}), {})
    yield Crafted("path.ts", changed(honest, {"code/../../../x.py": bad}), {})
    yield Crafted("prefixed.ts", bad + honest, {})
    # torch's own reader of these knows no Python; the file is opened in a confined process alone
    yield Crafted("data.ts", changed(honest, {"data.pkl": bad}), {"torchscript": "torchscript"})


def _bombs(exported: bytes, scripted: bytes) -> Iterator[Crafted]:
    zeros = bytes(80 * 1024 * 1024)
    packed = zipfile.ZIP_DEFLATED
    yield Crafted("bomb.pt2", changed(exported, {"data/weights/weight_0": zeros}, packed), {})
    yield Crafted("bomb.ts", changed(scripted, {"code/__torch__.py": zeros}, packed), {})
    yield Crafted("many.pt2", zipped({f"a/{number}": b"" for number in range(70_000)}), {})
    yield Crafted("deep.safetensors", struct.pack("<Q", 60_000) + b'{"a":' + b"[" * 59_995, {})
    yield Crafted("lying.safetensors", struct.pack("<Q", 2**63) + b"{}", {})


def safetensors(tensors: dict[str, tuple[str, list[int]]], data: bytes, **metadata: str) -> bytes:
    """One tensor after the other, each of one byte an element."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    place = 0
    for name, (dtype, shape) in tensors.items():
        size = 1
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    return framed(json.dumps(header).encode(), data)


def framed(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def entries(archive: bytes) -> dict[str, bytes]:
    """By name without the root folder."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name.partition("/")[2]: opened.read(name) for name in opened.namelist()}


def changed(archive: bytes, changes: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """The archive with other entries, or more of them; `method` packs those that changed."""
    members = {**entries(archive), **changes}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as written:
        for name, content in members.items():
            written.writestr(
                zipfile.ZipInfo(f"model/{name}"), content, method if name in changes else zipfile.ZIP_STORED
            )
    return out.getvalue()
