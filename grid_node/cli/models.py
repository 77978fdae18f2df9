"""`flask models`: what this node hosts, whoever served it. A command that changed nothing says why, with status 1."""

import json
from pathlib import Path
from typing import Any

import click
from flask.cli import AppGroup

from grid_node.blobs.store import CHUNK
from grid_node.cli.acting import acting_for
from grid_node.cli.answers import answers, fail
from grid_node.clock import rfc3339
from grid_node.database import Transaction
from grid_node.errors import ModelCorrupt, ModelNotFound, NotFound
from grid_node.hosting import lists, rows
from grid_node.hosting.rights import ADMIN, ModelCaller
from grid_node.hosting.rows import VersionRow
from grid_node.hosting.schemas import ServeRequest, known_id, load_serve
from grid_node.hosting.serving import Served
from grid_node.hosting.tables import ANONYMOUS
from grid_node.services import Hosting, services
from grid_node.wire import strict_json

models_cli = AppGroup("models", help="Hosted models of all owners: list, show, delete, verify, clear, import.")

EVERYBODY = "everybody"
"""Owner of what was served without a key, in words."""
GRACE = 1.0
"""Seconds that the processes have to end which checked the architecture."""
FLAGS = ("allow_download", "allow_remote_inference", "mpc", "hidden")
as_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
of_version = click.option("--version", type=click.IntRange(1, 2**31 - 1), help="Only this version.")


