"""Staff find an entry by its id, although the table is partitioned by time."""

import pytest
from django.conf import settings
from django.test import Client

from accounts.emails import Email
from accounts.services import create_staff
from accounts.sessions import Device, open_staff_session
from audit.models import AuditEntry
from pipedai.events import SYSTEM
from pipedai.ids import new_id
from testing.probes.statement_count import counted

LIST = "/admin/audit/auditentry/"


@pytest.fixture
def desk(cast):
    staff = create_staff(
        email=Email("staff@example.com"), password="a password", name="", actor=SYSTEM
    )
    client = Client()
    session = open_staff_session(staff, Device(b"", None, ""))
    client.cookies[settings.SESSION_COOKIE_NAME] = str(session.session_key)
    return client


def test_an_id_finds_its_entry_and_no_month_but_its_own_is_read(desk):
    entry = AuditEntry.objects.latest("created_at")
    with counted() as statements:
        page = desk.get(LIST, {"q": str(entry.id)})
    assert [row.id for row in page.context["cl"].result_list] == [entry.id]
    found = [sql for sql in statements.sql if entry.id.hex in sql.replace("-", "")]
    assert found
    assert all('"created_at" BETWEEN' in sql for sql in found)


def test_another_id_finds_nothing(desk):
    for sent in (new_id(), "123e4567-e89b-42d3-a456-426614174000"):
        page = desk.get(LIST, {"q": str(sent)})
        assert page.status_code == 200
        assert list(page.context["cl"].result_list) == []
