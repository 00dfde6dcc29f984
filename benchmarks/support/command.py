"""Command lines of benchmarks. `--help` is the whole docstring, so a question is written once."""

from __future__ import annotations

import argparse
from pathlib import Path


def question(doc: str | None, file: str) -> argparse.ArgumentParser:
    """A parser without arguments yet, from a benchmark's `__doc__` and `__file__`."""
    shape = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(Path(file).stem, description=doc, formatter_class=shape)


def add_model(parser: argparse.ArgumentParser, note: str = "") -> None:
    """MODEL, which has to be given."""
    parser.add_argument("model", metavar="MODEL", type=path, help=f"a model folder{note}")


def add_optional_model(parser: argparse.ArgumentParser, note: str = "") -> None:
    """[MODEL]; None = the benchmark trains one."""
    said = f"a model folder{note} (default: one trained here)"
    parser.add_argument("model", metavar="MODEL", nargs="?", type=path, help=said)


def add_pictures(parser: argparse.ArgumentParser, what: str = "a data set or a folder") -> None:
    """PICTURES, which have to be given."""
    parser.add_argument("pictures", metavar="PICTURES", type=path, help=what)


def add_number(parser: argparse.ArgumentParser, name: str, default: int, what: str) -> None:
    """A whole number that may be left out."""
    said = f"{what} (default: {default})"
    parser.add_argument(name, metavar=name.upper(), nargs="?", type=int, default=default, help=said)


def path(text: str) -> Path:
    """Absolute, for other processes and configurations read it from folders of their own."""
    return Path(text).resolve()
