"""However many incidents open at once, a channel tells exactly what happened, once, in order, and not too often."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from notices.channels.announcements import MOST_NAMED
from notices.channels.queueing import MAX_AN_HOUR
from notices.channels.tests.conftest import add_incidents, tell
from notices.models import Incident, Notice
from testing.world.cast import make_cast
from testing.world.channels import add_channel

NOON = datetime(2100, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

# Each storm is a number of incidents, the minutes since the one before, and whether the sender runs after it.
storms = st.lists(
    st.tuples(
        st.sampled_from([1, 3, 19, 20, 21, 80]),
        st.sampled_from([0, 1, 25, 59, 60, 61, 150]),
        st.booleans(),
    ),
    min_size=3,
    max_size=8,
)


class Storms:
    """Incidents that open in storms, a Slack channel that tells of them, and what its sender has sent."""

    def __init__(self):
        self.cast, self.now, self.happened, self.sent = make_cast(), NOON, [], []
        add_channel(self.cast, "slack")

    def open(self, count, minutes):
        self.now += timedelta(minutes=minutes)
        name = f"{len(self.happened)}-{{}}"
        tell(self.cast, add_incidents(self.cast, count, name=name), now=self.now)
        self.happened += [name.format(number) for number in range(count)]

    def send(self):
        """Sends what is due. A sender takes what has waited longest first."""
        due = Notice.objects.filter(status="pending", next_attempt_at__lte=self.now)
        self.sent += list(due.order_by("next_attempt_at", "id").values_list("id", flat=True))
        due.update(status="delivered", next_attempt_at=None, delivered_at=self.now)

    def told(self):
        """Returns the names of the triggers that were told, in the order in which they were sent."""
        name_of: dict = dict(Incident.objects.values_list("id", "subject_name"))
        rows = {row.id: row for row in Notice.objects.all()}
        held: dict = {}
        for row in sorted(rows.values(), key=lambda row: row.id):
            if row.status == "digested":
                held.setdefault(row.digest_id, []).append(name_of[row.incident_id])
        names = []
        for id_ in self.sent:
            if rows[id_].event == "channel.digest":
                said = json.loads(rows[id_].body)["digest"]
                assert said["count"] == len(held[id_])
                first = held[id_][:MOST_NAMED]
                assert said["lines"] == [f"Trigger {name} is failing" for name in first]
                names += held[id_]
            else:
                names.append(name_of[rows[id_].incident_id])
        return names


def most_within_an_hour():
    """Returns the largest number of notices that a channel may send within an hour, digests included."""
    times = list(Notice.objects.exclude(status="digested").values_list("send_at", flat=True))
    return max(sum(end - HOUR < each <= end for each in times) for end in times)


@pytest.mark.django_db
def test_a_channel_tells_exactly_what_happened_once_and_in_order():
    @settings(
        max_examples=8,
        phases=(Phase.generate,),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(storms=storms)
    def check(storms):
        with transaction.atomic():
            world = Storms()
            for count, minutes, sends in storms:
                world.open(count, minutes)
                if sends:
                    world.send()
            world.now += 2 * HOUR
            world.send()
            assert world.told() == world.happened
            assert most_within_an_hour() <= MAX_AN_HOUR
            transaction.set_rollback(True)

    check()
