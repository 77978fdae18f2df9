"""`grid-client worker run`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from grid_client import generators
from grid_client.cli.signals import until_signalled
from grid_client.signing import Keypair, load_keypair
from grid_client.worker import WorkerClient


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=run_worker, verbose=True)
    parser.add_argument("--node-url", required=True)
    parser.add_argument("--api-key", default=os.environ.get("GRID_WORKER_API_KEY"), help="private grid")
    parser.add_argument("--name", default="worker", help="worker name in a private grid")
    parser.add_argument("--node-hotkey", help="SS58 address of the node")
    parser.add_argument("--wallet-seed-file", type=Path, help="hex seed, mnemonic or unencrypted hotkey file")
    parser.add_argument("--generator", choices=("procedural", "text"), default="procedural")
    parser.add_argument("--quality", type=_share, default=1.0, help="below 1: honestly worse (default 1)")
    parser.add_argument("--faulty", type=_share_or_zero, default=0.0, help="share of broken results, 0 to 1")
    parser.add_argument("--format", choices=generators.SPLAT_FORMATS, default="spz")
    parser.add_argument("--max-parallel", type=int, choices=range(1, 9), default=1, metavar="1..8")


def run_worker(options: argparse.Namespace) -> int:
    if (options.api_key is None) == (options.wallet_seed_file is None):
        raise ValueError("give either --api-key with --name, or --wallet-seed-file with --node-hotkey")
    keypair = load_keypair(options.wallet_seed_file) if options.wallet_seed_file else None
    generator = _generator(options, keypair)
    worker = WorkerClient(
        options.node_url,
        handler=generator.handler,
        api_key=options.api_key,
        name=options.name,
        keypair=keypair,
        node_hotkey=options.node_hotkey,
        kinds=generator.kinds,
        formats=generator.formats,
        max_parallel=options.max_parallel,
    )
    until_signalled(worker.run, worker.stop)
    return 0


def _generator(options: argparse.Namespace, keypair: Keypair | None) -> generators.Generator:
    identity = keypair.ss58_address if keypair else options.name
    if options.generator == "text":
        return generators.text(identity)
    return generators.procedural(identity, quality=options.quality, prefer=options.format, faulty=options.faulty)


def _share_or_zero(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return value


def _share(text: str) -> float:
    value = _share_or_zero(text)
    if value == 0.0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value
