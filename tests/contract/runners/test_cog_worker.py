"""Models as workers of generation: a task becomes one prediction, its stored file the result; on every store."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from grid_node.adapters.cog_leases import all_marks
from grid_node.adapters.cog_worker import CogWorkers
from grid_node.adapters.generation import ResultSignatures, WorkerRegistry
from grid_node.blobs.factory import make_blobs
from grid_node.blobs.holds import Holds
from grid_node.database import Store
from grid_node.generation.leases import Kind
from grid_node.generation.tables import Copy
from grid_node.generation.tasks import NewTask
from grid_node.generation.work import Work
from grid_node.jobs.scoring import JobRunner, ScoringJobs
from grid_node.runners.files import NewFile, RunnerFiles
from grid_node.runners.models import models
from grid_node.runners.ports import Runner
from grid_node.runners.prediction import Prediction, by_number, predictions
from grid_node.scoring.kinds import KINDS
from grid_node.scoring.settings import ScoringSettings
from tests.booth import ANNA, BERT, Booth
from tests.grids import KEY, Grid
from tests.stores import call, postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]

copies: Any = Copy.__table__
GENERATION = {"prompt_input": "prompt", "inputs": {"steps": 20}, "output_index": 0}
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
LARGE = "data:image/png;base64," + "A" * 70_000


class Yard:
    """A process of a node with models that do tasks. `runners` says which workers it reaches, by model."""

    def __init__(self, store: Store, folder: Path, beside: "Yard | None" = None, **settings: Any) -> None:
        self.grid = Grid(store, clock=beside.grid.clock if beside else None, **settings)
        for name in ("cog", "text_to_3d"):
            self.grid.kinds[name] = Kind(name, KINDS[name].formats, KINDS[name].max_bytes)
        self.clock = self.grid.clock
        self.booth = Booth(store, self.clock)
        self.store = store
        self.runners_of: dict[str, list[Runner]] = {}
        blobs = make_blobs(str(folder / "blobs"), folder / "cache", call)
        holds = Holds(store, blobs, self.clock)
        self.blobs = blobs
        self.files = RunnerFiles(store, self.clock, self.booth.settings, blobs, holds, folder)
        self.work = Work(
            store, self.clock, self.grid.settings, self.grid.streams, self.grid.leases, self.grid.dispatcher, blobs,
            None, WorkerRegistry(None), ResultSignatures("5Node"), self.grid.kinds,
        )  # fmt: skip
        self.cogs = CogWorkers(
            store, self.clock, self.grid.settings, self.booth.changes, self, self.files, self.booth.predictions,
            holds, self.work, self.grid.dispatcher, self.grid.kinds,
        )  # fmt: skip
        jobs = ScoringJobs(store, self.clock, self.grid.settings, self.grid.verdicts)
        scorer = KINDS["cog"].load(ScoringSettings())
        self.job_process = JobRunner(jobs, blobs, lambda _kind: scorer, b"secret", "p1", lambda _s: None, 0.6)
        self.submitted: list[str] = []
        self.grid.leases.enqueue = self.submitted.append

    def runners(self, model: str) -> list[Runner]:
        return self.runners_of.get(model, [])

    def model(self, name: str = "paint", *statuses: str, generation: Any = None, **fields: Any) -> str:
        """A registered model that does tasks; with a worker for each status, READY if none is named."""
        text = json.dumps(generation or GENERATION)
        id, _ = self.booth.model(ANNA, name, generation=text, **fields)
        self.runners_of[id] = [Runner(f"r{index}", status) for index, status in enumerate(statuses or ("READY",))]
        return id

    def ask(self, prompt: str = "a red chair", **fields: Any) -> str:
        return self.grid.ask(prompt, **{"kind": "cog", "copies": 1, **fields})

    def turn(self, times: int = 2) -> None:
        """What happens within a second or two: models ask, tasks are handed out, leases are tended."""
        for _ in range(times):
            self.cogs.tick()
            self.grid.dispatcher.round()
        self.cogs.tick()

    def predictions(self) -> list[Prediction]:
        rows = self.store.read(lambda tx: tx.execute(predictions.select().order_by(predictions.c.number)).all())
        return [self.prediction(row.number) for row in rows]

    def prediction(self, number: int) -> Prediction:
        found = self.store.read(lambda tx: by_number(tx, number))
        assert found is not None
        return found

    def only(self) -> Prediction:
        (prediction,) = self.predictions()
        return prediction

    def uploaded(self, content: bytes = PICTURE, owner: str = ANNA.owner, name: str = "out.png") -> str:
        new = NewFile(owner=owner, kind="output", filename=name, content_type="image/png")
        return self.files.url_of(self.files.receive(new, [content]).file)

    def succeed(self, prediction: Prediction, output: Any) -> None:
        self.booth.report(prediction, state="processing")
        self.booth.report(prediction, state="succeeded", output=output)

    def judge(self) -> None:
        while self.submitted:
            self.job_process.run(self.submitted.pop(0), 120.0)

    def stored(self, task: str) -> bytes:
        file = self.grid.tasks.result_file(KEY, task, "best")
        return b"".join(self.blobs.open(file.sha256))

    def handed_in(self, task: str) -> list[Any]:
        """Format, state and sha256 of the task's copies."""
        wanted = select(copies.c.format, copies.c.state, copies.c.sha256).where(copies.c.task_id == task)
        return [tuple(row) for row in self.store.read(lambda tx: tx.execute(wanted).all())]

    def changed(self, model: str, generation: Any) -> None:
        """As its owner changes it."""
        values = {"generation": json.dumps(generation), "revision": models.c.revision + 1}
        self.store.write(lambda tx: tx.execute(update(models).where(models.c.id == model).values(values)))

    def available(self, kind: str) -> int:
        """Workers that a new task of this kind is told of."""
        new = NewTask(prompt="a chair", kind=kind, send_first_results=False, copies=1, deadline_s=600.0)
        return int(self.grid.tasks.submit(KEY, new).task["workers_available"])

    def marks(self) -> int:
        return len(self.store.read(all_marks))


