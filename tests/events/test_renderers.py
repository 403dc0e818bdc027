"""ORJSONRenderer writes what DRF's own renderer writes."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.utils.functional import lazystr
from rest_framework.renderers import JSONRenderer

from events.renderers import ORJSONRenderer


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"a": [1, 2.5, True, None, "ü\u2028"]},
        {"time": datetime(2024, 6, 1, 12, tzinfo=UTC)},
        {"time": datetime(2024, 6, 1, 12, 0, 0, 250_000, tzinfo=UTC)},
        {"day": date(2024, 6, 1), "span": timedelta(seconds=90), "cost": Decimal("1.50")},
        {"uuid": UUID(int=1), "text": lazystr("later")},
        {"integer": 2**70},
    ],
)
def test_the_bytes_are_those_of_drfs_renderer(data: Any) -> None:
    ours: Any = ORJSONRenderer().render(data)
    theirs: Any = JSONRenderer().render(data)
    # DRF writes U+2028 as an escape, for JavaScript before 2019.
    assert ours.replace("\u2028".encode(), rb"\u2028") == theirs
