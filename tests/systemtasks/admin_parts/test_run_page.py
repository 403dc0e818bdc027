"""The page of a run: its time line, its family, errors like its own, and the last success."""

import json
import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from systemtasks.admin_parts import errors, timeline
from systemtasks.admin_parts.errors import errors_of, normalised
from systemtasks.admin_parts.family import CHILDREN
from systemtasks.models import SystemTask, TaskRun
from systemtasks.states import State, Status
from tests import factories
from tests.systemtasks.test_admin import RUNS, body, listed, page_of

pytestmark = pytest.mark.django_db

FAILED = {"state": State.FAILURE, "status": Status.ERROR}


def run_of(task: SystemTask, minutes: float = 0, **fields: Any) -> TaskRun:
    start = timezone.now() - timedelta(minutes=minutes)
    values: dict[str, Any] = {"start_timestamp": start, "finish_timestamp": start}
    return factories.task_run(task, **{**values, **fields})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("KeyError: 'order 17'", "KeyError: 'order 4711'"),
        ("E: 10.0.0.7:5432 timed out after 1.5 s", "E: 10.1.22.3:99 timed out after 30 s"),
        ("E: <A object at 0x7f51e63b9e10>", "E: <A object at 0x7f00000000ff>"),
        (
            "E: no run 9f3ae529-6a1f-4be0-9f3a-e5296a1f4be0",
            "E: no run 00000000-6a1f-4be0-9f3a-e5296a1f4be1",
        ),
        ("E: fe80::1ff:fe23:4567:890a is away", "E: fe80::aaaa:bbbb:cccc:1 is away"),
        ("E: nobody at a.b+c@shop.example", "E: nobody at nina@example.org"),
        ("E: at 12:30:05", "E: at 09:01:44"),
        ("E: no blob 5d41402abc4b2a76", "E: no blob ffab98765c432101"),
    ],
)
def test_errors_are_the_same_but_for_numbers_ids_and_addresses(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("KeyError: 'name'", "KeyError: 'price'"),
        ("ValueError: 1", "TypeError: 1"),
        ("E: utf8 is meant", "E: utf16 is meant"),
    ],
)
def test_errors_that_say_something_else_are_not_the_same(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


def test_run_says_how_often_its_error_has_been_and_since_when(staff: Client) -> None:
    task = factories.system_task()
    oldest = run_of(task, 3 * 24 * 60, exception="E: card 1 declined", **FAILED)
    run_of(task, 60, exception="E: card 2 declined", **FAILED)
    run_of(task, 50, exception="E: another", **FAILED)
    run_of(factories.system_task("other"), 40, exception="E: card 3 declined", **FAILED)
    failed = run_of(task, 30, exception="E: card 4 declined", **FAILED)
    page = body(staff, page_of(failed))
    assert oldest.start_timestamp is not None
    assert f"The same error 3 times since {oldest.start_timestamp:%B} " in page
    assert "The same error" not in body(staff, page_of(TaskRun.objects.get(exception="E: another")))


def test_errors_are_counted_among_the_newest_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    task = factories.system_task()
    for minutes in range(6):
        run_of(task, minutes, exception="E: 1" if minutes % 2 else "", **FAILED)
    found = errors_of(task)
    assert ([group.count for group in found.groups], found.bound) == ([3], "")
    monkeypatch.setattr(errors, "RUNS_LIMIT", 3)
    found = errors_of(task)
    assert [group.count for group in found.groups] == [1]
    assert found.bound == "among its newest 3 runs"
    monkeypatch.setattr(errors, "ERRORS_LIMIT", 0)
    assert errors_of(task).bound == "among its newest 0 errors"


def test_number_of_an_error_leads_to_the_list_of_exactly_these_runs(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = factories.system_task()
    same = [run_of(task, m, exception=f"E: card {m} declined", **FAILED) for m in range(3)]
    retried = {"state": State.RETRY, "status": Status.WARNING}
    same.append(run_of(task, 9, exception="E: card 9 declined", **retried))
    run_of(task, 1, exception="E: another", **FAILED)
    run_of(factories.system_task("other"), 1, exception="E: card 1 declined", **FAILED)
    for page, number in ((page_of(same[2]), "The same error 4 times[^<]*"), (page_of(task), "4")):
        (query,) = re.findall(rf'href="{RUNS}\?(same_error=[^"]*)">{number}<', body(staff, page))
        name, value = query.split("=")
        assert listed(staff, RUNS, **{name: value}) == same
    page = body(staff, RUNS, same_error=str(same[0].pk))
    assert "Same error: <b>E: card … declined</b>" in page
    assert '<small data-live="count">4</small>' in page
    assert f'<input type="hidden" name="same_error" value="{same[0].pk}">' in page
    assert listed(staff, RUNS, same_error=str(same[0].pk), state="retry") == same[3:]
    monkeypatch.setattr(errors, "RUNS_LIMIT", 2)
    page = body(staff, RUNS, same_error=str(same[0].pk))
    assert "E: card … declined (among its newest 2 runs)" in page
    assert '<small data-live="count">1</small>' in page


@pytest.mark.parametrize("value", ["x", "0190c1a2-0000-7000-8000-000000000000", "the success"])
def test_error_that_no_run_has_leaves_no_row_and_the_list_says_so(
    staff: Client, value: str
) -> None:
    success = run_of(factories.system_task())
    page = body(staff, RUNS, same_error=str(success.pk) if value == "the success" else value)
    assert "This list cannot be filtered by “Same error: " in page
    assert '<small data-live="count">0</small>' in page


def times(**seconds: float) -> dict[str, datetime]:
    start = datetime(2024, 6, 1, 12, tzinfo=timezone.get_default_timezone())
    return {f"{name}_timestamp": start + timedelta(seconds=at) for name, at in seconds.items()}


def test_bar_shows_how_long_a_run_was_held_waited_and_ran() -> None:
    task = factories.system_task()
    run = factories.task_run(task, **times(sent=0, eta=50, start=75, finish=100))
    drawn = timeline.timeline([run])
    assert drawn is not None
    [row] = drawn.rows
    assert [(part.kind, part.x, part.width) for part in row.parts] == [
        ("held", 0, 500), ("wait", 500, 250), ("successful", 750, 250),
    ]  # fmt: skip
    assert row.text == "held until due for 50.0 s, waited 25.0 s, ran 25.0 s"


def test_attempts_have_one_scale_and_no_bar_leaves_it_whatever_the_clocks_say() -> None:
    task = factories.system_task()
    first = factories.task_run(task, state=State.RETRY, **times(sent=2, start=0, finish=10))
    second = factories.task_run(task, attempt=2, **times(sent=10, eta=90, start=90, finish=90))
    drawn = timeline.timeline([second, first])
    assert drawn is not None
    assert [row.run for row in drawn.rows] == [first, second]
    parts = [part for row in drawn.rows for part in row.parts]
    assert all(part.x >= 0 and part.width > 0 for part in parts)
    assert all(part.x + part.width <= timeline.WIDTH + timeline.NARROWEST for part in parts)
    queued = factories.task_run(
        task, state=State.QUEUED, start_timestamp=None, finish_timestamp=None
    )
    assert timeline.timeline([queued]) is None


def test_family_leads_to_root_parent_and_children(staff: Client) -> None:
    task = factories.system_task()
    root = run_of(task, celery_id="the-root")
    parent = run_of(task, celery_id="the-parent", root_id="the-root", parent_id="the-root")
    run = run_of(
        task, celery_id="the-run", root_id="the-root", parent_id="the-parent", parent_run=parent.pk
    )
    children = [run_of(task, parent_id="the-run", root_id="the-root") for _ in range(3)]
    family = staff.get(page_of(run)).context["family"]
    assert (family.root, family.parent, family.children) == (root, parent, children)
    page = body(staff, page_of(run))
    for relative in (root, parent, *children):
        assert f'href="{page_of(relative)}"' in page
    for _ in range(CHILDREN):
        run_of(task, parent_id="the-run", root_id="the-root")
    assert f"more than {CHILDREN} children" in body(staff, page_of(run))
    assert "st-family" not in body(staff, page_of(run_of(task)))


def test_group_and_chord_of_a_run_are_in_its_family(staff: Client) -> None:
    task = factories.system_task()
    header = {"group": "the-group", "chord": "the-callback"}
    first, second = (run_of(task, celery_id=f"part-{n}", sent_options=header) for n in range(2))
    run_of(task, sent_options={"group": "another", "chord": "x"})
    page = body(staff, page_of(first))
    assert "Header of the chord" in page
    assert f'href="{page_of(second)}"' in page
    assert "not sent yet" in page
    of_group: dict[str, Any] = {
        "sent_options": {"group": "the-group"}
    }  # as Celery's callbacks have it
    callback = run_of(
        task, celery_id="the-callback", parent_id="part-1", parent_run=second.pk, **of_group
    )
    for run in (first, second):
        family = staff.get(page_of(run)).context["family"]
        assert (family.group, family.callback) == ([first, second], callback)
        assert f'href="{page_of(callback)}"' in body(staff, page_of(run))
    family = staff.get(page_of(callback)).context["family"]
    assert (family.group, family.is_callback, family.parent) == ([first, second], True, second)
    assert "This run is the callback of the chord." in body(staff, page_of(callback))
    alone = [run_of(task, sent_options={"group": "no-chord"}) for _ in range(CHILDREN + 1)]
    page = body(staff, page_of(alone[0]))
    assert "Header of the chord" not in page
    assert f"more than {CHILDREN} in the group" in page


@pytest.mark.parametrize("options", [{"group": 7}, {"group": "g"}, ["group"], None])
def test_odd_ids_and_options_break_no_family(staff: Client, options: Any) -> None:
    task = factories.system_task()
    for pk in ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"):
        assert body(staff, page_of(run_of(task, id=pk, sent_options=options)))


def test_running_run_shows_its_last_progress(staff: Client) -> None:
    task = factories.system_task()
    running = {"state": State.RUNNING, "status": Status.UNKNOWN, "finish_timestamp": None}

    def bar(attributes: Any, **fields: Any) -> str:
        said = [factories.log_event("3 done", attributes=attributes), factories.log_event("A file")]
        page = body(staff, page_of(run_of(task, messages=said, **fields)))
        return page[page.index('<div data-live="progress">') :].partition("</div>")[0]

    assert 'value="3" max="10"' in bar({"done": 3, "total": 10}, **running)
    assert "3 / 10 (30%)" in bar({"done": 3, "total": 10}, **running)
    assert "<progress aria-label" in bar({"done": 3, "total": None}, **running)
    assert "<progress aria-label" in bar({"done": 30, "total": 10}, **running)
    assert "3 / 10 (30%)" in bar({"done": 3, "total": 10}, **FAILED)
    for nothing in ({"done": "3", "total": 10}, {"done": 3}, {"done": 3, "total": 1, "x": 1}, None):
        assert "<progress" not in bar(nothing, **running)
    assert "<progress" not in bar({"done": 3, "total": 10})


def test_failed_run_shows_what_differs_from_the_last_success_and_nothing_else(
    staff: Client,
) -> None:
    task = factories.system_task()
    run_of(task, 50, args=["long ago"])
    success = run_of(
        task, 40, worker="celery@a", args=[1, 2], kwargs={"currency": "EUR"}, duration=2.0,
        messages=[factories.log_event("Read 7 rows"), factories.log_event("Wrote them")],
    )  # fmt: skip
    run_of(task, 30, **FAILED)
    failed = run_of(
        task, 20, worker="celery@b", args=[1, 3], kwargs={"currency": "EUR"}, duration=9.0,
        messages=[factories.log_event("Read 8 rows"), factories.log_event("No space")], **FAILED,
    )  # fmt: skip
    run_of(task, 10)
    found = staff.get(page_of(failed)).context["comparison"]
    assert found.success == success
    assert [(one.title, one.now, one.before) for one in found.differences] == [
        ("args[1]", "3", "2"),
        ("Worker", "celery@b", "celery@a"),
        ("Duration", "9.00 s", "2.00 s"),
        ("Messages of one of them alone", "info: No space", "info: Wrote them"),
    ]
    assert "Compared with the last success" not in body(staff, page_of(success))


def test_senders_context_links_to_runs_like_it_and_to_the_run_that_was_run_again(
    staff: Client,
) -> None:
    task = factories.system_task()
    before = run_of(task)
    context = {"tenant": "acme & co", "run_again_of": str(before.pk), "parts": [1]}
    page = body(staff, page_of(run_of(task, context=context)))
    assert 'href="/admin/systemtasks/taskrun/?q=tenant%3Aacme+%26+co&amp;started=day"' in page
    assert f'href="{page_of(before)}"' in page
    assert "[1]" in page


def test_log_can_be_had_as_json_by_who_may_view_the_run(staff: Client) -> None:
    run = run_of(factories.system_task(), messages=[factories.log_event("Grün")])
    url = f"{page_of(run)}log.json"
    answer = staff.get(url)
    assert answer["Content-Type"] == "application/json; charset=utf-8"
    assert json.loads(answer.content) == run.messages
    stranger = Client()
    stranger.force_login(factories.user("other", "view_systemtask", is_staff=True))
    assert stranger.get(url).status_code == 403
    assert (
        staff.get(url.replace(str(run.pk), str(factories.system_task("x").pk))).status_code == 404
    )


def test_running_run_is_live_and_one_that_has_ended_is_not(staff: Client) -> None:
    task = factories.system_task()
    running = run_of(task, 2, state=State.RUNNING, status=Status.UNKNOWN, finish_timestamp=None)
    page = body(staff, page_of(running))
    assert "data-live-page" in page
    assert 'data-elapsed="120.' in page
    assert "data-live-page" not in body(staff, page_of(run_of(task)))


def test_number_of_queries_of_a_failed_run_is_bounded(
    staff: Client, django_assert_max_num_queries: Any
) -> None:
    task = factories.system_task()
    run_of(task, 60)
    for minutes in range(20):
        run_of(task, minutes, exception=f"E: {minutes}", parent_id="the-run", **FAILED)
    failed = run_of(
        task, 0, celery_id="the-run", root_id="a", parent_id="b", exception="E: 1", **FAILED
    )
    with django_assert_max_num_queries(14) as captured:
        staff.get(page_of(failed))
    of_parents = [
        query["sql"]
        for query in captured.captured_queries
        if re.search("parent_id. = ", query["sql"])
    ]
    assert of_parents
    assert not [sql for sql in of_parents if "ORDER BY" in sql]  # which would read all children
