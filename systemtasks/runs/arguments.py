"""A run's arguments as JSON: safe, bounded, and without secrets."""

from typing import Any, NamedTuple

import orjson

from systemtasks.conf import conf
from systemtasks.own_logger import own_logger
from systemtasks.runs.exceptions import log_handled
from systemtasks.runs.kinds import is_of, scalar_text, type_name
from systemtasks.runs.records import NAME_LIMIT, TaskInfo
from systemtasks.runs.secret_names import hides
from systemtasks.runs.secret_texts import OwnSecrets, mask_text
from systemtasks.runs.typed_values import ARGS, KWARGS, split
from systemtasks.runs.values import (
    CONTAINERS,
    Cleaner,
    FindTask,
    OwnMasker,
    clean_column,
    describe,
    leaves_of,
)

logger = own_logger(__name__)


class Arguments(NamedTuple):
    """A run's arguments as JSON, or None if they are not kept."""

    args: str | None
    kwargs: str | None
    intact: bool = False
    """True if nothing in them was masked, cut or replaced by a description."""
    uid: str = ""
    """The uid computed from them."""
    own: OwnSecrets | None = None
    """The values that are masked in them, and in the run's texts as well."""
    types: str | None = None
    """JSON with the values in them of types that JSON does not have (see `typed_values`)."""


def clean_arguments(
    task: TaskInfo, args: object, kwargs: object, find_task: FindTask | None = None
) -> Arguments:
    """Return the JSON of a task's arguments that is kept, within ARGUMENTS_LIMIT.

    `find_task` finds the tasks of any signatures among the arguments.
    """
    rules = conf()
    uid = uid_of(task, args, kwargs) if task.uid else ""
    if args is None:
        return Arguments(None, None, uid=uid)
    limit = rules.ARGUMENTS_LIMIT
    is_plain = task.keeps_plain and type(kwargs) is dict
    if is_plain and (plain := _plain(args, limit)) is not None:
        keywords = plain_keywords(kwargs, limit - len(plain)) if kwargs else "{}"
        if keywords is not None:
            if rules.RECORD_ARGUMENTS:
                return Arguments(plain, keywords, True, uid)
            return Arguments(None, None, uid=uid)
    kept = _cleaned(task, args, kwargs, uid, find_task)
    if not rules.RECORD_ARGUMENTS or task.is_of_celery:
        return Arguments(None, None, uid=kept.uid, own=kept.own)
    return kept


def _cleaned(
    task: TaskInfo, args: object, kwargs: object, uid: str, find_task: FindTask | None
) -> Arguments:
    limit = conf().ARGUMENTS_LIMIT
    kept = _kept(task, args, kwargs, limit, find_task)
    shorter = min(conf().TEXT_LIMIT, limit // 4)
    for text_limit in (shorter, shorter // 8):
        if kept.size > limit:
            kept = _kept(task, args, kwargs, text_limit, find_task)
    if kept.own is not None:
        uid = kept.own.mask(uid)
    if kept.size > limit:
        note = f"(left out: these arguments take more than {limit} bytes)"
        return Arguments(orjson.dumps([note]).decode(), "{}", uid=uid, own=kept.own)
    # Without the task, it is not known which positional arguments are secrets.
    args_text = kept.args.decode() if task.known or kept.args == b"[]" else None
    return Arguments(args_text, kept.kwargs.decode(), kept.intact, uid, kept.own, kept.types)


class _Kept(NamedTuple):
    args: bytes
    kwargs: bytes
    intact: bool
    own: OwnSecrets | None
    types: str | None

    @property
    def size(self) -> int:
        return len(self.args) + len(self.kwargs)


def _kept(
    task: TaskInfo, args: object, kwargs: object, text_limit: int, find_task: FindTask | None
) -> _Kept:
    """Return the arguments with texts cut to `text_limit` characters. Their size is not limited."""
    cleaner = Cleaner(text_limit, find_task=find_task, keeps_types=True)
    kept_args, kept_kwargs = cleaner.arguments(task, args, {} if kwargs is None else kwargs)
    cleaner.intact = cleaner.intact and kwargs is not None
    # Celery accepts objects of any type as arguments. The cleaner turns unknown types into text.
    if type(kept_args) is not list:
        kept_args = [kept_args]
        cleaner.intact = False
    if type(kept_kwargs) is not dict:
        kept_kwargs = {"…": kept_kwargs}
        cleaner.intact = False
    own = None
    if cleaner.masked and conf().MASK_TEXTS:
        own = OwnSecrets.of(leaves_of(cleaner.masked, conf().ARGUMENTS_LIMIT))
    types: list[Any] = []
    if cleaner.has_typed:
        kept_args, kept_kwargs = split(kept_args, types, ARGS), split(kept_kwargs, types, KWARGS)
    texts = orjson.dumps(kept_args), orjson.dumps(kept_kwargs)
    if own is not None and any(own.is_in(text.decode()) for text in texts):
        again = OwnMasker(own)
        texts = orjson.dumps(again.clean(kept_args)), orjson.dumps(again.clean(kept_kwargs))
    listed = orjson.dumps(types) if types and cleaner.intact else b""
    if len(listed) + sum(map(len, texts)) > conf().ARGUMENTS_LIMIT:
        cleaner.intact, listed = False, b""
    return _Kept(*texts, cleaner.intact, own, listed.decode() or None)


def _plain(args: object, limit: int) -> str | None:
    """Return the JSON of a list of texts and numbers, or None for anything else.

    Most positional arguments are such lists.
    """
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
    # A text with a quotation mark may be JSON, whose values are masked by their names.
    return None if len(text) > limit or b"\\u0000" in text or b'\\"' in text else text.decode()


def plain_keywords(kwargs: Any, limit: int) -> str | None:  # noqa: ANN401 - a dictionary
    """Return the JSON of keyword arguments that are texts and numbers, or None for anything else.

    Return None also if one of them has a secret's name.
    """
    for name in list(kwargs):  # another thread may change it
        # The argument "value" may be a secret whose name is in another argument.
        if type(name) is not str or name in ("value", "Value") or hides(name):
            return None
    if _plain([*kwargs, *kwargs.values()], limit) is None:
        return None
    text = orjson.dumps(kwargs)
    return None if len(text) > limit else text.decode()


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
    """Return the text that the column stores for a project's uid, or "" for None.

    Raise TypeError for an object that cannot be printed without running its own code.
    """
    if uid is None:
        return ""
    if not any(is_of(uid, base) for base in CONTAINERS) and scalar_text(uid, NAME_LIMIT) is None:
        raise TypeError(f"a uid is a text, a number or the like, but not <{type_name(type(uid))}>")
    text = describe(uid, NAME_LIMIT)
    if conf().MASK_TEXTS:
        text = mask_text(text)
    return clean_column(text, NAME_LIMIT)
