"""Shares of a state dict: what comes back, what a part of them tells, what adding them means, what is refused."""

import itertools
import json
import math
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from grid_client import sharing
from grid_client.shares import NotAShare, header_of, share_token
from grid_client.sharing import NotShareable, ValueOutOfRange, add, reconstruct, split
from grid_client.tensor_files import MemorySource, NotTensors, TensorFile
from hypothesis import given, settings
from hypothesis import strategies as st

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLE = (
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.uint32,
    torch.int64,
    torch.uint64,
)
SHAPES = st.lists(st.integers(0, 4), max_size=3)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any bytes as a tensor of any type and shape; floats that cannot be shared are made small."""
    dtype = draw(st.sampled_from(FLOATS + WHOLE))
    shape = draw(SHAPES)
    count = math.prod(shape)
    raw = draw(st.binary(min_size=8 * count, max_size=8 * count))
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    if dtype == torch.bool:
        return torch.tensor([byte % 2 == 1 for byte in raw[:count]]).reshape(shape)
    found = torch.frombuffer(bytearray(raw), dtype=dtype)[:count].reshape(shape)
    if dtype in FLOATS:
        found = torch.where(found.to(torch.float64).abs() < 2.0**30, found, torch.zeros((), dtype=dtype))
    return found


STATES = st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"), tensors())


@settings(max_examples=150, deadline=None)
@given(STATES, st.integers(2, 16), st.integers(0, 32))
def test_what_was_split_comes_back(state: dict[str, torch.Tensor], holders: int, precision: int) -> None:
    back = reconstruct(split(state, holders, precision))
    assert list(back) == list(state)
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype
        assert back[name].shape == tensor.shape
        if tensor.dtype in FLOATS:
            error = (back[name].to(torch.float64) - tensor.to(torch.float64)).abs()
            assert bool((error <= 0.5 * 2.0**-precision).all())
        else:
            assert torch.equal(back[name], tensor)


@pytest.mark.parametrize("dtype", FLOATS)
def test_no_value_of_a_type_comes_back_further_off_than_half_a_step(dtype: torch.dtype) -> None:
    """Every float16 and bfloat16, and as many others: also where the rounded value has fewer bits left."""
    bits = torch.arange(65536, dtype=torch.int32).to(torch.int16)
    values = bits.view(dtype) if dtype.itemsize == 2 else bits.view(torch.bfloat16).to(dtype) * 1.000244140625
    values = values[values.to(torch.float64).abs() < 2.0**46]
    back = reconstruct(split({"w": values}, 2, 16))["w"]
    error = (back.to(torch.float64) - values.to(torch.float64)).abs().max()
    assert float(error) <= 0.5 * 2.0**-16


def test_a_tensor_of_several_pieces_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "PIECE", 7)
    state = {"w": torch.arange(100.0).reshape(4, 25).t(), "n": torch.arange(21)}
    back = reconstruct(split(state, 3))
    assert torch.equal(back["w"], state["w"])
    assert torch.equal(back["n"], state["n"])


def test_shares_are_safetensors_files_that_say_what_they_are() -> None:
    state = {"w": torch.ones(2, 3, dtype=torch.float16), "on": torch.tensor(True)}
    shares = split(state, 3, 12, set_id="ab" * 16)
    for index, share in enumerate(shares):
        words = safetensors.torch.load(share)
        assert {name: (word.dtype, tuple(word.shape)) for name, word in words.items()} == {
            "w": (torch.int64, (2, 3)),
            "on": (torch.int64, ()),
        }
        metadata = json.loads(share[8 : 8 + int.from_bytes(share[:8], "little")])["__metadata__"]
        assert json.loads(metadata.pop("dtypes")) == {"w": "F16", "on": "BOOL"}
        assert metadata == {"set": "ab" * 16, "index": str(index), "holders": "3", "precision": "12"}


def test_shares_in_files_and_in_any_order_are_as_good(tmp_path: Path) -> None:
    state = {"w": torch.randn(5, 5, generator=torch.Generator().manual_seed(1))}
    shares = split(state, 3)
    files = [tmp_path / f"{index}" for index in range(3)]
    for file, share in zip(files, shares, strict=True):
        file.write_bytes(share)
    back = reconstruct([files[2], shares[0], files[1]])
    assert torch.allclose(back["w"], state["w"], atol=2**-17, rtol=0)


def words_of(share: bytes) -> torch.Tensor:
    return safetensors.torch.load(share)["w"]


def chi_square(words: torch.Tensor) -> float:
    """Statistic of the bytes against the uniform distribution; 255 degrees of freedom."""
    counts = torch.bincount(words.contiguous().view(torch.uint8).flatten().to(torch.int64), minlength=256)
    expected = words.numel() * 8 / 256
    return float(((counts - expected) ** 2 / expected).sum())


BELOW_0001 = 330.5
"""The chi-square quantile at 1 - 0.001 for 255 degrees of freedom (tables: 330.52)."""


@pytest.mark.parametrize("holders", [2, 3, 4])
def test_all_shares_but_one_are_uniform_whatever_the_model_is(holders: int) -> None:
    generator = torch.Generator().manual_seed(5)
    for state in ({"w": torch.zeros(4096)}, {"w": torch.randn(4096, generator=generator)}):
        shares = [words_of(share) for share in split(state, holders, random=stream(f"{holders}"))]
        secret = sharing.encoded(state["w"], 16)
        assert torch.equal(sum(shares[1:], shares[0].clone()), secret)
        for missing in range(holders):
            rest = [share for index, share in enumerate(shares) if index != missing]
            assert all(chi_square(share) < BELOW_0001 for share in rest)
            for count in range(1, holders):
                for some in itertools.combinations(rest, count):
                    total = sum(some[1:], some[0].clone())
                    assert chi_square(total) < BELOW_0001
                    assert int((total == secret).sum()) == 0


def stream(seed: str) -> sharing.Random:
    """Repeatable bytes: SHA-256 in counter mode, so that the test above never fails by chance."""
    import hashlib

    counter = itertools.count()

    def random(length: int) -> bytes:
        blocks = (hashlib.sha256(f"{seed} {next(counter)}".encode()).digest() for _ in range(-(-length // 32)))
        return b"".join(blocks)[:length]

    return random


def test_the_operating_systems_words_are_uniform_too_and_never_the_same() -> None:
    first, second = (words_of(split({"w": torch.zeros(100_000)}, 2)[0]) for _ in range(2))
    assert int((first == second).sum()) == 0
    assert chi_square(first) < 600.0  # by chance in fewer than one of 10^25 runs
    assert split({}, 2)[0] != split({}, 2)[0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8), st.data(), st.integers(2, 5), st.integers(0, 20))
def test_shares_added_one_by_one_are_shares_of_the_sum(
    values: list[float], data: st.DataObject, holders: int, precision: int
) -> None:
    others = data.draw(st.lists(st.floats(-1e6, 1e6), min_size=len(values), max_size=len(values)))
    one, other = (torch.tensor(list(some), dtype=torch.float64) for some in (values, others))
    sets = [split({"w": tensor}, holders, precision) for tensor in (one, other)]
    total = reconstruct([add(left, right) for left, right in zip(*sets, strict=True)])["w"]
    encoded = sharing.encoded(one, precision) + sharing.encoded(other, precision)
    assert torch.equal(total, encoded.to(torch.float64) / 2.0**precision)
    assert bool(((total - (one + other)).abs() <= 2.0**-precision + 1e-9).all())


def test_integers_added_in_shares_wrap_around_in_their_own_type() -> None:
    state = {"n": torch.tensor([127], dtype=torch.int8), "b": torch.tensor([True, False])}
    left, right = (
        split(state, 2),
        split({"n": torch.tensor([1], dtype=torch.int8), "b": torch.tensor([True, False])}, 2),
    )
    back = reconstruct([add(a, b) for a, b in zip(left, right, strict=True)])
    assert back["n"].tolist() == [-128]
    assert back["b"].tolist() == [True, False]


def test_shares_of_other_models_or_places_are_not_added() -> None:
    left = split({"w": torch.zeros(2)}, 2)
    for other in (split({"w": torch.zeros(3)}, 2), split({"w": torch.zeros(2)}, 3), split({"v": torch.zeros(2)}, 2)):
        with pytest.raises(NotAShare):
            add(left[0], other[0])
    with pytest.raises(NotAShare):
        add(left[0], left[1])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2.0**47, -(2.0**47), 1e300])
def test_a_value_that_the_ring_cannot_hold_is_named(value: float) -> None:
    state = {"fine": torch.ones(2), "wrong": torch.tensor([1.0, value], dtype=torch.float64)}
    with pytest.raises(ValueOutOfRange) as caught:
        split(state, 2, 16)
    assert caught.value.tensor == "wrong"


def test_the_largest_value_that_fits_is_shared() -> None:
    largest = torch.tensor([2.0**47 - 2.0**-5, -(2.0**47 - 2.0**-5)], dtype=torch.float64)
    assert torch.equal(reconstruct(split({"w": largest}, 3, 16))["w"], largest)


def test_what_cannot_be_shared_is_refused() -> None:
    for state in (
        {"w": torch.zeros(2, dtype=torch.complex64)},
        {"w": torch.zeros(2, dtype=torch.float8_e5m2)},
        {"w": torch.eye(2).to_sparse()},
    ):
        with pytest.raises(NotShareable):
            split(state, 2)
    for holders, precision in ((1, 16), (17, 16), (2, -1), (2, 33)):
        with pytest.raises(NotShareable):
            split({"w": torch.zeros(1)}, holders, precision)
    with pytest.raises(NotAShare):
        split({"w": torch.zeros(1)}, 2, set_id="ABC")
    with pytest.raises(NotTensors):
        split({"__metadata__": torch.zeros(1)}, 2)


def test_only_all_shares_of_one_set_make_a_model() -> None:
    state = {"w": torch.ones(2)}
    one, other = split(state, 3), split(state, 3)
    for wrong in ([], one[:2], [one[0], one[0], one[1]], [*one, one[0]], [one[0], one[1], other[2]]):
        with pytest.raises(NotAShare):
            reconstruct(wrong)
    with pytest.raises(NotAShare):
        reconstruct([safetensors.torch.save(state), one[1], one[2]])


def test_damaged_shares_are_refused() -> None:
    share = split({"w": torch.ones(2)}, 2)[0]
    huge = struct.pack("<Q", 2**63) + share[8:]
    for damaged in (b"", share[:7], share[:20], share[:-1], huge, share.replace(b"I64", b"I65")):
        with pytest.raises((NotTensors, NotAShare)):
            reconstruct([damaged])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 200), st.integers(0, 64))
def test_no_bytes_make_the_reader_fail_in_another_way(noise: bytes, at: int, cut: int) -> None:
    share = bytearray(split({"w": torch.ones(2)}, 2, set_id="00" * 16)[0])
    share[at : at + len(noise)] = noise
    try:
        header_of(TensorFile(MemorySource(bytes(share[: len(share) - cut]))))
    except (NotTensors, NotAShare):
        pass


def test_a_token_opens_one_share_only() -> None:
    tokens = {share_token("s" * 32, set_id, index) for set_id in ("ab" * 16, "cd" * 16) for index in range(4)}
    assert len(tokens) == 8
    assert all(len(token) == 64 for token in tokens)
