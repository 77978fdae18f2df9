"""Answers of a service, as JSON."""

from typing import Any

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
COLDKEY = "5HjA8FvL9yYpPs5xQ1BFn4bbo6WYPMTUVSaf6Nmv8XgpR2Ae"
BLOCK = {"number": 1001, "hash": "0x" + "ab" * 32}
NEURON: dict[str, Any] = {
    "uid": 0,
    "coldkey": COLDKEY,
    "hotkey": HOTKEY,
    "active": True,
    "axon_info": {"ip": "1.2.3.0", "port": 8000, "protocol": 4},
    "stake": 1.0,
    "rank": 0.5,
    "emission": 0.000000001,
    "incentive": 0.000015259021896696422,
    "consensus": 0.0,
    "trust": 0.0,
    "validator_trust": 0.0,
    "dividends": 0.0,
    "last_update": 100,
    "validator_permit": True,
    "pruning_score": 65535,
    "stakes": {"alpha": 1.0, "tao": 0.5, "total": 1.5},
}
NEURONS = {"block": BLOCK, "neurons": {HOTKEY: NEURON}}
COMMITMENT = {"block": BLOCK, "hotkey": HOTKEY, "commitment": "0x00ff", "commitment_block_number": 990}
CERTIFICATE = {"algorithm": 1, "public_key": "00" * 32}
EXTRINSIC = {
    "block_number": 7,
    "extrinsic_index": 0,
    "extrinsic_hash": "0x" + "cd" * 32,
    "extrinsic_length": 11,
    "address": None,
    "call": {
        "call_module": "Timestamp",
        "call_function": "set",
        "call_args": [{"name": "now", "type": "Moment", "value": 1_800_000_000_000}],
    },
    "more": "is kept",
}
STATUS: dict[str, Any] = {
    "job_id": "j1",
    "identity_name": "sn1",
    "netuid": 1,
    "status": "running",
    "weights_submitted": False,
    "count": 2,
    "dropped": [COLDKEY],
    "source": "client",
    "attempts": 1,
    "max_attempts": 201,
    "created_at": 1_800_000_000.25,
    "updated_at": 1_800_000_001,
    "next_attempt_at": None,
    "epoch": {"start": 720, "end": 1081},
    "block_number": None,
    "extrinsic_hash": None,
    "reveal_round": None,
    "last_error": None,
}
READS: dict[str, Any] = {
    "/block/latest/neurons": NEURONS,
    "/block/recent/neurons": NEURONS,
    "/block/7/neurons": NEURONS,
    "/block/latest/validators": {"block": BLOCK, "validators": [NEURON]},
    "/block/7/validators": {"block": BLOCK, "validators": [NEURON]},
    "/block/latest/commitments": {"block": BLOCK, "commitments": {HOTKEY: "0x00ff"}},
    f"/block/latest/commitments/{HOTKEY}": COMMITMENT,
    "/block/latest/commitments/self": COMMITMENT,
    "/block/latest/certificates": {HOTKEY: CERTIFICATE},
    f"/block/latest/certificates/{HOTKEY}": CERTIFICATE,
    "/block/latest/certificates/self": CERTIFICATE,
    "/weights/status": STATUS,
}
"""By the path below a subnet."""
BLOCK_READS: dict[str, Any] = {
    "/api/v1/block/latest": {**BLOCK, "timestamp": 1_800_000_000},
    "/api/v1/block/7/extrinsic/0": EXTRINSIC,
}
WRITES: dict[str, tuple[int, Any]] = {
    "PUT /weights": (200, {"detail": "weights update scheduled", "count": 2, "job_id": "j1", "dropped": [COLDKEY]}),
    "POST /commitments": (201, {"detail": "Commitment set successfully."}),
    "POST /certificates/self": (201, {**CERTIFICATE, "private_key": "11" * 32}),
}
