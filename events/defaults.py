"""The settings of DRF and django-filter, as they are where a project changes none of them."""

from rest_framework.settings import DEFAULTS, IMPORT_STRINGS, APISettings

DRF_DEFAULTS = APISettings(DEFAULTS, DEFAULTS, IMPORT_STRINGS)
"""DRF's own settings: those of a project without REST_FRAMEWORK."""

EXACTLY = {"lookup_expr": "exact"}
"""Options of a filter that stand in for the project's FILTERS_DEFAULT_LOOKUP_EXPR."""

ONE_OF = {**EXACTLY, "null_label": None}
"""Options of a filter of choices, which also stand in for FILTERS_NULL_CHOICE_LABEL."""
