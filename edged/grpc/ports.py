"""Sockets and ports: binding them so that nobody is pushed aside, and saying why when it fails.

Owns addresses, socket files and their permissions. Must not know calls, nor who may make them:
`admission.py` gives the credentials.

gRPC binds to whatever it is told, takes over a socket file that somebody else listens on, and
keeps the reason of a failure to itself; hence the looks before and after.
"""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edged.config import split_address
from edged.core.errors import ConfigError, WrongState

MAX_PATH_BYTES = 107
SOCKET_MODE = 0o660


def options(max_message_bytes: int) -> list[tuple[str, int]]:
    """What every server of ours is made with; of the messages, in both directions."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # On, a second daemon would share the port silently and take half of the calls.
        ("grpc.so_reuseport", 0),
        # Who connects and says nothing holds a descriptor; the default lets it for two minutes.
        ("grpc.server_handshake_timeout_ms", 5_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]


def bind_port(server: Any, listen: str, credentials: Any = None) -> str:
    """Bind `host:port`, 0 = any free one; the bound address. Raises WrongState.

    credentials: of grpc, for TLS; None = as it is.
    """
    host, port = split_address(listen)
    shown = f"[{host}]" if ":" in host else host
    try:
        if credentials is None:
            bound = server.add_insecure_port(f"{shown}:{port}")
        else:
            bound = server.add_secure_port(f"{shown}:{port}", credentials)
    except RuntimeError:
        raise WrongState(f"grpc.listen: {listen} cannot be bound: {_why(host, port)}.") from None
    return f"{shown}:{bound}"


def _why(host: str, port: int) -> str:
    """The reason that gRPC keeps to itself, found by trying again."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "another process uses the port; stop it or choose another port"
        return error.strerror or str(error)
    return "it was in use a moment ago; try again"


def bind_socket(server: Any, path: Path, group: str | int | None = None) -> tuple[int, int]:
    """Bind a Unix socket that owner and group may use; what it is called by `inode`.

    group: of the socket file, by name or number; None = that of the process. Raises ConfigError,
    WrongState.
    """
    path = path.absolute()
    if len(bytes(path)) > MAX_PATH_BYTES:
        raise ConfigError(
            f"grpc.socket: {path} is longer than the {MAX_PATH_BYTES} bytes a socket's path may "
            "have: choose a shorter one."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        server.add_insecure_port(f"unix:{quote(str(path))}")
        if group is not None:  # first: until then only the process's own group may connect
            _give(path, group)
        path.chmod(SOCKET_MODE)
        return inode(path)
    except OSError as error:
        raise ConfigError(f"grpc.socket: {path} cannot be used: {error.strerror}.") from None
    except RuntimeError:
        raise ConfigError(
            f"grpc.socket: {path} cannot be bound: may edged write in its folder?"
        ) from None


def _clear(path: Path) -> None:
    """Remove a socket file that nobody answers any more; gRPC would take a live one, too."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise WrongState(
            f"grpc.socket: {path} is there and is no socket: remove it or choose another path."
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except (TimeoutError, BlockingIOError):
            pass  # somebody listens, and is too busy to answer
    raise WrongState(
        f"grpc.socket: {path} is in use by another process: stop it or choose another path."
    )


def _give(path: Path, group: str | int) -> None:
    try:
        number = group if isinstance(group, int) else grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(
            f"grpc.group: there is no group {group!r} on this machine: create it (groupadd), or "
            "name another."
        ) from None
    try:
        os.chown(path, -1, number, follow_symlinks=False)
    except OSError as error:
        raise ConfigError(
            f"grpc.group: {path} cannot be given to group {group!r} ({error.strerror}): make "
            "edged's user a member of it, or name another."
        ) from None


def inode(path: Path) -> tuple[int, int]:
    """The device and number of a file, which tell it from another of its name."""
    status = path.lstat()
    return status.st_dev, status.st_ino
