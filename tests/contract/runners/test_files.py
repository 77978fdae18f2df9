"""Files over each store: what is kept, counted, told, and gone."""

import base64
import hashlib
import threading
from types import SimpleNamespace

import pytest
from sqlalchemy import select

from grid_node.blobs.holds import Holds
from grid_node.blobs.local import LocalBlobs
from grid_node.blobs.references import references
from grid_node.clock import ManualClock
from grid_node.errors import (
    BadCursor,
    FileExpired,
    FileNotFound,
    FileTooLarge,
    NotFound,
    PredictionClosed,
    StorageFull,
    UploadQuotaExceeded,
)
from grid_node.runners import file_rows
from grid_node.runners.file_rows import INPUT
from grid_node.runners.files import TOLD, NewFile, RunnerFiles
from grid_node.runners.prediction import Prediction, by_number, insert_prediction, predictions
from grid_node.settings import Settings
from tests.stores import call, postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]
HOST = "https://node.example"


class Shelf:
    """The service over one store and one folder."""

    def __init__(self, store, folder, clock, **settings):
        self.store, self.clock, self.folder = store, clock, folder
        self.settings = Settings.load({}, **{"public_base_url": HOST, "upload_disk_floor_bytes": 0, **settings})
        self.blobs = LocalBlobs(folder / "blobs", call)
        self.holds = Holds(store, self.blobs, clock)
        self.files = RunnerFiles(store, clock, self.settings, self.blobs, self.holds, folder)

    def put(self, name, content=b"bytes", said=None, owner="worker", content_type=None):
        new = self.files.named(owner, name, said, content_type)
        return self.files.receive(new, [content])

    def input(self, name="in.png", content=b"bytes", owner="client", **about):
        new = NewFile(owner=owner, kind=INPUT, filename=name, about=about)
        return self.files.receive(new, [content]).file

    def predict(self, id="7", runner_owner="worker", **members):
        at = self.clock.now()
        given = {"owner": "client", "model_id": None, "model": "a/m", "version": "0" * 64, "source": "node"}
        given |= {"state": "processing", "input": {}, "due_at": at, "created_at": at, **members}
        made = Prediction(id=id, runner_owner=runner_owner, **given)
        number = self.store.write(lambda tx: insert_prediction(tx, made))
        return self.store.read(lambda tx: by_number(tx, number))

    def end(self, prediction):
        values = {"state": "succeeded", "finished_at": self.clock.now()}
        where = predictions.c.number == prediction.number
        self.store.write(lambda tx: tx.execute(predictions.update().where(where).values(**values)))

    def again(self, prediction):
        return self.store.read(lambda tx: by_number(tx, prediction.number))

    def read(self, sha256):
        return b"".join(self.blobs.open(sha256))

    def used(self, owner="worker"):
        return self.store.read(lambda tx: file_rows.usage_of(tx, owner))

    def on_disk(self):
        return sorted(path.name for path in (self.folder / "blobs").rglob("*") if path.is_file())

    def referred(self):
        return self.store.read(lambda tx: sorted(tx.execute(select(references.c.owner)).scalars()))


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def make(store, tmp_path, clock):
    return lambda **settings: Shelf(store, tmp_path, clock, **settings)


@pytest.fixture
def shelf(make):
    return make()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


# --- in


def test_bytes_come_back_as_they_were_sent(shelf) -> None:
    stored = shelf.put("7_0_out.png", b"\x89PNG\r\n\x1a\nrest", said="7", content_type="image/x-odd")
    file = stored.file
    assert stored.is_new
    assert (file.size, file.sha256) == (12, sha256(b"\x89PNG\r\n\x1a\nrest"))
    assert (file.prediction_id, file.index, file.filename) == ("7", 0, "out.png")
    assert (file.content_type, file.sniffed) == ("image/x-odd", "image/png")
    assert shelf.read(file.sha256) == b"\x89PNG\r\n\x1a\nrest"
    assert shelf.files.open_key(file.key) == file
    assert shelf.files.url_of(file) == f"{HOST}/pc/client-api/files/{file.key}"
    assert shelf.referred() == [file.key]


