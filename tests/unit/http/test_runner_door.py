"""Where a request may carry its key, and which one counts."""

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from grid_node.http.runner_door import key_of

BASIC = "Basic cnVubmVyOnNlY3JldA=="
"""User name `runner`, password `secret`."""


def asked(**headers):
    return Request(
        EnvironBuilder(headers={name.replace("_", "-"): text for name, text in headers.items()}).get_environ()
    )


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "Token", "token", "TOKEN"])
def test_a_key_comes_as_bearer_or_as_token(scheme):
    assert key_of(asked(Authorization=f"{scheme} secret")) == "secret"


@pytest.mark.parametrize("text", ["", "secret", "Token", "Token ", "Tokens secret", "Digest secret", BASIC])
def test_anything_else_is_no_key(text):
    assert key_of(asked(Authorization=text)) is None


def test_a_key_in_its_own_header_comes_first():
    assert key_of(asked(X_API_Key="first", Authorization="Token second")) == "first"


def test_a_password_counts_only_where_a_worker_can_send_nothing_else():
    assert key_of(asked(Authorization=BASIC), basic=True) == "secret"
