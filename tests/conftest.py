"""Real services for every test: the embedded ones, or those that the environment names."""

import pytest
from django.conf import settings


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    settings.EMBEDDED.attach()
