"""Agents of models: which are connected, to whichever process, and what their workers said last.

A row is the last word of one agent, so that every process can tell how a model stands. The process that holds the
connection refreshes it; rows of a process that died are buried by any other.
"""

from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, func, select, text, update

from grid_node.clock import rfc3339_or_none
from grid_node.database import Transaction
from grid_node.errors import ModelNotFound, TooManyRunners
from grid_node.runners.health import OFFLINE, UNKNOWN, Health, best
from grid_node.runners.models import READY, held_model, models
from grid_node.runners.tables import RunnerAgent
from grid_node.statements import prepared

ALIVE_EVERY = 20.0
"""Seconds between two refreshes of a connection that says nothing."""
DEAD_AFTER = 60.0
"""Seconds after which a row that nobody refreshed is one of a process that died."""
KEPT = 30 * 86400.0
"""Seconds for which an agent that has gone is remembered."""

DIRECT = "direct"
"""Instance of a worker that is reached without an agent: how it was when it was last asked."""

agents: Any = RunnerAgent.__table__
_IS = (agents.c.model_id == bindparam("of_model"), agents.c.instance == bindparam("of_instance"))
_OTHERS = prepared(
    select(func.count()).where(
        agents.c.model_id == bindparam("model_id"),
        agents.c.instance != bindparam("instance"),
        agents.c.connected.is_(True),
        agents.c.seen_at > bindparam("edge"),
    )
)
_UPSERT = prepared(
    text(
        "INSERT INTO runner_agents (model_id, instance, node, status, connected, health, agent, seen_at)"
        " VALUES (:model_id, :instance, :node, :status, :connected, :health, :agent, :seen_at)"
        " ON CONFLICT (model_id, instance) DO UPDATE SET node = excluded.node, status = excluded.status,"
        " connected = excluded.connected, health = excluded.health, agent = excluded.agent,"
        " seen_at = excluded.seen_at"
    )
)
_HEARD = prepared(
    update(agents)
    .where(*_IS, agents.c.node == bindparam("of_node"))
    .values(status=bindparam("status"), health=bindparam("health"), connected=True, seen_at=bindparam("seen_at"))
)
_GONE = prepared(
    update(agents)
    .where(*_IS, agents.c.node == bindparam("of_node"))
    .values(status=OFFLINE, connected=False, seen_at=bindparam("seen_at"))
)
_MODEL_SEEN = prepared(
    update(models)
    .where(models.c.id == bindparam("of_model"))
    .values(seen_at=bindparam("seen_at"), cog_version=func.coalesce(bindparam("cog_version"), models.c.cog_version))
)
_ALIVE = prepared(
    update(agents)
    .where(agents.c.node == bindparam("of_node"), agents.c.connected.is_(True))
    .values(seen_at=bindparam("seen_at"))
)
_BURY = prepared(
    update(agents)
    .where(agents.c.connected.is_(True), agents.c.seen_at <= bindparam("edge"), agents.c.instance != DIRECT)
    .values(status=OFFLINE, connected=False)
)
_OF_MODEL = prepared(
    select(agents.c.status, agents.c.connected, agents.c.seen_at).where(agents.c.model_id == bindparam("model_id"))
)
_ONE = prepared(select(agents.c.status, agents.c.connected).where(*_IS))
_OF_NODE = prepared(select(agents.c.model_id, agents.c.instance).where(agents.c.node == bindparam("node")))
_EXISTING = select(models.c.id).where(models.c.id.in_(bindparam("ids", expanding=True)))
_PURGE = prepared(delete(agents).where(agents.c.connected.is_(False), agents.c.seen_at < bindparam("edge")))


class Agent(NamedTuple):
    """Who an agent says it is. `node` is the process that has its connection."""

    model_id: str
    instance: str
    node: str
    agent: str


