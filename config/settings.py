"""All settings, in one place; the only module that reads the environment.

A wrong value stops the start with the variable's name. docs/settings.md describes each variable.
"""

from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

from workers import embedded

ROOT = Path(__file__).resolve().parent.parent
env = environ.Env()
if (ROOT / ".env").is_file():
    env.read_env(ROOT / ".env")
# Read when NumPy is first imported. A search multiplies small matrices: sharing one among threads
# that spin cost 6.6 ms of processor time on two cores, one thread alone 0.8.
env.ENVIRON.setdefault("OPENBLAS_NUM_THREADS", "1")


def choice(name: str, *, default: str, among: tuple[str, ...]) -> str:
    value: str = env.str(name, default=default)
    if value not in among:
        raise ImproperlyConfigured(f"{name} is “{value}”; it must be one of: {', '.join(among)}.")
    return value


def whole(name: str, *, default: int, least: int) -> int:
    try:
        value: int = env.int(name, default=default)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} must be a whole number.") from error
    if value < least:
        raise ImproperlyConfigured(f"{name} is {value}; it must be at least {least}.")
    return value


def positive(name: str, *, default: int) -> int:
    return whole(name, default=default, least=1)


# --- Where things lie -------------------------------------------------------------------------
DATA_DIR = Path(env.str("DATA_DIR", default=str(ROOT / ".tacit"))).resolve()
# `script/up` leaves the addresses of its embedded services here, so that every manage.py command
# of the same install reaches them.
RUNNING = embedded.read_urls(DATA_DIR)

# --- Security ---------------------------------------------------------------------------------
DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default=RUNNING.get("SECRET_KEY", ""))
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "SECRET_KEY is not set. `script/up` makes one by itself; for any other install put a long"
        " random value into the environment."
    )
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
# The address people type; links in invitations start with it.
BASE_URL = env.str("BASE_URL", default="http://127.0.0.1:8000").rstrip("/")
HTTPS = BASE_URL.startswith("https://")
CSRF_TRUSTED_ORIGINS = [BASE_URL]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = positive("SESSION_DAYS", default=14) * 24 * 3600
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
# Only behind a proxy that sets these headers itself; otherwise a client could forge them.
TRUST_PROXY = env.bool("TRUST_PROXY", default=False)
if TRUST_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    USE_X_FORWARDED_HOST = True
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none';"
    " base-uri 'none'; object-src 'none'; manifest-src 'self'"
)

# --- Uploads ----------------------------------------------------------------------------------
MAX_UPLOAD_BYTES = positive("MAX_UPLOAD_MB", default=200) * 1024 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FILES = 2_000
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5_000
FILE_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
STORAGES = {
    "default": {
        "BACKEND": "kb.files.ContentStorage",
        "OPTIONS": {"location": DATA_DIR / "files"},
    },
    "staticfiles": {"BACKEND": "kb.files.StaticFiles"},
}

# --- Application ------------------------------------------------------------------------------
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_filters",
    "django_htmx",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "rest_framework",
    "kb",
    "finetune",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "kb.middleware.content_security_policy",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "kb.middleware.refuse_nul",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "kb.views.context.frame",
            ],
        },
    },
]
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
AUTH_USER_MODEL = "kb.User"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "ask"
LOGOUT_REDIRECT_URL = "login"
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
PASSWORD_RESET_TIMEOUT = 3 * 24 * 3600
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
TIME_ZONE = env.str("TIME_ZONE", default="UTC")
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
WHITENOISE_USE_FINDERS = True
vars().update(env.email_url("EMAIL_URL", default="consolemail://"))
DEFAULT_FROM_EMAIL = env.str("EMAIL_FROM", default="tacit@localhost")

# --- PostgreSQL and Redis ---------------------------------------------------------------------
DATABASE_URL = env.str("DATABASE_URL", default=RUNNING.get("DATABASE_URL", ""))
REDIS_URL = env.str("REDIS_URL", default=RUNNING.get("REDIS_URL", ""))
if not (DATABASE_URL and REDIS_URL):
    raise ImproperlyConfigured(
        "No database is running for this folder. Start everything with `script/up`, or set"
        " DATABASE_URL and REDIS_URL to servers of your own."
    )
