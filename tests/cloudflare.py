"""A stand-in for Cloudflare's API on loopback: tunnels, their tokens and connections, and DNS records."""

import base64
import json
import secrets
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn
from urllib.parse import parse_qs

from werkzeug.serving import WSGIRequestHandler, make_server

ACCOUNT, ZONE, DOMAIN = "acc0", "zone0", "lormul.test"
TUNNEL_TOKEN, DNS_TOKEN = "tunnel-token-0123456789", "dns-token-0123456789"
ACCOUNT_TAG = "6a1a4cddaf1505b8915135791244703e"

Answer = tuple[int, Any, list[dict[str, Any]]]


class Refused(Exception):
    def __init__(self, status: int, code: int, message: str) -> None:
        self.answer: Answer = (status, None, [{"code": code, "message": message}])


class Cloudflare:
    """`faults[operation]` is a list of what happens to the next requests of that operation, one each:

    `error` 500, `refuse` 403, `limit` 429 and `conflict` 409 without doing anything; `lost` does it and hangs up,
    `drop` hangs up, `late` does it but answers only when `release` is set, `html` does it and answers with a page.
    """

    def __init__(self) -> None:
        self.url = ""
        self.tunnels: dict[str, dict[str, Any]] = {}
        self.records: dict[str, dict[str, Any]] = {}
        self.connected: set[str] = set()
        self.faults: dict[str, list[str]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.is_vague = False
        """Whether a search for a name finds others too."""
        self.release = threading.Event()
        self._lock = threading.Lock()
        self._secrets: dict[str, str] = {}

    @property
    def is_empty(self) -> bool:
        return not self.tunnels and not self.records

    def operations(self) -> list[str]:
        return [name for name, _ in self.asked]

    def reset(self) -> None:
        """As if it had just been started."""
        for held in (self.tunnels, self.records, self.connected, self.faults, self.asked):
            held.clear()  # type: ignore[attr-defined]
        self.release.clear()
        self.is_vague = False

    # --- the server -------------------------------------------------------------------------------------------------

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].strip("/").split("/")
        query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = json.loads(environ["wsgi.input"].read(length) or b"null")
        operation, token, run = self._route(method, path, query, body)
        with self._lock:
            self.asked.append((operation, body if body is not None else query))
            fault = self.faults[operation].pop(0) if self.faults.get(operation) else None
        if fault == "drop":
            _hang_up(environ)
        status, result, errors = self._answer(environ, token, run, fault)
        if fault == "lost":
            _hang_up(environ)
        if fault == "late":
            self.release.wait(1)
        if fault == "html":
            start_response("200 OK", [("Content-Type", "text/html")])
            return [b"<html>"]
        start_response(f"{status} X", [("Content-Type", "application/json")])
        return [json.dumps({"success": status < 400, "errors": errors, "messages": [], "result": result}).encode()]

    def _answer(self, environ: dict[str, Any], token: str, run: Callable[[], Any], fault: str | None) -> Answer:
        refusals = {"error": 500, "refuse": 403, "limit": 429, "conflict": 409}
        if environ.get("HTTP_AUTHORIZATION") != f"Bearer {token}":
            return 403, None, [{"code": 10000, "message": "Authentication error"}]
        if fault in refusals:
            return refusals[fault], None, [{"code": 1000, "message": fault}]
        try:
            with self._lock:
                return 200, run(), []
        except Refused as error:
            return error.answer

    def _route(self, method: str, path: list[str], query: dict[str, str], body: Any) -> tuple[str, str, Any]:  # noqa: PLR0911
        match method, path:
            case "POST", ["accounts", account, "cfd_tunnel"] if account == ACCOUNT:
                return "create", TUNNEL_TOKEN, lambda: self._create(body)
            case "GET", ["accounts", account, "cfd_tunnel"] if account == ACCOUNT:
                return "list", TUNNEL_TOKEN, lambda: self._list(query)
            case "GET", ["accounts", account, "cfd_tunnel", tunnel, "token"] if account == ACCOUNT:
                return "token", TUNNEL_TOKEN, lambda: self._token(tunnel)
            case "DELETE", ["accounts", account, "cfd_tunnel", tunnel, "connections"] if account == ACCOUNT:
                return "connections", TUNNEL_TOKEN, lambda: self.connected.discard(tunnel)
            case "DELETE", ["accounts", account, "cfd_tunnel", tunnel] if account == ACCOUNT:
                return "delete", TUNNEL_TOKEN, lambda: self._delete(tunnel)
            case "POST", ["zones", zone, "dns_records"] if zone == ZONE:
                return "dns.create", DNS_TOKEN, lambda: self._add_record(body)
            case "GET", ["zones", zone, "dns_records"] if zone == ZONE:
                return "dns.list", DNS_TOKEN, lambda: self._find_records(query)
            case "DELETE", ["zones", zone, "dns_records", record] if zone == ZONE:
                return "dns.delete", DNS_TOKEN, lambda: self._delete_record(record)
        raise AssertionError(f"{method} {path} is not asked of Cloudflare")

    # --- tunnels ----------------------------------------------------------------------------------------------------

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        assert body == {"name": body["name"], "config_src": "local"}
        if any(tunnel["name"] == body["name"] for tunnel in self.tunnels.values()):
            raise Refused(409, 1013, "You already have a tunnel with this name")
        id, secret = str(uuid.uuid4()), base64.b64encode(secrets.token_bytes(32)).decode()
        self._secrets[id] = secret
        self.tunnels[id] = {
            "id": id,
            "account_tag": ACCOUNT_TAG,
            "created_at": "2024-12-25T05:46:03.607999Z",
            "deleted_at": None,
            "name": body["name"],
            "connections": [],
            "tun_type": "cfd_tunnel",
            "metadata": {},
            "status": "inactive",
            "remote_config": False,
        }
        credentials = {"AccountTag": ACCOUNT_TAG, "TunnelID": id, "TunnelName": body["name"], "TunnelSecret": secret}
        return {**self.tunnels[id], "credentials_file": credentials, "token": self._token(id)}

    def _list(self, query: dict[str, str]) -> list[dict[str, Any]]:
        assert query["is_deleted"] == "false"
        found = [tunnel for tunnel in self.tunnels.values() if self.is_vague or tunnel["name"] == query["name"]]
        return found if int(query.get("page", 1)) == 1 else []

    def _token(self, tunnel: str) -> str:
        if tunnel not in self.tunnels:
            raise Refused(404, 1003, "Tunnel not found")
        said = {"a": ACCOUNT_TAG, "t": tunnel, "s": self._secrets[tunnel]}
        return base64.b64encode(json.dumps(said).encode()).decode()

    def _delete(self, tunnel: str) -> dict[str, Any]:
        if tunnel not in self.tunnels:
            raise Refused(404, 1003, "Tunnel not found")
        if tunnel in self.connected:
            raise Refused(400, 1022, "Cannot delete tunnel because it has active connections")
        return self.tunnels.pop(tunnel)

    # --- names ------------------------------------------------------------------------------------------------------

    def _add_record(self, body: dict[str, Any]) -> dict[str, Any]:
        assert set(body) == {"type", "name", "content", "proxied", "ttl"}
        name = f"{body['name']}.{DOMAIN}"
        if any(record["name"] == name for record in self.records.values()):
            raise Refused(400, 81053, "An A, AAAA, or CNAME record with that host already exists.")
        id = uuid.uuid4().hex
        self.records[id] = {**body, "id": id, "name": name, "zone_name": DOMAIN}
        return self.records[id]

    def _find_records(self, query: dict[str, str]) -> list[dict[str, Any]]:
        found = [record for record in self.records.values() if self.is_vague or record["name"] == query["name.exact"]]
        return found if int(query.get("page", 1)) == 1 else []

    def _delete_record(self, record: str) -> dict[str, Any]:
        if record not in self.records:
            raise Refused(404, 81044, "Record does not exist.")
        del self.records[record]
        return {"id": record}


def _hang_up(environ: dict[str, Any]) -> NoReturn:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing: the test's output is not a server log."""


@contextmanager
def cloudflare() -> Iterator[Cloudflare]:
    standin = Cloudflare()
    server = make_server("127.0.0.1", 0, standin.wsgi, threaded=True, request_handler=_Quiet)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    standin.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield standin
    finally:
        standin.release.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def settings_of(standin: Cloudflare) -> dict[str, Any]:
    """Settings of a node that uses it."""
    return {
        "runner_tunnel_provider": "cloudflare",
        "runner_domain": DOMAIN,
        "cloudflare_tunnel_api_token": TUNNEL_TOKEN,
        "cloudflare_dns_api_token": DNS_TOKEN,
        "cloudflare_account_id": ACCOUNT,
        "cloudflare_zone_id": ZONE,
        "cloudflare_base_url": standin.url,
    }
