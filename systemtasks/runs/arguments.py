"""A run's arguments as JSON: safe, bounded, and without secrets."""

import logging
from functools import partial
from typing import Any, NamedTuple

import orjson

from systemtasks.conf import conf
from systemtasks.runs.exceptions import log_handled
from systemtasks.runs.kinds import is_of, scalar_text, type_name
from systemtasks.runs.records import NAME_LIMIT, TaskInfo
from systemtasks.runs.values import CONTAINERS, MASK, Cleaner, clean_column, describe

logger = logging.getLogger(__name__)


class Arguments(NamedTuple):
    """A run's arguments as JSON, or None if they are not kept."""

    args: str | None
    kwargs: str | None
    intact: bool = False
    """True if nothing in them was masked, cut or replaced by a description."""
    uid: str = ""
    """The uid computed from them."""


def clean_arguments(task: TaskInfo, args: object, kwargs: object) -> Arguments:
    """Return what is kept of these arguments of a task, within ARGUMENTS_LIMIT."""
    rules = conf()
    uid = uid_of(task, args, kwargs) if task.uid else ""
    if not rules.RECORD_ARGUMENTS or args is None:
        return Arguments(None, None, uid=uid)
    is_bare = not task.masked_positions and type(kwargs) is dict and not kwargs
    if is_bare and (text := _plain(args, rules.ARGUMENTS_LIMIT)) is not None:
        return Arguments(text, "{}", True, uid)
    keep = partial(_kept, task, args, kwargs, uid)
    if kept := keep(rules.ARGUMENTS_LIMIT):
        return kept
    shorter = min(rules.TEXT_LIMIT, rules.ARGUMENTS_LIMIT // 4)
    if kept := keep(shorter) or keep(shorter // 8):
        return kept
    note = f"(left out: these arguments take more than {rules.ARGUMENTS_LIMIT} bytes)"
    return Arguments(orjson.dumps([note]).decode(), "{}", uid=uid)


def _kept(
    task: TaskInfo, args: object, kwargs: object, uid: str, text_limit: int
) -> Arguments | None:
    """Return the arguments with texts cut to `text_limit` characters.

    Return None if they still take more than ARGUMENTS_LIMIT.
    """
    rules = conf()
    cleaner = Cleaner(text_limit, rules.HIDDEN_KEYS)
    kept_args, kept_kwargs = cleaner.clean(args), cleaner.clean({} if kwargs is None else kwargs)
    cleaner.intact = cleaner.intact and kwargs is not None
    # Celery accepts objects of any type as arguments; the cleaner makes a text of an unknown one.
    if type(kept_args) is not list:
        kept_args = [kept_args]
        cleaner.intact = False
    if type(kept_kwargs) is not dict:
        kept_kwargs = {"…": kept_kwargs}
        cleaner.intact = False
    intact = not _mask(task, kept_args, kept_kwargs) and cleaner.intact
    args_text, kwargs_text = orjson.dumps(kept_args), orjson.dumps(kept_kwargs)
    if len(args_text) + len(kwargs_text) > rules.ARGUMENTS_LIMIT:
        return None
    return Arguments(args_text.decode(), kwargs_text.decode(), intact, uid)


def _plain(args: object, limit: int) -> str | None:
    """Return the JSON of a list of texts and numbers, as most arguments are, or None for others."""
    kind = type(args)
    # Each item takes two bytes or more.
    if (kind is not tuple and kind is not list) or len(args) > limit // 2:  # type: ignore[arg-type]
        return None
    size = 0
    for one in args:  # type: ignore[attr-defined]
        kind = type(one)
        if kind is str:
            size += len(one)
        elif kind is not int and one is not None and kind is not bool:
            return None
    if size > limit:
        return None
    try:
        text = orjson.dumps(args, option=orjson.OPT_STRICT_INTEGER)
    except TypeError:  # a lone surrogate, or a large integer
        return None
    return None if len(text) > limit or b"\\u0000" in text else text.decode()


def _mask(task: TaskInfo, args: list[Any], kwargs: dict[str, Any]) -> bool:
    """Mask the parameters that the task's options name, and return True if there were any.

    The cleaner has already masked values whose keys match HIDDEN_KEYS.
    """
    masked = False
    for index in task.masked_positions:
        if index < len(args):
            args[index] = MASK
            masked = True
    for name in task.masked & kwargs.keys():
        kwargs[name] = MASK
        masked = True
    return masked


def uid_of(task: TaskInfo, args: object, kwargs: object) -> str:
    """Return the uid for these arguments, or "" if the task has no function for it or it fails."""
    if task.uid is None or not (is_of(args, list) or is_of(args, tuple)) or not is_of(kwargs, dict):
        return ""
    # This is the project's own code. A BaseException such as SystemExit, or one raised by a signal
    # handler, is not caught: it ends the task as it would in the task's own code.
    try:
        return uid_text(task.uid(*args, **kwargs))
    except Exception:  # noqa: BLE001 - it may raise anything
        log_handled(logger, "systemtasks_uid of %s raised", task.name)
        return ""


def uid_text(uid: object) -> str:
    """Return a uid given by a project as the text that its column stores, or "" for None.

    Raise TypeError for an object that cannot be printed without running its own code.
    """
    if uid is None:
        return ""
    if not any(is_of(uid, base) for base in CONTAINERS) and scalar_text(uid, NAME_LIMIT) is None:
        raise TypeError(f"a uid is a text, a number or the like, but not <{type_name(type(uid))}>")
    return clean_column(describe(uid, NAME_LIMIT), NAME_LIMIT)
