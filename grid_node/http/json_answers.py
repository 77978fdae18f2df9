"""Answers that are JSON text already, and may be long."""

from flask import Request, Response

from grid_node.http.files import sent


def json_answer(request: Request, text: bytes) -> Response:
    """The text as it is. A peer that does not read it is given up after SEND_STALL seconds, so that nobody can keep
    the node's memory by asking and not listening."""
    answer = Response(sent(request.environ, iter((text,))), content_type="application/json")
    answer.content_length = len(text)
    return answer
