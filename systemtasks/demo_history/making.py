"""Make the runs of the history, which depend on its time and its seed alone.

Besides what is usual, there is what an admin is opened for: one task fails most of the time,
another one is retried and fails, a nightly job has failed, one is overdue, one takes longer than it
used to, a worker is silent with runs in progress, and nobody takes what waits in a queue.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from systemtasks.conf import conf
from systemtasks.demo_history import catalogue
from systemtasks.demo_history.catalogue import DAY, HOUR, KINDS, MINUTE, WORKERS, Kind
from systemtasks.ids import first_id, system_task_uuid
from systemtasks.models import ScheduleEntry, SystemTask, TaskRun
from systemtasks.states import State

RUNS = 20_000
LEAST = 8000
"""The fewest runs of a history: more than those that do not depend on this number."""
SPAN = timedelta(days=29)
"""The time of the history, before its end."""
SECOND = timedelta(seconds=1)

TENANTS = ("acme", "globex", "initech", "umbrella", "hooli")
SHOPS = ("berlin", "lyon", "porto", "graz", "turin", "gent")
SUPPLIERS = ("nordwood", "papyrus", "textilia", "lumen")
HOSTS = ("db-2", "ldap-1", "printer-4", "crm.example.com", "partner.example.net")

FAILING = 3 * HOUR
"""The time for which payments have been failing, three of four."""
SILENT = 3 * HOUR
"""The time since the last sign of life of the silent worker."""
STUCK = 5 * HOUR
"""The time for which nobody has taken anything from the stuck queue."""
SYNC_FAILURES = 9
"""The last runs of the synchronisation, all of which fail after two retries."""
OVERDUE = 2 * HOUR + 40 * MINUTE
SLOWNESS = 2.4
"""The factor by which one task takes longer in the last day."""

TRACEBACK = """Traceback (most recent call last):
  File "/app/.venv/lib/python3.12/site-packages/celery/app/trace.py", line 479, in trace_task
    R = retval = fun(*args, **kwargs)
                 ^^^^^^^^^^^^^^^^^^^^
  File "/app/shop/{file}.py", line {line}, in {function}
    return client.call(**values)
           ^^^^^^^^^^^^^^^^^^^^^
{error}"""


class History:
    """The tasks, the runs and the entries of the schedule, as rows that are not saved yet."""

    def __init__(self, now: datetime, *, runs: int = RUNS, seed: int = 1) -> None:
        self.now = now.astimezone(UTC)
        self.begin = self.now - SPAN
        self.random = Random(seed)  # noqa: S311 - a history, not a secret
        self.tasks = {kind: self._task(kind) for kind in KINDS}
        self.runs: list[TaskRun] = []
        self.entries = [*self._entries()]
        self._make_scheduled()
        self._make_families()
        self._make_payments_that_fail()
        self._make_redelivered()
        self._make_rare_ends()
        self._make_unfinished()
        self._make_requests(runs - len(self.runs))
        self._show_last_runs()

    # Rows.

    def _task(self, kind: Kind) -> SystemTask:
        return SystemTask(
            uuid=system_task_uuid(kind.name, kind.uid),
            name=kind.name,
            uid=kind.uid,
            description=kind.description,
            start_timestamp=self.begin,
            finish_timestamp=self.begin,
            duration=0.0,
            messages=[],
            expires=None,
        )

    def _uuid(self, moment: datetime) -> UUID:
        """Return a UUIDv7 of that time."""
        bits = 7 << 76 | self.random.getrandbits(12) << 64 | 2 << 62 | self.random.getrandbits(62)
        return UUID(int=first_id(moment).int | bits)

    def _celery_id(self) -> str:
        return str(UUID(int=self.random.getrandbits(128), version=4))

    def _values(self, start: datetime) -> dict[str, Any]:
        """Return what the texts of a run are filled with."""
        pick = self.random
        return {
            "order": pick.randint(40_000, 49_999),
            "number": pick.randint(12, 4_000),
            "ip": f"10.4.{pick.randint(0, 3)}.{pick.randint(2, 250)}",
            "uuid": UUID(int=pick.getrandbits(128), version=4),
            "host": pick.choice(HOSTS),
            "mail": f"customer-{pick.randint(100, 999)}@example.org",
            "supplier": pick.choice(SUPPLIERS),
            "day": f"{start - DAY:%Y-%m-%d}",
        }

    def _add(
        self,
        kind: Kind,
        start: datetime,
        state: State = State.SUCCESS,
        *,
        values: dict[str, Any] | None = None,
        error: str = "",
        seconds: float | None = None,
        **fields: Any,  # noqa: ANN401 - of TaskRun
    ) -> TaskRun:
        """Add a run that started then. Fields that are given replace those that it would have."""
        values = values or self._values(start)
        seconds = seconds or kind.seconds * self.random.lognormvariate(0.0, 0.25)
        wait = self.random.expovariate(4.0)
        is_scheduled = bool(kind.words)
        finish = min(start + timedelta(seconds=seconds), self.now)
        run = TaskRun(
            id=self._uuid(start),
            system_task=self.tasks[kind],
            celery_id=self._celery_id(),
            attempt=1,
            state=state,
            status=state.outcome.status,
            queue=kind.queue,
            worker=self.random.choice(WORKERS[kind.queue]),
            sent_timestamp=start - timedelta(seconds=wait),
            start_timestamp=start,
            finish_timestamp=finish,
            sort_timestamp=start,
            wait=wait,
            duration=(finish - start).total_seconds(),
            args=[],
            kwargs={name: _argument(text, values) for name, text in kind.kwargs},
            arguments_intact=True,
            sent_options={},
            sender="gen7@beat-1" if is_scheduled else f"gen{self.random.randint(20, 29)}@web-1",
            context={} if is_scheduled else self._context(),
            exception=error.format(**values),
            expires=finish + kept if (kept := conf().expires_after) else None,
        )
        run.execution = run.id
        run.root_id = run.celery_id
        for name, value in fields.items():
            setattr(run, name, value)
        run.messages = fields.get("messages") or self._messages(kind, run, values)
        self.runs.append(run)
        return run

    def _context(self) -> dict[str, Any]:
        pick = self.random
        return {
            "tenant": pick.choice(TENANTS),
            "user": f"user-{pick.randint(1, 400)}",
            "request_id": f"{pick.getrandbits(64):016x}",
        }

    def _messages(self, kind: Kind, run: TaskRun, values: dict[str, Any]) -> list[dict[str, Any]]:
        start, finish = run.start_timestamp, run.finish_timestamp
        if start is None or finish is None:
            return []
        lines = [("info", line) for line in kind.lines]
        if run.exception:
            lines = lines[: len(lines) // 2]
        if run.status == "warning" and run.state == State.SUCCESS:
            lines.insert(len(lines) // 2, ("warning", kind.warning))
        step = (finish - start) / (len(lines) + 1)
        messages = [
            _message(start + number * step, level, kind.name, line.format(**values))
            for number, (level, line) in enumerate(lines, 1)
        ]
        if run.exception:
            messages.append(self._failure(kind, run, finish))
        return messages

    def _failure(self, kind: Kind, run: TaskRun, finish: datetime) -> dict[str, Any]:
        if run.state != State.FAILURE:
            text = f"Retry in 30 s: {run.exception}" if run.state == State.RETRY else run.exception
            return _message(finish, "warning", kind.name, text)
        name, _, message = run.exception.partition(": ")
        app, _, function = kind.name.partition(".")
        traceback = TRACEBACK.format(
            file=app, line=40 + len(function) * 7, function=function, error=run.exception
        )
        error = {"type": name, "message": message, "traceback": traceback}
        return _message(finish, "error", kind.name, run.exception, exception=error)

    # The usual runs.

    def _usual(self, kind: Kind, start: datetime, **fields: Any) -> TaskRun:  # noqa: ANN401
        """Add a run that ends in one of the ways in which this task's runs end."""
        chance = self.random.random()
        if chance < kind.failures:
            error = self.random.choice(kind.errors)
            return self._add(kind, start, State.FAILURE, error=error, **fields)
        if chance < kind.failures + kind.warnings:
            fields["status"] = "warning"
        return self._add(kind, start, **fields)

    def _starts(self, kind: Kind) -> Iterator[datetime]:
        """Yield the times at which the schedule has sent the task."""
        if kind.at is not None:
            midnight = self.begin.replace(hour=0, minute=0, second=0, microsecond=0)
            moment, every = midnight + kind.at, DAY
        else:
            every = kind.every or DAY
            moment = self.begin + self.random.random() * every
            if kind is catalogue.REORDER:
                moment = self.now - OVERDUE - every * (SPAN // every)
        while moment < self.now - 10 * MINUTE:
            if moment >= self.begin and moment != self.now - OVERDUE:
                yield moment
            moment += every

    def _entries(self) -> Iterator[ScheduleEntry]:
        for kind in KINDS:
            if kind.words:
                yield self._entry(kind, words=kind.words)
        january = datetime(self.now.year + 1, 1, 1, 1, tzinfo=UTC)
        words = "crontab 0 1 1 1 * (UTC)"
        yield self._entry(catalogue.VOUCHERS, words=words, next_due=january)
        yield self._entry(catalogue.CATALOGUE, words="every day", enabled=False)

    def _entry(self, kind: Kind, **fields: Any) -> ScheduleEntry:  # noqa: ANN401 - of the model
        return ScheduleEntry(
            app="shop",
            entry=f"{kind.name}:{kind.uid}" if kind.uid else kind.name,
            task=kind.name,
            uid=kind.uid,
            args=[],
            kwargs={},
            arguments_intact=True,
            sent_options={},
            seen_timestamp=self.now,
            **fields,
        )

    def _make_scheduled(self) -> None:
        entries = {(entry.task, entry.uid): entry for entry in self.entries}
        for kind in KINDS:
            if not kind.words:
                continue
            starts = [*self._starts(kind)]
            for number, start in enumerate(starts):
                is_last = len(starts) - number
                if kind is catalogue.CLOSE_DAY:
                    continue
                if kind is catalogue.SYNC and is_last <= SYNC_FAILURES:
                    self._retried(kind, start, State.FAILURE)
                elif kind is catalogue.REPORT and is_last in (1, 9, 16):
                    self._add(kind, start, State.FAILURE, error=kind.errors[0], seconds=187.0)
                elif kind is catalogue.REINDEX and start >= self.now - DAY:
                    self._usual(kind, start, seconds=kind.seconds * SLOWNESS)
                else:
                    self._usual(kind, start)
            entry = entries[kind.name, kind.uid]
            entry.last_sent = due = starts[-1]
            while due <= self.now:
                due += kind.every or DAY
            entry.next_due = self.now - OVERDUE if kind is catalogue.REORDER else due

    def _retried(self, kind: Kind, start: datetime, end: State) -> None:
        """Add a run that is retried twice, and ends like this."""
        celery_id, values = self._celery_id(), self._values(start)
        error, context = self.random.choice(kind.errors), {} if kind.words else self._context()
        for attempt, state in enumerate((State.RETRY, State.RETRY, end), 1):
            self._add(
                kind, start, state, values=values,
                error=error if state != State.SUCCESS else "",
                celery_id=celery_id, root_id=celery_id, attempt=attempt, context=context,
            )  # fmt: skip
            start += 33 * SECOND

    def _make_families(self) -> None:
        """Add the runs that close the books: each sends one for each shop, and a chord's sum."""
        for start in self._starts(catalogue.CLOSE_DAY):
            root = self._add(catalogue.CLOSE_DAY, start)
            of_root: dict[str, Any] = {"root_id": root.celery_id, "sender": root.worker}
            shops = [
                self._usual(
                    catalogue.CLOSE_SHOP, start + 2 * SECOND, args=[shop],
                    parent_id=root.celery_id, parent_run=root.id, context={}, **of_root,
                )
                for shop in SHOPS
            ]  # fmt: skip
            last = max(shops, key=lambda run: run.finish_timestamp or start)
            end = (last.finish_timestamp or start) + SECOND
            sums = [[shop, self.random.randint(2_000, 90_000)] for shop in SHOPS]
            self._add(
                catalogue.SUM_UP, end, args=[sums],
                parent_id=last.celery_id, parent_run=last.id, context={}, **of_root,
            )  # fmt: skip

    def _make_requests(self, number: int) -> None:
        """Add this many runs that requests have sent, most of them by day."""
        kinds = [kind for kind in KINDS if kind.weight]
        weights = [kind.weight for kind in kinds]
        made = len(self.runs)
        while (left := made + number - len(self.runs)) > 0:
            [kind] = self.random.choices(kinds, weights)
            start = self.begin + self.random.random() * SPAN
            is_day = 6 <= start.hour < 21
            if self.random.random() > (1.0 if is_day else 0.3) or start > self._last_of(kind):
                continue
            if kind is catalogue.HOOK and left > 2 and self.random.random() < kind.failures:
                self._retried(kind, start, self.random.choice((State.SUCCESS, State.FAILURE)))
                continue
            run = self._usual(kind, start)
            if kind is catalogue.CHARGE and left > 1 and run.state == State.SUCCESS:
                self._invoice(run)

    def _last_of(self, kind: Kind) -> datetime:
        """Return the time after which no request's run of this task starts."""
        if kind.queue == "media":
            return self.now - STUCK
        if kind.queue == "imports":
            return self.now - SILENT - 30 * MINUTE
        if kind is catalogue.CHARGE:
            return self.now - FAILING
        return self.now - timedelta(seconds=4 * kind.seconds + 5)

    def _invoice(self, payment: TaskRun) -> None:
        """Add the run that a payment has sent."""
        start = (payment.finish_timestamp or self.now) + SECOND / 4
        if start > self.now - 10 * SECOND:
            return
        self._add(
            catalogue.INVOICE, start, root_id=payment.celery_id, parent_id=payment.celery_id,
            parent_run=payment.id, sender=payment.worker, context=payment.context,
        )  # fmt: skip

    # The troubles for which somebody opens the admin.

    def _make_payments_that_fail(self) -> None:
        refused = catalogue.CHARGE.errors[0]
        step = 5 * MINUTE
        for number in range(FAILING // step):
            start = self.now - 90 * SECOND - number * step
            if number % 4 == 3:
                self._invoice(self._add(catalogue.CHARGE, start))
            else:
                self._add(catalogue.CHARGE, start, State.FAILURE, error=refused)

    def _make_redelivered(self) -> None:
        """Add messages that were executed twice, because their first worker went away."""
        kind = catalogue.IMPORT
        for days in (2, 11, 23):
            start = self.now - timedelta(days=days, hours=1)
            seen = start + 40 * SECOND
            text = f"The worker celery@worker-3 is gone: its last sign of life was at {seen:%FT%TZ}"
            first = self._add(kind, start, State.FAILURE, error=text, seconds=40.0, executions=2)
            self._add(
                kind, start + 10 * MINUTE, number=2, redelivered=True, message=first.id,
                celery_id=first.celery_id, root_id=first.celery_id, kwargs=first.kwargs,
                sent_timestamp=first.sent_timestamp, wait=600.0, context=first.context,
            )  # fmt: skip

    def _make_rare_ends(self) -> None:
        by_name = {kind.name: kind for kind in KINDS}
        for name, state, text, hours in (
            ("exports.orders", State.REVOKED, "Revoked", (7, 130)),
            ("support.classify_mail", State.IGNORED, "", (3, 9, 31, 200)),
            ("shop.recommend", State.REJECTED, "Rejected, and not sent again", (11, 77)),
        ):
            for ago in hours:
                self._add(by_name[name], self.now - ago * HOUR, state, error=text)
        for hours_ago in (26, 29, 31):
            sent = self.now - hours_ago * HOUR
            text = (
                f"Sent at {sent:%FT%TZ}, never started: the broker has lost it, or its worker does "
                "not record"
            )
            kind = by_name["mail.send_password_reset"]
            finish = sent + DAY
            self._add(
                kind, sent, State.LOST, error=text, start_timestamp=None, worker="",
                sent_timestamp=sent, finish_timestamp=finish, wait=None, duration=None,
                execution=None,
                messages=[_message(finish, "warning", kind.name, text, queue=kind.queue)],
            )  # fmt: skip

    def _make_unfinished(self) -> None:
        now = self.now
        for kind, minutes, done, total in (
            (catalogue.STATEMENT, 42.0, 640, 1000),
            (catalogue.NEWSLETTER, 3.5, 8_200, 12_500),
            (catalogue.REINDEX, 1.2, None, None),
            (catalogue.HOOK, 0.02, None, None),
        ):
            self._running(kind, now - minutes * MINUTE, now, done, total)
        for minutes in (5, 20):
            seen = now - SILENT
            self._running(catalogue.IMPORT, seen - minutes * MINUTE, seen, 120 * minutes, 9000)
        for number in range(31):
            kind = catalogue.VIDEO if number % 6 == 5 else catalogue.THUMBNAILS
            self._queued(kind, now - STUCK + number * STUCK / 31)
        for kind, seconds in ((catalogue.HOOK, 2), (catalogue.CHARGE, 1)):
            self._queued(kind, now - seconds * SECOND)
        self._queued(catalogue.NEWSLETTER, now - 8 * MINUTE, eta_timestamp=now + 50 * MINUTE)

    def _running(
        self, kind: Kind, start: datetime, seen: datetime, done: int | None, total: int | None
    ) -> None:
        messages = [_message(start + SECOND / 10, "info", kind.name, "Began")]
        if done is not None and total is not None:
            text = f"{done:g} of {total:g} done ({done / total:.0%})"
            messages.append(_message(seen, "info", kind.name, text, done=done, total=total))
        self._add(
            kind, start, State.RUNNING, finish_timestamp=None, duration=None, messages=messages,
            lease=UUID(int=self.random.getrandbits(128), version=4), seen_timestamp=seen,
        )  # fmt: skip

    def _queued(self, kind: Kind, sent: datetime, **fields: Any) -> None:  # noqa: ANN401
        self._add(
            kind, sent, State.QUEUED, sent_timestamp=sent, start_timestamp=None, execution=None,
            finish_timestamp=None, sort_timestamp=None, wait=None, duration=None, worker="",
            **fields,
        )  # fmt: skip

    def _show_last_runs(self) -> None:
        """Let each task show the outcome of its last run, as the recorder does."""
        last: dict[UUID, TaskRun] = {}
        for run in self.runs:
            if run.sort_timestamp and run.start_timestamp and run.is_finished:
                before = last.get(run.system_task_id)
                if not before or before.sort_timestamp < run.sort_timestamp:
                    last[run.system_task_id] = run
        for task in self.tasks.values():
            if run_of_task := last.get(task.uuid):
                for name in (
                    "start_timestamp", "finish_timestamp", "duration", "status", "messages",
                    "expires", "execution", "sort_timestamp",
                ):  # fmt: skip
                    setattr(task, name, getattr(run_of_task, name))


def _argument(text: str, values: dict[str, Any]) -> int | str:
    filled = text.format(**values)
    return int(filled) if filled.isdecimal() else filled


def _message(
    moment: datetime,
    level: str,
    logger: str,
    event: str,
    **attributes: Any,  # noqa: ANN401 - any JSON
) -> dict[str, Any]:
    timestamp = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {
        "timestamp": timestamp,
        "log_level": level,
        "logger": logger,
        "event": event,
        "attributes": attributes,
    }
