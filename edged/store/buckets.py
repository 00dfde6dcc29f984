"""What `s3://bucket/key` means on this box: a folder, or an S3 service.

Owns the resolving and the words for what is not there. The one home of boto3. A folder's bucket is
a folder of that name; a key is a path in it, and can never lead out of it.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from edged.core.errors import EdgedError, InvalidInput, MissingDependency, NotFound

LARGEST = 1024 * 1024 * 1024
"""Bytes of one object that is read whole: the service's limit of a manifest."""
CHUNK = 1024 * 1024


S3_SECONDS = 600.0
"""For the whole of an object: one that trickles in would hold up all others."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Bytes that a whole object, and one line of it, may have."""

    whole: int = LARGEST
    line: int = LARGEST


class BucketError(EdgedError):
    """An S3 service that does not answer, or refuses."""


class Bucket(Protocol):
    """One bucket. Any thread; calls may take as long as disk or network do."""

    def read(self, key: str, version: str | None = None, most: int = LARGEST) -> bytes:
        """An object's bytes. Raises NotFound, InvalidInput, BucketError."""

    def lines(self, key: str, version: str | None, limit: Limit) -> Iterator[bytes]:
        """An object's lines without their ends, one after the other. Raises as `read` does."""

    def check(self, key: str) -> None:
        """Raise NotFound, InvalidInput when no object can be there, for all that is known here."""

    def reach(self) -> None:
        """Raise NotFound, InvalidInput, BucketError unless the bucket is there now."""

    def fetch(self, key: str, keep: Callable[[bytes], Path]) -> Path:
        """A file with the object: its own, or what `keep` makes of its bytes. Raises as `read`."""

    def write(self, key: str, data: bytes) -> None:
        """Make or replace an object, whole or not at all. Raises InvalidInput, BucketError."""


class FolderBucket:
    """A bucket that is a folder."""

    def __init__(self, name: str, root: Path) -> None:
        self._name = name
        self._root = root

    def read(self, key: str, version: str | None = None, most: int = LARGEST) -> bytes:
        """An object's bytes; a folder keeps no versions."""
        _check_version(version, self._shown(key))
        path = self._path(key)
        try:
            with path.open("rb") as file:
                data = file.read(most + 1)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFound(f"{self._shown(key)}: no such object.") from None
        except OSError as error:
            raise BucketError(f"{self._shown(key)}: cannot be read ({error.strerror}).") from error
        return _bounded(data, most, self._shown(key))

    def lines(self, key: str, version: str | None, limit: Limit) -> Iterator[bytes]:
        """The file's lines."""
        _check_version(version, self._shown(key))
        try:
            with self._path(key).open("rb") as file:
                yield from _lines(file.read, limit, self._shown(key))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFound(f"{self._shown(key)}: no such object.") from None
        except OSError as error:
            raise BucketError(f"{self._shown(key)}: cannot be read ({error.strerror}).") from error

    def check(self, key: str) -> None:
        """Whether it leads to a place in the folder."""
        self._path(key)

    def reach(self) -> None:
        """Whether the folder is there."""
        if not self._root.is_dir():
            raise NotFound(f"Bucket {self._name}: there is no folder {self._root} on this box.")

    def fetch(self, key: str, keep: Callable[[bytes], Path]) -> Path:
        """The object's own file."""
        path = self._path(key)
        if not path.is_file():
            raise NotFound(f"{self._shown(key)}: no such object.")
        return path

    def write(self, key: str, data: bytes) -> None:
        """Make or replace the file, synchronised."""
        path = self._path(key)
        part = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, part = tempfile.mkstemp(prefix=".edged-", dir=path.parent)
            os.fchmod(descriptor, 0o666 & ~_umask())  # others shall fetch what was delivered
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(part).replace(path)
        except OSError as error:
            if part:
                Path(part).unlink(missing_ok=True)
            raise BucketError(
                f"{self._shown(key)}: cannot be written ({error.strerror})."
            ) from error

    def _path(self, key: str) -> Path:
        steps = PurePosixPath(key).parts
        if not steps or ".." in steps or steps[0] == "/" or "\0" in key or key.endswith("/"):
            raise InvalidInput(f"{self._shown(key)}: is no key of an object in a folder.")
        path = self._root.joinpath(*steps)
        try:
            inside = path.resolve().is_relative_to(self._root.resolve())
        except (OSError, RuntimeError):
            inside = False
        if not inside:  # by a link that somebody laid there
            raise InvalidInput(f"{self._shown(key)}: leads out of its bucket.")
        return path

    def _shown(self, key: str) -> str:
        return f"s3://{self._name}/{key}"


