"""The wheel of this checkout, in environments of its own, and what the docs have one do with it."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from uuid import uuid4

from tests.processes import ROOT

INSTALLED_AS = {"systemtasks": "systemtasks", "events": "systemtasks_api"}
"""The packages of this checkout, and what the wheel calls them."""


def blocks(page: str, file: str, until: str = "") -> str:
    """The code that a page of the docs has one write into a file, up to a heading."""
    text = (ROOT / "docs" / page).read_text()
    if until:
        text, heading, _ = text.partition(f"\n## {until}\n")
        assert heading
    found = re.findall(rf"^```python\n# {re.escape(file)}\n(.*?)^```", text, flags=re.M | re.S)
    assert found
    return "\n".join(found)


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """What a command prints that has to succeed; it knows nothing of this checkout."""
    ours = {"DJANGO_SETTINGS_MODULE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    env = {name: value for name, value in os.environ.items() if name not in ours}
    ended = subprocess.run(
        command, cwd=cwd, env=env | variables, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def build(folder: Path) -> Path:
    """Build the wheel of this checkout, from a copy without anything that an earlier one left."""
    source = folder / "source"
    for name in INSTALLED_AS:
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "--wheel-dir", folder / "wheels", source, cwd=folder)
    (built,) = (folder / "wheels").iterdir()
    return built


def environment(folder: Path, *packages: str, django: bool = True) -> Path:
    """Return the interpreter of a new environment with these packages and what they ask for.

    They have the versions that requirements/test.txt pins; Django only with `django`.
    """
    environment = folder / f"environment-{uuid4().hex[:8]}"
    venv.create(environment)
    pinned = re.findall(
        r"^([\w.-]+==[^\s\\]+(?: ;[^\\\n]+)?)",
        (ROOT / "requirements" / "test.txt").read_text(),
        re.M,
    )
    pinned = [line for line in pinned if django or not line.startswith("django==")]
    (folder / "pinned.txt").write_text("\n".join(pinned))
    made = environment / "bin" / "python"
    uv = (Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--python", made)
    run(*uv, "--constraint", folder / "pinned.txt", *packages, cwd=folder)
    return made
