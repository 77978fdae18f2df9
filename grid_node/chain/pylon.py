"""Pylon's settings: an `.env` that Pylon runs on works here unchanged.

The variable of a setting is `PYLON_` plus its name in upper case. What is wrong is told all at once, and no text, repr
or log shows a token.
"""

import dataclasses
import importlib
import importlib.util
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grid_node.chain.identities import (
    LISTED,
    MEMBERS,
    Identity,
    identity_variable,
    is_netuid,
    listed_names,
    read_identities,
)
from grid_node.chain.keyfiles import file_problem, hotkey_file, key_problem
from grid_node.chain.networks import NETWORKS, network_url
from grid_node.chain.ports import BLOCK_MAX, NETUID_MAX
from grid_node.chain.pylon_env import ENV_FILE, ID_ENV_FILE, PREFIX, Variables, json_list
from grid_node.settings import BadSetting, Settings, setting

LOCAL, SUBTENSOR = "local", "subtensor"
UNUSED = frozenset(
    {
        "PYLON_COMMIT_CYCLE_LENGTH",
        "PYLON_DOCKER_IMAGE_NAME",
        "PYLON_ENVIRONMENT",
        "PYLON_EVM_RPC_URL",
        "PYLON_EVM_ARCHIVE_RPC_URL",
        "PYLON_EVM_ARCHIVE_BLOCKS_CUTOFF",
    }
)
"""Pylon's, accepted, without effect here."""
CHAIN_VARIABLES = ("bittensor_network", "bittensor_archive_network", "bittensor_wallet_path")
"""Whoever sets one of these means a real chain."""
ATTEMPTS_MAX = 1_000_000
SECONDS_MAX = 86400

log = logging.getLogger(__name__)


def _blocks(default: int, text: str, least: int = 0, most: int = BLOCK_MAX) -> Any:
    return setting(default, "blocks", text, lambda n: least <= n <= most, f"a whole number from {least} to {most}")


def _attempts(default: int, text: str) -> Any:
    expects = f"a whole number from 0 to {ATTEMPTS_MAX}"
    return setting(default, "attempts", text, lambda n: 0 <= n <= ATTEMPTS_MAX, expects)


def _seconds(default: float, text: str, zero: bool = False) -> Any:
    expects = f"a number of seconds {'from 0' if zero else 'above 0 and up'} to {SECONDS_MAX}"
    return setting(default, "s", text, lambda n: (n >= 0 if zero else n > 0) and n <= SECONDS_MAX, expects)


def _network(default: str, text: str) -> Any:
    expects = f"one of {', '.join(NETWORKS)}, or a ws:// or wss:// URL"
    return setting(default, "network", text, lambda name: not name or network_url(name) is not None, expects)


