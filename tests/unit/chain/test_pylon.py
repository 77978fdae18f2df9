"""Pylon's settings, as an operator of Pylon wrote them."""

import dataclasses
import importlib.machinery
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from bittensor_wallet import Keypair
from bittensor_wallet.keyfile import serialized_keypair_to_keyfile_data
from hypothesis import given
from hypothesis import strategies as st

from grid_node.chain.networks import NETWORKS, bare_url, network_url
from grid_node.chain.ports import Signer
from grid_node.chain.pylon import (
    PylonSettings,
    auto_identities,
    check_wallets,
    choose_backend,
    init_sentry,
    node_netuid,
    problems_with,
    variable,
)
from grid_node.settings import BadSetting, Settings
from tests.nodes import ROOT

SECRET = "s3cret-t0ken"
SN1 = {
    "PYLON_IDENTITIES": '["sn1"]',
    "PYLON_ID_SN1_WALLET_NAME": "cold",
    "PYLON_ID_SN1_HOTKEY_NAME": "hot",
    "PYLON_ID_SN1_NETUID": "1",
    "PYLON_ID_SN1_TOKEN": SECRET,
}
SEED_ENV = """
# the file that the documents of Pylon show
PYLON_IDENTITIES=["sn12", "sn89"]
PYLON_BITTENSOR_WALLET_PATH=~/.bittensor/wallets

# Identity: sn12
PYLON_ID_SN12_WALLET_NAME=sn12_wallet
PYLON_ID_SN12_HOTKEY_NAME=sn12_hotkey
PYLON_ID_SN12_NETUID=12
PYLON_ID_SN12_TOKEN=8GOqUEjyTuYXER790bm8LpSmOIDuPvbr

# Identity: sn89
PYLON_ID_SN89_WALLET_NAME=sn89_wallet
PYLON_ID_SN89_HOTKEY_NAME=sn89_hotkey
PYLON_ID_SN89_NETUID=89
PYLON_ID_SN89_TOKEN=IEYAWl9rPQAMTV0hqAKAaQtEYqqKws5z
"""


def problems(environ: dict[str, str], settings: Settings | None = None) -> list[str]:
    with pytest.raises(BadSetting) as caught:
        PylonSettings.load(environ, settings)
    lines = str(caught.value).splitlines()
    assert all(line.startswith("Configuration error: ") for line in lines)
    return [line.removeprefix("Configuration error: ") for line in lines]


def node(**settings: Any) -> Settings:
    return Settings.load({}, **settings)


# --- what is read ----------------------------------------------------------------------------------------------------


def test_nothing_set_gives_the_defaults_of_pylon() -> None:
    pylon = PylonSettings.load({})

    assert (pylon.bittensor_network, pylon.bittensor_archive_network) == ("finney", "archive")
    assert (pylon.main_url, pylon.archive_url) == (NETWORKS["finney"], NETWORKS["archive"])
    assert pylon.bittensor_archive_blocks_cutoff == 300
    assert pylon.bittensor_wallet_path is None
    assert (pylon.open_access_token, pylon.metrics_token, pylon.sentry_dsn) == ("", "", "")
    assert (pylon.sentry_environment, pylon.debug, pylon.identities) == ("development", False, ())
    assert (pylon.tempo, pylon.commit_window_start_offset, pylon.commit_window_end_buffer) == (360, 180, 10)
    assert pylon.recent_objects_soft_limit_blocks == 100
    assert pylon.recent_objects_hard_limit_blocks == 150
    assert (pylon.recent_objects_refresh_lead_blocks, pylon.recent_objects_netuids) == (10, ())
    assert (pylon.weights_retry_attempts, pylon.weights_retry_delay_seconds) == (200, 1.0)
    assert (pylon.commitment_retry_attempts, pylon.commitment_retry_delay_seconds) == (10, 1.0)
    assert pylon.block_duration_seconds == 12.0
    assert (pylon.default_request_timeout_seconds, pylon.max_request_timeout_seconds) == (60.0, 300.0)
    assert pylon.notes == ()


