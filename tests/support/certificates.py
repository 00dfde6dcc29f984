"""Certificates made by openssl, for the tests that need TLS."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest


def tool(name: str, package: str) -> str:
    """An executable, or skip the test (fail it when EDGED_REQUIRE_ALL=1)."""
    path = shutil.which(name)
    if path is None:
        missing = f"{name} (Debian package {package}) is not installed"
        if os.environ.get("EDGED_REQUIRE_ALL") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return path


def openssl(folder: Path, *arguments: str) -> None:
    command = [tool("openssl", "openssl"), *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)


class Papers(NamedTuple):
    """A certificate authority, and what it signed for a broker on 127.0.0.1 and for a client."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def papers_of(folder: Path, name: str) -> Papers:
    """A new authority's, in that folder."""
    _sign(folder, name)
    names = ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")
    return Papers(*(folder / each for each in names))


def _sign(folder: Path, name: str) -> None:
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", f"/CN={name}", "-days", "2"]
    usage = ["-addext", "keyUsage=critical,keyCertSign"]
    openssl(folder, "req", "-x509", *curve, *subject, *usage, "-keyout", "ca.key", "-out", "ca.pem")
    for who in ("server", "client"):
        (folder / f"{who}.ext").write_text(
            "subjectAltName=IP:127.0.0.1\n"
            "subjectKeyIdentifier=hash\n"
            "authorityKeyIdentifier=keyid\n",
            encoding="ascii",
        )
        subject = ["-subj", f"/CN={who}"]
        openssl(folder, "req", *curve, *subject, "-keyout", f"{who}.key", "-out", f"{who}.csr")
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"]
        files = ["-in", f"{who}.csr", "-extfile", f"{who}.ext", "-out", f"{who}.pem"]
        openssl(folder, "x509", "-req", *signing, *files)
