"""A flood of previews, by a viewer, of schedules with few due times."""

import itertools
from collections import Counter

from bench.abuse.flooding import Flood, Stage, ask_again_and_again
from bench.abuse.tenants import new_account, new_customer
from bench.cast import Account
from bench.http_client import request

_AT_ONCE = 8
# Time zones that have had summer time for many years. They take turns, so that no two requests in a row are equal.
_ZONES = (
    "Europe/Berlin", "America/New_York", "Europe/London", "America/Santiago", "Australia/Sydney",
    "America/Havana", "Europe/Athens", "Pacific/Auckland", "America/Chicago", "Europe/Lisbon",
)  # fmt: skip
_STEPS = range(60, 160)


class Previews(Flood):
    """Asks for the next hundred due times of a schedule that comes due on Sundays that are a 29 February."""

    name = "previews"
    what = f"{_AT_ONCE} previews at once of schedules that come due every 28 years"
    _viewer: Account
    _environment_id: str

    def prepare(self, stage: Stage) -> None:
        self._viewer = new_account(stage.port)
        with new_customer(stage.port) as customer:
            self._environment_id, _ = customer.environment("production")
            members = f"/environments/{self._environment_id}/members"
            customer.post(members, email=self._viewer.email, role="viewer")

    async def attack(self, port: int, answers: Counter[str]) -> None:
        requests = [
            self._preview(f"*/{step} */{step} 29 2 */7", zone)
            for step, zone in zip(_STEPS, itertools.cycle(_ZONES), strict=False)
        ]
        await ask_again_and_again(port, requests, answers, times=_AT_ONCE)

    def _preview(self, schedule: str, zone: str) -> bytes:
        return request(
            "POST",
            f"/environments/{self._environment_id}/schedule-preview",
            cookie=self._viewer.cookie,
            address=self._viewer.address,
            body={"schedule": schedule, "timezone": zone, "count": 100},
        )
