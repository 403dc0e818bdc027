"""Write the OpenAPI document that the API serves, after a change of its views."""

from django.core.management import BaseCommand

from events.document import FILE
from events.schema import document


class Command(BaseCommand):
    help = "Write the OpenAPI document of the API into its package (make openapi)."
    requires_system_checks = ()

    def handle(self, *_: object, **__: object) -> None:
        FILE.write_text(document())
