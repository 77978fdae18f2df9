"""Who may ask the chain and who may write, over real sockets: every credential in every wrong place."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
import socketio

from grid_node.chain.sessions import COOKIE
from tests.chain_house import ID, OA, OPEN, SN1, SN2
from tests.chain_sites import workers_of
from tests.integration.sockets import Socket
from tests.nodes import METRICS_TOKEN, ROOT, LiveNode, running_node, until

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
PYLON = {
    "PYLON_OPEN_ACCESS_TOKEN": OPEN,
    "PYLON_IDENTITIES": '["sn1","sn2"]',
    "PYLON_ID_SN1_WALLET_NAME": "w",
    "PYLON_ID_SN1_HOTKEY_NAME": "h1",
    "PYLON_ID_SN1_NETUID": "1",
    "PYLON_ID_SN1_TOKEN": SN1,
    "PYLON_ID_SN2_WALLET_NAME": "w",
    "PYLON_ID_SN2_HOTKEY_NAME": "h2",
    "PYLON_ID_SN2_NETUID": "2",
    "PYLON_ID_SN2_TOKEN": SN2,
}
BARE: dict[str, Any] = {"scoring_processes": 0, "compute_processes": 0}


class Route(NamedTuple):
    method: str
    path: str
    body: dict[str, Any] | None = None


READS = (
    *("block/latest/neurons", "block/recent/neurons", "block/0/neurons", "block/latest/validators"),
    *("block/0/validators", "block/latest/certificates", "block/latest/commitments"),
    *(f"block/latest/certificates/{HOTKEY}", f"block/latest/commitments/{HOTKEY}"),
)
OPEN_ROUTES = (*(Route("GET", f"{OA}/{read}") for read in READS), Route("GET", "/api/v1/chain/status"))
OWN_ROUTES = (
    *(Route("GET", f"{ID}/{read}") for read in READS),
    *(Route("GET", f"{ID}/block/latest/{kind}/self") for kind in ("certificates", "commitments")),
    Route("GET", f"{ID}/weights/status"),
    Route("PUT", f"{ID}/weights", {"weights": {HOTKEY: 1}}),
    Route("POST", f"{ID}/commitments", {"commitment": "dead"}),
    Route("POST", f"{ID}/certificates/self", {"algorithm": 1}),
)
BLOCK_ROUTES = (Route("GET", "/api/v1/block/latest"), Route("GET", "/api/v1/block/0/extrinsic/0"))

NEEDED = 401, "Authorization header is required"
MALFORMED = 401, "Invalid Authorization header format. Expected: Bearer <token>"
ENDED = 401, "Session is invalid or expired"
WRONG = 403, "Invalid authorization token"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    folder = tmp_path_factory.mktemp("access")
    with running_node(folder, pylon=PYLON, chain_auth_failures_per_minute=1_000_000, **BARE) as live:
        yield live


@pytest.fixture(scope="module")
def cookies(node: LiveNode) -> dict[str, str]:
    return {name: session(node, name, token) for name, token in (("sn1", SN1), ("sn2", SN2))}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def session(node: LiveNode, name: str, token: str) -> str:
    answer = httpx.post(f"{node.url}/api/v1/login/identity/{name}", json={"token": token}, trust_env=False)
    assert answer.status_code == 200, answer.text
    found = re.match(f"{COOKIE}=([^;]+);", answer.headers["Set-Cookie"])
    assert found is not None
    return found[1]


def ask(node: LiveNode, route: Route, headers: dict[str, str], address: str = "127.0.0.1") -> tuple[int, Any, Any]:
    """Status, JSON and headers of the answer. Header values go out byte by byte, as Latin-1."""
    peer = HTTPConnection("127.0.0.1", node.port, timeout=30, source_address=(address, 0))
    with closing(peer):
        body = None if route.body is None else json.dumps(route.body).encode()
        peer.request(route.method, route.path, body, {k: v.encode("latin-1") for k, v in headers.items()})
        answer = peer.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers


def nothing_written(node: LiveNode) -> bool:
    """No commitment, no certificate and no weights of sn1."""
    commitments = ask(node, Route("GET", f"{ID}/block/latest/commitments"), bearer(SN1))[1]["commitments"]
    certificates = ask(node, Route("GET", f"{ID}/block/latest/certificates"), bearer(SN1))[1]
    status = ask(node, Route("GET", f"{ID}/weights/status"), bearer(SN1))[0]
    return (commitments, certificates, status) == ({}, {}, 404)


# --- the wrong thing in the right place, and the right thing in the wrong one -------------------------------------

Credential = Callable[[LiveNode, dict[str, str]], dict[str, str]]
OWN_REFUSALS: dict[str, tuple[Credential, tuple[int, str]]] = {
    "nothing": (lambda node, cookies: {}, NEEDED),
    "an empty header": (lambda node, cookies: {"Authorization": ""}, MALFORMED),
    "the token alone": (lambda node, cookies: {"Authorization": SN1}, MALFORMED),
    "a tab for the space": (lambda node, cookies: {"Authorization": f"Bearer\t{SN1}"}, MALFORMED),
    "another scheme": (lambda node, cookies: {"Authorization": f"Basic {SN1}"}, MALFORMED),
    "the other identity's token": (lambda node, cookies: bearer(SN2), WRONG),
    "the open token": (lambda node, cookies: bearer(OPEN), WRONG),
    "the metrics' token": (lambda node, cookies: bearer(METRICS_TOKEN), WRONG),
    "a house key": (lambda node, cookies: bearer(node.add_key("house")), WRONG),
    "a house key of its own header": (lambda node, cookies: {"X-API-Key": node.add_key("house")}, NEEDED),
    "twice the token": (lambda node, cookies: bearer(f"{SN1}, Bearer {SN1}"), WRONG),
    "the start of the token": (lambda node, cookies: bearer(SN1[:-1]), WRONG),
    "more than the token": (lambda node, cookies: bearer(SN1 + "x"), WRONG),
    "the token in capitals": (lambda node, cookies: bearer(SN1.upper()), WRONG),
    "bytes that are no text": (lambda node, cookies: bearer("\xff\xfe"), WRONG),
    "60,000 characters": (lambda node, cookies: bearer("x" * 60_000), WRONG),
    "its cookie as a token": (lambda node, cookies: bearer(cookies["sn1"]), WRONG),
    "the token as a cookie": (lambda node, cookies: {"Cookie": f"{COOKIE}={SN1}"}, ENDED),
    "a cookie of another name": (lambda node, cookies: {"Cookie": f"session={cookies['sn1']}"}, NEEDED),
    "the other identity's cookie": (lambda node, cookies: {"Cookie": f"{COOKIE}={cookies['sn2']}"}, ENDED),
    "a cookie of bytes": (lambda node, cookies: {"Cookie": f"{COOKIE}=\xff\xfe"}, ENDED),
    "somebody's cookie of bytes": (lambda node, cookies: {"Cookie": "theirs=\xff\xfe"}, NEEDED),
    "a wrong header beside its cookie": (
        lambda node, cookies: {**bearer("x"), "Cookie": f"{COOKIE}={cookies['sn1']}"},
        WRONG,
    ),
    "an empty header beside its cookie": (
        lambda node, cookies: {"Authorization": "", "Cookie": f"{COOKIE}={cookies['sn1']}"},
        MALFORMED,
    ),
}


@pytest.mark.parametrize("credential", OWN_REFUSALS)
def test_nothing_but_its_own_token_or_session_opens_an_identity(
    node: LiveNode, cookies: dict[str, str], credential: str
) -> None:
    make, (status, detail) = OWN_REFUSALS[credential]
    headers = make(node, cookies)

    for route in OWN_ROUTES:
        told = ask(node, route, headers)
        assert told[:2] == (status, {"status_code": status, "detail": detail}), route
        assert told[2].get("WWW-Authenticate") == ("Bearer" if status == 401 else None)
        assert "Set-Cookie" not in told[2]
    assert nothing_written(node)


OPEN_REFUSALS: dict[str, tuple[Credential, tuple[int, str]]] = {
    "nothing": (lambda node, cookies: {}, NEEDED),
    "an identity's token": (lambda node, cookies: bearer(SN1), WRONG),
    "an identity's cookie": (lambda node, cookies: {"Cookie": f"{COOKIE}={cookies['sn1']}"}, NEEDED),
    "a house key": (lambda node, cookies: bearer(node.add_key("house")), WRONG),
    "an empty header": (lambda node, cookies: {"Authorization": ""}, MALFORMED),
}


@pytest.mark.parametrize("credential", OPEN_REFUSALS)
def test_nothing_but_the_open_token_opens_open_access(node: LiveNode, cookies: dict[str, str], credential: str) -> None:
    make, (status, detail) = OPEN_REFUSALS[credential]
    headers = make(node, cookies)

    for route in OPEN_ROUTES:
        assert ask(node, route, headers)[:2] == (status, {"status_code": status, "detail": detail}), route
    for route in BLOCK_ROUTES:
        told = ask(node, route, headers)
        assert told[0] == (status if "Authorization" in headers else 200), (route, told[1])


def test_a_token_in_the_address_or_in_the_body_is_none(node: LiveNode) -> None:
    for route in (
        Route("GET", f"{ID}/block/latest/neurons?token={SN1}&authorization=Bearer%20{SN1}"),
        Route("PUT", f"{ID}/weights", {"weights": {HOTKEY: 1}, "token": SN1, "authorization": f"Bearer {SN1}"}),
    ):
        assert ask(node, route, {})[:2] == (401, {"status_code": 401, "detail": NEEDED[1]})


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/identity/SN1/subnet/1/block/latest/neurons",
        "/api/v1/identity/sn1%20/subnet/1/block/latest/neurons",
        "/api/v1/identity/sn1%00/subnet/1/block/latest/neurons",
        "/api/v1/identity/%ff/subnet/1/block/latest/neurons",
        "/api/v1/identity/s%D1%951/subnet/1/block/latest/neurons",
    ],
)
def test_a_name_is_taken_letter_by_letter(node: LiveNode, path: str) -> None:
    status, said, _ = ask(node, Route("GET", path), bearer(SN1))

    assert (status, said["status_code"]) == (404, 404)
    assert re.fullmatch("Identity '.*' not found", said["detail"], re.DOTALL)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/identity/sn2/../sn1/subnet/1/block/latest/neurons",
        "/api/v1/identity/sn1/subnet/1/../../sn1/subnet/1/block/latest/neurons",
        "/api/v1/identity/sn1%2F..%2Fsn2/subnet/2/block/latest/neurons",
        "/api/v1/identity//subnet/1/block/latest/neurons",
        "/api/v1/identity/sn1/subnet/1/block/latest/neurons/.",
        "/api/V1/subnet/1/block/latest/neurons",
        "/api/v1/subnet/1/block/latest/Neurons",
        "/api/v1/subnet/1%0A/block/latest/neurons",
        "/api/v1/subnet/1/block/latest/neurons%0A",
        "/api/v1/subnet/1%00/block/latest/neurons",
        "/api/v1/subnet/+1/block/latest/neurons",
        "/api/v1/subnet/%D9%A1/block/latest/neurons",
        "/api/v1/subnet/1/block/1_0/neurons",
        "/api/v1/subnet/1/block/0x1/neurons",
        "/api/v1/subnet/1/block/latest/neurons;sn1",
        "//schema/openapi.json",
        "///metrics",
    ],
)
def test_a_path_that_is_none_is_not_found_whoever_asks(node: LiveNode, path: str) -> None:
    for token in (OPEN, SN1, SN2, METRICS_TOKEN):
        status, said, headers = ask(node, Route("GET", path), bearer(token))
        assert (status, said) == (404, {"status_code": 404, "detail": "Not Found"})
        assert "Location" not in headers


@pytest.mark.parametrize("path", [f"{ID}/weights", f"{OA}/block/latest/neurons", "/api/v1/identities", "/metrics"])
def test_options_open_nothing_and_tell_the_methods(node: LiveNode, path: str) -> None:
    peer = HTTPConnection("127.0.0.1", node.port, timeout=30)
    with closing(peer):
        peer.request("OPTIONS", path)
        answer = peer.getresponse()
        assert (answer.status, answer.read()) == (204, b"")
        assert "OPTIONS" in answer.headers["Allow"]


def test_a_head_needs_what_a_get_needs(node: LiveNode) -> None:
    peer = HTTPConnection("127.0.0.1", node.port, timeout=30)
    with closing(peer):
        for path in (f"{OA}/block/latest/neurons", f"{ID}/block/latest/neurons", f"{ID}/weights/status", "/metrics"):
            peer.request("HEAD", path)
            answer = peer.getresponse()
            assert (answer.status, answer.read()) == (403 if path == "/metrics" else 401, b"")


# --- sessions ------------------------------------------------------------------------------------------------------


def forgeries(good: str, other: str) -> Iterator[str]:
    name, issued, fingerprint, signature = good.split(".")
    theirs = other.split(".")
    yield from (good[:cut] for cut in range(0, len(good), 7))
    yield from (f"{good}x", f"{good}.", f".{good}", good.upper(), good.replace(".", ":"), good * 20)
    yield ".".join((name, str(int(issued) + 1), fingerprint, signature))
    yield ".".join((name, "0" + issued, fingerprint, signature))
    yield ".".join((name, "9" * 5000, fingerprint, signature))
    yield ".".join((name, issued, theirs[2], signature))
    yield ".".join((name, issued, fingerprint, theirs[3]))
    yield ".".join((name, *theirs[1:]))
    yield ".".join((name, issued, fingerprint, "0" * 64))
    yield "".join(chr(ord(letter) ^ 1) if at == len(good) - 1 else letter for at, letter in enumerate(good))


def test_a_forged_session_opens_nothing(node: LiveNode, cookies: dict[str, str]) -> None:
    route = Route("GET", f"{ID}/block/latest/neurons")
    tried = list(forgeries(cookies["sn1"], cookies["sn2"]))

    assert len(tried) > 25
    for value in tried:
        told = ask(node, route, {"Cookie": f"{COOKIE}={value}"})
        assert told[:2] == (401, {"status_code": 401, "detail": ENDED[1]}), value[:200]
    assert ask(node, route, {"Cookie": f"{COOKIE}={cookies['sn1']}"})[0] == 200


def test_a_session_survives_a_restart_and_dies_with_its_token(tmp_path: Path) -> None:
    route = Route("GET", f"{ID}/block/latest/neurons")
    node = LiveNode(tmp_path / "first", pylon=PYLON, **BARE)
    try:
        node.start()
        cookie = {"Cookie": f"{COOKIE}={session(node, 'sn1', SN1)}"}
        node.restart()
        assert ask(node, route, cookie)[0] == 200
        node.terminate()
        changed = LiveNode(tmp_path / "second", node.data, pylon={**PYLON, "PYLON_ID_SN1_TOKEN": "new"}, **BARE)
        try:
            changed.start()
            assert ask(changed, route, cookie)[:2] == (401, {"status_code": 401, "detail": ENDED[1]})
            assert ask(changed, route, bearer(SN1))[0] == 403
            assert ask(changed, route, bearer("new"))[0] == 200
        finally:
            changed.discard()
    finally:
        node.discard()


# --- who guesses ---------------------------------------------------------------------------------------------------

GUESSER, NEIGHBOUR = "127.0.0.9", "127.0.0.8"


def test_who_guesses_is_made_to_wait_on_every_door_and_nobody_else_is(tmp_path: Path) -> None:
    own, everybody = Route("GET", f"{ID}/block/latest/neurons"), Route("GET", f"{OA}/block/latest/neurons")
    login = Route("POST", "/api/v1/login/identity/sn1", {"token": "x"})
    with running_node(tmp_path, pylon=PYLON, chain_auth_failures_per_minute=4, **BARE) as node:
        assert ask(node, everybody, bearer(OPEN), GUESSER)[0] == 200
        for route in (own, everybody, login, Route("GET", "/api/v1/block/latest")):
            assert ask(node, route, bearer("x"), GUESSER)[0] == 403
        for headers in ({}, {"X-Forwarded-For": "8.8.8.8"}, {"Forwarded": "for=8.8.8.8"}, {"X-Real-IP": "8.8.8.8"}):
            for route in (own, login):
                status, said, told = ask(node, route, {**bearer("x"), **headers}, GUESSER)
                assert (status, said["status_code"]) == (429, 429)
                assert 1 <= int(told["Retry-After"]) <= 60
        assert ask(node, own, bearer(SN1), GUESSER)[0] == 429, "a right guess tells nothing now"
        assert ask(node, everybody, bearer(OPEN), GUESSER)[0] == 200, "what was open to it before stays open"
        assert ask(node, own, bearer(SN1), NEIGHBOUR)[0] == 200
        assert ask(node, own, bearer("x"), NEIGHBOUR)[0] == 403


# --- sockets -------------------------------------------------------------------------------------------------------

AUTHS: tuple[Any, ...] = (
    None, [], "x", 7, True, [OPEN], OPEN, {"Token": OPEN}, {"token": [OPEN]}, {"token": None}, {"token": True},
    {"token": SN1}, {"token": "x" * 5000}, {"token": "\u0000"}, {"token": "\xf6"}, {"identity": "sn1"},
    {"identity": "sn1", "token": SN2}, {"identity": "sn1", "token": OPEN}, {"identity": "sn1", "token": None},
    {"identity": "SN1", "token": SN1}, {"identity": ["sn1"], "token": SN1}, {"identity": {}, "token": SN1},
    {"identity": "", "token": OPEN}, {"identity": "x" * 5000, "token": SN1}, {"identity": 1e300, "token": SN1},
)  # fmt: skip


@pytest.mark.parametrize("auth", AUTHS, ids=range(len(AUTHS)))
def test_a_socket_without_the_right_token_is_not_let_in(node: LiveNode, auth: Any) -> None:
    told: list[Any] = []
    client = socketio.Client(reconnection=False)
    client.on("connect_error", told.append, namespace="/chain")
    with pytest.raises(socketio.exceptions.ConnectionError):
        client.connect(node.url, auth=auth, namespaces=["/chain"], transports=["websocket"])
    client.shutdown()

    body = told[-1]["data"]
    assert body["status_code"] in (401, 403, 404), body
    assert body["detail"] == told[-1]["message"]
    assert len(body["detail"]) < 200


def test_a_socket_is_one_identity_or_none_for_as_long_as_it_lives(node: LiveNode) -> None:
    everybody, own = Socket(node.url, "/chain", token=OPEN), Socket(node.url, "/chain", identity="sn2", token=SN2)
    try:
        for socket in (everybody, own):
            for extra in ({"identity": "sn1", "token": SN1}, {"netuid": 1, "identity_name": "sn1"}):
                told = socket.call("set_commitment", {"commitment": "00", **extra})
                if socket is everybody:
                    assert told == {"status_code": 401, "detail": NEEDED[1]}
        assert own.call("weights_status") == {"status_code": 404, "detail": "No weights job for identity 'sn2'."}
        assert everybody.call("weights_status")["status_code"] == 401
        assert nothing_written(node)
    finally:
        everybody.close()
        own.close()


# --- secrets -------------------------------------------------------------------------------------------------------


class Day:
    """A node that was shown every secret in every way, also where it does not belong."""

    def __init__(self, node: LiveNode) -> None:
        self.node = node
        self.tokens = {"open": "t0ken-of-all", "sn1": "t0ken-of-sn1", "sn2": "t0ken-of-sn2", "metrics": METRICS_TOKEN}
        self.told: list[str] = []
        self.cookie = session(node, "sn1", self.tokens["sn1"])
        self._show_them()
        self._write()
        self.metrics = node.metrics()

    def _show_them(self) -> None:
        for token in (*self.tokens.values(), self.cookie):
            for headers in (
                bearer(token),
                {"Authorization": token},
                {"Cookie": f"{COOKIE}={token}"},
                {"X-Pylon-Timeout": "x", **bearer(token)},
            ):
                for route in (*OWN_ROUTES[:3], *OPEN_ROUTES[:3], *BLOCK_ROUTES, Route("GET", "/api/v1/chain/status")):
                    self._note(ask(self.node, route, headers))
                self._note(ask(self.node, Route("PUT", f"{ID}/weights", {"weights": {"a": -1}}), headers))
            for name in ("sn1", "nope"):
                self._note(ask(self.node, Route("POST", f"/api/v1/login/identity/{name}", {"token": token}), {}))
            self._try_socket({"token": token})
            self._try_socket({"identity": "sn1", "token": token})

    def _note(self, told: tuple[int, Any, Any]) -> None:
        headers = "\n".join(f"{name}: {value}" for name, value in told[2].items() if name != "Set-Cookie")
        self.told.append(f"{json.dumps(told[1])}\n{headers}")

    def _try_socket(self, auth: dict[str, Any]) -> None:
        try:
            socket = Socket(self.node.url, "/chain", **auth)
        except socketio.exceptions.ConnectionError as error:
            self.told.append(str(error))
            return
        self.told.append(json.dumps(socket.call("block")))
        socket.close()

    def _write(self) -> None:
        token = bearer(self.tokens["sn1"])
        hotkey = next(iter(ask(self.node, OWN_ROUTES[0], token)[1]["neurons"]))
        made = ask(self.node, Route("POST", f"{ID}/certificates/self", {}), token)[1]
        self.private_keys = {"certificate": made["private_key"]}
        ask(self.node, Route("POST", f"{ID}/commitments", {"commitment": "ab"}), token)
        ask(self.node, Route("PUT", f"{ID}/weights", {"weights": {hotkey: 1}}), token)
        status = Route("GET", f"{ID}/weights/status")
        until(lambda: ask(self.node, status, token)[1]["status"] == "completed")
        for file in self.wallet_files():
            said = json.loads(file.read_text())
            self.private_keys |= {
                f"{file.name} {name}": said[name] for name in ("privateKey", "secretSeed", "secretPhrase")
            }

    def wallet_files(self) -> list[Path]:
        return [file for file in self.node.data.rglob("*") if file.is_file() and file.parent.name == "hotkeys"]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    pylon = {
        **PYLON,
        "PYLON_OPEN_ACCESS_TOKEN": "t0ken-of-all",
        "PYLON_ID_SN1_TOKEN": "t0ken-of-sn1",
        "PYLON_ID_SN2_TOKEN": "t0ken-of-sn2",
        "PYLON_DEBUG": "true",
    }
    options = {**BARE, "scoring_processes": 1, "log_level": "debug", "chain_auth_failures_per_minute": 1_000_000}
    with running_node(tmp_path_factory.mktemp("day"), pylon=pylon, **options) as live:
        yield Day(live)


def test_a_secret_is_nowhere_but_where_it_belongs(day: Day) -> None:
    node = day.node
    wallets = day.wallet_files()
    with closing(sqlite3.connect(node.data / "grid.db")) as base:
        dump = "\n".join(base.iterdump())
    files = [file for file in node.data.rglob("*") if file.is_file() and file not in wallets]
    places = {file.name: file.read_bytes() for file in files} | {
        "dump": dump.encode(),
        "log": node.log_text().encode(),
        "metrics": day.metrics.encode(),
        "answers": "\n".join(day.told).encode(),
    }
    secrets = {**day.tokens, "session": day.cookie, **day.private_keys}

    assert len(wallets) == 2
    assert len(day.private_keys) == 7
    assert len(places["log"]) > 1000
    assert "chain_weights" in dump
    for name, secret in secrets.items():
        forms = {secret, secret.removeprefix("0x"), secret.upper()}
        found = [place for place, content in places.items() if any(form.encode() in content for form in forms)]
        assert found == [], name


def test_wallets_are_the_owner_s_alone(day: Day) -> None:
    assert [file.stat().st_mode & 0o777 for file in day.wallet_files()] == [0o600, 0o600]


def test_processes_show_no_token_and_have_none_that_they_do_not_need(day: Day) -> None:
    (chain,) = workers_of(day.node.pid)
    others = [one for one in psutil.Process(day.node.pid).children(recursive=True) if one.pid != chain]
    jobs = [one for one in others if "grid_node.jobs.worker" in one.cmdline()]
    shown = [" ".join(psutil.Process(pid).cmdline()) for pid in (day.node.pid, chain)]
    shown += [json.dumps(one.environ()) for one in jobs]

    assert len(jobs) == 1
    assert not any(token in text for token in day.tokens.values() for text in shown)


@pytest.mark.parametrize(
    "change",
    [
        {"PYLON_ID_SN1_NETUID": "70000"},
        {"PYLON_IDENTITIES": '["sn1","SN1"]'},
        {"PYLON_RECENT_OBJECTS_SOFT_LIMIT_BLOCKS": "900"},
        {"PYLON_ID_SN2_TOKEN": ""},
        {"PYLON_IDENTITIES": "t0ken-in-the-wrong-place"},
    ],
)
def test_a_start_that_fails_names_variables_and_no_token(tmp_path: Path, change: dict[str, str]) -> None:
    tokens = {"PYLON_OPEN_ACCESS_TOKEN": "t0ken-0", "PYLON_ID_SN1_TOKEN": "t0ken-1", "PYLON_METRICS_TOKEN": "t0ken-3"}
    given = {**PYLON, "PYLON_ID_SN2_TOKEN": "t0ken-2", **tokens, "PYLON_ENV_FILE": "", **change}
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("GRID_", "PYLON_"))}
    environ |= {**given, "GRID_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-m", "flask", "--app", "app", "chain", "check-config"]
    done = subprocess.run(command, check=False, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    assert "Configuration error: " in done.stderr
    assert next(iter(change)) in done.stderr
    assert not re.search("t0ken-[0-3]", done.stdout + done.stderr)
