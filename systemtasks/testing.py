"""Record the task runs of a test. Otherwise, a process that runs tests records nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from systemtasks import under_test
from systemtasks.conf import conf
from systemtasks.own_logger import own_logger
from systemtasks.runs.journal_line import Entry
from systemtasks.storage import rows
from systemtasks.storage.writer import writer

logger = own_logger(__name__)


@contextmanager
def recording() -> Iterator[None]:
    """Record the task runs of a test, in this process and in all of its threads.

    The thread that sends or runs a task writes the row itself, at once. The test's own thread
    writes on the test's connection and in the test's transaction, so its rows are rolled back.
    Another thread, such as a worker's, would commit. In a test that is one transaction, its runs
    are therefore not recorded, and a warning is logged. A test with a worker needs Django's
    TransactionTestCase, or pytest-django's `transactional_db`.

    Raise ImproperlyConfigured if recording is off or the database is not Postgres. If the test may
    not use the database, the test framework's own exception propagates.
    """
    rules = conf()
    if not rules.ENABLED:
        raise ImproperlyConfigured("SYSTEMTASKS['ENABLED'] is False, so nothing is recorded.")
    own = connections[rules.DATABASE]
    if own.vendor != "postgresql":
        raise ImproperlyConfigured(
            "Task runs are recorded in PostgreSQL, and the database "
            f"{rules.DATABASE!r} of these tests is a {own.vendor} database."
        )
    own.ensure_connection()
    is_one_transaction = own.in_atomic_block

    def write(entry: Entry) -> None:
        connection = connections[rules.DATABASE]
        if is_one_transaction and connection is not own:
            logger.warning(
                "A run of another thread is not recorded: its row would outlive this test. "
                "Use a TransactionTestCase, or transactional_db."
            )
            return
        was_closed = connection.connection is None
        rows.forget()  # the task rows that it remembers may have been rolled back
        try:
            writer.write(entry)
        finally:
            if was_closed:  # an open connection would keep the test database from being dropped
                connection.close()

    under_test.declare()
    writer.discard()
    before, writer.under_test = writer.under_test, write
    try:
        yield
    finally:
        writer.under_test = before
