"""Routes of games: what may be predicted, what changed of it, and how an operator changes it."""

from collections.abc import Callable
from typing import Any

from flask import Response, jsonify, request
from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from grid_node.errors import InvalidMessage
from grid_node.fields import EPOCH, StrictFloat, StrictInt
from grid_node.http.documents import ERRORS, answers, body_of, query_of
from grid_node.http.game_polls import GamePolls
from grid_node.http.json_answers import json_answer
from grid_node.http.miner_door import MinerDoor
from grid_node.http.payloads import JSON_MAX, checked_query, message_query, strict_body
from grid_node.http.prediction_documents import SECURITY
from grid_node.predictions.game_schemas import FilterSchema, PutSchema
from grid_node.predictions.ports import Miner
from grid_node.predictions.update_log import Position, Update
from grid_node.services import Services

ANSWER_MAX = 2 * 1024 * 1024
"""Characters of updates in one answer, the first one apart; a reader asks again for the rest."""


class UpdatesSchema(Schema):
    """Which updates, and how long to wait for the first one. Without a position the answer is a snapshot."""

    epoch = fields.String(validate=EPOCH)
    after = StrictInt(validate=validate.Range(0))
    wait = StrictFloat(load_default=25.0, validate=validate.Range(0, 55))
    limit = StrictInt(load_default=500, validate=validate.Range(1, 500))


UPDATES = UpdatesSchema()
FILTER = FilterSchema()


class GameRoutes:
    """`/games` and everything below it."""

    def __init__(self, services: Services, door: MinerDoor, polls: GamePolls) -> None:
        self._games = services.predicting.games
        self._log = services.predicting.log
        self._door = door
        self._polls = polls

    def blueprint(self) -> Blueprint:
        made = Blueprint("games", __name__, description="Games that miners may predict.")
        keys: list[dict[str, list[str]]] = [{"key": []}]
        rules: tuple[tuple[str, Callable[..., Response], str, dict[str, Any]], ...] = (
            ("/games", self.games, "GET", {**query_of(FilterSchema), "security": SECURITY}),
            ("/games/updates", self.updates, "GET", {**query_of(UpdatesSchema), "security": SECURITY}),
            ("/games/<game_id>", self.put, "PUT", {**body_of(PutSchema), "security": keys}),
        )
        for rule, view, method, documents in rules:
            documented = made.doc(**documents, responses={**answers(200), **ERRORS})
            made.add_url_rule(rule, view.__name__, documented(view), methods=[method])
        return made

    def games(self) -> Response:
        """The games with sport, league and state as asked; 304 while nothing changed since the ETag shown."""
        self._door.reader(request)
        filters = message_query(request, FILTER)
        listing = self._games.listing(filters)
        if request.if_none_match.contains_weak(_tag(listing.position)):
            return _tagged(Response(status=304), listing.position)
        return _tagged(json_answer(request, listing.text.encode()), listing.position)

    def put(self, game_id: str) -> Response:
        """Make a game, or change one. `force` changes an outcome that is final."""
        self._door.admin(request)
        done = self._games.put(game_id, strict_body(request, JSON_MAX).parsed())
        answer = jsonify(done.body)
        answer.status_code = 201 if done.created else 200
        return answer

    # --- updates ------------------------------------------------------------------------------------------------

    def updates(self) -> Response:
        """The updates after a position, within `wait` seconds; a snapshot where they cannot all be had."""
        reader = self._door.reader(request)
        given = checked_query(request, UPDATES)
        if ("epoch" in given) != ("after" in given):
            missing = "after" if "epoch" in given else "epoch"
            raise InvalidMessage(fields={missing: ["epoch and after go together"]})
        if "epoch" not in given:
            return self._snapshot(None)
        position = Position(given["epoch"], given["after"])
        answer = self._news(position, given["limit"])
        if answer is None and given["wait"]:
            answer = self._waited(reader, position, given["limit"], given["wait"])
        return _updates(position.epoch, [], position.seq) if answer is None else answer

    def _waited(self, reader: Miner, position: Position, limit: int, seconds: float) -> Response | None:
        with self._polls.poll(reader.identity, request.environ, seconds) as poll:
            answer = self._news(position, limit)  # what came before anybody would have rung
            while answer is None and poll.rings():
                answer = self._news(position, limit)
        return answer

    def _news(self, position: Position, limit: int) -> Response | None:
        """What a reader at this position has to know; None: nothing."""
        resumed = self._log.resume(position)
        if not resumed.recovered:
            return self._snapshot(resumed.reason)
        found = self._log.updates(position, limit) if resumed.replayed else []
        return _updates(position.epoch, found, resumed.position.seq) if found else None

    def _snapshot(self, reason: str | None) -> Response:
        snapshot = self._log.snapshot()
        parts = ",".join(part.text for part in snapshot.parts)
        why = "null" if reason is None else f'"{reason}"'
        position = f'"epoch":"{snapshot.position.epoch}","seq":{snapshot.position.seq}'
        text = f'{{"success":true,"recovered":false,"reason":{why},{position},"snapshot":[{parts}]}}'
        return json_answer(request, text.encode())


def _updates(epoch: str, updates: list[Update], last_seq: int) -> Response:
    texts: list[str] = []
    size = 0
    for update in updates:
        size += len(update.text)
        if texts and size > ANSWER_MAX:
            break
        texts.append(update.text)
    joined = ",".join(texts)
    text = f'{{"success":true,"recovered":true,"epoch":"{epoch}","updates":[{joined}],"last_seq":{last_seq}}}'
    return json_answer(request, text.encode())


def _tag(position: Position) -> str:
    return f"{position.epoch}-{position.seq}"


def _tagged(answer: Response, position: Position) -> Response:
    answer.set_etag(_tag(position))
    answer.headers["Cache-Control"] = "private, no-cache"
    return answer
