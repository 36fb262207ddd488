"""A flood of calls that wait for rows which a stuck session has locked."""

import asyncio
from collections import Counter

from bench.abuse.flooding import Flood, Stage, ask_again_and_again
from bench.abuse.tenants import new_customer
from bench.cast import Account, Pair
from bench.http_client import request
from bench.stack import Database
from pipedai.embedded.layout import SUPERUSER

_AT_ONCE = 32


class Locks(Flood):
    """Half of the calls wait for the environment's row, half for the trigger's."""

    name = "locks"
    what = f"{_AT_ONCE} connections that call on a locked environment and trigger"
    _on: Database
    _pair: Pair
    _account: Account

    def prepare(self, stage: Stage) -> None:
        self._on = stage.on
        with new_customer(stage.port) as customer:
            self._account = customer.account
            self._pair = customer.pair(*customer.environment("production"), "host")

    async def attack(self, port: int, answers: Counter[str]) -> None:
        pair, address = self._pair, self._account.address
        rename = request(
            "PATCH", f"/environments/{pair.environment_id}", cookie=self._account.cookie,
            address=address, body={"name": "renamed"},
        )  # fmt: skip
        fire = request(
            "POST", f"/triggers/{pair.trigger_id}/run", token=pair.api_key, address=address
        )
        # The stuck session is the superuser's, since the application role's time limits would end it.
        with self._on.session(SUPERUSER) as stuck, stuck.transaction():
            stuck.execute(f"SELECT FROM environment WHERE id = '{pair.environment_id}' FOR UPDATE")
            stuck.execute(f"SELECT FROM trigger WHERE id = '{pair.trigger_id}' FOR UPDATE")
            await asyncio.gather(
                *(
                    ask_again_and_again(port, [sent], answers, times=_AT_ONCE // 2)
                    for sent in (rename, fire)
                )
            )
