"""How an answer of the infer route goes out."""

from grid_node.http.v2_door import PIECE, _Sent


class Peer:
    """A socket that notes how long it may wait."""

    def __init__(self) -> None:
        self.timeout: float | None = None

    def gettimeout(self) -> float | None:
        return self.timeout

    def settimeout(self, seconds: float | None) -> None:
        self.timeout = seconds


def test_a_reader_of_a_long_answer_has_a_deadline():
    peer = Peer()
    answer = iter(_Sent([bytes(3 * PIECE)], {"gunicorn.socket": peer}, lambda: None))
    next(answer)
    assert peer.timeout
    assert sum(map(len, answer)) == 2 * PIECE
    assert peer.timeout is None


def test_a_short_answer_goes_out_in_one_piece():
    assert list(_Sent([memoryview(b"short")], {}, lambda: None)) == [b"short"]
