"""Benign scans made ready, kept in a bank that any number of processes fill, and never two of one bag in a pair."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import draw_scan, save, write_benign, write_labelled
from tests.synth.conftest import SIZE, Sources, build, content

from segloc_synth.bank import bank, prepare
from segloc_synth.bank.bank import READY, UNKNOWN, Backgrounds, Objects
from segloc_synth.bank.labelled import read_labelled
from segloc_synth.bank.prepare import prepare_backgrounds, prepare_objects
from segloc_synth.bank.scenes import fit_scan, without_frame
from segloc_synth.compose.plan import plan_pair
from segloc_synth.compose.sample import Materials, compose_pair, make_sample
from segloc_synth.config import Config
from segloc_synth.shards.format import ShardReader
from segloc_synth.sources.backgrounds import bag_mask, neighbours, read_benign
from segloc_synth.sources.problems import NEAR


def open_backgrounds(folder: Path, form: bank.Form = "raw") -> Backgrounds:
    return prepare_backgrounds(read_benign(folder), SIZE, form, 1)[1]


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache, and so a bank, of its own."""
    monkeypatch.setenv("SEGLOC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# Scans


@given(st.integers(0, 50), *[st.integers(0, 4)] * 4)
def test_black_frames_and_corrupt_rows_are_cut_off(seed: int, top: int, bottom: int, left: int, right: int) -> None:
    scan = draw_scan(seed, side=200)
    framed = cv2.copyMakeBorder(scan, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(12, 9, 20))
    assert np.array_equal(without_frame(framed), scan)
    spoilt = framed.copy()
    spoilt[len(framed) - bottom - 2 : len(framed) - bottom, ::2] = 0  # half of the last rows' pixels
    assert np.array_equal(without_frame(spoilt), scan[:-2])


def test_a_dark_bag_at_the_edge_is_no_frame() -> None:
    scan = np.full((200, 200, 3), 255, np.uint8)
    scan[:, :90] = 30
    scan[150:] = 30
    assert np.array_equal(without_frame(scan), scan)


def test_the_empty_belt_is_cut_off_and_two_bags_stay(tmp_path: Path) -> None:
    belt = np.full((400, 600, 3), 255, np.uint8)
    one = belt.copy()
    one[250:390, 30:180] = draw_scan(1)[:, :150][10:110, 12:128].mean((0, 1))
    two = one.copy()
    two[40:140, 450:590] = (60, 120, 90)
    shares = []
    for name, scan in (("one", one), ("two", two)):
        save(tmp_path / f"{name}.png", scan)
        scan, kinds = fit_scan(tmp_path / f"{name}.png", SIZE)
        assert scan is not None and not kinds
        picture, bag, _ = scan
        assert picture.shape == (SIZE, SIZE, 3)
        assert np.array_equal(bag, bag_mask(picture))
        shares.append(bag.mean())
        _, _, width, height = cv2.boundingRect(bag)
        assert max(width, height) > 0.85 * SIZE
        assert cv2.connectedComponents(bag)[0] - 1 == {"one": 1, "two": 2}[name]
    assert shares[0] > 0.7  # it would be 0.06 on the whole belt


# One bag in a pair


@pytest.fixture
def alike(tmp_path: Path) -> Path:
    """Eight scans: one bag four times (as it is, encoded again, mirrored, with noise), its neighbour, three others."""
    folder = tmp_path / "alike"
    folder.mkdir()
    bag = draw_scan(1)
    save(folder / "N0000100.png", bag)
    cv2.imwrite(str(folder / "N0000200.jpg"), bag[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 40])
    save(folder / "N0000300.png", bag[:, ::-1])
    save(folder / "N0000400.png", np.clip(bag + np.random.default_rng(0).normal(0, 6, bag.shape), 0, 255))
    save(folder / "N0000101.png", draw_scan(2))
    for number in (3, 4, 5):
        save(folder / f"N0000{number + 5}00.png", draw_scan(number))
    return folder


def test_two_scans_of_one_bag_are_never_a_pair(alike: Path, sources: Sources) -> None:
    backgrounds = open_backgrounds(alike)
    names = [backgrounds.name(place) for place in range(len(backgrounds))]
    same = [names.index(f"N0000{number}00") for number in (1, 2, 3, 4)]
    beside = names.index("N0000101")
    others = [names.index(f"N0000{number}00") for number in (8, 9)]

    def choose(candidates: list[int], other: int) -> int:
        scene, _ = backgrounds.get(other)
        assert scene is not None
        return backgrounds.choose(candidates, (other, scene))[0]

    for mine in same:
        for theirs in same:
            assert choose([theirs, others[0]], mine) == others[0]
        assert choose(same, mine) not in same
    assert choose([beside], same[0]) != beside
    assert choose([beside], same[1]) == beside
    assert choose([same[0]], beside) not in (same[0], beside)
    _, objects = prepare_objects([read_labelled(sources[0])], SIZE, 1)
    materials = Materials(Config(objects={}, backgrounds={}, size=SIZE), objects, backgrounds)
    drawn = set()
    for index in range(80):
        meta, met = make_sample(materials, index)[0].meta, make_sample(materials, index)[1]
        pair = tuple(names.index(meta[view]["background"]) for view in ("key", "query"))
        assert not set(pair) <= set(same)
        assert not neighbours(names[pair[0]], names[pair[1]])
        assert NEAR not in {kind for _, kind in met}
        drawn |= set(pair)
    assert drawn == set(range(len(names)))


def test_neighbours_serve_only_where_nothing_else_does(tmp_path: Path) -> None:
    folder = tmp_path / "bags"
    folder.mkdir()
    for number in range(3):
        save(folder / f"N000000{number}.png", draw_scan(number))
    backgrounds = open_backgrounds(folder)
    scene, _ = backgrounds.get(1)
    assert scene is not None
    place, _, met = backgrounds.choose([1, 1], (1, scene))
    assert place == 2
    assert met == [("N0000002.png", NEAR)]
    assert neighbours("a/N10", "a/N12") and not neighbours("a/N10", "b/N11") and not neighbours("a/N10", "a/N13")
    assert neighbours("same", "same") and not neighbours("one", "other")


# The bank


def test_jpeg_and_raw_backgrounds_give_one_plan(sources: Sources) -> None:
    _, objects = prepare_objects([read_labelled(sources[0])], SIZE, 1)
    config = Config(objects={}, backgrounds={}, size=SIZE, items=(1, 2))
    made = {}
    for form in ("raw", "jpeg"):
        for _ in range(2):  # as they are prepared, and read again
            materials = Materials(config, objects, open_backgrounds(sources[1], form))
            samples = [make_sample(materials, index) for index in range(20)]
            assert made.setdefault(form, samples) == samples
    differ = []
    for (raw, met), (jpeg, also_met) in zip(made["raw"], made["jpeg"], strict=True):
        assert met == also_met
        for view in ("key", "query"):
            one, other = raw.meta[view], jpeg.meta[view]
            assert one["occlusion"] == pytest.approx(other["occlusion"], abs=0.03)
            assert {**one, "occlusion": 0} == {**other, "occlusion": 0}
            pictures = [
                cv2.imdecode(np.frombuffer(getattr(sample, view), np.uint8), cv2.IMREAD_COLOR).astype(int)
                for sample in (raw, jpeg)
            ]
            differ.append(np.abs(pictures[0] - pictures[1]).mean())
    assert 0 < np.mean(differ) < 5
    slots = [
        prepare.prepare_backgrounds(read_benign(sources[1]), SIZE, form, 1)[0] / "slots.bin" for form in ("raw", "jpeg")
    ]
    assert slots[1].stat().st_blocks < slots[0].stat().st_blocks


def test_what_one_process_prepared_others_read(tmp_path: Path, cold: Path) -> None:
    folder = write_benign(tmp_path / "bags")
    mine = open_backgrounds(folder)
    code = (
        "import sys; from pathlib import Path; from segloc_synth.bank.bank import Backgrounds\n"
        "scene, kinds = Backgrounds(Path(sys.argv[1]), Path(sys.argv[2])).get(2)\n"
        "print(scene.pixels.sum(), kinds)"
    )
    (entry,) = (cold / "bank").glob("backgrounds-*")
    assert (entry / "states.bin").read_bytes() == bytes(5)
    told = subprocess.run(
        [sys.executable, "-c", code, str(entry), str(folder)], capture_output=True, text=True, check=True
    )
    assert (entry / "states.bin").read_bytes() == bytes([UNKNOWN, UNKNOWN, READY, UNKNOWN, UNKNOWN])
    (folder / "N0000002.png").unlink()
    scene, kinds = mine.get(2)
    assert scene is not None
    assert told.stdout == f"{scene.pixels.sum()} {kinds}\n"
    with pytest.raises(FileNotFoundError, match="vanished"):
        (folder / "N0000003.png").unlink()
        mine.get(3)


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_a_slot_without_room_is_not_taken_for_a_scan(
    tmp_path: Path, cold: Path, form: bank.Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_benign(tmp_path / "bags")
    backgrounds = open_backgrounds(folder, form)
    (entry,) = (cold / "bank").glob("backgrounds-*")
    write = os.pwrite
    room = [3000]

    def full(file: int, data: memoryview, offset: int) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = write(file, data[: room[0]], offset)
        room[0] -= done
        return done

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left") as error:
            backgrounds.get(1)
    assert error.value.filename == str(entry / "slots.bin")
    assert (entry / "states.bin").read_bytes() == bytes(5)
    scene, _ = backgrounds.get(1)
    again, _ = backgrounds.get(1)
    assert scene is not None and again is not None
    assert np.array_equal(scene.pixels, again.pixels)
    os.truncate(entry / "slots.bin", 0)  # the power fails: the state is on the disk, the slot is not
    anew, _ = backgrounds.get(1)
    assert anew is not None and np.array_equal(anew.pixels, scene.pixels)
    assert (entry / "slots.bin").stat().st_size > 0
    expected, _ = fit_scan(folder / "N0000001.png", SIZE)
    assert expected is not None
    assert np.abs(scene.pixels.astype(int) - expected.picture).mean() < (0.1 if form == "raw" else 6)


def test_a_new_entry_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, cold: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.add(os.fstat(file).st_ino) or sync(file))  # type: ignore[func-returns-value]
    open_backgrounds(write_benign(tmp_path / "bags"))
    (entry,) = (cold / "bank").glob("backgrounds-*")
    assert {path.stat().st_ino for path in entry.iterdir()} <= synced


def test_a_warm_bank_opens_no_original(tmp_path: Path, cold: Path) -> None:
    sources = write_labelled(tmp_path / "labelled").parent, write_benign(tmp_path / "benign")
    args = ["--n", 24, "--distractors", 0.5]
    first = build(sources, tmp_path / "first", *args)
    other = build(sources, tmp_path / "other", *args, "--blend", "alpha", "--coefficient", 0.3, 0.4)
    for path in (*sources[0].rglob("*.png"), *sources[1].rglob("*.png")):
        path.write_bytes(bytes(path.stat().st_size))
    assert content(build(sources, tmp_path / "again", *args)) == content(first)
    warm = build(sources, tmp_path / "warm", *args, "--blend", "alpha", "--coefficient", 0.3, 0.4)
    assert content(warm) == content(other)


def test_entries_of_several_sources_are_one_bank(tmp_path: Path, cold: Path) -> None:
    one, two, small = (read_labelled(write_labelled(tmp_path / str(count), count)) for count in (2, 3, 4))
    with pytest.raises(click.ClickException, match="no usable segment; object too small"):
        prepare_objects([small], 16, 1)
    (none,) = (cold / "bank").glob("objects-16-*")
    folders, objects = prepare_objects([one, two], SIZE, 1)
    alone = [Objects([folder]) for folder in folders]
    with_none = Objects([folders[0], none, folders[1]])
    assert len(objects) == len(with_none) == sum(map(len, alone)) == 10
    assert len(with_none.problems) == 8
    for whole in (objects, with_none):
        skipped = len(whole.palettes) - sum(len(part.palettes) for part in alone)
        for place in range(10):
            part, offset = (alone[0], 0) if place < 4 else (alone[1], 4)
            expected, found = part[place - offset], whole[place]
            assert np.array_equal(found.rgba, expected.rgba)
            assert np.array_equal(found.layers, expected.layers)
            assert found.palette == expected.palette + (0 if place < 4 else len(alone[0].palettes) + skipped)
            plain = {"rgba": None, "layers": None, "palette": 0}
            assert replace(found, **plain) == replace(expected, **plain)  # type: ignore[arg-type]


# Look-alikes


def test_look_alikes_are_pasted_and_not_labelled(sources: Sources, tmp_path: Path) -> None:
    reader = ShardReader(build(sources, tmp_path / "out", "--n", 12, "--size", SIZE, "--distractors", 1))
    _, objects = prepare_objects([read_labelled(sources[0])], SIZE, 1)
    backgrounds = open_backgrounds(sources[1])
    _, look_alikes = prepare.prepare_distractors(read_benign(sources[1]), SIZE, 1)
    assert len(look_alikes) > 0
    assert set(look_alikes.rows["class_id"].tolist()) == {0}
    materials = Materials(Config(**reader.manifest["config"]), objects, backgrounds, look_alikes)
    plain = Materials(replace(materials.config, distractors=0.0), objects, backgrounds)
    changed = 0
    for index in range(12):
        sample, _ = make_sample(materials, index)
        assert sample == reader[index]
        for record in (sample.meta["key"], sample.meta["query"]):
            assert record["distractors"] == 1
            assert [item["class_id"] for item in record["items"]] == [sample.meta["class_id"]]
        pair = plan_pair(materials.config, materials.catalogue, len(backgrounds), index)
        bare = replace(
            pair,
            **{view: replace(getattr(pair, view), pastes=getattr(pair, view).pastes[:1]) for view in ("key", "query")},
        )
        with_it, without = compose_pair(materials, pair)[0], compose_pair(plain, bare)[0]
        changed += int((with_it.picture != without.picture).any())
        assert with_it.items[0][1].full_mask(SIZE).tolist() == without.items[0][1].full_mask(SIZE).tolist()
    assert changed > 8
    assert {entry["id"] for entry in reader.manifest["classes"]} == {11, 13}


def test_where_no_benign_scan_holds_a_look_alike_none_is_pasted(sources: Sources, tmp_path: Path) -> None:
    for number in range(4):
        scan = np.full((80, 100, 3), 255, np.uint8)
        scan[10:70, 10 + 3 * number : 90] = (236, 178, 110 + 20 * number)
        (tmp_path / "plain").mkdir(exist_ok=True)
        save(tmp_path / "plain" / f"N{10 * number}.png", scan)
    reader = ShardReader(build((sources[0], tmp_path / "plain"), tmp_path / "out", "--n", 4, "--distractors", 1))
    assert {reader[place].meta["key"]["distractors"] for place in range(4)} == {0}
