"""The report: what it calls a difference, what it shows, and that nothing in it reaches out or breaks out."""

import copy
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from tests.eval.conftest import CLASSES
from tests.eval.evaluation import Evaluation, make_evaluation

from segloc_eval.numbers.compare import Difference
from segloc_eval.report import charts, merge, screen, summary, write_report
from segloc_eval.report.markup import digits_for, join, span, tag
from segloc_eval.report.scans import Compared, choose, found
from segloc_eval.report.view import View


class Page(HTMLParser):
    """Text, references and nesting of a page; fails on tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.feed(html)
        assert not self.open
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def page_of(made: Evaluation, metrics: dict[str, Any] | None = None) -> str:
    out = made.folder / "report.html"
    assert write_report(metrics or made.metrics, [made.folder], out, made.picture) == out
    return out.read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Three arms on PIDray's splits, boxes and masks, three seeds."""
    folder = tmp_path_factory.mktemp("made")
    skills = {"random": 0.5, "ours": 0.8, "imagenet": 0.55}
    return make_evaluation(folder / "out", skills, labels={"200": 24}, scans=4, side=96)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Two arms on one split, boxes only, one seed, two label sizes."""
    folder = tmp_path_factory.mktemp("boxes")
    return make_evaluation(
        folder / "out",
        {"random": 0.5, "ours": 0.8},
        **{
            "labels": {"1pct": 8, "all": 800},
            "seeds": 1,
            "splits": ("test",),
            "kinds": ("bbox",),
            "scans": 3,
            "side": 96,
        },
    )


def with_difference(metrics: dict[str, Any], labels: str, kind: str, arm: str, **entry: Any) -> dict[str, Any]:
    changed = copy.deepcopy(metrics)
    splits = changed["comparison"][labels][kind]["differences"][arm]["splits"]
    for split in splits:
        splits[split]["AP"] = {"seeds": [entry["mean"]], **entry}
    return changed


def headline(metrics: dict[str, Any]) -> list[str]:
    return summary.headline(View(metrics))


shares = st.floats(-0.5, 0.5).map(lambda value: round(value, 6))


@given(mean=shares, below=st.floats(1e-4, 0.3), above=st.floats(1e-4, 0.3), few=st.booleans())
def test_a_difference_is_called_one_only_where_its_interval_excludes_zero(
    boxes: Evaluation, mean: float, below: float, above: float, few: bool
) -> None:
    low, high = mean - below, mean + above
    assume(min(abs(low), abs(high)) > 1e-5)
    clear = (low > 0 or high < 0) and not few
    entry = {"mean": mean, "low": low, "high": high, "clear": clear}
    changed = with_difference(boxes.metrics, "1pct", "bbox", "ours", **entry)
    changed = with_difference(changed, "all", "bbox", "ours", **entry)
    for sentence in headline(changed):
        assert ("ahead" in sentence or "behind" in sentence) == clear
        assert ("no clear difference" in sentence) == (not clear)
        assert "interval" in sentence
        if clear:
            assert ("ahead" in sentence) == (mean > 0)
            shown = re.search(r"interval ([\d.]+) to ([\d.]+)\)", sentence)
            assert shown and float(shown[1]) > 0  # an interval that is clear must not read as touching zero
    page = str(summary.arm_table(View(changed), "1pct")[0])
    assert ("ahead" in page or "behind" in page) == clear


def test_the_headline_speaks_of_every_arm_with_numbers_that_can_be_checked(made: Evaluation) -> None:
    metrics = with_difference(made.metrics, "200", "bbox", "ours", mean=0.042, low=0.021, high=0.063, clear=True)
    metrics = with_difference(metrics, "200", "bbox", "imagenet", mean=0.004, low=-0.01, high=0.018, clear=False)
    first, masks = headline(metrics)
    assert first == (
        "Ahead of random: ours by 4.2 points of box AP (95 % interval 2.1 to 6.3); "
        "no clear difference from random: imagenet +0.4 (−1.0 to +1.8)."
    )
    assert masks.startswith("Mask AP against random: ours ")
    del metrics["comparison"]["200"]["bbox"]["differences"]["imagenet"]
    assert "; imagenet reaches " in headline(metrics)[0] and headline(metrics)[0].endswith(
        "with no random to compare it with."
    )
    del metrics["comparison"]["200"]["bbox"]["arms"]["imagenet"]
    assert headline(metrics)[0].endswith("; imagenet has no box AP.")


def test_smallest_and_largest_label_size_get_a_sentence_each(boxes: Evaluation) -> None:
    sentences = headline(boxes.metrics)
    assert [s.split(",")[0] for s in sentences] == ["With 1 % of the labels (8 scans)", "With all labels (800 scans)"]


def test_an_arm_without_a_rival_is_not_compared(tmp_path: Path) -> None:
    alone = make_evaluation(tmp_path / "out", {"random": 0.6}, labels={"200": 8}, seeds=2, scans=3, side=96)
    assert headline(alone.metrics)[0].endswith("there is no other arm to compare it with.")
    page = page_of(alone)
    text = Page(page).text
    assert "ahead" not in text and "random finds more objects than it misses in" in text
    assert "Where random finds most" in text and "Where it misses most" in text and page.count("<img") >= 4
    drawn = re.findall(r"random finds (\d+) of (\d+)", text)
    assert drawn and int(drawn[0][0]) * 2 > int(drawn[0][1]), "the first is one that it is good at"


def test_the_screen_shows_what_the_page_says(made: Evaluation) -> None:
    shown = io.StringIO()
    view = View(made.metrics)
    screen.show(view, shown)
    lines = shown.getvalue().splitlines()
    assert lines[0] == headline(made.metrics)[0] and "\x1b" not in shown.getvalue()
    for arm in view.arms:
        one = view.estimate("200", "bbox", arm, view.head)
        assert one is not None
        row = next(line for line in lines if line.startswith(f"{arm} "))
        assert f"{100 * one['mean']:.1f} ({100 * one['low']:.1f} to {100 * one['high']:.1f})" in row
        recalls = [unit["scores"]["bbox"][view.head]["overall"]["AR@100"] for unit in view.units("200", arm)]
        assert row.endswith(f" {100 * sum(recalls) / len(recalls):.1f}")


def test_what_one_seed_cannot_tell_is_said(made: Evaluation, boxes: Evaluation) -> None:
    assert "is unknown" in summary.certainty(View(boxes.metrics))
    assert summary.certainty(View(made.metrics)).endswith("the spread over 3 seeds per difference.")
    fewer = copy.deepcopy(made.metrics)  # as where the base has one seed alone
    for comparison in fewer["comparison"]["200"].values():
        for other in comparison["differences"].values():
            for entry in other["splits"].values():
                for estimate in filter(None, entry.values()):
                    estimate["seeds"] = estimate["seeds"][:1]
    assert "One seed per difference: " in summary.certainty(View(fewer))


def test_too_few_scans_is_the_reason_given(boxes: Evaluation) -> None:
    metrics = with_difference(boxes.metrics, "1pct", "bbox", "ours", mean=0.2, low=0.1, high=0.3, clear=False)
    assert "no clear difference" in headline(metrics)[0] and "too few scans" in headline(metrics)[0]


def test_everything_is_on_the_page_and_nothing_from_elsewhere(made: Evaluation) -> None:
    html = page_of(made)
    page = Page(html)
    for name in ("random", "ours", "imagenet", "easy", "hard", "hidden", *CLASSES.values()):
        assert name in page.text
    assert "mean of splits (as the ICCV paper)" in page.text and "all scans pooled (as the journal)" in page.text
    pooled = made.metrics["comparison"]["200"]["bbox"]["arms"]["ours"]["splits"]["pooled"]["AP"]["mean"]
    assert f"{100 * pooled:.1f}" in page.text
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in page.links)
    assert not {"script", "link", "iframe", "object"} & page.tags
    assert "url(" not in html and "@import" not in html and "http" not in html
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert anchors == set(re.findall(r'<section id="(\w+)"', html))
    for number in ("71.2", "52.9"):  # quoted, and marked so
        assert number in page.text
    assert "Quoted, not measured here" in page.text
    for needed in (made.metrics["command"], "ab" * 32, "5f" * 32, "torch 2.9.0", "x86_64 CPU", "Seeds 0, 1, 2"):
        assert needed in page.text


def test_every_number_of_every_seed_can_be_read(made: Evaluation) -> None:
    text = Page(page_of(made)).text
    for unit in made.metrics["units"]:
        assert f"{100 * unit['scores']['segm']['pooled']['overall']['AP']:.2f}" in text


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    evil = '"><img src=x onerror=alert(1)>&amp;'
    names = {"random": 0.5, evil: 0.9}
    made = make_evaluation(tmp_path / "out", names, labels={"200": 8}, scans=3, side=96)
    text = json.dumps(made.metrics).replace("Scissors", "<b>&'")
    html = page_of(made, json.loads(text))
    page = Page(html)
    assert "onerror" not in re.sub(r'"[^"]*"', "", "".join(re.findall(r"<[a-z][^>]*>", html)))
    assert evil in page.text and "<b>&'" in page.text


@given(text=st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=30))
def test_markup_escapes_whatever_is_not_markup(text: str) -> None:
    page = HTMLParser(convert_charrefs=True)
    seen: list[str] = []
    page.handle_data = seen.append  # type: ignore[method-assign]
    tags: list[str] = []
    page.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    page.feed(tag("p", text, [tag("b", text)], title=text))
    page.close()
    assert "".join(seen) == text * 2
    assert tags == ["p", "b"]
    assert join(join(text)) == join(text)


def test_a_box_only_set_has_no_mask_scores(boxes: Evaluation) -> None:
    text = Page(page_of(boxes)).text
    assert "mask AP" not in text and "pooled" not in text.replace("all scans pooled” ", "").split("Quoted")[0]
    assert "Cascade R-CNN (boxes only)" in text and "labelled training scans (log scale)" in text


def test_semantic_segmentation_is_told_in_miou(tmp_path: Path) -> None:
    shape = {"labels": {"200": 8}, "seeds": 2, "kinds": ("semantic",), "splits": ("test",), "scans": 4, "side": 96}
    made = make_evaluation(tmp_path / "out", {"random": 0.4, "ours": 0.9}, **shape)
    page = Page(page_of(made, made.metrics | {"errors": {}}))
    assert "mIoU" in page.text and "box AP" not in page.text and "ours finds" in page.text


def test_missing_files_are_said(made: Evaluation, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    write_report(made.metrics, [made.folder], out, lambda split, id: None)
    assert "The picture of this scan was not found." in Page(out.read_text()).text
    write_report(made.metrics, [tmp_path], out, made.picture)
    text = Page(out.read_text()).text
    assert "No scans to show" in text and "is missing" in text and "Training loss" not in text


def test_objects_are_found_by_the_detectors_own_boxes(made: Evaluation, tmp_path: Path) -> None:
    """Not by the boxes round its masks, which may be far off."""
    folder = Path(shutil.copytree(made.folder, tmp_path / "out"))
    before = re.findall(r"\w+ finds \d of \d", Page(page_of(made)).text)
    for file in folder.glob("*/*/*/*/results.segm.json"):
        results = json.loads(file.read_text())
        for result in results:
            height, width = result["segmentation"]["size"]
            speck = np.zeros((height, width), np.uint8, order="F")
            speck[:2, :2] = 1
            result["segmentation"]["counts"] = coco_mask.encode(speck)["counts"].decode()
        file.write_text(json.dumps(results))
    page = tmp_path / "report.html"
    write_report(made.metrics, [folder], page, made.picture)
    assert re.findall(r"\w+ finds \d of \d", Page(page.read_text()).text) == before != []


def test_failures_are_told_first_and_how_to_go_on(made: Evaluation) -> None:
    metrics = copy.deepcopy(made.metrics)
    metrics["failed"] = [{"arm": "ours", "labels": "200", "seed": 2, "reason": "CUDA out of memory"}]
    page = Page(page_of(made, metrics))
    assert "1 fine-tuning did not finish" in page.text.split("Scores per test split")[0]
    assert "CUDA out of memory" in page.text and "Run the same command again" in page.text


def test_a_label_size_with_another_base_is_not_passed_off_as_a_difference_to_this_one(boxes: Evaluation) -> None:
    metrics = copy.deepcopy(boxes.metrics)
    metrics["comparison"]["200"] = metrics["comparison"].pop("1pct")
    metrics["comparison"]["1pct"] = copy.deepcopy(metrics["comparison"]["all"])
    metrics["comparison"]["200"]["bbox"]["base"] = "imagenet"
    view = View(metrics)
    assert view.base == "random"
    assert view.difference("200", "bbox", "ours", "test") is None
    assert view.class_differences("200", "bbox", "ours", "test") == {}
    assert view.difference("all", "bbox", "ours", "test") is not None


def test_nothing_trained_is_said(boxes: Evaluation) -> None:
    text = json.dumps(boxes.metrics).replace('"1pct"', '"given"')
    metrics = json.loads(text)
    metrics["config"]["given"] = True
    metrics["comparison"].pop("all")
    metrics["data"]["labels"] = {}
    metrics["units"] = [unit for unit in metrics["units"] if unit["labels"] == "given"]
    for unit in metrics["units"]:
        del unit["training"]
        unit["testing"] = {"scans": 3}
    text = Page(page_of(boxes, metrics)).text
    assert "Nothing was trained here" in text and "fine-tuned from each" not in text


def thing(box: list[float], id: int = 1, **more: Any) -> dict[str, Any]:
    return {"category_id": id, "bbox": box, **more}


def test_objects_are_found_by_the_best_results_of_their_class() -> None:
    objects = [thing([0, 0, 10, 10]), thing([20, 0, 10, 10], 2)]
    hit, shifted = thing([0, 0, 10, 10], score=0.3), thing([20, 0, 10, 8], 2, score=0.9)
    assert found(objects, [hit, shifted]) == [1.0, 0.8]
    assert found(objects, [shifted | {"category_id": 1}, hit]) == [1.0, 0.0]  # another class
    assert found(objects, [thing([50, 50, 9, 9], score=0.8), shifted, hit]) == [0.0, 0.8]  # only the two best count
    assert found(objects, [hit, hit]) == [1.0, 0.0]  # an object is found once
    assert found(objects, []) == [0.0, 0.0] and found([], [hit]) == []


@given(gains=st.lists(st.integers(-2, 2), max_size=12), seed=st.integers(0, 99))
def test_shown_scans_are_the_extremes_and_none_twice(gains: list[int], seed: int) -> None:
    compared = [Compared("test", number, gain, float(gain)) for number, gain in enumerate(gains)]
    shown = choose(compared, seed)
    assert [scan.gain for scan in shown["up"]] == sorted((g for g in gains if g > 0), reverse=True)[:2]
    assert [scan.gain for scan in shown["down"]] == sorted(g for g in gains if g < 0)[:2]
    every = [scan.image_id for group in shown.values() for scan in group]
    assert len(every) == len(set(every)) == min(len(gains), len(shown["up"]) + len(shown["down"]) + 2)


@given(high=st.floats(0.005, 0.9))
def test_marks_of_differences_lie_where_they_say(high: float) -> None:
    drawn = charts.differences([("a", Difference(mean=0.0, low=0.0, high=high, seeds=[], clear=False))], "", "")
    told = re.findall(r'x="([\d.]+)" y="[\d.]+" text-anchor="middle">([+−]?[\d.]+)<', str(drawn))
    places, values = np.array([(float(x), float(text.replace("−", "-"))) for x, text in told]).T
    slopes = np.diff(places) / np.diff(values)
    assert len(slopes) and slopes == pytest.approx(np.full(len(slopes), slopes[0]), rel=0.01)


def test_long_names_of_rows_have_two_lines_that_fit() -> None:
    entry = Difference(mean=0.1, low=0.0, high=0.2, seeds=[], clear=True)
    for name, lines in {
        "short": ["short"],
        "segloc, then composites + labels": ["segloc, then", "composites + labels"],
        "a" * 60: ["a" * 19, "a" * 18 + "…"],
    }.items():
        drawn = str(charts.differences([(name, entry)], "", ""))
        told = re.findall(r'y="([\d.-]+)" text-anchor="end">(?:<title>.*?</title>)?([^<]*)<', drawn)
        told = told[: len(lines)]  # then the figures
        assert [text for _, text in told] == lines
        assert all(len(text) * charts.LETTER <= 132 - 8 for text in lines)
        assert len({y for y, _ in told}) == len(lines), "one below the other"


def test_digits_grow_until_a_clear_interval_reads_clear() -> None:
    near = {"mean": 0.01, "low": 0.0001, "high": 0.02, "seeds": [0.01], "clear": True}
    assert span(near["low"], near["high"], digits_for(near), sign=True) == "+0.01 to +2.00"
    assert digits_for({**near, "clear": False}) == 1


def part(made: Evaluation, folder: str, **changes: Any) -> tuple[dict[str, Any], Path]:
    """Another evaluation that differs in `changes`, keys with dots."""
    metrics = copy.deepcopy(made.metrics)
    for key, value in changes.items():
        *parents, last = key.split("__")
        entry = metrics
        for parent in parents:
            entry = entry[parent]
        entry[last] = value
    return metrics, Path(folder)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"data__fingerprint": "00"}, "data"),
        ({"config__detector": "faster-rcnn"}, "detector"),
        ({"config__recipe": {"name": "paper"}}, "recipe"),
        ({"config__on": "val"}, "scored split"),
        ({"config__given": True}, "use of --eval-only"),
        ({"format": 1}, "format"),
    ],
)
def test_evaluations_that_differ_in_more_than_arms_are_not_merged(
    made: Evaluation, change: dict[str, Any], word: str
) -> None:
    with pytest.raises(click.ClickException, match=f"^b: other {word} than "):
        merge([(made.metrics, made.folder), part(made, "b", **change)])


def test_other_labelled_scans_are_not_merged(made: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "labels-200.txt").write_text("train/other.png\n")
    with pytest.raises(click.ClickException, match=r"labels-200\.txt: other scans than"):
        merge([(made.metrics, made.folder), part(made, str(tmp_path))])


def test_merging_keeps_units_once_and_names_arms_apart(made: Evaluation, tmp_path: Path) -> None:
    same, other = part(made, "a/first"), part(made, "b/second")
    other[0]["arms"]["ours"]["sha256"] = "cd" * 32
    same[0]["failed"] = [{"arm": "random", "labels": "200", "seed": 0, "reason": "killed"}]
    merged = merge([same, other])
    assert list(merged["arms"]) == ["random", "ours (first)", "imagenet", "ours (second)"]
    units = {(unit["arm"], unit["seed"]): unit["folder"] for unit in merged["units"]}
    assert len(units) == len(merged["units"]) == 12
    assert units["ours (second)", 1] == "b/second/ours/200/seed-1"
    assert merged["failed"] == []  # done in the other folder
    assert "comparison" not in merged and [one["folder"] for one in merged["parts"]] == ["a/first", "b/second"]

    again = merge([(merged, tmp_path), part(made, "c/third")])
    assert [one["folder"] for one in again["parts"]] == ["a/first", "b/second", "c/third"]
    other[0]["failed"] = [{"arm": "random", "labels": "200", "seed": 9, "reason": "killed"}]
    other[0]["command"] = "segloc-eval --the-other"
    other[0]["data"]["scans"]["train"] = 999
    unfinished = merge([same, other])
    assert unfinished["data"]["scans"]["train"] == 999
    page = Page(page_of(made, {**unfinished, **{key: made.metrics[key] for key in ("comparison", "errors")}}))
    assert "Then merge again. segloc-eval --the-other" in " ".join(page.text.split())

    other[0]["units"][0]["scores"] = {}
    with pytest.raises(
        click.ClickException, match=r"b/second: random, labels 200, seed 0 has other scores than in a/fi"
    ):
        merge([same, other])


def test_a_merged_report_finds_the_files_of_renamed_arms(made: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(made.folder)
    first, second = (made.metrics, made.folder), part(made, str(tmp_path / "again"))
    second[0]["arms"]["ours"]["sha256"] = "cd" * 32
    merged = merge([first, second])
    names = {name: "ours" if name.startswith("ours") else name for name in merged["arms"]}
    assert "ours (again)" in names and "ours (out)" in names
    for key in ("comparison", "errors"):
        merged[key] = copy.deepcopy(made.metrics[key])
    for by_kind in merged["comparison"].values():
        for one in by_kind.values():
            for side in ("arms", "differences"):
                one[side] = {name: one[side][old] for name, old in names.items() if old in one[side]}
    page = Page(page_of(made, merged))
    assert "finds more objects than random" in page.text and "Configuration and versions of" in page.text
    assert np.all([name in page.text for name in names])


def test_detectors_that_find_nothing_tell_nothing(tmp_path: Path) -> None:
    made = make_evaluation(tmp_path, {"random": 0.0, "ours": 0.0})
    for estimates in (arm["splits"] for arm in made.metrics["comparison"]["200"]["bbox"]["arms"].values()):
        estimates["pooled"]["AP"] |= {"mean": 0.004, "low": 0.0, "high": 0.01}
    assert headline(made.metrics)[0].startswith("Too early to tell which start is better")