@pytest.fixture
def yard(store: Store, tmp_path: Path) -> Yard:
    return Yard(store, tmp_path)


@pytest.fixture
def make_yard(store: Store, tmp_path: Path) -> Any:
    return lambda **options: Yard(store, tmp_path, **options)


# --- a task ---------------------------------------------------------------------------------------------------------


def test_a_task_becomes_one_prediction_of_the_models_owner(yard: Yard) -> None:
    model = yard.model()
    yard.ask("a red chair", deadline_s=300.0)
    yard.turn(4)
    made = yard.only()
    assert made.input == {"prompt": "a red chair", "steps": 20}
    assert (made.state, made.source, made.model_id, made.model) == ("queued", "node", model, "anna/paint")
    assert (made.owner, made.runner_owner) == (ANNA.owner, ANNA.owner)
    assert made.deadline == made.created_at + 300.0
    assert made.version == yard.booth.row_of_model(model).version
    assert yard.booth.row_of_model(model).run_count == 1
    assert yard.booth.queued == 1


def test_the_result_has_the_bytes_of_the_file_that_was_uploaded(yard: Yard) -> None:
    yard.model()
    task = yard.ask()
    yard.turn()
    yard.succeed(yard.only(), [yard.uploaded()])
    yard.turn()
    yard.judge()
    ended = yard.grid.task(task)
    assert ended["status"] == "best_results"
    assert (ended["results"][0]["sha256"], ended["results"][0]["format"]) == (
        hashlib.sha256(PICTURE).hexdigest(),
        "file",
    )
    assert yard.stored(task) == PICTURE
    assert (yard.marks(), len(yard.predictions())) == (0, 1)


def test_the_output_that_is_wanted_is_taken(yard: Yard) -> None:
    yard.model(generation={**GENERATION, "output_index": 1})
    task = yard.ask()
    yard.turn()
    yard.succeed(yard.only(), [yard.uploaded(b"first"), yard.uploaded(b"second")])
    yard.turn()
    yard.judge()
    assert yard.stored(task) == b"second"


