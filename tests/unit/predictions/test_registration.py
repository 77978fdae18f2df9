"""Where it is not known who is registered: nobody new comes in, and the node says when to come again."""

import pytest

from grid_node.adapters.predictions import HotkeyRegistry, MinerAuthentication
from grid_node.errors import ChainUnavailable, RegistrationUnknown
from grid_node.identity.standing import Standing

KEY = bytes(32)


class Metagraph:
    def __init__(self, answer: Standing | Exception) -> None:
        self.answer = answer

    def standing(self, public_key: bytes) -> Standing:
        assert public_key == KEY
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Authenticator:
    """A challenge that everybody passes, up to the question who is registered."""

    def check(self, challenge: object, payload: object) -> None:
        raise ChainUnavailable(retry_after=7)


def test_a_registered_hotkey_has_the_uid_that_the_chain_gave_it() -> None:
    assert HotkeyRegistry(Metagraph(Standing(True, False, None, 12))).admit(KEY) == 12


@pytest.mark.parametrize(("given", "told"), [(7, 7), (None, 1)])
def test_registration_that_cannot_be_looked_up_is_503_with_a_time(given: int | None, told: int) -> None:
    error = ChainUnavailable() if given is None else ChainUnavailable(retry_after=given)

    with pytest.raises(RegistrationUnknown) as refused:
        HotkeyRegistry(Metagraph(error)).admit(KEY)

    body = refused.value.body()
    assert (body["status"], body["code"], body["retry_after"]) == (503, "registration_unknown", told)


def test_nobody_is_let_in_meanwhile() -> None:
    door = MinerAuthentication(None, None, None, Authenticator(), None)  # type: ignore[arg-type]

    with pytest.raises(RegistrationUnknown):
        door.identify(None, {}, "127.0.0.1")  # type: ignore[arg-type]