class S3Bucket:
    """A bucket of an S3 service."""

    def __init__(self, name: str, client: Any) -> None:
        self._name = name
        self._client = client

    def read(self, key: str, version: str | None = None, most: int = LARGEST) -> bytes:
        """An object's bytes, of the newest version unless one is named."""
        shown = f"s3://{self._name}/{key}"
        with self._body(key, version, shown) as read:
            parts, size = [], 0
            while size <= most and (part := read(min(CHUNK, most + 1 - size))):
                parts.append(part)
                size += len(part)
            return _bounded(b"".join(parts), most, shown)

    def lines(self, key: str, version: str | None, limit: Limit) -> Iterator[bytes]:
        """The object's lines, while it comes in."""
        shown = f"s3://{self._name}/{key}"
        with self._body(key, version, shown) as read:
            yield from _lines(read, limit, shown)

    def check(self, key: str) -> None:
        """S3 takes every key."""

    def reach(self) -> None:
        """Whether the service has the bucket, and lets us see it."""
        try:
            self._client.head_bucket(Bucket=self._name)
        except Exception as error:
            raise self._refusal(error, f"s3://{self._name}") from error

    @contextmanager
    def _body(self, key: str, version: str | None, shown: str) -> Iterator[Callable[[int], bytes]]:
        """Reads an object, for S3_SECONDS at most."""
        more = {} if version is None else {"VersionId": version}
        until = time.monotonic() + S3_SECONDS

        def read(size: int) -> bytes:
            if time.monotonic() > until:
                raise BucketError(f"{shown}: did not come within {S3_SECONDS:g} s.")
            return bytes(body.read(size))

        try:
            found = self._client.get_object(Bucket=self._name, Key=key, **more)
            with found["Body"] as body:
                yield read
        except EdgedError:
            raise
        except Exception as error:
            raise self._refusal(error, shown) from error

    def fetch(self, key: str, keep: Callable[[bytes], Path]) -> Path:
        """A copy of the object, kept."""
        data = self.read(key)
        try:
            return keep(data)
        except OSError as error:
            raise BucketError(
                f"s3://{self._name}/{key}: no copy can be written ({error.strerror})."
            ) from error

    def write(self, key: str, data: bytes) -> None:
        """Make or replace an object."""
        try:
            self._client.put_object(Bucket=self._name, Key=key, Body=data)
        except Exception as error:
            raise self._refusal(error, f"s3://{self._name}/{key}") from error

    def _refusal(self, error: Exception, shown: str) -> EdgedError:
        code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
        if code == "NoSuchBucket":
            return NotFound(f"Bucket {self._name}: the S3 service has none of that name.")
        if code in ("NoSuchKey", "NoSuchVersion", "404"):
            return NotFound(f"{shown}: the S3 service has no such thing ({code}).")
        if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
            return BucketError(
                f"{shown}: edged has no keys for the S3 service: give it AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY in its environment."
            )
        if code in ("InvalidArgument", "AccessDenied", "403", "InvalidVersionId"):
            return InvalidInput(f"{shown}: the S3 service refuses ({code}).")
        return BucketError(f"{shown}: the S3 service fails ({code or type(error).__name__}).")


def _check_version(version: str | None, shown: str) -> None:
    if version is not None:
        raise InvalidInput(
            f"{shown}: VersionId is given, but this bucket is a folder, which keeps no versions: "
            "leave VersionId out."
        )


def _lines(read: Callable[[int], bytes], limit: Limit, shown: str) -> Iterator[bytes]:
    """What `read` gives, cut at line ends. Raises InvalidInput beyond the limit."""
    rest, size, number = b"", 0, 1
    while True:
        part = read(CHUNK)
        size += len(part)
        if size > limit.whole:
            raise InvalidInput(f"{shown}: has more than the {limit.whole} bytes that are allowed.")
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            _check_line(line, limit, f"{shown}:{number}")
            yield line
            number += 1
        _check_line(rest, limit, f"{shown}:{number}")
        if not part:
            yield rest
            return


def _check_line(line: bytes, limit: Limit, where: str) -> None:
    if len(line) > limit.line:
        raise InvalidInput(f"{where}: has more than the {limit.line} bytes that are allowed.")


def _umask() -> int:
    """The process's own; there is no way to read it without changing it, for a moment."""
    with _UMASK:
        mask = os.umask(0o077)
        os.umask(mask)
    return mask


_UMASK = threading.Lock()


def _bounded(data: bytes, most: int, shown: str) -> bytes:
    if len(data) > most:
        raise InvalidInput(f"{shown}: has more than the {most} bytes that are allowed.")
    return data


@dataclass(frozen=True, slots=True)
class S3Service:
    """Where buckets lie that are no folders. Keys come from boto3's own places when not given."""

    endpoint: str | None = None
    region: str | None = None
    path_style: bool = True


class Buckets:
    """Every bucket of this box. Any thread."""

    def __init__(self, root: Path, service: S3Service | None = None) -> None:
        """root: its folders, and links to others, are buckets. service: where all others are."""
        self._root = root
        self._client: Any = None if service is None else _client(service)

    def bucket(self, name: str) -> Bucket:
        """The bucket of that name. Raises NotFound."""
        path = self._root / name
        if name not in ("", ".", "..") and "/" not in name and path.is_dir():
            return FolderBucket(name, path)
        if self._client is not None:
            return S3Bucket(name, self._client)
        raise NotFound(f"Bucket {name}: there is no folder {path} on this box: make it.")

    def make(self, name: str) -> None:
        """Have a folder of that name unless the bucket is there. Raises BucketError."""
        try:
            if self._client is None:
                (self._root / name).mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise BucketError(
                f"Bucket {name}: its folder {self._root / name} cannot be made ({error.strerror})."
            ) from error


def _client(service: S3Service) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise MissingDependency("boto3", "rest", "An S3 service") from error
    style = {"addressing_style": "path"} if service.path_style else {}
    config = Config(
        s3=style, connect_timeout=5, read_timeout=30, retries={"max_attempts": 3},
    )  # fmt: skip
    return boto3.client(
        "s3",
        endpoint_url=service.endpoint,
        region_name=service.region or "us-east-1",
        config=config,
    )


def split(reference: str) -> tuple[str, str]:
    """`s3://bucket/key` -> (bucket, key). Raises InvalidInput."""
    bucket, slash, key = reference.removeprefix("s3://").partition("/")
    if not reference.startswith("s3://") or not bucket or not slash or not key:
        raise InvalidInput(f"{reference[:200]!r} is no reference: write s3://BUCKET/KEY.")
    return bucket, key
