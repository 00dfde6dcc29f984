"""A model folder as one signed file, and back: how a trained model travels to another box.

Owns the form: a zip of the model folder, `recipe.json` (a Greengrass component's words on it),
`manifest.json` (what it is, and the sha256 of every file) and `signature` (Ed25519, over the
manifest's bytes, with the signer's public key). The one home of `cryptography`'s signatures.

What is unpacked was named in a manifest that a trusted key signed; nothing else is, so neither a
path that leads out nor a file too many can arrive.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edged.core.errors import InvalidInput, MissingDependency, ModelError
from edged.store import private

FORMAT = 1
MANIFEST, SIGNATURE, RECIPE = "manifest.json", "signature", "recipe.json"
MODEL = "model/"
LARGEST = 2 * 1024 * 1024 * 1024
LARGEST_MANIFEST = 4 * 1024 * 1024
SHOWN = ("component", "component_version", "model_arn")
DAMAGED = (
    zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, KeyError, ValueError, TypeError,
    AttributeError, NotImplementedError,
)  # fmt: skip
"""What zipfile and a manifest of another form raise."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Of every file in a bundle: equal models make equal bundles."""


def _keys() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingDependency("cryptography", "rest", "Signing a bundle") from error
    return ed25519


def signing_key(path: Path) -> Any:
    """The box's private key; made, readable by its owner alone, when there is none."""
    ed25519 = _keys()
    try:
        with private.changing(path):
            if not path.exists():
                raw = ed25519.Ed25519PrivateKey.generate().private_bytes_raw()
                private.write_text(path, base64.b64encode(raw).decode("ascii") + "\n")
        return ed25519.Ed25519PrivateKey.from_private_bytes(base64.b64decode(path.read_bytes()))
    except (OSError, ValueError, InvalidInput) as error:
        raise ModelError(f"{path}: the signing key cannot be used ({error}).") from error


def public_text(key: Any) -> str:
    """The public half of a private key, as one word to hand to other boxes."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode("ascii")


def pack(folder: Path, facts: Mapping[str, Any], recipe: Mapping[str, Any], key: Any) -> bytes:
    """The bundle of a model folder. Raises ModelError when the folder cannot be read."""
    try:
        files = {
            MODEL + path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read ({error.strerror}).") from error
    if not files:
        raise ModelError(f"{folder}: is no model folder.")
    files[RECIPE] = _json(recipe)
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = _json({"format": FORMAT, **facts, "files": sums})
    signed = {"key": public_text(key), "signature": base64.b64encode(key.sign(manifest)).decode()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {MANIFEST: manifest, SIGNATURE: _json(signed), **files}.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def install(
    bundle: Path, output: Path, trusted: str | None, check: Callable[[Path], object]
) -> dict[str, Any]:
    """Unpack the model of a bundle as `output`, whole or not at all; SHOWN and `key`.

    trusted: the public key that must have signed it; None = whoever did. check: raises an
    EdgedError for a folder that is no model. Raises InvalidInput for a bundle that is damaged, of
    another signer, or in a place that is taken.
    """
    if output.exists():
        raise InvalidInput(f"{output}: is there already: choose another place or remove it.")
    manifest, files, signer = _read(bundle, trusted)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        try:
            for name, data in files.items():
                if name.startswith(MODEL):
                    path = scratch / name.removeprefix(MODEL)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
            check(scratch)
            scratch.chmod(0o755)
            scratch.rename(output)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise InvalidInput(f"{output}: cannot be written ({error.strerror}).") from error
    return {**manifest, "key": signer}


def _read(bundle: Path, trusted: str | None) -> tuple[dict[str, Any], dict[str, bytes], str]:
    """Manifest, files and signer of a bundle whose signature and sums are right."""
    try:
        with zipfile.ZipFile(bundle) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            if sum(sizes.values()) > LARGEST:
                raise InvalidInput(f"{bundle}: unpacks to more than {LARGEST} bytes.")
            if len(sizes) < len(archive.infolist()):
                raise InvalidInput(f"{bundle}: is no bundle of a model: a name stands in it twice.")
            if max(sizes[MANIFEST], sizes[SIGNATURE]) > LARGEST_MANIFEST:
                raise InvalidInput(f"{bundle}: is no bundle of a model, or is damaged.")
            raw = archive.read(MANIFEST)
            signed = json.loads(archive.read(SIGNATURE))
            signer = str(signed["key"])
            _check_signature(bundle, raw, signer, str(signed["signature"]), trusted)
            manifest = json.loads(raw)
            if manifest["format"] != FORMAT:
                raise InvalidInput(f"{bundle}: is of a form that this edged does not know.")
            sums = {str(name): str(digest) for name, digest in manifest["files"].items()}
            shown = {key: manifest[key] for key in SHOWN}
            files = {name: archive.read(name) for name in sums}
    except OSError as error:
        raise InvalidInput(f"{bundle}: cannot be read ({error.strerror}).") from error
    except DAMAGED as error:
        raise InvalidInput(f"{bundle}: is no bundle of a model, or is damaged ({error}).") from None
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != sums[name]:
            raise InvalidInput(f"{bundle}: {name} in it is damaged: copy the bundle again.")
        inner = name.removeprefix(MODEL)
        if any(step in ("", ".", "..") for step in inner.split("/")) or "\0" in name:
            raise InvalidInput(f"{bundle}: {name} leads out of it.")
    return shown, files, signer


def _check_signature(
    bundle: Path, manifest: bytes, signer: str, signature: str, trusted: str | None
) -> None:
    if trusted is not None and signer != trusted.strip():
        raise InvalidInput(
            f"{bundle}: was signed by {signer}, not by the key that you trust; nothing was "
            "unpacked."
        )
    try:
        public = _keys().Ed25519PublicKey.from_public_bytes(base64.b64decode(signer))
        public.verify(base64.b64decode(signature), manifest)
    except MissingDependency:
        raise
    except Exception:  # cryptography has a kind for each way to be wrong
        raise InvalidInput(
            f"{bundle}: its signature is wrong: it was changed after it was signed."
        ) from None


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode("utf-8") + b"\n"
