"""The inert unpickler, opcode by opcode: what each leaves, and what is refused."""

from __future__ import annotations

import pickle
import pickletools
import re
from typing import Any

import pytest

from layerscope.checkpoints.pickles.builders import BUILDERS, Array, Kind
from layerscope.checkpoints.pickles.machine import Machine
from layerscope.checkpoints.pickles.objects import Dictionary, Node
from layerscope.checkpoints.storage.errors import Damage

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
    b"T\xff\xff\xff\xffa.": "-1 bytes are missing at byte 5",
    b"\x8d" + b"\xff" * 8 + b".": "18446744073709551615 bytes are missing at byte 9",
    b"X\x03\x00\x00\x00a.": "3 bytes are missing at byte 5",
    b"J\x00\x00\x00": "4 bytes are missing at byte 1",
    b"N": "1 bytes are missing at byte 1",
    b"\x94.": "takes an object that is not there, before byte 1",
    b"N\x94h\x01.": "refers to object 1, which is not there, before byte 4",
    b"N\x94g-1\n.": "refers to object -1, which is not there, before byte 6",
    b"ctorch\nSize\nN\x85R.": "has None for its shape",
    b"cnumpy\ndtype\n)R.": "builds a numpy.dtype from ()",
    b"cnumpy\nndarray\n)RN\x85b.": "cannot be followed before byte 20",  # a state of one part
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


#: by protocol, what leaves plain data, so that Python's own unpickler may run it, too
AS_PYTHON = (
    b"N.", b"I-7\n.", b"L7\n.", b"L-8L\n.", b"F-1.5\n.", b"S'a\\n\\\\'\n.", b"V\\u00e9\n.", b"V\n.",
    b"(t.", b"(NI1\nl.", b"(lp7\nNa0g7\n.", b"(dI1\nNs.", b"(I1\nNd.", b"NI1\n0.", b"((lI1\n2t.",
    # 1
    b"J\xff\xff\xff\xff.", b"K\xff.", b"M\xff\xff.", b"G\x3f\xb9\x99\x99\x99\x99\x99\x9a.",
    b"T\x01\x00\x00\x00a.", b"U\x01a.", b"X\x02\x00\x00\x00\xc3\xa9.", b"X\x03\x00\x00\x00\xed\xa0\x80.",
    b"].", b"}.", b").", b"](NK\x01e.", b"}(K\x01NK\x02Nu.", b"N(K\x01K\x021.",
    b"Nq\xff0K\x07q\x000h\xff.", b"Nr\x00\x01\x00\x010K\x07r\x01\x00\x00\x000j\x00\x01\x00\x01.",
    # 2
    b"\x80\x02\x88.", b"\x89.", b"\x8a\x00.", b"\x8a\x02\x00\x80.", b"\x8b\x02\x00\x00\x00\xff\x00.",
    b"N\x85.", b"NK\x01\x86.", b"NK\x01K\x02\x87.",
    # 3
    b"\x80\x03B\x02\x00\x00\x00a\xff.", b"C\x02a\xff.",
    # 4
    b"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00N.", b"\x8c\x01a.", b"\x8d\x01\x00\x00\x00\x00\x00\x00\x00a.",
    b"\x8e\x01\x00\x00\x00\x00\x00\x00\x00\xff.", b"K\x01\x940K\x02\x940K\x03\x940h\x00h\x02\x86.",
    b"K\x01q\x070K\x02\x940h\x01.", b"K\x01q\x00K\x02q\x00h\x00\x86.",  # MEMOIZE counts; the last PUT holds
    # 5
    b"\x80\x05\x96\x01\x00\x00\x00\x00\x00\x00\x00\xff.",
)  # fmt: skip
#: opcodes whose results differ from Python's, which the other tests have
INERT = {"GLOBAL", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"}
INERT |= {"PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER", "EMPTY_SET", "ADDITEMS", "FROZENSET"}


def test_plain_opcodes_leave_what_pythons_unpickler_leaves() -> None:
    used = set()
    for data in AS_PYTHON:
        found, wanted = load(data), pickle.loads(data)
        assert found == wanted, data
        assert type(found) is type(wanted) or isinstance(found, Dictionary | bytes), data
        used |= {opcode.name for opcode, *_ in pickletools.genops(data)}
    assert used | INERT == {opcode.name for opcode in pickletools.opcodes}


#: opcodes that a real unpickler would import, call or look up with -> what is there instead, as text
INERT_LEFT = {
    b"cos\nsystem\n.": "os.system",
    b"\x8c\x02os\x8c\x06system\x93.": "os.system",
    b"\x82\xff.": "copyreg.extension_255",
    b"\x83\xff\xff.": "copyreg.extension_65535",
    b"\x84\xff\xff\xff\x7f.": "copyreg.extension_2147483647",
    b"Pa b\n.": "a b",
    b"NK\x01\x86Q.": "(None, 1)",
    b"\x8f(K\x01K\x02\x90.": "[1, 2]",
    b"(K\x01K\x02\x91.": "[1, 2]",
}


@pytest.mark.parametrize("data", INERT_LEFT)
def test_what_stands_for_globals_references_and_sets(data: bytes) -> None:
    assert str(load(data)) == INERT_LEFT[data]


@pytest.mark.parametrize(
    "data",
    [
        b"(K\x01K\x02ishop\nTulip\n.",
        b"(" + CLASS + b"K\x01K\x02o.",
        CLASS + b"K\x01K\x02\x86R.",
        CLASS + b"K\x01K\x02\x86\x81.",
    ],
)
def test_every_way_to_make_an_object_keeps_its_class_and_arguments(data: bytes) -> None:
    made = load(data)
    assert isinstance(made, Node)
    assert (str(made.maker), made.arguments) == ("shop.Tulip", (1, 2))


#: the state that BUILD takes -> the attributes of an object afterwards
STATES = {
    b"}K\x01Ns": {1: None},
    b"}K\x01NsN\x86": {1: None},  # a dictionary and slots
    b"N}K\x01Ns\x86": {1: None},
    b"}K\x01NsNN\x87": {},  # three are no such pair
    b"}": {},
    b"N": {},
    b"]": {},
}


@pytest.mark.parametrize("state", STATES)
def test_states_of_an_object(state: bytes) -> None:
    made = load(CLASS + b")\x81" + state + b"b.")
    assert isinstance(made, Node)
    assert made.attributes == STATES[state]


def test_states_of_what_takes_them_and_of_what_does_not() -> None:
    kind = load(b"cnumpy\ndtype\n\x8c\x02f4\x85RK\x03\x8c\x01<\x86b.")
    assert isinstance(kind, Kind) and kind.code == "<f4"
    array = load(b"cnumpy\nndarray\n)R(K\x01K\x02\x85N\x89C\x02abtb.")
    assert isinstance(array, Array) and (array.shape, array.data) == ((2,), b"ab")
    assert load(b"]}K\x01Nsb.") == []
    hit = machine(b"cos\nPathLike\nK\x07b.")
    hit.load()
    assert list(hit.warnings.lines) == ["loading this file with pickle would change os.PathLike with (7)"]


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
    assert list(named.warnings.lines) == [
        "loading this file with pickle would call 'collections.OrderedDict'.__new__()"
    ]