def test_the_env_file_of_the_documents_works(tmp_path: Path) -> None:
    file = tmp_path / "pylon.env"
    file.write_text(SEED_ENV)

    pylon = PylonSettings.load({"PYLON_ENV_FILE": str(file)})

    told = [(i.name, i.netuid, i.wallet_name, i.hotkey_name, i.token) for i in pylon.identities]
    assert told == [
        ("sn12", 12, "sn12_wallet", "sn12_hotkey", "8GOqUEjyTuYXER790bm8LpSmOIDuPvbr"),
        ("sn89", 89, "sn89_wallet", "sn89_hotkey", "IEYAWl9rPQAMTV0hqAKAaQtEYqqKws5z"),
    ]
    assert pylon.bittensor_wallet_path == Path.home() / ".bittensor/wallets"
    assert pylon.identity("sn89") is pylon.identities[1]
    assert pylon.identity("sn90") is None
    assert pylon.identities[0].signer() == Signer("sn12", 12, "sn12_wallet", "sn12_hotkey")


def test_the_process_reads_dot_env_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PYLON_TEMPO=99\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYLON_ENV_FILE", raising=False)
    monkeypatch.delenv("PYLON_TEMPO", raising=False)

    assert PylonSettings.load().tempo == 99
    assert PylonSettings.load({}).tempo == 360


def test_the_environment_beats_the_file_and_case_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "pylon.env"
    file.write_text("pylon_tempo=99\nPylon_Debug=yes\nPYLON_METRICS_TOKEN=m\n")

    pylon = PylonSettings.load({"pylon_env_file": str(file), "Pylon_Tempo": "77"})

    assert (pylon.tempo, pylon.debug, pylon.metrics_token) == (77, True, "m")
    assert PylonSettings.load({"pylon_tempo": "5", "PYLON_TEMPO": "6"}).tempo == 6
    assert PylonSettings.load({"PYLON_TEMPO": "6", "pylon_tempo": "5"}).tempo == 6


def test_identities_may_have_a_file_of_their_own(tmp_path: Path) -> None:
    main, own = tmp_path / "main.env", tmp_path / "own.env"
    main.write_text('PYLON_IDENTITIES=["sn1"]\nPYLON_ID_SN1_TOKEN=main\nPYLON_ID_SN1_NETUID=1\n')
    own.write_text("PYLON_ID_SN1_TOKEN=own\nPYLON_ID_SN1_WALLET_NAME=w\nPYLON_ID_SN1_HOTKEY_NAME=h\nPYLON_TEMPO=9\n")
    files = {"PYLON_ENV_FILE": str(main), "PYLON_ID_ENV_FILE": str(own)}

    pylon = PylonSettings.load({**files, "PYLON_ID_SN1_HOTKEY_NAME": "environment"})

    identity = pylon.identities[0]
    assert (identity.token, identity.wallet_name, identity.hotkey_name, identity.netuid) == (
        *("own", "w", "environment"),
        1,
    )
    assert pylon.tempo == 360


def test_settings_go_to_another_process_whole(tmp_path: Path) -> None:
    before = PylonSettings.load({
        **SN1, "PYLON_BITTENSOR_NETWORK": "finney", "PYLON_RECENT_OBJECTS_NETUIDS": "[3, 1, 3]", "PYLON_TEMPO": "12",
        "PYLON_BITTENSOR_WALLET_PATH": str(tmp_path), "PYLON_DEBUG": "1", "PYLON_WEIGHTS_RETRY_DELAY_SECONDS": "0.25",
        "PYLON_OPEN_ACCESS_TOKEN": "é ' \"",
    })  # fmt: skip
    after = PylonSettings.load(before.environ())

    assert {**vars(after), "notes": ()} == {**vars(before), "notes": ()}
    assert after.recent_objects_netuids == (3, 1)
    assert choose_backend(node(), after) == choose_backend(node(), before)


def test_no_file_of_the_new_process_gets_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PYLON_TEMPO=99\n")
    monkeypatch.chdir(tmp_path)
    for name, value in PylonSettings.load({}).environ().items():
        monkeypatch.setenv(name, value)

    assert PylonSettings.load().tempo == 360


# --- notes -----------------------------------------------------------------------------------------------------------


