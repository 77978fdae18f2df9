"""Tunnels over the sockets of agents: what is created, and how a call comes back."""

import base64
import json
import threading
import uuid

import pytest

from grid_node.adapters.socket_tunnel import CALLS_MAX, SocketTunnel
from grid_node.clock import ManualClock
from grid_node.errors import (
    CallNotAllowed,
    GridError,
    ReplyTooLarge,
    RunnerGone,
    RunnerOffline,
    RunnerTimeout,
    RunnerUnreachable,
)
from grid_node.runners.ports import Runner
from grid_node.settings import Settings

MODEL, AGENT, OTHER = "m-" + "a" * 20, "1" * 32, "2" * 32


class Link:
    """An agent's socket. `answer(message)` is what it acknowledges; None: nothing, for now."""

    def __init__(self, answer=None):
        self.answer = answer
        self.sent = []
        self.came = threading.Event()
        self.forgotten = 0
        self.ended = None

    def send(self, message, on_answer):
        self.sent.append(message)
        self.on_answer = on_answer
        said = self.answer(message) if self.answer is not None else None
        if said is not None:
            on_answer(said)
        self.came.set()
        return self._forget

    def _forget(self):
        self.forgotten += 1

    def replaced(self):
        self.ended = "replaced"

    def removed(self):
        self.ended = "removed"


def accepting(message):
    return {"call_id": message["call_id"], "status": 202, "json": {"id": "p1"}, "ms": 3}


def saying(**members):
    return lambda message: {"call_id": message["call_id"], **members}


@pytest.fixture
def tunnel():
    return SocketTunnel(Settings.load({}), ManualClock(), "node-1", random=lambda size: bytes(range(size)))


def call(tunnel, method="PUT", path="/predictions/p1", **options):
    return tunnel.call(MODEL, method, path, {"input": {}}, {"Prefer": "respond-async"}, **options)


def in_background(tunnel, **options):
    """A call that waits, and where its outcome goes."""
    outcome = []

    def run():
        try:
            outcome.append(call(tunnel, **options))
        except GridError as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


# --- tunnels


def test_a_tunnel_has_the_shape_of_cloudflares_answer(tunnel):
    envelope = tunnel.create_tunnel(MODEL)
    result = envelope["result"]
    credentials = result["credentials_file"]
    assert set(envelope) == {"success", "errors", "messages", "result"}
    assert envelope["success"] is True
    assert str(uuid.UUID(credentials["TunnelID"])) == credentials["TunnelID"] == result["id"]
    assert len(base64.b64decode(credentials["TunnelSecret"], validate=True)) == 32
    assert len(credentials["AccountTag"]) == 32
    assert int(credentials["AccountTag"], 16)
    assert credentials["TunnelName"] == result["name"] == MODEL
    assert result["tun_type"] == "cfd_tunnel"
    assert (result["status"], result["remote_config"], result["connections"]) == ("inactive", False, [])


def test_the_token_holds_the_three_values_of_the_credential(tunnel):
    result = tunnel.create_tunnel(MODEL)["result"]
    credentials = result["credentials_file"]
    assert json.loads(base64.b64decode(result["token"], validate=True)) == {
        "a": credentials["AccountTag"],
        "t": credentials["TunnelID"],
        "s": credentials["TunnelSecret"],
    }


def test_one_node_has_one_account_and_every_tunnel_its_own_secret():
    made = SocketTunnel(Settings.load({}), ManualClock(), "node-1")
    first, second = (made.create_tunnel(MODEL)["result"]["credentials_file"] for _ in range(2))
    assert first["AccountTag"] == second["AccountTag"]
    assert first["TunnelSecret"] != second["TunnelSecret"]
    other = SocketTunnel(Settings.load({}), ManualClock(), "node-2").create_tunnel(MODEL)["result"]
    assert other["account_tag"] != first["AccountTag"]


def test_there_is_no_record_to_delete(tunnel):
    assert tunnel.create_hostname(MODEL, "x.cfargotunnel.com")["result"].get("id") is None


def test_deleting_a_tunnel_ends_the_links_of_its_model_alone(tunnel):
    mine, others = Link(), Link()
    tunnel.join(MODEL, AGENT, mine)
    tunnel.join("m-other", AGENT, others)
    tunnel.delete(MODEL)
    assert (mine.ended, others.ended) == ("removed", None)


# --- links


def test_a_runner_is_unknown_until_its_worker_has_said_something(tunnel):
    link = Link()
    tunnel.join(MODEL, AGENT, link)
    assert tunnel.runners(MODEL) == [Runner(AGENT, "UNKNOWN")]
    tunnel.heard(MODEL, AGENT, link, "READY")
    assert tunnel.runners(MODEL) == [Runner(AGENT, "READY")]
    assert tunnel.leave(MODEL, AGENT, link)
    assert tunnel.runners(MODEL) == []


def test_the_same_instance_again_takes_the_place_of_its_older_link(tunnel):
    older, newer = Link(), Link(accepting)
    tunnel.join(MODEL, AGENT, older)
    assert tunnel.join(MODEL, AGENT, newer) is older
    tunnel.heard(MODEL, AGENT, older, "READY")
    assert not tunnel.leave(MODEL, AGENT, older)
    assert tunnel.runners(MODEL) == [Runner(AGENT, "UNKNOWN")]
    assert call(tunnel).status == 202


# --- calls


