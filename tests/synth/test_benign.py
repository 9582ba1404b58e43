"""Benign sources: folders, SIXray's lists, text lists, buckets; and `check`, the list of all that is wrong."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tests.conftest import cut_all, draw_scan, save, write_benign, write_labelled
from tests.synth.test_sources import write_masks

from segloc_synth.bank.labelled import read_labelled
from segloc_synth.cli import cli
from segloc_synth.files import as_path
from segloc_synth.sources.backgrounds import read_benign
from segloc_synth.sources.images import read_image
from segloc_synth.sources.listing import stems

CSV = """name,Gun,Knife
N0000001,-1,-1
N0000002,-1,0
N0000003,0,-1
P00001,1,-1
P00002,-1,-1
N0000004,-1,1
N0000009,-1,-1
"""


@pytest.fixture
def sixray(tmp_path: Path) -> Path:
    root = tmp_path / "SIXray"
    for name in ("N0000001", "N0000002", "N0000003", "N0000004", "P00001", "P00002"):
        (root / "JPEGImage").mkdir(parents=True, exist_ok=True)
        save(root / "JPEGImage" / f"{name}.jpg", draw_scan(hash(name) % 100))
    (root / "ImageSet" / "10").mkdir(parents=True)
    for name in ("train", "test"):
        (root / "ImageSet" / "10" / f"{name}.csv").write_text(CSV)
    return root


def test_positives_of_sixray_are_no_backgrounds(sixray: Path) -> None:
    assert read_benign(sixray).relative == [f"JPEGImage/N000000{n}.jpg" for n in (1, 2, 3, 4)]
    assert len(read_benign(sixray / "JPEGImage").relative) == 4
    listed = read_benign(sixray / "ImageSet" / "10" / "train.csv")
    assert listed.path == sixray
    assert listed.relative == [
        "JPEGImage/N0000001.jpg",
        "JPEGImage/N0000002.jpg",
        "JPEGImage/N0000003.jpg",
        "JPEGImage/P00002.jpg",
    ]
    assert [problem.where() for problem in listed.problems] == ["train.csv N0000009"]
    shutil.copytree(sixray / "JPEGImage", sixray / "thumbs")
    assert read_benign(sixray / "ImageSet" / "10" / "train.csv").relative == listed.relative
    shutil.move(sixray / "JPEGImage", sixray / "big")
    with pytest.raises(click.ClickException, match=r"line 2: N0000001 may be big/N0000001.jpg or thumbs/N0000001.jpg"):
        read_benign(sixray / "ImageSet" / "10" / "train.csv")
    shutil.move(sixray / "big", sixray / "JPEGImage")
    shutil.rmtree(sixray / "thumbs")
    with pytest.raises(click.ClickException, match="--allow-test"):
        read_benign(sixray / "ImageSet" / "10" / "test.csv")
    shutil.copy(sixray / "ImageSet" / "10" / "test.csv", sixray / "ImageSet" / "10" / "latest.csv")
    assert read_benign(sixray / "ImageSet" / "10" / "latest.csv").fingerprint == listed.fingerprint
    assert read_benign(sixray / "ImageSet" / "10" / "test.csv", allow_test=True).fingerprint == listed.fingerprint
    (sixray / "ImageSet" / "10" / "odd.csv").write_text("name,Gun\nN0000001,yes\nN0000002,-1\n")
    with pytest.raises(click.ClickException, match=r"odd\.csv, line 2: "):
        read_benign(sixray / "ImageSet" / "10" / "odd.csv")


def test_a_plain_folder_keeps_names_that_begin_with_p(tmp_path: Path) -> None:
    for name in ("P001", "P002", "x"):
        (tmp_path / "bags" / name).mkdir(parents=True)
        save(tmp_path / "bags" / name / f"{name}.png", draw_scan(1))
    (tmp_path / "bags" / "._x.png").write_bytes(b"junk")
    shutil.copy(tmp_path / "bags" / "x" / "x.png", tmp_path / "bags" / "x" / "x.jpg")
    source = read_benign(tmp_path / "bags")
    assert stems(source.relative) == ["P001/P001", "P002/P002", "x/x.jpg", "x/x.png"]
    assert source.open_path(0) == tmp_path / "bags" / "P001" / "P001.png"


def test_a_link_upwards_ends(tmp_path: Path) -> None:
    write_benign(tmp_path / "bags")
    (tmp_path / "bags" / "again").symlink_to(tmp_path / "bags")
    (tmp_path / "linked").symlink_to(tmp_path / "bags")
    assert len(read_benign(tmp_path / "bags").relative) == 5
    assert len(read_benign(tmp_path / "linked").relative) == 5


def test_text_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_benign(tmp_path / "bags")
    (tmp_path / "list.txt").write_text(f"# mine\nbags/N0000002.png\n\n{folder}/N0000001.png\nbags/N0000002.png\n")
    source = read_benign(tmp_path / "list.txt")
    assert source.relative == ["bags/N0000001.png", "bags/N0000002.png"]
    monkeypatch.chdir(tmp_path)  # absolute names in a list that is named by a relative path
    assert read_benign(Path("list.txt")).relative == source.relative
    for line, words in (
        ("bags/none.png", "line 1: .*no such file"),
        ("bags/N0000001.png\n/etc/hosts", "line 2: /etc/hosts does not lie below"),
        ("../x", "not"),
    ):
        (tmp_path / "wrong.txt").write_text(f"{line}\n")
        with pytest.raises(click.ClickException, match=words):
            read_benign(tmp_path / "wrong.txt")
    (tmp_path / "lists").mkdir()
    away = tmp_path / "lists" / "full.txt"  # full paths of elsewhere, all of them
    away.write_text(f"{folder}/N0000002.png\n{folder}/N0000001.png\n")
    assert read_benign(away).relative == ["N0000001.png", "N0000002.png"] and read_benign(away).path == folder


@pytest.mark.parametrize("name", ["hidden", "Test/bags"])
def test_benign_scans_of_a_test_split_are_refused(tmp_path: Path, name: str) -> None:
    folder = write_benign(tmp_path / "set" / name)
    (folder.parent / "list.txt").write_text(f"{folder.name}/N0000000.png\n{folder.name}/N0000001.png\n")
    (tmp_path / "full.txt").write_text(f"{folder}/N0000000.png\n{folder}/N0000001.png\n")
    (tmp_path / "lists").mkdir()
    elsewhere = (tmp_path / "full.txt").rename(tmp_path / "lists" / "full.txt")
    for path in (tmp_path / "set", folder.parent / "list.txt", elsewhere):
        with pytest.raises(click.ClickException, match=r"folder of a test split.*--allow-test") as error:
            read_benign(path)
        assert str(folder) in error.value.message
        assert len(read_benign(path, allow_test=True).relative) >= 2


def test_a_folder_that_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    folder = write_benign(tmp_path / "bags")
    folder.chmod(0)
    try:
        with pytest.raises(click.ClickException, match="may not be read"):
            read_benign(folder)
    finally:
        folder.chmod(0o755)


@pytest.fixture
def bucket(s3: Any) -> str:
    """URL of an empty bucket."""
    s3.create_bucket(Bucket="bags")
    return "s3://bags"


def test_sources_in_a_bucket_are_those_of_the_folder(bucket: str, sources: tuple[Path, Path], tmp_path: Path) -> None:
    import s3fs

    remote = s3fs.S3FileSystem()
    remote.put(str(sources[0]), "bags/labelled", recursive=True)
    remote.put(str(sources[1]), "bags/benign", recursive=True)
    here, there = read_benign(sources[1]), read_benign(as_path(f"{bucket}/benign"))
    assert (there.relative, there.fingerprint) == (here.relative, here.fingerprint)
    assert (read_image(there.open_path(0))[0] == read_image(here.open_path(0))[0]).all()
    near, far = read_labelled(sources[0]), read_labelled(as_path(f"{bucket}/labelled"))
    assert far.fingerprint == near.fingerprint
    ours, theirs = (cut_all(source, 96, tmp_path)[0] for source in (near, far))
    assert list(ours) == list(theirs)
    assert all((ours[name].layers == theirs[name].layers).all() for name in ours)
    for url in ("s3://absent/benign", f"{bucket}/absent"):
        for read in (read_benign, read_labelled):
            with pytest.raises(click.ClickException, match="no such"):
                read(as_path(url))


def test_a_store_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/bags/a.png", b"x")
    memory.pipe("/bags/b.png", b"x")
    path = as_path("memory://bags")
    assert read_benign(path).relative == ["a.png", "b.png"]

    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("Could not connect\nto the endpoint")

    with monkeypatch.context() as patch, pytest.raises(click.ClickException) as error:
        patch.setattr(type(memory), "find", fail)
        read_benign(path)
    assert error.value.message == f"{path}: cannot be reached (Could not connect to the endpoint)"
    memory.rm("/bags", recursive=True)


def run_check(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["check", *(str(arg) for arg in args), "--workers", "1"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


def test_check_of_good_data_is_quiet(sources: tuple[Path, Path]) -> None:
    code, text = run_check(sources[0])
    assert code == 0
    assert "6 images, 12 objects (Knife 6, Ring 6)" in text
    assert "no problem" in text
    assert run_check(sources[1])[0] == 0


def test_check_lists_everything_once(tmp_path: Path) -> None:
    file = write_labelled(tmp_path / "set", 9)
    images = file.parent / "images"
    data = json.loads(file.read_text())
    names = [image["file_name"] for image in data["images"]]
    (images / names[1]).write_bytes(b"")
    (images / names[2]).unlink()
    (images / names[3]).write_bytes((images / names[3]).read_bytes()[:200])
    Image.open(images / names[4]).resize((50, 40)).save(images / names[4])
    data["images"][5]["file_name"] = "copy.png"
    shutil.copy(images / names[0], images / "copy.png")
    data["annotations"][0]["bbox"] = [-50, 10, 60, 60]
    data["annotations"][1]["category_id"] = 77
    data["annotations"][12]["segmentation"] = [[5, 5, 50, 5, 5, 5]]
    data["annotations"][14]["id"] = data["annotations"][15]["id"]
    data["images"].append(data["images"][8] | {"file_name": "x.png"})
    data["categories"].append({"id": 5, "name": "Gun"})
    file.write_text(json.dumps(data))
    code, text = run_check(file, "--json")
    assert code == 1
    report = json.loads(text)
    assert not report["fine"]
    counts = {problem["kind"]: (problem["count"], problem["fate"]) for problem in report["problems"]}
    assert counts == {
        "annotation of an unknown category": (1, "skipped"),
        "annotation whose id another has, renamed": (1, "used"),
        "box and mask that do not meet": (1, "skipped"),
        "box reaching outside its image, cut at the edge": (1, "used"),
        "class without an object": (1, "noted"),
        "image entry whose id another has": (1, "skipped"),
        "image file is damaged or no picture": (1, "skipped"),
        "image file is missing": (1, "skipped"),
        "image file of zero bytes": (1, "skipped"),
        "image of another size than its labels say": (1, "skipped"),
        "image of the same bytes as another": (1, "used"),
        "image without a label": (1, "noted"),
        "mask without area": (1, "skipped"),
    }
    code, text = run_check(file)
    assert code == 1
    assert "1 skipped: image file of zero bytes: scan 1 (a)" in text


def test_check_of_benign_scans(tmp_path: Path) -> None:
    folder = write_benign(tmp_path / "bags")
    shutil.copy(folder / "N0000001.png", folder / "N0000009.png")
    assert run_check(folder)[0] == 0
    Image.new("RGB", (100, 100), "white").save(folder / "empty.png")
    (folder / "zero.png").write_bytes(b"")
    code, text = run_check(folder, "--json")
    assert code == 1
    report = json.loads(text)
    assert report["kind"] == "benign"
    assert {problem["kind"]: problem["first"] for problem in report["problems"]} == {
        "image of the same bytes as another": ["N0000009.png (as N0000001.png)"],
        "scan without a bag": ["empty.png"],
        "image file of zero bytes": ["zero.png"],
    }
    assert run_check(tmp_path / "absent")[0] == 1


@pytest.mark.parametrize(("error", "kind"), [(FileNotFoundError, "is missing"), (PermissionError, "may not be read")])
def test_check_goes_on_behind_a_picture_that_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError], kind: str
) -> None:
    masks = write_masks(tmp_path / "set", "knife\nBall\n")
    benign = write_benign(tmp_path / "bags")
    open_picture = Image.open

    def refuse(path: Path) -> Image.Image:
        if path in (masks / "masks" / "scan1.png", masks / "images" / "scan2.png", benign / "N0000001.png"):
            raise error(str(path))
        return open_picture(path)

    monkeypatch.setattr(Image, "open", refuse)
    code, text = run_check(masks)
    assert (code, text.count(kind)) == (1, 2)
    assert f"1 skipped: mask file {kind}: scan1" in text
    assert f"1 skipped: image file {kind}: scan2" in text
    assert f"1 skipped: image file {kind}: N0000001.png" in run_check(benign)[1]
    with pytest.raises(error, match=str(masks / "masks" / "scan1.png")):
        cut_all(read_labelled(masks), 96, tmp_path)


def test_check_sees_a_benign_scan_as_build_does(tmp_path: Path) -> None:
    folder = write_benign(tmp_path / "bags")
    framed = np.zeros((400, 400, 3), np.uint8)
    framed[3:-3, 3:-3] = 255
    save(folder / "framed.png", framed)
    code, text = run_check(folder)
    assert (code, "1 skipped: scan without a bag: framed.png" in text) == (1, True)