def test_a_file_alone_and_a_file_in_a_dict_are_outputs_too(yard: Yard) -> None:
    yard.model()
    for content, shape in ((b"alone", lambda url: url), (b"named", lambda url: {"image": url})):
        task = yard.ask()
        yard.turn()
        yard.succeed(yard.predictions()[-1], shape(yard.uploaded(content)))
        yard.turn()
        yard.judge()
        assert yard.stored(task) == content


def test_several_models_make_copies_of_one_task(yard: Yard) -> None:
    first, second = yard.model("paint"), yard.model("draw")
    task = yard.ask(copies=2)
    yard.turn()
    assert {made.model_id for made in yard.predictions()} == {first, second}
    for made in yard.predictions():
        yard.succeed(made, [yard.uploaded(made.model.encode())])
    yard.turn()
    yard.judge()
    assert {one["hotkey"] for one in yard.grid.task(task)["results"]} == {first, second}


def test_long_data_in_the_fixed_inputs_goes_to_the_worker_as_a_file(yard: Yard) -> None:
    yard.model(generation={"prompt_input": "prompt", "inputs": {"image": LARGE}, "output_index": 0})
    yard.ask()
    yard.turn()
    assert yard.only().input["image"].startswith("http://grid.test/pc/client-api/files/")


# --- what models take -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["OFFLINE", "STARTING", "UNKNOWN", "SETUP_FAILED", "DEFUNCT"])
def test_without_a_worker_that_takes_predictions_no_task_is_taken(yard: Yard, status: str) -> None:
    yard.model("paint", status)
    task = yard.ask()
    yard.turn()
    assert (yard.predictions(), yard.grid.task(task)["status"]) == ([], "queued")


def test_a_model_without_generation_or_on_its_way_out_takes_no_task(yard: Yard) -> None:
    plain, _ = yard.booth.model(ANNA, "plain")
    yard.runners_of[plain] = [Runner("r0", "READY")]
    yard.model("leaving", state="deleting")
    yard.ask()
    yard.turn()
    assert (yard.predictions(), yard.grid.dispatcher.waiting) == ([], 0)


def test_a_model_has_as_many_tasks_as_it_has_workers(yard: Yard) -> None:
    yard.model("paint", "READY", "BUSY", "OFFLINE")
    for _ in range(4):
        yard.ask()
    yard.turn(6)
    assert len(yard.predictions()) == 2
    yard.succeed(yard.predictions()[0], [yard.uploaded()])
    yard.turn(4)
    assert len(yard.predictions()) == 3


def test_a_model_whose_workers_left_asks_for_nothing_any_more(yard: Yard) -> None:
    model = yard.model()
    yard.turn()
    assert yard.grid.dispatcher.waiting == 1
    yard.runners_of[model] = []
    yard.turn()
    assert yard.grid.dispatcher.waiting == 0
    yard.runners_of[model] = [Runner("r0", "READY")]
    yard.turn()
    yard.cogs.stop()
    assert yard.grid.dispatcher.waiting == 0


def test_a_model_that_waits_stays_present(yard: Yard) -> None:
    yard.model()
    for _ in range(20):
        yard.turn()
        yard.clock.advance(10)
    new = NewTask(prompt="a chair", kind="cog", send_first_results=False, copies=1, deadline_s=600.0)
    assert yard.grid.tasks.submit(KEY, new).task["workers_available"] == 1


def test_a_prompt_that_the_signature_does_not_take_goes_to_another_worker(yard: Yard) -> None:
    short = {"inputs": [{"name": "prompt", "type": "str", "validation": {"max_length": 3}}], "outputs": "Path"}
    plan = {"prompt_input": "prompt", "inputs": {}, "output_index": 0}
    yard.model("brief", generation=plan, signature=short)
    task = yard.ask("too long")
    yard.turn()
    assert (yard.predictions(), yard.grid.task(task)["status"]) == ([], "started")
    other = yard.model("paint")
    yard.turn()
    assert yard.only().model_id == other


