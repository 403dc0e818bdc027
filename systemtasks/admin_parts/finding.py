"""Read a search for runs: ids as they are pasted, names of tasks, errors, senders' contexts."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import Q, Value
from django.db.models.functions import Upper
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import pgettext

from systemtasks.admin_parts.counting import VALUE_LIMIT
from systemtasks.admin_parts.text import with_unseen_shown
from systemtasks.ids import first_id
from systemtasks.models import PENDING_LIMIT, SearchChange, SearchText, SystemTask, TaskRun

MOST_FOUND = 8
"""Tasks, and runs, that a palette offers."""

SHORTEST_TEXT = 2

INDEXED_TEXT = 3

CANDIDATES = 1_000
"""Tasks whose text has the words, of which each is then looked at."""

NEWEST_TASKS = 10_000
"""Tasks that are looked at if there are more candidates."""

LOGGED = re.compile(r"([^\s\[\]]+)\[([^\s\[\]]+)\]")
"""A run as Celery's log names it: `shop.tasks.charge[4ad3d2f6-…]`, in any line."""

OF_AN_ID = re.compile(r"[0-9a-f-]{4,36}", re.IGNORECASE)
"""A text that may be a part of a UUID."""

OF_CONTEXT = re.compile(r"([A-Za-z_][\w.-]{0,63}):(\S.*)")
"""A key of the sender's context and its value: `tenant:acme`."""

WORD = re.compile(r'"([^"]+)"|(\S+)')
"""A word of a search, or several in quotes."""

IN_INDEX = re.compile(r"[^\W_]{3}")
"""The least that a word needs to be found by the index of the errors."""

ERRORS_LIMIT = 1_000
"""The runs that are found by their error: the newest ones."""

ERROR_DAYS = (2, 10, None)
"""The days in which they are looked for, until there are enough of them."""

WORDS_LIMIT = 32
"""The words by which errors are searched at most. Postgres takes 2 seconds for a thousand."""


@dataclass(frozen=True, slots=True)
class Search:
    """The meaning of a search for runs."""

    found: Q
    """The condition that every run is found by which is found by an index."""
    unindexed: Q = field(default_factory=Q)
    """A condition without an index. It is only used in a short span of time."""
    what: str = ""
    """The kind of the unindexed condition: "context", "part", or "" if there is none."""
    why_no_errors: str = ""
    """Why errors are not searched: "short", "long", or "" if they are, or need not be."""
    are_more_errors: bool = False
    """True if more runs than ERRORS_LIMIT have such an error, of which the newest are found."""

    def condition(self, *, is_short: bool) -> Q:
        """Return the condition for a list. `is_short` is True if its time filter leaves a day."""
        return self.found | self.unindexed if is_short and self.what else self.found


def meaning(text: str) -> Search:
    """Return the meaning of a text. The tasks that it names are read from the database."""
    text = text.strip()
    if logged := LOGGED.search(text):
        return Search(_of_id(logged[2]))
    named = _named(text.split())
    tasks = _with_runs(named)
    words = [phrase or word for phrase, word in WORD.findall(text)]
    failed: list[UUID] = []
    why_no_errors = ""
    if _whole_id(text):
        pass  # the run of this id is meant
    elif len(words) > WORDS_LIMIT:
        why_no_errors = "long"
    elif any(map(IN_INDEX.search, words)):
        failed = _newest_with(words)
    else:
        why_no_errors = "short"
    are_more = len(failed) > ERRORS_LIMIT
    found = _of_id(text)
    if tasks or failed:
        # Ids only if there are any: with both conditions, Postgres reads all runs of the tasks
        # before it puts them into order.
        has_ids = TaskRun.objects.filter(found).order_by().exists()
        others = Q(system_task__in=tasks) | Q(pk__in=failed[:ERRORS_LIMIT])
        found = found | others if has_ids else others
    if OF_AN_ID.fullmatch(text):
        part = Q(celery_id__contains=text.lower())
        return Search(found, part, "part", why_no_errors, are_more)
    pair = OF_CONTEXT.fullmatch(text)
    if pair and not named:
        key, value = pair[1], pair[2]
        context = Q(context__contains={key: value})
        if re.fullmatch(r"-?\d{1,18}", value):
            context |= Q(context__contains={key: int(value)})
        return Search(found, context, "context", why_no_errors, are_more)
    return Search(found, why_no_errors=why_no_errors, are_more_errors=are_more)


def _newest_with(words: list[str]) -> list[UUID]:
    """Return the newest runs whose error contains these words, ERRORS_LIMIT and one more at most.

    They are looked for by their index alone, and not in a condition of the list: for its order,
    Postgres might read all runs, or sort all failures. A frequent word is found in the last days.
    """
    found: list[UUID] = []
    for days in ERROR_DAYS:
        runs = TaskRun.objects.with_error(words).order_by()
        if days:
            runs = runs.filter(pk__gte=first_id(datetime.now(UTC) - timedelta(days=days)))
        found = [*runs.values_list("pk", flat=True)[: 20 * ERRORS_LIMIT]]
        if len(found) > ERRORS_LIMIT:
            break
    return sorted(found, reverse=True)[: ERRORS_LIMIT + 1]


