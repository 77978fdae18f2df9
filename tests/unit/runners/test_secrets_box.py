import pytest

from grid_node.runners.secrets_box import SealBroken, SecretsBox
from grid_node.settings import BadSetting

NODE = bytes(range(32))
OLD, NEW = "b2xk" * 10 + "b2w=", "bmV3" * 10 + "bmU="


@pytest.mark.parametrize("keys", ["", OLD, f"{NEW},{OLD}", f" {NEW} , {OLD} ,"])
def test_what_was_sealed_is_read_again_and_does_not_stand_in_the_seal(keys: str) -> None:
    seal = SecretsBox(keys, NODE).seal("TunnelSecret ü")

    assert "Tunnel" not in seal
    assert SecretsBox(keys, NODE).open(seal) == "TunnelSecret ü"


def test_a_key_that_was_replaced_still_reads_and_the_newest_one_seals() -> None:
    before = SecretsBox(OLD, NODE).seal("secret")
    rotated = SecretsBox(f"{NEW},{OLD}", NODE)

    assert rotated.open(before) == "secret"
    assert SecretsBox(NEW, bytes(32)).open(rotated.seal("secret")) == "secret"


def test_a_node_that_is_given_a_key_later_still_reads_what_it_kept_without_one() -> None:
    assert SecretsBox(NEW, NODE).open(SecretsBox("", NODE).seal("secret")) == "secret"


@pytest.mark.parametrize("keys", ["", NEW])
def test_what_another_key_sealed_is_not_read(keys: str) -> None:
    seal = SecretsBox(OLD, NODE).seal("secret")

    with pytest.raises(SealBroken, match="GRID_SECRETS_KEY"):
        SecretsBox(keys, bytes(32)).open(seal)


@pytest.mark.parametrize("keys", ["short", OLD[:-4], f"{OLD};{NEW}", f"{OLD},x", "é" * 44])
def test_what_is_no_key_is_refused_at_the_start_without_being_told(keys: str) -> None:
    with pytest.raises(BadSetting) as refusal:
        SecretsBox(keys, NODE)

    assert keys not in str(refusal.value)


def test_a_box_tells_nothing_of_its_keys() -> None:
    assert repr(SecretsBox(OLD, NODE)) == "SecretsBox()"
