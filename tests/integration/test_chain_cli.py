"""`flask chain` as an operator meets it, on the machine of a node that is not running."""

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bittensor_wallet import Keypair
from sqlalchemy import insert

from grid_node.chain.ledger.chain import LedgerChain
from grid_node.cli import chain_asking
from grid_node.clock import SystemClock
from grid_node.database import Transaction
from grid_node.generation.tables import Copy
from grid_node.identity.epoch import read_epoch
from tests.command_line import CommandLine
from tests.nodes import ROOT, empty_database
from tests.subtensor import FakeSubtensor

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
BOB, CAROL = (str(Keypair.create_from_uri(uri).ss58_address) for uri in ("//Bob", "//Carol"))
TOKEN = "t0ken-of-sn5"
SN5 = {
    "PYLON_IDENTITIES": '["sn5"]',
    "PYLON_ID_SN5_WALLET_NAME": "cold",
    "PYLON_ID_SN5_HOTKEY_NAME": "hot",
    "PYLON_ID_SN5_NETUID": "5",
    "PYLON_ID_SN5_TOKEN": TOKEN,
}
REAL = {
    "PYLON_BITTENSOR_NETWORK": "ws://user:s3cret@127.0.0.1:1/key",
    "PYLON_BITTENSOR_ARCHIVE_NETWORK": "ws://127.0.0.1:1",
}


class Operator(CommandLine):
    """Types commands on a node's machine."""

    commands = ("chain",)

    def told(self, *arguments: str) -> dict[str, Any]:
        """What is said as JSON."""
        found: dict[str, Any] = json.loads(self.done(*arguments, "--json"))
        return found

    def epoch(self) -> int:
        def unit(tx: Transaction) -> int:
            return read_epoch(tx)

        return self.grid.store.read(unit)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.upper().startswith("PYLON_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYLON_ENV_FILE", "")
    return monkeypatch


@pytest.fixture
def operator(tmp_path: Path, environment: pytest.MonkeyPatch) -> Iterator[Operator]:
    """Nothing is configured, and blocks come only when something is written."""
    made = Operator(tmp_path, chain_local_block_seconds=1e9)
    yield made
    made.close()


@pytest.fixture
def owner(tmp_path: Path, environment: pytest.MonkeyPatch) -> Iterator[Operator]:
    """The same with an identity on subnet 5."""
    for name, value in SN5.items():
        environment.setenv(name, value)
    made = Operator(tmp_path, chain_local_block_seconds=1e9)
    yield made
    made.close()


# --- nothing configured ----------------------------------------------------------------------------------------------


def test_a_neuron_is_registered_where_nothing_is_configured(operator: Operator) -> None:
    before = operator.told("status")
    told = operator.told("register-neuron", "--netuid", "1", "--hotkey", ALICE)
    after = operator.told("status")

    assert (before["backend"], before["head"]["number"], before["subnets"]) == ("local", 0, [])
    assert (told["netuid"], told["uid"], told["hotkey"]) == (1, 0, ALICE)
    assert after["head"] == told["block"]
    assert after["subnets"] == [{"netuid": 1, "tempo": 360, "neurons": 1}]
    assert after["jobs"] == []


def test_status_reads_like_a_table(operator: Operator) -> None:
    assert len(operator.done("status").splitlines()) == 2
    operator.done("create-subnet", "--netuid", "3", "--tempo", "20")

    backend, head, subnet = operator.done("status").splitlines()
    assert backend == "backend|local|no network and no wallet path of Pylon is set"
    assert head.startswith("head|1|0x")
    assert subnet == "subnet|3|tempo 20|neurons 0"


