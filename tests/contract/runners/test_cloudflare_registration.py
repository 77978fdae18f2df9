"""Registration through Cloudflare's API, each of whose requests may fail: nothing is ever left over."""

import shutil

import pytest

from grid_node.adapters import cloudflare_api
from grid_node.adapters.cloudflare_api import CloudflareTunnels
from grid_node.clock import ManualClock, SystemClock
from grid_node.database import DirectStore, make_engine
from grid_node.errors import TunnelProviderFailed
from grid_node.settings import Settings
from tests.booth import ANNA
from tests.cloudflare import DOMAIN, cloudflare, settings_of
from tests.registrar import SEED, Registrar
from tests.stores import sqlite_template

__all__ = ["sqlite_template"]

pytest.importorskip("cloudflare", reason="the extra cloudflare is not installed")

CREATING = ["create", "list", "token", "dns.create", "dns.list"]
DELETING = ["dns.list", "dns.delete", "list", "connections", "delete"]
FAULTS = ["error", "drop", "lost", "late", "refuse", "html"]


@pytest.fixture(scope="module")
def served():
    with cloudflare() as standin:
        yield standin


@pytest.fixture(scope="module")
def provider(served):
    return CloudflareTunnels(Settings.load({}, **settings_of(served)), SystemClock())


@pytest.fixture
def standin(served):
    yield served
    served.release.set()
    served.reset()


@pytest.fixture
def desk(standin, provider, sqlite_template, tmp_path, monkeypatch):
    monkeypatch.setattr(cloudflare_api, "REQUEST_S", 0.2)
    shutil.copy(sqlite_template, tmp_path / "grid.db")
    store = DirectStore(make_engine(f"sqlite:///{tmp_path / 'grid.db'}"))
    yield Registrar(store, ManualClock(), provider, **settings_of(standin))
    store.close()


def test_a_model_gets_a_tunnel_that_its_name_leads_to(desk, standin):
    made = desk.registration.create(ANNA, SEED)

    (tunnel,), (record,) = standin.tunnels.values(), standin.records.values()
    assert tunnel["name"] == made["id"]
    assert record["name"] == made["config"]["ingress"][0]["hostname"] == f"{made['id']}.{DOMAIN}"
    assert record["content"] == f"{made['credential']['TunnelID']}.cfargotunnel.com"
    assert desk.row(made["id"]).dns_record_id == record["id"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", CREATING)
def test_a_registration_that_fails_leaves_no_tunnel_and_no_name_after_one_pass_of_the_janitor(
    desk, standin, operation, fault
):
    standin.faults = {"create": ["lost"], "dns.create": ["lost"]}
    standin.faults[operation] = [fault] * 9

    try:
        made = desk.registration.create(ANNA, SEED)
    except TunnelProviderFailed:
        made = None
    standin.faults = {}
    desk.registration.tend()

    if made is None:
        assert standin.is_empty
        assert desk.registration.models(ANNA)["models"] == []
    else:
        assert (len(standin.tunnels), len(standin.records)) == (1, 1)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", DELETING)
def test_what_cannot_be_deleted_is_deleted_by_the_next_pass_of_the_janitor(desk, standin, operation, fault):
    made = desk.registration.create(ANNA, SEED)
    standin.connected.update(standin.tunnels)
    standin.faults = {operation: [fault] * 9}

    desk.registration.delete(ANNA, made["id"])
    standin.faults = {}
    desk.registration.tend()

    assert standin.is_empty
    assert desk.rows() == []


@pytest.mark.parametrize("operation", DELETING)
def test_a_name_that_is_refused_and_an_undoing_that_fails_leave_nothing_in_the_end(desk, standin, operation):
    standin.faults = {"dns.create": ["refuse"], operation: ["error"] * 9}

    with pytest.raises(TunnelProviderFailed):
        desk.registration.create(ANNA, SEED)
    standin.faults = {}
    desk.registration.tend()

    assert standin.is_empty
