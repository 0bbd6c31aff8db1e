"""Sealing: what is sealed opens under the same keys and for the same thing, and under nothing else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import SealBroken, SealingKeysInvalid
from model_store.sealing import SealingKeys

OLD, NEW = b"o" * 32, b"n" * 32


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_what_is_sealed_is_opened_again(plain: bytes, context: bytes):
    keys = SealingKeys([OLD])
    assert keys.open(keys.seal(plain, context), context) == plain


@given(st.binary(max_size=40), st.data())
def test_no_bit_may_be_changed(plain: bytes, data: st.DataObject):
    keys = SealingKeys([OLD])
    sealed = bytearray(keys.seal(plain, b"here"))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealBroken):
        keys.open(bytes(sealed), b"here")


def test_a_seal_is_good_for_one_thing_only():
    keys = SealingKeys([OLD])
    with pytest.raises(SealBroken, match="belongs to something else"):
        keys.open(keys.seal(b"secret", b"of ada"), b"of bob")


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x01" + b"\0" * 20, b"\x02" + b"\0" * 60])
def test_what_is_no_seal_is_refused(sealed: bytes):
    with pytest.raises(SealBroken):
        SealingKeys([OLD]).open(sealed, b"")


def test_a_cut_seal_is_refused():
    keys = SealingKeys([OLD])
    sealed = keys.seal(b"secret", b"")
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            keys.open(sealed[:length], b"")


def test_the_first_key_of_a_ring_seals_and_all_of_them_open():
    before = SealingKeys([OLD]).seal(b"secret", b"")
    both = SealingKeys([NEW, OLD])
    assert both.open(before, b"") == b"secret"
    assert not both.is_current(before)
    after = both.seal(b"secret", b"")
    assert both.is_current(after)
    assert SealingKeys([NEW]).is_current(after)
    with pytest.raises(SealBroken, match="does not have"):
        SealingKeys([NEW]).open(before, b"")


def test_two_seals_of_one_thing_differ():
    keys = SealingKeys([OLD])
    assert keys.seal(b"secret", b"") != keys.seal(b"secret", b"")


def test_keys_are_read_from_base64url_and_never_told():
    texts = [base64.urlsafe_b64encode(key).decode().rstrip("=") for key in (NEW, OLD)]
    assert SealingKeys.parse(" ".join(texts)).current_id == SealingKeys([NEW]).current_id
    for wrong in ("", "short", texts[0][:-1], texts[0] + "!", f"{texts[0]} {texts[1]}x", "ü" * 43):
        with pytest.raises(SealingKeysInvalid) as refused:
            SealingKeys.parse(wrong)
        assert not wrong or wrong not in str(refused.value)
