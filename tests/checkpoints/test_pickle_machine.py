"""The inert unpickler, opcode by opcode: what each leaves, what it is charged for, and what is refused."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from layerscope.checkpoints.builders import BUILDERS
from layerscope.checkpoints.guard import Damage
from layerscope.checkpoints.nodes import Dictionary, Global, Node
from layerscope.checkpoints.pickles import MIB, Machine

CLASS = b"cshop\nTulip\n"


def machine(data: bytes) -> Machine:
    return Machine(data, BUILDERS, lambda reference: reference)


def load(data: bytes) -> Any:
    return machine(data).load()


REFUSED = {
    b"\x80\x02\xff.": "byte 2 is b'\\xff', which is no pickle opcode",
    b"I12": "a line has no end after byte 1",
    b"h\x05.": "refers to object 5, which is not there, before byte 2",
    b"\x80\x06N.": "says protocol 6",
    b"(o.": "makes an object of no class",
    b"K\x01\x8c\x01a\x93.": "names a global 1.a that is not text",
    b"\x8c\x01aK\x01\x93.": "names a global a.1 that is not text",
    b"S'\n.": "a string without quotes",
    b"S'a\"\n.": "a string without quotes",
    b"Sa\n.": "a string without quotes",
    b"0.": "takes an object that is not there, before byte 1",
    b"2.": "takes an object that is not there, before byte 1",
    b"N(2.": "takes an object that is not there, before byte 3",  # what lies below a mark is out of reach
    b"\x85.": "takes an object that is not there, before byte 1",
    b"N(\x85.": "takes an object that is not there, before byte 3",
    b"](NN(a.": "takes an object that is not there, before byte 6",  # the last mark counts
    b"1.": "takes a mark that is not there, before byte 1",
    b"(Nd.": "cannot be followed before byte 3",  # a key without a value
    b"}(Nu.": "cannot be followed before byte 4",
    CLASS + b")\x81(Nu.": "cannot be followed before byte 17",
    b"\x97.": "in buffers outside of it",
    b"I" + b"1" * 2001 + b"\n.": "a number of 2001 digits, more than 2000",
    b"\x8b\x01\x04\x00\x00" + bytes(1025) + b".": "an integer of 1025 bytes, more than 1024",
}


@pytest.mark.parametrize("data", REFUSED, ids=[said[:60] for said in REFUSED.values()])
def test_what_cannot_be_followed_is_refused_with_its_place(data: bytes) -> None:
    with pytest.raises(Damage, match=re.escape(REFUSED[data])):
        load(data)


LEFT = {
    b"\x80\x05N.": None,
    b"I01\n.": True,
    b"I00\n.": False,
    b"I011\n.": 11,
    b"S''\n.": "",
    b'S"a"\n.': "a",
    b"I" + b"1" * 2000 + b"\n.": int("1" * 2000),
    b"\x8b\x00\x04\x00\x00" + bytes(1023) + b"\x01.": 1 << (8 * 1023),
    b"N(0.": None,  # POP takes the mark, if it is on top
    b"NK\x010.": None,  # or what is
    b"N(N(0t\x86.": (None, (None,)),
    b"(K\x01K\x02K\x03K\x04d.": {1: 2, 3: 4},
    b"](K\x01K\x02e.": [1, 2],
    b"}(K\x01K\x02K\x03K\x04u.": {1: 2, 3: 4},
}


@pytest.mark.parametrize("data", LEFT, ids=[f"{index}" for index in range(len(LEFT))])
def test_what_opcodes_leave(data: bytes) -> None:
    found = load(data)
    assert found == LEFT[data]
    assert type(found) is type(LEFT[data]) or isinstance(found, Dictionary)


def test_what_is_put_into_an_object_that_is_not_made_is_kept_beside_it() -> None:
    made = load(CLASS + b")\x81(K\x01K\x02K\x03K\x04uK\x07K\x08s(K\x05K\x06e.")
    assert isinstance(made, Node)
    assert str(made.maker) == "shop.Tulip"
    assert made.entries == {1: 2, 3: 4, 7: 8}
    assert made.items == [5, 6]


def test_objects_are_made_by_what_their_class_says() -> None:
    ordered = b"ccollections\nOrderedDict\n"
    assert load(ordered + b")\x81.") == {}
    with_keywords = load(ordered + b")}\x92.")  # no builder takes keywords
    assert isinstance(with_keywords, Node)
    assert with_keywords.arguments == ((), {})
    plain = load(CLASS + b"K\x01\x85\x81.")
    assert isinstance(plain, Node)
    assert plain.arguments == (1,)
    named = machine(b"\x8c\x17collections.OrderedDict)\x81.")  # a text is no class, whatever it says
    assert isinstance(named.load(), Node)
    assert list(named.alarms.lines) == ["loading this file with pickle would call 'collections.OrderedDict'.__new__()"]


def charged(data: bytes) -> int:
    made = machine(data)
    before = made.budget
    made.load()
    return before - made.budget


def test_what_is_built_is_charged_for() -> None:
    """At least what Python takes for it, so that a small file cannot fill the memory."""
    many = 1000
    numbers = b"K\x01" * many
    assert charged(b"].") >= sys.getsizeof([])
    assert charged(b"}.") >= sys.getsizeof({})
    assert charged(b"N\x85.") >= sys.getsizeof((None,))
    assert charged(b"(" + numbers + b"l.") >= sys.getsizeof([1] * many)
    assert charged(b"(" + numbers + b"t.") >= sys.getsizeof((1,) * many)
    assert charged(b"](" + numbers + b"e.") >= sys.getsizeof([1] * many)
    pairs = b"".join(b"M" + number.to_bytes(2, "little") + b"N" for number in range(many))
    assert charged(b"}(" + pairs + b"u.") >= sys.getsizeof(dict.fromkeys(range(many)))
    assert charged(b"(" * many + b"1" * many + b"N.") >= sys.getsizeof([1] * many)
    assert charged(b"N" + b"\x94" * many + b".") >= sys.getsizeof(dict.fromkeys(range(many)))
    assert charged(CLASS + b".") >= sys.getsizeof(Global("shop", "Tulip"))
    one = load(CLASS + b")\x81.")
    parts = (one, one.attributes, one.hooks, one.items)
    assert charged(CLASS + b")\x81.") - charged(CLASS + b".") >= sum(map(sys.getsizeof, parts))
    assert charged(b"K\x01.") == 0  # the file's size bounds these


def test_the_budget_is_a_fixed_part_and_a_multiple_of_the_size_up_to_a_limit() -> None:
    assert machine(b"").budget == 128 * MIB == 128 * 1024 * 1024
    assert machine(bytes(1000)).budget == 128 * MIB + 8 * 1000
    assert machine(bytes(64 * MIB + 1)).budget == (128 + 8 * 64) * MIB


def test_the_budget_may_be_used_up() -> None:
    made = machine(b"")
    made.budget = 96
    made.spend(96)
    with pytest.raises(Damage, match="builds more than 128 MiB"):
        made.spend(1)