# --- other kinds ----------------------------------------------------------------------------------------------------

SHAPES = {**GENERATION, "task_kind": "text_to_3d"}


@pytest.mark.parametrize(
    ("filename", "form"), [("chair.ply", "ply"), ("chair.SPZ", "spz"), ("a.b.ply", "ply")], ids=["ply", "spz", "dots"]
)
def test_a_model_does_tasks_of_the_kind_that_it_names_with_files_of_its_formats(
    yard: Yard, filename: str, form: str
) -> None:
    yard.model(generation=SHAPES)
    task = yard.ask(kind="text_to_3d")
    yard.turn()
    assert yard.only().input == {"prompt": "a red chair", "steps": 20}
    yard.succeed(yard.only(), [yard.uploaded(name=filename)])
    yard.turn()
    assert yard.handed_in(task) == [(form, "scoring", hashlib.sha256(PICTURE).hexdigest())]
    assert (len(yard.submitted), yard.marks()) == (1, 0)


def test_a_text_file_is_text(yard: Yard) -> None:
    yard.model(generation={**GENERATION, "task_kind": "slow"})
    task = yard.ask(kind="slow")
    yard.turn()
    yard.succeed(yard.only(), [yard.uploaded(b"a poem", name="poem.txt")])
    yard.turn()
    assert yard.handed_in(task) == [("text", "scoring", hashlib.sha256(b"a poem").hexdigest())]


@pytest.mark.parametrize("filename", ["chair.png", "ply", "chair.ply.zip", "chair.file"])
def test_a_file_that_the_kind_has_no_use_for_gives_the_task_back(yard: Yard, filename: str) -> None:
    first = yard.model(generation=SHAPES)
    task = yard.ask(kind="text_to_3d")
    yard.turn()
    yard.succeed(yard.only(), [yard.uploaded(name=filename)])
    yard.turn()
    assert yard.handed_in(task) == [(None, "skipped", None)]
    assert (yard.submitted, yard.marks()) == ([], 0)
    second = yard.model("draw", generation=SHAPES)
    yard.turn()
    assert [made.model_id for made in yard.predictions()] == [first, second]


def test_a_model_takes_tasks_of_its_kind_alone(yard: Yard) -> None:
    yard.model(generation=SHAPES)
    yard.turn()
    assert (yard.available("text_to_3d"), yard.available("cog")) == (1, 0)
    for _ in range(3):
        yard.ask(kind="cog")
    yard.turn()
    assert [made.model for made in yard.predictions()] == ["anna/paint"]


def test_a_model_that_was_changed_asks_for_tasks_of_its_new_kind(yard: Yard) -> None:
    model = yard.model()
    yard.turn()
    yard.changed(model, SHAPES)
    yard.turn()
    old = yard.ask(kind="cog")
    yard.turn()
    assert (yard.handed_in(old), yard.predictions()) == ([], [])
    yard.ask("a blue chair", kind="text_to_3d")
    yard.turn()
    assert yard.only().input["prompt"] == "a blue chair"


def test_a_task_that_a_model_got_before_it_was_changed_goes_to_another(yard: Yard) -> None:
    model = yard.model()
    task = yard.ask(kind="cog")
    yard.cogs.tick()
    yard.changed(model, SHAPES)
    yard.grid.dispatcher.round()
    yard.turn()
    assert (yard.handed_in(task), yard.predictions()) == ([(None, "skipped", None)], [])
    other = yard.model("draw")
    yard.turn()
    assert yard.only().model_id == other


def test_a_task_that_runs_when_its_model_is_changed_is_brought_to_its_end(yard: Yard) -> None:
    model = yard.model()
    task = yard.ask(kind="cog")
    yard.turn()
    yard.changed(model, SHAPES)
    yard.succeed(yard.only(), [yard.uploaded()])
    yard.turn()
    yard.judge()
    assert yard.stored(task) == PICTURE


