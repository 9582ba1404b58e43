"""What a metrics dict holds, in the order and under the names of the page."""

from dataclasses import dataclass
from typing import Any

from segloc_eval.numbers.compare import Difference, Estimate

KINDS = {"bbox": "box", "segm": "mask", "semantic": "semantic"}
OVERALLS = {"mean": "mean of splits (as the ICCV paper)", "pooled": "all scans pooled (as the journal)"}
DETECTORS = {
    "cascade-mask-rcnn": "Cascade Mask R-CNN",
    "cascade-rcnn": "Cascade R-CNN (boxes only)",
    "mask-rcnn": "Mask R-CNN",
    "faster-rcnn": "Faster R-CNN (boxes only)",
    "semantic-fpn": "semantic segmentation (FPN head)",
}


@dataclass(frozen=True)
class View:
    """Lookups in a metrics dict of format 2. All numbers are as there: fractions, none in per cent."""

    metrics: dict[str, Any]

    @property
    def arms(self) -> list[str]:
        """The base first, the others as given."""
        names = list(self.metrics["arms"])
        return sorted(names, key=lambda name: name != self.base)

    @property
    def others(self) -> list[str]:
        """All arms but the base."""
        return [arm for arm in self.arms if arm != self.base]

    @property
    def base(self) -> str:
        """The arm that the others are compared with."""
        bases = [one["base"] for by_kind in self.metrics["comparison"].values() for one in by_kind.values()]
        return max(bases, key=bases.count) if bases else next(iter(self.metrics["arms"]))

    @property
    def labels(self) -> list[str]:
        """Label sizes that have numbers, the smallest first."""
        return sorted(self.metrics["comparison"], key=self.scans)

    @property
    def kinds(self) -> list[str]:
        """Kinds of results that have numbers, boxes first."""
        found = {kind for by_kind in self.metrics["comparison"].values() for kind in by_kind}
        return [kind for kind in KINDS if kind in found]

    def scans(self, labels: str) -> int:
        """Labelled scans of a label size."""
        return int(self.metrics["data"]["labels"].get(labels, 0))

    def label_name(self, labels: str) -> str:
        """A label size in words, with its number of scans."""
        count = self.scans(labels)
        if labels == "given":
            return "as given"
        if labels.isdigit():
            return f"{count:,} labelled scan{'s' * (count != 1)}"
        share = "all labels" if labels == "all" else f"{labels.removesuffix('pct')} % of the labels"
        return f"{share} ({count:,} scan{'s' * (count != 1)})"

    @property
    def tests(self) -> list[str]:
        """The splits with scans of their own, as scored."""
        return [split for split in self.splits if split not in OVERALLS]

    @property
    def splits(self) -> list[str]:
        """Every split with scores, `mean` and `pooled` last."""
        found = dict.fromkeys(
            split
            for by_kind in self.metrics["comparison"].values()
            for comparison in by_kind.values()
            for arm in comparison["arms"].values()
            for split in arm["splits"]
        )
        return [*(split for split in found if split not in OVERALLS), *(split for split in OVERALLS if split in found)]

    @property
    def head(self) -> str:
        """The split that headline and charts speak of: all scans together."""
        return "pooled" if "pooled" in self.splits else self.splits[-1]

    def split_name(self, split: str) -> str:
        """A split in a table's words."""
        if split == "val":
            return "validation scans"
        if split == "test":
            return "test scans"
        return OVERALLS.get(split, split)

    def head_name(self) -> str:
        """The head split in a sentence's words."""
        if self.head == "pooled":
            return "all test scans pooled"
        return "the validation scans" if self.head == "val" else f"the {self.head} scans"

    def score_name(self, kind: str) -> str:
        """What charts and headline call the score of a kind."""
        return "mIoU" if kind == "semantic" else f"{KINDS[kind]} AP"

    def kind_name(self, kind: str) -> str:
        """What results of a kind are."""
        return {"bbox": "boxes", "segm": "masks", "semantic": "semantic"}[kind]

    def class_score(self, kind: str) -> str:
        """What the score of a single class is called."""
        return "IoU" if kind == "semantic" else f"{KINDS[kind]} AP"

    def metric(self, kind: str) -> str:
        """The name in the metrics dict of the score that stands for a kind."""
        return "mIoU" if kind == "semantic" else "AP"

    def hue(self, arm: str) -> int:
        """The arm's number, as charts colour by it."""
        return list(self.metrics["arms"]).index(arm)

    def comparison(self, labels: str, kind: str) -> dict[str, Any] | None:
        """See compare.Comparison; None where there is none."""
        return self.metrics["comparison"].get(labels, {}).get(kind)

    def estimate(self, labels: str, kind: str, arm: str, split: str, metric: str | None = None) -> Estimate | None:
        """The score of a kind, or another metric of it, a fraction 0..1 with its interval; None where there is none."""
        return _real(_at(self.comparison(labels, kind), "arms", arm, "splits", split, metric or self.metric(kind)))

    def difference(self, labels: str, kind: str, arm: str, split: str) -> Difference | None:
        """The arm's score minus the base's, a fraction; None where a label size has another base than the page."""
        comparison = self.comparison(labels, kind)
        if comparison is None or comparison["base"] != self.base:
            return None
        return _real(_at(comparison, "differences", arm, "splits", split, self.metric(kind)))

    def class_differences(self, labels: str, kind: str, arm: str, split: str) -> dict[str, Difference]:
        """`difference` of each class that has one, by name."""
        comparison = self.comparison(labels, kind)
        if comparison is None or comparison["base"] != self.base:
            return {}
        entries = _at(comparison, "differences", arm, "per_class", split) or {}
        return {name: entry for name, entry in entries.items() if _real(entry) is not None}

    def errors(self, labels: str, kind: str) -> dict[str, Any]:
        """Error analysis by arm, in the page's order; empty where there is none."""
        found = (self.metrics.get("errors") or {}).get(labels, {}).get(kind) or {}
        return {arm: found[arm] for arm in self.arms if found.get(arm)}

    def seeds(self, labels: str, arm: str) -> list[int]:
        """Seeds of the finished units, rising."""
        return sorted(unit["seed"] for unit in self.units(labels, arm))

    def seed_counts(self) -> set[int]:
        """Over how many seeds each difference on the page is, or each estimate where there is none."""
        asked = [(labels, kind, arm, self.head) for labels in self.labels for kind in self.kinds for arm in self.arms]
        differences = {len(one["seeds"]) for place in asked if (one := self.difference(*place)) is not None}
        return differences or {len(found["seeds"]) for place in asked if (found := self.estimate(*place)) is not None}

    def units(self, labels: str | None = None, arm: str | None = None) -> list[dict[str, Any]]:
        """Finished units, all or of one label size or arm."""
        return [
            unit for unit in self.metrics["units"] if labels in (None, unit["labels"]) and arm in (None, unit["arm"])
        ]


def _at(entry: Any, *keys: str) -> Any:
    for key in keys:
        entry = entry.get(key) if isinstance(entry, dict) else None
    return entry


def _real(entry: Any) -> Any:
    """The entry, unless it is null or its mean is."""
    return None if entry is None or entry.get("mean") is None else entry
