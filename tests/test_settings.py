"""A setting has the same name, default and meaning in every place that names it."""

import ast
import re
from dataclasses import fields
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from config import settings as service
from systemtasks.conf import Conf
from tests.processes import ROOT
from tests.test_compose import READ_BY_COMPOSE, SERVICES, SETTINGS_LEFT_OUT, TEXT, VARIABLE

OF_MACHINE = {"JOURNAL_DIR"}
"""Settings whose default in this service depends on the machine."""
OF_CONTAINERS = {"DATABASE_URL", "BROKER_URL", "JOURNAL_DIR", "WEB_ONLY"}
"""Settings that docker-compose.yml sets itself, since it starts the services that they name."""


class Described(NamedTuple):
    """The description of a setting in one place."""

    default: str
    meaning: str


def first_sentence(text: str) -> str:
    """Return the text up to the full stop that ends its first sentence, on one line."""
    joined = " ".join(text.split())
    return re.split(r"(?<=\.)\s", joined, maxsplit=1)[0]


def in_python(default: object) -> str:
    """Return a default as it is in a settings module."""
    return repr(default).replace("'", '"')


def in_environment(default: object) -> str:
    """Return a default as it is in the environment."""
    return str(default).lower() if isinstance(default, bool) else str(default)


def of_conf() -> dict[str, Described]:
    """Return each field of Conf, with the first sentence of the text below it."""
    tree = ast.parse((ROOT / "systemtasks" / "conf.py").read_text())
    (body,) = [
        node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Conf"
    ]
    texts = {
        field.target.id: text.value.value
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
    return {
        field.name: Described(in_python(field.default), first_sentence(texts[field.name]))
        for field in fields(Conf)
    }


def of_docs(heading: str) -> dict[str, Described]:
    """Return the rows of the table below this heading of docs/settings.md."""
    text = (ROOT / "docs" / "settings.md").read_text()
    section = re.split(r"^## ", text, flags=re.M)
    (chosen,) = [part for part in section if part.startswith(f"{heading}\n")]
    rows = re.findall(r"^\| `([A-Z_]+)` \|(.*)\|$", chosen, flags=re.M)
    table = {}
    for name, rest in rows:
        cells = [cell.strip() for cell in rest.split(" |")]
        table[name] = Described(cells[0].strip("`").strip("|"), cells[-1])
    assert list(table) == sorted(table)
    return table


def of_example() -> dict[str, Described]:
    """Return each variable in .env.example, with the first sentence of the comment above it."""
    text = (ROOT / ".env.example").read_text()
    found = re.findall(r"((?:^# .*\n)*?)^(?:# )?([A-Z_]+)=(.*)$", text, flags=re.M)
    return {
        name: Described(default, first_sentence(comment.replace("# ", "")))
        for comment, name, default in found
    }


def given_by_environment() -> set[str]:
    """Return the settings of Conf that config/settings.py reads from the environment."""
    return set(service.SYSTEMTASKS)


def test_docs_have_every_setting_with_its_default_and_its_meaning() -> None:
    assert of_docs("SYSTEMTASKS") == of_conf()


def test_docs_say_which_settings_the_environment_gives() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    said = set(re.findall(r"^\| `([A-Z_]+)` \|[^|]*\| yes \|", text, flags=re.M))
    assert said == given_by_environment()


@pytest.mark.parametrize("name", sorted(given_by_environment()))
def test_environment_has_the_name_and_the_default_of_the_setting(name: str) -> None:
    source = (ROOT / "config" / "settings.py").read_text()
    given: Any = service.SYSTEMTASKS
    assert re.search(rf'"{name}": environment\.\w+\(\s*"{name}"', source)
    assert name in OF_MACHINE or given[name] == getattr(Conf(), name)


def test_example_of_compose_has_the_meanings_of_the_docs() -> None:
    documented = {
        name: described.meaning
        for heading in ("SYSTEMTASKS", "The service's own environment", "Compose")
        for name, described in of_docs(heading).items()
    }
    example = of_example()
    assert {name: text.meaning for name, text in example.items()} == {
        name: documented[name] for name in example
    }


def test_example_of_compose_has_the_defaults_of_the_settings() -> None:
    conf, example = Conf(), of_example()
    shared = sorted(given_by_environment() - OF_CONTAINERS)
    assert {name: example[name].default for name in shared} == {
        name: in_environment(getattr(conf, name)) for name in shared
    }


def test_example_of_compose_has_the_defaults_of_the_docs() -> None:
    example = of_example()
    documented = of_docs("The service's own environment") | of_docs("Compose")
    shared = documented.keys() & example.keys() - {"SECRET_KEY", "ALLOWED_HOSTS", *OF_CONTAINERS}
    assert {name: documented[name].default for name in shared} == {
        name: example[name].default for name in shared
    }


def test_docs_have_every_variable_that_the_service_and_compose_read() -> None:
    passed_on = {name for name, text in SERVICES["web"]["environment"].items() if text is None}
    read = {name for name, _, _ in VARIABLE.findall(TEXT)} | passed_on
    documented = of_docs("The service's own environment") | of_docs("Compose")
    expected = (read | OF_CONTAINERS | SETTINGS_LEFT_OUT | READ_BY_COMPOSE) - given_by_environment()
    assert documented.keys() == expected
