"""The admin's texts in German, its times in the viewer's zone, and a project's own site."""

import gettext
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib import admin
from django.contrib.admin.utils import label_for_field
from django.contrib.auth.models import User
from django.test import Client, override_settings
from django.urls import path
from django.utils import timezone, translation

from systemtasks.admin import ScheduleEntryAdmin, register
from systemtasks.models import ScheduleEntry, SystemTask, TaskRun
from systemtasks.states import State, Status
from tests import factories
from tests.processes import ROOT

APP = ROOT / "systemtasks"
GERMAN = APP / "locale" / "de" / "LC_MESSAGES"
MARKED = (
    r'pgettext(?:_lazy)?\(\s*"systemtasks", "([^"]+)"',
    r'{% translate "([^"]+)" context "systemtasks"',
    r'{% blocktranslate context "systemtasks"[^%]*%}([^%]+){% endblocktranslate',
)
"""How a text is marked as translatable."""


def marked() -> set[str]:
    """Return every text that is marked, and the labels of states and statuses."""
    files = [*APP.rglob("*.py"), *APP.rglob("*.html")]
    found = {text for file in files for how in MARKED for text in re.findall(how, file.read_text())}
    found = {re.sub(r"{{ (\w+) }}", r"%(\1)s", text) for text in found}
    return found | {choice.name.capitalize() for choice in (*State, *Status)}


def test_every_text_has_german_words_and_there_are_no_others() -> None:
    source = (GERMAN / "django.po").read_text()
    pairs = re.findall(r'^msgid "(.+)"\nmsgstr "(.*)"$', source, flags=re.M)
    words = dict(pairs)
    assert words.keys() == marked()
    assert all(words.values())
    with (GERMAN / "django.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    for text, german in pairs:
        assert compiled.pgettext("systemtasks", text) == german


def test_templates_have_no_text_that_is_not_marked() -> None:
    for file in (APP / "templates").rglob("*.html"):
        text = re.sub(r"{% blocktranslate.*?{% endblocktranslate %}", "", file.read_text())
        text = re.sub(r"{#.*?#}|{%.*?%}|{{.*?}}", "", text)
        shown = re.sub(r"<[^>]*>", " ", text)
        found = set(re.findall(r"[A-Za-z]{2,}", shown))
        assert found <= {"args", "kwargs"}, file


def test_colours_that_are_a_skins_have_one_for_any_other_skin() -> None:
    css = (APP / "static" / "systemtasks" / "admin.css").read_text()
    theirs = re.findall(r"var\((--(?!st-)[\w-]+)(, ?[^;]*)?\)+;", css)
    assert theirs
    assert all(re.search(r"#[0-9a-f]{6}", fallback) for _, fallback in theirs)


@pytest.fixture
def site() -> Iterator[admin.AdminSite]:
    """Yield a project's own admin site, without any other."""
    made = admin.site.__class__(name="office")  # with the look of that one
    register(made)
    urls: Any = ModuleType("urls of the project")
    urls.urlpatterns = [path("office/", made.urls)]
    with override_settings(ROOT_URLCONF=urls):
        yield made


@pytest.mark.django_db
def test_admin_site_of_the_projects_own_shows_and_links_the_pages(site: admin.AdminSite) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("admin"))
    task = factories.system_task()
    run = factories.task_run(task, celery_id="same")
    factories.task_run(task, celery_id="same", attempt=2)
    pages = (
        "/office/",
        tasks := "/office/systemtasks/systemtask/",
        runs := "/office/systemtasks/taskrun/",
        f"{tasks}{task.pk}/change/",
        f"{runs}{run.pk}/change/",
    )
    for url in pages:
        answer = client.get(url)
        assert answer.status_code == 200
        content = answer.content.decode()
        assert "/admin/" not in re.sub(r"/static/\S+", "", content)
    assert f'href="{tasks}{task.pk}/change/"' in content
    assert f'href="{runs}{run.pk}/change/"' in content

    register(site)  # a second time changes nothing
    assert site.is_registered(SystemTask)
    assert site.is_registered(TaskRun)


