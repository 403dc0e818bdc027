"""Build the wheel of this checkout, and install it as the docs say in new environments."""

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
"""The packages of this checkout, with their names in the wheel."""


def blocks(page: str, file: str, until: str = "") -> str:
    """Return the code that a docs page asks the reader to add to a file, up to a heading."""
    text = (ROOT / "docs" / page).read_text()
    if until:
        text, heading, _ = text.partition(f"\n## {until}\n")
        assert heading
    found = re.findall(rf"^```python\n# {re.escape(file)}\n(.*?)^```", text, flags=re.M | re.S)
    assert found
    return "\n".join(found)


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command without access to this checkout. It must succeed. Return its output."""
    ours = {"DJANGO_SETTINGS_MODULE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    env = {name: value for name, value in os.environ.items() if name not in ours}
    ended = subprocess.run(
        command, cwd=cwd, env=env | variables, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def build(folder: Path) -> Path:
    """Build the wheel from a copy of this checkout without the files of earlier builds."""
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
    """Return the interpreter of a new environment with these packages and their dependencies.

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
