"""`flask datasets`: descriptions of data, whoever registered them. A command that changed nothing says why, with
status 1."""

import json
from typing import Any

import click
from flask.cli import AppGroup

from grid_node.cli.acting import acting_for
from grid_node.cli.answers import answers, fail
from grid_node.fields import load
from grid_node.hosting import dataset_rows
from grid_node.hosting.dataset_schemas import TAG, load_dataset, load_terms
from grid_node.hosting.datasets import Datasets, described
from grid_node.hosting.tables import ANONYMOUS
from grid_node.services import services

datasets_cli = AppGroup("datasets", help="Datasets of all owners: list, add, tag, delete, search.")

as_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
as_owner = click.option(
    "--owner",
    default=ANONYMOUS,
    metavar="KEY-ID",
    help="Act for this API key, which also reaches its private datasets; without it for everybody.",
)


@datasets_cli.command("list")
@as_json
def list_datasets(as_json: bool) -> None:
    """Print id|owner|private or public|tags|uri of every dataset, oldest first; private ones too."""
    with answers():
        found = dataset_rows.everything(services().store)
    if as_json:
        click.echo(json.dumps([{**described(row, words), "owner": row.owner} for row, words in found]))
        return
    for row, words in found:
        reach = "private" if described(row, words)["private"] else "public"
        click.echo("|".join([row.id, row.owner or "everybody", reach, ",".join(words), row.uri or "-"]))


@datasets_cli.command("add")
@click.argument("dataset_id", metavar="ID")
@click.option("--description", default="", help="Up to 4,096 characters; searches look inside.")
@click.option("--tag", "tags", multiple=True, help="May be repeated.")
@click.option("--uri", help="Where the data is; it is never fetched.")
@click.option("--sha256", help="Of the data, 64 hex digits.")
@click.option("--size", type=int, help="Of the data, in bytes.")
@click.option("--private", is_flag=True, help="For its owner alone; needs --owner.")
@as_owner
def add(dataset_id: str, tags: tuple[str, ...], owner: str, **asked: Any) -> None:
    """Register a dataset."""
    with answers():
        new = load_dataset({"dataset_id": dataset_id, "tags": list(tags), **asked})
        answer = datasets().register(acting_for(owner), new)
    click.echo(answer["message"])


@datasets_cli.command("tag")
@click.argument("dataset_id", metavar="ID")
@click.option("--add", multiple=True, metavar="TAG", help="May be repeated.")
@click.option("--remove", multiple=True, metavar="TAG", help="May be repeated.")
@as_owner
def tag(dataset_id: str, add: tuple[str, ...], remove: tuple[str, ...], owner: str) -> None:
    """Add and remove tags; print those that it has then, one a line."""
    with answers():
        given = load(TAG, {"dataset_id": dataset_id, "add": list(add), "remove": list(remove)})
        answer = datasets().tag(acting_for(owner), **given)
    for word in answer["tags"]:
        click.echo(word)


@datasets_cli.command("delete")
@click.argument("dataset_id", metavar="ID")
@as_owner
def delete(dataset_id: str, owner: str) -> None:
    """Forget a dataset."""
    with answers():
        datasets().delete(acting_for(owner), dataset_id)
    click.echo(f"Deleted dataset: {dataset_id}")


@datasets_cli.command("search")
@click.argument("terms", nargs=-1, required=True, metavar="TERM...")
@as_owner
def search(terms: tuple[str, ...], owner: str) -> None:
    """Whether one dataset matches every TERM: its id, a tag, or a part of its description. Status 1 if none does."""
    with answers():
        found = datasets().search(acting_for(owner), load_terms({"query": list(terms)}))["content"]
    if not found:
        raise fail("No dataset matches", 1)
    click.echo("A dataset matches")


def datasets() -> Datasets:
    found: Datasets = services().hosting.datasets
    return found
