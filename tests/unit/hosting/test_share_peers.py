"""The operator's list of peers, and the one spelling of an address."""

import pytest
from grid_client.holders import checked_address

from grid_node.hosting.placement import peers_of
from grid_node.settings import BadSetting


def test_peers_are_addresses_with_keys() -> None:
    listed = "https://A.example:443/=gk1_secret, http://b.example:8888/grid=gk2=secret,"
    assert peers_of(listed) == {"https://a.example": "gk1_secret", "http://b.example:8888/grid": "gk2=secret"}
    assert peers_of("") == {}


@pytest.mark.parametrize("entry", ["https://a.example", "https://a.example=", "a.example=secret", "ftp://a=secret"])
def test_a_peer_that_cannot_be_is_refused_without_showing_a_key(entry: str) -> None:
    with pytest.raises(BadSetting) as refused:
        peers_of(f"https://fine.example=hidden-key,{entry}")
    assert "entry 2" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "hidden-key" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("http://Host", "http://host"),
        ("http://host:80/", "http://host"),
        ("https://host:8443//", "https://host:8443"),
        ("http://[2001:DB8::1]:8888/", "http://[2001:db8::1]:8888"),
    ],
)
def test_an_address_has_one_spelling(given: str, spelled: str) -> None:
    assert checked_address(given) == checked_address(spelled) == spelled


NO_ADDRESSES = ["host", "//host", "http://", "file:///etc/passwd", "http://u@h", "http://h?x=1", "http://h#f"]
NO_ADDRESSES += ["http://h:99999", "http://hé", "http://[::1"]


@pytest.mark.parametrize("address", [*NO_ADDRESSES, "", "http://h ost", "http://h\n", "http://" + "h" * 2048])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError):
        checked_address(address)
