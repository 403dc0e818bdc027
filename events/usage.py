"""Record when each token was last used: in memory at once, in the database once a minute."""

import atexit
import time
from datetime import UTC, datetime

from django.db import DatabaseError, connections, router, transaction

from systemtasks.background import BackgroundThread
from systemtasks.own_logger import own_logger
from systemtasks.under_test import is_under_test

from .models import TokenGrant

logger = own_logger(__name__)

INTERVAL = 60.0  # seconds between two writes


class UsageWriter:
    """Collects the times at which tokens are used, and writes them from a thread of its own.

    A request pays for one assignment to a dictionary, and waits for nothing.
    """

    def __init__(self) -> None:
        self._last_used: dict[str, datetime] = {}
        self._thread = BackgroundThread(
            self._write_forever, name="token-usage", after_fork=self.clear
        )

    def clear(self) -> None:
        """Forget every use that is not written yet."""
        self._last_used = {}

    def record(self, digest: str) -> None:
        """Record that the token with this digest is used now."""
        self._last_used[digest] = datetime.now(UTC)
        # In tests, the thread would eventually write to the database of the settings.
        if not (self._thread.is_alive or is_under_test()):
            self._thread.start()

    def write(self) -> None:
        """Write the uses that are not written yet.

        If the database does not accept them, they are kept for the next call.
        """
        last_used, self._last_used = self._last_used, {}
        try:
            self._upsert(last_used)
        except DatabaseError as error:
            logger.warning("The last use of tokens could not be written yet: %s", error)
            # A token that was used again in the meantime keeps its later time.
            self._last_used = {**last_used, **self._last_used}

    def write_and_disconnect(self) -> None:
        """Write what is not written yet, if there is anything, and close the connection."""
        if self._last_used:
            self.write()
            connections.close_all()

    def write_at_exit(self) -> None:
        """Write what is left when the process ends, unless the thread never ran."""
        if self._thread.is_alive:
            self.write_and_disconnect()

    def _upsert(self, last_used: dict[str, datetime]) -> None:
        alias = router.db_for_write(TokenGrant)
        tokens = TokenGrant._meta.get_field("token").related_model._default_manager
        with transaction.atomic(using=alias):
            # The lock keeps a token from being revoked before its grant is written.
            existing = (
                tokens.using(alias).select_for_update().order_by("pk").filter(pk__in=last_used)
            )
            keys = existing.values_list("pk", flat=True)
            TokenGrant.objects.using(alias).bulk_create(
                [TokenGrant(token_id=key, last_used=last_used[key]) for key in keys],
                update_conflicts=True,
                unique_fields=["token"],
                update_fields=["last_used"],
            )

    def _write_forever(self) -> None:
        while True:
            time.sleep(INTERVAL)
            self.write_and_disconnect()


usage = UsageWriter()
"""This process's writer."""

atexit.register(usage.write_at_exit)
