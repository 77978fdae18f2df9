"""`grid-client models ...` and `grid-client datasets ...`: what a node hosts."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grid_client.models import ModelClient
from grid_client.progress import ProgressBar

Command = Callable[[ModelClient, argparse.Namespace], None]


def add_options(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listed = _command(commands, "list", "id, version, format, size and tags of every model", list_models)
    listed.add_argument("--tag", help="only models with this tag")
    _serve_options(_command(commands, "serve", "serve a file", serve))
    fetched = _command(commands, "fetch", "fetch the bytes of a model", fetch)
    fetched.add_argument("model_id")
    fetched.add_argument("file", type=Path)
    fetched.add_argument("--version", type=int)
    ran = _command(commands, "run", "run a model; prints its answer as JSON", run)
    ran.add_argument("model_id")
    ran.add_argument("data", help="nested list, or object of them by input, as JSON; @FILE reads a file, - stdin")
    ran.add_argument("--version", type=int)
    deleted = _command(commands, "delete", "delete a model", delete)
    deleted.add_argument("model_id")
    deleted.add_argument("--version", type=int)


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _command(commands, "list", "every dataset, as JSON", list_datasets)
    _command(commands, "tags", "the tags of all datasets", tags)
    found = _command(commands, "search", "whether one dataset matches every term", search)
    found.add_argument("terms", nargs="+", metavar="TERM")
    added = _command(commands, "add", "register a dataset", add_dataset)
    added.add_argument("dataset_id")
    added.add_argument("--description", default="")
    added.add_argument("--tag", dest="tags", action="append", default=[])
    added.add_argument("--uri")
    added.add_argument("--private", action="store_true")
    deleted = _command(commands, "delete", "forget a dataset", delete_dataset)
    deleted.add_argument("dataset_id")


def _serve_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model_id")
    parser.add_argument("file", type=Path)
    parser.add_argument("--allow-download", action="store_true")
    parser.add_argument("--allow-inference", action="store_true")
    parser.add_argument("--format", help="default: safetensors if it is one, else opaque")
    parser.add_argument("--version", help='"new", or the number that comes next')
    parser.add_argument("--tag", dest="tags", action="append", default=[])
    parser.add_argument("--description", default="")
    parser.add_argument("--architecture", metavar="JSON", help="makes a state dict runnable; @FILE reads a file")
    parser.add_argument("--inputs", metavar="JSON", help="list of name, datatype, shape; @FILE reads a file")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="keeps the place of a broken upload")


def _command(commands: Any, name: str, text: str, command: Command) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text)
    parser.add_argument("--url", default=os.environ.get("GRID_URL", "http://127.0.0.1:8888"))
    parser.add_argument("--api-key", default=os.environ.get("GRID_API_KEY"))
    parser.add_argument("--verbose", action="store_true")
    parser.set_defaults(command=lambda options: _run(command, options))
    return parser


def _run(command: Command, options: argparse.Namespace) -> int:
    with ModelClient(options.url, options.api_key or None) as client:
        command(client, options)
    return 0


# --- models


def list_models(client: ModelClient, options: argparse.Namespace) -> None:
    for one in client.detailed(options.tag):
        print(f"{one.id}\tversion {one.version}\t{one.format}\t{one.size}\t{','.join(one.tags) or '-'}")


def serve(client: ModelClient, options: argparse.Namespace) -> None:
    fields = {
        "allow_download": options.allow_download,
        "allow_remote_inference": options.allow_inference,
        "tags": options.tags,
        "description": options.description,
        "format": options.format,
        "version": _version(options.version),
        "architecture": _parsed(options.architecture),
        "inputs": _parsed(options.inputs),
    }
    given = {name: value for name, value in fields.items() if value is not None}
    bar = ProgressBar(options.model_id)
    served = client.serve(options.model_id, options.file, progress=bar, resume=options.resume, **given)
    version = "" if served.version is None else f", version {served.version}"
    print(f"served: {served.model_id}{version}, {served.size} bytes, sha256 {served.sha256}")


def fetch(client: ModelClient, options: argparse.Namespace) -> None:
    bar = ProgressBar(options.model_id)
    digest = client.fetch(options.model_id, options.file, version=options.version, progress=bar)
    print(f"saved: {options.file} ({options.file.stat().st_size} bytes, sha256 {digest})")


def run(client: ModelClient, options: argparse.Namespace) -> None:
    print(json.dumps(client.run(options.model_id, _parsed(options.data), version=options.version)))


def delete(client: ModelClient, options: argparse.Namespace) -> None:
    client.delete(options.model_id, options.version)
    print(f"deleted: {options.model_id}")


# --- datasets


def list_datasets(client: ModelClient, options: argparse.Namespace) -> None:
    print(json.dumps(client.datasets(), indent=2, ensure_ascii=False))


def tags(client: ModelClient, options: argparse.Namespace) -> None:
    for tag in client.tags():
        print(tag)


def search(client: ModelClient, options: argparse.Namespace) -> None:
    print("found" if client.search(*options.terms) else "not found")


def add_dataset(client: ModelClient, options: argparse.Namespace) -> None:
    fields = {"description": options.description, "tags": options.tags, "private": options.private}
    client.register_dataset(options.dataset_id, **fields, **({} if options.uri is None else {"uri": options.uri}))
    print(f"registered: {options.dataset_id}")


def delete_dataset(client: ModelClient, options: argparse.Namespace) -> None:
    client.delete_dataset(options.dataset_id)
    print(f"deleted: {options.dataset_id}")


def _version(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


def _parsed(text: str | None) -> Any:
    """Raises ValueError for what is no JSON, OSError for a file that cannot be read."""
    if text is None:
        return None
    if text == "-":
        return json.load(sys.stdin)
    return json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
