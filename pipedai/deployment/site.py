"""Checks the site's settings, its public URL and its static files."""

from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import validate_host

from pipedai import checks
from pipedai.deployment import Finding
from pipedai.outgoing import mail_server


def settings_are_fit() -> Finding:
    """Checks that the settings are those of production, and safe."""
    problems = [sentence for _, sentence in checks.problems()]
    if not settings.PRODUCTION:
        problems.insert(0, "PIPEDAI_ENV is development: set it to production.")
    if problems:
        return Finding(
            f"{len(problems)} of them {'is' if len(problems) == 1 else 'are'} unfit for production.",
            "\n".join(problems),
        )
    return Finding("They are fit for production.")


def public_url_is_ours() -> Finding:
    """Checks that ALLOWED_HOSTS accepts the host of PUBLIC_URL, so that our own links work."""
    url = settings.PUBLIC_URL
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    if not validate_host(f"[{host}]" if ":" in host else host, settings.ALLOWED_HOSTS):
        return Finding(
            f"PUBLIC_URL is {url}, whose host is refused.",
            "Set PUBLIC_URL to where clients reach the service, and ALLOWED_HOSTS to include its host.",
        )
    return Finding(f"PUBLIC_URL is {url}.")


def static_files_are_collected() -> Finding:
    """Checks that the static files were collected under names with a hash, which browsers may cache for ever."""
    if not (settings.STATIC_ROOT / "staticfiles.json").is_file():
        return Finding(
            f"They are not collected in {settings.STATIC_ROOT}: pages load slowly.",
            "Call `manage.py collectstatic --no-input` where the service is built.",
        )
    return Finding(f"They are in {settings.STATIC_ROOT}.")


def mail_server_answers() -> Finding:
    """Checks that the service can log in to the mail server, if the settings name one. It sends nothing."""
    if not settings.EMAIL_URL:
        return Finding("EMAIL_URL is not set, so no mail is sent.")
    if trouble := mail_server.check_server():
        return Finding(
            f"The mail server that EMAIL_URL names can't be used: {trouble}.",
            "Correct EMAIL_URL, or see the mail server's log. Mails wait for it, up to five days.",
        )
    return Finding("The mail server lets us in.")
