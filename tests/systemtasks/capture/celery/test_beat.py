"""Beat's schedule is in the database, and stays the same as in beat."""

import logging
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from celery.beat import ScheduleEntry as BeatEntry
from celery.beat import Scheduler
from celery.schedules import BaseSchedule, crontab, schedule
from pytest_django import Settings

from systemtasks.capture.celery import beat
from systemtasks.capture.celery.beat import ScheduleFollower
from systemtasks.capture.celery.words import in_words
from systemtasks.models import ScheduleEntry, SystemTask
from systemtasks.runs.records import KnownTask
from systemtasks.storage import rows
from systemtasks.storage.retention import delete_expired
from systemtasks.storage.writer import Schedule
from tests import factories

pytestmark = pytest.mark.django_db


class Ended(BaseSchedule):
    """A recurrence that has ended, as an rrule does."""

    def remaining_estimate(self, last_run_at: datetime) -> Any:
        return None

    def is_due(self, last_run_at: datetime) -> Any:
        return False, 3600.0

    def __str__(self) -> str:
        return "once upon a time"


class Broken(Ended):
    def remaining_estimate(self, last_run_at: datetime) -> Any:
        raise RuntimeError("no idea")


class DirectWriter:
    """Writes at once, in the test's transaction."""

    def __init__(self) -> None:
        self.announced: list[KnownTask] = []
        self.schedules: list[Schedule] = []

    def announce(self, tasks: list[KnownTask]) -> None:
        self.announced = tasks
        rows.announce(tasks)

    def write_schedule(self, app: str, schedule: Schedule) -> None:
        before = self.schedules[-1] if self.schedules else {}
        self.schedules.append(schedule)
        rows.write_schedule(app, list(schedule.values()), schedule, before.keys() - schedule)


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> DirectWriter:
    made = DirectWriter()
    monkeypatch.setattr(beat, "writer", made)
    return made


@pytest.fixture
def app() -> Iterator[Celery]:
    made = Celery("shop", broker="memory://", set_as_current=False)

    @made.task(shared=False, name="shop.sync", systemtasks_uid=lambda source, **_: source)
    def sync(source: str, password: str = "") -> None:
        """Sync a source."""

    @made.task(shared=False, name="shop.secretive", systemtasks_record=False)
    def secretive() -> None: ...

    made.conf.beat_schedule = {
        "sync": {
            "task": "shop.sync",
            "schedule": 60.0,
            "args": ["ldap"],
            "kwargs": {"password": "hunter2"},
        },
        "nightly": {"task": "shop.clean", "schedule": crontab("30", "2")},
        "ended": {"task": "shop.ended", "schedule": Ended()},
        "secretive": {"task": "shop.secretive", "schedule": 60.0},
    }
    made.conf.result_expires = None
    yield made
    made.close()


def followed(app: Celery) -> Scheduler:
    scheduler = Scheduler(app)
    scheduler.setup_schedule()
    scheduler.merge_inplace(app.conf.beat_schedule)
    ScheduleFollower(app, scheduler).follow()
    return scheduler


def entry(name: str) -> ScheduleEntry:
    return ScheduleEntry.objects.get(app="shop", entry=name)


def test_schedule_is_written_when_beat_starts(app: Celery, direct: DirectWriter) -> None:
    followed(app)

    assert [str(one) for one in ScheduleEntry.objects.all()] == ["nightly", "ended", "sync"]
    sync = entry("sync")
    assert (sync.full_name, sync.words, sync.enabled) == ("shop.sync:ldap", "every minute", True)
    assert (sync.args, sync.kwargs) == (["ldap"], {"password": "********"})
    assert not sync.arguments_intact
    assert sync.last_sent is None
    assert abs(sync.next_due - datetime.now(UTC) - timedelta(minutes=1)) < timedelta(seconds=5)
    assert entry("nightly").words == "at 02:30 every day (UTC)"
    assert entry("nightly").next_due.strftime("%H:%M:%S") == "02:30:00"
    assert (entry("ended").next_due, entry("ended").words) == (None, "once upon a time")
    assert SystemTask.objects.get(name="shop.sync").uid == "ldap"


