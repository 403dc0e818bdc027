"""Read the facts for the page of a run that are not columns of the run."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode

from systemtasks.models import TaskRun
from systemtasks.rerun import OF
from systemtasks.states import Status

API_NAME = "systemtasks_api:task-run-detail"
"""The API's name for the address of a run, in projects that have the API."""


@dataclass(frozen=True, slots=True)
class ContextItem:
    """A key of the sender's context, its value as text, and the query that finds others like it."""

    key: str
    text: str
    query: str
    """For the list of runs, or "" if the search cannot find the value."""
    run: str
    """The id of the run that it names, or ""."""


def context_items(run: TaskRun) -> Iterator[ContextItem]:
    """Yield the sender's context: who sent the run, and for whom."""
    for key, value in run.context.items() if isinstance(run.context, dict) else ():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        is_found = isinstance(value, (str, int)) and not isinstance(value, bool) and text
        query = urlencode({"q": f"{key}:{text}", "started": "day"}) if is_found else ""
        yield ContextItem(key, text, query, text if key == OF else "")


def curl_line(request: HttpRequest, run: TaskRun) -> str:
    """Return the line that reads the run from the API, or "" in a project without it."""
    try:
        url = request.build_absolute_uri(reverse(API_NAME, args=[run.pk]))
    except NoReverseMatch:
        return ""
    return f"curl --header 'Authorization: Bearer <token>' '{url}'"


def links(request: HttpRequest, run: TaskRun) -> dict[str, Any]:
    """Return what the page offers to copy."""
    return {"page_url": request.build_absolute_uri(request.path), "curl": curl_line(request, run)}


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run, as it has last reported it."""

    done: float
    total: float | None
    """The whole of which `done` is a part, or None if it is not known."""
    text: str


def progress_of(run: TaskRun) -> Progress | None:
    """Return how far a run is that has not ended, or how far it was that has not succeeded."""
    if run.is_finished and run.status == Status.SUCCESSFUL:
        return None
    for message in reversed(run.messages if isinstance(run.messages, list) else []):
        attributes = message.get("attributes") if isinstance(message, dict) else None
        if not isinstance(attributes, dict) or attributes.keys() != {"done", "total"}:
            continue
        done, total = attributes["done"], attributes["total"]
        if type(done) not in (int, float) or type(total) not in (int, float, NoneType):
            continue
        if total is None or not 0 <= done <= total or total <= 0:
            return Progress(done, None, str(message.get("event", "")))
        text = f"{done:g} / {total:g} ({done / total:.0%})"
        return Progress(done, total, text)
    return None
