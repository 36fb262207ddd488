"""What a session's User-Agent and a schedule are shown as."""

import pytest

from console.templatetags.console import device, rhythm

LIKE = "Mozilla/5.0 ({}) AppleWebKit/537.36 (KHTML, like Gecko) {}"


def test_a_browser_is_named_with_its_system_and_a_program_as_it_says():
    for system, version, shown in (
        ("X11; Linux x86_64", "Chrome/140.0.0.0 Safari/537.36", "Chrome on Linux"),
        (
            "Windows NT 10.0; Win64; x64",
            "Chrome/140.0.0.0 Safari/537.36 Edg/140.0",
            "Edge on Windows",
        ),
        ("Macintosh; Intel Mac OS X 10_15_7", "Version/18.0 Safari/605.1.15", "Safari on macOS"),
        (
            "iPhone; CPU iPhone OS 18_0 like Mac OS X",
            "Version/18.0 Safari/604.1",
            "Safari on iPhone",
        ),
        ("Linux; Android 15", "Chrome/140.0.0.0 Mobile Safari/537.36", "Chrome on Android"),
        ("X11; Linux x86_64; rv:142.0", "Gecko/20100101 Firefox/142.0", "Firefox on Linux"),
    ):
        assert device(LIKE.format(system, version)) == shown
    assert device("curl/8.5.0") == "curl/8.5.0"
    assert device("") == "–"
    assert len(device("x" * 255)) == 80


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("0 6 * * mon-fri", "06:00, weekdays (Asia/Tokyo)"),
        ("30 6,12,18 * * *", "06:30 and 12:30 and 18:30, every day (Asia/Tokyo)"),
        # No hour may be left out of the words.
        ("0 6,9,12,15 * * *", "0 6,9,12,15 * * * (Asia/Tokyo)"),
        ("5 * * * *", "hourly at :05 (Asia/Tokyo)"),
        ("*/15 * * * *", "every 15 minutes"),
        (None, ""),
    ],
)
def test_a_schedule_is_told_whole_in_few_words_or_as_it_is(schedule, said):
    assert rhythm(schedule, "Asia/Tokyo") == said