def test_schedule_is_kept_current_as_beat_sends_and_changes(
    app: Celery, direct: DirectWriter
) -> None:
    scheduler = followed(app)
    scheduler.schedule["sync"].last_run_at = datetime.now(UTC) - timedelta(minutes=1)
    scheduler.tick()
    sync = entry("sync")

    assert abs(sync.last_sent - datetime.now(UTC)) < timedelta(seconds=5)
    assert sync.next_due > datetime.now(UTC) + timedelta(seconds=50)

    written = len(direct.schedules)
    scheduler.tick()
    assert len(direct.schedules) == written  # since nothing has changed

    del scheduler.schedule["nightly"]
    scheduler.schedule["added"] = BeatEntry("added", "shop.added", schedule=schedule(5), app=app)
    scheduler.tick()
    names = set(ScheduleEntry.objects.values_list("entry", flat=True))
    assert names == {"sync", "ended", "added"}


def test_entries_of_another_app_stay(app: Celery, direct: DirectWriter) -> None:
    ScheduleEntry.objects.create(app="office", entry="nightly", task="office.clean")
    followed(app)

    assert ScheduleEntry.objects.filter(entry="nightly").count() == 2


@pytest.mark.parametrize(
    ("options", "carried"),
    [
        ({}, {"queue": "shop"}),
        ({"queue": "slow", "countdown": 5}, {"queue": "slow"}),
        (
            {"exchange": "feeds", "routing_key": "feed.tsv"},
            {"exchange": "feeds", "routing_key": "feed.tsv"},
        ),
        ({"expires": 90, "priority": 3}, {"queue": "shop", "expires": 90.0, "priority": 3}),
        (
            {"headers": {"tenant": UUID(int=1)}},
            {
                "queue": "shop",
                "headers": {"tenant": str(UUID(int=1))},
                "header_types": [[["tenant"], "uuid"]],
            },
        ),
        ({"serializer": "yaml"}, {"queue": "shop", "content_type": "application/x-yaml"}),
        (
            {"expires": datetime(2026, 11, 24, tzinfo=UTC), "headers": {"api_key": "0815"}},
            {"queue": "shop", "missing": ["the header 'api_key'", "the time until it expires"]},
        ),
        ({"link": "shop.next"}, {"queue": "shop", "missing": ["the option 'link'"]}),
    ],
    ids=repr,
)
def test_what_the_messages_of_an_entry_carry_is_written(
    app: Celery, direct: DirectWriter, options: dict[str, Any], carried: dict[str, Any]
) -> None:
    app.conf.task_routes = {"shop.clean": {"queue": "shop"}}
    app.conf.beat_schedule["nightly"]["options"] = options
    followed(app)

    assert entry("nightly").sent_options == carried


def test_options_of_a_task_are_those_of_its_entries(app: Celery, direct: DirectWriter) -> None:
    app.tasks["shop.sync"].priority = 7
    app.tasks["shop.sync"].time_limit = 60
    app.conf.beat_schedule["sync"]["kwargs"] = {"since": date(2026, 7, 1)}
    followed(app)

    sync = entry("sync")
    assert (sync.kwargs, sync.arguments_intact) == ({"since": "2026-07-01"}, True)
    assert sync.sent_options == {
        "types": [[["kwargs", "since"], "date"]],
        "queue": "celery",
        "priority": 7,
        "time_limit": 60,
    }


def test_secret_in_a_text_of_an_entry_is_masked(app: Celery, direct: DirectWriter) -> None:
    app.conf.beat_schedule["nightly"]["args"] = ["postgres://bob:hunter2@db", date(2026, 7, 1)]
    followed(app)

    nightly = entry("nightly")
    assert "hunter2" not in repr(nightly.args)
    assert (nightly.arguments_intact, nightly.sent_options) == (False, {"queue": "celery"})


def test_entry_whose_route_is_not_known_says_so(
    app: Celery, direct: DirectWriter, caplog: pytest.LogCaptureFixture
) -> None:
    def route(*_: Any, **__: Any) -> None:
        raise RuntimeError("no way")

    app.conf.task_routes = (route,)
    followed(app)

    assert entry("nightly").sent_options == {"missing": ["the queue"]}
    assert "Where the task shop.clean of the schedule is sent is not known" in caplog.text