def test_a_neuron_comes_with_stakes_permit_and_axon_and_goes(operator: Operator) -> None:
    operator.done("create-subnet", "--netuid", "1")
    operator.done(
        *("register-neuron", "--hotkey", ALICE, "--coldkey", BOB, "--stake-alpha", "1.5", "--stake-tao", "2"),
        *("--validator-permit", "--axon", "192.0.2.1:8000"),
    )
    (neuron,) = neurons(operator, 1)
    assert (neuron["coldkey"], neuron["validator_permit"]) == (BOB, True)
    assert (neuron["stakes"]["alpha"], neuron["stakes"]["tao"]) == (1.5, 2.0)
    assert (neuron["axon_info"]["ip"], neuron["axon_info"]["port"]) == ("192.0.2.1", 8000)

    assert operator.told("set-stake", "--hotkey", ALICE, "--stake-alpha", "0")["uid"] == 0
    (neuron,) = neurons(operator, 1)
    assert (neuron["stakes"]["alpha"], neuron["stakes"]["tao"]) == (0.0, 2.0)

    said = operator.done("deregister-neuron", "--hotkey", ALICE)
    assert said.startswith("Deregistered neuron: uid 0 of subnet 1 is free (block ")
    assert neurons(operator, 1) == []


def neurons(operator: Operator, netuid: int) -> list[dict[str, Any]]:
    chain = LedgerChain(operator.grid.store, SystemClock(), operator.grid.settings, None)
    return [neuron.body() for neuron in chain.neurons(netuid, chain.head())]


def test_a_subnet_is_filled_and_the_head_moved(operator: Operator) -> None:
    seeded = operator.told("seed", "--netuid", "1", "--neurons", "256")
    moved = operator.told("advance", "--blocks", "1000")

    assert len(neurons(operator, 1)) == 256
    assert seeded["netuid"] == 1
    assert moved["block"]["number"] == seeded["block"]["number"] + 1000
    assert operator.told("status")["head"] == moved["block"]


NO_SUBNET_9 = "Subnet 9 not found. `flask chain create-subnet --netuid 9` makes it."
REFUSALS = (
    (("create-subnet", "--netuid", "65536"), "netuid"),
    (("create-subnet", "--netuid", "1", "--tempo", "0"), "tempo"),
    (("register-neuron", "--netuid", "9", "--hotkey", ALICE), NO_SUBNET_9),
    (("deregister-neuron", "--netuid", "9", "--hotkey", ALICE), NO_SUBNET_9),
    (("set-stake", "--netuid", "9", "--hotkey", ALICE, "--stake-tao", "1"), NO_SUBNET_9),
    (("seed", "--netuid", "9", "--neurons", "1"), NO_SUBNET_9),
    (("register-neuron", "--hotkey", "5Nonsense"), "SS58"),
    (("register-neuron", "--hotkey", ALICE, "--stake-alpha", "nan"), "stake-alpha"),
    (("register-neuron", "--hotkey", ALICE, "--axon", "here"), "axon"),
    (("register-neuron", "--identity", "nope"), "No identity has this name: nope"),
    (("deregister-neuron", "--hotkey", ALICE), ALICE),
    (("set-stake", "--hotkey", ALICE, "--stake-tao", "1"), ALICE),
    (("set-stake", "--hotkey", ALICE), "No stake"),
    (("seed", "--netuid", "1", "--neurons", "0"), "neurons"),
    (("advance", "--blocks", "0"), "blocks"),
    (("propose-weights", "--identity", "nope"), "No identity has this name: nope"),
)


def test_the_help_of_seed_says_up_to_how_many(operator: Operator) -> None:
    operator.done("seed", "--netuid", "1", "--neurons", "3")
    assert operator.told("seed", "--netuid", "1", "--neurons", "4")["uids"] == [3]
    assert "those that it has included" in " ".join(operator.done("seed", "--help").split())


def test_what_makes_no_sense_is_refused(operator: Operator) -> None:
    for arguments, words in REFUSALS:
        assert words in operator.refused(*arguments), arguments


