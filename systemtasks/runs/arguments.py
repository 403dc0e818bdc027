"""A run's arguments as JSON: safe, bounded, and without secrets."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import orjson

from systemtasks.conf import conf
from systemtasks.runs.records import NAME_LIMIT, TaskInfo
from systemtasks.runs.values import MASK, Cleaner, clean_column

logger = logging.getLogger(__name__)

PLAIN = frozenset((str, int, bool, type(None)))


class Arguments(NamedTuple):
    """A run's arguments, or None where they are not kept."""

    args: str | None
    kwargs: str | None
    intact: bool = False
    """Whether they are the very ones: nothing masked, cut or described."""
    uid: str = ""
    """The uid that they make."""


def arguments(task: TaskInfo, args: object, kwargs: object) -> Arguments:
    """What is kept of these arguments of a task."""
    rules = conf()
    uid = uid_of(task, args, kwargs) if task.uid else ""
    if not rules.RECORD_ARGUMENTS or args is None:
        return Arguments(None, None, uid=uid)
    if not task.masked_positions and not kwargs and (text := _plain(args, rules.ARGUMENTS_LIMIT)):
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
    """The arguments with their texts cut to that many characters; None if they take too much."""
    rules = conf()
    cleaner = Cleaner(text_limit, rules.HIDDEN_KEYS)
    kept_args = cleaner.clean(args) if args else []
    kept_kwargs = cleaner.clean(kwargs) if kwargs else {}
    intact = not _mask(task, kept_args, kept_kwargs) and cleaner.intact
    args_text, kwargs_text = orjson.dumps(kept_args), orjson.dumps(kept_kwargs)
    if len(args_text) + len(kwargs_text) > rules.ARGUMENTS_LIMIT:
        return None
    return Arguments(args_text.decode(), kwargs_text.decode(), intact, uid)


def _plain(args: object, limit: int) -> str | None:
    """The JSON of a few texts and numbers, as most arguments are; None for any others."""
    if type(args) not in (list, tuple) or not PLAIN.issuperset(map(type, args)):  # type: ignore[call-overload]
        return None
    try:
        text = orjson.dumps(args, option=orjson.OPT_STRICT_INTEGER)
    except TypeError:  # a lone surrogate, or a large integer
        return None
    return None if len(text) > limit or b"\\u0000" in text else text.decode()


def _mask(task: TaskInfo, args: object, kwargs: object) -> bool:
    """Mask what the task wants masked; the values under telling names are masked already."""
    masked = False
    if isinstance(args, list):
        for index in task.masked_positions:
            if index < len(args):
                args[index] = MASK
                masked = True
    if task.masked and isinstance(kwargs, dict):
        for name in task.masked & kwargs.keys():
            kwargs[name] = MASK
            masked = True
    return masked


def uid_of(task: TaskInfo, args: object, kwargs: object) -> str:
    """The uid that these arguments make; "" where the task's function for it makes none."""
    if task.uid is None or not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping):
        return ""
    try:
        made = task.uid(*args, **kwargs)
        uid = "" if made is None else str(made)
    except Exception:
        logger.exception("systemtasks_uid of %s raised", task.name)
        return ""
    return clean_column(uid, NAME_LIMIT)
