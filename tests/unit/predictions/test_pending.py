"""An answer that comes later: once, to everybody, whoever is first."""

import threading

from grid_node.errors import RateLimited
from grid_node.predictions.pending import Answer, Pending


def test_the_first_answer_counts() -> None:
    pending = Pending()

    assert pending.finish(Answer("1", 200))
    assert not pending.finish(Answer("2", 200))
    assert pending.wait(0) == Answer("1", 200)


def test_a_callback_is_called_once_before_or_after() -> None:
    pending, heard = Pending(), []
    pending.then(heard.append)
    assert heard == []

    pending.finish(Answer("1", 200))
    pending.finish(Answer("2", 200))
    pending.then(heard.append)

    assert [answer.text for answer in heard] == ["1", "1"]


def test_waiting_ends_with_the_answer_or_with_nothing() -> None:
    pending = Pending()
    assert pending.wait(0.01) is None

    threading.Timer(0.01, pending.finish, [Answer("1", 200)]).start()

    assert pending.wait(10) == Answer("1", 200)


def test_an_error_is_an_answer_with_its_body() -> None:
    answer = Answer.of_error(RateLimited(retry_after=0.05))

    assert (answer.status, answer.codes, answer.retry_after) == (429, ("rate_limited",), 0.05)
    assert '"retry_after":0.05' in answer.text
