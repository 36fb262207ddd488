"""The public endpoints limit how often a caller may use them (the rates are in API.md)."""

import re

import pytest
from django.db.models import F
from django.db.models.functions import Now

from accounts import passwords
from accounts.models import Session
from accounts.throttles import FIND_USER, LOGIN, REGISTER
from audit.models import AuditEntry
from pipedai.api.throttling import Rate
from pipedai.ids import new_id
from pipedai.sql import execute, fetch_one
from testing.probes.plans import explained
from testing.world.cast import browser
from testing.world.routes import ROUTES
from testing.world.throttles import count_more
from testing.world.users import PASSWORD, UserFactory

URL = "/api/v1/auth/login"
HERE, THERE = "203.0.113.7", "198.51.100.9"
BY_ADDRESS, _, BY_ACCOUNT = (throttle.rate for throttle in LOGIN)


@pytest.fixture(autouse=True)
def _instant_passwords(settings):
    """Makes hashing instant, as these tests count calls and do not depend on its time."""
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.MD5PasswordHasher",
        *settings.PASSWORD_HASHERS,
    ]


@pytest.fixture
def ada(db):
    user = UserFactory.build(email="ada@example.com")
    user.set_password(PASSWORD)
    user.save()
    return user


def log_in(email="ada@example.com", password="wrong password", address=HERE):
    body = {"email": email, "password": password}
    return browser().post(URL, body, REMOTE_ADDR=address)


def statuses(count, call):
    """Makes so many calls, passes each its number, and returns their statuses."""
    return [call(n).status_code for n in range(count)]


def other_address(n):
    return f"198.51.{n // 200}.{n % 200 + 1}"


class TestLogin:
    def test_ten_for_an_account_from_an_address(self, ada):
        answers = [log_in() for _ in range(12)]
        assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
        refused = answers[-1]
        assert set(refused.json()) == {"error", "code"}
        assert int(refused["Retry-After"]) >= 1
        assert refused["RateLimit-Policy"] == '"login-account-address";q=10;w=60'
        assert re.fullmatch(r'"login-account-address";r=0;t=\d+', refused["RateLimit"])

    def test_the_right_password_does_not_pass_beyond_it_either(self, ada):
        statuses(10, lambda _: log_in())
        assert log_in(password=PASSWORD).status_code == 429
        assert log_in(password=PASSWORD, address=THERE).status_code == 200

    def test_the_spelling_of_the_address_makes_no_other_account(self, ada):
        spellings = ["ada@example.com", "ADA@example.com", " ada@example.com "]
        answers = statuses(12, lambda n: log_in(spellings[n % 3]))
        assert answers == [401] * 10 + [429] * 2

    def test_sixty_from_an_address_whatever_the_account(self, db):
        assert log_in("user@example.com").status_code == 401
        count_more(BY_ADDRESS, HERE, 57)
        answers = statuses(4, lambda n: log_in(f"user-{n}@example.com"))
        assert answers == [401] * 2 + [429] * 2

    def test_sixty_for_an_account_from_anywhere(self, ada):
        assert log_in().status_code == 401
        count_more(BY_ACCOUNT, "ada@example.com", 57)
        answers = statuses(4, lambda n: log_in(address=other_address(n)))
        assert answers == [401] * 2 + [429] * 2

    def test_ipv6_counts_by_its_64_bit_network(self, ada):
        answers = statuses(12, lambda n: log_in(address=f"2001:db8:1:2::{n + 1:x}"))
        assert answers == [401] * 10 + [429] * 2
        assert log_in(address="2001:db8:1:3::1").status_code == 401

    def test_known_and_unknown_accounts_are_answered_alike(self, ada):
        known, unknown = (
            [log_in(email) for _ in range(12)] for email in ("ada@example.com", "no@example.com")
        )

        def seen(answer):
            body = re.sub(r"\d+ s", "N s", answer.content.decode())
            return answer.status_code, body, sorted(answer.headers)

        assert [seen(answer) for answer in known] == [seen(answer) for answer in unknown]

    def test_a_body_that_names_no_account_counts_for_the_address_alone(self, db):
        for body in ({}, {"email": 5, "password": "x"}, {"email": None, "password": "x"}):
            assert browser().post(URL, body).status_code == 400

    def test_it_is_counted_before_anything_is_hashed(self, ada, monkeypatch):
        statuses(10, lambda _: log_in())
        monkeypatch.setattr(passwords, "check_password", None)
        monkeypatch.setattr(passwords, "make_password", None)
        assert log_in().status_code == 429