@models_cli.command("list")
@click.option("--owner", help="Only models of the API key with this id.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), help="How many at most.")
@as_json
def list_models(owner: str | None, limit: int | None, as_json: bool) -> None:
    """Print id|version|format|size|owner|flags|created_at of every newest version, oldest model first.

    Shares that are held for somebody are among them, with the flag `hidden`.
    """
    with answers():
        found = services().store.read(lambda tx: _newest(tx, owner, limit))
    if as_json:
        click.echo(json.dumps([_shown(row) for row in found]))
        return
    for row in found:
        click.echo("|".join(str(part) for part in _line(row)))


@models_cli.command("show")
@click.argument("model_id")
def show(model_id: str) -> None:
    """Print every version of a model, in JSON."""
    with answers():
        found = _versions(model_id, None)
    click.echo(json.dumps([_shown(row) for row in found], indent=2, ensure_ascii=False))


@models_cli.command("delete")
@click.argument("model_id")
@of_version
def delete(model_id: str, version: int | None) -> None:
    """Delete a model, or one version; downloads in progress finish."""
    with answers():
        row = _versions(model_id, version)[-1]
        caller = ModelCaller(row.owner, frozenset({ADMIN}))
        hosting().deleting.delete(caller, row.id, version)
    click.echo(f"Deleted model: {row.id}" + ("" if version is None else f" version {version}"))


@models_cli.command("clear")
@click.argument("model_id")
@of_version
def clear(model_id: str, version: int | None) -> None:
    """Let a model run again that ended too many of the processes that run models."""
    with answers():
        found = [row for row in _versions(model_id, version) if row.kills]
        services().store.write(lambda tx: _clear(tx, found))
    if not found:
        raise fail("It has ended no process", 1)
    for row in found:
        click.echo(f"Cleared model: {row.id} version {row.version}")


@models_cli.command("verify")
@click.argument("model_id", required=False)
def verify(model_id: str | None) -> None:
    """Read the bytes of every version, or of one model's, and compare them with their sha256.

    Prints id|version|sha256|state of each that is damaged or missing; then the status is 1.
    """
    with answers():
        found = services().store.read(_everything) if model_id is None else _versions(model_id, None)
        states = {digest: _state(digest) for digest in dict.fromkeys(digest for row in found for digest in row.digests)}
    bad = [(row, digest) for row in found for digest in row.digests if states[digest] != "whole"]
    for row, digest in bad:
        click.echo(f"{row.id}|{row.version}|{digest}|{states[digest]}")
    click.echo(f"{len(states)} files read, {len(bad)} of {len(found)} versions bad", err=True)
    if bad:
        raise click.exceptions.Exit(1)


@models_cli.command("import-syft")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--id", "model_id", required=True, help="Id of the model.")
@click.option("--allow-download", is_flag=True, help="Hand the bytes out as they are.")
@click.option("--allow-inference", is_flag=True, help="Run it on request; needs --architecture.")
@click.option("--architecture", type=click.File("rb"), help="JSON that makes the state dict runnable; - for stdin.")
@click.option("--inputs", help="JSON list of the inputs: name, datatype, shape.")
@click.option("--tag", "tags", multiple=True, help="May be repeated.")
@click.option("--description", default="", help="For lists.")
@click.option("--version", "wish", help="`new` for a new version of a model that is there.")
@click.option("--owner", default=ANONYMOUS, metavar="KEY-ID", help="Key that owns it; without one it is everybody's.")
def import_syft(file: Path, architecture: Any, inputs: str | None, owner: str, **asked: Any) -> None:
    """Convert a state dict that syft 0.9.5 serialised, and serve it. Needs GRID_SYFT_PYTHON."""
    with answers():
        request = _request(asked, architecture, inputs)
        caller = acting_for(owner)
        try:
            served = _serve_file(caller, request, file)
        finally:
            hosting().compute.stop(GRACE)
    click.echo(f"Model saved with id: {served.model_id}, version {served.version}, sha256 {served.sha256}")


def hosting() -> Hosting:
    return services().hosting


# --- what is there -------------------------------------------------------------------------------------------------


def _newest(tx: Transaction, owner: str | None, limit: int | None) -> list[VersionRow]:
    statement = lists.every_version().where(rows.versions.c.version == rows.models.c.newest).limit(limit)
    if owner is not None:
        statement = statement.where(rows.models.c.owner == owner)
    return [VersionRow(*row) for row in tx.execute(statement)]


def _everything(tx: Transaction) -> list[VersionRow]:
    return [VersionRow(*row) for row in tx.execute(lists.every_version())]


def _clear(tx: Transaction, found: list[VersionRow]) -> None:
    for row in found:
        rows.clear_kills(tx, row.key)


def _versions(model_id: str, version: int | None) -> list[VersionRow]:
    """The versions of a model, oldest first, or the one. Raises ModelNotFound."""
    statement = lists.every_version().where(rows.models.c.id == known_id(model_id))
    if version is not None:
        statement = statement.where(rows.versions.c.version == version)
    found = services().store.read(lambda tx: [VersionRow(*row) for row in tx.execute(statement)])
    if not found:
        raise ModelNotFound()
    return found


def _state(digest: str) -> str:
    try:
        for _ in services().blobs.open_checked(digest):
            pass
    except ModelCorrupt:
        return "damaged"
    except NotFound:
        return "missing"
    return "whole"


def _line(row: VersionRow) -> tuple[Any, ...]:
    flags = ",".join(name for name in FLAGS if getattr(row, name)) or "-"
    return (row.id, row.version, row.format, row.size, row.owner or EVERYBODY, flags, rfc3339(row.created_at))


def _shown(row: VersionRow) -> dict[str, Any]:
    """A version as plain JSON data; everything but what the tables alone need."""
    plain = ("id", "version", "owner", "format", "size", "sha256", "derived_sha256", *FLAGS, "kills", "description")
    texts = ("tags", "signature", "architecture", "share_provider")
    return {
        **{name: getattr(row, name) for name in plain},
        **{name: text and json.loads(text) for name in texts for text in [getattr(row, name)]},
        "share_set": row.share_set,
        "created_at": rfc3339(row.created_at),
    }


# --- what comes in -------------------------------------------------------------------------------------------------


def _request(asked: dict[str, Any], architecture: Any, inputs: str | None) -> ServeRequest:
    """Raises InvalidPayload."""
    fields = {
        "model_id": asked["model_id"],
        "format": "syft-0.9.5",
        "allow_download": asked["allow_download"],
        "allow_remote_inference": asked["allow_inference"],
        "tags": list(asked["tags"]),
        "description": asked["description"],
    }
    if asked["wish"] is not None:
        fields["version"] = int(asked["wish"]) if asked["wish"].isdecimal() else asked["wish"]
    if architecture is not None:
        fields["architecture"] = parsed(architecture.read(), "--architecture")
    if inputs is not None:
        fields["inputs"] = parsed(inputs, "--inputs")
    return load_serve(fields)


def parsed(text: bytes | str, option: str) -> Any:
    try:
        return strict_json.loads(text)
    except strict_json.InvalidJSON as error:
        raise fail(f"{option}: {error}", 1) from None


def _serve_file(caller: ModelCaller, request: ServeRequest, file: Path) -> Served:
    hosting().serving.check(caller, request, file.stat().st_size)
    with services().blobs.writer(services().settings.models_max_bytes) as writer, file.open("rb") as opened:
        while piece := opened.read(CHUNK):
            writer.write(piece)
        blob = writer.commit()
    return hosting().serving.serve(caller, request, blob)
