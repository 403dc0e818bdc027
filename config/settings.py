"""Django's settings, as the environment sets them; docs/settings.md lists its variables."""

from datetime import timedelta
from pathlib import Path

from django.templatetags.static import static

from config import embedded, environment
from systemtasks.conf import LONGEST_EXPIRY, Conf

BASE_DIR = Path(__file__).resolve().parent.parent

# If the environment names no database or broker, one from a wheel is started for this checkout
# alone, which then serves plain HTTP and makes its own secret key. See config/embedded/.
EMBEDDED = embedded.Services(
    data=Path(environment.text("DATA_DIR", str(BASE_DIR / "var"))),
    postgres=not environment.text("DATABASE_URL"),
    valkey=not environment.text("BROKER_URL"),
)
ONE_MACHINE = EMBEDDED.postgres

# For a project with workers of its own: this service is the API and the admin, and nothing else.
WEB_ONLY = environment.boolean("WEB_ONLY", default=False)
if WEB_ONLY and (EMBEDDED.postgres or EMBEDDED.valkey):
    environment.stop("WEB_ONLY needs the DATABASE_URL and the BROKER_URL of a project.")

DEBUG = environment.boolean("DEBUG", default=False)
SECRET_KEY = environment.secret_key(
    environment.text("SECRET_KEY") or (EMBEDDED.secret_key() if ONE_MACHINE else "")
)
ALLOWED_HOSTS = environment.hosts(
    "ALLOWED_HOSTS", ("localhost", "127.0.0.1", "[::1]") if ONE_MACHINE else ()
)
CSRF_TRUSTED_ORIGINS = environment.origins("CSRF_TRUSTED_ORIGINS")

HTTPS = environment.boolean("HTTPS", default=not (ONE_MACHINE or DEBUG))
SECURE_SSL_REDIRECT = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS
SECURE_HSTS_PRELOAD = HTTPS
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
X_FRAME_OPTIONS = "DENY"

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",  # it replaces templates of the admin, so it must come first
    "config.admin_app.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",  # the words for "3 minutes ago"
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "axes",
    "drf_spectacular_sidecar",
    "knox",
    "systemtasks",
    "events",
    "config",
]

MIDDLEWARE = [
    "config.proxies.find_client",
    "config.health.answer_health",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "config.pages.ContentSecurityPolicyMiddleware",
    "config.pages.SessionMiddleware",
    "config.pages.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "config.pages.CsrfViewMiddleware",
    "config.pages.AuthenticationMiddleware",
    "config.pages.MessageMiddleware",
    "config.pages.XFrameOptionsMiddleware",
    "config.pages.LockoutMiddleware",
    "config.limits.LimitRequests",
]

# The sources that a page may load, in Django's own terms. django-csp reads the same from its own
# setting. The scripts of django-unfold evaluate the attributes of its templates (Alpine), and its
# colours are in a style element.
SECURE_CSP = {
    "default-src": ["'none'"],
    "base-uri": ["'none'"],
    "connect-src": ["'self'"],
    "font-src": ["'self'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
    "img-src": ["'self'", "data:"],
    "script-src": ["'self'", "'unsafe-eval'"],
    "style-src": ["'self'", "'unsafe-inline'"],
}
CONTENT_SECURITY_POLICY = {"DIRECTIVES": SECURE_CSP}

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

# The limits of the web server: see config/web.py and config/asgi.py.
WEB_WORKERS = environment.whole_number("WEB_WORKERS", 2, least=1, most=64)
WEB_STATEMENT_SECONDS = environment.whole_number("WEB_STATEMENT_SECONDS", 5, most=3600)
WEB_THREADS = environment.whole_number("WEB_THREADS", 4, least=1, most=256)
WEB_QUEUE = environment.whole_number("WEB_QUEUE", 100, most=10_000)
WEB_CONNECTIONS = environment.whole_number("WEB_CONNECTIONS", 4096, least=1, most=65_536)
WEB_HEADER_SECONDS = environment.whole_number("WEB_HEADER_SECONDS", 15, least=1, most=60)
WEB_BODY_SECONDS = environment.whole_number("WEB_BODY_SECONDS", 10, least=1, most=3600)
WEB_BODY_BYTES = environment.whole_number("WEB_BODY_BYTES", 1_048_576, most=1_073_741_824)
WEB_SEND_SECONDS = environment.whole_number("WEB_SEND_SECONDS", 30, least=1, most=3600)
TRUSTED_PROXIES = environment.networks("TRUSTED_PROXIES")

# For a login without a page to return to, or with one of another site.
LOGIN_REDIRECT_URL = "admin:index"

# No page accepts a file. The rest of a body is in memory, and the web server limits its size.
FILE_UPLOAD_HANDLERS: list[str] = []
DATA_UPLOAD_MAX_MEMORY_SIZE = WEB_BODY_BYTES

# DEBUG's error page must not show a password either.
DEFAULT_EXCEPTION_REPORTER = "config.debugging.Reporter"
DEFAULT_EXCEPTION_REPORTER_FILTER = "config.debugging.ReporterFilter"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": {
        **environment.database(environment.text("DATABASE_URL") or EMBEDDED.database_url()),
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
    }
}
SERVICE_SCHEMA = environment.schema("SERVICE_SCHEMA", "systemtasks_service")
DATABASE_ROUTERS = ["config.postgres.Router"]
# Lets Postgres keep the plans of the statements of events.prepared, and of those that write runs.
# An old pooler, which does not know them, hands a statement to a connection that has no plan of it.
PREPARED = environment.boolean("PREPARED_STATEMENTS", default=True)
DATABASES["default"]["OPTIONS"]["prepare_threshold"] = 0 if PREPARED else None
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en"
LANGUAGES = [("de", "Deutsch"), ("en", "English")]
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

