"""How moments and durations are written for people."""

from datetime import UTC, datetime, timedelta

from pipedai.outgoing.mails import foreign
from testing.world.cases import cases
from triggers.explain.answers import duration_words, zoned_words


@cases(
    ("timezone", "words"),
    [
        ("UTC", "2026-01-31 23:30 UTC"),
        ("Europe/London", "2026-01-31 23:30 UTC"),
        ("Asia/Kolkata", "2026-02-01 05:00 UTC+05:30"),
        ("America/New_York", "2026-01-31 18:30 UTC-05:00"),
        ("No/Where", "2026-01-31 23:30 UTC"),
    ],
)
def test_a_moment_has_its_offset_and_a_mail_shows_it_as_it_is(timezone: str, words: str) -> None:
    assert zoned_words(datetime(2026, 1, 31, 23, 30, 59, 123456, tzinfo=UTC), timezone) == words
    assert foreign(words) == words


@cases(
    ("length", "words"),
    [
        ({}, "1 second"),
        ({"seconds": 59.6}, "1 minute"),
        ({"minutes": 5, "seconds": 3}, "5 minutes 3 seconds"),
        ({"hours": 2, "minutes": 5, "seconds": 3}, "2 hours 5 minutes"),
        ({"days": 1, "minutes": 5}, "1 day"),
    ],
)
def test_a_duration_has_at_most_two_units(length: dict[str, float], words: str) -> None:
    assert duration_words(timedelta(**length)) == words