def test_a_call_reaches_the_agent_whole_and_its_answer_comes_back(tunnel):
    link = Link(accepting)
    tunnel.join(MODEL, AGENT, link)
    assert call(tunnel, timeout_s=7.0) == (202, {"id": "p1"})
    [sent] = link.sent
    assert {name: sent[name] for name in sent if name != "call_id"} == {
        "method": "PUT",
        "path": "/predictions/p1",
        "headers": {"Prefer": "respond-async"},
        "json": {"input": {}},
        "timeout_s": 7.0,
    }
    assert len(sent["call_id"]) == 32
    assert link.forgotten == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/shutdown"),
        ("GET", "/predictions/p1"),
        ("PUT", "/predictions/a/b"),
        ("PUT", "/predictions/p1?x=1"),
        ("POST", "/predictions/p1/cancel\n"),
        ("GET", "//evil.example/health-check"),
    ],
)
def test_what_is_not_on_the_list_is_refused_before_it_is_sent(tunnel, method, path):
    link = Link(accepting)
    tunnel.join(MODEL, AGENT, link)
    with pytest.raises(CallNotAllowed):
        call(tunnel, method, path)
    assert link.sent == []


@pytest.mark.parametrize("runner", [None, AGENT])
def test_without_a_link_nothing_was_sent(tunnel, runner):
    with pytest.raises(RunnerGone) as caught:
        call(tunnel, runner=runner)
    assert (caught.value.code, caught.value.status, caught.value.message) == (
        "runner_offline",
        503,
        "Runner is offline.",
    )


def test_a_call_goes_to_the_runner_that_is_named_and_else_to_the_most_hopeful(tunnel):
    first, second = Link(saying(status=200, json=1)), Link(saying(status=200, json=2))
    tunnel.join(MODEL, AGENT, first)
    tunnel.join(MODEL, OTHER, second)
    tunnel.heard(MODEL, AGENT, first, "STARTING")
    tunnel.heard(MODEL, OTHER, second, "READY")
    assert call(tunnel, runner=AGENT).json == 1
    assert call(tunnel).json == 2


def test_no_answer_in_time_is_a_timeout_and_the_call_is_forgotten(tunnel):
    link = Link()
    tunnel.join(MODEL, AGENT, link)
    with pytest.raises(RunnerTimeout):
        call(tunnel, timeout_s=0.01)
    assert link.forgotten == 1
    link.on_answer({"status": 202})  # late, and nobody minds


def test_a_lost_link_fails_every_call_on_it_at_once(tunnel):
    link = Link()
    tunnel.join(MODEL, AGENT, link)
    thread, outcome = in_background(tunnel, timeout_s=600.0)
    assert link.came.wait(10)
    tunnel.leave(MODEL, AGENT, link)
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(outcome[0], RunnerOffline)
    assert not isinstance(outcome[0], RunnerGone)


def test_a_replaced_link_fails_its_calls_too(tunnel):
    link = Link()
    tunnel.join(MODEL, AGENT, link)
    thread, outcome = in_background(tunnel, timeout_s=600.0)
    assert link.came.wait(10)
    tunnel.join(MODEL, AGENT, Link())
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(outcome[0], RunnerOffline)


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("call_not_allowed", 403, CallNotAllowed),
        ("runner_unreachable", 502, RunnerUnreachable),
        ("reply_too_large", 502, ReplyTooLarge),
        ("runner_timeout", 504, RunnerTimeout),
        ("try_again", 503, RunnerGone),
        ("something_else", 500, RunnerUnreachable),
        (["code"], 500, RunnerUnreachable),
    ],
)
def test_what_the_agent_could_not_do_is_the_error_that_it_names(tunnel, code, status, error):
    tunnel.join(MODEL, AGENT, Link(saying(status=status, code=code, json={"success": False})))
    with pytest.raises(error):
        call(tunnel)


def test_the_workers_own_refusal_is_an_answer(tunnel):
    tunnel.join(MODEL, AGENT, Link(saying(status=403, json={"code": "call_not_allowed"})))
    assert call(tunnel) == (403, {"code": "call_not_allowed"})


@pytest.mark.parametrize(
    "answer",
    [
        [],
        "accepted",
        {},
        {"status": "202"},
        {"status": True},
        {"status": 99},
        {"status": 600},
        {"status": 202, "json": 2**70},
        {"call_id": "of another call", "status": 202, "json": {}},
    ],
    ids=["list", "text", "empty", "text-status", "boolean", "low", "high", "huge-number", "other-call"],
)
def test_an_acknowledgement_that_is_no_answer_means_an_unreachable_worker(tunnel, answer):
    tunnel.join(MODEL, AGENT, Link(lambda _message: answer))
    with pytest.raises(RunnerUnreachable):
        call(tunnel)


def test_a_reply_above_the_limit_is_an_error_of_its_own(tunnel):
    link = Link(saying(status=200, json="x" * (512 * 1024)))
    tunnel.join(MODEL, AGENT, link)
    with pytest.raises(ReplyTooLarge):
        call(tunnel)
    assert tunnel.runners(MODEL) == [Runner(AGENT, "UNKNOWN")]


def test_the_calls_that_wait_on_one_link_are_bounded(tunnel):
    link = Link()
    tunnel.join(MODEL, AGENT, link)
    waiting = [in_background(tunnel, timeout_s=600.0)[0] for _ in range(CALLS_MAX)]
    while len(link.sent) < CALLS_MAX:
        threading.Event().wait(0.005)
    with pytest.raises(RunnerGone):
        call(tunnel, timeout_s=600.0)
    tunnel.leave(MODEL, AGENT, link)
    for thread in waiting:
        thread.join(10)
