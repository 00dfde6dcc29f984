"""The MQTT broker."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from edged.config.base import Port, Section, is_loopback


class MqttConfig(Section):
    """Where results go by MQTT."""

    host: str = "127.0.0.1"
    port: Port = 1883
    prefix: str = Field(
        default="edged", pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", max_length=48
    )
    """Topics are `<prefix>/<station>/result` and so on, unless a station names its own."""
    version: Literal["auto", "5", "3.1.1"] = "auto"
    """auto = 5, and 3.1.1 with a broker that does not speak 5."""
    client_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$", max_length=64)
    qos: Literal[0, 1] = 1
    """Of the `.../result` topic; `.../full` is always 1."""
    keepalive: int = Field(default=10, ge=2, le=3600)
    username: str | None = None
    password_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    plaintext: bool = False
    """Use a broker on another machine without TLS or without a login: a closed machine network."""
    max_rows: int = Field(default=1_000_000, ge=100)
    """Records kept while the broker is away."""
    max_bytes: int = Field(default=4 << 30, ge=1 << 20)
    """Of their topics and payloads together."""
    max_days: float | None = Field(default=None, gt=0, le=3650)
    """Age of a record in days that the box was up; no bound by default."""
    when_full: Literal["drop_oldest", "refuse"] = "drop_oldest"
    """Beyond a bound the oldest go, counted, or no part is accepted any more.

    drop_oldest by default: a line does not stand still because a historian does, and the archive
    still has every inspection. refuse is for those who may not make a part without its record;
    nothing that was accepted is dropped then, not by age either.
    """
    replay_rate: float = Field(default=100.0, ge=0, le=100_000)
    """Records of a backlog per second, besides what the line makes; 0 = no limit.

    100: an hour of 10 parts a second has followed after 6 minutes, and a receiver that keeps up
    with the line needs to be no more than 100 a second faster for it.
    """
    confirm_seconds: float = Field(default=30.0, ge=1, le=86_400)
    """A station that confirms gets its records again when it has been silent for so long."""

    @model_validator(mode="after")
    def _beyond_loopback_is_safe(self) -> MqttConfig:
        if not self.tls and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError("certificates are given, but tls is not on: set tls = true")
        if not is_loopback(self.host):
            if self.username and not self.tls:
                raise ValueError(
                    f"a password would travel in clear text to {self.host}: set tls = true"
                )
            if not (self.tls and (self.username or self.cert_file)) and not self.plaintext:
                raise ValueError(
                    f"{self.host} is another machine: set tls = true and a username or a "
                    "certificate, or plaintext = true if the network between is closed"
                )
        if self.password_file and not self.username:
            raise ValueError("password_file needs a username beside it")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together: give both or neither")
        return self
