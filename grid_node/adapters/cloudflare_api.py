"""Cloudflare's tunnels as the way to the workers: create_tunnel and create_hostname, and how they are undone.

A tunnel and its DNS record bear the id of their model. So whatever a lost answer leaves open is settled by asking for
that name, and everything can be found again that must be deleted. The SDK is an extra (`cloudflare`) and takes 80 MB
of memory, so that only a node that uses it imports it.
"""

import base64
import functools
import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from grid_node.adapters.direct_calls import DirectCalls
from grid_node.clock import Clock, SystemClock
from grid_node.errors import TunnelProviderFailed
from grid_node.runners.agents import DIRECT
from grid_node.runners.health import UNKNOWN
from grid_node.runners.ports import Reply, Runner
from grid_node.settings import BadSetting, Settings

log = logging.getLogger(__name__)

CREATE_S, HOSTNAME_S, DELETE_S = 9.0, 6.0, 10.0
"""Seconds of all requests of one operation together: a registration, its undoing included, takes 25 at most."""
REQUEST_S = 5.0
"""Seconds of one request."""
TRIES = 2

Ask = Callable[..., Any]


class CloudflareTunnels:
    """TunnelProvider by Cloudflare's API, with two tokens: one may edit tunnels, the other DNS records."""

    name = "cloudflare"

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Raises BadSetting when the SDK is not installed."""
        try:
            import cloudflare  # noqa: PLC0415 - see above
        except ImportError:
            raise BadSetting("install grid-node[cloudflare], or set GRID_RUNNER_TUNNEL_PROVIDER to socketio") from None
        self._sdk = cloudflare
        self._clock = clock
        self._domain = settings.tunnel_domain
        self._account, self._zone = settings.cloudflare_account_id, settings.cloudflare_zone_id
        base_url = settings.cloudflare_base_url
        tunnels = cloudflare.Cloudflare(
            api_token=settings.cloudflare_tunnel_api_token, base_url=base_url, max_retries=0
        )
        names = cloudflare.Cloudflare(api_token=settings.cloudflare_dns_api_token, base_url=base_url, max_retries=0)
        self._tunnels = tunnels.zero_trust.tunnels.cloudflared
        self._records = names.dns.records
        self._calls = DirectCalls(clock, settings.runner_url_template)

    # --- TunnelProvider ---------------------------------------------------------------------------------------------

    def create_tunnel(self, id: str) -> dict[str, Any]:
        asking = self._asking(CREATE_S)
        create = functools.partial(
            self._tunnels.with_raw_response.create, account_id=self._account, name=id, config_src="local"
        )
        return asking.create(create, lambda: self._existing_tunnel(asking, id))

    def create_hostname(self, id: str, target_content: str) -> dict[str, Any]:
        asking = self._asking(HOSTNAME_S)
        create = functools.partial(
            self._records.with_raw_response.create,
            zone_id=self._zone,
            type="CNAME",
            name=id,
            content=target_content,
            proxied=True,
            ttl=1,
        )
        return asking.create(create, lambda: self._existing_record(asking, id, target_content))

    def delete(self, id: str) -> None:
        asking = self._asking(DELETE_S)
        for record in self._records_of(asking, id):
            asking.gone(self._records.with_raw_response.delete, record["id"], zone_id=self._zone)
        for tunnel in self._tunnels_of(asking, id):
            self._delete_tunnel(asking, tunnel["id"])

    def runners(self, model: str) -> list[Runner]:
        """One: whatever answers under the model's name."""
        return [Runner(DIRECT, UNKNOWN)]

    def call(
        self,
        model: str,
        method: str,
        path: str,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 15.0,
        runner: str | None = None,
    ) -> Reply:
        return self._calls.call(f"{model}.{self._domain}", method, path, json, headers, timeout_s)

    # --- what is there already --------------------------------------------------------------------------------------

    def _existing_tunnel(self, asking: "_Asking", id: str) -> dict[str, Any] | None:
        """As creating it would have answered."""
        found = self._tunnels_of(asking, id)
        if not found:
            return None
        tunnel = found[0]
        token = asking.envelope(self._tunnels.token.with_raw_response.get, tunnel["id"], account_id=self._account).get(
            "result"
        )
        credentials = {**credentials_of(token), "TunnelName": id}
        return {
            "success": True,
            "errors": [],
            "messages": [],
            "result": {**tunnel, "credentials_file": credentials, "token": token},
        }

    def _existing_record(self, asking: "_Asking", id: str, target_content: str) -> dict[str, Any] | None:
        for record in self._records_of(asking, id):
            if record.get("type") == "CNAME" and record.get("content") == target_content:
                return {"success": True, "errors": [], "messages": [], "result": record}
        return None

    def _tunnels_of(self, asking: "_Asking", id: str) -> list[dict[str, Any]]:
        answer = asking.envelope(
            self._tunnels.with_raw_response.list, account_id=self._account, name=id, is_deleted=False
        )
        return [tunnel for tunnel in _listed(answer) if tunnel.get("name") == id]

    def _records_of(self, asking: "_Asking", id: str) -> list[dict[str, Any]]:
        name = f"{id}.{self._domain}"
        answer = asking.envelope(self._records.with_raw_response.list, zone_id=self._zone, name={"exact": name})
        return [record for record in _listed(answer) if str(record.get("name")).lower() == name.lower()]

    def _delete_tunnel(self, asking: "_Asking", tunnel: str) -> None:
        """Its connections first, for a tunnel that is in use is not deleted; an agent may have come back meanwhile."""
        for last in (False, True):
            asking.gone(self._tunnels.connections.with_raw_response.delete, tunnel, account_id=self._account)
            try:
                asking.gone(self._tunnels.with_raw_response.delete, tunnel, account_id=self._account)
            except TunnelProviderFailed:
                if last:
                    raise
            else:
                return

    def _asking(self, seconds: float) -> "_Asking":
        return _Asking(self._sdk, self._clock, seconds)


