"""Say in words when an entry of beat's schedule is due."""

import calendar
from typing import Any

from celery.schedules import crontab, schedule

UNITS = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def in_words(when: Any) -> str:  # noqa: ANN401 - a schedule of any class
    """Return when this schedule is due: `every 5 minutes`, `at 02:30 on Monday`.

    A crontab that is not so simple is shown by its five fields, and any other schedule by its own
    text.
    """
    if isinstance(when, crontab):
        return _crontab(when)
    if type(when) is schedule:
        return _every(when.run_every.total_seconds())  # type: ignore[attr-defined]
    return "" if when is None else str(when).strip("<>")


def _every(seconds: float) -> str:
    for size, unit in UNITS:
        if seconds >= size and seconds % size == 0:
            number = int(seconds // size)
            return f"every {unit}" if number == 1 else f"every {number} {unit}s"
    return f"every {seconds:g} seconds"


def _crontab(when: crontab) -> str:
    minute, hour, day, month, weekday = fields = [
        str(getattr(when, f"_orig_{name}")).strip()
        for name in ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
    ]
    zone = f" ({when.tz})" if (minute, hour) != ("*", "*") else ""
    exactly = f"crontab {' '.join(fields)}{zone}"
    if month != "*" or (day != "*" and weekday != "*"):
        return exactly
    on = _days(day, weekday)
    if on is None:
        return exactly
    if minute.isdecimal() and hour.isdecimal():
        return f"at {int(hour):02}:{int(minute):02}{on or ' every day'}{zone}"
    if hour != "*":
        return exactly
    if minute.isdecimal():
        return f"every hour at minute {int(minute)}{on}"
    number = minute.removeprefix("*/")
    if minute == "*" or number == "1":
        return f"every minute{on}"
    return (
        f"every {number} minutes{on}" if number.isdecimal() and 60 % int(number) == 0 else exactly
    )


def _days(day: str, weekday: str) -> str | None:
    """Return the days in words, or None if they are not simple."""
    if weekday != "*":
        if not weekday.isdecimal():
            return f" on {weekday.capitalize()}" if weekday.isalpha() else None
        return f" on {calendar.day_name[(int(weekday) - 1) % 7]}"
    if day != "*":
        return f" on day {day} of the month" if day.isdecimal() else None
    return ""
