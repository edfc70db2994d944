"""Coverage-guided fuzzing of the readers with atheris; docs/checkpoints.md tells how the runs went.

    python -m tests.checkpoints.fuzz_readers seeds CORPUS            write small real files (needs torch)
    python -m tests.checkpoints.fuzz_readers READER CORPUS [libFuzzer options]

READER is a name of the registry, or "all" for the door. Anything but CheckpointError ends the run and leaves the
input in a crash-* file, as does an input that takes 10 seconds or 1 GiB. With STRICT=1 in the environment a finding
is also what only the door's last resort caught ("cannot be understood"): a check that is missing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

FOLDER = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path.cwd()
FILE = FOLDER / f"fuzz-readers-{os.getpid()}"
STRICT = "STRICT" in os.environ


def seeds(corpus: Path) -> None:
    """Write the samples of the tests, and the hostile pickles."""
    import torch

    from tests.checkpoints.conftest import Network, tensor_pickle, write_samples, zip_with
    from tests.checkpoints.test_pickles import BROKEN, HOSTILE

    corpus.mkdir(parents=True, exist_ok=True)
    write_samples(corpus, Network().eval())
    torch.save({"w": torch.ones(2)}, corpus / "small")
    torch.save({"w": torch.ones(2)}, corpus / "small-legacy", _use_new_zipfile_serialization=False)
    zip_with(corpus / "smallest", tensor_pickle(), s0=bytes(8))
    for kind, cases in {"broken": BROKEN, "hostile": {case: pair[0] for case, pair in HOSTILE.items()}}.items():
        for case, data in cases.items():
            (corpus / f"{kind}-{case.replace(' ', '-')}").write_bytes(data)


def fuzz(name: str, arguments: list[str]) -> None:
    """Run libFuzzer until its options say stop."""
    import atheris

    with atheris.instrument_imports(include=["layerscope.checkpoints"]):
        from layerscope.checkpoints import READERS, open_checkpoint
        from layerscope.checkpoints.storage.errors import guarded
        from layerscope.errors import CheckpointError

    def read_all() -> None:
        if name == "all":
            checkpoint = open_checkpoint(FILE)
        else:
            with guarded(FILE):
                checkpoint = READERS[name].open(FILE)
        for spec in checkpoint.specs[:50]:
            assert spec.nbytes >= 0
            if not spec.unreadable:
                checkpoint.read(spec)
        assert all(line.isprintable() for line in checkpoint.warnings)

    def one(data: bytes) -> None:
        if not data:
            return  # a file is mapped, and an empty one is refused before any reader sees it
        FILE.write_bytes(data)
        try:
            read_all()
        except CheckpointError as error:
            assert str(error).isprintable()
            if STRICT and "cannot be understood" in str(error):
                raise RuntimeError(str(error)) from error

    atheris.Setup([sys.argv[0], *arguments, "-timeout=10", "-rss_limit_mb=1024"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    command, corpus, *options = sys.argv[1:]
    if command == "seeds":
        seeds(Path(corpus))
    else:
        fuzz(command, [corpus, *options])
