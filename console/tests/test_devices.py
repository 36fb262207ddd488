"""What a session's User-Agent is shown as."""

from console.templatetags.console import device

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
