"""SIMULATED: a `tensorrt` module that has what one version of the real bindings has, and no more.

api/VERSION.json was read off NVIDIA's bindings of that version: classes, methods with their
signatures, properties, enums with their numbers. A name that the version lacks is an
AttributeError, a call that fits no signature a TypeError, as on the device. Behind it is trt.py.
"""

from __future__ import annotations

import enum
import json
import re
import types
from pathlib import Path
from typing import Any

from tests.support.simulated import trt

API = Path(__file__).parent / "api"
MAKERS = ("Builder", "OnnxParser", "Runtime")
NAMES = {
    "_Profile": "IOptimizationProfile", "_Config": "IBuilderConfig", "bytes": "IHostMemory",
    "_Timing": "ITimingCache",
}  # fmt: skip
"""What trt.py calls otherwise than TensorRT does."""


def versions() -> list[str]:
    """Of the recorded bindings."""
    return sorted(path.stem for path in API.glob("*.json"))


def load(version: str) -> Any:
    """The module of that version."""
    return _Version(version).module


def fits(signature: str, given: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether a call fits `name(self: X, a: int, b: str = None) -> R`."""
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    inside = re.sub(r"<[^>]*>", "default", inside)
    words, depth, word = [], 0, ""
    for letter in f"{inside},":
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and not depth:
            words.append(word.strip())
            word = ""
        else:
            word += letter
    wanted = [w for w in words if w and not w.startswith(("self", "*"))]
    names = [re.split("[:=]", w)[0].strip() for w in wanted]
    if len(given) > len(names) or any(name not in names[len(given) :] for name in named):
        return False
    rest = list(zip(names, wanted, strict=True))[len(given) :]
    return all("=" in text or name in named for name, text in rest)


class _Version:
    def __init__(self, version: str) -> None:
        self.version = version
        recorded = json.loads((API / f"{version}.json").read_text(encoding="utf-8"))
        self.classes: dict[str, Any] = recorded["classes"]
        self.enums: dict[str, Any] = {
            name: enum.IntEnum(name, members) for name, members in recorded["enums"].items()
            if members
        }  # fmt: skip
        self.module = types.ModuleType("tensorrt")
        facts = {**self.enums, "__version__": recorded["__version__"], "ILogger": trt.ILogger}
        facts |= {name: self._maker(name) for name in MAKERS}
        vars(self.module).update(facts)
        vars(self.module)["nptype"] = lambda kind: trt.nptype(getattr(trt.DataType, kind.name))

    def _maker(self, name: str) -> Any:
        def make(*given: Any, **named: Any) -> Any:
            self.check(name, "__init__", given, named)
            return _Facade(self, name, getattr(trt, name)(*map(self.down, given)))

        return make

    def check(self, kind: str, name: str, given: Any, named: Any) -> None:
        """Raise TypeError unless some signature fits."""
        known = self.classes[kind]["methods"][name]
        if not any(fits(each, given, named) for each in known if "*args" not in each):
            raise TypeError(f"TensorRT {self.version}: {kind}.{name}{given} fits none of {known}")

    def down(self, value: Any) -> Any:
        """What trt.py takes, of what the caller has."""
        if isinstance(value, _Facade):
            return object.__getattribute__(value, "inner")
        if isinstance(value, enum.IntEnum):
            return getattr(getattr(trt, type(value).__name__), value.name)
        return value

    def up(self, value: Any) -> Any:
        """What the caller sees, of what trt.py gives."""
        kind = NAMES.get(type(value).__name__, type(value).__name__)
        if kind in self.enums:
            return self.enums[kind][value.name]
        if isinstance(value, bytes) or kind not in self.classes:
            return value
        return _Facade(self, kind, value)

    def flags(self, bits: int) -> int:
        """Flags of a network in trt.py's numbers; a version's own that it lacks mean nothing."""
        kind, real = self.enums["NetworkDefinitionCreationFlag"], trt.NetworkDefinitionCreationFlag
        asked = [flag.name for flag in kind if bits >> int(flag) & 1]
        return sum(1 << int(getattr(real, name)) for name in asked if hasattr(real, name))


class _Facade:
    """An object of one class of the version."""

    def __init__(self, version: _Version, kind: str, inner: Any) -> None:
        for name, value in (("version", version), ("kind", kind), ("inner", inner)):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        version, kind, inner = self.version, self.kind, self.inner
        known = version.classes[kind]
        if name in known["properties"]:
            return version.up(getattr(inner, name))
        if name not in known["methods"]:
            raise AttributeError(f"TensorRT {version.version}: {kind} has no {name}")

        def call(*given: Any, **named: Any) -> Any:
            version.check(kind, name, given, named)
            if (kind, name) == ("Builder", "create_network"):
                return version.up(inner.create_network(version.flags(given[0] if given else 0)))
            return version.up(getattr(inner, name)(*map(version.down, given)))

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        known = self.version.classes[self.kind]["properties"].get(name)
        if not known or not known["settable"]:
            words = f"TensorRT {self.version.version}: {self.kind}.{name} cannot be set"
            raise AttributeError(words)
        setattr(self.inner, name, self.version.down(value))
