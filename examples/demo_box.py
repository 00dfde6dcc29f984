"""Where a box is and what its stations are called: read from its configuration file.

The demo takes free ports and writes them into `demo-output/demo.toml`, so every example looks
there unless `--config` names another file. Whoever runs an example far from the box gives the
addresses on the command line instead; then no file is read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEMO = Path("demo-output/demo.toml")


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line that begins with `--config`; the first line of `description` is its help."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument(
        "--config", type=Path, default=DEMO, metavar="F", help=f"of the box (default: {DEMO})"
    )
    return made


def read(path: Path) -> dict[str, Any]:
    """The configuration as it stands in the file; ends the program with a sentence if it cannot."""
    try:
        with path.open("rb") as file:
            config: dict[str, Any] = tomllib.load(file)
            return config
    except FileNotFoundError:
        raise SystemExit(
            f"{path} does not exist: run `make demo SECONDS=600` in another terminal, wait for its "
            "table, and start this in the same folder; or say where the box is (--help)."
        ) from None


def section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """One section; ends the program with a sentence when the box does not have it."""
    found = config.get(name)
    if not isinstance(found, dict):
        raise SystemExit(f"The box has no [{name}] section: this example cannot reach it.")
    return found


def station(config: dict[str, Any], name: str | None, **wanted: str) -> dict[str, Any]:
    """The station of that name; without a name the first that has the wanted settings."""
    stations = config.get("stations", [])
    for each in stations:
        fits = all(each.get(key, "json") == value for key, value in wanted.items())
        if each["name"] == name or (name is None and fits):
            return dict(each)
    have = ", ".join(each["name"] for each in stations) or "none"
    what = name or " and ".join(f'{key} = "{value}"' for key, value in wanted.items())
    raise SystemExit(f"The box has no station with {what} (stations: {have}).")


def topic(config: dict[str, Any], station: dict[str, Any]) -> str:
    """What the station's topics begin with."""
    prefix = config.get("mqtt", {}).get("prefix", "edged")
    return str(station.get("topic", f"{prefix}/{station['name']}"))


def grpc_target(config: dict[str, Any], path: Path) -> str:
    """The gRPC door, as a channel takes it; a relative socket lies beside the configuration."""
    door = section(config, "grpc")
    if "listen" in door:
        return str(door["listen"])
    return f"unix:{(path.parent / door['socket']).resolve()}"
