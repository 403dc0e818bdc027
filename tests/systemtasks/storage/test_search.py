"""The texts for the search follow the tasks, and a search finds what is not written yet."""

from collections.abc import Iterable

import psycopg
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from systemtasks import models
from systemtasks.models import SearchText, SystemTask
from systemtasks.storage import rows
from tests import factories

pytestmark = pytest.mark.django_db


def found(*words: str) -> list[str]:
    return sorted(SystemTask.objects.containing(words).values_list("name", flat=True))


def say(task: SystemTask, *events: str) -> None:
    task.messages = [factories.log_event(event) for event in events]
    task.save()


def versions() -> Iterable[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT xmin::text FROM systemtasks_searchtext ORDER BY uuid")
        return [version for (version,) in cursor.fetchall()]


def test_a_text_is_written_once_for_all_changes_of_its_task() -> None:
    task = factories.system_task("app.sync", description="Synchronise.", messages=[])
    say(task, "The disk is full")

    assert rows.write_search_texts(10) == 2
    text = SearchText.objects.get()
    assert text.uuid == task.uuid
    assert "APP.SYNC" in text.document
    assert "THE DISK IS FULL" in text.document
    assert rows.write_search_texts(10) == 0


def test_at_most_so_many_changes_are_taken_oldest_first() -> None:
    for number in range(5):
        factories.system_task(f"t{number}")

    assert [rows.write_search_texts(2) for _ in range(4)] == [2, 2, 1, 0]
    assert SearchText.objects.count() == 5


@pytest.mark.django_db(transaction=True)
def test_a_text_that_is_the_same_as_before_is_not_written() -> None:
    task = factories.system_task("app.sync", messages=[factories.log_event("The disk is full")])
    rows.write_search_texts(10)
    before = versions()

    say(task, "The disk is full")
    assert rows.write_search_texts(10) == 1
    assert versions() == before


def test_a_search_finds_a_change_before_and_after_its_text_is_written() -> None:
    task = factories.system_task("app.sync", messages=[factories.log_event("The disk is full")])
    for _ in range(2):
        assert found("disk", "FULL") == ["app.sync"]
        rows.write_search_texts(10)

    say(task, "All is well")
    for _ in range(2):
        assert (found("full"), found("well")) == ([], ["app.sync"])
        rows.write_search_texts(10)


def test_of_very_many_changes_only_the_last_are_searched_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "PENDING_LIMIT", 1)
    first, second = (factories.system_task(name, messages=[]) for name in ("first", "second"))
    rows.write_search_texts(10)
    say(first, "The disk is full")
    say(second, "The disk is full")

    assert found("disk") == ["second"]
    rows.write_search_texts(10)
    assert found("disk") == ["first", "second"]


def test_the_text_goes_with_its_task() -> None:
    factories.system_task("app.sync").delete()
    kept = factories.system_task("app.kept")
    rows.write_search_texts(10)
    gone = factories.system_task("app.gone")
    rows.write_search_texts(10)
    gone.delete()

    assert [text.uuid for text in SearchText.objects.all()] == [kept.uuid]


def test_one_process_writes_the_texts_at_a_time() -> None:
    factories.system_task("app.sync")
    parameters = {**connection.get_connection_params(), "cursor_factory": psycopg.Cursor}
    with psycopg.connect(**parameters) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtext('systemtasks.search'))")
        assert rows.write_search_texts(10) is None
    assert rows.write_search_texts(10) == 1


def test_a_search_reads_no_whole_table() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    with CaptureQueriesContext(connection) as queries:
        SystemTask.objects.containing(["clean", "100%"])
    plan = explained(queries[0]["sql"])
    assert "Bitmap Index Scan on searchtext_document" in plan
    assert "Seq Scan" not in plan


def explained(statement: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {statement}")
        return "\n".join(line for (line,) in cursor.fetchall())