DATABASES: dict[str, Any] = {"default": environ.Env.db_url_config(DATABASE_URL)}
# A pool for the web process; workers fork, so workers.app sets 0: none.
DATABASE_POOL = whole("DATABASE_POOL", default=12, least=0)
DATABASES["default"]["CONN_MAX_AGE"] = 0
DATABASES["default"].setdefault("OPTIONS", {}).update(
    {
        "pool": {"min_size": 1, "max_size": DATABASE_POOL, "timeout": 15}
        if DATABASE_POOL
        else False,
        # A client that hangs in a transaction must not hold its locks for ever.
        "options": "-c idle_in_transaction_session_timeout=120000 -c jit=off",
    }
)
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}
}

# --- Background work --------------------------------------------------------------------------
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CONCURRENCY = positive("INGEST_PROCESSES", default=1)
CELERY_WORKER_MAX_TASKS_PER_CHILD = 200
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": 15, "socket_connect_timeout": 5}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
LEASE_S = positive("LEASE_S", default=60)
MAX_ATTEMPTS = positive("MAX_ATTEMPTS", default=5)
WATCHDOG_S = positive("WATCHDOG_S", default=60)

# --- Engines ----------------------------------------------------------------------------------
EMBEDDERS: dict[str, dict[str, Any]] = {
    "minilm": {
        "BACKEND": "kb.embedders.minilm.MiniLMEmbedder",
        "OPTIONS": {
            "graph_path": Path(
                env.str("MINILM_GRAPH", default=str(DATA_DIR / "models/minilm.onnx"))
            ),
            "threads": positive("EMBEDDING_THREADS", default=2),
        },
    },
    "tei": {
        "BACKEND": "kb.embedders.tei.TEIEmbedder",
        "OPTIONS": {
            "url": env.str("TEI_URL", default="http://127.0.0.1:8081"),
            "model_name": env.str("TEI_MODEL", default="sentence-transformers/all-MiniLM-L6-v2"),
            "dimensions": positive("TEI_DIMENSIONS", default=384),
            "timeout_s": positive("TEI_TIMEOUT_S", default=30),
        },
    },
    "hashing": {"BACKEND": "kb.embedders.hashing.HashingEmbedder", "OPTIONS": {}},
}
EMBEDDER = EMBEDDERS[choice("EMBEDDER", default="minilm", among=tuple(EMBEDDERS))]
MODEL_SERVER_URL = env.str("MODEL_SERVER_URL", default=RUNNING.get("MODEL_SERVER_URL", ""))
MODEL_SERVER_KEY = env.str("MODEL_SERVER_KEY", default=RUNNING.get("MODEL_SERVER_KEY", ""))
GENERATORS: dict[str, dict[str, Any]] = {
    "extractive": {"BACKEND": "kb.generators.extractive.ExtractiveGenerator", "OPTIONS": {}},
    "chat_completions": {
        "BACKEND": "kb.generators.chat_completions.ChatCompletionsGenerator",
        "OPTIONS": {
            "url": MODEL_SERVER_URL,
            "base_model": env.str("MODEL_NAME", default="tgi"),
            "api_key": MODEL_SERVER_KEY,
            "timeout_s": positive("MODEL_TIMEOUT_S", default=60),
            "why_unserved": "finetune.activation:why_unserved",
        },
    },
}
GENERATOR_NAME = choice(
    "GENERATOR",
    default="chat_completions" if MODEL_SERVER_URL else "extractive",
    among=tuple(GENERATORS),
)
if GENERATOR_NAME == "chat_completions" and not MODEL_SERVER_URL:
    raise ImproperlyConfigured("GENERATOR is “chat_completions”, so MODEL_SERVER_URL must be set.")
GENERATOR = GENERATORS[GENERATOR_NAME]
# Offered when the model server is away.
FALLBACK_GENERATOR = GENERATORS["extractive"]
# Compares answers in evaluations; None: the model of the chats does.
JUDGE: dict[str, Any] | None = None
if JUDGE_URL := env.str("JUDGE_URL", default=""):
    JUDGE = {
        "BACKEND": GENERATORS["chat_completions"]["BACKEND"],
        "OPTIONS": {
            "url": JUDGE_URL,
            "base_model": env.str("JUDGE_NAME", default="tgi"),
            "api_key": env.str("JUDGE_KEY", default=""),
            "timeout_s": GENERATORS["chat_completions"]["OPTIONS"]["timeout_s"],
            "temperature": 0.0,
        },
    }

