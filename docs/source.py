"""A role for places in the code: {source}`systemtasks/storage/writer.py#Writer.submit`.

It becomes the file and the line at which that name is defined, with a link to a page that shows
the file. A file or a name that is not there is a warning, so the docs cannot outlive the code.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

ROOT = Path(__file__).resolve().parent.parent

logger = logging.getLogger(__name__)

shown: set[str] = set()
"""The files that the docs name."""


class SourceRole(SphinxRole):
    """Names a file, or what is defined in one behind a `#`."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        path, _, name = self.text.partition("#")
        try:
            line = find(path, name)
        except (OSError, LookupError) as error:
            logger.warning("There is no %s: %s", self.text, error, location=self.get_location())
            return [nodes.literal(text=self.text)], []
        shown.add(path)
        uri = self.env.app.builder.get_relative_uri(self.env.docname, page(path))
        text = path if line is None else f"{path}:{line}"
        anchor = "" if line is None else f"#line-{line}"
        reference = nodes.reference("", "", nodes.literal(text=text), refuri=uri + anchor)
        reference["reftitle"] = name or path
        return [reference], []


def find(path: str, name: str) -> int | None:
    """Return the line at which `name` (`function`, `Class.method`, `CONSTANT`) is defined.

    Return None for an empty name. Raises LookupError where the file has no such name, and OSError
    where there is no such file.
    """
    text = (ROOT / path).read_text()
    if not name:
        return None
    body, line = ast.parse(text).body, 0
    for part in name.split("."):
        line, body = _definitions(body)[part]
    return line


def _definitions(body: list[ast.stmt]) -> dict[str, tuple[int, list[ast.stmt]]]:
    found: dict[str, tuple[int, list[ast.stmt]]] = {}
    for node in body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                found[node.name] = node.lineno, node.body
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node.lineno, []
    return found


def page(path: str) -> str:
    """The name of the page that shows this file."""
    return f"source/{path}"


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for each file that the docs name, with an anchor for each line."""
    highlighter = app.builder.highlighter  # type: ignore[attr-defined]
    for path in sorted(shown):
        language = "python" if path.endswith(".py") else "text"
        code = highlighter.highlight_block(
            (ROOT / path).read_text(), language, linenos="inline", lineanchors="line"
        )
        body = f"<h1><code>{path}</code></h1>{code}"
        yield page(path), {"title": path, "body": body}, "page.html"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_role("source", SourceRole())
    app.connect("html-collect-pages", pages)
    # The lines are those of now: a page that names them is made anew each time.
    return {"parallel_read_safe": False, "parallel_write_safe": True}