@dataclass(frozen=True)
class PylonSettings:
    """What Pylon's variables say, complete and checked."""

    bittensor_network: str = _network("finney", "node that recent blocks are read from and writes go to")
    bittensor_archive_network: str = _network("archive", "node that old blocks are read from")
    bittensor_archive_blocks_cutoff: int = _blocks(300, "age from which a block is read from the archive")
    bittensor_wallet_path: Path | None = setting(  # noqa: RUF009
        None, "folder", "wallets; required for a real chain"
    )
    open_access_token: str = setting("", "", "token of open access; empty: open to all", secret=True)
    identities: tuple[Identity, ...] = setting((), "JSON list", "names of the identities")
    tempo: int = _blocks(360, "tempo of a subnet that tells none", least=1, most=65535)
    commit_window_start_offset: int = _blocks(180, "from the start of an epoch until scores become weights")
    commit_window_end_buffer: int = _blocks(10, "end of an epoch in which scores no longer become weights")
    recent_objects_soft_limit_blocks: int = _blocks(100, "age at which `recent` is stale")
    recent_objects_hard_limit_blocks: int = _blocks(150, "age above which `recent` answers nothing")
    recent_objects_refresh_lead_blocks: int = _blocks(10, "how long before the soft limit `recent` is refreshed")
    recent_objects_netuids: tuple[int, ...] = setting((), "JSON list", "subnets that `recent` is kept ready for")
    weights_retry_attempts: int = _attempts(200, "tries of weights after the first")
    weights_retry_delay_seconds: float = _seconds(1.0, "wait before the second try of weights", zero=True)
    commitment_retry_attempts: int = _attempts(10, "tries of a commitment after the first")
    commitment_retry_delay_seconds: float = _seconds(1.0, "wait before the second try of a commitment", zero=True)
    metrics_token: str = setting("", "", "token of /metrics; empty: nobody reads it", secret=True)
    sentry_dsn: str = setting("", "URL", "where errors are reported; empty: nowhere", secret=True)
    sentry_environment: str = setting("development", "", "name of this environment in reports")
    debug: bool = setting(False, "", "accepted; answers never carry tracebacks")
    block_duration_seconds: float = _seconds(12.0, "time between two blocks of the chain")
    default_request_timeout_seconds: float = _seconds(60.0, "deadline of a request that names none")
    max_request_timeout_seconds: float = _seconds(300.0, "longest deadline that a request may name")
    given: frozenset[str] = dataclasses.field(default=frozenset(), repr=False)
    """Names of the settings that somebody set, be it to their default."""
    notes: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    """What an operator should know at the start."""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, settings: Settings | None = None) -> "PylonSettings":
        """From the environment, then the file `PYLON_ENV_FILE` (`.env`), identities also from `PYLON_ID_ENV_FILE`.

        A mapping given as `environ` stands for the environment; then only files that it names are read. With
        `settings` the key files and the identities that these settings name are checked too. Raises BadSetting with
        every problem, one a line.
        """
        variables = Variables.read(environ)
        loaded = _loaded(cls, variables)
        problems = variables.problems
        if settings is not None:
            listed = {*listed_names(variables.general.get(LISTED))}
            problems = [*problems, *check_wallets(settings, loaded), *_unknown_auto(settings, listed)]
        refuse(problems)
        return loaded

    def environ(self) -> dict[str, str]:
        """These settings as environment variables, for a process that the node starts. They hold the tokens."""
        told = {ENV_FILE: "", ID_ENV_FILE: ""}
        for name in _VALUES:
            if self.was_given(name):
                told[variable(name)] = _as_text(getattr(self, name))
        for identity in self.identities:
            for member in MEMBERS:
                told[identity_variable(identity.name, member)] = str(getattr(identity, member))
        return told

    def identity(self, name: str) -> Identity | None:
        return next((identity for identity in self.identities if identity.name == name), None)

    def was_given(self, name: str) -> bool:
        """Whether somebody set it."""
        return name in self.given or getattr(self, name) != _VALUES[name].default

    @property
    def main_url(self) -> str:
        return network_url(self.bittensor_network) or NETWORKS["finney"]

    @property
    def archive_url(self) -> str:
        return network_url(self.bittensor_archive_network) or NETWORKS["archive"]


_VALUES = {field.name: field for field in dataclasses.fields(PylonSettings) if field.metadata}


def variable(name: str) -> str:
    """`open_access_token` is set by `PYLON_OPEN_ACCESS_TOKEN`."""
    return PREFIX + name.upper()


# --- reading -------------------------------------------------------------------------------------------------------


def _loaded(cls: type[PylonSettings], variables: Variables) -> PylonSettings:
    """The settings as far as they make sense; what does not is among the problems."""
    values = {name: _value(field, variables) for name, field in _VALUES.items()}
    values["identities"] = read_identities(variables)
    values["recent_objects_netuids"] = _netuids(variables)
    found = {name: value for name, value in values.items() if value is not None}
    loaded = cls(**found, given=frozenset(name for name in found if variables.general.get(variable(name))))
    _check_together(loaded, variables)
    variables.notes.extend([*_networks_apart(loaded), *_same_tokens(loaded)])
    return dataclasses.replace(loaded, notes=(*variables.notes, *_unknown(loaded, variables)))


