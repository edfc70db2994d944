"""Pickles, followed by an interpreter of their opcodes that imports nothing and calls nothing."""

from .assemble import assemble
from .builders import BUILDERS, Storage, storage_of
from .machine import Machine
from .objects import Dictionary, Node, as_python

__all__ = ["BUILDERS", "Dictionary", "Machine", "Node", "Storage", "as_python", "assemble", "storage_of"]
