"""What the tests of the admin's parts share."""

import pytest
from django.test import Client

from tests.systemtasks.test_admin import viewer


@pytest.fixture
def staff() -> Client:
    return viewer("systemtask", "taskrun")
