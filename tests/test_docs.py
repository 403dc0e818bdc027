"""Every link of the docs, every place in the code and every line of the log is there."""

import ast
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from django.core.management import get_commands, load_command_class

from events.filters import SystemTaskFilter, TaskRunFilter
from systemtasks.states import UNFINISHED, State
from tests.processes import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")])
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}
"""The attributes of HTML that a browser loads by itself."""


class Page(HTMLParser):
    """The addresses and anchors in a page of HTML."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if (tag, name) in LOADED:
                self.loaded.append(value or "")
            elif (tag, name) == ("a", "href"):
                self.links.append(value or "")
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def build(source: Path, site: Path) -> "subprocess.CompletedProcess[str]":
    """Build the site as `make docs` does."""
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-E",
        "-W",
        "--keep-going",
        "-q",
        str(source),
        str(site),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    folder = tmp_path_factory.mktemp("site")
    built = build(DOCS, folder)
    assert (built.returncode, built.stderr) == (0, "")
    return {path: Page(path) for path in folder.rglob("*.html")}


@pytest.mark.slow
def test_site_loads_nothing_from_elsewhere(site: dict[Path, Page]) -> None:
    folder = next(path.parent for path in site if path.name == "search.html")
    sheets = [path.read_text() for path in folder.rglob("*.css")]
    named = [address for sheet in sheets for address in re.findall(r"url\(['\"]?([^'\")]+)", sheet)]
    named += [
        address for sheet in sheets for address in re.findall(r"@import ['\"]([^'\"]+)", sheet)
    ]
    named += [address for page in site.values() for address in page.loaded]
    assert sheets
    assert named
    foreign = [one for one in named if urlsplit(one).scheme != "data" and urlsplit(one).netloc]
    assert foreign == []


@pytest.mark.slow
def test_every_link_of_the_site_leads_to_a_page_and_a_place_in_it(site: dict[Path, Page]) -> None:
    broken = []
    followed = 0
    for page in site.values():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            followed += 1
            path = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            target = site.get(path)
            if not path.is_file() or (
                target and parts.fragment and unquote(parts.fragment) not in target.anchors
            ):
                broken.append((page.path.name, link))
    assert followed > 100
    assert broken == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[a page](nowhere.md)", "nowhere"),
        ("[a heading](page.md#nowhere)", "nowhere"),
        ("{source}`systemtasks/nowhere.py`", "There is no systemtasks/nowhere.py"),
        ("{source}`systemtasks/conf.py#Nowhere`", "There is no systemtasks/conf.py#Nowhere"),
        ("{source}`systemtasks/conf.py#Conf.NOWHERE`", "There is no systemtasks/conf.py#Conf"),
    ],
)
def test_what_leads_nowhere_fails_the_build(tmp_path: Path, text: str, complaint: str) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    for name in ("conf.py", "source.py"):
        code = (DOCS / name).read_text()
        (source / name).write_text(
            code.replace("Path(__file__).resolve().parent.parent", f"Path({str(ROOT)!r})").replace(
                "html_favicon", "_favicon"
            )
        )
    (source / "index.md").write_text(f"# Index\n\n{text}\n\n```{{toctree}}\npage\n```\n")
    (source / "page.md").write_text("# Page\n\n{source}`systemtasks/conf.py#Conf.ENABLED`\n")
    built = build(source, tmp_path / "site")
    assert built.returncode != 0
    assert complaint in built.stderr
    assert built.stderr.count("WARNING") == 1


def test_every_link_between_files_of_the_checkout_leads_to_one() -> None:
    links = [
        (page, link)
        for page in PAGES
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
        if not urlsplit(link).scheme
    ]
    assert len(links) > 20
    assert [(page.name, link) for page, link in links if not (page.parent / link).is_file()] == []


def test_every_target_of_make_that_the_docs_name_is_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    text = "\n".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"(?:^\$ |`)make\s+([a-z][a-z-]+)", text, flags=re.M))
    assert len(named) > 5
    assert named - targets == set()


def test_every_command_of_manage_that_the_docs_name_takes_these_options() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    named = re.findall(r"manage\.py ([a-z_]+)([^\n`]*)", text)
    assert len(named) > 5
    for name, words in named:
        parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
        unknown = set(re.findall(r" (--[a-z-]+)", words)) - parser._option_string_actions.keys()
        assert unknown == set(), name


def test_every_path_that_the_recipes_name_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = {path for path in re.findall(r"`([\w./-]+/[\w./-]*)`", text) if path[0] != "."}
    assert len(paths) > 20
    made = {"docs/_build/html"}
    assert [path for path in sorted(paths - made) if not (ROOT / path).exists()] == []


def test_diagram_is_drawn_of_its_source_and_has_every_final_state() -> None:
    source, drawn = (DOCS / "run.dot").read_text(), (DOCS / "run.svg").read_text()
    labels = re.findall(r'[^\w]label="([^"]+)"', source)
    lines = {line.strip() for label in labels for line in re.split(r"\\[nl]", label)} - {""}
    texts = {unescape(text).strip() for text in re.findall(r"<text [^>]*>([^<]+)</text>", drawn)}
    assert texts == lines
    final = {word for line in lines if "·" in line for word in line.split(" · ")}
    assert final == {state.value for state in State if state not in UNFINISHED}


def test_lines_of_the_log_that_the_docs_explain_are_logged() -> None:
    logged = " ".join(
        " ".join(node.value.split())
        for path in (ROOT / "systemtasks").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    section = (DOCS / "operations.md").read_text().split("\n## ")[1]
    explained = re.findall(r"^\| `([^`]+)` \|", section, flags=re.M)
    assert len(explained) > 10
    for line in explained:
        for part in re.split(r"…|\bN\b", line):
            assert part.strip() in logged, line


@pytest.mark.parametrize(
    ("heading", "filters"), [("Tasks", SystemTaskFilter), ("Runs", TaskRunFilter)]
)
def test_docs_of_the_api_have_every_filter(
    heading: str, filters: type[SystemTaskFilter] | type[TaskRunFilter]
) -> None:
    parts = (DOCS / "api.md").read_text().split("\n## ")
    (section,) = [part for part in parts if part.startswith(f"{heading}\n")]
    rows = re.findall(r"^\| (`.+?) \|", section, flags=re.M)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert filters.base_filters.keys() <= documented
