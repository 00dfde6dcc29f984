"""What a person may get wrong, on the command line: a sentence each, and nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edged.wire import imaging
from edged.wire.spec import check_model_file, read_spec
from tests.training.test_training import SIDE, part, write_set

SMALL = ("--side", "64")
HERE = Path(__file__).parents[2]


def edged(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edged.cli", *map(str, words)],
        capture_output=True, text=True, check=False, cwd=HERE,
    )  # fmt: skip


def refused(code: int, *words: object) -> str:
    """What a command that must fail says on standard error."""
    done = edged(*words)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def masked_set(root: Path, colour: tuple[int, int, int], extra: tuple[int, int, int]) -> Path:
    """A manifest of 12 normal and 6 masked parts; `extra` is a second colour in each mask."""
    write_set(root, 12, 6)
    lines = []
    for path in sorted((root / "normal").iterdir()):
        lines.append({"source-ref": str(path), "a": 0, "a-metadata": {"class-name": "normal"}})
    for path in sorted((root / "anomaly" / "blot").iterdir()):
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        image[10:20, 10:30] = colour[::-1]
        image[40:44, 40:60] = extra[::-1]
        mask = root / f"mask-{path.name}"
        imaging.write_png(mask, image)
        lines.append(
            {
                "source-ref": str(path),
                "a": 1,
                "a-metadata": {"class-name": "anomaly"},
                "m-ref": str(mask),
                "m-ref-metadata": {
                    "internal-color-map": {"1": {"class-name": "blot", "hex-color": "#FF0000"}}
                },
            }
        )
    manifest = root / "set.manifest"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    return manifest


def test_too_few_pictures(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", 3, 2)
    said = refused(2, "train", root, "--output", tmp_path / "model", *SMALL)
    assert "3 readable normal pictures are too few" in said and "at least 4" in said
    assert not (tmp_path / "model").exists()


def test_only_anomalies(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", 0, 12)
    said = refused(2, "train", root, "--output", tmp_path / "model", *SMALL)
    assert "normal" in said and not (tmp_path / "model").exists()


def test_pictures_that_cannot_be_read_are_named_and_the_others_used(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", 10, 0)
    good = (root / "normal" / "000.png").read_bytes()
    jpeg = imaging.encoded_jpeg(part(50, spoilt=False))
    (root / "normal" / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (root / "normal" / "empty.png").write_bytes(b"")
    (root / "normal" / "text.png").write_text("no picture")
    (root / "normal" / "line\nbreak.png").write_bytes(good[:-20])
    (root / "normal" / "loop.png").symlink_to(root / "normal" / "loop.png")
    done = edged("train", root, "--output", tmp_path / "model", *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["images"] == 10
    named = {Path(each["path"]).name for each in report["skipped"]}
    assert {"cut.jpg", "empty.png", "text.png", "line\nbreak.png"} <= named
    assert any("cannot be read and were not used" in words for words in report["warnings"])


def test_mixed_sizes_are_scaled_with_a_warning(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", 10, 0)
    imaging.write_png(root / "normal" / "wide.png", np.zeros((SIDE, 2 * SIDE, 3), np.uint8))
    imaging.write_png(root / "normal" / "tall.png", np.zeros((2 * SIDE, SIDE, 3), np.uint8))
    imaging.write_png(root / "normal" / "tiny.png", np.zeros((1, 1, 3), np.uint8))
    done = edged("train", root, "--output", tmp_path / "model", *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert any("3 different sizes (64x64, 128x64, 64x128)" in w for w in report["warnings"])
    assert "has 1x1 pixels; at least 16 a side" in report["skipped"][0]["reason"]


def test_a_mask_colour_without_a_class_is_named_and_background(tmp_path: Path) -> None:
    manifest = masked_set(tmp_path / "set", (255, 0, 0), (0, 255, 0))
    done = edged("train", manifest, "--output", tmp_path / "model", *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    said = [w for w in json.loads(done.stdout)["warnings"] if "#00FF00" in w]
    assert len(said) == 3 and "known: #FF0000" in said[0] and ".png" in said[0]


def test_a_mask_without_any_known_colour_is_refused(tmp_path: Path) -> None:
    manifest = masked_set(tmp_path / "set", (0, 0, 255), (0, 0, 0))
    said = refused(2, "train", manifest, "--output", tmp_path / "model", *SMALL)
    assert "shows none of the colours" in said and "#FF0000" in said
    assert not (tmp_path / "model").exists()


def test_a_defect_with_one_picture_and_a_class_with_one_mask_are_no_obstacle(
    tmp_path: Path,
) -> None:
    root = write_set(tmp_path / "set", 12, 6)
    (root / "anomaly" / "rare").mkdir()
    imaging.write_png(root / "anomaly" / "rare" / "one.png", part(77, spoilt=True))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:30, 20:30] = 255
    (root / "masks" / "rare").mkdir(parents=True)
    imaging.write_png(root / "masks" / "rare" / "one.png", mask)
    done = edged("train", root, "--output", tmp_path / "model", *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["anomaly"] == 7 and report["classes"] == []
    assert any("too few masks" in words and "rare" in words for words in report["warnings"])


FULL = """
set -e
mkdir -p "$KEPT"
mount -t tmpfs -o size="$1" none "$2"
cp -r "$3" "$2/model"
shift 3
set +e
"$@"
code=$?
find "$MODELS" -printf '%P\\n' >&2
cp -r "$MODELS/model/." "$KEPT"
exit $code
"""


def on_a_small_disk(folder: Path, size: str, model: Path, *words: object) -> tuple[str, Path]:
    """Run a command that must fail on a tmpfs that holds the model; its words, and the model."""
    unshare = shutil.which("unshare")
    probe = [str(unshare), "-rm", "mount", "-t", "tmpfs", "none", str(folder)]
    works = unshare and subprocess.run(probe, capture_output=True, check=False).returncode == 0
    if not works:
        if os.environ.get("EDGED_REQUIRE_ALL"):
            pytest.fail("no small disk: this kernel lets nobody mount a tmpfs in a namespace")
        pytest.skip("no small disk: this kernel lets nobody mount a tmpfs in a namespace")
    kept = folder.parent / "kept" / model.name
    command = [sys.executable, "-m", "edged.cli", *map(str, words)]
    done = subprocess.run(
        [str(unshare), "-rm", "sh", "-c", FULL, "sh", size, str(folder), str(model), *command],
        capture_output=True, text=True, check=False, cwd=HERE,
        env={**os.environ, "MODELS": str(folder), "KEPT": str(kept)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr, kept


def test_a_full_disk_leaves_the_old_model_whole_and_nothing_else(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", 12, 0)
    old = tmp_path / "old"
    assert edged("train", root, "--output", old, *SMALL).returncode == 0
    disk = tmp_path / "disk"
    disk.mkdir()
    taken = sum(path.stat().st_size for path in old.rglob("*") if path.is_file())
    said, kept = on_a_small_disk(
        disk, str(int(taken * 1.5)), old,
        "train", write_set(tmp_path / "set2", 12, 0, first=50), "--output", disk / "model",
        *SMALL,
    )  # fmt: skip
    assert f"{disk / 'model'}: cannot be written (No space left on device)" in said
    listed = {line.split("/")[0] for line in said.splitlines() if not line.startswith("edged:")}
    assert listed <= {"", "model"}, listed
    spec = read_spec(kept)
    assert spec == read_spec(old)
    check_model_file(kept / "model.onnx", spec.ref.sha256)


def test_a_full_disk_leaves_the_threshold_as_it_was(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", 12, 0)
    old, disk = tmp_path / "old", tmp_path / "disk"
    assert edged("train", root, "--output", old, *SMALL).returncode == 0
    disk.mkdir()
    taken = sum(-(-p.stat().st_size // 4096) * 4096 for p in old.rglob("*") if p.is_file())
    said, kept = on_a_small_disk(
        disk, str(taken), old, "threshold", disk / "model", "--value", "0.6", "--reason", "r"
    )
    assert "cannot be written (No space left on device)" in said
    assert ".part" not in said
    assert read_spec(kept) == read_spec(old)
