"""All processes of an account, and only they, use the same folder for the journal."""

import os
import pwd
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from pytest_django import Settings

from systemtasks.runs.records import RunRecord
from systemtasks.storage import folder as folder_module
from systemtasks.storage.folder import folders, open_folder
from systemtasks.storage.journal import SUFFIX, Journal
from tests.systemtasks.accounts import chown_to_nobody
from tests.systemtasks.entries import entry
from tests.systemtasks.storage.test_journal import adopted

MakeHome = Callable[..., Path]


@pytest.fixture(autouse=True)
def temporary(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a temporary folder for the system. No folder is configured."""
    settings.SYSTEMTASKS = {}
    made = tmp_path / "tmp"
    made.mkdir()
    made.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


@pytest.fixture
def make_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeHome]:
    """Return a function that makes a home for the account, or lets it have none."""

    def make(path: Path | None = tmp_path / "home") -> Path:
        def getpwuid(_account: int) -> Any:
            if path is None:
                raise KeyError
            return pwd.struct_passwd(("me", "x", 1, 1, "", str(path), ""))

        monkeypatch.setattr(pwd, "getpwuid", getpwuid)
        folder_module._home.cache_clear()
        if path is not None:
            path.mkdir(exist_ok=True)
        return path or Path()

    yield make
    folder_module._home.cache_clear()


def used() -> Path:
    path, descriptor = open_folder()
    os.close(descriptor)
    return path


def modes(path: Path, below: Path) -> set[int]:
    """Return the modes of this folder and those above it."""
    return {
        one.stat().st_mode & 0o7777 for one in (path, *path.parents) if one.is_relative_to(below)
    }


def test_default_is_in_the_accounts_home(make_home: MakeHome, temporary: Path) -> None:
    home = make_home()
    path = used()

    assert path.parent == home / ".local" / "state" / "systemtasks"
    assert used() == path
    assert list(temporary.iterdir()) == []


def test_every_folder_that_is_made_is_the_accounts_alone(make_home: MakeHome) -> None:
    home = make_home()
    before = os.umask(0)
    try:
        path = used()
    finally:
        os.umask(before)

    assert modes(path, home / ".local") == {0o700}


def test_environment_of_another_account_changes_nothing(
    make_home: MakeHome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_home()
    path = used()
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))

    assert used() == path


def test_each_database_has_a_folder_of_its_own(make_home: MakeHome, settings: Settings) -> None:
    make_home()
    path = used()
    name = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = "another"
    try:
        assert used() != path
    finally:
        connection.settings_dict["NAME"] = name


def homeless(make_home: MakeHome, tmp_path: Path) -> None:
    make_home(None)


def home_of_another_account(make_home: MakeHome, tmp_path: Path) -> None:
    chown_to_nobody(make_home())
    folder_module._home.cache_clear()


def home_that_is_not_there(make_home: MakeHome, tmp_path: Path) -> None:
    make_home().rmdir()


def home_that_cannot_be_written_to(make_home: MakeHome, tmp_path: Path) -> None:
    (make_home() / ".local").write_text("a file where the folder should be")


def home_with_a_folder_that_is_open_to_others(make_home: MakeHome, tmp_path: Path) -> None:
    make_home()
    used().chmod(0o777)


@pytest.mark.parametrize(
    "arrange",
    [
        *(homeless, home_of_another_account, home_that_is_not_there),
        *(home_that_cannot_be_written_to, home_with_a_folder_that_is_open_to_others),
    ],
)
def test_account_without_a_home_has_a_folder_among_the_temporary_ones(
    make_home: MakeHome, temporary: Path, tmp_path: Path, arrange: Callable[[MakeHome, Path], None]
) -> None:
    arrange(make_home, tmp_path)
    path = used()

    assert path.parent == temporary
    assert modes(path, path) == {0o700}
    assert used() == path


def test_name_of_the_temporary_folder_cannot_be_guessed(make_home: MakeHome) -> None:
    make_home(None)
    path = used()
    with override_settings(SECRET_KEY="another-secret-key-that-nobody-knows"):
        other = used()

    assert path.name != other.name


def test_temporary_folder_of_another_account_is_not_used(
    make_home: MakeHome, temporary: Path
) -> None:
    make_home(None)
    path = used()
    path.chmod(0o777)
    chown_to_nobody(path)

    with pytest.raises(PermissionError, match="belongs to another account"):
        open_folder()


def test_what_a_process_left_is_found_wherever_it_could_write(
    make_home: MakeHome, temporary: Path
) -> None:
    home = make_home()
    in_home, in_temporary = folders()
    assert in_home.is_relative_to(home)
    records: list[RunRecord] = []
    for number, path in enumerate((in_home, in_temporary)):
        path.mkdir(mode=0o700, parents=True)
        (path / f"1-0{SUFFIX}").write_bytes(entry(str(number)).line)
        records.append(entry(str(number)).record())

    assert adopted(Journal()) == records


def link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.parent / "elsewhere")


def link_that_leads_nowhere(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def file(path: Path) -> None:
    path.touch()


def open_to_the_group(path: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


def open_to_everybody(path: Path) -> None:
    path.mkdir()
    path.chmod(0o1777)


def of_another_account(path: Path) -> None:
    path.mkdir(mode=0o700)
    chown_to_nobody(path)


REFUSED = [
    (link, "is a symbolic link"),
    (link_that_leads_nowhere, "is a symbolic link"),
    (file, "is not a folder"),
    (open_to_the_group, "its mode is 0770"),
    (open_to_everybody, "its mode is 1777"),
    (of_another_account, "belongs to another account"),
]


@pytest.mark.parametrize(("make", "said"), REFUSED)
def test_configured_folder_that_others_can_fill_is_not_used(
    settings: Settings, tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "journal"
    settings.SYSTEMTASKS = {"JOURNAL_DIR": str(path)}
    make(path)

    with pytest.raises(OSError, match=said):
        open_folder()


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o750])
def test_configured_folder_may_be_looked_into(
    settings: Settings, tmp_path: Path, mode: int
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")  # above it, as /var/run is one
    path = tmp_path / "link" / "journal"
    path.mkdir(mode=mode)
    settings.SYSTEMTASKS = {"JOURNAL_DIR": str(path)}

    assert used() == path
