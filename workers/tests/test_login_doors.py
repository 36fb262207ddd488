"""Every endpoint that logs somebody in by an e-mail address counts the attempts on that account."""

import json
from itertools import product
from urllib.parse import urlencode

import pytest
from django.test import Client

from accounts.models import Session
from accounts.throttles import LOGIN
from pipedai.api.throttling import count_hit
from testing.world.cases import cases
from testing.world.cast import browser
from testing.world.users import PASSWORD, UserFactory

KATE = "kate@example.com"
HERE = "203.0.113.7"
(ACCOUNT_AND_ADDRESS,) = (t.rate for t in LOGIN if t.rate.name == "login-account-address")

FORM = "application/x-www-form-urlencoded"
PAGES = {"console": "/console/sign-in", "admin": "/admin/login/"}
OWN = {"sec-fetch-site": "same-origin"}


def at_the_api(email, password):
    body = {"email": email, "password": password}
    return browser().post("/api/v1/auth/login", body, REMOTE_ADDR=HERE)


def at_a_page(name):
    def knock(email, password):
        sent = {"email": email, "password": password}
        return Client(headers=OWN).post(
            PAGES[name], urlencode(sent, errors="replace"), content_type=FORM, REMOTE_ADDR=HERE
        )

    return knock


DOORS = {
    "api": at_the_api,
    "console": at_a_page("console"),
    "admin": at_a_page("admin"),
}

SAME = {
    "as it is": KATE,
    "upper case": KATE.upper(),
    "spaces": f"  {KATE} ",
    "no-break space": f"\u00a0{KATE}",
    "em space": f"{KATE}\u2003",
    "Kelvin sign": f"\u212a{KATE[1:]}",
}
OTHER = {
    "zero width space": f"{KATE}\u200b",
    "byte order mark": f"\ufeff{KATE}",
    "full-width": f"\uff4b{KATE[1:]}",
    "accent": f"k\u0301{KATE[1:]}",
    "dotted capital I": f"İ{KATE}",
    "sharp s": f"{KATE}ẞ",
    "space within": KATE.replace("@", " @"),
    "longer than any": KATE + "x" * 300,
    "the account before the cut": f"{KATE}{' ' * 250}x",
}
REFUSED = {
    "NUL at the end": f"{KATE}\0",
    "NUL at the beginning": f"\0{KATE}",
    "NUL within": KATE.replace("@", "\0@"),
    "tab": f"{KATE}\t",
    "line feed": f"{KATE}\n",
    "unit separator": f"{KATE}\x1f",
    "next line": f"{KATE}\x85",
    "delete": f"{KATE}\x7f",
}


@pytest.fixture(autouse=True)
def _kate(db, settings):
    """Adds Kate, a member of staff, who may log in at every endpoint.

    Passwords are hashed instantly here.
    """
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.MD5PasswordHasher",
        *settings.PASSWORD_HASHERS,
    ]
    kate = UserFactory.build(email=KATE, is_staff=True)
    kate.set_password(PASSWORD)
    kate.save()


def count():
    """Counts one more attempt on the account from here, and returns the count with it."""
    return count_hit(ACCOUNT_AND_ADDRESS, f"{HERE} {KATE}")[0]


def sessions():
    return Session.objects.count()


@pytest.mark.parametrize("variant", SAME)
@pytest.mark.parametrize("door", DOORS)
def test_what_logs_in_is_counted_with_the_account(door, variant):
    assert DOORS[door](SAME[variant], PASSWORD).status_code in {200, 302, 303}
    assert sessions() == 1
    assert DOORS[door](SAME[variant], "not her password").status_code == 401
    assert count() == 3
    while count() < ACCOUNT_AND_ADDRESS.limit:
        pass
    assert DOORS[door](SAME[variant], PASSWORD).status_code == 429
    assert sessions() == 1


@cases(("door", "variant"), product(DOORS, OTHER), undone=True)
def test_another_spelling_is_another_account(door, variant):
    assert DOORS[door](OTHER[variant], PASSWORD).status_code in {400, 401}
    assert (sessions(), count()) == (0, 1)


@cases(("door", "variant"), product(DOORS, REFUSED), undone=True)
def test_a_control_character_is_refused_and_opens_nothing(door, variant):
    answer = DOORS[door](REFUSED[variant], PASSWORD)
    assert (answer.status_code, sessions(), count()) == (400, 0, 1)


@pytest.mark.parametrize(
    ("first", "last", "counted"), [("x@example.com", KATE, 2), (KATE, "x@example.com", 1)]
)
def test_of_a_field_that_is_there_twice_the_last_is_looked_up_and_counted(first, last, counted):
    fields = [("email", first), ("email", last), ("password", PASSWORD)]
    for query in ("", f"?email={KATE}"):
        Client().post(
            PAGES["admin"] + query, urlencode(fields), content_type=FORM, REMOTE_ADDR=HERE
        )
    assert sessions() == 2 * (counted - 1)
    assert count() == 2 * (counted - 1) + 1


@cases(
    ("page", "content_type"),
    product(
        PAGES,
        (
            "application/json",
            "text/plain",
            f"{FORM}; charset=utf-16",
            "multipart/form-data; boundary=x",
        ),
    ),
    undone=True,
)
def test_a_page_reads_nothing_that_is_not_its_form(page, content_type):
    sent = json.dumps({"email": KATE, "password": PASSWORD})
    answer = Client(headers=OWN).post(
        PAGES[page], sent, content_type=content_type, REMOTE_ADDR=HERE
    )
    assert answer.status_code == 400
    assert (sessions(), count()) == (0, 1)


@cases("email", [[KATE], {"email": KATE}, 5, None, True], undone=True)
def test_only_a_string_names_an_account(email):
    assert at_the_api(email, PASSWORD).status_code == 400
    assert (sessions(), count()) == (0, 1)


def test_the_console_takes_no_longer_password_than_the_api():
    assert DOORS["console"](KATE, "x" * 1025).status_code == 400
    assert count() == 2
