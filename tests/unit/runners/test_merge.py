"""Reports change a prediction in one direction only, whatever the order in which they arrive."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.clock import rfc3339
from grid_node.runners.merge import LOGS_KEPT, MEMBERS_MAX, NO_UPLOADS, Uploads, kept_tail, merge
from grid_node.runners.prediction import ENDED, ORDER
from tests.unit.runners.reports import COMPLETED, NOW, STARTED, OurFile, external, prediction, report

STATES = ["starting", "processing", "succeeded", "failed", "canceled"]
SHOWN = (
    "output",
    "logs",
    "logs_length",
    "metrics",
    "extra",
    "times",
    "state",
    "error",
    "warnings",
    "seen_items",
    "input",
)


def files_of(*indexes: int | None) -> dict:
    return {f"http://node/files/{position}": OurFile(index) for position, index in enumerate(indexes)}


def merged(before, *reports, uploads=NO_UPLOADS):
    for one in reports:
        before = merge(before, one, NOW, uploads)
    return before


@st.composite
def runs(draw):
    """The hooks of one run in the order of their making, and the files that it uploaded."""
    count = draw(st.integers(1, 8))
    items = [f"http://node/files/{index}" for index in range(count)]
    known = {item: OurFile(index) for index, item in enumerate(items)} if draw(st.booleans()) else {}
    arrived = draw(st.permutations(items))
    python = {"created_at": STARTED, "started_at": STARTED, "input": {"a": 1}} if draw(st.booleans()) else {}
    hooks = [{"status": draw(st.sampled_from(["starting", "processing"])), "output": None, "logs": ""} | python]
    logs = ""
    for made in range(1, count + 1):
        logs += draw(st.sampled_from(["", "step\n", "\U0001f40c 10%\r"]))
        hooks.append({"status": "processing", "output": arrived[:made], "logs": logs} | python)
    last = {"status": draw(st.sampled_from(STATES[2:])), "output": arrived, "logs": logs + "end", "kept": "too"}
    last |= {"metrics": {"predict_time": 7.5}} | (python and {**python, "completed_at": COMPLETED})
    return [report(**hook) for hook in [*hooks, last]], Uploads(known)


@given(runs(), st.data(), st.booleans())
def test_any_order_and_any_repeats_give_the_same_prediction(run, data, from_outside) -> None:
    hooks, uploads = run
    first = external() if from_outside else prediction(state="queued")
    told = merged(first, *hooks, uploads=uploads)
    repeated = hooks + data.draw(st.lists(st.sampled_from(hooks), max_size=6))
    shuffled = data.draw(st.permutations(repeated))
    now = first
    for hook in shuffled:
        after = merge(now, hook, NOW, uploads)
        assert ORDER[after.state] >= ORDER[now.state]
        assert len(after.output or []) >= len(now.output or [])
        assert after.logs_length >= now.logs_length
        now = after
    assert {name: getattr(now, name) for name in SHOWN} == {name: getattr(told, name) for name in SHOWN}
    assert told.output == (sorted(told.output) if uploads.known else hooks[-1].output)


@pytest.mark.parametrize("late", STATES)
@pytest.mark.parametrize("end", sorted(ENDED))
def test_after_the_end_nothing_changes(end: str, late: str) -> None:
    ended = merged(prediction(), report(status=end, output=["a"], logs="x", error="no"))
    assert merged(ended, report(status=late, output=["a", "b"], logs="longer", metrics={"a": 1})) is ended


def test_a_state_that_is_not_known_leaves_the_state_and_merges_the_rest() -> None:
    after = merged(prediction(), report(status="aborted", logs="so far"))
    assert (after.state, after.logs) == ("starting", "so far")


def test_files_stand_in_the_order_of_their_indexes() -> None:
    known = files_of(2, 10, 1)
    after = merged(prediction(), report(status="processing", output=list(known)), uploads=Uploads(known))
    assert [known[item].index for item in after.output] == [1, 2, 10]


@pytest.mark.parametrize("odd", [files_of(2, None, 1), {**files_of(2), "http://node/files/9": OurFile(0)}])
def test_without_an_index_for_each_the_worker_s_order_stays(odd: dict) -> None:
    items = ["http://node/files/0", "http://node/files/1", "http://node/files/2"]
    after = merged(prediction(), report(status="processing", output=items), uploads=Uploads(odd))
    assert after.output == items


@pytest.mark.parametrize(
    ("indexes", "told"),
    [((0, None), True), ((None, None), True), ((None, None, 2), True), ((0, 1), False), ((None,), False), ((), False)],
)
def test_files_whose_order_nobody_knows_are_told_at_the_end(indexes: tuple, told: bool) -> None:
    known = files_of(*indexes)
    running = merged(prediction(), report(status="processing", output=list(known)), uploads=Uploads(known))
    assert running.warnings == []
    ended = merged(running, report(status="succeeded", output=list(known)), uploads=Uploads(known))
    assert ("output_unordered" in ended.warnings) is told


def test_texts_and_a_single_file_have_no_order_to_lose() -> None:
    known = files_of(None)
    for output in (["a", "b", *known], "http://node/files/0", {"a": "http://node/files/0"}):
        ended = merged(prediction(), report(status="succeeded", output=output), uploads=Uploads(known))
        assert "output_unordered" not in ended.warnings


@pytest.mark.parametrize("last", [["a"], []])
@pytest.mark.parametrize("end", sorted(ENDED))
def test_an_end_with_fewer_items_keeps_the_longer_list_and_says_so(last: list, end: str) -> None:
    after = merged(prediction(), report(status="processing", output=["a", "b"]), report(status=end, output=last))
    assert after.output == ["a", "b"]
    assert after.warnings == ["output_missing"]


def test_a_shorter_list_that_comes_late_does_not_hide_that_the_end_has_fewer_items() -> None:
    hooks = [report(output=["a", "b"]), report(output=["a"]), report(status="succeeded", output=["a"])]
    assert merged(prediction(), *hooks).warnings == ["output_missing"]


@pytest.mark.parametrize(("end", "warnings"), [("succeeded", ["output_missing"]), ("failed", []), ("canceled", [])])
def test_an_end_that_says_nothing_of_the_output_keeps_it(end: str, warnings: list) -> None:
    after = merged(prediction(), report(status="processing", output=["a", "b"]), report(status=end, output=None))
    assert (after.output, after.warnings) == (["a", "b"], warnings)


@pytest.mark.parametrize("output", [[], None, ["http://node/files/0"]])
def test_a_file_that_came_and_is_not_in_the_output_is_missed(output: list | None) -> None:
    uploads = Uploads(files_of(0), frozenset({0, 1}))
    assert merged(prediction(), report(status="succeeded", output=output), uploads=uploads).warnings == [
        "output_missing"
    ]


def test_files_that_are_all_shown_are_not_missed() -> None:
    uploads = Uploads(files_of(0, 1), frozenset({0, 1}), promised=True)
    after = merged(prediction(), report(status="succeeded", output=list(uploads.known)), uploads=uploads)
    assert after.warnings == []


@pytest.mark.parametrize(
    ("status", "output", "missed"),
    [("succeeded", [], True), ("succeeded", None, True), ("failed", [], False), ("succeeded", "a text", False)],
)
def test_success_without_the_files_that_the_signature_promises_is_told(status: str, output, missed: bool) -> None:
    after = merged(prediction(), report(status=status, output=output), uploads=Uploads(promised=True))
    assert ("output_missing" in after.warnings) is missed


def test_an_address_that_is_not_ours_stays_and_is_told_once() -> None:
    ours = files_of(0)
    first = merged(prediction(), report(status="processing", output=list(ours)), uploads=Uploads(ours))
    assert first.warnings == []
    foreign = [*ours, "https://elsewhere/a.png"]
    second = merged(first, report(output=foreign), report(output=[*foreign, "ftp://x/y"]), uploads=Uploads(ours))
    assert second.output == [*foreign, "ftp://x/y"]
    assert second.warnings == ["external_output"]


def test_a_foreign_address_deep_in_an_output_is_told_and_plain_words_are_not() -> None:
    assert merged(prediction(), report(output={"a": [{"b": "http://x/"}]})).warnings == ["external_output"]
    assert merged(prediction(), report(output=["see https://x/ there", "a:b"])).warnings == []


def test_another_output_is_the_last_that_is_not_null() -> None:
    after = merged(prediction(), report(output="a"), report(output={"b": 1}), report(output=None))
    assert after.output == {"b": 1}


@pytest.mark.parametrize("flip", [False, True])
def test_two_lists_of_one_length_give_the_same_in_both_orders_and_the_last_word_counts(flip: bool) -> None:
    one, other = report(output=["a"]), report(output=["b"])
    after = merged(prediction(), *((other, one) if flip else (one, other)))
    assert after.output == ["b"]
    assert merged(after, report(status="succeeded", output=["a"])).output == ["a"]


def test_the_longest_log_counts() -> None:
    after = merged(prediction(), report(logs="one\ntwo\n"), report(logs="one\n"), report(logs=None))
    assert (after.logs, after.logs_length) == ("one\ntwo\n", 8)


def test_a_log_keeps_its_last_mebibyte_and_its_whole_length() -> None:
    after = merged(prediction(), report(logs="x" * 10 + "y" * LOGS_KEPT))
    assert (after.logs, after.logs_length) == ("y" * LOGS_KEPT, LOGS_KEPT + 10)
    grown = merged(after, report(logs="x" * 10 + "y" * LOGS_KEPT + "z"))
    assert grown.logs == "y" * (LOGS_KEPT - 1) + "z"


@given(st.text(max_size=40), st.integers(1, 60))
def test_what_is_kept_of_a_text_is_its_end_and_fits(text: str, kept: int) -> None:
    tail = kept_tail(text, kept)
    assert text.endswith(tail)
    assert len(tail.encode()) <= kept
    assert len(tail.encode()) > min(kept, len(text.encode())) - 4


def test_the_input_of_our_own_predictions_stays_and_that_of_others_is_taken_once() -> None:
    said = report(input={"seed": 7})
    assert merged(prediction(), said).input == {"prompt": "a cat"}
    assert merged(prediction(input={}), said).input == {}
    assert merged(external(), report(), said, report(input={"seed": 8})).input == {"seed": 7}


def test_the_first_time_of_each_kind_stays() -> None:
    after = merged(
        external(),
        report(status="processing", created_at="2024-12-06T00:20:04.185000+00:00", started_at=STARTED),
        report(status="succeeded", created_at=COMPLETED, started_at=COMPLETED, completed_at=COMPLETED),
    )
    assert after.times == {
        "created_at": "2024-12-06T00:20:04.185000+00:00",
        "started_at": STARTED,
        "completed_at": COMPLETED,
        "source": "worker",
    }


def test_times_that_a_worker_does_not_say_are_those_of_the_receipt() -> None:
    now = prediction()
    for status in ("starting", "processing", "succeeded"):
        now = merge(now, report(status=status), NOW + ORDER[status])
    assert now.times == {"started_at": rfc3339(NOW + 3), "completed_at": rfc3339(NOW + 4), "source": "node"}


def test_our_own_prediction_was_made_when_we_made_it() -> None:
    assert "created_at" not in merged(prediction(), report(created_at=STARTED)).times


@pytest.mark.parametrize("state", ["failed", "canceled"])
def test_the_reason_of_an_end_is_kept(state: str) -> None:
    assert merged(prediction(), report(status=state, error="boom")).error == "boom"
    assert merged(prediction(), report(status="succeeded", error="boom")).error is None
    assert merged(prediction(), report(status="processing", error="boom")).error is None


def test_metrics_and_unknown_members_add_up() -> None:
    after = merged(prediction(), report(metrics={"a": 1}, x=[1], version="v"), report(metrics={"b": 2}, y=None))
    assert after.metrics == {"a": 1, "b": 2}
    assert after.extra == {"x": [1], "version": "v", "y": None}


def test_members_that_no_row_can_hold_are_left_out_and_told_once() -> None:
    full = merged(prediction(), report(x="x" * (MEMBERS_MAX - 100)))
    assert full.warnings == []
    after = merged(full, report(y="y" * 200), report(z="z" * 200), report(metrics={"m": "m" * MEMBERS_MAX}))
    assert after.extra == full.extra
    assert after.metrics == {}
    assert after.warnings == ["extra_dropped", "metrics_dropped"]


def test_a_report_before_the_worker_s_answer_moves_a_waiting_prediction_on() -> None:
    for state in ("queued", "dispatching"):
        assert merged(prediction(state=state), report(status="processing")).state == "processing"
    assert merged(prediction(state="processing"), report(status="starting")).state == "processing"


def test_a_report_that_repeats_everything_changes_nothing() -> None:
    hook = report(status="processing", output=["a"], logs="x", metrics={"a": 1}, extra_one=1, started_at=STARTED)
    after = merged(prediction(), hook)
    assert merged(after, hook) == after
    assert replace(after, state="starting") != after