class TestAnAddressThatLoggedInLately:
    """An address from which the account logged in lately can still log in while others attack it."""

    @pytest.fixture
    def hammered(self, ada):
        assert log_in(password=PASSWORD, address=HERE).status_code == 200

        def hammer():
            assert log_in(address=other_address(0)).status_code == 401
            count_more(BY_ACCOUNT, "ada@example.com", 60)
            assert log_in(password=PASSWORD, address=THERE).status_code == 429

        return hammer

    def test_is_not_locked_out(self, hammered):
        hammered()
        assert log_in(password=PASSWORD, address=HERE).status_code == 200

    def test_nor_is_its_ipv6_network(self, ada, hammered):
        log_in(password=PASSWORD, address="2001:db8:1:2::1")
        hammered()
        assert log_in(password=PASSWORD, address="2001:db8:1:2::ff").status_code == 200

    def test_stays_known_when_its_session_has_ended(self, hammered):
        Session.objects.update(revoked_at=F("created_at"))
        hammered()
        assert log_in(password=PASSWORD, address=HERE).status_code == 200

    def test_stays_known_when_the_secret_key_is_rotated(self, hammered, settings):
        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
        settings.SECRET_KEY = "the next secret key, as long as any that an operator would choose"
        hammered()
        assert log_in(password=PASSWORD, address=HERE).status_code == 200

    @pytest.mark.parametrize(("days", "status"), [(29, 200), (31, 429)])
    def test_for_thirty_days(self, hammered, days, status):
        Session.objects.update(
            created_at=F("created_at") - days * (F("expires_at") - F("created_at")) / 7
        )
        hammered()
        assert log_in(password=PASSWORD, address=HERE).status_code == status

    def test_is_known_for_that_account_alone(self, hammered):
        Session.objects.update(user=UserFactory.create())
        hammered()
        assert log_in(password=PASSWORD, address=HERE).status_code == 429

    def test_is_found_by_an_index_also_when_all_of_its_sessions_have_ended(self, ada):
        others = UserFactory.create_batch(3000)
        sessions = [
            Session(
                user=user,
                address_digest=b"",
                expires_at=user.created_at,
                revoked_at=Now(),
                data=None,
            )
            for user in others
        ]
        Session.objects.bulk_create(sessions)
        execute("ANALYZE session, user_account", {})
        with explained("SELECT") as plans:
            assert log_in(address=THERE).status_code == 401
        assert plans.rows_read("session") < 100

    def test_may_still_not_guess_without_end(self, hammered):
        answers = statuses(12, lambda _: log_in(address=HERE))
        assert answers == [401] * 9 + [429] * 3


