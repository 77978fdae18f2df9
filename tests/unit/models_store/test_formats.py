import io
import json
import zipfile
from typing import Any

import pytest

from models_store import formats
from models_store.errors import InvalidModel
from models_store.formats import Found, Limits, check
from tests.crafted import framed, safetensors, zipped

LIMITS = Limits(header_max=1 << 20, tensors_max=100)
SHARE = {"set": "0" * 31 + "f", "index": "0", "holders": "2", "precision": "16", "dtypes": '{"w": "F32"}'}
SCRIPT = {"m/data.pkl": b"", "m/constants.pkl": b"", "m/code/__torch__.py": b"def f(): pass\n" * 50, "m/version": b"3"}


def of(content: bytes, declared: str | None) -> Found:
    return check(io.BytesIO(content), len(content), declared, LIMITS)


def share(dtype: str = "I64", **changes: Any) -> bytes:
    said = {name: text for name, text in {**SHARE, **changes}.items() if text is not None}
    header = {"__metadata__": said, "w": {"dtype": dtype, "shape": [1], "data_offsets": [0, 8]}}
    return framed(json.dumps(header).encode(), bytes(8))


def test_undeclared_bytes_are_safetensors_if_they_pass_and_else_opaque() -> None:
    good = safetensors({"w": ("U8", [4])}, bytes(4))
    assert of(good, None).format == "safetensors"
    assert of(good + b"\0", None).format == "opaque"
    assert of(b"", None).format == "opaque"
    assert of(zipped(SCRIPT), None).format == "opaque"


def test_declared_bytes_must_be_what_they_are_declared() -> None:
    for declared in ("safetensors", "share", "torchscript", "torch_export"):
        with pytest.raises(InvalidModel):
            of(b"nothing of this kind", declared)
    assert of(b"nothing of this kind", "opaque").format == "opaque"


def test_a_share_tells_of_which_set_it_is() -> None:
    found = of(share(), "share")
    assert found == Found("share", {name: SHARE[name] for name in formats.SHARE_MEMBERS})


@pytest.mark.parametrize(
    "content",
    [
        share(dtype="F64"),
        share(set=None),
        share(set="0" * 31),
        share(set="0" * 31 + "F"),
        share(index="2"),
        share(index="-1"),
        share(index="00"),
        share(index="1\n"),
        share(holders="1"),
        share(holders="17"),
        share(precision="33"),
        share(precision="1.5"),
        share(dtypes=None),
    ],
)
def test_a_share_that_says_too_little_or_nonsense_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidModel):
        of(content, "share")


def test_torchscript_is_told_by_its_files() -> None:
    assert of(zipped(SCRIPT), "torchscript").format == "torchscript"
    assert of(zipped(SCRIPT, zipfile.ZIP_DEFLATED), "torchscript").format == "torchscript"
    for missing in ("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"):
        with pytest.raises(InvalidModel):
            of(zipped({name: content for name, content in SCRIPT.items() if name != missing}), "torchscript")


def test_code_may_not_inflate_beyond_its_limit() -> None:
    bomb = {**SCRIPT, "m/code/a.py": bytes(formats.CODE_MAX)}
    with pytest.raises(InvalidModel, match="larger than"):
        of(zipped(bomb, zipfile.ZIP_DEFLATED), "torchscript")
