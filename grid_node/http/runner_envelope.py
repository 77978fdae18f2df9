"""Answers below `/pc/client-api/` as the first clients know them: `{"httpStatus": 200, "data": {...}}`, if they ask."""

from flask import Flask, Response, request

PREFIX = "/pc/client-api/"
HEADER = "X-Response-Envelope"


def register_envelope(app: Flask) -> None:
    """Wrap the JSON that the node itself says, errors too; the status stays. Files are never touched."""
    app.after_request(_wrapped)


def _wrapped(answer: Response) -> Response:
    if not request.path.startswith(PREFIX) or request.headers.get(HEADER) != "1":
        return answer
    answer.vary.add(HEADER)
    if answer.mimetype != "application/json" or answer.is_streamed or answer.direct_passthrough:
        return answer
    said = answer.get_data().strip()
    if said:
        answer.set_data(b'{"httpStatus":%d,"data":%b}\n' % (answer.status_code, said))
    return answer
