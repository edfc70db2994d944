"""What the inert unpickler charges for what it builds, and where it stops."""

from __future__ import annotations

import sys
import tracemalloc

import pytest

from layerscope.checkpoints.pickles import machine as interpreter
from layerscope.checkpoints.pickles.machine import MIB
from layerscope.checkpoints.pickles.objects import Global
from layerscope.checkpoints.storage.errors import Damage
from tests.checkpoints.test_pickle_machine import CLASS, load, machine


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
    assert charged(b"(" + pairs + b"d.") >= sys.getsizeof(dict.fromkeys(range(many)))
    assert charged(b"(" * many + b"1" * many + b"N.") >= sys.getsizeof([1] * many)
    assert charged(b"N" + b"\x94" * many + b".") >= sys.getsizeof(dict.fromkeys(range(many)))
    assert charged(CLASS + b".") >= sys.getsizeof(Global("shop", "Tulip"))
    one = load(CLASS + b")\x81.")
    parts = (one, one.attributes, one.hooks, one.items)
    assert charged(CLASS + b")\x81.") - charged(CLASS + b".") >= sum(map(sys.getsizeof, parts))
    assert charged(b"K\x01.") == 0  # the file's size bounds these


NUMBERS = b"".join(b"M" + number.to_bytes(2, "little") + b"N" for number in range(5500))  # a table that has just grown
#: a key that is no plain value has an object more
MANY = {
    "lists": b"]" * 2000,
    "lists of one": b"]Na" * 2000,
    "tuples": b"NNN\x87" * 2000,
    "tuples between marks": b"(NNt" * 2000,
    "dictionaries": b"}" * 2000,
    "dictionaries of one": b"]q\x000" + b"}h\x00Ns" * 2000,
    "the oldest dictionaries of one": b"]q\x000" + b"(h\x00Nd" * 2000,
    "items": b"}(" + NUMBERS + b"u",
    "items of the oldest dictionary": b"(" + NUMBERS + b"d",
    "items with lists for keys": b"]q\x000}(" + b"h\x00N" * 5500 + b"u",
    "items of the oldest, with lists for keys": b"]q\x000(" + b"h\x00N" * 5500 + b"d",
    "marks": b"(" * 2000 + b"N",
    "memo": b"N" + b"\x94" * 2000,
    "globals": b"ca\nb\n" * 2000,
    "objects": CLASS + b"q\x00" + b"h\x00)\x81" * 2000,
    "objects of one item": CLASS + b"q\x00" + b"h\x00)\x81Na" * 2000,
    "ordered dictionaries": (
        b"ccollections\nOrderedDict\nq\x00("
        + b"".join(b"M%b\x85N\x86" % n.to_bytes(2, "little") for n in range(500))
        + b"lq\x01"
        + b"h\x00h\x01\x85R" * 100
    ),
    "objects of one entry": CLASS + b"q\x00" + b"h\x00)\x81h\x00Ns" * 2000,
}


@pytest.mark.parametrize("case", MANY)
def test_memory_stays_below_the_charge_and_sixteen_times_the_bytes(case: str) -> None:
    """What docs/checkpoints.md promises."""
    made = machine(MANY[case] + b".")
    before = made.budget
    tracemalloc.start()
    try:
        made.load()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= before - made.budget + 16 * len(made.data)


def test_the_budget_is_a_fixed_part_and_a_multiple_of_the_size_up_to_a_limit() -> None:
    assert machine(b"").budget == 128 * MIB == 128 * 1024 * 1024
    assert machine(bytes(1000)).budget == 128 * MIB + 8 * 1000
    assert machine(bytes(64 * MIB + 1)).budget == (128 + 8 * 64) * MIB


#: what containers and what stands for objects are charged; numbers and text cost nothing
CHARGES = {
    b"K\x01.": 0,
    b"C\x01a.": 0,
    b").": 0,
    b"].": 96,
    b"}.": 96,
    b"\x8f.": 96,
    b"N\x85.": 96,
    b"N(1.": 40,
    b"(l.": 40 + 96,
    b"(NNt.": 40 + 96 + 2 * 16,
    b"(NN\x91.": 40 + 96 + 2 * 16,
    b"(K\x01Nd.": 40 + 96 + 4 * 2 * 16,
    b"]Na.": 96 + 16,
    b"](NNe.": 96 + 40 + 2 * 16,
    b"}K\x01Ns.": 96 + 4 * 2 * 16,
    b"}(K\x01NK\x02Nu.": 96 + 40 + 4 * 4 * 16,
    b"Nq\x00.": 96,
    b"Np0\n\x94.": 2 * 96,
    b"Pa\n.": 96,
    b"NQ.": 96,
    CLASS + b".": 240,
    CLASS + b")R.": 240 + 384,
    CLASS + b")\x81.": 240 + 384,
    CLASS + b")\x81K\x01NsNa.": 240 + 384 + 4 * 2 * 16 + 16,
}


@pytest.mark.parametrize("data", CHARGES)
def test_a_budget_of_what_is_charged_suffices(data: bytes) -> None:
    """And a byte less does not. That the charges cover what Python takes is tested above."""
    enough, short = machine(data), machine(data)
    enough.budget, short.budget = CHARGES[data], CHARGES[data] - 1
    enough.load()
    assert enough.budget == 0
    if short.budget >= 0:
        with pytest.raises(Damage, match="builds more than 128 MiB"):
            short.load()


def test_as_many_opcodes_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "MAX_OPCODES", 4)
    assert load(b"N0N.") is None
    with pytest.raises(Damage, match="more than 4 opcodes"):
        load(b"N0N2.")


def test_a_machine_does_not_show_the_file() -> None:
    assert len(repr(machine(bytes(1000)))) < 200


def test_the_budget_may_be_used_up() -> None:
    made = machine(b"")
    made.budget = 96
    made.spend(96)
    with pytest.raises(Damage, match="builds more than 128 MiB"):
        made.spend(1)
