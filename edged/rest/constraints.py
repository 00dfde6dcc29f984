"""Kinds of values in requests, with their constraints, and the check of a value against them.

Owns the wording of what is wrong. A value is what JSON, a header, a path or a query gave; the
check returns it in the form that operations use (bytes for blobs, datetimes for timestamps). All
faults of a request are found, not only the first, and told in the words that AWS uses, so that
whoever reads logs of both finds the same.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol, TypeAlias

Faults: TypeAlias = list[str]
"""Sentences, one for each constraint that a request breaks."""


class Shape(Protocol):
    """One kind of value."""

    def check(self, value: Any, where: str, faults: Faults) -> Any:
        """The value in the operations' form; what is wrong with it is added to `faults`."""


def _broken(value: Any, where: str, constraint: str) -> str:
    shown = "" if value is None else f" {_short(value)}"
    return f"Value{shown} at '{where}' failed to satisfy constraint: {constraint}"


def _short(value: Any) -> str:
    text = str(value)
    return f"'{text[:97]}...'" if len(text) > 100 else f"'{text}'"


@dataclass(frozen=True, slots=True)
class String:
    """Text. pattern: matches the whole; letters: TagKey's classes, which `re` does not have."""

    least: int = 0
    most: int | None = None
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    letters: bool = False

    def check(self, value: Any, where: str, faults: Faults) -> str:
        """The text itself."""
        if not isinstance(value, str):
            faults.append(_broken(value, where, "Member must be a string"))
            return ""
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            faults.append(_broken(None, where, "Member must be text without halves of characters"))
            return ""
        if len(value) < self.least:
            words = f"Member must have length greater than or equal to {self.least}"
            faults.append(_broken(value, where, words))
        if self.most is not None and len(value) > self.most:
            words = f"Member must have length less than or equal to {self.most}"
            faults.append(_broken(value, where, words))
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            words = f"Member must satisfy regular expression pattern: {self.pattern}"
            faults.append(_broken(value, where, words))
        if self.letters and not all(_is_tag_letter(letter) for letter in value):
            words = (
                r"Member must satisfy regular expression pattern: ^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$"
            )
            faults.append(_broken(value, where, words))
        if self.choices and value not in self.choices:
            words = f"Member must satisfy enum value set: [{', '.join(self.choices)}]"
            faults.append(_broken(value, where, words))
        return value


def _is_tag_letter(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "LZN" or letter in "_.:/=+-@"


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number; text where a path or a query carries it."""

    least: int | None = None
    most: int | None = None

    def check(self, value: Any, where: str, faults: Faults) -> int:
        """The number."""
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            faults.append(_broken(value, where, "Member must be a whole number"))
            return 0
        if self.least is not None and value < self.least:
            words = f"Member must have value greater than or equal to {self.least}"
            faults.append(_broken(value, where, words))
        if self.most is not None and value > self.most:
            words = f"Member must have value less than or equal to {self.most}"
            faults.append(_broken(value, where, words))
        return value


@dataclass(frozen=True, slots=True)
class Boolean:
    """True or false; text where a query carries it."""

    def check(self, value: Any, where: str, faults: Faults) -> bool:
        """The truth."""
        if value in ("true", "false"):
            return bool(value == "true")
        if not isinstance(value, bool):
            faults.append(_broken(value, where, "Member must be true or false"))
        return value is True


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes, base64 in JSON; lengths are of the bytes."""

    least: int = 0
    most: int | None = None

    def check(self, value: Any, where: str, faults: Faults) -> bytes:
        """The bytes."""
        try:
            if not isinstance(value, str):
                raise ValueError
            data = base64.b64decode(value, validate=True)
        except (ValueError, binascii.Error):
            faults.append(_broken(value, where, "Member must be base64"))
            return b""
        if len(data) < self.least:
            words = f"Member must have length greater than or equal to {self.least}"
            faults.append(_broken(None, where, words))
        if self.most is not None and len(data) > self.most:
            words = f"Member must have length less than or equal to {self.most}"
            faults.append(_broken(None, where, words))
        return data


@dataclass(frozen=True, slots=True)
class Timestamp:
    """ISO 8601 in a query, with or without a zone (UTC then); seconds since 1970 in JSON."""

    def check(self, value: Any, where: str, faults: Faults) -> datetime:
        """The time, with its zone."""
        try:
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return _from_seconds(float(value))
            if not isinstance(value, str):
                raise ValueError
            if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value):
                return _from_seconds(float(value))
            # fromisoformat of Python 3.10 knows neither Z nor fractions of three digits
            found = re.fullmatch(
                r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(\.\d{1,9})?)?"
                r"(Z|[+-]\d\d:?\d\d)?",
                value,
            )
            if not found:
                raise ValueError
            day, clock, fraction, zone = found.groups()
            digits = (fraction or ".0")[1:7].ljust(6, "0")
            offset = "+00:00" if zone in (None, "Z") else zone[:3] + ":" + zone[-2:]
            clock = (clock or "00:00:00") if clock is None or len(clock) > 5 else f"{clock}:00"
            return datetime.fromisoformat(f"{day}T{clock}.{digits}{offset}")
        except (ValueError, OverflowError, OSError):
            faults.append(_broken(value, where, "Member must be a timestamp"))
            return datetime.fromtimestamp(0, timezone.utc)


def _from_seconds(value: float) -> datetime:
    if not math.isfinite(value):
        raise ValueError
    return datetime.fromtimestamp(value, timezone.utc)


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of one kind."""

    member: Shape
    least: int = 0
    most: int | None = None

    def check(self, value: Any, where: str, faults: Faults) -> list[Any]:
        """The list, each member checked."""
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            faults.append(_broken(value, where, "Member must be a list"))
            return []
        if len(value) < self.least:
            words = f"Member must have length greater than or equal to {self.least}"
            faults.append(_broken(None, where, words))
        if self.most is not None and len(value) > self.most:
            words = f"Member must have length less than or equal to {self.most}"
            faults.append(_broken(None, where, words))
            return []  # ten thousand wrong members would make as many sentences
        return [self.member.check(v, f"{where}.{i}.member", faults) for i, v in enumerate(value, 1)]


@dataclass(frozen=True, slots=True)
class Structure:
    """An object with known members. Unknown ones are let go, as AWS does."""

    members: Mapping[str, Shape] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    def check(self, value: Any, where: str, faults: Faults) -> dict[str, Any]:
        """The known members that are there; null counts as absent."""
        if not isinstance(value, Mapping):
            faults.append(_broken(value, where, "Member must be an object"))
            return {}
        result: dict[str, Any] = {}
        for name, shape in self.members.items():
            place = f"{where}.{lower(name)}" if where else lower(name)
            found = value.get(name)
            if found is not None:
                result[name] = shape.check(found, place, faults)
            elif name in self.required:
                faults.append(_broken(None, place, "Member must not be null"))
        return result


def lower(name: str) -> str:
    """How AWS's sentences write a member's name: `ProjectName` is `projectName`."""
    return name[:1].lower() + name[1:]


def sentence(faults: Sequence[str]) -> str:
    """One message of all faults, as AWS joins them."""
    count = len(faults)
    noun = "error" if count == 1 else "errors"
    return f"{count} validation {noun} detected: {'; '.join(faults)}"
