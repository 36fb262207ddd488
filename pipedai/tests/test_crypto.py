"""The primitives of envelope encryption."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipedai import crypto
from pipedai.crypto import CannotOpen, MasterKey, Place
from testing.world.cases import cases

MASTER = MasterKey("m1", b"a" * 32)
OTHER_MASTER = MasterKey("m2", b"b" * 32)
DATA = crypto.new_data_key("d1")
PLACE = Place("environment", "trigger", "mcp_headers", "row")
SECRET = b"planted-secret"


def encoded(key):
    return base64.b64encode(key).decode()


class TestMasterKeys:
    def test_they_are_read_newest_first(self):
        keys = crypto.parse_master_keys((f"new:{encoded(b'a' * 32)}", f"old:{encoded(b'b' * 32)}"))
        assert [(key.id, key.key) for key in keys] == [("new", b"a" * 32), ("old", b"b" * 32)]

    @cases("entry",
        [
            "",
            "id",
            "id:",
            f":{encoded(b'a' * 32)}",
            encoded(b"a" * 32),
            f"id:{encoded(b'a' * 31)}",
            f"id:{encoded(b'a' * 33)}",
            f"id:{'a' * 32}",
            f"id:{encoded(b'a' * 32)}!",
            f"id:{encoded(b'a' * 32)[:-1]}",
            f"id: {encoded(b'a' * 32)}",
            "id:ключ",
        ])  # fmt: skip
    def test_any_other_form_is_refused_without_showing_it(self, entry):
        with pytest.raises(ValueError, match="must be <id>:<base64 of 32 random bytes>") as error:
            crypto.parse_master_keys((entry,))
        assert encoded(b"a" * 32)[:8] not in str(error.value)

    def test_there_must_be_one_and_no_id_twice(self):
        entry = f"id:{encoded(b'a' * 32)}"
        for entries in ((), (entry, entry)):
            with pytest.raises(ValueError, match="at least one key, and no id twice"):
                crypto.parse_master_keys(entries)


class TestWrapping:
    def test_a_data_key_is_32_random_bytes(self):
        keys = [crypto.new_data_key("d") for _ in range(3)]
        assert len({key.key for key in keys}) == 3
        assert {len(key.key) for key in keys} == {32}

    def test_it_opens_again_whichever_place_its_master_key_has(self):
        wrapped = crypto.wrap(DATA, MASTER, "environment")
        for masters in ([MASTER], [OTHER_MASTER, MASTER], [MASTER, OTHER_MASTER]):
            opened = crypto.unwrap(wrapped, "d1", "m1", "environment", masters)
            assert (opened.id, opened.key) == (DATA.id, DATA.key)

    @cases(
        ("data_key_id", "master_id", "environment", "masters"),
        [
            ("d2", "m1", "environment", [MASTER]),
            ("d1", "m1", "another", [MASTER]),
            ("d1", "m2", "environment", [MASTER, OTHER_MASTER]),
            ("d1", "m1", "environment", [OTHER_MASTER]),
            ("d1", "m1", "environment", []),
            ("d1", "m1", "environment", [MasterKey("m1", b"c" * 32)]),
        ],
    )
    def test_as_anything_else_it_does_not(self, data_key_id, master_id, environment, masters):
        wrapped = crypto.wrap(DATA, MASTER, "environment")
        with pytest.raises(CannotOpen):
            crypto.unwrap(wrapped, data_key_id, master_id, environment, masters)

    def test_a_wrapped_key_is_no_sealed_value(self):
        """The two purposes have different keys, even if all other inputs are equal."""
        master = MasterKey("m", DATA.key)
        with pytest.raises(CannotOpen):
            crypto.unseal(DATA, PLACE, crypto.wrap(DATA, master, PLACE.environment_id))


class TestSealing:
    # Hypothesis also tries words from our own source, such as "connection". Tests search the logs for every sealed
    # value, and may find such a word there. So we change all bytes, after which these are no words.
    @given(st.binary(max_size=500).map(lambda made: bytes(byte ^ 0xA5 for byte in made)))
    def test_what_is_sealed_opens_again(self, plaintext):
        assert crypto.unseal(DATA, PLACE, crypto.seal(DATA, PLACE, plaintext)) == plaintext

    def test_it_shows_nothing_of_the_plaintext(self):
        sealed = crypto.seal(DATA, PLACE, SECRET * 10)
        assert SECRET not in sealed
        assert SECRET[:6] not in sealed

    def test_the_same_value_never_looks_the_same(self):
        assert len({crypto.seal(DATA, PLACE, SECRET) for _ in range(10)}) == 10

    @cases("field", Place._fields)
    def test_at_another_place_it_does_not_open(self, field):
        sealed = crypto.seal(DATA, PLACE, SECRET)
        with pytest.raises(CannotOpen):
            crypto.unseal(DATA, PLACE._replace(**{field: "another"}), sealed)

    def test_parts_of_a_place_are_kept_apart(self):
        sealed = crypto.seal(DATA, Place("a", "bc", "d", "e"), SECRET)
        for place in (
            Place("ab", "c", "d", "e"),
            Place("a", "b", "cd", "e"),
            Place("a", "bc", "de", ""),
        ):
            with pytest.raises(CannotOpen):
                crypto.unseal(DATA, place, sealed)

    def test_with_another_data_key_it_does_not_open(self):
        sealed = crypto.seal(DATA, PLACE, SECRET)
        for key in (crypto.new_data_key("d1"), crypto.DataKey("d2", DATA.key)):
            with pytest.raises(CannotOpen):
                crypto.unseal(key, PLACE, sealed)

    def test_no_bit_may_be_flipped(self):
        sealed = crypto.seal(DATA, PLACE, SECRET)
        for place in range(len(sealed)):
            for bit in range(8):
                flipped = bytearray(sealed)
                flipped[place] ^= 1 << bit
                with pytest.raises(CannotOpen):
                    crypto.unseal(DATA, PLACE, bytes(flipped))

    def test_nothing_may_be_cut_off_or_added(self):
        sealed = crypto.seal(DATA, PLACE, SECRET)
        for changed in (
            *(sealed[:length] for length in range(len(sealed))),
            sealed[1:],
            sealed + b"\x00",
            b"\x01" + sealed,
        ):
            with pytest.raises(CannotOpen):
                crypto.unseal(DATA, PLACE, changed)

    def test_its_version_is_its_first_byte(self):
        assert crypto.seal(DATA, PLACE, SECRET)[:1] == b"\x01"

    def test_the_error_says_nothing(self):
        with pytest.raises(CannotOpen) as error:
            crypto.unseal(DATA, PLACE, b"\x01" + SECRET * 5)
        assert str(error.value) == ""
        assert error.value.__cause__ is None


@cases("key", [MASTER, DATA, *crypto.parse_master_keys((f"id:{encoded(b'k' * 32)}",))])
def test_no_key_shows_itself(key):
    for text in (repr(key), str(key), f"{key!r}", f"{[key]}"):
        assert repr(key.key) not in text
        assert encoded(key.key) not in text
        assert key.key.hex() not in text
