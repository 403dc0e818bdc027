"""Writes what would be sent to Sentry into a file."""

import json
import os
from typing import Any

from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport


class FileTransport(Transport):
    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            payload: Any = item.payload.json
            if payload is not None:
                with open(os.environ["SHOP_SENTRY_FILE"], "a") as file:  # noqa: PTH123
                    file.write(json.dumps({"type": item.type, **payload}, default=str) + "\n")
