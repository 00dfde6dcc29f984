"""The gRPC front door."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from edged.config.base import At, Section, is_loopback, split_address


class GrpcConfig(Section):
    """The Edge Agent and edged's own interface."""

    socket: Path | None = None
    """Unix socket; its permissions (0660) are the authentication."""
    group: str | int | None = None
    """Group of the socket file, by name or number; None = that of the process."""
    listen: str | None = None
    """`HOST:PORT`; beyond loopback only with a certificate, and with a client's or a token."""
    cert_file: Path | None = None
    """PEM; with it and its key the port speaks TLS."""
    key_file: Path | None = None
    client_ca_file: Path | None = None
    """PEM; clients must show a certificate that this authority signed."""
    token_file: Path | None = None
    """Clients must show what is in it: `authorization: Bearer ...`."""
    reflection: bool = False
    """Tell clients that ask which services there are."""
    max_message_bytes: int = Field(default=52 * 1024 * 1024, ge=4 * 1024 * 1024)

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value)
        return value

    @field_validator("group", mode="before")
    @classmethod
    def _name_or_number(cls, value: object) -> object:
        # Otherwise `true` would be group 1, and another kind two faults of no key in the file.
        good = isinstance(value, str) and value != ""
        if isinstance(value, int) and not isinstance(value, bool):
            good = 0 <= value < 2**32 - 1
        if value is not None and not good:
            raise ValueError("must be the name or the number of a group")
        return value

    @model_validator(mode="after")
    def _beyond_loopback_is_safe(self) -> GrpcConfig:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together: give both or neither")
        if self.client_ca_file and not self.cert_file:
            raise At(
                ("grpc", "client_ca_file"),
                "nobody can show a certificate without TLS: set cert_file and key_file, too",
            )
        if self.listen is None:
            for key in ("cert_file", "token_file"):
                if getattr(self, key):
                    raise At(
                        ("grpc", key),
                        "is of the TCP port: set listen, too (the Unix socket has its permissions)",
                    )
            return self
        host, _ = split_address(self.listen)
        if is_loopback(host):
            return self
        if self.cert_file is None:
            raise At(
                ("grpc", "listen"),
                f"{host} can be reached from outside: set cert_file and key_file for TLS, and "
                "client_ca_file or token_file, or listen on 127.0.0.1",
            )
        if self.client_ca_file is None and self.token_file is None:
            raise At(
                ("grpc", "listen"),
                f"{host} can be reached from outside, and everybody may do everything: set "
                "client_ca_file or token_file, or listen on 127.0.0.1",
            )
        return self
