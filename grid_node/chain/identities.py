"""Identities: wallets that clients may write with, each on its subnet, and the variables that describe them."""

import dataclasses
import re
from dataclasses import dataclass

from grid_node.chain.ports import NETUID_MAX, Signer
from grid_node.chain.pylon_env import PREFIX, Variables, json_list, whole

LISTED = "PYLON_IDENTITIES"
MEMBERS = ("wallet_name", "hotkey_name", "netuid", "token")
NETUIDS = f"a netuid from 0 to {NETUID_MAX}"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True)
class Identity:
    """A wallet on one subnet, with the token that lets a client use it."""

    name: str
    netuid: int
    wallet_name: str
    hotkey_name: str
    token: str = dataclasses.field(repr=False)

    def signer(self) -> Signer:
        return Signer(self.name, self.netuid, self.wallet_name, self.hotkey_name)


def identity_variable(identity: str, member: str) -> str:
    """`token` of `sn1` is set by `PYLON_ID_SN1_TOKEN`."""
    return f"{PREFIX}ID_{identity}_{member}".upper()


def is_netuid(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= NETUID_MAX


def read_identities(variables: Variables) -> tuple[Identity, ...] | None:
    expects = "a JSON list of names, each a letter and then letters, digits or _"
    names = variables.value(LISTED, "list", lambda items: all(map(_is_name, items)), expects)
    if names is None:
        return None
    upper = [name.upper() for name in names]
    for name in dict.fromkeys(word for word in upper if upper.count(word) > 1):
        variables.problems.append(f"{LISTED} holds names that are equal in upper case: {name}")
    identities = [_identity(name, variables) for name in names]
    return tuple(identity for identity in identities if identity is not None)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _identity(name: str, variables: Variables) -> Identity | None:
    before = len(variables.problems)
    texts: dict[str, str] = {}
    for member in MEMBERS:
        texts[member] = _member(name, member, variables)
    netuid = _identity_netuid(name, texts["netuid"], variables) if texts["netuid"] else None
    if netuid is None or len(variables.problems) > before:
        return None
    return Identity(name, netuid, texts["wallet_name"], texts["hotkey_name"], texts["token"])


def _member(name: str, member: str, variables: Variables) -> str:
    """Its text; empty after a problem."""
    known = identity_variable(name, member)
    text = variables.identities.get(known)
    if text is None:
        variables.problems.append(f'{known} is required because "{name}" is listed in {LISTED}')
    elif not text.strip():
        variables.problems.append(f"{known} must not be empty")
    elif member in {"wallet_name", "hotkey_name"} and ("/" in text or "\0" in text or text in {".", ".."}):
        variables.problems.append(f"{known} must be a plain file name")
    else:
        return text
    return ""


def _identity_netuid(name: str, text: str, variables: Variables) -> int | None:
    try:
        netuid = whole(text)
    except ValueError:
        netuid = -1
    if is_netuid(netuid):
        return netuid
    variables.problems.append(f"{identity_variable(name, 'netuid')} must be {NETUIDS}")
    return None


def listed_names(listed: str | None) -> list[str]:
    try:
        return [name for name in json_list(listed or "[]") if _is_name(name)]
    except ValueError:
        return []
