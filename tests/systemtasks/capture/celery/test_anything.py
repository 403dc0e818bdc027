"""All arguments, messages and exceptions of a task become rows, and none breaks a batch."""

import logging
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from systemtasks import reporting
from systemtasks.capture import logs
from systemtasks.capture.celery import received
from systemtasks.models import TaskRun
from systemtasks.runs import recorder
from systemtasks.runs.recorder import Run
from systemtasks.runs.records import NAME_LIMIT, RunRecord, TaskInfo
from systemtasks.runs.values import clean_column, clean_text
from systemtasks.states import State
from systemtasks.storage import rows
from tests.systemtasks.runs.test_recorder import INFO, begin
from tests.systemtasks.runs.test_values import anything


def refuse(*_: object, **__: object) -> Any:
    raise RuntimeError("refused")


class Hostile:
    __str__ = __repr__ = __format__ = __len__ = __iter__ = __hash__ = __eq__ = __bool__ = refuse


class HostileClass:
    @property
    def __class__(self) -> Any:
        return refuse()

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


class HostileMapping(Mapping[str, object]):
    __getitem__ = __len__ = __iter__ = refuse


class HostileDict(dict[str, object]):
    items = __iter__ = __len__ = __repr__ = refuse


class HostileList(list[object]):
    __iter__ = __len__ = __repr__ = refuse


class HostileText(str):
    __len__ = __contains__ = __getitem__ = __str__ = __repr__ = __format__ = refuse
    isascii = encode = replace = refuse


class HostileNumber(int):
    __repr__ = __str__ = __format__ = __le__ = __ge__ = __neg__ = refuse


class Growing(list[object]):
    """A list without an end."""

    def __iter__(self) -> Iterator[object]:
        while True:
            yield self


class Huge:
    def __repr__(self) -> str:
        return "\0\ud800" * 100_000


class Colour(Enum):
    RED = "red\0"


class Word(StrEnum):
    KEY = "word"


def cyclic() -> list[Any]:
    cycle: list[Any] = []
    cycle.append({"cycle": cycle})
    return cycle


ODD = [
    *(Hostile(), HostileClass(), HostileMapping(), HostileDict(a=1), HostileList([1])),
    *(HostileText("text"), HostileNumber(7), Growing(), Huge(), Colour.RED, cyclic()),
    *(object(), refuse, Hostile, Decimal("NaN"), float("nan"), 10**5000, b"\0", "\ud800\0"),
    *(
        {HostileText("key"): 1},
        {Word.KEY: 1},
        {("key",): 1},
        {1: 1, "1": 2},
        range(10**9),
        iter([1]),
        ...,
    ),
]
# By their numbers, since Hypothesis itself would ask for their hashes.
odd = st.integers(0, len(ODD) - 1).map(lambda number: ODD[number])
objects = st.one_of(odd, anything, st.lists(odd, max_size=3))
texts = st.text(st.characters(exclude_categories=()), max_size=50)


class StrRaisesError(Exception):
    __str__ = __repr__ = refuse


class NotesRaiseError(Exception):
    __notes__ = property(refuse)


class OddNameError(Exception):
    __module__ = None  # type: ignore[assignment]


OddNameError.__qualname__ = "Odd\0\ud800" + "x" * 300


def chained(errors: list[BaseException]) -> BaseException:
    """Return the first error. Each has the next one as its cause, and the last has the first."""
    for error, cause in zip(errors, [*errors[1:], errors[0]], strict=True):
        error.__cause__ = cause
    return errors[0]


plain = st.one_of(
    st.builds(ValueError, objects),
    st.builds(StrRaisesError),
    st.builds(NotesRaiseError),
    texts.map(lambda text: OddNameError(text)),
    st.builds(SyntaxError, texts, st.tuples(texts, st.integers(), st.integers(), texts)),
    st.builds(SystemExit, objects),
    st.builds(UnicodeDecodeError, st.just("utf-8"), st.binary(), st.just(0), st.just(1), texts),
)
groups = st.recursive(
    plain, lambda inner: st.builds(BaseExceptionGroup, texts, st.lists(inner, min_size=1))
)
exceptions = st.one_of(groups, st.lists(plain, min_size=1, max_size=4).map(chained))


