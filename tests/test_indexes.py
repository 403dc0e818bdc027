"""Every index of the runs is used by a query, and no list of the API or the admin reads all runs.

What is asked are the questions of `make benchmark-scale`, which has every filter and order.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from benchmarks.scale import fill, plans
from benchmarks.scale.asking import Statement, noted
from benchmarks.scale.databases import Database
from benchmarks.scale.questions import RUNS, Values, admin_questions, api_questions
from events import pagination
from events.filters import RUN_ORDERINGS
from systemtasks.admin_parts import counting
from systemtasks.models import TaskRun
from systemtasks.storage import partitions, rows
from systemtasks.storage.retention import delete_expired
from tests import factories

ROWS = 48_000
DAYS = 8
MOST_READ = ROWS // DAYS * 1.5
"""Rows that a statement may read: those of a day, which the longest span for any order has."""

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Values]:
    """Fill the table with the runs of DAYS days, and drop their partitions in the end."""
    monkeypatch.setattr(fill, "DAYS", DAYS)
    # Lists are counted up to a limit, which is more than there are rows here.
    monkeypatch.setattr(pagination, "COUNT_LIMIT", 100)
    monkeypatch.setattr(counting, "COUNT_LIMIT", 100)
    before = partitions.existing()
    fill.fill(Database("test", ROWS), with_statistics=False)
    yield Values()
    with connection.cursor() as cursor:
        for day in {*partitions.existing()} - {*before}:
            cursor.execute(f"DROP TABLE systemtasks_taskrun_{day:%Y%m%d}")


def urls(values: Values) -> Iterator[str]:
    """Yield every filter in every order, and no page whose rows are only found by counting."""
    for question in (*api_questions(values), *admin_questions(values)):
        if question.group.endswith("runs") and not question.name.startswith("page "):
            yield from question.urls()
    day = {"started_from": values.ago(days=3), "started_until": values.ago(days=2)}
    for order in RUN_ORDERINGS:
        yield f"{RUNS}?{urlencode({**day, 'ordering': order})}"
        yield f"{RUNS}?{urlencode({'min_duration': 10, 'ordering': order})}"


@contextmanager
def without_full_scans() -> Iterator[Any]:
    """Let Postgres read a whole table only where no index serves. Yield a cursor."""
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        try:
            yield cursor
        finally:
            cursor.execute("RESET enable_seqscan")


def read(explained: plans.Plan) -> float:
    """Return the number of rows of the table of runs that a plan has read, returned or not."""
    total = sum(read(child) for child in explained.get("Plans", ()))
    if explained.get("Relation Name", "").startswith("systemtasks_taskrun"):
        removed = sum(
            explained.get(f"Rows Removed by {what}", 0) for what in ("Filter", "Index Recheck")
        )
        total += (explained["Actual Rows"] + removed) * explained["Actual Loops"]
    return total


def statements(client: Client, url: str) -> list[Statement]:
    """Return the statements by which a URL is answered that read the runs."""
    executed: list[Statement] = []
    with noted(executed):
        answer = client.get(url)
    assert answer.status_code in (200, 400), url
    of_runs = (each for each in executed if 'FROM "systemtasks_taskrun"' in each.sql)
    return [each for each in of_runs if not each.sql.startswith("EXPLAIN")]


def indexes_in(explained: plans.Plan, whole: dict[str, str]) -> Iterator[str]:
    """Yield the names of the indexes in a plan, as those of the whole table."""
    if "Index Name" in explained:
        name: str = explained["Index Name"]
        yield whole.get(name, name)
    for child in explained.get("Plans", ()):
        yield from indexes_in(child, whole)


def statements_of_housekeeping() -> list[Statement]:
    """Execute what the writer does apart from writing, and return the statements."""
    executed: list[Statement] = []
    with noted(executed):
        rows.renew_lease(str(uuid4()))
        rows.end_orphaned_runs(timedelta(days=1).total_seconds())
        rows.end_lost_runs(timedelta(days=90).total_seconds())
        delete_expired([], defaultdict(set))
    return [each for each in executed if re.search("(FROM|UPDATE) .?systemtasks_taskrun", each.sql)]


def test_every_index_is_used_and_no_list_reads_all_runs(
    filled: Values, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "django.request")  # many questions are refused
    program = Client(
        headers={"authorization": f"Bearer {factories.token(User.objects.create_superuser('all'))}"}
    )
    browser = Client()
    browser.force_login(User.objects.get())
    whole = plans.index_names()
    used: set[str] = set()
    too_much = []
    with without_full_scans() as cursor:
        asked = [
            (url, each)
            for url in urls(filled)
            for each in statements(browser if url.startswith("/admin/") else program, url)
        ]
        assert len(asked) > 200
        for url, each in asked:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {each.sql}", each.parameters)
            [[[explained]]] = cursor.fetchall()
            used |= {*indexes_in(explained["Plan"], whole)}
            if read(explained["Plan"]) > MOST_READ:
                too_much.append(f"{url}: {plans.summary(explained)}")
        for each in statements_of_housekeeping():
            cursor.execute(f"EXPLAIN (FORMAT JSON) {each.sql}", each.parameters)
            [[[explained]]] = cursor.fetchall()
            used |= {*indexes_in(explained["Plan"], whole)}
    assert not too_much, "\n".join(too_much)
    assert {index.name for index in TaskRun._meta.indexes} - used == set()
