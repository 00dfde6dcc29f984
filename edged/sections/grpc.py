"""The gRPC front door."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from edged.sections.base import Section, loopback_address


class GrpcConfig(Section):
    """The Edge Agent and the results stream."""

    socket: Path | None = None
    """Unix socket; its permissions (0660) are the authentication."""
    listen: str | None = None
    """`127.0.0.1:PORT`; loopback only."""
    max_message_bytes: int = Field(default=32 * 1024 * 1024, ge=4 * 1024 * 1024)

    @field_validator("listen")
    @classmethod
    def _loopback(cls, value: str | None) -> str | None:
        return loopback_address(value)
