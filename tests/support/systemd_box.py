"""A real systemd, booted in namespaces of its own, to run one unit file as a machine would.

    with boot(unit_text, {"/opt/edged/bin/edged": "#!..."}) as box:
        box.systemctl("start", "edged.service")     # returns when READY=1 arrived
        box.event(10)                               # what the program sent to /run/box/events
        box.show("NRestarts")

The box has its own process ids, mounts, cgroups, /etc (a copy, with systemd/edged.sysusers.conf and
tmpfiles applied by systemd's own tools), /run, /opt and /var/lib. It shares the network. Python,
edged and its libraries are at /opt/edged/bin/python, and `/opt/edged/bin/edged` runs the command
line, unless `files` puts something else there. `/run/box` is a folder of the host: the unit's
output is in /run/box/log.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
SYSTEMD = Path("/lib/systemd/systemd")
BOOT_SECONDS = 30

DROP_IN = """
[Unit]
DefaultDependencies=no
[Service]
StandardOutput=append:/run/box/log
StandardError=append:/run/box/log
BindReadOnlyPaths=/run/box
"""
EMPTY_TARGET = "[Unit]\nDefaultDependencies=no\n"

INNER = r"""
set -e
shared=$1
mount --make-rprivate /
mkdir -p "$shared/etc"
cp -a /etc/. "$shared/etc/"
mount -t tmpfs tmpfs /opt
mkdir -p /opt/python /opt/edged/bin /opt/edged/source/edged /opt/edged/source/systemd \
    /opt/edged/packages
mount --bind "$PREFIX" /opt/python
# Not the whole checkout, which may lie in a folder that only its owner may enter.
mount --bind "$SOURCE/edged" /opt/edged/source/edged
mount --bind "$SOURCE/systemd" /opt/edged/source/systemd
mount --bind "$PACKAGES" /opt/edged/packages
mkdir /opt/box
mount --bind "$shared" /opt/box
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/systemd/system /run/box
mount --move /opt/box /run/box
mount --bind /run/box/etc /etc
mount -t tmpfs tmpfs /var/lib
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cp -a /run/box/files/. /
systemd-sysusers /opt/edged/source/systemd/edged.sysusers.conf
systemd-tmpfiles --create /opt/edged/source/systemd/edged.tmpfiles.conf
export container=edged-box NOTIFY_SOCKET=$BOOTED
exec /lib/systemd/systemd --unit=box.target --log-target=console --log-level=warning \
    --show-status=no
"""


def missing() -> str | None:
    """What this machine lacks to boot a box, or None."""
    if os.geteuid() != 0:
        return "root"
    if not SYSTEMD.exists():
        return f"{SYSTEMD} (apt package systemd)"
    if shutil.which("unshare") is None:
        return "unshare (apt package util-linux)"
    probe = subprocess.run(
        [*UNSHARE, "mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    return f"namespaces with a cgroup2 ({probe.stderr.strip()})" if probe.returncode else None


UNSHARE = (
    *("unshare", "--fork", "--kill-child", "--pid", "--mount", "--mount-proc"),
    *("--cgroup", "--uts", "--ipc"),
)


class Box:
    """A booted systemd. `folder` is /run/box seen from outside."""

    def __init__(self, folder: Path, pid: int, events: socket.socket) -> None:
        self.folder = folder
        self._pid = pid
        self._events = events

    def run(self, *command: str, timeout: float = 60) -> str:
        """Run a command inside; its standard output. Raises CalledProcessError with the log."""
        done = subprocess.run(
            ["nsenter", f"--target={self._pid}", "--mount", "--pid", "--cgroup", *command],
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if done.returncode:
            raise subprocess.CalledProcessError(
                done.returncode, command, done.stdout, f"{done.stderr}\n{self.log}"
            )
        return done.stdout

    def systemctl(self, *words: str, timeout: float = 60) -> str:
        """`start` returns when a Type=notify service has said READY, `stop` when it is gone."""
        return self.run("systemctl", *words, timeout=timeout)

    def show(self, *properties: str, unit: str = "edged.service") -> dict[str, str]:
        """Properties of a unit."""
        names = ",".join(properties)
        lines = self.systemctl("show", unit, f"--property={names}").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def event(self, timeout: float) -> str:
        """The next datagram that a program in the box sent to /run/box/events."""
        self._events.settimeout(timeout)
        return self._events.recv(4096).decode()

    @property
    def log(self) -> str:
        """What the unit and systemd itself wrote so far."""
        logs = (self.folder / "log", self.folder / "console")
        return "\n".join(p.read_text("utf-8", "replace") for p in logs if p.exists())


@contextlib.contextmanager
def boot(unit_text: str, files: Mapping[str, str]) -> Iterator[Box]:
    """Boot a systemd that has `unit_text` as edged.service, not started, and `files` (path: text).

    A file that begins with `#!` may be executed. Ask `missing()` first.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edged-box-")))
        folder.chmod(0o755)
        _write(folder / "files", _files(unit_text, files))
        (folder / "log").touch()
        (folder / "log").chmod(0o666)
        events = stack.enter_context(_listen(str(folder / "events")))
        (folder / "events").chmod(0o666)
        booted = stack.enter_context(_listen(f"\0edged-box-{os.getpid()}-{folder.name}"))
        console = stack.enter_context((folder / "console").open("wb"))
        process = subprocess.Popen(
            [*UNSHARE, "/bin/sh", "-c", INNER, "inner", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            env={
                "PATH": os.defpath + ":/usr/sbin:/sbin",
                "PREFIX": sys.base_prefix,
                "SOURCE": str(ROOT),
                "PACKAGES": sysconfig.get_paths()["purelib"],
                "BOOTED": f"@edged-box-{os.getpid()}-{folder.name}",
            },
        )
        stack.callback(process.wait)
        stack.callback(process.kill)  # its first child, the box's init, dies with it
        box = Box(folder, 0, events)
        try:
            while b"READY=1" not in booted.recv(4096):
                continue
        except TimeoutError:
            raise AssertionError(f"systemd did not come up:\n{box.log}") from None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield Box(folder, int(children[0]), events)


def _listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(address)
    listener.settimeout(BOOT_SECONDS)
    return listener


def _files(unit_text: str, files: Mapping[str, str]) -> dict[str, str]:
    python = f"/opt/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    paths = "/opt/edged/source:/opt/edged/packages"
    script = "import sys; from edged.cli.main import main; sys.exit(main())"
    units = "/run/systemd/system"
    return {
        "/opt/edged/bin/python": "#!/bin/sh\n"
        f"export PYTHONPATH={paths} LD_LIBRARY_PATH=/opt/python/lib PYTHONDONTWRITEBYTECODE=1\n"
        f'exec {python} "$@"\n',
        "/opt/edged/bin/edged": "#!/bin/sh\n"
        f'exec /opt/edged/bin/python -c {shlex.quote(script)} "$@"\n',
        f"{units}/edged.service": unit_text,
        f"{units}/edged.service.d/50-box.conf": DROP_IN,
        **{
            f"{units}/{name}.target": EMPTY_TARGET
            for name in ("box", "network-online", "time-sync")
        },
        **files,
    }


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
