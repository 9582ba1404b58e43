"""Result tables quoted from the papers, for reference beside one's own numbers on PIDray."""

from segloc_eval.report.markup import DASH, Child, Markup, dim, fold, table, tag

# box easy, hard, hidden, overall; mask the same. Not measured here.
ICCV = {
    "FCOS": ("61.8 51.7 37.5 50.3", ""),
    "RetinaNet": ("61.8 52.2 40.6 51.5", ""),
    "Faster R-CNN": ("63.3 57.2 42.1 54.2", ""),
    "Libra R-CNN": ("64.7 58.8 42.9 55.5", ""),
    "Mask R-CNN": ("64.7 59.0 43.8 55.8", "57.6 50.2 35.2 47.7"),
    "SSD512": ("68.1 58.9 45.7 57.6", ""),
    "Cascade R-CNN": ("69.3 62.8 48.0 60.0", ""),
    "Cascade Mask R-CNN": ("70.9 64.0 48.0 61.0", "59.2 51.5 36.1 48.9"),
    "Cascade Mask R-CNN + BiFPN": ("68.0 61.1 46.9 58.7", "58.0 49.8 35.3 47.7"),
    "Cascade Mask R-CNN + PAFPN": ("70.4 63.4 46.7 60.2", "59.2 51.4 35.0 48.5"),
    "SDANet": ("71.2 64.2 49.5 61.6", "59.9 52.0 37.4 49.8"),
}
JOURNAL = {
    "SSD300": ("52.6 41.6 33.0 44.4", ""),
    "Faster R-CNN": ("65.8 56.9 44.2 58.3", ""),
    "Mask R-CNN": ("66.2 58.6 43.8 59.1", "59.2 50.1 35.5 51.2"),
    "Cascade Mask R-CNN": ("71.9 63.2 46.8 63.7", "60.7 52.0 36.2 52.8"),
    "Cascade Mask R-CNN + PAFPN": ("72.2 63.7 48.3 64.4", "61.1 52.0 37.0 53.1"),
    "SDANet": ("72.5 63.7 48.0 64.4", "61.1 51.7 37.0 52.9"),
    "Cascade Mask R-CNN + divide and conquer": ("74.5 64.8 53.0 66.6", "61.4 51.9 39.7 53.4"),
    "DDOD": ("69.5 63.6 48.9 63.6", ""),
    "DDOD + divide and conquer": ("71.2 64.3 50.2 64.7", ""),
    "YOLOX-M": ("66.5 62.2 45.8 61.3", ""),
}
HEAD = ["", "box easy", "hard", "hidden", "overall", "mask easy", "hard", "hidden", "overall"]


def quoted() -> Markup:
    """Both tables of PIDray and the claim of SegLoc's abstract, folded away and marked as quoted."""
    return fold(
        "Quoted, not measured here: AP on PIDray as the papers give it",
        tag("h3", "Wang et al., Towards Real-World Prohibited Item Detection, ICCV 2021 (arXiv 2108.07020)"),
        _table(ICCV),
        dim(
            "ResNet-101 with ImageNet weights, all training labels; read from the table in the authors' repository. "
            "Overall is the plain mean of the three splits: compare it with “mean of splits”."
        ),
        tag("h3", "Zhang et al., PIDray, IJCV 2023 (arXiv 2211.10763)"),
        _table(JOURNAL),
        dim(
            "Read from the authors' repository. Overall is not the plain mean of the splits: compare it with "
            "“all scans pooled”."
        ),
        tag("h3", "Halat, Rahmati and Nazerfard, SegLoc (arXiv 2310.08421)"),
        tag(
            "p",
            "The abstract claims 3 to 6 % over random initialisation and 8 to 16 % below supervised ImageNet weights, "
            "in AP and AR. Its tables were not at hand and are not quoted.",
        ),
    )


def _table(rows: dict[str, tuple[str, str]]) -> Markup:
    lines: list[list[Child]] = [
        [name, *box.split(), *(mask.split() or [DASH] * 4)] for name, (box, mask) in rows.items()
    ]
    return table(list(HEAD), lines, class_="quoted")
