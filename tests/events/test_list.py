"""GET /api/v3/events/system_tasks/: filters, search, order and pages."""

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.filters import search_smart_split

from events import filters, pagination
from events.filters import ORDERING_FIELDS, SystemTaskFilter
from systemtasks import models
from systemtasks.models import SystemTask
from tests import factories

URL = "/api/v3/events/system_tasks/"
pytestmark = pytest.mark.django_db
FILTERS: Any = SystemTaskFilter


def names(client: Client, **query: Any) -> list[str]:
    answer = client.get(URL, query)
    assert answer.status_code == 200, answer.content
    return [row["name"] for row in answer.json()["results"]]


def refusal(client: Client, **query: Any) -> dict[str, Any]:
    answer = client.get(URL, query)
    assert answer.status_code == 400, answer.content
    body: dict[str, Any] = answer.json()
    assert body.pop("code") == "invalid"
    return body


@pytest.fixture
def many() -> list[SystemTask]:
    """Create 45 tasks, t00 to t44. Each started a second after the one before it."""
    return [
        factories.system_task(
            f"t{number:02}",
            start_timestamp=factories.START + timedelta(seconds=number),
            finish_timestamp=factories.START + timedelta(hours=1),
        )
        for number in range(45)
    ]


def test_a_row_of_the_list_is_what_retrieving_it_answers(reader: Client) -> None:
    task = factories.system_task()
    assert reader.get(URL).json()["results"] == [reader.get(f"{URL}{task.uuid}/").json()]


def test_no_tasks_are_one_empty_page(reader: Client) -> None:
    assert reader.get(URL).json() == {
        "pagination": {
            "next": 0,
            "previous": 0,
            "count": 0,
            "current": 1,
            "total_pages": 1,
            "start_index": 0,
            "end_index": 0,
        },
        "results": [],
        "autocomplete": {},
    }


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({}, (2, 0, 45, 1, 3, 1, 20)),
        ({"page": 2}, (3, 1, 45, 2, 3, 21, 40)),
        ({"page": 3}, (0, 2, 45, 3, 3, 41, 45)),
        ({"page": 5, "page_size": 10}, (0, 4, 45, 5, 5, 41, 45)),
        ({"page_size": 101}, (0, 0, 45, 1, 1, 1, 45)),
    ],
)
def test_pagination_tells_where_the_page_stands(
    reader: Client, query: dict[str, int], numbers: tuple[int, ...]
) -> None:
    body = reader.get(URL, query).json()
    assert tuple(body["pagination"].values()) == numbers
    assert len(body["results"]) == numbers[-1] - numbers[-2] + 1


def test_a_page_holds_at_most_100_rows(reader: Client) -> None:
    for number in range(101):
        factories.system_task(f"t{number}")
    body = reader.get(URL, {"page_size": 10**30}).json()
    assert len(body["results"]) == 100
    assert body["pagination"]["total_pages"] == 2


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("page", [4, 10**30])
def test_a_page_past_the_end_is_404(reader: Client, page: int) -> None:
    answer = reader.get(f"{URL}?page={page}")
    assert answer.status_code == 404
    assert answer.json() == {"detail": "Invalid page.", "code": "not_found"}


@pytest.mark.parametrize("field", ["page", "page_size"])
@pytest.mark.parametrize(
    "value",
    [
        *("0", "-1", "x", "last", "1.5", "", "\x00", "9" * 5000),
        *("1_0", "1.0", "+1", " 1", "1\n", "\u0661"),
    ],
)
def test_what_is_no_positive_number_is_400(reader: Client, field: str, value: str) -> None:
    assert list(refusal(reader, **{field: value})) == [field]


def test_tasks_come_by_name_and_uid_where_no_ordering_is_asked_for(reader: Client) -> None:
    for name, uid in (("b", ""), ("a", "y"), ("c", ""), ("a", "x"), ("a", "")):
        factories.system_task(name, uid)
    rows = reader.get(URL).json()["results"]
    assert [row["full_name"] for row in rows] == ["a", "a:x", "a:y", "b", "c"]


def test_those_that_expire_come_last_by_expiring_and_first_by_its_reverse(reader: Client) -> None:
    factories.system_task("expires", expires=factories.START)
    factories.system_task("stays", expires=None)
    assert names(reader, ordering="expiring") == ["stays", "expires"]
    assert names(reader, ordering="-expiring") == ["expires", "stays"]


