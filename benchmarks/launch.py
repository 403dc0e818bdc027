"""Set up Django, and call a module's `main`: `python -m benchmarks.launch MODULE WORD …`."""

import sys
from importlib import import_module

import django


def main(module: str, *words: str) -> None:
    django.setup()
    import_module(module).main(*words)


if __name__ == "__main__":
    main(*sys.argv[1:])