def test_a_refused_change_leaves_the_ledger_as_it_is(operator: Operator) -> None:
    operator.done("register-neuron", "--hotkey", ALICE)
    before = operator.told("status")
    operator.refused("register-neuron", "--hotkey", ALICE)
    operator.refused("create-subnet", "--netuid", "1")
    assert operator.told("status") | {"age_seconds": before["age_seconds"]} == before


def test_a_hotkey_and_an_identity_are_one_too_many(operator: Operator) -> None:
    for arguments in (("--hotkey", ALICE, "--identity", "sn5"), ()):
        result = operator.flask("register-neuron", *arguments)
        assert result.exit_code == 2
        assert "Name either --hotkey or --identity." in result.stderr


def test_a_running_node_hears_of_a_change_and_not_of_a_refusal(operator: Operator) -> None:
    before = operator.epoch()
    operator.done("register-neuron", "--hotkey", ALICE)
    after = operator.epoch()
    operator.refused("register-neuron", "--hotkey", ALICE)
    operator.done("status")

    assert after > before
    assert operator.epoch() == after


def test_the_blacklist_is_the_one_of_the_miners(operator: Operator) -> None:
    operator.done("blacklist", "add", BOB, "--reason", "copies others")

    assert operator.done("blacklist", "list") == f"{BOB}|forever|copies others\n"
    listed = operator.app.test_cli_runner().invoke(args=["miners", "blacklist", "list"])
    assert listed.stdout == f"{BOB}|forever|copies others\n"
    operator.done("blacklist", "remove", BOB)
    assert operator.done("blacklist", "list") == ""


# --- identities ------------------------------------------------------------------------------------------------------


def test_an_empty_ledger_gets_the_identities_first(owner: Operator) -> None:
    told = owner.told("register-neuron", "--netuid", "5", "--hotkey", ALICE)

    assert told["uid"] == 1
    first, second = neurons(owner, 5)
    assert (first["validator_permit"], second["hotkey"]) == (True, ALICE)
    assert (owner.folder / "wallets" / "cold" / "hotkeys" / "hot").stat().st_mode & 0o777 == 0o600
    assert "already" in owner.refused("register-neuron", "--identity", "sn5").lower()


def test_an_identity_stands_for_its_hotkey_and_its_subnet(owner: Operator) -> None:
    owner.done("create-subnet", "--netuid", "5", "--tempo", "20")
    assert owner.told("status")["subnets"] == [{"netuid": 5, "tempo": 20, "neurons": 1}]

    gone = owner.told("deregister-neuron", "--identity", "sn5")
    assert (gone["netuid"], gone["uid"]) == (5, 0)
    again = owner.told("register-neuron", "--identity", "sn5")
    assert again["hotkey"] == gone["hotkey"]


def test_another_subnet_comes_beside_those_of_the_identities(owner: Operator) -> None:
    owner.done("create-subnet", "--netuid", "6")
    assert [row["netuid"] for row in owner.told("status")["subnets"]] == [5, 6]
    assert "exists" in owner.refused("create-subnet", "--netuid", "5")


def test_the_newest_weights_of_an_identity_are_in_the_status(owner: Operator) -> None:
    owner.done("register-neuron", "--netuid", "5", "--hotkey", ALICE)
    identity = owner.grid.chain.pylon.identities[0]
    try:
        owner.grid.chain.weights.put(identity, {ALICE: 1.0}, 10.0)
    finally:
        owner.grid.chain.link.stop(5.0)

    (job,) = owner.told("status")["jobs"]
    assert (job["identity_name"], job["netuid"], job["count"]) == ("sn5", 5, 1)
    assert owner.done("status").splitlines()[-1].startswith("weights|sn5|5|")


def test_the_configuration_is_told_without_tokens(owner: Operator) -> None:
    told = owner.told("check-config")

    assert told["identities"] == [{"name": "sn5", "netuid": 5, "wallet_name": "cold", "hotkey_name": "hot"}]
    assert (told["backend"], told["netuid"], told["open_access"], told["metrics"]) == ("local", 5, "open", "closed")
    said = owner.done("check-config")
    assert "open_access|open\n" in said
    assert "identities|sn5|5|cold|hot" in said
    assert TOKEN not in said + json.dumps(told)