def test_unknown_names_give_one_note_without_values() -> None:
    strangers = {"PYLON_TEMPOO": "1", "PYLON_ID_SN2_TOKEN": SECRET, "pylon_other": SECRET}
    pylon = PylonSettings.load({**SN1, **strangers, "PYLON_COMMIT_CYCLE_LENGTH": "3", "PYLON_DOCKER_IMAGE_NAME": "x"})

    assert pylon.notes == ("Variables that nothing here reads: PYLON_ID_SN2_TOKEN, PYLON_OTHER, PYLON_TEMPOO",)


@pytest.mark.parametrize(
    ("named", "missing"),
    [
        ("PYLON_BITTENSOR_NETWORK", "PYLON_BITTENSOR_ARCHIVE_NETWORK"),
        ("PYLON_BITTENSOR_ARCHIVE_NETWORK", "PYLON_BITTENSOR_NETWORK"),
    ],
)
def test_one_network_without_the_other_is_noted(named: str, missing: str) -> None:
    (note,) = PylonSettings.load({named: "ws://127.0.0.1:1"}).notes
    assert note.startswith(f"{named} is set and {missing} is not")
    assert PylonSettings.load({named: "test", missing: "test"}).notes == ()


@pytest.mark.parametrize(
    "name",
    [
        "COMMIT_CYCLE_LENGTH",
        "DOCKER_IMAGE_NAME",
        "ENVIRONMENT",
        "EVM_RPC_URL",
        "EVM_ARCHIVE_RPC_URL",
        "EVM_ARCHIVE_BLOCKS_CUTOFF",
    ],
)
def test_what_pylon_reads_and_this_node_does_not_need_is_taken_in_silence(name: str) -> None:
    before = PylonSettings.load({})
    assert PylonSettings.load({f"PYLON_{name}": "x"}) == before


def test_equal_tokens_are_noted_and_not_shown() -> None:
    sn2 = {key.replace("SN1", "SN2"): value for key, value in SN1.items()}
    environ = {**SN1, **sn2, "PYLON_IDENTITIES": '["sn1", "sn2"]'}

    (note,) = PylonSettings.load(environ).notes
    assert note == "PYLON_ID_SN1_TOKEN and PYLON_ID_SN2_TOKEN are the same token"
    (note,) = PylonSettings.load({**SN1, "PYLON_OPEN_ACCESS_TOKEN": SECRET}).notes
    assert note == "PYLON_OPEN_ACCESS_TOKEN and PYLON_ID_SN1_TOKEN are the same token"
    assert PylonSettings.load({**environ, "PYLON_ID_SN2_TOKEN": "another"}).notes == ()


