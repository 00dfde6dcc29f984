"""Masks make a segmentation model: classes, areas, a mask of the picture's size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.core.errors import BadDataset
from edged.core.types import DefectClass, Image, Prediction
from edged.engines import choose as engines
from edged.hosting.decide import decide
from edged.tools.judge import Judge, detect
from edged.training.data.dataset import read_dataset
from edged.training.fit import train
from edged.training.scorers.segments import coverage, lessons, truth
from edged.wire import imaging
from edged.wire.imaging import Decoded

HEIGHT, WIDTH = 128, 160
SPOT, CUT = DefectClass("spot", "#14A3B3"), DefectClass("cut", "#F76902")


def quiet(stage: str, done: int, total: int, **facts: object) -> None:
    """Progress that nobody looks at."""


def plate(number: int, kind: DefectClass | None) -> tuple[Image, Image]:
    """A plate with a ring, perhaps with a defect, and its mask."""
    rng = np.random.default_rng([number, 0 if kind is None else len(kind.name)])
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    ring = abs(np.hypot(y - 64, x - 80) - 40) < 4
    image = 150 - 60 * ring[..., None] + rng.normal(0, 3, (HEIGHT, WIDTH, 3))
    mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    top, left = rng.uniform(40, 88), rng.uniform(50, 110)
    where = np.zeros((HEIGHT, WIDTH), bool)
    if kind is SPOT:
        where = np.hypot(y - top, x - left) < 12
        image[where] = (40, 40, 60)
    elif kind is CUT:
        where = (abs(y - top) < 5) & (abs(x - left) < 26)
        image[where] = (235, 240, 250)
    if kind is not None:
        mask[where] = tuple(bytes.fromhex(kind.color[1:])[::-1])
    return np.clip(image, 0, 255).astype(np.uint8), mask


def line(name: str, kind: DefectClass | None, colour: str | None = None) -> str:
    label = "normal" if kind is None else "anomaly"
    meta = {"class-name": label, "type": "groundtruth/image-classification"}
    entry: dict[str, Any] = {
        "source-ref": name,
        "anomaly-label": int(kind is not None),
        "anomaly-label-metadata": meta,
    }
    if kind is not None:
        classes = {"1": {"class-name": kind.name, "hex-color": colour or kind.color}}
        entry["anomaly-mask-ref"] = f"mask-{name}"
        entry["anomaly-mask-ref-metadata"] = {
            "internal-color-map": classes,
            "type": "groundtruth/semantic-segmentation",
        }
    return json.dumps(entry)


def manifest(folder: Path, spots: int = 8, cuts: int = 8, normal: int = 14) -> Path:
    lines = []
    kinds = [None] * normal + [SPOT] * spots + [CUT] * cuts
    for number, kind in enumerate(kinds):
        name = f"{number:02}.png"
        image, mask = plate(number, kind)
        imaging.write_png(folder / name, image)
        if kind is not None:
            imaging.write_png(folder / f"mask-{name}", mask)
        lines.append(line(name, kind))
    path = folder / "set.manifest"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def fit(path: Path, output: Path) -> dict[str, Any]:
    return train(
        read_dataset(path),
        output,
        name="plate",
        seed=0,
        extractor=engines.extractor,
        progress=quiet,
        side=128,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("plates")
    return folder / "model", fit(manifest(folder), folder / "model")


def test_classes_colours_and_figures_are_in_the_spec(trained: tuple[Path, dict[str, Any]]) -> None:
    _, report = trained
    assert [(c["name"], c["color"]) for c in report["classes"]] == [
        ("cut", CUT.color),
        ("spot", SPOT.color),
    ]
    assert all(c["iou"] > 0.4 for c in report["classes"])
    assert report["metrics"]["pixel_auroc"] > 0.95


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("kind", [SPOT, CUT])
def test_a_new_defect_is_marked_with_its_class_where_it_is(
    trained: tuple[Path, dict[str, Any]], engine: str, kind: DefectClass
) -> None:
    image, drawn = plate(700, kind)
    with Judge(trained[0], engine) as judge:
        verdict = judge(Decoded.whole(image))
        classes = judge.spec.classes
    assert verdict.is_anomalous
    assert verdict.mask is not None and verdict.mask.shape == (HEIGHT, WIDTH)
    assert [a.name for a in verdict.anomalies] == ["background", kind.name]
    assert verdict.anomalies[0].color == "#FFFFFF"
    assert verdict.anomalies[1].color == kind.color
    assert sum(a.area for a in verdict.anomalies) == pytest.approx(1.0)
    found = verdict.mask == 1 + [c.name for c in classes].index(kind.name)
    real = drawn.any(axis=2)
    assert (found & real).sum() / (found | real).sum() > 0.4


def test_a_good_part_has_a_mask_too_and_it_is_all_background(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    image, _ = plate(701, None)
    with Judge(trained[0], "onnxruntime") as judge:
        verdict = judge(Decoded.whole(image))
    assert not verdict.is_anomalous
    assert verdict.mask is not None and not verdict.mask.any()
    assert [(a.name, a.area) for a in verdict.anomalies] == [("background", 1.0)]
    assert verdict.heatmap is not None and verdict.heatmap.max() < 1.0


@pytest.fixture
def large(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> tuple[Path, Path]:
    """The model as if it had learned from pictures eight times as large, and such a JPEG."""
    folder = tmp_path / "large"
    shutil.copytree(trained[0], folder)
    spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    spec["image_size"] = {"height": 8 * HEIGHT, "width": 8 * WIDTH}
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    enlarged = np.ascontiguousarray(plate(700, SPOT)[0].repeat(8, axis=0).repeat(8, axis=1))
    path = tmp_path / "plate.jpg"
    path.write_bytes(imaging.encoded_jpeg(enlarged))
    return folder, path


def test_a_large_jpeg_is_decoded_smaller_and_marked_and_drawn_at_its_own_size(
    large: tuple[Path, Path], tmp_path: Path
) -> None:
    model, path = large
    with Judge(model, "onnxruntime") as judge:
        picture = judge.read(path)
        verdict, whole = judge(picture), judge(Decoded.whole(imaging.read(path)))
    assert picture.image.shape[0] < picture.shape[0] == 8 * HEIGHT
    assert verdict.mask is not None and verdict.mask.shape == (8 * HEIGHT, 8 * WIDTH)
    assert verdict.score == pytest.approx(whole.score, abs=0.02)
    real = plate(700, SPOT)[1].any(axis=2).repeat(8, axis=0).repeat(8, axis=1)
    assert ((verdict.mask > 0) & real).sum() / ((verdict.mask > 0) | real).sum() > 0.4
    (found,) = detect(model, [path], "onnxruntime", tmp_path / "drawn")
    assert found["score"] == verdict.score
    for kind in ("heatmap", "mask"):
        assert imaging.read(Path(found[kind])).shape == (8 * HEIGHT, 8 * WIDTH, 3), kind
    (alone,) = detect(model, [path], "onnxruntime", None)
    assert alone["score"] == found["score"]


def test_a_large_jpeg_is_refused_by_its_own_size_even_if_it_is_decoded_at_the_trainings(
    large: tuple[Path, Path],
) -> None:
    spec = json.loads((large[0] / "spec.json").read_text(encoding="utf-8"))
    with Judge(large[0], "onnxruntime") as judge:
        height, width = judge.read(large[1]).image.shape[:2]
    spec["image_size"] = {"height": height, "width": width}
    (large[0] / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    (found,) = detect(large[0], [large[1]], "onnxruntime", None)
    assert f"has {8 * WIDTH}x{8 * HEIGHT} pixels" in found["error"]
    assert f"trained on {width}x{height}" in found["error"]


def test_a_class_with_too_few_masks_is_judged_but_not_marked(tmp_path: Path) -> None:
    report = fit(manifest(tmp_path, spots=8, cuts=1), tmp_path / "model")
    assert [c["name"] for c in report["classes"]] == ["spot"]
    assert any("too few masks (under 5) to tell apart: cut" in w for w in report["warnings"])


def test_a_mask_of_another_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    imaging.write_png(tmp_path / "mask-20.png", np.full((64, 80, 3), 20, np.uint8))
    with pytest.raises(BadDataset, match=r"mask-20.png: the mask has 80x64 pixels.*160x128"):
        fit(path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_mask_without_any_colour_of_its_map_is_named_with_the_colours(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    imaging.write_png(tmp_path / "mask-20.png", np.full((HEIGHT, WIDTH, 3), 255, np.uint8))
    with pytest.raises(BadDataset, match=r"mask-20.png: shows none of the colours.*#14A3B3"):
        fit(path, tmp_path / "model")


def test_a_class_with_two_colours_is_refused(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[-1] = line("29.png", CUT, "#BD10E0")
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(BadDataset, match="class cut has colour #BD10E0 here and #F76902 elsewhere"):
        fit(path, tmp_path / "model")


def test_coverage_is_the_share_of_each_position_that_the_mask_covers(tmp_path: Path) -> None:
    mask = np.zeros((32, 48, 3), np.uint8)
    mask[:8, :8] = tuple(bytes.fromhex(SPOT.color[1:])[::-1])
    mask[8:16, :4] = tuple(bytes.fromhex(SPOT.color[1:])[::-1])
    imaging.write_png(tmp_path / "mask-a.png", mask)
    imaging.write_png(tmp_path / "a.png", mask)
    (tmp_path / "set.manifest").write_text(line("a.png", SPOT), encoding="utf-8")
    sample = read_dataset(tmp_path / "set.manifest").samples[0]
    share = coverage(truth(sample, [SPOT]), (4, 6)).reshape(4, 6)
    assert share[0, 0] == 1.0 and share[1, 0] == 0.5
    assert share.sum() == 1.5


def test_the_surest_class_takes_a_pixel_and_what_nobody_claims_is_background() -> None:
    classes = np.zeros((1, 2, 2, 2), np.float32)
    classes[0, 0] = [[0.9, 0.6], [0.2, 0.1]]
    classes[0, 1] = [[0.3, 0.8], [0.4, 0.1]]
    prediction = Prediction(np.array([0.1], np.float32), None, classes)
    verdict = decide(prediction, 0, 0.5, (SPOT, CUT), (2, 2))
    assert verdict.mask is not None
    assert verdict.mask.tolist() == [[1, 2], [0, 0]]
    assert [(a.name, a.area) for a in verdict.anomalies] == [
        ("background", 0.5),
        ("spot", 0.25),
        ("cut", 0.25),
    ]
    assert not verdict.is_anomalous, "mask and verdict are two answers"


def test_a_defect_thinner_than_a_position_teaches_by_what_it_covers_most() -> None:
    share = np.zeros((6, 1), np.float32)
    share[2:4, 0] = (0.1, 0.05)
    taught = lessons(
        np.arange(12, dtype=np.float32).reshape(6, 2),
        share,
        share[:, 0] > 0,
        (2, 3),
        10,
        np.random.default_rng(0),
    )
    assert taught.covered[:, 0].sum() == 1, "the position that is covered most"
    assert len(taught.rows) == 1 + 4, "the other touched one teaches neither defect nor background"


def test_an_all_black_mask_is_named(tmp_path: Path) -> None:
    for number in range(6):
        image, _ = plate(number, None)
        (tmp_path / "normal").mkdir(exist_ok=True)
        imaging.write_png(tmp_path / "normal" / f"{number}.png", image)
        image, mask = plate(number, SPOT)
        for folder, picture in (("anomaly/spot", image), ("masks/spot", mask)):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            imaging.write_png(tmp_path / folder / f"{number}.png", picture)
    assert [c["name"] for c in fit(tmp_path, tmp_path / "model")["classes"]] == ["spot"]
    imaging.write_png(tmp_path / "masks/spot/3.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(BadDataset, match=r"3.png: is all black"):
        fit(tmp_path, tmp_path / "model")
