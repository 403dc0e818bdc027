"""Model fields that do not depend on the project's settings."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from django.conf import settings
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    DateTimeField: TypeAlias = models.DateTimeField[Any, Any]
else:  # it is not generic at run time
    DateTimeField = models.DateTimeField


class UTCDateTimeField(DateTimeField):
    """A DateTimeField with aware values in UTC, regardless of USE_TZ and TIME_ZONE.

    With USE_TZ=False, Django reads a time as the clock in TIME_ZONE shows it. Such a time has no
    offset, and in the hour when summer time ends it stands for two moments. So Postgres is asked
    for the time in UTC instead.

    Migrations describe it as a DateTimeField: the column is the same.
    """

    def deconstruct(self) -> Any:  # noqa: ANN401 - as in Django
        """Return the description of the field in migrations."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.DateTimeField", args, kwargs

    def select_format(self, compiler: Any, sql: str, params: Sequence[Any]) -> tuple[str, Any]:  # noqa: ANN401
        """Return the SQL that reads the column in the outermost SELECT."""
        if settings.USE_TZ or compiler.query.subquery or not _is_postgres(compiler.connection):
            return sql, params
        return f"({sql}) AT TIME ZONE 'UTC'", params

    def get_db_converters(
        self, connection: BaseDatabaseWrapper
    ) -> list[Callable[[Any, Any, BaseDatabaseWrapper], Any]]:
        """Return the functions that convert a value from the database."""
        converters: list[Any] = super().get_db_converters(connection)
        if settings.USE_TZ or not _is_postgres(connection):
            return converters
        return [_in_utc, *converters]


def _in_utc(value: datetime | None, *_: object) -> datetime | None:
    return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)


def _is_postgres(connection: BaseDatabaseWrapper) -> bool:
    return connection.vendor == "postgresql"
