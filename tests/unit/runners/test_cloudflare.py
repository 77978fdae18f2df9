"""The Cloudflare adapter against a stand-in on loopback."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from grid_node.adapters import cloudflare_api
from grid_node.adapters.cloudflare_api import CloudflareTunnels
from grid_node.clock import SystemClock
from grid_node.errors import TunnelProviderFailed
from grid_node.settings import Settings
from tests.cloudflare import ACCOUNT_TAG, DOMAIN, Cloudflare, cloudflare, settings_of

pytest.importorskip("cloudflare", reason="the extra cloudflare is not installed")

ID = "m-abcdefghijklmnop2345"
CREATING = ["create", "list", "token", "dns.create", "dns.list"]
DELETING = ["dns.list", "dns.delete", "list", "connections", "delete"]


@pytest.fixture(scope="module")
def served() -> Iterator[Cloudflare]:
    with cloudflare() as standin:
        yield standin


@pytest.fixture
def standin(served: Cloudflare) -> Iterator[Cloudflare]:
    yield served
    served.release.set()
    served.reset()


@pytest.fixture(scope="module")
def made(served: Cloudflare) -> CloudflareTunnels:
    return CloudflareTunnels(Settings.load({}, **settings_of(served)), SystemClock())


@pytest.fixture
def tunnels(standin: Cloudflare, made: CloudflareTunnels, monkeypatch: pytest.MonkeyPatch) -> CloudflareTunnels:
    monkeypatch.setattr(cloudflare_api, "REQUEST_S", 0.2)
    return made


def secret_in(token: str) -> dict[str, str]:
    said: dict[str, str] = json.loads(base64.b64decode(token))
    return said


def make(tunnels: CloudflareTunnels, id: str = ID) -> str:
    """A tunnel with its name."""
    tunnel: str = tunnels.create_tunnel(id)["result"]["id"]
    tunnels.create_hostname(id, f"{tunnel}.cfargotunnel.com")
    return tunnel


def check_envelope(envelope: dict[str, Any], standin: Cloudflare) -> None:
    assert envelope["success"] is True
    result = envelope["result"]
    credentials = result["credentials_file"]
    assert list(standin.tunnels) == [result["id"]]
    assert credentials["AccountTag"] == ACCOUNT_TAG
    assert credentials["TunnelID"] == result["id"]
    assert credentials["TunnelName"] == result["name"] == ID
    assert secret_in(result["token"]) == {"a": ACCOUNT_TAG, "t": result["id"], "s": credentials["TunnelSecret"]}


def test_a_tunnel_is_made_with_one_request_and_the_whole_answer_is_given_back(
    tunnels: CloudflareTunnels, standin: Cloudflare
) -> None:
    envelope = tunnels.create_tunnel(ID)

    check_envelope(envelope, standin)
    assert set(envelope) == {"success", "errors", "messages", "result"}
    assert envelope["result"]["tun_type"] == "cfd_tunnel"
    assert standin.asked == [("create", {"name": ID, "config_src": "local"})]


def test_a_name_leads_to_the_tunnel(tunnels: CloudflareTunnels, standin: Cloudflare) -> None:
    answer = tunnels.create_hostname(ID, "t.cfargotunnel.com")

    (record,) = standin.records.values()
    assert answer["result"]["id"] == record["id"]
    assert record["name"] == f"{ID}.{DOMAIN}"
    sent = {"type": "CNAME", "name": ID, "content": "t.cfargotunnel.com", "proxied": True, "ttl": 1}
    assert standin.asked == [("dns.create", sent)]


@pytest.mark.parametrize("fault", ["lost", "late", "error", "drop", "limit", "conflict"])
def test_creating_a_tunnel_ends_with_one_tunnel_although_an_answer_fails(
    tunnels: CloudflareTunnels, standin: Cloudflare, fault: str
) -> None:
    standin.faults["create"] = [fault]

    check_envelope(tunnels.create_tunnel(ID), standin)


def test_a_request_without_an_answer_is_given_up(tunnels: CloudflareTunnels, standin: Cloudflare) -> None:
    standin.faults = {"create": ["late"], "dns.create": ["late"]}

    make(tunnels)

    assert standin.operations() == ["create", "list", "token", "dns.create", "dns.list"]


@pytest.mark.parametrize("fault", ["lost", "late", "error", "drop", "limit", "conflict"])
def test_naming_a_tunnel_ends_with_one_record_although_an_answer_fails(
    tunnels: CloudflareTunnels, standin: Cloudflare, fault: str
) -> None:
    standin.faults["dns.create"] = [fault]

    answer = tunnels.create_hostname(ID, "t.cfargotunnel.com")

    assert list(standin.records) == [answer["result"]["id"]]


def test_a_tunnel_that_is_there_already_is_found_with_its_secret(
    tunnels: CloudflareTunnels, standin: Cloudflare
) -> None:
    first = tunnels.create_tunnel(ID)

    second = tunnels.create_tunnel(ID)

    check_envelope(second, standin)
    assert second["result"]["token"] == first["result"]["token"]


def test_a_record_of_that_name_that_leads_elsewhere_is_none(tunnels: CloudflareTunnels, standin: Cloudflare) -> None:
    tunnels.create_hostname(ID, "other.cfargotunnel.com")

    with pytest.raises(TunnelProviderFailed):
        tunnels.create_hostname(ID, "t.cfargotunnel.com")


@pytest.mark.parametrize("operation", ["create", "list", "token"])
def test_a_refusal_is_not_tried_again(tunnels: CloudflareTunnels, standin: Cloudflare, operation: str) -> None:
    standin.faults = {"create": ["lost"]} if operation != "create" else {}
    standin.faults[operation] = ["refuse"]

    with pytest.raises(TunnelProviderFailed):
        tunnels.create_tunnel(ID)

    assert standin.operations().count(operation) == 1


@pytest.mark.parametrize("fault", ["error", "drop", "html", "refuse"])
@pytest.mark.parametrize("operation", CREATING)
def test_whatever_goes_wrong_is_the_one_error_of_the_port(
    tunnels: CloudflareTunnels, standin: Cloudflare, operation: str, fault: str
) -> None:
    standin.faults = {"create": ["lost"], "dns.create": ["lost"]}
    standin.faults[operation] = [fault] * 9

    with pytest.raises(TunnelProviderFailed):
        make(tunnels)


def test_deleting_takes_the_name_then_the_connections_then_the_tunnel(
    tunnels: CloudflareTunnels, standin: Cloudflare
) -> None:
    tunnel = make(tunnels)
    standin.connected.add(tunnel)
    standin.asked.clear()

    tunnels.delete(ID)

    assert standin.is_empty
    assert standin.operations() == DELETING


def test_deleting_what_is_not_there_is_no_error(tunnels: CloudflareTunnels, standin: Cloudflare) -> None:
    tunnels.delete(ID)

    assert standin.operations() == ["dns.list", "list"]


@pytest.mark.parametrize("fault", ["lost", "late", "error", "drop", "limit"])
@pytest.mark.parametrize("operation", DELETING)
def test_deleting_gets_over_one_fault_at_each_request(
    tunnels: CloudflareTunnels, standin: Cloudflare, operation: str, fault: str
) -> None:
    tunnel = make(tunnels)
    standin.connected.add(tunnel)
    standin.faults[operation] = [fault]

    tunnels.delete(ID)

    assert standin.is_empty


@pytest.mark.parametrize("is_vague", [False, True], ids=["exact search", "vague search"])
def test_deleting_leaves_the_tunnels_and_names_of_others_alone(
    tunnels: CloudflareTunnels, standin: Cloudflare, is_vague: bool
) -> None:
    standin.is_vague = is_vague
    other = "m-bbbbbbbbbbbbbbbbbbbb"
    tunnels.create_tunnel(other)
    tunnels.create_hostname(other, "t.cfargotunnel.com")
    tunnels.create_tunnel(ID)

    tunnels.delete(ID)

    assert [tunnel["name"] for tunnel in standin.tunnels.values()] == [other]
    assert len(standin.records) == 1


class Stepping(SystemClock):
    """Each look at it takes three seconds."""

    at = 0.0

    def steady(self) -> float:
        self.at += 3.0
        return self.at


@pytest.mark.parametrize(
    ("operation", "requests"),
    [("create_tunnel", 2), ("create_hostname", 1), ("delete", 3)],
)
def test_an_operation_ends_in_time_although_every_request_is_slow(
    standin: Cloudflare, made: CloudflareTunnels, operation: str, requests: int
) -> None:
    make(made)
    standin.asked.clear()
    standin.faults = {"create": ["conflict"] * 9, "dns.create": ["conflict"] * 9}
    slow = CloudflareTunnels(Settings.load({}, **settings_of(standin)), Stepping())
    arguments = ("elsewhere",) if operation == "create_hostname" else ()

    with pytest.raises(TunnelProviderFailed):
        getattr(slow, operation)(ID, *arguments)

    assert len(standin.asked) == requests


def test_no_error_and_no_log_holds_a_token_or_a_secret(
    tunnels: CloudflareTunnels, standin: Cloudflare, caplog: pytest.LogCaptureFixture
) -> None:
    token = tunnels.create_tunnel(ID)["result"]["token"]
    standin.faults = {"create": ["conflict"], "token": ["html"]}

    with pytest.raises(TunnelProviderFailed) as refusal:
        tunnels.create_tunnel(ID)

    told = caplog.text + str(refusal.value.body())
    assert "Cloudflare" in caplog.text
    assert token not in told
    assert secret_in(token)["s"] not in told
    assert "tunnel-token" not in told