def test_nobody_can_guess_a_key_and_it_keeps_the_extension(shelf) -> None:
    keys = {shelf.put("out.PNG", bytes([number])).file.key for number in range(3)}
    assert len(keys) == 3
    assert {(len(key), key[32:]) for key in keys} == {(36, ".png")}
    assert len(shelf.put("<&>.%2e").file.key) == 32


def test_an_empty_file_is_a_file(shelf) -> None:
    file = shelf.files.receive(shelf.files.named("worker", "empty", None, None), []).file
    assert (file.size, file.content_type) == (0, "application/octet-stream")
    assert shelf.read(file.sha256) == b""


@pytest.mark.parametrize("odd", ["text/html\r\nX: y", "no type", "a/b" + "c" * 300, "", "text/ü"])
def test_a_content_type_that_can_stand_in_no_header_is_found_anew(shelf, odd) -> None:
    assert shelf.put("page.html", b"<html>", content_type=odd).file.content_type == "text/html"


def test_the_same_sent_again_is_the_same_file(shelf) -> None:
    first, again = shelf.put("7_0_a.png", said="7"), shelf.put("7_0_a.png", said="7")
    assert (first.is_new, again.is_new) == (True, False)
    assert first.file == again.file
    assert shelf.used() == 5
    assert shelf.referred() == [first.file.key]


@pytest.mark.parametrize(
    "other",
    [
        {"content": b"other"},
        {"name": "7_1_a.png"},
        {"name": "7_0_b.png"},
        {"name": "7_k_a.png"},
        {"said": "8", "name": "8_0_a.png"},
        {"owner": "other"},
    ],
)
def test_anything_else_is_another_file(shelf, other) -> None:
    first = shelf.put("7_0_a.png", said="7")
    second = shelf.put(**{"name": "7_0_a.png", "said": "7", **other})
    assert second.is_new
    assert second.file.key != first.file.key


def test_sent_twice_at_once_it_is_one_file(shelf) -> None:
    shelf.predict()
    found, start = [], threading.Barrier(4)

    def send():
        start.wait()
        found.append(shelf.put("7_0_a.png", said="7"))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({stored.file.key for stored in found}) == 1
    assert sum(stored.is_new for stored in found) == 1


def test_a_known_prediction_is_found_by_the_name_alone(shelf) -> None:
    made = shelf.predict("a_b")
    file = shelf.put("a_b_3_out.png").file
    assert (file.prediction, file.prediction_id, file.index, file.filename) == (made.number, "a_b", 3, "out.png")
    assert (shelf.again(made).files, shelf.again(made).files_bytes) == (1, 5)


def test_predictions_of_another_owner_are_not_known(shelf) -> None:
    made = shelf.predict("7", runner_owner="somebody")
    by_name, by_header = shelf.put("7_0_out.png").file, shelf.put("7_0_out.png", said="7").file
    assert (by_name.prediction_id, by_name.filename) == (None, "7_0_out.png")
    assert (by_header.prediction_id, by_header.prediction) == ("7", None)
    assert shelf.again(made).files == 0


def test_files_may_come_before_anything_is_known_of_their_prediction(shelf) -> None:
    file = shelf.put("7_0_out.png", said="7").file
    other = shelf.put("7_0_out.png", said="7", owner="other").file
    made = shelf.predict()
    shelf.store.write(lambda tx: shelf.files.link(tx, made))
    assert (shelf.again(made).files, shelf.again(made).files_bytes) == (1, 5)
    found = shelf.store.read(lambda tx: shelf.files.of_prediction(tx, made))
    assert [one.key for one in found] == [file.key]
    assert shelf.files.open_key(other.key).prediction is None


def test_a_file_without_a_word_belongs_to_whose_output_names_it(shelf) -> None:
    made, next_one = shelf.predict("7"), shelf.predict("8")
    file = shelf.put("image.png").file
    shelf.store.write(lambda tx: shelf.files.claim(tx, made, [file]))
    shelf.store.write(lambda tx: shelf.files.claim(tx, next_one, [file]))
    assert shelf.files.open_key(file.key).prediction == made.number
    assert [shelf.again(one).files for one in (made, next_one)] == [1, 0]


def test_nobody_claims_a_file_of_somebody_else(shelf) -> None:
    made, file = shelf.predict(), shelf.put("image.png", owner="other").file
    shelf.store.write(lambda tx: shelf.files.claim(tx, made, [file]))
    assert shelf.files.open_key(file.key).prediction is None


