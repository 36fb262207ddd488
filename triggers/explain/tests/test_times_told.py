"""Each answer with sentences also has the times that they name, as data."""

from datetime import UTC, datetime, timedelta

from testing.world.cast import Cast
from testing.world.runs import Runs
from triggers.explain.answers import due_time_words, moment_words, times_told


def test_times_of_an_answer_are_those_of_its_sentences_and_of_what_it_is_made_of() -> None:
    now = datetime(2100, 5, 4, 21, 55, 3, tzinfo=UTC)
    with times_told() as outer:
        first = moment_words(now, now)
        with times_told() as inner:
            second = due_time_words(now + timedelta(days=1), "Europe/Berlin")
    assert [(each.words, each.at) for each in inner] == [(second, now + timedelta(days=1))]
    assert [each.words for each in outer] == [first, second]
    assert moment_words(now, now) == first


def test_a_run_that_ended_tells_when_in_words_and_as_data(cast: Cast) -> None:
    runs = Runs.of(cast)
    run_id = runs.ended("failed", faultClass="client")
    client = cast.client(cast.viewer)
    told = client.get(f"/api/v1/runs/{run_id}/explain").json()
    (time,) = told["times"]
    assert time["words"] in told["summary"]
    assert time["at"] == told["ended"]["at"]
    attention = client.get(f"/api/v1/environments/{cast.environment.id}/attention").json()
    assert attention["times"] == []
