"""No secret of a run's arguments is on record, neither in them nor in another field."""

import json
import logging
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import attrs
import pydantic
import pytest
from celery import Celery, chain, chord, group
from celery.canvas import Signature
from pytest_django import Settings

from config.celery import app
from systemtasks import reporting
from systemtasks.capture.celery import schedule, signals
from systemtasks.capture.celery.options import task_info
from systemtasks.models import SystemTask, TaskRun
from systemtasks.runs.records import KnownTask, RunRecord
from systemtasks.storage import rows
from systemtasks.storage.writer import writer
from systemtasks.testing import recording
from tests.systemtasks.conftest import MakeTask

CARD = "4111-1111-1111-1111"
MASK = "********"

logger = logging.getLogger("shop")


@pytest.fixture(autouse=True)
def _nothing_is_cached() -> Iterator[None]:
    yield
    task_info.cache_clear()


@pytest.fixture
def masked(make_task: MakeTask) -> Any:
    def pay(user: str, card: str = "", *, note: str = "") -> None:
        """Pay."""

    return make_task(pay, name="tests.masked_pay", systemtasks_masked=["card"])


@pytest.fixture
def other(make_task: MakeTask) -> Any:
    def other(*things: object, **named: object) -> None: ...

    return make_task(other, name="tests.other")


@pytest.fixture
def sender() -> Celery:
    """Return an app that knows none of the tasks."""
    return Celery("elsewhere", broker="memory://", set_as_current=False)


def as_sent(value: object) -> Any:
    """Return the value as the worker receives it: a signature is a dictionary in JSON."""
    return json.loads(json.dumps(value))


def texts(record: RunRecord) -> str:
    """Return all recorded values of a run as text."""
    return repr(record)


# Signatures.


@pytest.mark.parametrize("sent", [lambda value: value, as_sent], ids=["eager", "sent"])
def test_signature_is_masked_by_the_rules_of_its_own_task(
    records: list[RunRecord], masked: Any, other: Any, sent: Any
) -> None:
    other.apply(args=[sent(masked.s("bob", CARD, note="x"))])

    (signature,) = json.loads(records[0].args or "")
    assert (signature["args"], signature["kwargs"]) == (["bob", MASK], {"note": "x"})
    assert not records[0].arguments_intact
    assert CARD not in texts(records[0])


def with_link(signature: Signature[Any], linked: Signature[Any]) -> Signature[Any]:
    signature.link(linked)
    return signature


def with_link_error(signature: Signature[Any], linked: Signature[Any]) -> Signature[Any]:
    signature.link_error(linked)
    return signature


KINDS: dict[str, Callable[[Any, Any], Any]] = {
    "keyword": lambda pay, other: pay.s("bob", card=CARD),
    "partial": lambda pay, other: pay.s(CARD),
    "in lists": lambda pay, other: [[pay.s("bob", CARD)]],
    "in a dictionary": lambda pay, other: {"then": pay.s("bob", CARD)},
    "in a signature": lambda pay, other: other.s(pay.s("bob", CARD)),
    "link": lambda pay, other: with_link(other.s(), pay.s(CARD)),
    "link_error": lambda pay, other: with_link_error(other.s(), pay.si("bob", CARD)),
    "chain": lambda pay, other: chain(other.s(), pay.s("bob", CARD)),
    "group": lambda pay, other: group(pay.s("bob", CARD), other.s()),
    "chord's body": lambda pay, other: chord([other.s()], pay.s(CARD)),
    "chord's header": lambda pay, other: chord([pay.s("bob", CARD)], other.s()),
    "map": lambda pay, other: pay.map([CARD]),
    "starmap": lambda pay, other: pay.starmap([("bob", CARD)]),
    "chunks": lambda pay, other: pay.chunks([("bob", CARD)], 1),
    "group of chunks": lambda pay, other: as_sent(pay.chunks([("bob", CARD)], 1).group()),
    "signature of an unknown task": lambda pay, other: Signature("elsewhere.pay", ("bob", CARD)),
    "keyword of an unknown task": lambda pay, other: Signature("elsewhere.pay", (), {"x": CARD}),
}


