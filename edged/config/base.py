"""What all sections share: names, bounds, addresses."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
PROJECT = r"^(arn:aws:lookoutvision:[a-z0-9-]+:[0-9]{12}:project/)?[A-Za-z0-9][A-Za-z0-9_-]{0,254}$"
ACCOUNT, REGION = "123456789012", "us-east-1"
"""Of a project that is called by its name alone, and of keys that name no account."""
Name = Annotated[str, Field(pattern=NAME, max_length=64)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, le=10000, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """Unknown keys are faults; nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class At(ValueError):
    """A fault found by looking across sections; `loc` says which key to point at."""

    def __init__(self, loc: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.loc = loc


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine and nobody else can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_address(listen: str) -> tuple[str, int]:
    """`host:port` -> (host, port); raises ValueError with a sentence."""
    host, colon, port = listen.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{listen!r} is not an address: write host:port, as in 127.0.0.1:9464")
    return host, int(port)


def loopback_address(listen: str | None) -> str | None:
    """The address as it stands, if it is on loopback; raises ValueError with a sentence."""
    if listen is None:
        return None
    host, _ = split_address(listen)
    if not is_loopback(host):
        raise ValueError(
            f"{host} can be reached from outside without TLS and authentication: use 127.0.0.1"
        )
    return listen
