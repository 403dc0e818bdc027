"""The packages of the wheel; everything else about it is in pyproject.toml.

The folder `events` is installed as `systemtasks_api`, since a project may have an `events` of its
own. So the modules in it import each other by relative names.
"""

from setuptools import find_packages, setup

INSTALLED_AS = {"events": "systemtasks_api"}


def installed_name(package: str) -> str:
    """Return the name under which the wheel installs this package of the repository."""
    top, dot, rest = package.partition(".")
    return f"{INSTALLED_AS.get(top, top)}{dot}{rest}"


setup(
    packages=[
        installed_name(package)
        for package in find_packages(include=["systemtasks", "systemtasks.*", "events", "events.*"])
    ],
    package_dir={installed: folder for folder, installed in INSTALLED_AS.items()},
)
