"""The service's settings, with settings that a project may have for its own views and filters."""

from config import settings as service
from config.settings import *  # noqa: F403 - Django's settings are a module's names

INSTALLED_APPS = [*service.INSTALLED_APPS, "django_filters", "drf_spectacular", "rest_framework"]
DATABASES = {"default": {**service.DATABASES["default"], "TEST": {"NAME": "test_foreign_settings"}}}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.BasicAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.StaticHTMLRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.FileUploadParser"],
    "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.AnonRateThrottle"],
    "DEFAULT_THROTTLE_RATES": {"anon": "1/day"},
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "rest_framework.negotiation.BaseContentNegotiation",
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.AcceptHeaderVersioning",
    "DEFAULT_VERSION": "7",
    "ALLOWED_VERSIONS": ["7"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.CursorPagination",
    "PAGE_SIZE": 1,
    "DEFAULT_FILTER_BACKENDS": ["rest_framework.filters.SearchFilter"],
    "DEFAULT_SCHEMA_CLASS": None,
    "EXCEPTION_HANDLER": None,
    "VIEW_NAME_FUNCTION": None,
    "VIEW_DESCRIPTION_FUNCTION": None,
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": "django.contrib.auth.models.AnonymousUser",
    "NON_FIELD_ERRORS_KEY": "errors",
    "URL_FORMAT_OVERRIDE": "as",
    "FORMAT_SUFFIX_KWARG": "uuid",
    "SEARCH_PARAM": "q",
    "ORDERING_PARAM": "sort",
    "DATETIME_FORMAT": "%d.%m.%Y",
    "DATETIME_INPUT_FORMATS": ["%d.%m.%Y"],
    "COERCE_DECIMAL_TO_STRING": False,
    "COMPACT_JSON": False,
    "UNICODE_JSON": False,
    "STRICT_JSON": False,
}
FILTERS_DEFAULT_LOOKUP_EXPR = "icontains"
FILTERS_EMPTY_CHOICE_LABEL = None
FILTERS_NULL_CHOICE_LABEL = "none"
FILTERS_NULL_CHOICE_VALUE = "none"
FILTERS_DISABLE_HELP_TEXT = True
SPECTACULAR_SETTINGS = {"TITLE": "Shop", "CAMELIZE_NAMES": True, "SCHEMA_PATH_PREFIX": "/shop"}
