"""The web process serves static files, whether they were collected or not."""

import gzip
import re

import pytest
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.management import call_command

from pipedai import static_files
from pipedai.env import BASE_DIR

BUNDLE = "drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"


@pytest.fixture
def collected(settings, tmp_path):
    """Collects the static files, as `manage.py collectstatic` does in production."""
    settings.STATIC_ROOT = tmp_path / "static"
    settings.STATIC_COLLECTED = True
    settings.WHITENOISE_USE_FINDERS = False
    # Compressing what no page names would take most of the time.
    settings.WHITENOISE_SKIP_COMPRESS_EXTENSIONS = ("map",)
    call_command("collectstatic", "--no-input", "--ignore", "redoc", verbosity=0)
    static_files._files.cache_clear()
    yield
    static_files._files.cache_clear()


def test_what_is_no_static_file_is_not_found(client):
    for path in ("/static/nothing.js", "/static/", "/static/../manage.py", "/manage.py"):
        assert client.get(path).status_code == 404


def test_files_come_from_the_packages_where_none_were_collected(client):
    assert staticfiles_storage.url(BUNDLE) == f"/static/{BUNDLE}"
    response = client.get(f"/static/{BUNDLE}")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/javascript")
    assert "Access-Control-Allow-Origin" not in response
    assert b"SwaggerUIBundle" in b"".join(response)


def test_every_file_that_a_template_names_is_there():
    """In production a page that names a missing file is a 500."""
    templates = [each.read_text() for each in (BASE_DIR / "pipedai/templates").rglob("*.html")]
    names = set(re.findall(r"{% static '([^']+)' %}", "".join(templates)))
    assert len(names) > 5
    assert [name for name in names if finders.find(name) is None] == []


def test_collected_files_are_compressed_and_may_be_cached_for_ever(collected, client):
    url = staticfiles_storage.url(BUNDLE)
    assert url != f"/static/{BUNDLE}"
    assert f'"{url}"' in client.get("/api/docs").content.decode()
    response = client.get(url, headers={"accept-encoding": "gzip"})
    assert response["Content-Encoding"] == "gzip"
    assert response["Cache-Control"] == "max-age=315360000, public, immutable"
    assert b"SwaggerUIBundle" in gzip.decompress(b"".join(response))
