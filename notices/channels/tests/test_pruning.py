"""Old notices go, with their attempts, and then the channels that were deleted."""

from datetime import UTC, datetime

from notices.channels.services import CHANNELS
from notices.channels.tests.conftest import send_due
from notices.models import Channel, Notice, NoticeAttempt
from notices.ready import prune_notices
from pipedai.retention import Order
from testing.world.cast import TEST_ACTOR
from testing.world.channels import add_channel

ORDER = Order(before=datetime(2200, 1, 1, tzinfo=UTC), limit=2)


def test_ended_notices_and_deleted_channels_are_pruned_and_pending_ones_stay(cast, open_incidents):
    gone, stays = add_channel(cast), add_channel(cast)
    open_incidents(3)
    CHANNELS.delete(gone.id, actor=TEST_ACTOR)
    send_due()
    assert Notice.objects.filter(channel=gone, status="dead").count() == 3
    assert [batch.seen for batch in prune_notices(Order(ORDER.before, 2, dry_run=True))] == [3]
    for _ in prune_notices(ORDER):
        pass
    assert list(Channel.objects.all()) == [stays]
    assert Notice.objects.filter(status="pending").count() == 3
    assert NoticeAttempt.objects.filter(notice__channel=gone).count() == 0
