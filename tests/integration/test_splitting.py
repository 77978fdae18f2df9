"""The confined programs that split a model and read a share, started as the node starts them."""

import hashlib
import os
from pathlib import Path

import pytest
import torch
from grid_client.sharing import reconstruct, split
from safetensors.torch import save, save_file

from grid_node.compute.splitting import LONG_HEADER, Splitting
from grid_node.errors import InvalidModel, SharePlacementFailed, ValueOutOfRange
from grid_node.settings import Settings

SET = "0123456789abcdef" * 2
TENSORS = 20_000


@pytest.fixture
def splitting(tmp_path: Path) -> Splitting:
    return Splitting(Settings.load({}), tmp_path / "splitting")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "model.safetensors"
    save_file({"w": torch.linspace(-1, 1, 300_000), "on": torch.tensor([True])}, file)
    return file


def test_the_shares_add_up_and_their_digests_are_right(splitting: Splitting, model: Path, tmp_path: Path) -> None:
    with splitting.split(model, 3, 20, SET, 60.0) as shares:
        contents = [os.pread(share.descriptor, share.size + 1, 0) for share in shares]
        assert list((tmp_path / "splitting").iterdir()) == []
    assert [hashlib.sha256(content).hexdigest() for content in contents] == [share.sha256 for share in shares]
    back = reconstruct(contents)
    assert float((back["w"] - torch.linspace(-1, 1, 300_000)).abs().max()) <= 2**-21
    assert back["on"].tolist() == [True]


def test_what_cannot_be_split_is_refused_in_our_words(splitting: Splitting, tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(save({"fine": torch.ones(1), "bad": torch.tensor([float("inf")])}))
    with pytest.raises(ValueOutOfRange) as out_of_range, splitting.split(file, 2, 16, SET, 60.0):
        pass
    assert out_of_range.value.data == {"tensor": "bad"}
    file.write_bytes(save({"w": torch.ones(1, dtype=torch.complex64)}))
    with pytest.raises(InvalidModel), splitting.split(file, 2, 16, SET, 60.0):
        pass


def test_a_split_ends_at_its_deadline(splitting: Splitting, model: Path) -> None:
    with pytest.raises(SharePlacementFailed), splitting.split(model, 2, 16, SET, 0.05):
        pass


def test_a_share_with_a_long_header_is_read_by_a_program(splitting: Splitting, tmp_path: Path) -> None:
    share = split({f"layer.{number:05}": torch.empty(0) for number in range(TENSORS)}, 2, set_id=SET)[1]
    assert int.from_bytes(share[:8], "little") > LONG_HEADER
    file = tmp_path / "share"
    file.write_bytes(share)
    assert splitting.describe(file) == {"share_id": f"share-{SET}-1", "set": SET, "precision": 16}
    file.write_bytes(share.replace(b'"I64"', b'"I32"', 1))
    with pytest.raises(InvalidModel):
        splitting.describe(file)
