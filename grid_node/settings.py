"""Every setting of the node: name, default, unit, help.

The environment variable of a setting is `GRID_` plus its name in upper case; a `.env` file in the working
directory is read too, the environment wins. Nonsense raises `BadSetting`, on which every entry point exits
with status 2 before anything is opened.
"""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from environs import Env, EnvError

Check = Callable[[Any], bool]


class BadSetting(Exception):
    """A setting has a value that it cannot have; the text names the variable and the remedy."""


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _not_negative(value: float) -> bool:
    return math.isfinite(value) and value >= 0


def setting(
    default: Any, unit: str, text: str, check: Check | None = None, expects: str = "", secret: bool = False
) -> Any:
    if check is None and isinstance(default, int | float) and not isinstance(default, bool):
        check, expects = _positive, "a positive number"
    metadata = {"unit": unit, "help": text, "check": check, "expects": expects}
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


def _share(value: float) -> bool:
    return 0 <= value <= 1


def _one_of(*words: str) -> dict[str, Any]:
    return {"check": lambda value: value in words, "expects": "one of " + ", ".join(words)}


def _is_money(text: str) -> bool:
    """More than nothing, in whole cents."""
    return re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,2})?", text) is not None and float(text) > 0


_ZERO_OK: dict[str, Any] = {"check": _not_negative, "expects": "a number, zero or more"}
MIB = 1024 * 1024
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


