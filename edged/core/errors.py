"""Every error that edged raises on purpose, and what each is called on the wire.

    EdgedError                    AWS code                       HTTP  gRPC
    +-- ConfigError               ValidationException            400   INVALID_ARGUMENT
    +-- InvalidInput              ValidationException            400   INVALID_ARGUMENT
    |   +-- BadImage              ValidationException            400   INVALID_ARGUMENT
    |   +-- BadDataset            ValidationException            400   INVALID_ARGUMENT
    +-- NotConfigured             ValidationException            400   UNIMPLEMENTED
    +-- NotFound                  ResourceNotFoundException      404   NOT_FOUND
    +-- WrongState                ConflictException              409   FAILED_PRECONDITION
    +-- Busy                      ThrottlingException            429   RESOURCE_EXHAUSTED
    +-- QuotaExceeded             ServiceQuotaExceededException  402   RESOURCE_EXHAUSTED
    +-- DeadlineExceeded          InternalServerException        500   DEADLINE_EXCEEDED
    +-- ShuttingDown              InternalServerException        500   UNAVAILABLE
    +-- ModelError                InternalServerException        500   INTERNAL
    |   +-- ParityError           InternalServerException        500   INTERNAL
    +-- EngineError               InternalServerException        500   INTERNAL
    |   +-- DeviceLost            InternalServerException        500   INTERNAL
    +-- CameraError               InternalServerException        500   INTERNAL
    +-- SinkError                 InternalServerException        500   INTERNAL
    +-- MissingDependency         InternalServerException        500   INTERNAL

A message is a sentence for the person who must act: what is wrong, where, what to do. It may be
shown to a client as it stands, so it never holds a stack trace or a secret.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple


class Resource(NamedTuple):
    """What an error is about, in the API's words: PROJECT, DATASET, MODEL, MODEL_PACKAGE_JOB."""

    kind: str
    id: str


class EdgedError(Exception):
    """The root: catch this to catch everything edged raises on purpose."""

    aws_code: ClassVar[str] = "InternalServerException"
    http_status: ClassVar[int] = 500
    grpc_code: ClassVar[str] = "INTERNAL"


class ConfigError(EdgedError):
    """The configuration cannot be used. `problems` holds one sentence per fault."""

    aws_code = "ValidationException"
    http_status = 400
    grpc_code = "INVALID_ARGUMENT"

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class InvalidInput(EdgedError):
    """A request or a file given by a person is not usable as it is.

    field: of a request, as in `bitmap.width`; empty when it is not known, or not of one alone.
    """

    def __init__(self, message: str = "", field: str = "") -> None:
        super().__init__(message)
        self.field = field

    aws_code = "ValidationException"
    http_status = 400
    grpc_code = "INVALID_ARGUMENT"


class BadImage(InvalidInput):
    """Bytes that are no picture, or a picture of the wrong size or kind."""


class BadDataset(InvalidInput):
    """A folder or manifest that cannot be trained on or judged."""


class NotConfigured(EdgedError):
    """What was asked for is turned off on this box; the message names the section to add."""

    aws_code = "ValidationException"
    http_status = 400
    grpc_code = "UNIMPLEMENTED"


class NotFound(EdgedError):
    """No model, camera or file of that name; `resource` where the API knows such a thing."""

    def __init__(self, message: str, resource: Resource | None = None) -> None:
        super().__init__(message)
        self.resource = resource

    aws_code = "ResourceNotFoundException"
    http_status = 404
    grpc_code = "NOT_FOUND"


class WrongState(EdgedError):
    """The operation is legal, but not in the state the thing is in."""

    def __init__(self, message: str, resource: Resource | None = None) -> None:
        super().__init__(message)
        self.resource = resource

    aws_code = "ConflictException"
    http_status = 409
    grpc_code = "FAILED_PRECONDITION"


class Busy(EdgedError):
    """The inference queue is full; the caller may try again."""

    aws_code = "ThrottlingException"
    http_status = 429
    grpc_code = "RESOURCE_EXHAUSTED"


class QuotaExceeded(EdgedError):
    """A stated limit (memory, units) does not hold what was asked for; `quota` is its code."""

    def __init__(self, message: str, quota: str, resource: Resource | None = None) -> None:
        super().__init__(message)
        self.quota = quota
        self.resource = resource

    aws_code = "ServiceQuotaExceededException"
    http_status = 402
    grpc_code = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(EdgedError):
    """The caller's deadline passed before the work was done."""

    grpc_code = "DEADLINE_EXCEEDED"


class ShuttingDown(EdgedError):
    """The daemon is stopping and takes no new work."""

    grpc_code = "UNAVAILABLE"


class ModelError(EdgedError):
    """A model folder is missing, damaged or of an unknown format."""


class ParityError(ModelError):
    """An engine does not reproduce the scores that the trainer saw."""


class EngineError(EdgedError):
    """The inference runtime failed."""


class DeviceLost(EngineError):
    """The accelerator is in a state that only a new process leaves: the daemon must end."""


class CameraError(EdgedError):
    """A camera cannot be opened or stopped delivering."""


class SinkError(EdgedError):
    """A place where results go (broker, disk) refuses them."""


class MissingDependency(EdgedError):
    """A library that an extra installs is absent or broken; the message names the extra."""

    def __init__(
        self, library: str, extra: str, purpose: str, cause: BaseException | None = None
    ) -> None:
        """cause: what its import raised; that of another module means half an installation."""
        absent = isinstance(cause, ModuleNotFoundError) and (cause.name or "").startswith(library)
        if cause is None or absent:
            what = f"is not installed: pip install 'edged[{extra}]'"
        else:
            words = str(cause).strip().partition("\n")[0][:200]
            what = f"cannot be imported ({type(cause).__name__}: {words}): mend that, or uninstall "
            what += "it and whatever shares its folder, and install one anew"
        super().__init__(f"{purpose} needs {library}, which {what}")
        self.extra = extra