def _value(field: "dataclasses.Field[Any]", variables: Variables) -> Any:
    if isinstance(field.default, tuple):
        return None
    name = variable(field.name)
    if field.name in CHAIN_VARIABLES and not variables.general.get(name, "").strip():
        return None
    if field.default is None:
        return Path(variables.general[name]).expanduser()
    kind = type(field.default).__name__
    return variables.value(name, kind, field.metadata["check"], field.metadata["expects"])


def _netuids(variables: Variables) -> tuple[int, ...] | None:
    name = variable("recent_objects_netuids")
    expects = f"a JSON list of netuids from 0 to {NETUID_MAX}"
    found = variables.value(name, "list", lambda items: all(map(is_netuid, items)), expects)
    return None if found is None else tuple(dict.fromkeys(found))


def _check_together(loaded: PylonSettings, variables: Variables) -> None:
    if loaded.recent_objects_soft_limit_blocks > loaded.recent_objects_hard_limit_blocks:
        variables.problems.append(
            "PYLON_RECENT_OBJECTS_SOFT_LIMIT_BLOCKS must not be above PYLON_RECENT_OBJECTS_HARD_LIMIT_BLOCKS"
        )
    if loaded.sentry_dsn and importlib.util.find_spec("sentry_sdk") is None:
        variables.problems.append("PYLON_SENTRY_DSN is set and the SDK is missing: install grid-node[sentry]")


def _networks_apart(loaded: PylonSettings) -> list[str]:
    main, archive = (loaded.was_given(name) for name in CHAIN_VARIABLES[:2])
    if main == archive:
        return []
    names = [variable(name) for name in CHAIN_VARIABLES[:2]]
    given, missing = names if main else reversed(names)
    default = loaded.bittensor_archive_network if main else loaded.bittensor_network
    return [f"{given} is set and {missing} is not: {default} is used, which may be another chain"]


def _same_tokens(loaded: PylonSettings) -> list[str]:
    """Whoever was given one of them has the others too."""
    tokens = {variable("open_access_token"): loaded.open_access_token, variable("metrics_token"): loaded.metrics_token}
    tokens |= {identity_variable(identity.name, "token"): identity.token for identity in loaded.identities}
    names: dict[str, list[str]] = {}
    for name, token in tokens.items():
        if token:
            names.setdefault(token, []).append(name)
    return [f"{' and '.join(equal)} are the same token" for equal in names.values() if len(equal) > 1]


def _unknown(loaded: PylonSettings, variables: Variables) -> list[str]:
    known = {variable(name) for name in _VALUES} | UNUSED | {ENV_FILE, ID_ENV_FILE}
    for name in listed_names(variables.general.get(LISTED)):
        known |= {identity_variable(name, member) for member in MEMBERS}
    names = sorted((variables.general.keys() | variables.identities.keys()) - known)
    return [f"Variables that nothing here reads: {', '.join(names)}"] if names else []


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return json.dumps([item.name if isinstance(item, Identity) else item for item in value])
    return str(value)


# --- what follows from both kinds of settings ----------------------------------------------------------------------


def choose_backend(settings: Settings, pylon: PylonSettings) -> tuple[str, str]:
    """`local` or `subtensor`, and why."""
    if settings.chain_backend != "auto":
        return settings.chain_backend, "GRID_CHAIN_BACKEND says so"
    given = [variable(name) for name in CHAIN_VARIABLES if pylon.was_given(name)]
    if given:
        return SUBTENSOR, f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} set"
    return LOCAL, "no network and no wallet path of Pylon is set"