# --- refused


def test_a_sender_that_breaks_off_leaves_nothing(shelf) -> None:
    def broken():
        yield b"some"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        shelf.files.receive(shelf.files.named("worker", "x", None, None), broken())
    assert (shelf.on_disk(), shelf.referred(), shelf.used()) == ([], [], 0)


def test_too_large_is_refused_by_length_and_by_count(make) -> None:
    shelf = make(upload_max_bytes=10)
    new = shelf.files.named("worker", "x", None, None)
    with pytest.raises(FileTooLarge, match="larger than 10 bytes"):
        shelf.files.check(new, 11)
    with pytest.raises(FileTooLarge, match="larger than 10 bytes"):
        shelf.files.receive(new, [bytes(6), bytes(5)])
    assert shelf.on_disk() == []
    assert shelf.files.receive(new, [bytes(10)]).is_new


def test_files_of_a_prediction_have_a_common_limit(make) -> None:
    shelf = make(upload_per_prediction_bytes=10)
    made = shelf.predict()
    shelf.put("7_0_a", bytes(6), said="7")
    for refused in (lambda: shelf.put("7_1_a", bytes(5), said="7"), lambda: check(shelf, 5)):
        with pytest.raises(UploadQuotaExceeded) as error:
            refused()
        assert error.value.data == {"used": 6, "limit": 10}
    assert (shelf.again(made).files, shelf.again(made).files_bytes, shelf.used()) == (1, 6, 6)
    assert len(shelf.on_disk()) == 1
    assert shelf.put("7_0_a", bytes(6), said="7").file.size == 6  # again: it takes no room


def check(shelf, length, said="7"):
    shelf.files.check(shelf.files.named("worker", "x", said, None), length)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_prediction_has_so_many_files(make, is_known) -> None:
    shelf = make(upload_per_prediction_files=2)
    if is_known:
        shelf.predict()
    for index in range(2):
        shelf.put(f"7_{index}_a", said="7")
    with pytest.raises(UploadQuotaExceeded) as error:
        shelf.put("7_2_a", said="7")
    assert error.value.data == {"used": 2, "limit": 2}
    shelf.put("8_0_a", said="8")


def test_files_of_a_key_have_a_common_limit(make) -> None:
    shelf = make(upload_per_owner_bytes=10)
    first = shelf.put("a", bytes(6)).file
    with pytest.raises(UploadQuotaExceeded):
        shelf.put("b", bytes(5))
    with pytest.raises(UploadQuotaExceeded):
        check(shelf, 5, None)
    shelf.put("b", bytes(5), owner="other")
    shelf.clock.advance(shelf.settings.file_ttl_s)
    shelf.files.expire()
    assert shelf.put("b", bytes(10)).is_new
    with pytest.raises(FileExpired):
        shelf.files.open_key(first.key)


def test_the_disk_keeps_its_floor(make, monkeypatch) -> None:
    shelf = make(upload_disk_floor_bytes=60)
    free = SimpleNamespace(f_bavail=100, f_frsize=1)
    monkeypatch.setattr("grid_node.runners.incoming.os.statvfs", lambda _folder: free)
    check(shelf, 40)
    with pytest.raises(StorageFull):
        check(shelf, 41)
    monkeypatch.setattr("grid_node.runners.incoming.LOOK_EVERY", 10)
    pieces = [bytes(6), bytes(6)]

    def filling():
        for piece in pieces:
            yield piece
            free.f_bavail -= 50

    with pytest.raises(StorageFull, match="Storage is full"):
        shelf.files.receive(shelf.files.named("worker", "x", None, None), filling())
    with pytest.raises(StorageFull):
        shelf.put("y")
    assert shelf.on_disk() == []


def test_an_ended_prediction_takes_files_for_a_while(shelf) -> None:
    made = shelf.predict()
    shelf.end(made)
    shelf.clock.advance(900)
    assert shelf.put("7_0_a", said="7").is_new
    shelf.clock.advance(1)
    with pytest.raises(PredictionClosed):
        check(shelf, None)
    with pytest.raises(PredictionClosed):
        shelf.put("7_1_a", b"other", said="7")
    with pytest.raises(PredictionClosed):
        shelf.put("7_0_a", said="7")
    assert len(shelf.on_disk()) == 1


