"""KmsKeyId: a keyring on the box, and models whose files nobody reads without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edged.cli.main import main
from edged.core.errors import InvalidInput, ModelError, NotFound
from edged.store.keyring import Keyring
from edged.store.scratch import Scratch
from edged.store.sealing import Closet, DataKey

ARN = "arn:aws:kms:us-east-1:123456789012:key/7d0b4a5e-line"


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keyring.json")


def test_a_key_is_found_by_its_name_and_by_an_arn_that_ends_with_it(ring: Keyring) -> None:
    made, alias = ring.create("7d0b4a5e-line"), ring.create("alias/parts")
    assert ring.find("7d0b4a5e-line") == made == ring.find(ARN)
    assert ring.find("arn:aws:kms:eu-west-1:123456789012:alias/parts") == alias
    for stranger in ("parts", "line", "arn:aws:kms:us-east-1:123456789012:key/other"):
        with pytest.raises(NotFound, match="edged keyring create"):
            ring.find(stranger)
    with pytest.raises(InvalidInput, match="has a key of that name"):
        ring.create("alias/parts")
    with pytest.raises(InvalidInput, match="is no KmsKeyId"):
        ring.create("no spaces")


def test_only_the_daemons_user_may_read_the_keys(ring: Keyring, tmp_path: Path) -> None:
    made = ring.create()
    path = tmp_path / "keyring.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert made.id in path.read_text() and repr(made.key) not in repr(made)
    path.chmod(0o640)
    with pytest.raises(ModelError, match="others may read the secrets"):
        ring.find(made.id)


def test_a_data_key_opens_with_its_master_and_for_its_model_only(ring: Keyring) -> None:
    master, other = ring.create("a").key, ring.create("b").key
    key = DataKey.new()
    wrapped = key.wrapped(master, "arn:model/1")
    assert DataKey.unwrapped(wrapped, master, "arn:model/1") == key
    for wrong, owner in ((other, "arn:model/1"), (master, "arn:model/2")):
        with pytest.raises(ModelError, match="does not open with its KmsKeyId"):
            DataKey.unwrapped(wrapped, wrong, owner)


def test_a_sealed_file_opens_whole_and_in_its_own_place_or_not_at_all(tmp_path: Path) -> None:
    closet = Closet(tmp_path, DataKey.new())
    closet.write("a", b"one good part")
    closet.write("b", b"another")
    assert b"good" not in (tmp_path / "a").read_bytes()
    assert closet.read("a") == b"one good part"
    whole = (tmp_path / "a").read_bytes()
    broken = [whole[:-1], whole[:20], b"", whole[:40] + b"x" + whole[41:], b"one good part"]
    for bad in [*broken, (tmp_path / "b").read_bytes()]:
        (tmp_path / "a").write_bytes(bad)
        with pytest.raises(ModelError, match="a: is damaged, or was not sealed"):
            closet.read("a")


def test_a_folder_goes_in_sealed_and_comes_out_open(tmp_path: Path) -> None:
    source, closet = tmp_path / "open", Closet(tmp_path / "closet", DataKey.new())
    (source / "golden").mkdir(parents=True)
    closet.root.mkdir()
    (source / "spec.json").write_bytes(b"{}")
    (source / "golden" / "1.png").write_bytes(b"picture")
    for _ in range(2):  # the second replaces the first
        closet.take_in(source, "model")
    stored = [p for p in closet.root.rglob("*") if p.is_file()]
    assert len(stored) == 2 and all(b"picture" not in p.read_bytes() for p in stored)
    closet.take_out("model", tmp_path / "out")
    assert (tmp_path / "out" / "golden" / "1.png").read_bytes() == b"picture"


def test_scratch_lies_in_memory_for_its_user_alone_and_is_emptied(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    place = scratch.place("hosted-1")
    assert place.parent.stat().st_mode & 0o777 == 0o700
    (place / "model.onnx").write_bytes(b"x")
    assert list(scratch.place("hosted-1").iterdir()) == []  # asked for anew, it is empty
    Scratch(tmp_path).empty()
    assert not place.parent.exists()
    scratch.remove("hosted-1")


def test_a_runtime_directory_on_a_disk_is_not_used_for_open_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))  # on a disk
    scratch = Scratch(tmp_path)
    assert not scratch.place("a").is_relative_to(tmp_path)
    scratch.empty()


def test_keys_are_made_listed_and_removed_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "edged.toml"
    config.write_text(f'state_dir = "{tmp_path / "state"}"\n')
    words = ["keyring", "--config", str(config), "--json"]
    assert main([*words, "create", "--id", ARN]) == 0
    assert json.loads(capsys.readouterr().out) == {"kms_key_id": ARN}
    assert main([*words, "create", "--id", ARN]) == 2
    assert main([*words, "list"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["keys"]
    assert listed["kms_key_id"] == ARN and "key" not in listed
    assert main([*words, "remove", ARN]) == 0
    assert main([*words, "remove", ARN]) == 1
    assert "see edged keyring list" in capsys.readouterr().err