@pytest.mark.parametrize("sent", [lambda value: value, as_sent], ids=["eager", "sent"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_of_a_signature_is_kept(
    records: list[RunRecord], make_task: MakeTask, other: Any, kind: str, sent: Any
) -> None:
    def pay(user: str, card: str = "") -> None: ...

    names = ["user"] if kind == "map" else ["card"]
    signature = KINDS[kind](make_task(pay, systemtasks_masked=names), other)
    other.apply(args=[sent(signature)])
    other.apply(kwargs={"then": sent(signature)})

    for record in records:
        assert CARD not in texts(record)
        assert MASK in texts(record)
        assert not record.arguments_intact


def test_signature_without_secrets_is_intact(records: list[RunRecord], other: Any) -> None:
    other.apply(args=[as_sent(chain(other.s(1, x="y"), other.s()))])

    assert records[0].arguments_intact


def test_own_tasks_of_celery_keep_no_arguments_and_their_secrets_stay_secret(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def pay(user: str, card: str) -> None:
        logger.info("Charging %s", card)
        raise ValueError(f"{card} is refused")

    task = make_task(pay, systemtasks_masked=["card"])
    (chunk,) = task.chunks([("bob", CARD)], 1).group().tasks
    chunk.type.apply(kwargs=as_sent(dict(chunk.kwargs)))
    (record,) = records

    assert (record.name, record.args, record.kwargs) == ("celery.starmap", None, None)
    assert not record.arguments_intact
    assert record.exception == f"ValueError: {MASK} is refused"
    assert CARD not in texts(record)


@pytest.mark.parametrize(
    "send",
    [
        lambda pay: pay.chunks([("bob", CARD)], 1).apply_async(),
        lambda pay: pay.starmap([("bob", CARD)]).delay(),
        lambda pay: chain(pay.s("bob", CARD), pay.si("bob", CARD)).delay(),
        lambda pay: pay.apply_async(("bob", CARD), link=pay.s(CARD), link_error=pay.s(CARD)),
    ],
)
def test_no_secret_is_kept_of_what_is_sent(
    records: list[RunRecord], masked: Any, send: Callable[[Any], Any]
) -> None:
    send(masked)

    assert records
    for record in records:
        assert CARD not in texts(record)


# Positions, options and names within.


def test_all_positional_arguments_of_a_masked_name_are_masked(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def revoke(user: str, *tokens: str, **credentials: str) -> None: ...

    make_task(revoke).apply(args=("bob", "abc1", "def2"), kwargs={"user": "x", "any": "ghi3"})

    assert json.loads(records[0].args or "") == ["bob", MASK, MASK]
    assert json.loads(records[0].kwargs or "") == {"user": "x", "any": MASK}


def test_option_masks_its_names_at_any_depth_and_in_any_spelling(
    records: list[RunRecord], masked: Any
) -> None:
    inner = {"card": CARD, "CARD": CARD, "x": [("card", CARD)], "y": json.dumps({"card": CARD})}
    masked.apply(args=(inner, {"card": CARD}), kwargs={"note": inner})
    record = records[0]

    assert json.loads(record.args or "")[1] == MASK
    assert CARD not in texts(record)


def test_booleans_and_none_are_kept_unless_the_option_masks_them(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def sync(use_auth: bool, page_token: str | None, is_ill: bool, **more: object) -> None: ...

    task = make_task(sync, systemtasks_masked=["is_ill"])
    task.apply(args=(True, None, True), kwargs={"password": None})
    task.apply(args=(True, None), kwargs={"password": None, "is_ill": None})

    assert json.loads(records[0].args or "") == [True, None, MASK]
    assert json.loads(records[0].kwargs or "") == {"password": None}
    assert json.loads(records[1].kwargs or "") == {"password": None, "is_ill": MASK}


Login = namedtuple("Login", ("user", "password"))


@dataclass
class Account:
    user: str
    password: str


@attrs.define
class Profile:
    user: str
    api_key: str


class Order(pydantic.BaseModel):
    user: str
    card_number: str


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ([["Authorization", "a b"], ["Accept", "c"]], [["Authorization", MASK], ["Accept", "c"]]),
        ([(b"cookie", b"a=b")], [["b'cookie'", MASK]]),
        (Login("bob", "hunter2"), ["bob", MASK]),
        ([{"name": "X-Api-Key", "value": "abc"}], [{"name": "X-Api-Key", "value": MASK}]),
        ('{"user":"bob","password":"hunter2"}', f'{{"user":"bob","password":"{MASK}"}}'),
        (' [{"pin": 1234}]', f'[{{"pin":"{MASK}"}}]'),
        ('{"a": "{\\"pin\\": 1}"}', f'{{"a":"{{\\"pin\\":\\"{MASK}\\"}}"}}'),
        ({"a": {"Login": {"dsn": "x"}}}, {"a": {"Login": {"dsn": MASK}}}),
        ({"Name": "apiKey", "Value": "abc"}, {"Name": "apiKey", "Value": MASK}),
        ({"Key": "DB_PWD", "Value": 7, "a": 1}, {"Key": "DB_PWD", "Value": MASK, "a": 1}),
        ({"Key": "Stage", "Value": "live"}, {"Key": "Stage", "Value": "live"}),
        (["mysql", "--password", "a b", "-h"], ["mysql", "--password", MASK, "-h"]),
        (("login", "--api-key", "abc"), ["login", "--api-key", MASK]),
        (["--user", "bob", "--token-type", "abc"], ["--user", "bob", "--token-type", "abc"]),
        (["password", "email"], ["password", "email"]),
        ('{"user": "bob"}', '{"user": "bob"}'),
        ("{password", "{password"),
    ],
)
def test_values_are_masked_by_the_names_in_pairs_tuples_and_json(
    records: list[RunRecord], other: Any, value: object, kept: object
) -> None:
    other.apply(args=(value,))

    assert json.loads(records[0].args or "") == [kept]


@pytest.mark.parametrize(
    "value",
    [
        Account("bob", "hunter2-hunter2"),
        Profile("bob", "hunter2-hunter2"),
        Order(user="bob", card_number="hunter2-hunter2"),
        Login("bob", "hunter2-hunter2"),
        {"user": "bob", "password": "hunter2-hunter2"},
        [("Authorization", "hunter2-hunter2")],
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("printed", [False, True])
def test_fields_of_objects_are_masked_in_whatever_prints_them(
    records: list[RunRecord], make_task: MakeTask, value: object, printed: bool
) -> None:
    def log() -> None:
        logger.info("Got %s", repr(value) if printed else value, extra={"login": value})
        raise ValueError(value, repr(value), str(value))

    make_task(log).apply()

    assert "hunter2-hunter2" not in texts(records[0])
    assert "bob" in texts(records[0]) or isinstance(value, list)


# Texts.

values: dict[str, str] = {}


def context() -> dict[str, str]:
    """Return the context. SENDER_CONTEXT names this function."""
    return values


@pytest.fixture
def talkative(make_task: MakeTask) -> Any:
    """Return a task that repeats its secret everywhere it can."""

    def talk(user: str, password: Any) -> None:
        """Talk."""
        reporting.set_uid(f"uid-{password}")
        logger.info("password is %s", password, extra={"seen": password, "n": [{password: 1}]})
        reporting.info(f"again {password}", value=f"<{password}>")
        try:
            raise KeyError(f"first {password}")
        except KeyError as error:
            error.add_note(f"note {password}")
            raise ValueError(f"bad {password}") from error

    return make_task(talk, systemtasks_uid=lambda user, password: f"{user}-{password}")


@pytest.mark.parametrize(
    "secret", ["hunter2-hunter2", 'correct horse "battery"', "47110815", 47110815]
)
def test_value_that_is_masked_in_the_arguments_is_nowhere_on_record(
    records: list[RunRecord], talkative: Any, secret: Any
) -> None:
    talkative.apply(args=("bob", secret))
    record = records[0]
    found = [event["event"] for event in json.loads(record.messages)]

    assert str(secret) not in texts(record)
    assert json.dumps(secret)[1:-1] not in texts(record) or type(secret) is int
    assert (record.first_uid, record.uid) == (f"bob-{MASK}", f"uid-{MASK}")
    assert found == [f"password is {MASK}", f"again {MASK}", f"ValueError: bad {MASK}"]
    assert record.exception == f"ValueError: bad {MASK}"
    assert not record.arguments_intact


def test_secret_of_the_arguments_is_not_in_the_journal(
    monkeypatch: pytest.MonkeyPatch, talkative: Any
) -> None:
    lines: list[bytes] = []
    monkeypatch.setattr(writer, "under_test", lambda entry: lines.append(entry.line))
    talkative.apply(args=("bob", "hunter2-hunter2"))

    assert lines
    assert b"hunter2" not in b"".join(lines)


@pytest.mark.parametrize(
    "secret",
    [
        "postgres://bob:hunter2@db/shop",
        "Bearer hunter2.hunter2",
        "Authorization: Basic Ym9iOmh1bnRlcjI=",
        "ghp_0123456789abcdefhunter2",
        "password=hunter2",
    ],
)
def test_secret_in_a_text_is_nowhere_on_record(
    records: list[RunRecord], make_task: MakeTask, settings: Settings, secret: str
) -> None:
    settings.SYSTEMTASKS = {"SENDER_CONTEXT": f"{__name__}.context"}
    values["url"] = secret

    def talk(value: str) -> None:
        logger.info("It is %s", value, extra={"x": [value]})
        raise ValueError(value)

    task = make_task(
        talk,
        systemtasks_description=f"Talk to {secret}.",
        systemtasks_uid=lambda value: value,
    )
    headers: dict[str, Any] = {"id": "id-1"}
    signals.stamp(headers=headers)
    assert "hunter2" in headers["systemtasks_context"] or "Basic" in secret
    signals.note_sent(sender=task.name, headers=headers, body=((secret,), {}, {}))
    task.apply(args=(secret,), headers=headers)

    assert [record.state.value for record in records] == ["queued", "failure"]
    for record in records:
        assert "hunter2" not in texts(record)
        assert "Ym9iOmh1bnRlcjI" not in texts(record)
        assert not record.arguments_intact
    assert json.loads(records[0].context) != {}


def test_password_of_a_url_in_the_arguments_is_masked_where_it_stands_alone(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def fetch(url: str) -> None:
        raise ValueError('password "hunter2-hunter2" is wrong')

    make_task(fetch).apply(args=("https://bob:hunter2-hunter2@host/",))

    assert records[0].exception == f'ValueError: password "{MASK}" is wrong'
    assert json.loads(records[0].args or "") == [f"https://{MASK}@host/"]


def test_texts_can_be_left_as_they_are(
    records: list[RunRecord], talkative: Any, settings: Settings
) -> None:
    settings.SYSTEMTASKS = {"MASK_TEXTS": False}
    talkative.apply(args=("bob", "hunter2-hunter2"))
    record = records[0]

    assert json.loads(record.args or "") == ["bob", MASK]
    assert record.exception == "ValueError: bad hunter2-hunter2"
    assert record.uid == "uid-hunter2-hunter2"


def test_secrets_are_masked_in_texts_even_if_no_arguments_are_kept(
    records: list[RunRecord], talkative: Any, settings: Settings
) -> None:
    settings.SYSTEMTASKS = {"RECORD_ARGUMENTS": False}
    talkative.apply(args=("bob", "hunter2-hunter2"))

    assert (records[0].args, records[0].kwargs) == (None, None)
    assert "hunter2" not in texts(records[0])


def test_task_is_known_by_the_uid_that_its_runs_have(
    records: list[RunRecord], talkative: Any
) -> None:
    entry = {"task": talkative.name, "schedule": 60, "args": ("bob", "hunter2-hunter2")}
    (known,) = schedule.known_tasks(app, {"one": entry})
    talkative.apply(args=("bob", "hunter2-hunter2"))

    assert known == KnownTask(talkative.name, f"bob-{MASK}", "Talk.")
    assert records[0].first_uid == known.uid


# A sender that does not know the task.


def test_sender_that_does_not_know_the_task_keeps_none_of_its_values(
    records: list[RunRecord], sender: Celery
) -> None:
    message = sender.amqp.as_task_v2("id-1", "elsewhere.pay", ("bob", CARD), {"card": CARD})
    signals.note_sent(sender="elsewhere.pay", headers=message.headers, body=message.body)
    (record,) = records

    assert (record.args, record.kwargs) == (None, f'{{"card":"{MASK}"}}')
    assert not record.arguments_intact
    assert CARD not in texts(record)


def test_sender_that_does_not_know_the_task_keeps_that_there_are_no_arguments(
    records: list[RunRecord], sender: Celery
) -> None:
    message = sender.amqp.as_task_v2("id-1", "elsewhere.pay", (), {})
    signals.note_sent(sender="elsewhere.pay", headers=message.headers, body=message.body)

    assert (records[0].args, records[0].kwargs, records[0].arguments_intact) == ("[]", "{}", True)


@pytest.mark.django_db
def test_worker_deletes_what_others_have_recorded_of_a_task_that_is_not(
    sender: Celery, make_task: MakeTask
) -> None:
    hidden = make_task(lambda: None, name="tests.hidden", systemtasks_record=False)
    shown = make_task(lambda: None, name="tests.shown")
    with recording():
        del app.tasks[hidden.name], app.tasks[shown.name]
        for name in ("tests.hidden", "tests.shown"):
            message = sender.amqp.as_task_v2("id-1", name, (), {})
            message.headers["id"] = name
            signals.note_sent(sender=name, headers=message.headers, body=message.body)
        app.tasks.register(hidden)
        app.tasks.register(shown)
    assert {run.celery_id for run in TaskRun.objects.all()} == {"tests.hidden", "tests.shown"}
    assert "tests.hidden" in schedule.unrecorded_tasks(app)
    assert "tests.shown" not in schedule.unrecorded_tasks(app)

    rows.delete_unrecorded(schedule.unrecorded_tasks(app))

    assert [run.celery_id for run in TaskRun.objects.all()] == ["tests.shown"]
    assert [task.name for task in SystemTask.objects.all()] == ["tests.shown"]
