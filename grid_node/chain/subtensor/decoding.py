"""What a subtensor's runtime tells, as values of the port. Pure: no node and no clock.

The shapes are those of opentensor/subtensor: `NeuronInfoLite`, `SubnetState`, `NeuronCertificate`, and pallet
commitments' `Registration`. A value of another shape raises KeyError, TypeError, ValueError or IndexError.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from grid_node import ss58
from grid_node.chain.ports import RAO, U16, Certificate, Commitment, Neuron

ACCOUNT = 32
"""Bytes of an account id."""
IPV4_MAX = 2**32 - 1


def neurons(lite: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> list[Neuron]:
    """From `get_neurons_lite` and `get_subnet_state` of the same block, in the order of the uids."""
    return [neuron(row, state) for row in sorted(lite, key=lambda row: int(row["uid"]))]


def neuron(row: Mapping[str, Any], state: Mapping[str, Any]) -> Neuron:
    uid, axon = int(row["uid"]), row["axon_info"]
    return Neuron(
        uid=uid,
        coldkey=account(row["coldkey"]),
        hotkey=account(row["hotkey"]),
        active=bool(row["active"]),
        ip=address(axon["ip"], axon["ip_type"]),
        port=int(axon["port"]),
        protocol=int(axon["protocol"]),
        stake=sum(int(rao) for _, rao in row["stake"]) / RAO,
        rank=row["rank"] / U16,
        emission=row["emission"] / RAO,
        incentive=row["incentive"] / U16,
        consensus=row["consensus"] / U16,
        trust=row["trust"] / U16,
        validator_trust=row["validator_trust"] / U16,
        dividends=row["dividends"] / U16,
        last_update=int(row["last_update"]),
        validator_permit=bool(row["validator_permit"]),
        pruning_score=int(row["pruning_score"]),
        stake_alpha=state["alpha_stake"][uid] / RAO,
        stake_tao=state["tao_stake"][uid] / RAO,
        stake_total=state["total_stake"][uid] / RAO,
    )


def account(value: Any) -> str:
    """SS58 of an account id that the library told as SS58 or as hex."""
    if not isinstance(value, str):
        raise TypeError("no account id")
    if not value.startswith("0x"):
        return value
    raw = bytes.fromhex(value[2:])
    if len(raw) != ACCOUNT:
        raise ValueError("no account id")
    return ss58.encode(raw)


def account_of(key: bytes) -> str:
    """SS58 of the account id that a storage key ends with."""
    if len(key) < ACCOUNT:
        raise ValueError("no account id")
    return ss58.encode(key[-ACCOUNT:])


def address(ip: int, kind: int) -> str:
    """An axon's address, kept on the chain as a number: of version 6 where `kind` says 6 or it is too large for 4."""
    return str(IPv6Address(ip)) if kind == 6 or ip > IPV4_MAX else str(IPv4Address(ip))


def commitment(hotkey: str, registration: Mapping[str, Any]) -> Commitment | None:
    """The first field that holds plain bytes, `Raw0` to `Raw128` or `BigRaw`. None: there is none, only hashes, flags
    or bytes that are encrypted until later."""
    for field in flat(registration["info"]["fields"]):
        if isinstance(field, Mapping):
            for kind, value in field.items():
                if kind.startswith("Raw") or kind == "BigRaw":
                    return Commitment(hotkey, told_bytes(value), int(registration["block"]))
    return None


def flat(fields: Any) -> Iterable[Any]:
    """Without the layers that the library puts around the fields: one for every newtype of the runtime."""
    for field in fields:
        if isinstance(field, list | tuple):
            yield from flat(field)
        else:
            yield field


def told_bytes(value: Any) -> bytes:
    """Bytes as the library tells them: arrays as hex; a `Vec<u8>` as text where it is UTF-8, else as hex.

    A `Vec<u8>` that holds the text of a hex number cannot be told from its bytes; it is taken for bytes.
    """
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, list | tuple):
        return told_bytes(value[0]) if len(value) == 1 and not isinstance(value[0], int) else bytes(value)
    if value.startswith("0x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            pass
    return str(value).encode()


def certificate(raw: bytes) -> Certificate:
    """`NeuronCertificate` in SCALE: the key, 64 bytes at most after its length, and the algorithm.

    Read here and not by the library, which would tell a key that happens to be UTF-8 as text.
    """
    if not raw or raw[0] & 3:
        raise ValueError("no certificate")
    length = raw[0] >> 2
    if len(raw) != length + 2:
        raise ValueError("no certificate")
    return Certificate(algorithm=raw[-1], public_key=bytes(raw[1:-1]))


def extrinsic_hash(raw: bytes) -> str:
    return "0x" + blake2b(raw, digest_size=32).hexdigest()


def extrinsic(number: int, index: int, raw: bytes, value: Mapping[str, Any]) -> dict[str, Any]:
    """As in Pylon's answer. `value` is the library's."""
    call = value["call"]
    told = value.get("address")
    return {
        "block_number": number,
        "extrinsic_index": index,
        "extrinsic_hash": extrinsic_hash(raw),
        "extrinsic_length": len(raw),
        "address": None if told is None else account(told["Id"] if isinstance(told, Mapping) else told),
        "call": {
            "call_module": call["call_module"],
            "call_function": call["call_function"],
            "call_args": [
                {"name": arg["name"], "type": str(arg["type"]), "value": plain(arg["value"])}
                for arg in call["call_args"]
            ],
        },
    }


def plain(value: Any) -> Any:
    """As JSON can hold it: bytes as hex, tuples as lists, values of the library by their content."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes | bytearray):
        return "0x" + value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    return plain(value.value) if hasattr(value, "value") else str(value)


def failure(events: Iterable[Mapping[str, Any]], index: int) -> Mapping[str, Any] | str | None:
    """The `DispatchError` of the extrinsic with this index, out of the events of its block; None: it succeeded.

    Raises ValueError when the events say neither.
    """
    for told in events:
        if told["extrinsic_idx"] != index or told["event"]["module_id"] != "System":
            continue
        if told["event"]["event_id"] == "ExtrinsicFailed":
            attributes = told["event"]["attributes"]
            error = attributes["dispatch_error"] if isinstance(attributes, Mapping) else attributes[0]
            return error if isinstance(error, Mapping) else str(error)
        if told["event"]["event_id"] == "ExtrinsicSuccess":
            return None
    raise ValueError("no word of the extrinsic")


def module_error(error: Mapping[str, Any] | str) -> tuple[int, int] | None:
    """Pallet and number of an error of a pallet; the number is the first of four bytes."""
    if not isinstance(error, Mapping) or "Module" not in error:
        return None
    told = error["Module"]
    pallet, number = (told["index"], told["error"]) if isinstance(told, Mapping) else (told[0], told[1])
    if isinstance(number, str):
        number = bytes.fromhex(number.removeprefix("0x"))[0]
    return int(pallet), int(number)


def words(error: Mapping[str, Any] | str) -> str:
    """A `DispatchError` that is no pallet's, in its own words: `BadOrigin`, `Token: FundsUnavailable`."""
    if isinstance(error, str):
        return error
    name, detail = next(iter(error.items()))
    return f"{name}: {detail}" if detail else str(name)
