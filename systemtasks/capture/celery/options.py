"""Read a task's own options for how it is recorded.

They are arguments of its decorator, `@shared_task(systemtasks_uid=…)`, or attributes of its class.
"""

import inspect
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeAlias, TypeVar

from celery import Celery, Task

from systemtasks.conf import conf, is_expiry
from systemtasks.own_logger import own_logger
from systemtasks.runs.exceptions import printable
from systemtasks.runs.kinds import is_of
from systemtasks.runs.records import NAME_LIMIT, TaskInfo
from systemtasks.runs.secret_names import hides
from systemtasks.runs.secret_texts import mask_text
from systemtasks.runs.values import clean_column, clean_text

logger = own_logger(__name__)

UNNAMED = "(a message without a task's name)"
"""The name of the task if a message names none, or an empty one."""

T = TypeVar("T")

POLLING = {"celery.chord_unlock"}
"""Celery's own tasks that retry themselves, every second by default, until others have ended."""

AnyTask: TypeAlias = "Task[Any, Any]"
"""In quotes, because Celery 5.6 has no generic Task at run time."""


@cache
def task_info(task: AnyTask) -> TaskInfo:
    """Return the properties of this task that are the same in all its runs.

    An invalid option is logged, and its default is used.
    """
    description = str.__str__(_option(task, "description", _is_text, "a string", ""))
    masked = frozenset(
        map(str.__str__, _option(task, "masked", _are_texts, "a list of parameter names", ()))
    )
    description = clean_text(description or _paragraph(task), conf().TEXT_LIMIT)
    return TaskInfo(
        name=_name(task.name),
        description=mask_text(description) if conf().MASK_TEXTS else description,
        expires_after=_option(
            task,
            "expires_after",
            is_expiry,
            "None or a timedelta of up to 36500 days",
            conf().expires_after,
        ),
        recorded=_option(task, "record", _is_bool, "True or False", True),
        save_on_success=_option(task, "save_on_success", _is_bool, "True or False", True),
        polls=task.name in POLLING,
        uid=_option(task, "uid", callable, "a function of the task's arguments", None),
        masked=masked,
        **_parameters(task, masked),
    )


def info_of(app: Celery, name: str) -> TaskInfo:
    """Return the properties of the task with this name, or the defaults if it is not registered."""
    task = app.tasks.get(name)
    return default_info(name) if task is None else task_info(task)


def default_info(name: str) -> TaskInfo:
    """Return the defaults for a task that is not registered in this process."""
    return TaskInfo(_name(name), expires_after=conf().expires_after, known=False)


def _name(name: str) -> str:
    cleaned = clean_column(str.__str__(name), NAME_LIMIT)
    return cleaned if cleaned.strip() else UNNAMED


def _option(task: AnyTask, name: str, fits: Callable[[object], bool], what: str, default: T) -> T:
    # Not `getattr`, which would bind a function as a method.
    value = inspect.getattr_static(task, f"systemtasks_{name}", default)
    if value is default or fits(value):
        own: T = value
        return own
    limit = conf().TEXT_LIMIT
    logger.warning(
        "systemtasks_%s of %s must be %s, not %r; it is taken as %r",
        name,
        task.name,
        what,
        printable(value, limit),
        printable(default, limit),
    )
    return default


def _is_text(value: object) -> bool:
    return is_of(value, str)


def _are_texts(value: object) -> bool:
    kinds: tuple[type[Iterable[object]], ...] = (list, tuple, set, frozenset)
    return any(type(value) is kind and all(map(_is_text, value)) for kind in kinds)


def _is_bool(value: object) -> bool:
    return type(value) is bool


def _paragraph(task: AnyTask) -> str:
    docstring = task.__doc__
    if not is_of(docstring, str):
        return ""
    docstring = inspect.cleandoc(str.__str__(docstring)).strip()
    return " ".join(docstring.split("\n\n")[0].split())


def _parameters(task: AnyTask, masked: frozenset[str]) -> dict[str, Any]:
    """Return the fields of TaskInfo that say which of the task's arguments are masked."""
    try:
        parameters = inspect.signature(task.run).parameters.values()
    except (TypeError, ValueError):
        return {}
    kinds = inspect.Parameter
    positional = [
        parameter
        for parameter in parameters
        if parameter.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]

    def is_masked(parameter: inspect.Parameter) -> bool:
        return parameter.name in masked or hides(parameter.name)

    more = next((one for one in parameters if one.kind == kinds.VAR_POSITIONAL), None)
    others = next((one for one in parameters if one.kind == kinds.VAR_KEYWORD), None)
    return {
        "masked_positions": tuple(i for i, one in enumerate(positional) if is_masked(one)),
        "masked_from": len(positional) if more and is_masked(more) else None,
        "parameters": tuple(parameter.name for parameter in positional),
        "has_more": more is not None,
        "unmasked_keywords": frozenset(parameter.name for parameter in parameters)
        if others and is_masked(others)
        else None,
    }
