"""What a client shows to the broker, and how it knows the broker: id, password, certificates.

Reads the files named in the configuration, once, at start. It must not log or keep in any message
what the files hold, and it opens no connection.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from edged.config import MqttConfig
from edged.core.errors import SinkError

_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


@dataclass(frozen=True, slots=True)
class Access:
    """Ready to use; `password` and `tls` are None where the configuration names none."""

    client_id: str
    username: str | None
    password: str | None
    tls: ssl.SSLContext | None

    def __repr__(self) -> str:
        return f"Access(client_id={self.client_id!r}, username={self.username!r})"


def read(config: MqttConfig) -> Access:
    """Read what `config` names. Raises SinkError naming the file that cannot be used."""
    return Access(
        client_id=config.client_id or derived_id(config.prefix),
        username=config.username,
        password=_password(config.password_file) if config.password_file else None,
        tls=_tls(config) if config.tls else None,
    )


def derived_id(prefix: str) -> str:
    """A client id that stays the same on this machine and differs elsewhere: 22 characters.

    Two clients of one id throw each other out for ever, and MQTT 3.1.1 promises only 23.
    """
    machine = socket.gethostname()
    for path in _MACHINE_IDS:
        try:
            machine = path.read_text(encoding="ascii").strip() or machine
            break
        except (OSError, UnicodeDecodeError):
            continue
    # Hashed, because machine-id(5) asks not to show it to the network.
    return "edged-" + hashlib.sha256(f"edged mqtt {machine} {prefix}".encode()).hexdigest()[:16]


def _password(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise SinkError(
            f"The MQTT password file {path} cannot be read ({error.strerror}): "
            "make it readable for the user that runs edged."
        ) from error
    except UnicodeDecodeError as error:
        raise SinkError(f"The MQTT password file {path} is not UTF-8 text.") from error


def _tls(config: MqttConfig) -> ssl.SSLContext:
    named = config.ca_file
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.cert_file is not None:
            named = config.cert_file
            context.load_cert_chain(config.cert_file, config.key_file)
    except (OSError, ssl.SSLError) as error:
        what = f"with key {config.key_file} " if named is config.cert_file else ""
        raise SinkError(
            f"The MQTT certificate {named} {what}cannot be used ({error}): "
            "it must be a readable PEM file, and a key must belong to its certificate."
        ) from error
    return context
