#!/usr/bin/env python
"""Django's command line, with the embedded services attached where none are named."""

import os
import sys

from django.core.management import BaseCommand, ManagementUtility


class CommandLine(ManagementUtility):
    def fetch_command(self, subcommand: str) -> BaseCommand:
        # Not before here, since `--settings` says which settings these are.
        import config.celery  # noqa: F401 - the app that `.delay()` and beat use

        return super().fetch_command(subcommand)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    CommandLine(sys.argv).execute()


if __name__ == "__main__":
    main()
