"""GET /releases/latest"""

import pytest
from django.core.exceptions import ImproperlyConfigured

from pipedai import env
from pipedai_worker import __version__
from testing.world.cast import browser


def test_the_newest_versions_are_those_of_the_settings(settings):
    settings.LATEST_ORCHESTRATOR_VERSION = "0.8.0-rc.1"
    assert browser().get("/api/v1/releases/latest").json() == {
        "pipedaiWorker": {"latest": settings.LATEST_WORKER_VERSION, "source": "settings"},
        "pipedaiOrchestrator": {"latest": "0.8.0-rc.1", "source": "settings"},
    }


def test_the_default_is_the_worker_of_this_checkout(settings):
    assert __version__ == settings.LATEST_WORKER_VERSION


@pytest.mark.parametrize("value", ["1.2.3", "0.1.0-rc.1", "1.0.0+build.5", "10.20.30-a-b.0.x"])
def test_a_semantic_version_is_taken(monkeypatch, value):
    monkeypatch.setenv("LATEST_WORKER_VERSION", value)
    assert env.semver("LATEST_WORKER_VERSION", "0.0.0") == value


@pytest.mark.parametrize(
    "value", ["1.2", "v1.2.3", "01.2.3", "1.2.3-", "1.2.3-01", "latest", "1.2.3+"]
)
def test_anything_else_is_refused_at_the_start(monkeypatch, value):
    monkeypatch.setenv("LATEST_WORKER_VERSION", value)
    with pytest.raises(
        ImproperlyConfigured, match="LATEST_WORKER_VERSION must be a semantic version"
    ):
        env.semver("LATEST_WORKER_VERSION", "0.0.0")