def test_open_access_without_a_token_is_told(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PYLON_OPEN_ACCESS_TOKEN", TOKEN)
    told = {}
    for is_allowed in (False, True):
        folder = tmp_path / str(is_allowed)
        folder.mkdir()
        operator = Operator(folder, chain_allow_tokenless_open_access=is_allowed)
        told[is_allowed] = operator.told("check-config")["open_access"]
        operator.close()

    assert told[False] == "token"
    assert told[True] == "token, or no Authorization header (GRID_CHAIN_ALLOW_TOKENLESS_OPEN_ACCESS)"


# --- weights ---------------------------------------------------------------------------------------------------------


def earn(operator: Operator, hotkey: str, *scores: float) -> None:
    """As when tasks were judged just now."""
    now = operator.grid.clock.now()
    rows = [
        {
            "lease_id": str(uuid.uuid4()), "task_id": str(uuid.uuid4()), "worker": hotkey, "strong": False,
            "extra": False, "state": "accepted", "granted_at": now, "lease_expires_at": now, "lease_until": now,
            "verdict_at": now, "score": score,
        }
        for score in scores
    ]  # fmt: skip
    operator.grid.store.write(lambda tx: tx.execute(insert(Copy.__table__), rows))


def test_scores_become_weights(owner: Operator) -> None:
    for hotkey in (ALICE, BOB):
        owner.done("register-neuron", "--hotkey", hotkey)
    earn(owner, ALICE, *[0.75] * 5)
    earn(owner, BOB, *[0.25] * 5)
    earn(owner, CAROL, *[1.0] * 5)

    result = owner.flask("propose-weights", "--identity", "sn5", "--apply", "--json")

    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["weights"] == {ALICE: pytest.approx(0.75), BOB: pytest.approx(0.25)}
    assert [one["hotkey"] for one in told["excluded"]] == [CAROL]
    (job,) = owner.told("status")["jobs"]
    assert (job["job_id"], job["source"], job["count"]) == (told["applied"]["job_id"], "client", 2)


def test_where_nobody_is_eligible_nothing_is_set(owner: Operator) -> None:
    owner.done("register-neuron", "--hotkey", ALICE)
    earn(owner, ALICE, 1.0)

    result = owner.flask("propose-weights", "--identity", "sn5")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines() == [f"{ALICE}|-|fewer than 5 results", "Nobody is eligible"]
    assert "Nobody is eligible: nothing was set" in owner.refused("propose-weights", "--identity", "sn5", "--apply")
    assert owner.told("status")["jobs"] == []


# --- a real chain ----------------------------------------------------------------------------------------------------


@pytest.fixture
def remote(tmp_path: Path, environment: pytest.MonkeyPatch) -> Iterator[Operator]:
    for name, value in {**REAL, "PYLON_BITTENSOR_WALLET_PATH": str(tmp_path / "wallets")}.items():
        environment.setenv(name, value)
    made = Operator(tmp_path)
    yield made
    made.close()


def test_a_real_chain_is_changed_by_nobodys_hand(remote: Operator) -> None:
    for arguments in (
        ("create-subnet", "--netuid", "1"),
        ("register-neuron", "--hotkey", ALICE),
        ("deregister-neuron", "--hotkey", ALICE),
        ("set-stake", "--hotkey", ALICE, "--stake-tao", "1"),
        ("seed", "--neurons", "1"),
        ("advance", "--blocks", "1"),
    ):
        assert remote.refused(*arguments).startswith("The backend is subtensor (PYLON_BITTENSOR_NETWORK and ")


def test_what_is_told_of_a_real_chain_holds_no_key_of_its_url(remote: Operator) -> None:
    told = remote.told("check-config")
    assert (told["backend"], told["network"]) == ("subtensor", "ws://127.0.0.1:1")
    told = remote.told("status")
    assert (told["head"], told["age_seconds"]) == (None, None)
    (endpoint,) = told["endpoints"]
    assert (endpoint["uri"], endpoint["ok"]) == ("ws://127.0.0.1:1", False)
    assert endpoint["error"]


def test_a_chain_that_is_silent_does_not_hold_the_status_up(remote: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_asking, "LOOK_SECONDS", 0.0)
    started_at = time.monotonic()
    said = remote.done("status").splitlines()

    assert time.monotonic() - started_at < 10
    assert said[1].startswith("endpoint|ws://127.0.0.1:1|")
    assert not said[1].endswith("|ok")


@pytest.fixture
def subtensor(tmp_path: Path, environment: pytest.MonkeyPatch) -> Iterator[FakeSubtensor]:
    """A chain at block 40, and its archive; the settings name both."""
    with FakeSubtensor(instant=True) as node:
        node.chain.advance(40)
        with node.archive() as archive:
            environment.setenv("PYLON_BITTENSOR_NETWORK", node.uri)
            environment.setenv("PYLON_BITTENSOR_ARCHIVE_NETWORK", archive.uri)
            environment.setenv("PYLON_BITTENSOR_ARCHIVE_BLOCKS_CUTOFF", "20")
            environment.setenv("PYLON_BITTENSOR_WALLET_PATH", str(tmp_path / "wallets"))
            yield node


def test_the_head_and_the_nodes_of_a_real_chain_are_in_the_status(
    tmp_path: Path, subtensor: FakeSubtensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_asking, "LOOK_SECONDS", 60.0)
    operator = Operator(tmp_path)
    try:
        told = operator.told("status")
        words = operator.done("status").splitlines()
    finally:
        operator.close()

    assert told["head"]["number"] == subtensor.chain.head.number
    assert told["age_seconds"] == pytest.approx(time.time() - told["head"]["timestamp"], abs=60)
    assert [(one["ok"], one["error"]) for one in told["endpoints"]] == [(True, None)] * 2
    assert words[1].startswith(f"head|{told['head']['number']}|0x")
    assert words[2:4] == [f"endpoint|{one['uri']}|ok" for one in told["endpoints"]]


# --- commands as processes -------------------------------------------------------------------------------------------


def surroundings(folder: Path) -> dict[str, str]:
    """The environment of a command that nobody configured."""
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith(("PYLON_", "GRID_"))}
    return {**clean, "FLASK_APP": "app", "GRID_DATA_DIR": str(folder), "PYLON_ENV_FILE": ""}