class TestTheOtherRates:
    def test_thirty_registrations_from_an_address(self, db):
        def register(n):
            body = {"email": f"user-{n}@example.com", "password": PASSWORD}
            return browser().post("/api/v1/auth/register", body)

        assert register("first").status_code == 201
        count_more(REGISTER[0].rate, "127.0.0.1", 27)
        assert statuses(4, register) == [201] * 2 + [429] * 2

    def test_ten_changes_of_a_password_by_a_user(self, cast):
        client, other = cast.client(cast.owner), cast.client(cast.admin)
        body = {"currentPassword": "not it at all", "newPassword": "another long one"}

        def change(_):
            return client.post("/api/v1/auth/change-password", body)

        assert statuses(12, change) == [400] * 10 + [429] * 2
        assert other.post("/api/v1/auth/change-password", body).status_code == 400

    def test_finding_users_by_lookup_and_by_adding_is_one_count(self, cast):
        client = cast.client(cast.owner)
        members = f"/api/v1/environments/{cast.environment.id}/members"

        def find(n):
            address = other_address(n)
            if n % 2:
                body = {"userId": str(new_id()), "role": "viewer"}
                return client.post(members, body, REMOTE_ADDR=address)
            return client.get("/api/v1/users/lookup?email=no@example.com", REMOTE_ADDR=address)

        assert statuses(2, find) == [404] * 2
        count_more(FIND_USER[0].rate, str(cast.owner.id), 116)
        assert statuses(4, find) == [404] * 2 + [429] * 2

    def test_finding_users_from_an_address_is_a_count_of_its_own(self, cast):
        clients = [cast.client(UserFactory.create()) for _ in range(5)]

        def find(n):
            return clients[n % 5].get("/api/v1/users/lookup?email=no@example.com")

        assert statuses(2, find) == [404] * 2
        count_more(FIND_USER[1].rate, "127.0.0.1", 236)
        assert statuses(4, find) == [404] * 2 + [429] * 2

    def test_sixty_registrations_of_workers_from_an_address(self, db):
        def register(_):
            return browser().post("/api/v1/workers/register", {})

        assert register(0).status_code == 401
        count_more(Rate("register-worker", limit=60, seconds=60), "127.0.0.1", 57)
        assert statuses(4, register) == [401] * 2 + [429] * 2

    def test_no_other_route_is_throttled(self, stage):
        cast = stage.cast
        client = cast.client(cast.owner)
        before = Session.objects.count()
        reads = [route for route in ROUTES if route.method == "GET" and "lookup" not in route.route]
        for route in reads:
            assert route.send(client, route.url(stage), cast).status_code in (200, 401)
        assert fetch_one("SELECT count(*) AS n FROM throttle", {}) == {"n": 0}
        assert Session.objects.count() == before


def test_none_applies_where_they_are_turned_off(ada, settings):
    settings.THROTTLES_ENABLED = False
    assert statuses(12, lambda _: log_in()) == [401] * 12


class TestTheAuditRowsOfFailedLogins:
    def rows(self):
        return AuditEntry.objects.filter(action="user.login-failed")

    def test_one_for_an_account_an_address_and_a_minute(self, ada):
        for _ in range(3):
            log_in(address=HERE)
            log_in(address=THERE)
        (one, other) = self.rows().order_by("ip")
        assert {one.ip, other.ip} == {HERE, THERE}
        for row in (one, other):
            assert (row.actor_type, row.actor_id) == ("user", None)
            assert (row.target_type, row.target_id) == ("user", ada.id)
            assert (row.environment_id, row.metadata) == (None, {})

    def test_another_in_the_next_minute(self, ada):
        log_in()
        execute("UPDATE throttle SET window_start = window_start - interval '1 day'", {})
        log_in()
        assert self.rows().count() == 2

    def test_none_for_an_unknown_address(self, ada):
        log_in("no@example.com")
        assert self.rows().count() == 0

    def test_none_for_a_throttled_one(self, ada):
        statuses(12, lambda _: log_in())
        execute("DELETE FROM throttle WHERE hits <= 10", {})
        before = self.rows().count()
        assert log_in().status_code == 429
        assert self.rows().count() == before

    def test_one_for_a_deactivated_user(self, ada):
        ada.is_active = False
        ada.save()
        assert log_in(password=PASSWORD).status_code == 401
        assert self.rows().count() == 1

    def test_even_with_throttles_off_it_is_one(self, ada, settings):
        settings.THROTTLES_ENABLED = False
        statuses(5, lambda _: log_in())
        assert self.rows().count() == 1