def _whole_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _of_id(text: str) -> Q:
    """Return the condition for the beginning of a Celery id, or for the whole id of a run."""
    # Celery makes ids of lower-case letters; others may be anything.
    beginnings = {text, text.lower()}
    whole = _whole_id(text)
    if whole:
        beginnings.add(str(whole))
    condition = Q(pk=whole) if whole else Q()
    for beginning in sorted(beginnings):
        condition |= Q(celery_id__startswith=beginning)
    return condition


def _named(words: list[str]) -> list[UUID]:
    """Return the first VALUE_LIMIT tasks whose name or uid has each of these words.

    They are uuids instead of a subquery, so that the planner can use both indexes. If the text of
    more than CANDIDATES tasks has the words, the NEWEST_TASKS that ran last are looked through.
    """
    if not words:
        return []
    named = SystemTask.objects.all()
    for word in words:
        condition = Q(name__icontains=word) | Q(uid__icontains=word)
        name, colon, uid = word.rpartition(":")
        if colon:
            condition |= Q(name__iendswith=name, uid__istartswith=uid)
        named = named.filter(condition)
    return list(named.filter(_candidates(words)).values_list("uuid", flat=True)[:VALUE_LIMIT])


WITH_RUNS = """
    SELECT task FROM unnest(%s::uuid[]) AS given(task)
    CROSS JOIN LATERAL (SELECT FROM systemtasks_taskrun WHERE system_task_id = task LIMIT 1) AS run
"""


def _with_runs(tasks: list[UUID]) -> list[UUID]:
    """Return those of the tasks that have runs.

    Postgres expects runs of every task, and would read all runs in search of them.
    """
    if not tasks:
        return []
    with connections[TaskRun.objects.db].cursor() as cursor:
        cursor.execute(WITH_RUNS, [tasks])
        return [task for (task,) in cursor.fetchall()]


def _candidates(words: list[str]) -> Q:
    """Return a condition with an index that all tasks meet whose name or uid has these words."""
    # Name and uid are apart in the text of the search. Its index has parts of three characters.
    parts = [part for word in words for part in word.split(":") if len(part) >= INDEXED_TEXT]
    if parts:
        texts = SearchText.objects.all()
        for part in parts:
            texts = texts.filter(document__contains=Upper(Value(part)))
        found = list(texts.values_list("uuid", flat=True)[: CANDIDATES + 1])
        if len(found) <= CANDIDATES:
            # Tasks whose text has changed may have the words by now.
            changed = SearchChange.objects.order_by("-id").values_list("uuid", flat=True)
            return Q(uuid__in={*found, *changed[:PENDING_LIMIT]})
    newest = SystemTask.objects.order_by("-start_timestamp").values("uuid")
    return Q(uuid__in=newest[:NEWEST_TASKS])


def of_task(text: str) -> str:
    """Return the words to search the tasks for: of `name[id]`, the name."""
    logged = LOGGED.search(text)
    return logged[1] if logged else text


@dataclass(frozen=True, slots=True)
class Found:
    """A task or a run that a palette offers, or a list of runs."""

    title: str
    description: str
    url: str
    icon: str


def quick_find(user: Any, text: str) -> list[Found]:  # noqa: ANN401 - the project's own class
    """Return the tasks and the runs that a text names, of those that the user may see.

    A run is named by its id, or the beginning of it.
    """
    text = text.strip().replace("\0", "")
    if len(text) < SHORTEST_TEXT:
        return []
    found: list[Found] = []
    if user.has_perm("systemtasks.view_taskrun"):
        logged = LOGGED.search(text)
        runs = TaskRun.objects.filter(_of_id(logged[2] if logged else text))
        columns = ("id", "celery_id", "attempt", "number", "state", "status", "system_task__name")
        shown = runs.select_related("system_task").only(*columns, "system_task__uid")
        for run in shown.newest_first()[:MOST_FOUND]:
            word = run.get_status_display() if run.is_finished else run.get_state_display()
            url = reverse("admin:systemtasks_taskrun_change", args=[run.pk])
            title = with_unseen_shown(f"{run.system_task.full_name} [{run.celery_id}]")
            found.append(Found(title, str(word), url, "play_arrow"))
        if not found and meaning(text).what == "context":
            query = urlencode({"q": text, "started": "day"})
            url = f"{reverse('admin:systemtasks_taskrun_changelist')}?{query}"
            description = pgettext("systemtasks", "Its runs of the past 24 hours")
            found.append(Found(with_unseen_shown(text), description, url, "list"))
    if user.has_perm("systemtasks.view_systemtask"):
        tasks = SystemTask.objects.filter(uuid__in=_named(of_task(text).split()))
        for task in tasks.only("uuid", "name", "uid", "status").order_by("name", "uid")[
            :MOST_FOUND
        ]:
            url = reverse("admin:systemtasks_systemtask_change", args=[task.pk])
            title = with_unseen_shown(task.full_name)
            found.append(Found(title, str(task.get_status_display()), url, "task"))
    return found