# --- out


def test_only_addresses_of_this_node_are_known(shelf) -> None:
    file = shelf.put("7_5_out.png", said="7").file
    url = shelf.files.url_of(file)
    strange = [
        url.replace(HOST, "https://else.example"),
        url + "x" * 20,
        url + "?q",
        f"{HOST}/pc/client-api/files/{'a' * 32}",
        "",
        "x" * 10_000,
    ]
    found = shelf.store.read(lambda tx: shelf.files.known(tx, [*strange, url]))
    assert found == {url: file}
    assert (found[url].index, found[url].owner) == (5, "worker")


@pytest.mark.parametrize("key", ["", "x", "../" * 20, "a" * 32, "A" * 32, "a" * 32 + ".\n", "a" * 100_000])
def test_a_key_that_was_never_made_is_not_found(shelf, key) -> None:
    with pytest.raises(FileNotFound):
        shelf.files.open_key(key)


def test_an_expired_file_says_so_and_its_bytes_are_gone(shelf) -> None:
    file = shelf.put("x").file
    shelf.clock.advance(shelf.settings.file_ttl_s - 1)
    assert shelf.files.expire() == 0
    assert shelf.files.open_key(file.key)
    shelf.clock.advance(1)
    with pytest.raises(FileExpired):
        shelf.files.open_key(file.key)
    assert shelf.files.expire() == 1
    assert shelf.files.expire() == 0
    assert (shelf.on_disk(), shelf.referred(), shelf.used()) == ([], [], 0)
    with pytest.raises(FileExpired):
        shelf.files.open_key(file.key)
    shelf.clock.advance(TOLD + 1)
    shelf.files.expire()
    with pytest.raises(FileNotFound):
        shelf.files.open_key(file.key)


def test_bytes_stay_while_another_file_has_them(shelf) -> None:
    shelf.put("x")
    shelf.clock.advance(10)
    file = shelf.put("y").file
    shelf.clock.advance(shelf.settings.file_ttl_s - 10)
    assert shelf.files.expire() == 1
    assert shelf.read(file.sha256) == b"bytes"
    assert shelf.used() == 5


def test_sent_again_a_file_lives_anew(shelf) -> None:
    shelf.put("x")
    shelf.clock.advance(100)
    shelf.put("x")
    shelf.clock.advance(shelf.settings.file_ttl_s - 1)
    assert shelf.files.expire() == 0


# --- data: URLs


def data_url(content, content_type="image/png"):
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


def test_a_file_inside_a_message_gets_an_address_once(shelf) -> None:
    made = shelf.predict()
    url = shelf.files.keep_data("worker", data_url(b"bytes"), made)
    assert shelf.files.keep_data("worker", data_url(b"bytes"), made) == url
    file = shelf.store.read(lambda tx: shelf.files.known(tx, [url]))[url]
    assert (file.kind, file.prediction, file.content_type, file.filename) == (
        "data",
        made.number,
        "image/png",
        "data.png",
    )
    assert url.endswith(".png")
    assert shelf.read(file.sha256) == b"bytes"
    assert shelf.again(made).files == 1


def test_a_file_inside_an_ended_predictions_report_is_kept(shelf) -> None:
    made = shelf.predict()
    shelf.end(made)
    shelf.clock.advance(901)
    assert shelf.files.keep_data("worker", data_url(b"bytes"), made).startswith(HOST)


def test_inputs_of_two_predictions_are_two_files(shelf) -> None:
    urls = {shelf.files.keep_data("client", data_url(b"bytes"), None) for _ in range(2)}
    assert len(urls) == 2


@pytest.mark.parametrize("url", ["https://x/y.png", "data:image/png;base64,a", "data:"])
def test_what_holds_no_file_is_an_error_of_value(shelf, url) -> None:
    with pytest.raises(ValueError):
        shelf.files.keep_data("worker", url, None)
    assert shelf.on_disk() == []


# --- of clients