@pytest.mark.parametrize("field", [name for name in ORDERING_FIELDS if name != "expiring"])
def test_every_stored_field_orders_both_ways(reader: Client, field: str) -> None:
    early = factories.START
    late = early + timedelta(days=1)
    low = factories.system_task("a", description="a", duration=1, status="error", messages=[])
    high = factories.system_task(
        "b",
        "u",
        description="b",
        duration=2,
        status="warning",
        start_timestamp=late,
        finish_timestamp=late,
        expires=late + timedelta(days=60),
    )
    expected = ["a", "b"] if field != "uuid" or low.uuid < high.uuid else ["b", "a"]
    assert names(reader, ordering=field) == expected
    assert names(reader, ordering=f"-{field}") == expected[::-1]


def test_an_empty_ordering_is_none(reader: Client, many: list[SystemTask]) -> None:
    assert names(reader, ordering="", page_size=3) == ["t00", "t01", "t02"]


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("ordering", ["status", "-status", "status,duration"])
def test_equals_are_ordered_by_uuid(reader: Client, ordering: str) -> None:
    rows = reader.get(f"{URL}?ordering={ordering}&page_size=100").json()["results"]
    uuids = [row["uuid"] for row in rows]
    assert uuids == sorted(uuids)


def test_several_fields_order_one_after_the_other(reader: Client) -> None:
    for name, status in (("a", "error"), ("b", "warning"), ("c", "error")):
        factories.system_task(name, status=status)
    assert names(reader, ordering="status,-name") == ["c", "a", "b"]


@pytest.mark.parametrize(
    "ordering", ["nonsense", "messages", "-", "--name", "full_name", "runs", "?", "name,x"]
)
def test_ordering_by_what_is_not_stored_is_400(reader: Client, ordering: str) -> None:
    assert list(refusal(reader, ordering=ordering)) == ["ordering"]


def test_name_uid_and_status_are_exact(reader: Client) -> None:
    factories.system_task("app.sync", "ldap", status="error")
    factories.system_task("app.sync.all", "ldap2")
    assert names(reader, name="app.sync") == ["app.sync"]
    assert names(reader, name="APP.SYNC") == []
    assert names(reader, uid="ldap") == ["app.sync"]
    assert names(reader, status="error") == ["app.sync"]
    assert names(reader, status="error", uid="ldap2") == []


@pytest.mark.parametrize("status", ["nonsense", "", "ERROR", "null"])
def test_an_unknown_status_is_400(reader: Client, status: str) -> None:
    message = f"Select a valid choice. {status} is not one of the available choices."
    assert refusal(reader, status=status) == {"status": [message]}


@pytest.mark.parametrize("field", ["name", "uid", "search", "status", "ordering"])
def test_a_nul_is_400(reader: Client, field: str) -> None:
    assert list(refusal(reader, **{field: "a\x00b"})) == [field]


@pytest.mark.parametrize(
    "search",
    [
        "clean",
        "APP.CLEAN",
        "slug-7",
        "everything",
        "Disk",
        "disk FULL",
        "full,disk",
        '"is full"',
        "100%",
        "a_b",
        "größe",
        "GRÖ",
    ],
)
def test_search_finds_all_terms_anywhere_in_any_case(reader: Client, search: str) -> None:
    factories.system_task(
        "app.clean",
        "slug-7",
        description="Deletes Everything.",
        messages=[factories.log_event("The disk is full: 100% a_b Größe")],
    )
    factories.system_task("app.other", description="", messages=[])
    assert names(reader, search=search) == ["app.clean"]


@pytest.mark.parametrize("search", ["clean absent", '"full is"', "cle_n", "c%n", "cl\\ean"])
def test_search_does_not_find_what_lacks_a_term(reader: Client, search: str) -> None:
    factories.system_task("app.clean", messages=[factories.log_event("The disk is full")])
    assert names(reader, search=search) == []


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("search", ["disk {}", "{}, disk", ",{} disk"])
def test_a_lone_quote_is_a_term(reader: Client, quote: str, search: str) -> None:
    factories.system_task("app.clean", messages=[factories.log_event("The disk is full")])
    factories.system_task("app.quoted", messages=[factories.log_event(f"The disk is {quote}full")])
    assert names(reader, search=search.format(quote)) == ["app.quoted"]


@given(text=st.text(st.sampled_from("\"'\\, ab"), max_size=12))
@settings(deadline=None)
def test_terms_are_split_as_drf_does(text: str) -> None:
    terms = [term for term in filters.search_terms(text) if term not in ("'", '"', "")]
    assert terms == [term for term in search_smart_split(text) if term not in ("'", '"', "")]  # type: ignore[arg-type]  # the stubs are wrong


