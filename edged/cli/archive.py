"""Commands on what the line has seen: replay an inspection, label one for the next training.

A part of the command line (main.py), by its rules.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from edged.cli.output import print_report
from edged.core.errors import InvalidInput
from edged.core.names import INSPECTION_ID, EngineName


def add_commands(commands: Any) -> None:
    """Add them to the subparsers of the command line."""
    again = commands.add_parser("replay", help="judge an archived part again, and compare")
    again.add_argument("id", help="of the inspection, as its record says")
    again.add_argument("--config", type=Path, default=Path("edged.toml"), metavar="F")
    again.add_argument("--engine", choices=get_args(EngineName), help="default: the recorded one")
    again.add_argument("--json", action="store_true")
    again.set_defaults(command=_replay)

    label = commands.add_parser("label", help="an archived part becomes an entry of a data set")
    label.add_argument("id", help="of the inspection, as its record says")
    label.add_argument("label", choices=("normal", "anomaly"))
    label.add_argument("--config", type=Path, default=Path("edged.toml"), metavar="F")
    label.add_argument("--dataset", choices=("train", "test"), default="train")
    label.add_argument("--project", default="", help="default: the one that the station follows")
    label.add_argument(
        "--class", action="append", default=[], dest="classes", metavar="NAME",
        help="what is wrong, as a note in the entry; may be repeated",
    )  # fmt: skip
    label.add_argument("--json", action="store_true")
    label.set_defaults(command=_label)


def _checked(id: str) -> str:
    if not INSPECTION_ID.fullmatch(id):
        raise InvalidInput(
            f"{id[:60]!r} is no id of an inspection: 1 to 64 letters, digits, - and _."
        )
    return id


def _replay(arguments: argparse.Namespace) -> int:
    from edged.config.load import load
    from edged.tools.replay import replay

    id = _checked(arguments.id)
    report = replay(load(arguments.config), id, arguments.engine)
    print_report(report, arguments.json)
    return 0 if report["agrees"] else 1


def _label(arguments: argparse.Namespace) -> int:
    from edged.config.load import load
    from edged.core.protocols import Label
    from edged.tools.label import put

    id = _checked(arguments.id)
    config = load(arguments.config)
    anomalous, classes = arguments.label == "anomaly", tuple(arguments.classes)
    wanted = Label(anomalous, arguments.dataset, arguments.project, classes)
    source = put(config, id, wanted)
    print_report({"id": id, "label": arguments.label, "source_ref": source}, arguments.json)
    return 0
