"""Measure, print the tables, and write them into docs/verification.md: python -m verification [PART ...] [--quick]"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys

import torch

from verification.measuring import table, version, write

PARTS = ("statistics", "activations", "fields", "evidence", "passes", "similarity")
PACKAGES = ("layerscope", "torch", "torchvision", "timm", "numpy", "captum", "torchlens", "ckatorch")


def main() -> int:
    """0 if nothing but what is allowed was found, else 1."""
    parser = argparse.ArgumentParser(prog="python -m verification", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all of them if none is named")
    parser.add_argument("--quick", action="store_true", help="a sample in a minute; the page is left as it is")
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums in threads may be joined in another order each time
    exceptions = 0
    for name in options.parts or PARTS:
        comparisons, notes = importlib.import_module(f"verification.check_{name}").compare(options.quick)
        text = table(comparisons, notes)
        print(f"## {name}\n\n{text}\n", flush=True)
        exceptions += sum(len(one.exceptions) for one in comparisons)
        if not options.quick:
            write(name, text)
    if not options.quick:
        packages = ", ".join(map(version, PACKAGES))
        write("versions", f"Python {platform.python_version()}, {packages}; {platform.system()}, {platform.machine()}.")
    return 1 if exceptions else 0


if __name__ == "__main__":
    sys.exit(main())