# Pytest's handlers would get the records of any other logger, and raise.
logger = logging.Logger("shop", logging.INFO)  # noqa: LOG001
logger.addHandler(logging.NullHandler())


class Hidden:
    """Hides a value from the reports of Hypothesis, which print dataclasses."""

    def __init__(
        self,
        args: list[object],
        kwargs: dict[str, object],
        thing: object,
        error: BaseException,
    ) -> None:
        self.args, self.kwargs, self.thing, self.error = args, kwargs, thing, error


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    rows._tasks_with_row.clear()
    logs.install()
    yield
    recorder.current.set(None)


def log(message: object, attribute: object, error: BaseException) -> None:
    logger.info(message, extra={"thing": attribute})
    logger.warning("%s %d", message, 7)
    logger.info({"event": message, "thing": attribute})
    logger.error("Caught", exc_info=error)
    logger.info("Odd keys", extra={7: attribute, "\ud800": attribute})  # type: ignore[dict-item]
    reporting.info("Reported", thing=attribute)
    logger.info("Done")


@pytest.mark.django_db
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25
)
@given(
    # Built from tuples, since Hypothesis prints the objects that it builds itself.
    st.tuples(
        st.lists(objects, max_size=3),
        st.dictionaries(texts, objects, max_size=3),
        objects,
        exceptions,
    ).map(lambda parts: Hidden(*parts)),
    st.lists(texts, min_size=6, max_size=6),
    st.sampled_from([State.FAILURE, State.SUCCESS]),
)
def test_whatever_a_task_does_is_written_and_its_neighbours_too(
    hidden: Hidden, names: list[str], state: State
) -> None:
    TaskRun.objects.all().delete()
    name, uid, celery_id, worker, description, event = names
    info = TaskInfo(
        clean_column(name, NAME_LIMIT) or "shop.charge",
        clean_text(description, 8192),
        uid=lambda *_, **__: hidden.thing,
    )
    request = {"id": celery_id, "hostname": worker}
    run = received.attempt(info, request, hidden.args, hidden.kwargs)
    recorder.start(run)
    running = run.in_progress().record()
    log(hidden.thing, hidden.thing, hidden.error)
    log(event, hidden.args, hidden.error)
    reporting.set_uid(uid)
    run.retry(hidden.error, 1.0)
    run.fail(hidden.error)
    row = written(run, running, run.finish(state).record())

    assert (row.state, row.worker) == (state, clean_column(worker, NAME_LIMIT))
    assert row.messages[-1]["event"][:1000] == row.exception[:1000]
    assert row.args or not hidden.args
    assert row.system_task.uid == clean_column(uid, NAME_LIMIT)


@pytest.mark.django_db
@pytest.mark.parametrize("number", range(len(ODD)))
def test_each_odd_object_is_written(number: int) -> None:
    thing = ODD[number]
    run = received.attempt(INFO, {"id": "odd"}, [thing], {"key": [7]})
    recorder.start(run)
    log(thing, thing, ValueError(thing))
    row = written(run, run.finish(State.SUCCESS).record())

    assert len(row.args or []) == 1


def written(run: Run, *records: RunRecord) -> TaskRun:
    """Write this run in a batch with other runs, and return its row."""
    rows.write([neighbour("before"), *records, neighbour("after")])
    assert TaskRun.objects.count() == 3
    assert TaskRun.objects.filter(system_task__name="shop.charge", status="successful").count() >= 2
    row = TaskRun.objects.get(celery_id=clean_column(run.celery_id, NAME_LIMIT))
    said = {message["event"] for message in row.messages}
    # With the largest objects, the first messages leave no room for the middle ones.
    left_out = any("messages are left out here" in event for event in said)
    assert left_out or {"Caught", "Odd keys", "Reported", "Done"} <= said
    return row


def neighbour(celery_id: str) -> RunRecord:
    run = begin(id=f"neighbour {celery_id}")
    recorder.end(run.celery_id)
    return run.finish(State.SUCCESS).record()