def started(folder: Path, *arguments: str, **environ: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "flask", "chain", *arguments],
        cwd=ROOT,
        env={**surroundings(folder), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_hotkey_file_without_a_key_is_found_before_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "wallets" / "cold" / "hotkeys" / "hot"
    path.parent.mkdir(parents=True)
    path.write_text('{"crypted":true}')
    wallets = {"PYLON_BITTENSOR_WALLET_PATH": str(tmp_path / "wallets")}
    found = f"Configuration error: PYLON_ID_SN5_HOTKEY_NAME: the hotkey file {path} cannot be read: it holds no key\n"

    assert ended(tmp_path, "check-config", **SN5, **REAL, **wallets) == (2, found)
    served = subprocess.run(
        [sys.executable, "-m", "grid_node.cli.start", "serve"],
        cwd=ROOT,
        env={**surroundings(tmp_path), **SN5, **REAL, **wallets},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (served.returncode, served.stderr) == (2, f"grid-node: {found}")


def test_a_start_with_several_problems_prefixes_each(tmp_path: Path) -> None:
    served = subprocess.run(
        [sys.executable, "-m", "grid_node.cli.start", "serve"],
        cwd=ROOT,
        env={**surroundings(tmp_path), **SN5, "PYLON_TEMPO": "0", "PYLON_ID_SN5_NETUID": "x"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert served.returncode == 2
    assert [line.split()[:4] for line in served.stderr.splitlines()] == [
        ["grid-node:", "Configuration", "error:", "PYLON_TEMPO"],
        ["grid-node:", "Configuration", "error:", "PYLON_ID_SN5_NETUID"],
    ]


def test_before_the_first_start_the_remedy_is_told(tmp_path: Path) -> None:
    remedy = "The database lacks the chain's tables: start the node once, or run `flask db upgrade`\n"
    for arguments in (("status",), ("advance", "--blocks", "1"), ("propose-weights", "--identity", "sn5"), ("worker",)):
        assert ended(tmp_path, *arguments, **SN5) == (2, remedy), arguments


def test_the_chains_process_says_nothing_on_the_terminal(tmp_path: Path) -> None:
    shutil.copy(empty_database(), tmp_path / "grid.db")
    assert ended(tmp_path, "propose-weights", "--identity", "sn5", **SN5) == (0, "Nobody is eligible\n")


def test_what_flask_copies_from_dot_env_is_not_the_environment(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (tmp_path / ".env").write_text("PYLON_OPEN_ACCESS_TOKEN=x\n")
    (tmp_path / "pylon.env").write_text("PYLON_METRICS_TOKEN=y\n")
    environ = {**surroundings(tmp_path), "PYTHONPATH": str(ROOT)}
    del environ["PYLON_ENV_FILE"]

    def tokens(folder: Path, **given: str) -> tuple[str, str]:
        """Of open access and of metrics."""
        command = [sys.executable, "-m", "flask", "chain", "check-config", "--json"]
        said = subprocess.check_output(command, cwd=folder, env={**environ, **given}, timeout=60)
        told = json.loads(said)
        return told["open_access"], told["metrics"]

    named = {"PYLON_ENV_FILE": "pylon.env"}
    assert tokens(tmp_path) == ("token", "closed")
    assert tokens(tmp_path, **named) == ("open", "token")
    assert tokens(tmp_path, **named, PYLON_OPEN_ACCESS_TOKEN="x") == ("token", "token")
    assert tokens(below) == ("open", "closed")


def ended(folder: Path, *arguments: str, **environ: str) -> tuple[int, str]:
    """Exit status and what was said on stderr."""
    process = started(folder, *arguments, **environ)
    said = process.communicate(timeout=60)[1]
    return process.returncode, said


def test_the_chains_process_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    shutil.copy(empty_database(), tmp_path / "grid.db")
    process = started(tmp_path, "worker", **SN5)
    try:
        assert process.stderr is not None
        assert any("the chain's process is ready" in line for line in process.stderr)
        process.terminate()
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()

    assert process.returncode == 0
    assert "Traceback" not in said


def test_a_wrong_configuration_ends_every_command_with_2_and_all_problems(tmp_path: Path) -> None:
    broken = {**SN5, "PYLON_TEMPO": "x", "PYLON_ID_SN5_NETUID": "70000"}
    for arguments in (("check-config",), ("worker",)):
        status, said = ended(tmp_path, *arguments, **broken)
        assert status == 2
        assert "Configuration error: PYLON_TEMPO must be a whole number from 1 to 65535, not 'x'\n" in said
        assert "Configuration error: PYLON_ID_SN5_NETUID must be a netuid from 0 to 65535\n" in said
        assert TOKEN not in said
        assert "Traceback" not in said


def test_a_missing_hotkey_file_is_found_before_it_is_needed(tmp_path: Path) -> None:
    status, said = ended(tmp_path, "check-config", **SN5, **REAL, PYLON_BITTENSOR_WALLET_PATH=str(tmp_path / "wallets"))
    assert status == 2
    assert "Configuration error: PYLON_ID_SN5_HOTKEY_NAME: there is no hotkey file" in said
