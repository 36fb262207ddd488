"""The floods, in the order in which they run."""

from bench.abuse.flooding import Flood
from bench.abuse.floods.bodies import Bodies
from bench.abuse.floods.explanations import Explanations
from bench.abuse.floods.forms import Forms
from bench.abuse.floods.hooks import Events, Unsigned
from bench.abuse.floods.locks import Locks
from bench.abuse.floods.logins import Logins
from bench.abuse.floods.polls import Polls
from bench.abuse.floods.previews import Previews
from bench.abuse.floods.queues import Queues
from bench.abuse.floods.schedules import Schedules
from bench.abuse.floods.streams import Streams
from bench.abuse.floods.webhooks import Webhooks

FLOODS: tuple[type[Flood], ...] = (
    Previews,
    Polls,
    Bodies,
    Webhooks,
    Schedules,
    Logins,
    Locks,
    Forms,
    Queues,
    Explanations,
    Streams,
    Events,
    Unsigned,
)