@dataclass(frozen=True)
class Settings:
    """The node's configuration, complete and checked."""

    # --- where the node lives
    data_dir: Path = setting(Path("instance"), "folder", "SQLite file, blobs, node key, caches")
    database_url: str = setting("", "URL", "database; empty: SQLite in the data folder")
    redis_url: str = setting("", "URL", "Redis for limits and several processes; empty: none")
    blobs_url: str = setting("", "URL", "folder or fsspec URL of the blobs; empty: in the data folder")
    node_key_file: str = setting("", "file", "hotkey file of the node; empty: made in the data folder")
    log_level: str = setting("info", "", "log level", **_one_of("debug", "info", "warning", "error"))
    host: str = setting("127.0.0.1", "address", "address the start command binds")
    async_mode: str = setting("threading", "", "set by wsgi.py", **_one_of("eventlet", "threading"))
    trusted_proxies: int = setting(0, "hops", "proxies whose X-Forwarded-For counts", **_ZERO_OK)
    commit_batch: int = setting(256, "units", "most units of work that share one commit on SQLite")
    lock_timeout: float = setting(5.0, "s", "how long a write waits for a locked database")
    db_pool: int = setting(32, "connections", "connections to PostgreSQL")
    shutdown_grace: float = setting(10.0, "s", "how long SIGTERM waits for work in hand")
    sockets_max: int = setting(10000, "sockets", "open sockets of this process")
    cors_origins: str = setting("*", "origins", "browser origins that may connect; comma separated, or *")

    # --- the public API
    public_api_enabled: bool = setting(True, "", "whether clients may create tasks")
    public_api_server_port: int = setting(
        8888, "port", "the node's one port", lambda port: 0 < port < 65536, "a port from 1 to 65535"
    )
    public_api_copies: int = setting(
        4, "copies", "workers that get each task", lambda n: 1 <= n <= 8, "a whole number from 1 to 8"
    )
    public_api_wait_after_first_copy: float = setting(30.0, "s", "window after the first accepted result")
    public_api_sync_api_keys_interval: float = setting(1.0, "s", "how soon key changes work; at most 1")
    public_api_task_timeout: float = setting(600.0, "s", "deadline of a task that names none")
    public_api_deadline_max: float = setting(3600.0, "s", "longest deadline a client may ask for")
    public_api_queue_max: int = setting(500, "tasks", "tasks that may wait for their first worker")
    public_api_prompt_max: int = setting(1024, "characters", "longest prompt")
    public_api_settle: float = setting(5.0, "s", "quiet time after which no further worker is hoped for")
    public_api_score_grace: float = setting(15.0, "s", "extra time for results already in scoring")
    public_api_task_ttl: float = setting(604800.0, "s", "how long ended tasks and updates are kept")
    public_api_asset_ttl: float = setting(86400.0, "s", "how long the assets of ended tasks are kept")
    public_api_ws_handshake: float = setting(10.0, "s", "wait for each of the two first raw frames")
    public_api_ws_grace: float = setting(60.0, "s", "life of a task whose raw WebSocket is gone")
    public_api_ws_pending_max: int = setting(1000, "sockets", "raw sockets before authentication")
    public_api_ws_stall: float = setting(60.0, "s", "a reader without progress for so long is cut")
    public_api_bad_keys: int = setting(20, "keys", "wrong keys an address may try in 300 s")

    # --- workers
    worker_api_keys: bool = setting(False, "", "private grid: workers identify by API key")
    worker_lease: float = setting(60.0, "s", "length of a lease and of each renewal")
    worker_lease_max: float = setting(600.0, "s", "longest life of a lease with all its renewals")
    worker_pull_wait_max: float = setting(25.0, "s", "longest wait of one pull")
    worker_presence: float = setting(60.0, "s", "a worker that pulled so recently counts as present")
    worker_skips_free: int = setting(3, "skips", "skips in a row without a cooldown", **_ZERO_OK)
    worker_cooldown_success: float = setting(0.0, "s", "cooldown after an accepted result", **_ZERO_OK)
    worker_cooldown_low_score: float = setting(60.0, "s", "after a low score, doubling each time", **_ZERO_OK)
    worker_cooldown_invalid: float = setting(120.0, "s", "after an invalid asset", **_ZERO_OK)
    worker_cooldown_fraud: float = setting(600.0, "s", "after a bad signature or hash", **_ZERO_OK)
    worker_cooldown_expired: float = setting(60.0, "s", "after an expired lease", **_ZERO_OK)
    worker_cooldown_skip: float = setting(30.0, "s", "after each skip above the free ones", **_ZERO_OK)
    worker_cooldown_max: float = setting(600.0, "s", "longest cooldown", **_ZERO_OK)
    message_max: int = setting(MIB, "bytes", "largest Socket.IO event, all its parts together")
    uploads_open: int = setting(16, "uploads", "unfinished uploads of one worker")
    upload_ttl: float = setting(86400.0, "s", "life of an unfinished upload")
    blob_gc_grace: float = setting(86400.0, "s", "age at which an unreferenced blob goes")
    epistula_window_ms: int = setting(8000, "ms", "clock difference a signed request may have")

    # --- sockets that prove a hotkey: workers and miners
    websocket_auth_timeout: float = setting(10.0, "s", "wait for `authenticate` after a challenge")
    websocket_message_skew: float = setting(60.0, "s", "clock difference a signed message may have")

    # --- predictions: the sockets of miners
    websocket_enabled: bool = setting(True, "", "whether miners may connect sockets; HTTP stays")
    websocket_heartbeat_interval: float = setting(60.0, "s", "between two heartbeats of each side")
    websocket_connection_timeout: float = setting(300.0, "s", "silence after which a miner's socket is closed")
    websocket_max_connections: int = setting(1024, "sockets", "miners' sockets of this process")
    websocket_max_pending_per_ip: int = setting(16, "sockets", "miners' sockets of one address before authentication")
    websocket_send_window: int = setting(64, "updates", "updates sent to a miner and not acknowledged")
    websocket_send_queue: int = setting(1000, "updates", "a miner further behind is closed")
    websocket_slow_timeout: float = setting(30.0, "s", "a miner that acknowledges nothing for so long is closed")
    registration_recheck: float = setting(60.0, "s", "how often the standing of open sockets is looked up at least")
    registration_max_age: float = setting(3600.0, "s", "how long the last known standing of a hotkey counts")

    # --- predictions: what is taken
    prediction_max_in_flight: int = setting(64, "messages", "unanswered messages of one miner's socket")
    prediction_max_bytes: int = setting(16384, "bytes", "largest prediction message")
    prediction_max_batch: int = setting(64, "messages", "most messages of one batch")
    prediction_max_batch_bytes: int = setting(262144, "bytes", "largest batch")
    prediction_rate: float = setting(20.0, "predictions/s", "new predictions of one miner, by socket and HTTP together")
    prediction_burst: int = setting(200, "predictions", "new predictions of one miner at once")
    prediction_queue_max: int = setting(4096, "predictions", "predictions that wait for their commit")
    prediction_commit_timeout: float = setting(5.0, "s", "longest wait for a commit")
    prediction_min_wager: str = setting("1.00", "money", "least wager", _is_money, "money with two decimals at most")
    prediction_daily_limit: str = setting(
        "1000.00", "money", "accepted wagers of a miner in a UTC day", _is_money, "money with two decimals at most"
    )
    prediction_retention_days: float = setting(50.0, "days", "how long predictions are kept after their game")
    games_odds_epsilon: float = setting(0.001, "odds", "a change of odds that is not above it is none", **_ZERO_OK)
    games_compress_min_bytes: int = setting(4096, "bytes", "smaller updates are not compressed")
    games_log_max_age: float = setting(86400.0, "s", "how long updates of games can be resumed")
    games_log_max_entries: int = setting(10000, "updates", "how many updates of games can be resumed")
    games_resume_max: int = setting(500, "updates", "a reader further behind gets a snapshot")
    games_log_poll_ms: int = setting(500, "ms", "between two looks for updates of other processes")

    # --- scoring
    scoring_backend: str = setting("auto", "", "renderer", **_one_of("auto", "numba", "torch"))
    scoring_processes: int = setting(1, "processes", "job processes that this node starts; 0: none", **_ZERO_OK)
    scoring_threads: int = setting(0, "threads", "threads of each; 0: all cores / processes", **_ZERO_OK)
    scoring_timeout: float = setting(120.0, "s", "longest time for one asset")
    scoring_memory: int = setting(4 * 1024 * MIB, "bytes", "memory of one job process")
    scoring_attempts: int = setting(3, "attempts", "tries before a result is `scoring_unavailable`")
    scoring_threshold: float = setting(0.6, "score", "least accepted score", _share, "a number from 0 to 1")
    scoring_min_splats: int = setting(7000, "splats", "fewest splats of an asset")
    scoring_max_splats: int = setting(2_000_000, "splats", "most splats of an asset")
    scoring_max_bytes: int = setting(128 * MIB, "bytes", "largest asset")
    scoring_view_size: int = setting(
        256, "px", "side of a scored view", lambda n: 64 <= n <= 1024, "a whole number from 64 to 1024"
    )
    scoring_up_axis: str = setting("+Y", "axis", "up axis of assets", **_one_of("+Y", "-Y"))
    scoring_previews: int = setting(8, "views", "previews of a result", lambda n: n in (0, 4, 8), "0, 4 or 8")
    scoring_preview_size: int = setting(
        512, "px", "side of a preview", lambda n: 64 <= n <= 1024, "a whole number from 64 to 1024"
    )
    scoring_queue_max: int = setting(200, "results", "results waiting for a score before leases stop")

    # --- hosted models
    models_auth: str = setting(
        "", "", "who needs a key; empty: none, on loopback only", **_one_of("", "none", "write", "all")
    )
    models_message_max: int = setting(MIB, "bytes", "largest event that carries a model, all its parts together")
    models_inline_max: int = setting(8 * MIB, "bytes", "largest model inside JSON or a form, in or out")
    models_max_bytes: int = setting(10 * 1024 * MIB, "bytes", "largest model")
    models_quota_bytes: int = setting(50 * 1024 * MIB, "bytes", "models of one key together")
    models_quota_count: int = setting(1000, "models", "models of one key")
    models_anonymous_quota_bytes: int = setting(5 * 1024 * MIB, "bytes", "models served without a key together")
    models_anonymous_quota_count: int = setting(1000, "models", "models served without a key")
    models_upload_ttl: float = setting(86400.0, "s", "life of an unfinished upload of a model")
    models_uploads_open: int = setting(16, "uploads", "unfinished uploads of one key")
    models_check_timeout: float = setting(60.0, "s", "how long an upload's last request waits for the check")
    blob_scrub_interval: float = setting(604800.0, "s", "how often every stored model is read and compared")
    safetensors_header_max: int = setting(16 * MIB, "bytes", "largest header of a safetensors file")
    safetensors_tensors_max: int = setting(100_000, "tensors", "most tensors of a safetensors file")
    executable_formats: str = setting("", "", "formats with code that may run: torchscript, torch_export")

    # --- inference
    infer_timeout: float = setting(30.0, "s", "deadline of an inference, from its arrival")
    infer_max_bytes: int = setting(64 * MIB, "bytes", "largest inference request, uncompressed")
    infer_queue_max: int = setting(256, "requests", "requests in hand for one model")
    batch_max_rows: int = setting(32, "rows", "most rows of one batch")
    batch_max_delay: float = setting(0.005, "s", "longest wait for a batch to fill", **_ZERO_OK)
    compute_processes: int = setting(1, "processes", "processes that run models; 0: none", **_ZERO_OK)
    compute_threads: int = setting(0, "threads", "threads of each; 0: all cores / processes", **_ZERO_OK)
    compute_memory: int = setting(2 * 1024 * MIB, "bytes", "models loaded in one process together")
    compute_idle_unload: float = setting(600.0, "s", "idle time after which a model is unloaded")

    # --- models of syft, and shares of encrypted models
    syft_python: str = setting("", "file", "Python with the extra `syft`; empty: format syft-0.9.5 is refused")
    syft_timeout: float = setting(120.0, "s", "longest conversion")
    syft_memory: int = setting(4 * 1024 * MIB, "bytes", "memory of a conversion")
    syft_expanded_max: int = setting(2 * 1024 * MIB, "bytes", "largest state dict that a conversion may yield")
    share_peers: str = setting(
        "", "URL=KEY", "grid nodes at which this node places shares, with its key there; comma separated"
    )
    share_place_timeout: float = setting(600.0, "s", "longest time to split a model and place its shares")

    # --- runners: models behind tunnels
    public_base_url: str = setting("", "URL", "where others reach this node; empty: its own address and port")
    secrets_key: str = setting(
        "", "", "Fernet keys, newest first, comma separated; empty: from the data folder's secret", secret=True
    )
    runner_tunnel_provider: str = setting("socketio", "", "way to the workers", **_one_of("socketio", "cloudflare"))
    runner_domain: str = setting("", "domain", "where tunnels get their names; empty: runners.localhost")
    runner_url_template: str = setting("https://{hostname}", "URL", "how a worker behind a public tunnel is called")
    runner_local_service: str = setting("http://localhost:3009", "URL", "where a worker listens on its own machine")
    cloudflare_tunnel_api_token: str = setting("", "", "Cloudflare token that may edit tunnels", secret=True)
    cloudflare_dns_api_token: str = setting("", "", "Cloudflare token that may edit DNS records", secret=True)
    cloudflare_account_id: str = setting("", "", "Cloudflare account of the tunnels")
    cloudflare_zone_id: str = setting("", "", "Cloudflare zone of the names")
    cloudflare_base_url: str = setting("https://api.cloudflare.com/client/v4", "URL", "Cloudflare's API")
    signature_max_bytes: int = setting(262144, "bytes", "largest signature of a model")
    signature_max_inputs: int = setting(100, "inputs", "most inputs of a model")
    models_per_owner: int = setting(200, "models", "registered models of one key")
    runners_per_model: int = setting(8, "runners", "agents of one model that are connected at a time")
    runner_call_s: float = setting(15.0, "s", "longest wait for a worker's answer")
    runner_lost_s: float = setting(450.0, "s", "silence after which an idle worker has lost its prediction")
    runner_queue_max: int = setting(1000, "predictions", "predictions that wait for one model")
    input_max_bytes: int = setting(1048576, "bytes", "largest input of a prediction")
    prediction_queue_ttl_s: float = setting(600.0, "s", "longest wait for a runner")
    prediction_run_s: float = setting(1800.0, "s", "longest run of a prediction")
    prediction_attempts: int = setting(2, "sends", "how often a prediction is sent that got no answer")
    prediction_ttl_s: float = setting(2592000.0, "s", "how long ended predictions are kept")
    cancel_grace_s: float = setting(15.0, "s", "how long a worker has to confirm that it cancelled")
    webhook_in_max_bytes: int = setting(33554432, "bytes", "largest report of a worker")
    events_per_prediction: int = setting(10000, "reports", "reports of one prediction that are kept as they came")
    events_per_prediction_bytes: int = setting(64 * MIB, "bytes", "the same, received bytes together")
    upload_max_bytes: int = setting(268435456, "bytes", "largest file of a worker or client")
    upload_per_prediction_bytes: int = setting(2147483648, "bytes", "files of one prediction together")
    upload_per_prediction_files: int = setting(1000, "files", "files of one prediction")
    upload_per_owner_bytes: int = setting(21474836480, "bytes", "files of one key together")
    upload_disk_floor_bytes: int = setting(1073741824, "bytes", "free disk below which no file is taken", **_ZERO_OK)
    upload_idle_timeout_s: float = setting(30.0, "s", "silence after which an upload is given up")
    upload_late_s: float = setting(900.0, "s", "how long after its end a prediction takes files")
    file_ttl_s: float = setting(86400.0, "s", "how long files are kept")
    webhook_allow_private: bool = setting(False, "", "whether webhooks may go to private addresses, and by http")
    webhook_timeout_s: float = setting(10.0, "s", "longest wait for the receiver of a webhook")
    errand_threads: int = setting(4, "threads", "deliveries at a time; 0: no process for them", **_ZERO_OK)

    # --- chain; the settings of Pylon itself are in grid_node/chain/pylon.py
    chain_backend: str = setting("auto", "", "where the chain is", **_one_of("auto", "local", "subtensor"))
    chain_netuid: int = setting(-1, "netuid", "subnet of the node's workers; -1: the first identity's, else 1",
                                lambda n: -1 <= n <= 65535, "a netuid from 0 to 65535, or -1")  # fmt: skip
    chain_allow_tokenless_open_access: bool = setting(False, "", "whether open access works without the token's header")
    chain_session_seconds: float = setting(2592000.0, "s", "life of a session cookie")
    chain_auth_failures_per_minute: int = setting(30, "failures", "wrong tokens an address may show in a minute")
    chain_body_max_bytes: int = setting(MIB, "bytes", "largest body of a request to the chain's API")
    chain_queue_max: int = setting(256, "calls", "calls that may wait for the chain's process")
    chain_cache_max_bytes: int = setting(64 * MIB, "bytes", "answers of the chain that are kept ready")
    chain_latest_max_lag_blocks: int = setting(1, "blocks", "how far `latest` may lag the head", **_ZERO_OK)
    chain_latest_stale_seconds: float = setting(60.0, "s", "how long `latest` outlives the chain node", **_ZERO_OK)
    chain_call_timeout_seconds: float = setting(30.0, "s", "longest wait for one answer of the chain node")
    chain_submit_timeout_seconds: float = setting(120.0, "s", "longest wait for an extrinsic to be finalized")
    chain_repeat_window_seconds: float = setting(120.0, "s", "how long a repeated commitment is the same", **_ZERO_OK)
    chain_put_lookup_seconds: float = setting(2.0, "s", "longest look at the metagraph when weights are put")
    chain_local_block_seconds: float = setting(12.0, "s", "time between two blocks of the ledger")
    chain_local_bootstrap: bool = setting(True, "", "whether an empty ledger gets the identities' subnets")
    chain_require_registration: bool = setting(True, "", "whether hotkeys must be registered or allowed")
    chain_strong_workers: int = setting(100, "workers", "how many by incentive count as strong", **_ZERO_OK)
    chain_standing_max_age_seconds: float = setting(1800.0, "s", "how long the last known metagraph counts")
    chain_unknown_standing: str = setting("deny", "", "hotkeys while no metagraph is known", **_one_of("deny", "allow"))
    chain_auto_weights: str = setting("", "identities", "whose weights follow the scores; comma separated or JSON list")
    chain_score_window_epochs: int = setting(3, "epochs", "epochs whose scores count")
    chain_score_min_results: int = setting(5, "results", "fewer results earn no weight")

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> "Settings":
        """Settings from `overrides`, then the environment, then `.env`, then the defaults.

        Raises BadSetting.
        """
        if environ is None:
            file = dotenv_values(Path.cwd() / ".env")
            environ = {**{name: value or "" for name, value in file.items()}, **os.environ}
        values = {field.name: _parse(field, environ) for field in dataclasses.fields(cls)}
        unknown = overrides.keys() - values.keys()
        if unknown:
            raise BadSetting(f"no such setting: {', '.join(sorted(unknown))}")
        settings = cls(**{**values, **overrides})
        settings.check()
        return settings

    def check(self) -> None:
        """Raises BadSetting for the first value that its setting cannot have."""
        for field in dataclasses.fields(self):
            check = field.metadata["check"]
            value = getattr(self, field.name)
            if check is not None and not check(value):
                raise BadSetting(f"{env_name(field.name)} must be {field.metadata['expects']}, not {value!r}")
        if not self.models_auth and self.host not in LOOPBACK:
            raise BadSetting("GRID_MODELS_AUTH must be set (none, write or all) when GRID_HOST is not loopback")
        unknown = self.formats_with_code - {"torchscript", "torch_export"}
        if unknown:
            raise BadSetting(f"GRID_EXECUTABLE_FORMATS knows torchscript and torch_export, not {sorted(unknown)}")
        if self.prediction_queue_max < self.prediction_max_batch:
            raise BadSetting("GRID_PREDICTION_QUEUE_MAX is below GRID_PREDICTION_MAX_BATCH: no full batch has room")
        if self.runner_tunnel_provider == "cloudflare":
            self._check_cloudflare()
        if self.public_api_task_timeout > self.public_api_deadline_max:
            raise BadSetting("GRID_PUBLIC_API_TASK_TIMEOUT is above GRID_PUBLIC_API_DEADLINE_MAX")

    def _check_cloudflare(self) -> None:
        names = ("cloudflare_tunnel_api_token", "cloudflare_dns_api_token", "cloudflare_account_id",
                 "cloudflare_zone_id", "runner_domain")  # fmt: skip
        for name in names:
            if not getattr(self, name):
                raise BadSetting(f"{env_name(name)} must be set when GRID_RUNNER_TUNNEL_PROVIDER is cloudflare")

    def environ(self) -> dict[str, str]:
        """These settings as environment variables, for a process that the node starts."""
        return {env_name(field.name): str(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @property
    def database(self) -> str:
        """URL of the database; by default a SQLite file in the data folder."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'grid.db'}"

    @property
    def blobs(self) -> str:
        return self.blobs_url or str(self.data_dir.resolve() / "blobs")

    @property
    def formats_with_code(self) -> frozenset[str]:
        """The model formats with code of their own that the operator lets run."""
        return frozenset(word.strip() for word in self.executable_formats.split(",") if word.strip())

    @property
    def public_url(self) -> str:
        """Where others reach this node, without a slash at the end: absolute URLs start so, whatever Host says."""
        return (self.public_base_url or f"http://{self.host}:{self.public_api_server_port}").rstrip("/")

    @property
    def tunnel_domain(self) -> str:
        return self.runner_domain or "runners.localhost"

    @property
    def prediction_min_wager_cents(self) -> int:
        return _cents(self.prediction_min_wager)

    @property
    def prediction_daily_limit_cents(self) -> int:
        return _cents(self.prediction_daily_limit)

    @property
    def jobs_file(self) -> Path:
        """SQLite file of the job queue; it may be lost at any time."""
        return self.data_dir.resolve() / "jobs.db"


def _cents(money: str) -> int:
    whole, _, part = money.partition(".")
    return int(whole) * 100 + int(part.ljust(2, "0"))


def env_name(name: str) -> str:
    """`models_quota_bytes` is set by `GRID_MODELS_QUOTA_BYTES`."""
    return "GRID_" + name.upper()


def _parse(field: "dataclasses.Field[Any]", environ: Mapping[str, str]) -> Any:
    name = env_name(field.name)
    if name not in environ:
        return field.default
    env = Env()
    readers = {bool: _word, int: env.int, float: env.float, Path: env.path, str: env.str}
    reader: Callable[[str], Any] = readers[field.type]  # type: ignore[index, assignment]
    saved = os.environ.get(name)
    os.environ[name] = environ[name]
    try:
        return reader(name)
    except (EnvError, ValueError) as error:
        raise BadSetting(f"{name} has a value it cannot have: {environ[name]!r}") from error
    finally:
        _restore(name, saved)


_WORDS = {"true": True, "1": True, "false": False, "0": False}


def _word(name: str) -> bool:
    """A boolean is one of four words: `GRID_WEBSOCKET_ENABLED=no` must not be read as something."""
    try:
        return _WORDS[os.environ[name].strip().lower()]
    except KeyError:
        raise ValueError("a boolean is True, False, 1 or 0") from None


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
