"""Coverage-guided fuzzing with atheris; docs/attacks.md tells how the runs went.

    python -m tests.attacks.fuzz seeds CORPUS                    write the beginnings: CORPUS/records, images, routes
    python -m tests.attacks.fuzz records|images|routes CORPUS [libFuzzer options]

Whatever is raised but layerscope's own errors ends the run and leaves the input in a crash-* file, as does an input
that takes 10 seconds or 1.5 GiB. With KEEP=folder in the environment the run goes on after a finding: the first input
of each kind is left in that folder. tests/checkpoints/fuzz_readers.py does the same for checkpoints.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


class Fed:
    """Decisions of the fuzzer's bytes."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    def below(self, count: int) -> int:
        return self._provider.ConsumeIntInRange(0, count - 1)


def records() -> Callable[[bytes], None]:
    """A first byte of 0: the rest is the file as it is. Any other: a script of lies on a true record."""
    import atheris

    rooms = ["records", "views"]
    with atheris.instrument_imports(include=[f"layerscope.{room}" for room in rooms]):
        import layerscope.records.profiles
        import layerscope.records.record
        import layerscope.records.schema  # noqa: F401
        from layerscope.views import documents, examples, figure, format, html, png  # noqa: F401
    from tests.attacks import crafting, looking

    light = looking.light_page()
    light.__enter__()

    names = list(looking.views(FOLDER))

    def one(data: bytes) -> None:
        if data[:1] == b"\0":
            path = FOLDER / "x.layerscope"
            path.write_bytes(data[1:])
            chosen: list[str] = []
        else:
            choice = Fed(atheris.FuzzedDataProvider(data[1:]))
            chosen = [names[choice.below(len(names))] for _ in range(3)]  # all of them take a fifth of a second
            path = crafting.crafted(FOLDER / "x.layerscope", choice)
        looking.look(path, FOLDER, chosen)

    return one


def images() -> Callable[[bytes], None]:
    """The first byte chooses: an image file, or an idx file."""
    import atheris

    with atheris.instrument_imports(include=["layerscope.images.files", "PIL"]):
        from layerscope.images.files import open_image, read_idx
    from layerscope.errors import ImageError

    path = FOLDER / "x"

    def one(data: bytes) -> None:
        path.write_bytes(data[1:])
        try:
            if data[:1] == b"i":
                read_idx(path)
            else:
                image = open_image(path)
                assert image.mode == "RGB" and image.width > 0 and image.height > 0
        except ImageError as error:
            assert str(error).isprintable(), ascii(str(error))[:300]

    return one


def routes() -> Callable[[bytes], None]:
    """A script of requests, on a record and on a live network."""
    import atheris

    with atheris.instrument_imports(include=["layerscope.server", "layerscope.views.format", "starlette"]):
        import layerscope.server
        import layerscope.server.app  # noqa: F401
    from tests.attacks import asking

    stages = asking.stages(FOLDER)

    def one(data: bytes) -> None:
        choice = Fed(atheris.FuzzedDataProvider(data))
        asking.play(stages[choice.below(len(stages))], choice)

    return one


def seeds(corpus: Path) -> None:
    """Write what the runs begin with."""
    from tests.attacks import crafting, pictures

    for kind in ("records", "images", "routes"):
        (corpus / kind).mkdir(parents=True, exist_ok=True)
    for number in range(4):
        path = crafting.write(FOLDER / "x", *crafting.truth(number))
        (corpus / "records" / f"whole-{number}").write_bytes(b"\0" + path.read_bytes())
    for number in range(200):
        (corpus / "records" / f"lies-{number}").write_bytes(b"\1" + os.urandom(40 + number))
        (corpus / "routes" / f"{number}").write_bytes(os.urandom(60 + number))
    for name, data in pictures.samples().items():
        (corpus / "images" / name).write_bytes((b"i" if name.startswith("idx") else b"p") + data)


def kept(one: Callable[[bytes], None], folder: Path) -> Callable[[bytes], None]:
    """The same, but what it raises is written down, once for each place in the code."""
    folder.mkdir(parents=True, exist_ok=True)

    def tried(data: bytes) -> None:
        try:
            one(data)
        except Exception as error:
            places = traceback.extract_tb(error.__traceback__)
            last = [place for place in places if "/src/layerscope/" in place.filename] or places
            name = f"{type(error).__name__}-{Path(last[-1].filename).stem}-{last[-1].lineno}"
            if not (folder / name).exists():
                (folder / name).write_bytes(data)
                (folder / f"{name}.txt").write_text(traceback.format_exc(), errors="backslashreplace")

    return tried


def main() -> None:
    """Run libFuzzer until its options say stop."""
    what, corpus, *options = sys.argv[1:]
    if what == "seeds":
        seeds(Path(corpus))
        return
    import atheris

    one = {"records": records, "images": images, "routes": routes}[what]()
    if os.environ.get("KEEP"):
        one = kept(one, Path(os.environ["KEEP"]) / what)
    limits = [] if any(option.startswith("-rss") for option in options) else ["-rss_limit_mb=1536"]
    atheris.Setup([sys.argv[0], *options, "-timeout=10", *limits, f"{corpus}/{what}"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
