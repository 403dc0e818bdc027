"""The settings of DRF and django-filter in a project that does not change them."""

from rest_framework.settings import DEFAULTS, IMPORT_STRINGS, APISettings

DRF_DEFAULTS = APISettings(DEFAULTS, DEFAULTS, IMPORT_STRINGS)
"""DRF's own settings: those of a project without REST_FRAMEWORK."""

EXACTLY = {"lookup_expr": "exact"}
"""Options of a filter that replace the project's FILTERS_DEFAULT_LOOKUP_EXPR."""

ONE_OF = {**EXACTLY, "null_label": None}
"""Options of a filter of choices. They also replace FILTERS_NULL_CHOICE_LABEL."""