class _Asking:
    """The requests of one operation. Each has a timeout, all together have the operation's."""

    def __init__(self, sdk: Any, clock: Clock, seconds: float) -> None:
        self._sdk = sdk
        self._clock = clock
        self._until = clock.steady() + seconds

    def create(self, create: Ask, existing: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
        """POST is not safe to repeat, so after each doubtful answer comes a look at what is there."""
        for left in reversed(range(TRIES)):
            try:
                return _checked(self._body(create))
            except self._sdk.CloudflareError as error:
                found = existing() if _is_doubtful(error) else None
                if found is not None:
                    return found
                if not left or not _is_doubtful(error):
                    raise self._failed(error) from None
        raise AssertionError("unreachable")

    def envelope(self, ask: Ask, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The answer to a request that may be repeated. Raises TunnelProviderFailed."""
        for left in reversed(range(TRIES)):
            try:
                return _checked(self._body(ask, *args, **kwargs))
            except self._sdk.CloudflareError as error:
                if not left or not _is_doubtful(error):
                    raise self._failed(error) from None
        raise AssertionError("unreachable")

    def gone(self, delete: Ask, *args: Any, **kwargs: Any) -> None:
        """What is not there need not be deleted."""
        for left in reversed(range(TRIES)):
            try:
                self._body(delete, *args, **kwargs)
                return
            except self._sdk.CloudflareError as error:
                if _status(error) == 404:
                    return
                if not left or not _is_doubtful(error):
                    raise self._failed(error) from None

    def _body(self, ask: Ask, *args: Any, **kwargs: Any) -> Any:
        left = self._until - self._clock.steady()
        if left <= 0:
            log.warning("Cloudflare did not answer in time")
            raise TunnelProviderFailed()
        try:
            return json.loads(ask(*args, timeout=min(left, REQUEST_S), **kwargs).read())
        except ValueError:
            log.warning("Cloudflare's answer is no JSON")
            raise TunnelProviderFailed() from None

    def _failed(self, error: Exception) -> TunnelProviderFailed:
        codes = [getattr(each, "code", None) for each in getattr(error, "errors", None) or ()]
        log.warning("Cloudflare refused: %s, status %s, codes %s", type(error).__name__, _status(error), codes)
        return TunnelProviderFailed()


def _status(error: Exception) -> int | None:
    """None when there was no answer."""
    return getattr(error, "status_code", None)


def _is_doubtful(error: Exception) -> bool:
    """Whether the request may have been carried out all the same, now or before, or may be the next time."""
    status = _status(error)
    return status is None or status in {400, 408, 409, 429} or status >= 500


def _checked(envelope: Any) -> dict[str, Any]:
    if not isinstance(envelope, dict) or envelope.get("success") is not True:
        log.warning("Cloudflare's answer is none that is known")
        raise TunnelProviderFailed()
    return envelope


def _listed(envelope: dict[str, Any]) -> list[dict[str, Any]]:
    """One page is enough: a name is given once."""
    result = envelope.get("result")
    found = result if isinstance(result, list) else []
    return [item for item in found if isinstance(item, dict) and isinstance(item.get("id"), str)]


_BASE64 = re.compile(r"[A-Za-z0-9+/_=-]{1,4096}")


def credentials_of(token: Any) -> dict[str, str]:
    """What a tunnel's token says: base64 of `{"a": account, "t": tunnel, "s": secret}`. Raises TunnelProviderFailed."""
    try:
        if not isinstance(token, str) or not _BASE64.fullmatch(token):
            raise ValueError("not base64")
        said = json.loads(base64.b64decode(token))
        members = {"AccountTag": said["a"], "TunnelID": said["t"], "TunnelSecret": said["s"]}
        if not all(isinstance(value, str) for value in members.values()):
            raise ValueError("not text")
    except (ValueError, KeyError, TypeError):
        log.warning("the tunnel's token is none that is known")
        raise TunnelProviderFailed() from None
    return members


# --- for scripts ----------------------------------------------------------------------------------------------------


def create_tunnel(id: str) -> dict[str, Any]:
    """Cloudflare's answer as it is; finds the tunnel of this name, if there is one. Raises TunnelProviderFailed."""
    return _from_environment().create_tunnel(id)


def create_hostname(id: str, target_content: str) -> dict[str, Any]:
    """Let `<id>.<RUNNER_DOMAIN>` lead to `target_content`, `<TunnelID>.cfargotunnel.com`. Raises the same."""
    return _from_environment().create_hostname(id, target_content)


@functools.lru_cache(maxsize=1)
def _from_environment() -> CloudflareTunnels:
    return CloudflareTunnels(Settings.load(), SystemClock())