def test_entries_of_another_beat_with_an_app_of_this_name_stay_while_it_lives(
    app: Celery, direct: DirectWriter, settings: Settings
) -> None:
    settings.SYSTEMTASKS = {"LEASE_SECONDS": 60.0}
    for name, age in (("living", 50), ("dead", 70)):
        seen = datetime.now(UTC) - timedelta(seconds=age)
        ScheduleEntry.objects.create(app="shop", entry=name, task="a", seen_timestamp=seen)
    ScheduleEntry.objects.create(app="shop", entry="of the release before", task="a")
    scheduler = followed(app)

    names = ScheduleEntry.objects.values_list("entry", flat=True)
    assert set(names) == {"living", "sync", "nightly", "ended"}
    ScheduleEntry.objects.update(seen_timestamp=datetime.now(UTC) - timedelta(seconds=70))
    scheduler.schedule["sync"].total_run_count += 1
    scheduler.tick()
    assert set(names.all()) == {"sync", "nightly", "ended"}
    assert datetime.now(UTC) - entry("nightly").seen_timestamp < timedelta(seconds=5)


def test_entry_whose_schedule_raises_is_written_and_beat_goes_on(
    app: Celery, direct: DirectWriter, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.beat_schedule["broken"] = {"task": "shop.broken", "schedule": Broken()}
    followed(app)

    assert entry("broken").next_due is None
    assert "When the entry broken of the schedule is due is not known" in caplog.text


def test_beat_ticks_on_when_its_schedule_cannot_be_read(
    app: Celery, direct: DirectWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = followed(app)
    monkeypatch.setattr(ScheduleFollower, "_records", None)
    scheduler.schedule["sync"].total_run_count += 1

    assert scheduler.tick() >= 0


@pytest.mark.usefixtures("direct")
def test_time_without_an_offset_is_in_the_projects_zone(app: Celery, settings: Settings) -> None:
    settings.USE_TZ = False
    settings.TIME_ZONE = "America/New_York"
    scheduler = Scheduler(app)
    last = datetime(2026, 7, 1, 12, tzinfo=UTC)
    scheduler.schedule["local"] = BeatEntry(
        "local",
        "shop.local",
        schedule=schedule(86_400 * 365 * 10, app=app),
        last_run_at=datetime(2026, 7, 1, 8),  # noqa: DTZ001
        total_run_count=1,
        app=app,
    )
    ScheduleFollower(app, scheduler).follow()

    assert entry("local").last_sent == last
    assert entry("local").next_due == last + timedelta(days=3650)


def test_task_on_the_schedule_keeps_its_row_in_every_process(
    app: Celery, direct: DirectWriter
) -> None:
    followed(app)
    expired = datetime.now(UTC) - timedelta(days=1)
    SystemTask.objects.update(expires=expired)
    factories.system_task("shop.gone", expires=expired)
    delete_expired([], defaultdict(set))

    assert "shop.gone" not in SystemTask.objects.values_list("name", flat=True)
    assert SystemTask.objects.get(name="shop.sync").expires is None


@pytest.mark.parametrize(
    ("when", "words"),
    [
        (schedule(10), "every 10 seconds"),
        (schedule(1), "every second"),
        (schedule(0.5), "every 0.5 seconds"),
        (schedule(90), "every 90 seconds"),
        (schedule(3600), "every hour"),
        (schedule(timedelta(days=2)), "every 2 days"),
        (crontab(), "every minute"),
        (crontab("*/5"), "every 5 minutes"),
        (crontab("*/7"), "crontab */7 * * * *"),
        (crontab("15"), "every hour at minute 15"),
        (crontab("5", "14"), "at 14:05 every day"),
        (crontab("0", "0", "1"), "at 00:00 on Monday"),
        (crontab("0", "0", "0"), "at 00:00 on Sunday"),
        (crontab("0", "0", "fri"), "at 00:00 on Fri"),
        (crontab("0", "0", day_of_month="1"), "at 00:00 on day 1 of the month"),
        (crontab("0", "0", "1-5"), "crontab 0 0 * * 1-5"),
        (crontab("0", "0", day_of_month="1", month_of_year="1"), "crontab 0 0 1 1 *"),
        (None, ""),
    ],
)
def test_schedule_is_said_in_words(when: Any, words: str) -> None:
    assert in_words(when).partition(" (")[0] == words


def test_failure_to_follow_is_logged(
    app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(beat, "writer", None)
    followed(app)

    assert any(record.levelno == logging.ERROR for record in caplog.records)
