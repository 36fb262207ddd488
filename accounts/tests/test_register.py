"""POST /auth/register"""

import pytest

from accounts.models import AccountMail, Session, User
from testing.probes.shapes import A_TIME, AN_ID, invalid
from testing.world.cast import browser
from testing.world.mails import MAIL_SERVER, invite_for_test, issue_token, prove
from testing.world.users import PASSWORD, UserFactory

URL = "/api/v1/auth/register"
NEW = {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"}

pytestmark = pytest.mark.django_db


def test_a_new_user_is_answered_and_logged_in():
    client = browser()
    response = client.post(URL, NEW)
    assert response.status_code == 201
    assert response.json() == {
        "user": {
            "id": AN_ID,
            "email": "ada@example.com",
            "emailVerified": False,
            "name": "Ada",
            "timezone": None,
            "hasPassword": True,
            "singleSignOn": None,
            "createdAt": A_TIME,
        }
    }
    assert client.get("/api/v1/auth/me").json() == response.json()


def test_the_name_may_be_left_out():
    response = browser().post(URL, {"email": "ada@example.com", "password": PASSWORD})
    assert response.status_code == 201
    assert response.json()["user"]["name"] == ""


def test_the_address_is_kept_trimmed_and_in_lower_case():
    response = browser().post(URL, {**NEW, "email": "  Ada@EXAMPLE.com "})
    assert response.json()["user"]["email"] == "ada@example.com"
    assert User.objects.get().email == "ada@example.com"


@pytest.mark.parametrize("spelling", ["ada@example.com", "ADA@Example.COM", " ada@example.com "])
def test_a_taken_address_is_a_conflict_however_it_is_spelled(spelling):
    UserFactory.create(email="ada@example.com")
    client = browser()
    response = client.post(URL, {**NEW, "email": spelling})
    assert response.status_code == 409
    assert response.json() == {
        "error": "This e-mail address is already registered.",
        "code": "email_taken",
    }
    assert not client.cookies
    assert not Session.objects.exists()


def test_the_password_is_stored_as_an_argon2_hash():
    browser().post(URL, NEW)
    user = User.objects.get()
    assert user.password.startswith("argon2$argon2id$")
    assert user.check_password(PASSWORD)


def test_blanks_around_a_password_are_a_part_of_it():
    browser().post(URL, {**NEW, "password": f" {PASSWORD} "})
    user = User.objects.get()
    assert user.check_password(f" {PASSWORD} ")
    assert not user.check_password(PASSWORD)


def test_one_registers_while_an_older_session_has_ended():
    assert browser("not-a-session").post(URL, NEW).status_code == 201


REQUIRED, NULL, BLANK = (
    "This field is required.",
    "This field may not be null.",
    "This field may not be blank.",
)
NO_ADDRESS = "Enter a valid email address."
LONG_ADDRESS = f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 57}.com"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("email", None, NULL),
        ("email", "", BLANK),
        ("email", "ada", NO_ADDRESS),
        ("email", "ada@", NO_ADDRESS),
        ("email", "ada@example", NO_ADDRESS),
        ("email", "a b@example.com", NO_ADDRESS),
        ("email", "ada@example.com\u200b", NO_ADDRESS),
        ("email", "ada@\uff45xample.com", NO_ADDRESS),
        ("email", "ada@example.com\x1f", "Must not hold control characters."),
        ("email", "ada@example.com\n", "Must not hold control characters."),
        ("email", 5, NO_ADDRESS),
        ("email", True, NO_ADDRESS),
        ("email", ["ada@example.com"], NO_ADDRESS),
        ("email", {"a": 1}, NO_ADDRESS),
        ("password", None, NULL),
        ("password", "", BLANK),
        ("password", 1234567890, "Must be a string."),
        ("password", ["correct horse"], "Must be a string."),
        (
            "password",
            "x7Gq-9dkL",
            "This password is too short. It must contain at least 10 characters.",
        ),
        ("password", "password123", "This password is too common."),
        ("password", "73920184756", "This password is entirely numeric."),
        ("password", "ada@example.co", "The password is too similar to the email."),
        ("password", "x7" * 512 + "x", "Ensure this field has no more than 1024 characters."),
        ("name", None, NULL),
        ("name", 5, "Must be a string."),
        ("name", "n" * 201, "Ensure this field has no more than 200 characters."),
        ("nmae", "Ada", "Unknown field."),
    ],
)
def test_a_bad_field_is_named(field, value, message):
    response = browser().post(URL, {**NEW, field: value})
    assert response.status_code == 400
    assert response.json() == invalid({field: [message]})
    assert not User.objects.exists()