def test_a_named_file_of_identities_that_is_not_there_is_noted(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.env")
    assert PylonSettings.load({"PYLON_ID_ENV_FILE": missing}).notes == (
        f"PYLON_ID_ENV_FILE names a file that is not there: {missing}",
    )


# --- problems --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", ["WALLET_NAME", "HOTKEY_NAME", "NETUID", "TOKEN"])
def test_a_listed_identity_needs_all_its_variables(member: str) -> None:
    name = f"PYLON_ID_SN1_{member}"
    environ = {key: value for key, value in SN1.items() if key != name}

    assert problems(environ) == [f'{name} is required because "sn1" is listed in PYLON_IDENTITIES']
    assert problems({**SN1, name: " "}) == [f"{name} must not be empty"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYLON_IDENTITIES", "sn1"),
        ("PYLON_IDENTITIES", '"sn1"'),
        ("PYLON_IDENTITIES", "{}"),
        ("PYLON_IDENTITIES", ""),
        ("PYLON_IDENTITIES", "[" * 100_000),
        ("PYLON_IDENTITIES", "[1]"),
        ("PYLON_IDENTITIES", '["1sn"]'),
        ("PYLON_IDENTITIES", '["sn-1"]'),
        ("PYLON_IDENTITIES", '["sn1\\n"]'),
        ("PYLON_IDENTITIES", '["é"]'),
        ("PYLON_IDENTITIES", '["sn1", "SN1"]'),
        ("PYLON_ID_SN1_NETUID", "65536"),
        ("PYLON_ID_SN1_NETUID", "-1"),
        ("PYLON_ID_SN1_NETUID", "one"),
        ("PYLON_ID_SN1_WALLET_NAME", "../../etc"),
        ("PYLON_ID_SN1_HOTKEY_NAME", ".."),
        ("PYLON_RECENT_OBJECTS_NETUIDS", "[65536]"),
        ("PYLON_RECENT_OBJECTS_NETUIDS", "[true]"),
        ("PYLON_RECENT_OBJECTS_NETUIDS", "1"),
        ("PYLON_TEMPO", "0"),
        ("PYLON_TEMPO", ""),
        ("PYLON_TEMPO", "٣"),
        ("PYLON_TEMPO", "1_000"),
        ("PYLON_TEMPO", "9" * 5000),
        ("PYLON_BITTENSOR_ARCHIVE_BLOCKS_CUTOFF", "-1"),
        ("PYLON_WEIGHTS_RETRY_ATTEMPTS", "-1"),
        ("PYLON_WEIGHTS_RETRY_ATTEMPTS", "1.5"),
        ("PYLON_WEIGHTS_RETRY_DELAY_SECONDS", "nan"),
        ("PYLON_COMMITMENT_RETRY_DELAY_SECONDS", "-0.5"),
        ("PYLON_BLOCK_DURATION_SECONDS", "0"),
        ("PYLON_DEFAULT_REQUEST_TIMEOUT_SECONDS", "inf"),
        ("PYLON_MAX_REQUEST_TIMEOUT_SECONDS", "soon"),
        ("PYLON_DEBUG", "maybe"),
        ("PYLON_BITTENSOR_NETWORK", "mainnet"),
        ("PYLON_BITTENSOR_NETWORK", "https://node.example"),
        ("PYLON_BITTENSOR_ARCHIVE_NETWORK", "ws://"),
        ("PYLON_BITTENSOR_ARCHIVE_NETWORK", "wss://node.example:99999"),
        ("PYLON_BITTENSOR_ARCHIVE_NETWORK", "wss://[::1"),
        ("PYLON_RECENT_OBJECTS_SOFT_LIMIT_BLOCKS", "151"),
    ],
)
def test_nonsense_names_its_variable_and_stops_the_start(name: str, value: str) -> None:
    found = problems({**SN1, name: value})

    assert len(found) == 1
    assert name in found[0]


def test_all_problems_are_told_at_once_and_no_token_with_them() -> None:
    environ = {
        **SN1,
        "PYLON_TEMPO": "x",
        "PYLON_ID_SN1_NETUID": SECRET,
        "PYLON_OPEN_ACCESS_TOKEN": SECRET,
        "PYLON_RECENT_OBJECTS_NETUIDS": SECRET,
        "PYLON_BITTENSOR_NETWORK": f"https://{SECRET}",
    }
    found = problems(environ, node(chain_auto_weights="sn1,sn3"))

    assert [line.split()[0] for line in found] == [
        "PYLON_BITTENSOR_NETWORK",
        "PYLON_TEMPO",
        "PYLON_ID_SN1_NETUID",
        "PYLON_RECENT_OBJECTS_NETUIDS",
        "GRID_CHAIN_AUTO_WEIGHTS",
    ]
    assert SECRET not in " ".join(found)
    assert "not 'x'" in found[1]


def test_no_repr_shows_a_secret() -> None:
    pylon = PylonSettings.load(
        {**SN1, "PYLON_OPEN_ACCESS_TOKEN": SECRET, "PYLON_METRICS_TOKEN": SECRET, "PYLON_ID_SN2_TOKEN": SECRET}
    )
    assert SECRET not in repr(pylon) + repr(pylon.identities)
    assert "sn1" in repr(pylon)


def test_a_named_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.env")
    assert problems({"PYLON_ENV_FILE": missing}) == [f"PYLON_ENV_FILE names a file that is not there: {missing}"]


def test_the_default_file_may_be_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PYLON_")]:
        monkeypatch.delenv(name)
    assert PylonSettings.load() == PylonSettings()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"A=" + b"x" * (1024 * 1024)])
def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bad.env"
    file.write_bytes(content)
    (found,) = problems({"PYLON_ENV_FILE": str(file)})
    assert found.startswith("PYLON_ENV_FILE: ")
    (folder,) = problems({"PYLON_ID_ENV_FILE": str(tmp_path)})
    assert folder.startswith("PYLON_ID_ENV_FILE: ")


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
names = st.sampled_from([variable(field.name) for field in dataclasses.fields(PylonSettings) if field.metadata])