@pytest.mark.django_db
def test_pages_are_in_the_viewers_language_and_zone(admin_client: Client) -> None:
    message = factories.log_event(timestamp="2024-06-01T23:30:00Z")
    task = factories.system_task(status=Status.ERROR, messages=[message])
    run = factories.task_run(task, state=State.FAILURE, status=Status.ERROR)
    german = {"accept-language": "de"}
    with timezone.override(ZoneInfo("Europe/Berlin")):
        tasks = admin_client.get("/admin/systemtasks/systemtask/", headers=german)
        runs = admin_client.get("/admin/systemtasks/taskrun/", headers=german)
        page = admin_client.get(f"/admin/systemtasks/systemtask/{task.pk}/change/", headers=german)
        run_page = admin_client.get(f"/admin/systemtasks/taskrun/{run.pk}/change/", headers=german)

    for word in ("Fehlgeschlagen", "Letzte Stunde", "Erfolgreich", "2024-06-01 14:00:00 CEST"):
        assert word in tasks.content.decode()
    for word in ("Gestartet ab (Europe/Berlin)", "Alle", "Zustand", "Fehlschlag", "Heute"):
        assert word in runs.content.decode()
    assert "Jahre" in tasks.content.decode()
    assert "Sonntag, 2. Juni 2024, CEST" in page.content.decode()
    assert 'title="2024-06-02 01:30:00.000 CEST">01:30:00.000<' in page.content.decode()
    assert "Argumente" in run_page.content.decode()


@pytest.mark.django_db
def test_columns_and_filters_of_the_schedule_are_in_the_viewers_language(
    admin_client: Client,
) -> None:
    ScheduleEntry.objects.create(app="shop", entry="nightly", task="shop.clean", words="at 02:30")
    url = "/admin/systemtasks/scheduleentry/"
    page = admin_client.get(url, headers={"accept-language": "de"}).content.decode()
    with translation.override("de"):
        columns = [
            str(label_for_field(name, ScheduleEntry, ScheduleEntryAdmin(ScheduleEntry, admin.site)))
            for name in ScheduleEntryAdmin.list_display
        ]
    assert columns == [
        "Task und Eintrag",
        "Zeitplan",
        "nächster Lauf",
        "zuletzt gesendet",
        "aktiv",
    ]
    for word in (*columns, "Zeitplan"):
        assert word.lower() in page.lower()
    for word in ("schedule entry", "By enabled", "Enabled<"):
        assert word not in page


@pytest.mark.django_db
def test_language_of_one_request_is_not_that_of_the_next(admin_client: Client) -> None:
    german = {"accept-language": "de"}
    admin_client.get("/admin/systemtasks/systemtask/", headers=german)
    assert translation.get_language() == "en"
    answer = Client().get("/api/v3/events/system_tasks/", headers=german)
    assert answer.json()["detail"] == "Authentication credentials were not provided."


@pytest.mark.django_db
def test_day_and_times_of_the_filter_are_in_the_viewers_zone(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2024, 6, 7, 23, tzinfo=UTC)  # the next day in Berlin
    monkeypatch.setattr("systemtasks.admin_parts.filters._now", lambda: now)
    for name, hour in (("before midnight", 21), ("after midnight", 22)):
        moment = now.replace(hour=hour, minute=30)
        factories.system_task(name, start_timestamp=moment, finish_timestamp=moment)

    def found(**query: str) -> list[str]:
        with timezone.override(ZoneInfo("Europe/Berlin")):
            answer = admin_client.get("/admin/systemtasks/systemtask/", query)
        return [task.name for task in answer.context["cl"].result_list]

    assert found(started="today") == ["after midnight"]
    assert found(**{"from": "2024-06-08T00:00"}) == ["after midnight"]
    assert found(until="2024-06-08T00:00") == ["before midnight"]
    assert found(until="2024-06-07T22:00Z") == ["before midnight"]
