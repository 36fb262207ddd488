"""What other tenants have changes no answer of a read, nor which run a worker is given."""

import re

from testing.world.audiences import PUBLIC
from testing.world.cast import make_cast
from testing.world.routes import ROUTES
from testing.world.stage import set_stage

READS = [each for each in ROUTES if each.method == "GET" and each.as_ is not PUBLIC]
POLL = next(each for each in READS if each.route.endswith("/poll"))
CLAIM_NEXT = next(each for each in ROUTES if each.route.endswith("/claim-next"))


def test_another_tenants_rows_change_no_answer(stage):
    callers = {each.as_.name: each.caller(stage.cast) for each in READS}

    def answers():
        told = {}
        for route in READS:
            answer = route.send(callers[route.as_.name], route.url(stage), stage.cast)
            said = re.sub(rb'"(serverTime|last\w+At)":"[^"]+"|\d+ s ago', b"", answer.content)
            told[str(route)] = (answer.status_code, said)
        return told

    # The first call with a key notes its use, and the first poll hands a run out: other reads show both.
    for first in {each.as_.name: each for each in (*READS, POLL)}.values():
        first.send(callers[first.as_.name], first.url(stage), stage.cast)
    before = answers()
    set_stage(make_cast())
    after = answers()
    assert [name for name in before if before[name] != after[name]] == []


def test_a_worker_is_given_its_own_tenants_run_alone(stage):
    others = set_stage(make_cast())
    given = {}
    for each in (others, stage):
        client = CLAIM_NEXT.caller(each.cast)
        while run := CLAIM_NEXT.send(client, CLAIM_NEXT.url(each), each.cast).json()["run"]:
            if run["id"] in given:
                break
            given[run["id"]] = each
    assert given == {str(each.runs["queued"]): each for each in (others, stage)}