def block_seconds(settings: Settings, pylon: PylonSettings) -> float:
    """The usual time between two blocks of the chain that this node is on."""
    is_local = choose_backend(settings, pylon)[0] == LOCAL
    return settings.chain_local_block_seconds if is_local else pylon.block_duration_seconds


def node_netuid(settings: Settings, pylon: PylonSettings) -> int:
    """The subnet of the node's own workers."""
    if settings.chain_netuid >= 0:
        return settings.chain_netuid
    return pylon.identities[0].netuid if pylon.identities else 1


def auto_identities(settings: Settings, pylon: PylonSettings) -> tuple[Identity, ...]:
    """Those whose weights follow the scores. Raises BadSetting for a name that is no identity's."""
    refuse(_unknown_auto(settings, {identity.name for identity in pylon.identities}))
    names = _auto_names(settings)
    return tuple(identity for identity in pylon.identities if identity.name in names)


def problems_with(settings: Settings, pylon: PylonSettings) -> list[str]:
    """What is wrong with Pylon's settings in the light of the node's own; each names its variable.

    Reads the hotkeys: for a process that ends soon, not for the one that serves.
    """
    return [
        *check_wallets(settings, pylon, key_problem),
        *_unknown_auto(settings, {one.name for one in pylon.identities}),
    ]


def refuse(problems: Sequence[str]) -> None:
    """Raises BadSetting with a line for each, if there are any."""
    if problems:
        raise BadSetting("\n".join(f"Configuration error: {problem}" for problem in problems))


def announce(settings: Settings, pylon: PylonSettings) -> None:
    """Tell the log which chain is in use and why, and what the operator should know."""
    backend, why = choose_backend(settings, pylon)
    log.info("the chain is %s: %s", backend, why)
    for note in pylon.notes:
        log.warning("%s", note)


def _auto_names(settings: Settings) -> list[str]:
    """Raises ValueError."""
    text = settings.chain_auto_weights.strip()
    names = json_list(text) if text.startswith("[") else [name.strip() for name in text.split(",") if name.strip()]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("a list of names")
    return names


def _unknown_auto(settings: Settings, listed: set[str]) -> list[str]:
    try:
        unknown = [name for name in _auto_names(settings) if name not in listed]
    except ValueError:
        return ["GRID_CHAIN_AUTO_WEIGHTS must be names of identities, comma separated or a JSON list"]
    return [f'GRID_CHAIN_AUTO_WEIGHTS names "{name}", which is not listed in PYLON_IDENTITIES' for name in unknown]


def check_wallets(
    settings: Settings, pylon: PylonSettings, problem_of: Callable[[Path], str | None] = file_problem
) -> list[str]:
    """What stands in the way of signing on a real chain; nothing on the ledger, which makes its own wallets."""
    if choose_backend(settings, pylon)[0] != SUBTENSOR:
        return []
    folder = pylon.bittensor_wallet_path
    if folder is None:
        return ["PYLON_BITTENSOR_WALLET_PATH is required because the backend is subtensor"]
    found = [(identity, problem_of(hotkey_file(folder, identity.signer()))) for identity in pylon.identities]
    return [f"{identity_variable(identity.name, 'hotkey_name')}: {problem}" for identity, problem in found if problem]


def init_sentry(pylon: PylonSettings) -> None:
    """Report errors where `PYLON_SENTRY_DSN` says, without bodies, addresses of clients or values of variables.

    Raises BadSetting when the DSN is none.
    """
    if not pylon.sentry_dsn:
        return
    sentry: Any = importlib.import_module("sentry_sdk")
    try:
        sentry.init(
            dsn=pylon.sentry_dsn,
            environment=pylon.sentry_environment,
            send_default_pii=False,
            include_local_variables=False,
            max_request_body_size="never",
        )
    except ValueError:  # sentry_sdk.utils.BadDsn
        raise BadSetting("Configuration error: PYLON_SENTRY_DSN is no DSN of Sentry") from None