def ready_model(tx: Transaction, id: str) -> Any:
    """The row of a model that agents may connect for, held. Raises ModelNotFound."""
    model = held_model(tx, id)
    if model is None or model.state != READY:
        raise ModelNotFound()
    return model


def connect(tx: Transaction, agent: Agent, most: int, now: float) -> None:
    """The agent is in; its model is held by the transaction. The same instance takes its own place again, at whichever
    process it was. Raises TooManyRunners when `most` others are connected."""
    named = {"model_id": agent.model_id, "instance": agent.instance}
    others = tx.execute(_OTHERS, {**named, "edge": now - DEAD_AFTER}).scalar()
    if others >= most:
        raise TooManyRunners(limit=most)
    _write(tx, agent, UNKNOWN, True, "{}", now)


def probed(tx: Transaction, agent: Agent, health: Health, now: float) -> None:
    """What a worker said that is reached without an agent; such a row stands for the tunnel."""
    _seen(tx, agent.model_id, health, now)
    _write(tx, agent, health.status, health.status != OFFLINE, health.text, now)


def _write(tx: Transaction, agent: Agent, status: str, connected: bool, health: str, now: float) -> None:
    values = {"status": status, "connected": connected, "health": health, "seen_at": now}
    tx.execute(_UPSERT, {**agent._asdict(), **values})


def heard(tx: Transaction, agent: Agent, health: Health, now: float) -> None:
    """The worker's word, unless the agent is at another process by now."""
    _seen(tx, agent.model_id, health, now)
    tx.execute(_HEARD, {**_named(agent), "status": health.status, "health": health.text, "seen_at": now})


def _seen(tx: Transaction, model_id: str, health: Health, now: float) -> None:
    """The model's row first, as in `connect`: two transactions that take them in turns would wait for each other."""
    tx.execute(_MODEL_SEEN, {"of_model": model_id, "seen_at": now, "cog_version": health.cog_version})


def gone(tx: Transaction, agent: Agent, now: float) -> None:
    tx.execute(_GONE, {**_named(agent), "seen_at": now})


def _named(agent: Agent) -> dict[str, str]:
    return {"of_model": agent.model_id, "of_instance": agent.instance, "of_node": agent.node}


def alive(tx: Transaction, node: str, now: float) -> None:
    """The connections of this process still stand."""
    tx.execute(_ALIVE, {"of_node": node, "seen_at": now})


def bury(tx: Transaction, now: float) -> None:
    """Whatever was connected to processes that died is not connected."""
    tx.execute(_BURY, {"edge": now - DEAD_AFTER})


def purge(tx: Transaction, now: float) -> None:
    tx.execute(_PURGE, {"edge": now - KEPT})


def standing(tx: Transaction, model_id: str) -> dict[str, Any]:
    """`{"status", "connected", "last_seen"}` of a model: the best of its connected agents, or OFFLINE."""
    rows = tx.execute(_OF_MODEL, {"model_id": model_id}).all()
    connected = [row.status for row in rows if row.connected]
    last_seen = max((row.seen_at for row in rows), default=None)
    return {"status": best(connected), "connected": bool(connected), "last_seen": rfc3339_or_none(last_seen)}


def is_connected(tx: Transaction, model_id: str, instance: str) -> bool:
    """Whether any process has this agent's connection."""
    row = tx.execute(_ONE, {"of_model": model_id, "of_instance": instance}).one_or_none()
    return row is not None and bool(row.connected)


def of_node(tx: Transaction, node: str) -> set[tuple[str, str]]:
    """(model, instance) of the agents that came to this process last. Whether another one has buried them meanwhile,
    because this one stood still for too long, is no matter: their next word digs them up."""
    return {(row.model_id, row.instance) for row in tx.execute(_OF_NODE, {"node": node})}


def existing(tx: Transaction, ids: set[str]) -> set[str]:
    """Those of these models that there are; one that is being deleted still cancels its predictions."""
    return {row.id for row in tx.execute(_EXISTING, {"ids": sorted(ids)})}
