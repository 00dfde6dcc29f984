"""Signed bundles, and the keys that sign and ask: whole or not at all, and nowhere else."""

from __future__ import annotations

import base64
import contextlib
import json
import multiprocessing
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edged.core.errors import InvalidInput, ModelError
from edged.store import bundle
from edged.store.credentials import Credentials
from edged.wire.spec import read_spec


def signed_bundle(tmp_path: Path, contents: dict[str, bytes], **changes: Any) -> Path:
    """A bundle of a key that nobody knows, whose manifest says what a test wants."""
    import hashlib

    key = bundle.signing_key(tmp_path / "signing.key")
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    facts = {"component": "c", "component_version": "1.0.0", "model_arn": "arn", **changes}
    manifest = json.dumps({"format": 1, "files": sums, **facts}).encode()
    signature = {
        "key": bundle.public_text(key),
        "signature": base64.b64encode(key.sign(manifest)).decode(),
    }
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", manifest)
        archive.writestr("signature", json.dumps(signature))
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    "name", ["model//{there}", "model/../x", "model/a/../../x", "model/./x", "/{there}", "model/"]
)
def test_nothing_of_a_bundle_lands_outside_its_folder(tmp_path: Path, name: str) -> None:
    there = tmp_path / "written"
    path = signed_bundle(tmp_path, {name.format(there=str(there).lstrip("/")): b"x"})
    with pytest.raises(InvalidInput, match="leads out of it"):
        bundle.install(path, tmp_path / "model", None, lambda _: None)
    assert not there.exists() and not (tmp_path / "model").exists()


def test_a_bundle_whose_model_is_none_leaves_nothing(tmp_path: Path) -> None:
    path = signed_bundle(tmp_path, {"model/spec.json": b"{}"})
    with pytest.raises(ModelError):
        bundle.install(path, tmp_path / "model", None, read_spec)
    assert not (tmp_path / "model").exists() and not list(tmp_path.glob(".model.*"))


def test_a_damaged_bundle_is_a_sentence_wherever_it_is_damaged(tmp_path: Path) -> None:
    files = {f"model/{n}": os.urandom(50) + bytes(200) for n in range(3)}
    path = signed_bundle(tmp_path, files)
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            bundle.install(path, tmp_path / f"m{at}", None, lambda _: None)
        except InvalidInput:
            refused += 1
    assert refused > len(whole) // 6
    for odd in ({"files": ["a"]}, {"files": None}, {"component": None}, {"format": 2}):
        changed = signed_bundle(tmp_path, files, **odd)
        with contextlib.suppress(InvalidInput):  # or it is good enough
            bundle.install(changed, tmp_path / "odd", None, lambda _: None)


def make_keys(path: str, count: int) -> None:
    keys = Credentials(Path(path))
    for _ in range(count):
        keys.create(["*"], ["*"])


def test_keys_made_by_two_processes_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    context = multiprocessing.get_context("spawn")
    makers = [context.Process(target=make_keys, args=(str(path), 10)) for _ in range(2)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join(60)
        assert maker.exitcode == 0
    assert len(Credentials(path).all()) == 20


def test_a_cut_off_signing_key_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    first = bundle.public_text(bundle.signing_key(path))
    assert bundle.public_text(bundle.signing_key(path)) == first
    assert path.stat().st_mode & 0o777 == 0o600 and not list(tmp_path.glob(".signing.key.[!l]*"))
