"""Makes each shape of `bin/bench growth` small, and asks what meets it once.

A shape costs as much CPU as several tests of the API, since it has its own cast and up to hundreds of rows.
"""

import pytest

from bench.growth.shapes import SHAPES

_ROWS = 200


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_made_and_can_be_asked(db, name):
    pages = list(SHAPES[name](_ROWS))
    assert pages
    for page in pages:
        page.call()
