"""The Lookout for Vision API and its quotas."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from edged.config.base import Section, is_loopback, split_address


class RestConfig(Section):
    """The Lookout for Vision API."""

    listen: str = "127.0.0.1:8443"
    """`HOST:PORT`; beyond loopback only with a certificate, and with keys."""
    cert_file: Path | None = None
    """PEM; with it and its key the API speaks HTTPS."""
    key_file: Path | None = None
    anonymous: bool = False
    """Take requests without a signature: everybody on this machine may do everything."""
    buckets: Path | None = None
    """The folder whose folders are buckets; None = buckets/ in state_dir."""
    s3: bool = False
    """Look for buckets that are no folders in an S3 service, with boto3's own credentials."""
    s3_endpoint: str | None = None
    """Of a service that is not AWS, as MinIO; None = AWS."""
    s3_region: str | None = None
    units: int = Field(default=8, ge=1, le=256)
    """Inference units that all models of the API may have together."""
    calls_per_second: float = Field(default=5.0, ge=0, le=10000, allow_inf_nan=False)
    """Of each operation but DetectAnomalies, for each account; 0 = no limit."""
    training_memory_mb: int = Field(default=4096, ge=256)

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        split_address(value)
        return value

    @model_validator(mode="after")
    def _beyond_loopback_is_safe(self) -> RestConfig:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together: give both or neither")
        host, _ = split_address(self.listen)
        if is_loopback(host):
            return self
        if self.cert_file is None:
            raise ValueError(
                f"{host} can be reached from outside: set cert_file and key_file for HTTPS, or "
                "listen on 127.0.0.1"
            )
        if self.anonymous:
            raise ValueError(
                f"{host} can be reached from outside, and anonymous lets everybody do everything: "
                "set anonymous = false, or listen on 127.0.0.1"
            )
        return self


class Quotas(Section):
    """Limits of the API, with the defaults that its documentation gives."""

    projects: int = Field(default=100, ge=1)
    """Of an account in a region; the documentation has no number."""
    tags: int = Field(default=50, ge=1, le=200)
    """Of a resource."""
    trainings: int = Field(default=2, ge=1, le=64)
    """Models that may be in training, or wait for it, at once."""
    training_hours: float = Field(default=24.0, gt=0, allow_inf_nan=False)
    train_images: int = Field(default=16_000, ge=1)
    test_images: int = Field(default=4_000, ge=1)
    segmentation_train_images: int = Field(default=8_000, ge=1)
    segmentation_test_images: int = Field(default=800, ge=1)
    manifest_bytes: int = Field(default=1024 * 1024 * 1024, ge=1024)
    image_bytes: int = Field(default=8 * 1024 * 1024, ge=1024, le=12 * 1024 * 1024)
    least_side: int = Field(default=64, ge=16)
    most_side: int = Field(default=4096, le=16384)
    single_normal: int = Field(default=20, ge=0)
    """Labelled images that a single data set must have at least."""
    single_anomaly: int = Field(default=10, ge=0)
    train_normal: int = Field(default=10, ge=0)
    """Of the train data set beside a test data set."""
    test_normal: int = Field(default=10, ge=0)
    test_anomaly: int = Field(default=10, ge=0)
    labels: int = Field(default=100, ge=1)
    """Anomaly labels of a project."""
    labels_per_mask: int = Field(default=20, ge=1)
    single_per_label: int = Field(default=20, ge=0)
    """Images with that label and no other, in a single data set."""
    two_per_label: int = Field(default=10, ge=0)
    """The same, in each of two data sets."""
