"""Lists the benchmarks: the name, the arguments and the question of each."""

from __future__ import annotations

import importlib
from pathlib import Path


def names() -> list[str]:
    """All benchmarks."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def main() -> None:
    print('make bench NAME=... [ARGS="..."]; ARGS=--help says more of one.\n')
    for name in names():
        parser = importlib.import_module(f"benchmarks.{name}").parser()
        _, _, arguments = " ".join(parser.format_usage().split()).partition("[-h]")
        question, _, _ = parser.description.partition("\n")
        print(f"{name}{arguments}\n    {question}")


if __name__ == "__main__":
    main()
