"""Metrics and logs."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from edged.config.base import Section, loopback_address


class MetricsConfig(Section):
    """Prometheus metrics."""

    listen: str = "127.0.0.1:9464"

    @field_validator("listen")
    @classmethod
    def _loopback(cls, value: str) -> str:
        return loopback_address(value) or value


class LogConfig(Section):
    """Logs go to standard error, for journald or a terminal."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    """auto = text on a terminal, JSON otherwise."""
