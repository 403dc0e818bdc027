"""When each token was last used: noted in memory, and written once a minute by a thread."""

import atexit
import logging
import os
import threading
import time
from datetime import datetime

from django.db import DatabaseError, connections, router, transaction
from django.utils import timezone

from events.models import TokenGrant
from systemtasks.under_test import is_under_test

logger = logging.getLogger(__name__)

INTERVAL = 60.0  # seconds


class Usage:
    """Takes a note of each use, at the cost of one assignment."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin without a thread and without a note, as a forked child must."""
        self.forget()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def forget(self) -> None:
        """Drop what was noted."""
        self._last: dict[str, datetime] = {}

    def note(self, digest: str) -> None:
        """Note that this token was used now."""
        self._last[digest] = timezone.now()
        # Under test the thread's connection would lead to the configured database in the end.
        if self._thread is None and not is_under_test():
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="token-usage", daemon=True
                    )
                    self._thread.start()

    def write(self) -> None:
        """Write what was noted; what cannot be written now is so the next time."""
        last, self._last = self._last, {}
        try:
            self._upsert(last)
        except DatabaseError as error:
            logger.warning("When tokens were last used is not written yet: %s", error)
            self._last = {**last, **self._last}

    def _upsert(self, last: dict[str, datetime]) -> None:
        alias = router.db_for_write(TokenGrant)
        tokens = TokenGrant._meta.get_field("token").related_model._default_manager
        with transaction.atomic(using=alias):
            # Locked, so that none is revoked before its row is there.
            known = tokens.using(alias).select_for_update().order_by("pk").filter(pk__in=last)
            keys = known.values_list("pk", flat=True)
            TokenGrant.objects.using(alias).bulk_create(
                [TokenGrant(token_id=key, last_used=last[key]) for key in keys],
                update_conflicts=True,
                unique_fields=["token"],
                update_fields=["last_used"],
            )

    def _run(self) -> None:
        while True:
            time.sleep(INTERVAL)
            if self._last:
                self.write()
                connections.close_all()

    def end(self) -> None:
        """Write what is left, as the process ends."""
        if self._thread is not None and self._last:
            self.write()
            connections.close_all()


usage = Usage()
"""This process's."""

os.register_at_fork(after_in_child=usage.begin)
atexit.register(usage.end)
