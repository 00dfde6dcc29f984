from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edged.core.errors import BadDataset
from edged.training.data.dataset import check_trainable, read_dataset
from tests.support.shared_data import shared_data


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"-")
    return path


def line(source: str, name: str | None = "normal", **more: object) -> str:
    entry: dict[str, object] = {"source-ref": source}
    if name is not None:
        entry["anomaly-label"] = 1
        entry["anomaly-label-metadata"] = {
            "class-name": name,
            "type": "groundtruth/image-classification",
        }
    return json.dumps({**entry, **more})


def manifest(folder: Path, *lines: str) -> Path:
    path = folder / "set.manifest"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_folder_with_normal_and_anomaly_is_read_with_defects_and_masks(tmp_path):
    touch(tmp_path / "normal/b.JPG")
    touch(tmp_path / "normal/shift-1/a.png")
    touch(tmp_path / "normal/notes.txt")
    touch(tmp_path / "anomaly/loose.png")
    touch(tmp_path / "anomaly/crack/c.png")
    touch(tmp_path / "anomaly/hole/d.jpg")
    mask = touch(tmp_path / "masks/crack/c.png")
    dataset = read_dataset(tmp_path)
    assert dataset.kind == "folders"
    found = [(s.path.name, s.is_anomalous, s.defect, s.mask) for s in dataset.samples]
    assert found == [
        ("b.JPG", False, None, None),
        ("a.png", False, None, None),
        ("c.png", True, "crack", mask),
        ("d.jpg", True, "hole", None),
        ("loose.png", True, None, None),
    ]


def test_mvtec_train_and_test_are_kept_apart(tmp_path):
    touch(tmp_path / "train/good/000.png")
    touch(tmp_path / "test/good/000.png")
    touch(tmp_path / "test/bent/000.png")
    mask = touch(tmp_path / "ground_truth/bent/000_mask.png")
    train, test = read_dataset(tmp_path, "train"), read_dataset(tmp_path, "test")
    assert [s.is_anomalous for s in train.samples] == [False]
    assert [(s.is_anomalous, s.defect, s.mask) for s in test.samples] == [
        (True, "bent", mask),
        (False, None, None),
    ]
    assert len(read_dataset(tmp_path).samples) == 3
    assert train.kind == "mvtec"


def test_the_tutorial_manifest_is_read_as_it_is():
    dataset = read_dataset(
        shared_data("cookies/getting-started/dataset-files/manifests/template.manifest")
    )
    assert (len(dataset.normal), len(dataset.anomalous)) == (31, 32)
    assert {s.defect for s in dataset.anomalous} == {"cracked"}
    assert all(s.mask and s.mask.is_file() and s.mask_colors for s in dataset.anomalous)
    assert all(s.mask is None for s in dataset.normal)


def test_a_real_folder_set_is_read_with_its_masks():
    dataset = read_dataset(shared_data("kolektor/test"))
    assert (len(dataset.normal), len(dataset.anomalous)) == (60, 50)
    assert all(s.mask and s.defect == "crack" for s in dataset.anomalous)


def test_the_class_name_decides_in_any_case_and_never_the_number(tmp_path):
    for name in "abcd":
        touch(tmp_path / f"{name}.jpg")
    path = manifest(
        tmp_path,
        line("a.jpg", "Anomaly"),
        line("b.jpg", "NORMAL", **{"anomaly-label": "1"}),
        "",
        line("c.jpg", "scratch"),
        line("d.jpg", None),
    )
    assert [s.is_anomalous for s in read_dataset(path).samples] == [True, False, None, None]


def test_any_label_name_is_understood_and_metadata_may_come_first(tmp_path):
    touch(tmp_path / "a.jpg")
    entry = {"auto-label-metadata": {"class-name": "Anomaly"}, "source-ref": "a.jpg"}
    path = manifest(tmp_path, json.dumps({**entry, "auto-label": 0}))
    assert read_dataset(path).samples[0].is_anomalous is True


def test_s3_references_are_found_by_the_tail_of_their_key(tmp_path):
    picture = touch(tmp_path / "images/normal/a.jpg")
    folder = tmp_path / "manifests"
    folder.mkdir()
    path = manifest(folder, line("s3://some-bucket/projects/x/images/normal/a.jpg"))
    assert read_dataset(path).samples[0].path.samefile(picture)


