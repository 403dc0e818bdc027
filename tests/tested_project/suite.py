"""The project's tests as a script of its own runs them, by Django's guide for reusable apps."""

import os
import sys

import django
from django.conf import settings
from django.test.utils import get_runner

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    django.setup()
    sys.exit(get_runner(settings)().run_tests(["shop"]))
