"""Which hotkey a command signs with."""

from __future__ import annotations

import argparse
from pathlib import Path

from grid_client.signing import Keypair, load_keypair

WALLETS = Path("~/.bittensor/wallets")


def add_options(parser: argparse.ArgumentParser) -> None:
    """A file of its own, or a wallet in bittensor's layout: PATH/NAME/hotkeys/HOTKEY."""
    group = parser.add_argument_group("wallet")
    group.add_argument("--wallet-seed-file", type=Path, help="hex seed, mnemonic or unencrypted hotkey file")
    group.add_argument("--wallet-path", type=Path, default=WALLETS, help=f"folder of wallets (default {WALLETS})")
    group.add_argument("--wallet-name", help="wallet in that folder")
    group.add_argument("--wallet-hotkey", default="default", help="hotkey of that wallet (default: default)")


def keypair_of(options: argparse.Namespace) -> Keypair | None:
    """None if no wallet is named. Raises ValueError, OSError, or GridError for a file without a usable key."""
    if options.wallet_seed_file and options.wallet_name:
        raise ValueError("give either --wallet-seed-file or --wallet-name")
    if options.wallet_seed_file:
        return load_keypair(options.wallet_seed_file)
    if options.wallet_name:
        return load_keypair(_hotkey_file(options))
    return None


def _hotkey_file(options: argparse.Namespace) -> Path:
    for part in (options.wallet_name, options.wallet_hotkey):
        if not part or part in (".", "..") or "/" in part:
            raise ValueError(f"{part!r} is no name of a wallet or hotkey")
    path: Path = options.wallet_path.expanduser() / options.wallet_name / "hotkeys" / options.wallet_hotkey
    return path