def test_masks_keep_the_colours_of_defects_only(tmp_path):
    touch(tmp_path / "a.jpg")
    touch(tmp_path / "m.png")
    classes = {
        "0": {"class-name": "BACKGROUND", "hex-color": "#ffffff"},
        "1": {"class-name": "crack", "hex-color": "#2ca02c"},
    }
    more = {
        "anomaly-mask-ref": "m.png",
        "anomaly-mask-ref-metadata": {"internal-color-map": classes},
    }
    sample = read_dataset(manifest(tmp_path, line("a.jpg", "anomaly", **more))).samples[0]
    assert (sample.mask, sample.mask_colors) == (tmp_path / "m.png", ("#2CA02C",))
    assert sample.defect == "crack"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["{nope"], r"set\.manifest:1: is not JSON"),
        (["[]"], r":1: is not a JSON object"),
        ([json.dumps({"x": 1})], r":1: has no source-ref"),
        ([line("a.jpg"), line("gone.jpg")], r":2: source-ref names gone\.jpg"),
        ([line("a.jpg"), line("a.jpg", "anomaly")], r":2: a\.jpg stands in line 1 already"),
        ([line("a.jpg"), line("s3://bucket/x/a.jpg")], r":2: a\.jpg stands in line 1 already"),
        (
            [line("a.jpg", "normal", **{"b-metadata": {"class-name": "anomaly"}})],
            r":1: says both normal and anomaly",
        ),
    ],
)
def test_a_bad_manifest_line_is_named(tmp_path, lines, words):
    touch(tmp_path / "a.jpg")
    with pytest.raises(BadDataset, match=words):
        read_dataset(manifest(tmp_path, *lines))


def test_a_mask_that_is_missing_is_named(tmp_path):
    touch(tmp_path / "a.jpg")
    more = {"m-ref": "m.png", "m-ref-metadata": {"internal-color-map": {}}}
    with pytest.raises(BadDataset, match=r":1: m-ref names m\.png"):
        read_dataset(manifest(tmp_path, line("a.jpg", "anomaly", **more)))


def test_forms_that_are_not_known_are_refused_with_the_known_ones(tmp_path):
    with pytest.raises(BadDataset, match="no such file or folder"):
        read_dataset(tmp_path / "gone")
    with pytest.raises(BadDataset, match=r"normal/.*train/good.*manifest"):
        read_dataset(tmp_path)
    touch(tmp_path / "test/normal/a.png")
    with pytest.raises(BadDataset, match="point at one of them"):
        read_dataset(tmp_path)


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "normal").mkdir()
    with pytest.raises(BadDataset, match="holds no pictures"):
        read_dataset(tmp_path)


def test_a_picture_is_no_manifest(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(BadDataset, match="is no manifest"):
        read_dataset(path)


def test_too_few_normal_pictures_are_refused_with_what_to_add():
    check_trainable(4, 0, "set")
    with pytest.raises(BadDataset, match="all 9 labelled pictures are anomalous"):
        check_trainable(0, 9, "set")
    with pytest.raises(BadDataset, match="add normal pictures until there are at least 4"):
        check_trainable(3, 9, "set")


def test_a_flat_folder_whose_names_say_what_they_are_is_read(tmp_path):
    touch(tmp_path / "test-normal-1.jpg")
    touch(tmp_path / "Test_Anomaly_2.PNG")
    touch(tmp_path / "README.txt")
    dataset = read_dataset(tmp_path)
    assert dataset.kind == "names"
    found = [(s.path.name, s.is_anomalous) for s in dataset.samples]
    assert found == [("Test_Anomaly_2.PNG", True), ("test-normal-1.jpg", False)]


@pytest.mark.parametrize("name", ["part-3.jpg", "abnormal-1.jpg", "normal-or-anomaly.jpg"])
def test_one_name_that_does_not_say_makes_the_flat_folder_no_data_set(tmp_path, name):
    touch(tmp_path / "normal-1.jpg")
    touch(tmp_path / name)
    with pytest.raises(BadDataset, match="is no data set"):
        read_dataset(tmp_path)


def test_a_pipe_with_a_picture_s_name_is_no_picture_in_any_form_of_folder(tmp_path):
    for folder, name in (("flat", "normal-1.jpg"), ("tree/normal", "1.jpg")):
        picture = touch(tmp_path / folder / name)
        os.mkfifo(picture.with_name("normal-2.jpg"))  # whoever opened it would wait for ever
        dataset = read_dataset(tmp_path / folder.split("/")[0])
        assert [s.path for s in dataset.samples] == [picture]


def test_a_manifest_without_a_line_is_told_to_name_pictures(tmp_path):
    with pytest.raises(BadDataset, match=r"set\.manifest: names no pictures"):
        read_dataset(manifest(tmp_path, ""))
