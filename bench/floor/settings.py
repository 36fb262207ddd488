"""The product's settings without its apps, middleware and URLs."""

from pipedai.settings import *  # noqa: F403

ROOT_URLCONF = "bench.floor.urls"
INSTALLED_APPS = []
MIDDLEWARE = []