UNFOLD = {
    "SITE_TITLE": "System Tasks",
    "SITE_HEADER": "System Tasks",
    "SITE_SYMBOL": "checklist",
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": lambda _: static("systemtasks/icon.svg"),
        },
    ],
    "STYLES": [lambda _: static("config/unfold.css")],
    "SITE_URL": None,
    "SIDEBAR": {"navigation": "config.sidebar.navigation"},
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
}

STATIC_URL = "static/"
# Serves each file from its package, so that collectstatic is not needed.
WHITENOISE_USE_FINDERS = True

LOG_LEVEL = environment.one_of("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": LOG_FORMAT}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        "django": {"handlers": [], "propagate": True},
        "axes": {"level": "WARNING"},  # below, it logs successful logins, and its own start
    },
}

CELERY_BROKER_URL = environment.broker(environment.text("BROKER_URL") or EMBEDDED.broker_url())
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_RESULT_EXPIRES = None  # no results, so beat need not schedule their deletion
CELERY_WORKER_LOG_FORMAT = LOG_FORMAT
CELERY_WORKER_TASK_LOG_FORMAT = "%(asctime)s %(levelname)-7s %(task_name)s: %(message)s"
CELERY_TIMEZONE = "UTC"

# A project may use the same broker with Celery's default names. Names of its own keep the service
# from taking the project's messages, commands and events, and the project from taking these.
CELERY_TASK_DEFAULT_QUEUE = "systemtasks"
CELERY_EVENT_EXCHANGE = "systemtasks.events"
# A process that reads from Redis requeues the unacknowledged messages that it finds under these
# keys, after its own visibility timeout. A project may have a longer one, and so has other keys.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    **{f"{key}_key": f"systemtasks.{key}" for key in ("unacked", "unacked_index", "unacked_mutex")},
    **environment.json_object("BROKER_TRANSPORT_OPTIONS"),
}
if WEB_ONLY:
    CELERY_TASK_ROUTES = "config.routing.route_as_recorded"
else:
    CELERY_CONTROL_EXCHANGE = "systemtasks"

DEMO_TASKS = environment.boolean("DEMO_TASKS", default=False)
if WEB_ONLY and DEMO_TASKS:
    environment.stop("DEMO_TASKS needs a worker, and WEB_ONLY starts none.")

# Names and defaults are those of systemtasks.conf.
_DEFAULTS = Conf()
SYSTEMTASKS = {
    "EXPIRES_AFTER_DAYS": environment.number(
        "EXPIRES_AFTER_DAYS", _DEFAULTS.EXPIRES_AFTER_DAYS, most=LONGEST_EXPIRY.days
    ),
    "ERRORS_KEPT_LONGER_DAYS": environment.number(
        "ERRORS_KEPT_LONGER_DAYS", _DEFAULTS.ERRORS_KEPT_LONGER_DAYS, most=LONGEST_EXPIRY.days
    ),
    "WARNING_FROM_LOGS": environment.boolean(
        "WARNING_FROM_LOGS", default=_DEFAULTS.WARNING_FROM_LOGS
    ),
    "RECORD_LOG_LEVEL": environment.one_of(
        "RECORD_LOG_LEVEL",
        _DEFAULTS.RECORD_LOG_LEVEL,
        ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
    ),
    "JOURNAL_DIR": environment.text(
        "JOURNAL_DIR", str(EMBEDDED.data.resolve() / "journal") if ONE_MACHINE else ""
    ),
    "RECORD_SENDING": environment.boolean("RECORD_SENDING", default=_DEFAULTS.RECORD_SENDING),
    "KNOWN_FROM_START": environment.one_of(
        "KNOWN_FROM_START", _DEFAULTS.KNOWN_FROM_START, ("scheduled", "registered", "none")
    ),
    "LEASE_SECONDS": environment.number(
        "LEASE_SECONDS", _DEFAULTS.LEASE_SECONDS, least=1, most=86_400
    ),
    "LOST_AFTER_DAYS": environment.number(
        "LOST_AFTER_DAYS", _DEFAULTS.LOST_AFTER_DAYS, most=LONGEST_EXPIRY.days
    ),
    "MASK_TEXTS": environment.boolean("MASK_TEXTS", default=_DEFAULTS.MASK_TEXTS),
    "RECORD_ARGUMENTS": environment.boolean("RECORD_ARGUMENTS", default=_DEFAULTS.RECORD_ARGUMENTS),
    "MOST_WAITING": environment.whole_number("MOST_WAITING", _DEFAULTS.MOST_WAITING, most=1000),
    "TOKEN_RATE": environment.whole_number("TOKEN_RATE", _DEFAULTS.TOKEN_RATE, most=1_000_000_000),
}

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",  # refuses a login before the password is checked
    "events.backends.OneQueryModelBackend",
]
# After this many failed logins, an address and an account must each wait. A success resets the
# account's count. An attempt during the wait does not make it longer.
AXES_FAILURE_LIMIT = 10
# These three do not accept a subclass of a middleware; see config/pages.py.
SILENCED_SYSTEM_CHECKS = ["axes.W002", "security.W002", "security.W003"]
AXES_COOLOFF_TIME = timedelta(minutes=10)
AXES_LOCKOUT_PARAMETERS = ["ip_address", "username"]
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_DISABLE_ACCESS_LOG = True  # a table of all logins that is never emptied
AXES_ENABLE_ADMIN = False
AXES_CLIENT_IP_CALLABLE = "config.logins.client_address"
AXES_CLIENT_STR_CALLABLE = "config.logins.client_text"
REST_KNOX = {"TOKEN_TTL": None}