@given(environ=st.dictionaries(names | st.sampled_from([*SN1]), texts | st.integers().map(str)), token=texts)
def test_whatever_is_set_is_taken_or_told(environ: dict[str, str], token: str) -> None:
    secret = f"secret{token}"
    given_environ = {**SN1, **environ, "PYLON_ID_SN1_TOKEN": secret, "PYLON_OPEN_ACCESS_TOKEN": secret}
    try:
        pylon = PylonSettings.load(given_environ)
    except BadSetting as error:
        told = str(error)
    else:
        told = ""
        again = PylonSettings.load(pylon.environ())
        assert dataclasses.replace(again, notes=()) == dataclasses.replace(pylon, notes=())
    assert secret not in told
    assert told == "" or "PYLON_" in told


# --- networks --------------------------------------------------------------------------------------------------------


def test_networks_have_names_and_urls() -> None:
    assert network_url("finney") == "wss://entrypoint-finney.opentensor.ai:443"
    assert network_url("archive") == "wss://archive.chain.opentensor.ai:443"
    assert network_url("test") == "wss://test.finney.opentensor.ai:443"
    assert network_url("local") == "ws://127.0.0.1:9944"
    assert network_url("ws://10.0.0.1:9944") == "ws://10.0.0.1:9944"
    assert network_url("wss://a\nb") is None


def test_what_is_told_of_a_url_holds_no_key() -> None:
    assert bare_url("wss://user:pass@node.example:443/key?apikey=k#f") == "wss://node.example:443"


# --- what follows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["BITTENSOR_NETWORK", "BITTENSOR_ARCHIVE_NETWORK", "BITTENSOR_WALLET_PATH"])
def test_a_network_or_wallets_mean_a_real_chain(name: str) -> None:
    value = {"BITTENSOR_NETWORK": "finney", "BITTENSOR_ARCHIVE_NETWORK": "archive"}.get(name, "/wallets")
    backend, why = choose_backend(node(), PylonSettings.load({f"PYLON_{name}": value}))
    assert (backend, why) == ("subtensor", f"PYLON_{name} is set")
    assert choose_backend(node(), PylonSettings.load({f"PYLON_{name}": " "}))[0] == "local"


def test_without_them_the_ledger_serves_and_the_setting_beats_all() -> None:
    assert choose_backend(node(), PylonSettings.load(SN1))[0] == "local"
    told = node(chain_backend="subtensor")
    assert choose_backend(told, PylonSettings.load({})) == ("subtensor", "GRID_CHAIN_BACKEND says so")
    assert choose_backend(node(), PylonSettings(bittensor_network="ws://127.0.0.1:1"))[0] == "subtensor"


def test_the_nodes_subnet_is_the_first_identitys() -> None:
    assert node_netuid(node(), PylonSettings.load({})) == 1
    assert node_netuid(node(), PylonSettings.load({**SN1, "PYLON_ID_SN1_NETUID": "0"})) == 0
    assert node_netuid(node(chain_netuid=7), PylonSettings.load(SN1)) == 7


@pytest.mark.parametrize("text", ["sn1", ' ["sn1"] ', "sn1,"])
def test_identities_with_automatic_weights(text: str) -> None:
    pylon = PylonSettings.load(SN1)
    assert auto_identities(node(chain_auto_weights=text), pylon) == pylon.identities
    assert auto_identities(node(), pylon) == ()


@pytest.mark.parametrize("text", ["sn2", '["sn2"]', "[1]", "[", "[]]"])
def test_automatic_weights_of_nobody_are_a_problem(text: str) -> None:
    with pytest.raises(BadSetting, match="GRID_CHAIN_AUTO_WEIGHTS"):
        auto_identities(node(chain_auto_weights=text), PylonSettings.load(SN1))


# --- wallets ---------------------------------------------------------------------------------------------------------


def wallets(folder: Path) -> tuple[Path, dict[str, str]]:
    key = folder / "cold" / "hotkeys" / "hot"
    key.parent.mkdir(parents=True)
    return key, {**SN1, "PYLON_BITTENSOR_WALLET_PATH": str(folder)}