def test_a_model_of_a_kind_that_the_node_has_no_more_asks_for_nothing(yard: Yard) -> None:
    yard.model(generation={**GENERATION, "task_kind": "text_to_music"})
    yard.turn()
    assert yard.grid.dispatcher.waiting == 0


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["failed", "canceled"])
def test_a_prediction_that_fails_gives_the_task_to_another_model(yard: Yard, state: str) -> None:
    first = yard.model("paint")
    task = yard.ask()
    yard.turn()
    yard.booth.report(yard.only(), state=state, error="out of memory")
    yard.runners_of[first] = []
    second = yard.model("draw")
    yard.turn(3)
    assert [made.model_id for made in yard.predictions()] == [first, second]
    yard.succeed(yard.predictions()[1], [yard.uploaded()])
    yard.turn()
    yard.judge()
    assert yard.grid.task(task)["results"][0]["hotkey"] == second


@pytest.mark.parametrize(
    "output",
    [
        None,
        [],
        "done",
        ["https://example.org/a.png"],
        ["http://grid.test/pc/client-api/files/" + "a" * 32],
        7,
        [None],
        {},
    ],
    ids=["null", "empty", "text", "elsewhere", "unknown", "number", "no-text", "no-member"],
)
def test_an_output_that_is_no_stored_file_is_a_failure_and_nothing_is_fetched(yard: Yard, output: Any) -> None:
    yard.model()
    task = yard.ask()
    yard.turn()
    yard.succeed(yard.only(), output)
    yard.turn()
    assert yard.submitted == []
    assert yard.marks() == 0
    yard.grid.pass_time(700)
    assert yard.grid.task(task)["status"] == "failed"


def test_a_file_of_somebody_else_is_no_result(yard: Yard) -> None:
    yard.model()
    yard.ask()
    yard.turn()
    yard.succeed(yard.only(), [yard.uploaded(owner=BERT.owner)])
    yard.turn()
    assert (yard.submitted, yard.marks()) == ([], 0)


def test_an_empty_file_and_one_above_the_limit_are_failures(make_yard: Any) -> None:
    yard = make_yard(scoring_max_bytes=1000)
    yard.model()
    for content in (b"", PICTURE):
        yard.ask()
        yard.turn()
        yard.succeed(yard.predictions()[-1], [yard.uploaded(content)])
        yard.turn()
        assert (yard.submitted, yard.marks()) == ([], 0)


def test_a_model_that_fails_again_and_again_rests(yard: Yard) -> None:
    yard.model()
    for _ in range(6):
        yard.ask()
    for _ in range(8):
        yard.turn()
        for made in yard.predictions():
            if not made.ended:
                yard.booth.report(made, state="failed", error="broken")
    assert len(yard.predictions()) == 4
    yard.clock.advance(31)
    yard.turn()
    assert len(yard.predictions()) == 5


# --- ends -----------------------------------------------------------------------------------------------------------


def test_the_end_of_a_task_cancels_the_prediction(yard: Yard) -> None:
    yard.model()
    task = yard.ask()
    yard.turn()
    yard.booth.report(yard.only(), state="processing")
    yard.grid.tasks.cancel(KEY, task)
    yard.turn()
    assert yard.only().cancel_at == yard.clock.now()
    before = yard.booth.watched
    yard.turn()
    assert yard.booth.watched == before
    yard.booth.report(yard.only(), state="canceled")
    yard.turn()
    assert yard.marks() == 0


def test_a_task_that_is_cancelled_before_a_worker_took_it_ends_its_prediction_at_once(yard: Yard) -> None:
    yard.model()
    task = yard.ask()
    yard.turn()
    yard.grid.tasks.cancel(KEY, task)
    yard.turn()
    assert (yard.only().state, yard.marks()) == ("canceled", 0)


def test_a_lease_lives_as_long_as_its_prediction_runs(yard: Yard) -> None:
    yard.model()
    task = yard.ask()
    yard.turn()
    yard.booth.report(yard.only(), state="processing")
    for _ in range(30):
        yard.grid.pass_time(10)
        yard.turn()
    assert yard.only().cancel_at is None
    yard.succeed(yard.only(), [yard.uploaded()])
    yard.turn()
    yard.judge()
    assert yard.grid.task(task)["results"][0]["score"] == 1.0


