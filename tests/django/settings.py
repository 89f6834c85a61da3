"""The settings of the tests' own Django project. The databases' names are filled in by `tests.django.databases`."""

from importlib.util import find_spec

SECRET_KEY = "for tests only"
STATIC_URL = "static/"
ROOT_URLCONF = "tests.django.urls"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "America/New_York"
# The usual ones take long on purpose.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "OPTIONS": {"timeout": 20}},
    "contract": {"ENGINE": "django.db.backends.sqlite3"},
    "postgres": {"ENGINE": "django.db.backends.postgresql"},
}
if find_spec("pymysql"):
    import pymysql

    # The driver that Django asks for has to be compiled; this one passes for it.
    pymysql.install_as_MySQLdb()
    DATABASES["mariadb"] = {"ENGINE": "django.db.backends.mysql"}
DATABASE_ROUTERS = ["tests.django.databases.Router"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "envoyou_django",
    "tests.django.members",
]

# Each of them gets in the way of a webhook view that does not see to it.
MIDDLEWARE = [
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

ENVOYOU = {"WEBHOOK_SECRET": "whsec_the_django_tests"}
