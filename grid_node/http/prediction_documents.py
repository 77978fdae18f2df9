"""What the OpenAPI document says of predictions and games. Messages are checked by hand-written code, not by these."""

from typing import Any

from marshmallow import Schema, fields

from grid_node.http.documents import body_of

SECURITY: list[dict[str, list[str]]] = [{"miner": []}, {"key": []}]
"""A signed request, or in a private grid an API key."""


class WagerSchema(Schema):
    """The member `prediction`."""

    prediction_id = fields.String(
        required=True, metadata={"description": "A-Z a-z 0-9 _ . : -, up to 128; its sender's own"}
    )
    game_id = fields.String(required=True)
    team_a = fields.String(required=True)
    team_b = fields.String(required=True)
    wager = fields.String(required=True, metadata={"description": "money; a number is taken too"})
    predicted_outcome = fields.Raw(required=True, metadata={"description": "0, 1, 2, a team's name, or tie"})
    predicted_odds = fields.String(required=True)
    team_a_odds = fields.String(required=True)
    team_b_odds = fields.String(required=True)
    tie_odds = fields.String(required=True, allow_none=True)
    model_name = fields.String()
    confidence_score = fields.Float(metadata={"description": "from 0 to 1"})
    prediction_date = fields.String()
    miner_uid = fields.Integer()


class PredictionMessageSchema(Schema):
    """A signed PredictionMessage."""

    message_id = fields.String(required=True)
    sender_hotkey = fields.String(required=True)
    receiver_hotkey = fields.String(required=True)
    timestamp = fields.String(required=True)
    message_type = fields.String(required=True, metadata={"description": "prediction"})
    prediction = fields.Nested(WagerSchema, required=True)
    signature = fields.String(metadata={"description": "0x and 128 hex digits"})


SUBMISSION: dict[str, Any] = body_of(PredictionMessageSchema)
