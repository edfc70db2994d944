"""What the formats share below their tables: zip archives, strides, protobuf, names of files, errors."""

from .errors import Damage, guarded, show
from .not_checkpoints import refuse, refuse_path
from .paths import inside
from .protobuf import Message, varints
from .strided import Layout, contiguous, map_file, shape_of
from .zip import MAGIC, MIB, Archive, names_in

__all__ = [
    "MAGIC", "MIB", "Archive", "Damage", "Layout", "Message", "contiguous", "guarded", "inside", "map_file", "names_in",
    "refuse", "refuse_path", "shape_of", "show", "varints",
]  # fmt: skip