def test_a_lease_that_cannot_last_longer_is_not_renewed(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.model()
    yard.ask(deadline_s=90.0)
    yard.turn()
    yard.booth.report(yard.only(), state="processing")
    renewed: list[str] = []
    renew = yard.work.renew

    def counted(worker: Any, lease_id: str) -> Any:
        renewed.append(lease_id)
        return renew(worker, lease_id)

    monkeypatch.setattr(yard.work, "renew", counted)
    for _ in range(8):
        yard.grid.pass_time(10)
        yard.cogs.tick()
    assert len(renewed) == 2


def test_a_prediction_that_outlives_the_longest_lease_is_cancelled(yard: Yard) -> None:
    yard.model()
    yard.ask(deadline_s=3000.0)
    yard.turn()
    yard.booth.report(yard.only(), state="processing")
    for _ in range(70):
        yard.grid.pass_time(10)
        yard.turn()
    assert yard.only().cancel_at is not None


def test_a_prediction_that_no_worker_takes_gives_its_task_back(yard: Yard) -> None:
    model = yard.model()
    yard.ask()
    yard.turn()
    yard.runners_of[model] = []
    for _ in range(7):
        yard.grid.pass_time(10)
        yard.turn()
    assert (yard.only().state, yard.marks()) == ("canceled", 0)


def test_a_success_that_comes_when_the_lease_has_just_run_out_still_counts(yard: Yard) -> None:
    yard.model()
    task = yard.ask()
    yard.turn()
    yard.grid.pass_time(61)
    yard.succeed(yard.only(), [yard.uploaded()])
    yard.turn()
    yard.judge()
    assert yard.grid.task(task)["results"][0]["score"] == 1.0


# --- processes ------------------------------------------------------------------------------------------------------


def test_a_process_that_starts_anew_goes_on_with_the_predictions_of_the_last_one(make_yard: Any) -> None:
    before = make_yard()
    model = before.model()
    task = before.ask()
    before.turn()
    after = make_yard(beside=before)
    after.runners_of[model] = [Runner("r0", "READY")]
    after.turn()
    after.succeed(after.only(), [after.uploaded()])
    after.turn()
    after.judge()
    assert after.stored(task) == PICTURE


def test_two_processes_make_one_prediction_of_one_lease(make_yard: Any) -> None:
    one = make_yard()
    other = make_yard(beside=one)
    model = one.model()
    other.runners_of[model] = [Runner("r1", "READY")]
    one.ask()
    for _ in range(3):
        one.cogs.tick()
        other.cogs.tick()
        one.grid.dispatcher.round()
        other.grid.dispatcher.round()
    one.turn()
    other.turn()
    assert len(one.predictions()) == 1


def test_a_lease_that_another_process_has_begun_meanwhile_is_not_begun_again(
    make_yard: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = make_yard()
    other = make_yard(beside=one)
    one.model(generation={**GENERATION, "inputs": {"image": LARGE}})
    one.ask()
    one.cogs.tick()
    one.grid.dispatcher.round()
    keep = one.files.keep_data

    def keep_late(*given: Any) -> str:
        other.cogs.tick()
        return str(keep(*given))

    monkeypatch.setattr(one.files, "keep_data", keep_late)
    one.cogs.tick()
    assert (len(one.predictions()), one.marks()) == (1, 1)
    assert one.booth.row_of_model(one.only().model_id).run_count == 1
    assert caplog.text == ""


def test_a_broken_row_holds_up_no_other(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    broken = yard.model("broken")
    yard.store.write(lambda tx: tx.execute(update(models).where(models.c.id == broken).values(generation="{}")))
    sound = yard.model("paint")
    yard.ask(copies=2)
    yard.turn()
    assert yard.only().model_id == sound
    assert "cannot be tended to" in caplog.text