# --- Training ---------------------------------------------------------------------------------
BASE_MODEL = env.str("BASE_MODEL", default="")
# One process a card; with more than one the recipe is started through `accelerate launch`.
TRAIN_PROCESSES = positive("TRAIN_PROCESSES", default=1)
ACCELERATE_CONFIG = env.str("ACCELERATE_CONFIG", default="")
STOP_TRAINING_S = positive("STOP_TRAINING_S", default=300)
DEVICE_WATTS = whole("DEVICE_WATTS", default=0, least=0)
DEVICE_HOUR_PRICE = env.float("DEVICE_HOUR_PRICE", default=0.0)
ENERGY_PRICE = env.float("ENERGY_PRICE", default=0.0)
# How an adapter is asked and what it must reach: finetune.gate.Rules, any of it as JSON.
EVALUATION: dict[str, Any] = env.json("EVALUATION", default={})
# More questions of the kind of finetune/suites.json, which every adapter is asked after ours.
SAFETY_SUITES = env.str("SAFETY_SUITES", default="")
MAX_ANSWER_TOKENS = positive("MAX_ANSWER_TOKENS", default=512)

# --- Serving ----------------------------------------------------------------------------------
# What loads adapters: our own model server, vLLM, or TGI under workers/tgi_supervisor.py.
MODEL_SERVER_KIND = choice("MODEL_SERVER_KIND", default="own", among=("own", "vllm", "tgi"))
MODEL_SERVER_ADMIN_URL = env.str("MODEL_SERVER_ADMIN_URL", default="") or MODEL_SERVER_URL
TGI_SUPERVISOR_DIR = env.str("TGI_SUPERVISOR_DIR", default=str(DATA_DIR / "tgi"))
SECOND_PERSON_ACTIVATES = env.bool("SECOND_PERSON_ACTIVATES", default=False)

# --- Limits a person can meet, a minute -------------------------------------------------------
RATE_LIMITS = {
    "login": positive("LOGIN_ATTEMPTS_PER_MINUTE", default=10),
    "login_address": positive("LOGIN_ATTEMPTS_PER_ADDRESS_PER_MINUTE", default=60),
    "lookup": positive("MEMBER_LOOKUPS_PER_MINUTE", default=30),
    "ask": positive("QUESTIONS_PER_MINUTE", default=30),
    "api": positive("API_REQUESTS_PER_MINUTE", default=600),
    "upload": positive("UPLOADS_PER_MINUTE", default=1_000),
}

# --- API --------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "kb.api.authentication.TokenAuthentication",
        "kb.api.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["kb.api.permissions.HasScope"],
    "DEFAULT_PAGINATION_CLASS": "kb.api.pagination.Pagination",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_THROTTLE_CLASSES": ["kb.api.throttling.RequestThrottle"],
    "EXCEPTION_HANDLER": "kb.api.problems.problem_response",
    "PAGE_SIZE": 50,
    "URL_FORMAT_OVERRIDE": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Tacit API",
    "OAS_VERSION": "3.1.0",  # 3.0 cannot say that a reference may be null
    "VERSION": "1",
    "DESCRIPTION": "Documents in, cited answers out. docs/api.md is the tour.",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "COMPONENT_SPLIT_PATCH": False,  # the forms themselves say what a change must name
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "kb.api.base.close_inputs",
    ],
    "ENUM_NAME_OVERRIDES": {
        "DocumentState": "kb.models.Document.State",
        "JobState": "kb.models.Job.State",
        "JobKind": "kb.models.Job.Kind",
        "MessageState": "kb.models.Message.State",
        "MemberRole": "kb.models.Membership.Role",
        "TurnRole": "kb.models.Message.Role",
        "RatingValue": "kb.models.Feedback.Value",
        "TriageState": "finetune.models.TriageItem.State",
        "TriageCategory": "finetune.models.TriageItem.Category",
        "TriageDecision": "finetune.api.feedback.DECISIONS",
        "GapState": "finetune.models.KnowledgeGap.State",
    },
}

# --- Logs -------------------------------------------------------------------------------------
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", default="INFO")},
    # 404s are answers, not news.
    "loggers": {"django.request": {"level": "ERROR"}, "pdfminer": {"level": "ERROR"}},
}