def test_all_bad_fields_are_named_at_once():
    response = browser().post(URL, {"emial": "ada@example.com"})
    assert response.json() == invalid(
        {"email": [REQUIRED], "password": [REQUIRED], "emial": ["Unknown field."]}
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", LONG_ADDRESS),
        ("name", "n" * 200),
        ("name", ""),
        ("password", "x7Gq-9dkL!"),
        ("password", "x7" * 512),
    ],
)
def test_lengths_at_their_bound_are_accepted(field, value):
    assert browser().post(URL, {**NEW, field: value}).status_code == 201


def test_an_address_over_254_characters_is_refused():
    assert len(LONG_ADDRESS) == 254
    response = browser().post(URL, {**NEW, "email": f"x.{LONG_ADDRESS[2:]}x"})
    assert response.json() == invalid(
        {"email": ["Ensure this field has no more than 254 characters."]}
    )


class TestWhoMay:
    """The setting REGISTRATION."""

    @pytest.mark.parametrize("registration", ["invited", "closed"])
    def test_strangers_learn_nothing_and_get_no_mail(self, settings, registration):
        settings.EMAIL_URL, settings.REGISTRATION = MAIL_SERVER, registration
        UserFactory.create(email="unproved@example.com", must_prove_email=True)
        prove(UserFactory.create(email="proved@example.com"))
        answers = [
            browser().post(URL, {**NEW, "email": f"{name}@example.com"})
            for name in ("unproved", "proved", "nobody")
        ]
        assert {answer.status_code for answer in answers} == {403}
        assert {answer.json()["code"] for answer in answers} == {"registration_closed"}
        assert len({answer.json()["error"] for answer in answers}) == 1
        assert not AccountMail.objects.exists()

    def test_with_an_invitation_to_their_address_unless_it_is_closed(self, settings, cast):
        settings.EMAIL_URL = MAIL_SERVER
        prove(cast.owner)
        token = invite_for_test(cast.environment, cast.owner, NEW["email"])
        settings.REGISTRATION = "closed"
        assert browser().post(URL, {**NEW, "invitationToken": token}).status_code == 403
        settings.REGISTRATION = "invited"
        others = browser().post(URL, {**NEW, "email": "x@example.com", "invitationToken": token})
        assert (others.status_code, others.json()["code"]) == (409, "link_unusable")
        assert browser().post(URL, {**NEW, "invitationToken": token}).status_code == 201

    def test_a_lost_password_of_an_unproved_account_leads_to_no_registration(self, settings):
        settings.EMAIL_URL, settings.REGISTRATION = MAIL_SERVER, "invited"
        user = UserFactory.create(email=NEW["email"], must_prove_email=True)
        body = {"email": user.email}
        assert browser().post("/api/v1/auth/forgot-password", body).status_code == 202
        mail = AccountMail.objects.get()
        assert (mail.purpose, mail.user) == ("reset", None)
        # A link from before is of no use any more.
        token = issue_token("registration", user.email, user)
        answer = browser().post(URL, {**NEW, "registrationToken": token})
        assert (answer.status_code, answer.json()["code"]) == (403, "registration_closed")
