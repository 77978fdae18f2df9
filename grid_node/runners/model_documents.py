"""What an owner sends of a model, and what the node answers: a registration's document in and out."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from grid_node.clock import rfc3339
from grid_node.errors import BodyTooLarge, InvalidSignature, RunnerInvalidJson, TunnelProviderFailed
from grid_node.runners.ids import MODEL_ID, MODEL_NAME
from grid_node.runners.inputs import check_generation
from grid_node.runners.models import PRIVATE, PUBLIC
from grid_node.runners.signature import Signature, parse_signature
from grid_node.settings import Settings
from grid_node.wire import strict_json

Fields = dict[str, list[str]]

CREDENTIALS = ("AccountTag", "TunnelID", "TunnelName", "TunnelSecret")
"""Members of a tunnel's credentials file."""
SECRET = frozenset({"TunnelSecret", "token"})


@dataclass(frozen=True, slots=True)
class ModelDocument:
    """A registration that was checked. `text` is the document as it came; `name` is None when it has none."""

    text: str
    name: str | None
    visibility: str
    signature: Signature
    generation: str | None
    """JSON."""


def check_document(document: Any, settings: Settings, task_kinds: Collection[str] = ()) -> ModelDocument:
    """`task_kinds`: kinds of tasks that a model may do.

    Raises RunnerInvalidJson for what is no object, BodyTooLarge, InvalidSignature with everything that is wrong.
    """
    if not isinstance(document, dict):
        raise RunnerInvalidJson()
    text = _text_of(document, settings.signature_max_bytes)
    problems: Fields = {}
    name = _name(document, problems)
    visibility = _visibility(document.get("visibility"), problems)
    signature = generation = None
    try:
        signature = parse_signature(document, settings.signature_max_inputs)
        generation = _generation(signature, document.get("generation"), task_kinds)
    except InvalidSignature as error:
        problems |= error.data.get("fields", {})
    if problems or signature is None:
        raise InvalidSignature(fields=problems)
    return ModelDocument(text, name, visibility, signature, generation)


def fingerprint(document: Any) -> str:
    """The same for the same JSON, however its members are ordered."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def merged(target: Any, patch: Any) -> Any:
    """`target` after a JSON merge patch (RFC 7396): null removes a member, arrays are replaced whole."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def credential_of(envelope: Any) -> dict[str, str]:
    """What an agent needs of create_tunnel's answer: the credentials file's four members and the token.

    Raises TunnelProviderFailed when one is missing.
    """
    try:
        result = envelope["result"]
        found = {name: result["credentials_file"][name] for name in CREDENTIALS} | {"token": result["token"]}
    except (KeyError, TypeError):
        raise TunnelProviderFailed() from None
    if not all(isinstance(value, str) and value for value in found.values()):
        raise TunnelProviderFailed()
    return found


def registered(row: Any, credential: dict[str, str], settings: Settings) -> dict[str, Any]:
    """The answer to a registration: an agent runs with `credential` and `config` as they are."""
    return {"id": row.id, "credential": credential, "config": _config(row, settings)}


def described(row: Any, credential: dict[str, str] | None, settings: Settings) -> dict[str, Any]:
    """The stored document and what the node knows of the model; `credential` without what is secret."""
    return {
        **json.loads(row.document),
        "id": row.id,
        "name": row.name,
        "owner": row.account,
        "visibility": row.visibility,
        "version": row.version,
        "state": row.state,
        "config": _config(row, settings),
        "credential": credential,
        **_times(row),
    }


def listed(row: Any, standing: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_id": row.id,
        "model_name": row.name,
        "owner": row.account,
        "visibility": row.visibility,
        "version": row.version,
        "state": row.state,
        "hostname": row.hostname,
        "runner": standing,
        **_times(row),
    }


def public(credential: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in credential.items() if name not in SECRET}


def _config(row: Any, settings: Settings) -> dict[str, Any]:
    """cloudflared's configuration; https://developers.cloudflare.com/cloudflare-one, "configuration file"."""
    ingress = [{"hostname": row.hostname, "service": settings.runner_local_service}, {"service": "http_status:404"}]
    return {"tunnel": row.tunnel_id, "credentials-file": "tunnel_credential.json", "ingress": ingress}


def _times(row: Any) -> dict[str, str]:
    return {"created_at": rfc3339(row.created_at), "updated_at": rfc3339(row.updated_at)}


def _text_of(document: dict[str, Any], limit: int) -> str:
    """ASCII: what a database's text cannot hold stays escaped. `limit` in bytes of UTF-8."""
    text = strict_json.dumps(document)
    if len(text) > limit:
        plain = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        if len(plain.encode()) > limit:
            raise BodyTooLarge(limit=limit)
    return text


def _name(document: dict[str, Any], problems: Fields) -> str | None:
    given = {key: document[key] for key in ("name", "model_name") if document.get(key) is not None}
    if not given:
        return None
    member, name = next(iter(given.items()))
    if any(other != name for other in given.values()):
        problems["model_name"] = ["Differs from name."]
    if not isinstance(name, str):
        problems[member] = ["Not a valid string."]
        return None
    if not MODEL_NAME.fullmatch(name):
        problems[member] = ["Must be 1 to 63 of a-z, 0-9, dot, underscore, hyphen, and begin with a letter or digit."]
    return name


def _visibility(given: Any, problems: Fields) -> str:
    if given is None:
        return PRIVATE
    if given not in (PUBLIC, PRIVATE):
        problems["visibility"] = ["Must be one of: private, public."]
    return str(given)


def _generation(signature: Signature, given: Any, task_kinds: Collection[str]) -> str | None:
    return None if given is None else strict_json.dumps(check_generation(signature, given, task_kinds))


def check_own_name(name: str | None, id: str) -> str:
    """The model's name, its id where it has none. Raises InvalidSignature for a name that looks like another's id."""
    if name is not None and name != id and MODEL_ID.fullmatch(name):
        raise InvalidSignature(fields={"name": ["Must not look like a model's id."]})
    return name or id