def test_a_client_sees_and_removes_his_own(shelf) -> None:
    file = shelf.input("in.png", b"content", purpose="test")
    assert shelf.files.view(file) == {
        "id": file.key,
        "name": "in.png",
        "content_type": "image/png",
        "size": 7,
        "etag": sha256(b"content"),
        "checksums": {"sha256": sha256(b"content")},
        "metadata": {"purpose": "test"},
        "created_at": "2027-01-15T08:00:00.000Z",
        "expires_at": "2027-01-16T08:00:00.000Z",
        "urls": {"get": f"{HOST}/pc/client-api/files/{file.key}"},
    }
    assert shelf.files.input_file("client", file.key) == file
    shelf.files.delete_input("client", file.key)
    for gone in (shelf.files.input_file, shelf.files.delete_input):
        with pytest.raises(FileNotFound):
            gone("client", file.key)
    assert (shelf.on_disk(), shelf.referred(), shelf.used("client")) == ([], [], 0)


def test_files_of_others_and_of_workers_are_not_found(shelf) -> None:
    theirs, output = shelf.input(owner="other"), shelf.put("out.png", owner="client").file
    for file in (theirs, output):
        for look in (shelf.files.input_file, shelf.files.delete_input):
            with pytest.raises(FileNotFound):
                look("client", file.key)
    assert shelf.files.input_page("client", None).files == []
    assert shelf.files.open_key(theirs.key)


def test_each_upload_of_a_client_is_a_file_of_its_own(shelf) -> None:
    first, second = shelf.input(), shelf.input()
    shelf.files.delete_input("client", first.key)
    assert shelf.files.input_file("client", second.key)
    assert shelf.read(second.sha256) == b"bytes"


def test_pages_go_on_where_the_last_one_ended(shelf, monkeypatch) -> None:
    monkeypatch.setattr("grid_node.runners.files.PAGE", 2)
    made = []
    for number in range(5):
        made.append(shelf.input(f"{number}").key)
        shelf.clock.advance(number % 2)  # some at the same moment
    seen, cursor = [], None
    while True:
        page = shelf.files.input_page("client", cursor)
        seen.append([file.key for file in page.files])
        cursor = page.next
        if cursor is None:
            break
    assert [len(keys) for keys in seen] == [2, 2, 1]
    assert sorted(key for keys in seen for key in keys) == sorted(made)
    assert seen[0][0] == made[4]
    with pytest.raises(BadCursor):
        shelf.files.input_page("client", "nonsense")


# --- a prediction's data go


def test_a_forgotten_prediction_takes_its_files_along(shelf) -> None:
    data = shelf.files.keep_data("client", data_url(b"input"), None)
    stray, theirs = shelf.put("image.png", b"stray").file, shelf.put("image.png", b"theirs", owner="other").file
    mine = shelf.input("mine.png", b"mine")
    urls = [shelf.files.url_of(file) for file in (stray, theirs)]
    given = {"image": data, "mask": shelf.files.url_of(mine)}
    made, other = shelf.predict("7", input=given, output={"a": urls}), shelf.predict("8")
    sent = shelf.put("7_0_out.png", b"sent", said="7").file
    kept = shelf.put("8_0_out.png", b"kept", said="8").file
    shelf.store.write(lambda tx: shelf.files.forget_prediction(tx, made))
    for key in (stray.key, sent.key, data.rpartition("/")[2]):
        with pytest.raises(FileNotFound):
            shelf.files.open_key(key)
    for file in (theirs, mine, kept):
        assert shelf.files.open_key(file.key)
    shelf.files.expire()
    assert shelf.on_disk() == sorted(file.sha256 for file in (theirs, mine, kept))
    assert shelf.used() == len(b"kept")
    assert shelf.again(other).files == 1


def test_a_prediction_whose_data_are_gone_takes_no_files(shelf) -> None:
    shelf.predict(data_removed=True, state="succeeded", finished_at=shelf.clock.now())
    with pytest.raises(PredictionClosed):
        shelf.put("7_0_out.png", said="7")


def test_a_rolled_back_removal_removes_nothing(shelf) -> None:
    made, file = shelf.predict(), shelf.put("7_0_out.png", said="7").file

    def unit(tx):
        shelf.files.forget_prediction(tx, made)
        raise NotFound

    with pytest.raises(NotFound):
        shelf.store.write(unit)
    shelf.files.expire()
    assert shelf.read(shelf.files.open_key(file.key).sha256) == b"bytes"
