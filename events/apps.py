"""The Django app of the HTTP API."""

from django.apps import AppConfig


class EventsConfig(AppConfig):
    # In this repository the package is `events`, where it is installed it is `systemtasks_api`. The
    # label, and so the tables and permissions, are the same in both.
    name = __name__.rpartition(".")[0]
    label = "systemtasks_api"
    verbose_name = "System Tasks API"
