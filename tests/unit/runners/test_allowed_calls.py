import pytest

from grid_node.errors import CallNotAllowed
from grid_node.runners.allowed_calls import allowed_headers, check_call


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health-check"),
        ("POST", "/predictions"),
        ("PUT", "/predictions/p_1-A"),
        ("PUT", "/predictions/" + "p" * 64),
        ("POST", "/predictions/p1/cancel"),
    ],
)
def test_what_predictions_need_may_be_asked_of_a_worker(method: str, path: str) -> None:
    check_call(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/shutdown"),
        ("GET", "/"),
        ("HEAD", "/health-check"),
        ("get", "/health-check"),
        ("GET", "/health-check/"),
        ("GET", "/health-check?x"),
        ("GET", "/health-check\n"),
        ("GET", "//health-check"),
        ("GET", "http://other/health-check"),
        ("PUT", "/predictions"),
        ("PUT", "/predictions/"),
        ("PUT", "/predictions/a/b"),
        ("PUT", "/predictions/.."),
        ("PUT", "/predictions/a%2Fb"),
        ("PUT", "/predictions/ä"),
        ("PUT", "/predictions/" + "p" * 65),
        ("PUT", "/predictions/p\n"),
        ("POST", "/predictions/p1/cancel/"),
        ("POST", "/predictions/p1"),
        ("POST", "/predictions/../shutdown/cancel"),
        ("DELETE", "/predictions/p1"),
    ],
)
def test_nothing_else_may(method: str, path: str) -> None:
    with pytest.raises(CallNotAllowed):
        check_call(method, path)


def test_four_headers_may_go_along() -> None:
    given = {
        "prefer": "respond-async",
        "CONTENT-TYPE": "application/json",
        "TraceParent": "00-a",
        "tracestate": "x",
        "Authorization": "Bearer k",
        "Host": "other",
        "X-Prefer": "x",
    }

    assert allowed_headers(given) == {
        "Prefer": "respond-async",
        "Content-Type": "application/json",
        "traceparent": "00-a",
        "tracestate": "x",
    }
    assert allowed_headers(None) == {}


@pytest.mark.parametrize("value", ["a\r\nX: 1", "é", "x" * 1025])
def test_a_header_that_could_become_another_one_stays_behind(value: str) -> None:
    assert allowed_headers({"Prefer": value}) == {}