def test_a_real_chain_needs_its_hotkey_files(tmp_path: Path) -> None:
    key, environ = wallets(tmp_path)
    (found,) = problems(environ, node())
    assert found == f"PYLON_ID_SN1_HOTKEY_NAME: there is no hotkey file {key}"

    key.write_bytes(b"$NACL" + b"x" * 100)
    (found,) = problems(environ, node())
    assert found.startswith(f"PYLON_ID_SN1_HOTKEY_NAME: the hotkey file {key} is encrypted")

    key.write_bytes(serialized_keypair_to_keyfile_data(Keypair.create_from_uri("//Alice")))
    assert PylonSettings.load(environ, node()).identities[0].name == "sn1"


@pytest.mark.parametrize(
    "content", [b"", b'{"crypted":true}', f'{{"secretSeed":"{SECRET}"}}'.encode(), SECRET.encode(), b"[" * 100_000]
)
def test_a_file_without_a_hotkey_is_found_by_who_may_read_it(tmp_path: Path, content: bytes) -> None:
    key, environ = wallets(tmp_path)
    key.write_bytes(content)
    pylon = PylonSettings.load(environ, node())

    assert problems_with(node(), pylon) == [
        f"PYLON_ID_SN1_HOTKEY_NAME: the hotkey file {key} cannot be read: it holds no key"
    ]
    key.write_bytes(serialized_keypair_to_keyfile_data(Keypair.create_from_uri("//Alice")))
    assert problems_with(node(), pylon) == []


def test_a_real_chain_needs_a_wallet_path_and_the_ledger_does_not() -> None:
    assert problems({**SN1, "PYLON_BITTENSOR_NETWORK": "test", "PYLON_BITTENSOR_ARCHIVE_NETWORK": "test"}, node()) == [
        "PYLON_BITTENSOR_WALLET_PATH is required because the backend is subtensor"
    ]
    assert check_wallets(node(), PylonSettings.load(SN1)) == []
    assert (
        check_wallets(node(chain_backend="local"), PylonSettings.load({**SN1, "PYLON_BITTENSOR_NETWORK": "test"})) == []
    )


# --- sentry ----------------------------------------------------------------------------------------------------------


def test_a_dsn_without_the_sdk_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert problems({"PYLON_SENTRY_DSN": f"https://{SECRET}@s.example/1"}) == [
        "PYLON_SENTRY_DSN is set and the SDK is missing: install grid-node[sentry]"
    ]


def test_errors_go_where_the_dsn_says_and_take_no_values_along(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    sdk = ModuleType("sentry_sdk")
    sdk.__spec__ = importlib.machinery.ModuleSpec("sentry_sdk", None)
    sdk.init = lambda **options: started.append(options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentry_sdk", sdk)
    dsn = "https://key@s.example/1"

    init_sentry(PylonSettings.load({}))
    assert started == []
    init_sentry(PylonSettings.load({"PYLON_SENTRY_DSN": dsn, "PYLON_SENTRY_ENVIRONMENT": "production"}))

    (options,) = started
    assert (options["dsn"], options["environment"]) == (dsn, "production")
    assert (options["send_default_pii"], options["include_local_variables"]) == (False, False)
    assert options["max_request_body_size"] == "never"


def test_a_dsn_that_is_none_is_a_problem_that_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise ValueError(options["dsn"])

    sdk = ModuleType("sentry_sdk")
    sdk.init = refuse  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentry_sdk", sdk)
    with pytest.raises(BadSetting, match="PYLON_SENTRY_DSN") as caught:
        init_sentry(PylonSettings(sentry_dsn=SECRET))
    assert SECRET not in str(caught.value)


# --- documents -------------------------------------------------------------------------------------------------------


def test_the_document_has_every_variable_with_its_default() -> None:
    text = (ROOT / "docs" / "chain.md").read_text()
    rows = dict(re.findall(r"^\| `(PYLON_\w+)` \| (.*?) \|", text, re.MULTILINE))

    for field in dataclasses.fields(PylonSettings):
        if field.metadata:
            told = {None: "none", "": "empty", (): "`[]`"}.get(field.default, f"`{field.default}`")
            assert rows.pop(variable(field.name)) == told
    assert rows == {}
