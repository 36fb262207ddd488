"""How moments and durations are written for people."""

from datetime import UTC, datetime, timedelta

from pipedai.outgoing.mails import foreign
from testing.world.cases import cases
from triggers.explain.answers import duration_words, zoned_words


@cases(
    ("timezone", "words"),
    [
        ("UTC", "Sat 31 Jan 2026, 23:30 UTC"),
        ("Europe/London", "Sat 31 Jan 2026, 23:30 GMT"),
        ("Asia/Kolkata", "Sun 1 Feb 2026, 05:00 IST"),
        ("America/New_York", "Sat 31 Jan 2026, 18:30 EST"),
        ("Asia/Dubai", "Sun 1 Feb 2026, 03:30 in Asia/Dubai"),
        ("No/Where", "Sat 31 Jan 2026, 23:30 UTC"),
    ],
)
def test_a_moment_has_its_zone_and_a_mail_shows_it_as_it_is(timezone: str, words: str) -> None:
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