def test_a_search_of_very_many_terms_is_400(reader: Client) -> None:
    assert names(reader, search="abc " * 32) == []
    assert refusal(reader, search="abc " * 33) == {"search": ["More than 32 terms."]}


@pytest.mark.parametrize("search", ["a", "is", "is so", "'", '"is"', "ÄÖ"])
def test_a_search_without_a_term_of_three_characters_is_400(reader: Client, search: str) -> None:
    too_short = "One of the terms must have at least 3 characters."
    assert refusal(reader, search=search) == {"search": [too_short]}


def test_an_empty_search_finds_everything(reader: Client) -> None:
    factories.system_task("app.clean")
    assert names(reader, search=" ") == ["app.clean"]


@pytest.mark.parametrize(
    ("search", "finds"),
    [
        ("logger", False),
        ("attributes", False),
        ("info", False),
        ("tests.clean_up", False),
        ("outer", False),
        ("acme", True),
        ("4711", True),
        ("deep", True),
    ],
)
def test_search_finds_what_messages_say_and_not_how_they_are_stored(
    reader: Client, search: str, finds: bool
) -> None:
    attributes = {"tenant": "Acme", "order": 4711, "outer": [{"inner": "deep"}]}
    messages = [factories.log_event(attributes=attributes)]
    factories.system_task("app", messages=messages)
    assert names(reader, search=search) == ["app"] * finds


def test_a_search_finds_the_same_where_very_many_tasks_have_the_words(
    reader: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [factories.system_task(f"common.{number}").name for number in range(8)]
    factories.system_task("other")
    factories.search_texts()
    assert names(reader, search="common") == expected
    monkeypatch.setattr(models, "FOUND_LIMIT", 5)
    assert names(reader, search="common") == expected
    assert names(reader, search="common", page_size=3, page=2) == expected[3:6]


def test_a_list_takes_three_queries_however_long_the_page(
    reader: Client, many: list[SystemTask]
) -> None:
    for size, number in ((1, 3), (44, 3), (45, 2)):
        with CaptureQueriesContext(connection) as queries:
            assert len(names(reader, page_size=size)) == size
        # The token with user and permissions, the rows, and the count, unless all rows are there.
        assert len(queries) == number


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("query", [{}, {"status": "successful"}])
def test_above_its_bound_a_count_is_an_estimate_and_the_pages_are_right(
    reader: Client, monkeypatch: pytest.MonkeyPatch, query: dict[str, str]
) -> None:
    monkeypatch.setattr(pagination, "COUNT_LIMIT", 10)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE systemtasks_systemtask")
    url = f"{URL}?{urlencode({**query, 'page_size': 10})}"
    for number in range(3):  # they are not in the estimate
        factories.system_task(f"new{number}")
    seen: list[str] = []
    page = 1
    while page:
        body = reader.get(f"{url}&page={page}").json()
        seen += [row["name"] for row in body["results"]]
        position = body["pagination"]
        assert position["count"] >= position["end_index"] == len(seen)
        page = position["next"]
    assert len(seen) == len(set(seen)) == position["count"] == 48
    assert reader.get(f"{url}&page=6").status_code == 404


def test_who_may_not_view_learns_nothing_of_the_filters(runner: Client) -> None:
    answer = runner.get(f"{URL}?status=nonsense&page=0")
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")


FIELDS = st.sampled_from([*FILTERS.base_filters, "page", "page_size", "format", "x"])
VALUES = st.one_of(
    st.text(),
    st.binary(),
    st.integers().map(str),
    st.lists(st.sampled_from([*ORDERING_FIELDS, "-name", ""])).map(",".join),
    st.text(st.sampled_from("\"'\\%_, a\x00"), max_size=12),
)


@pytest.mark.slow
@given(query=st.lists(st.tuples(FIELDS, VALUES), max_size=4))
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_query_whatever_breaks_it(reader: Client, query: list[tuple[str, str | bytes]]) -> None:
    answer = reader.get(f"{URL}?{urlencode(query, errors='replace')}")
    assert answer.status_code in (200, 400, 404)
    assert answer["Content-Type"] == "application/json"


def test_a_thousand_parameters_are_400(reader: Client) -> None:
    answer = reader.get(URL + "?" + "&".join("a=1" for _ in range(1001)))
    assert answer.status_code == 400
    assert answer.json() == {"non_field_errors": ["Bad request."], "code": "invalid"}
