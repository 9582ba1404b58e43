"""Reading COCO segmentations: all encodings agree, and what is wrong has a name."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask
from tests.conftest import rle, uncompressed

from segloc_synth.rle import rle_pixels
from segloc_synth.sources import masks
from segloc_synth.sources.masks import segmentation_to_mask
from segloc_synth.sources.text import BadLabel


@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1)))
def test_both_kinds_of_rle_give_the_mask_back(mask: np.ndarray) -> None:
    for encode in (rle, uncompressed):
        if mask.any():
            assert np.array_equal(segmentation_to_mask(encode(mask), *mask.shape), mask)
        else:
            with pytest.raises(BadLabel, match="without area"):
                segmentation_to_mask(encode(mask), *mask.shape)


@given(st.data(), st.integers(1, 300), st.integers(1, 300))
def test_a_cut_rle_is_damaged_or_the_same(data: st.DataObject, height: int, width: int) -> None:
    """Whole ones are read as by pycocotools, which foreign ones must not reach: it reads on behind a cut."""
    edges = data.draw(st.lists(st.integers(0, height * width), max_size=12).map(sorted))
    mask = np.zeros(height * width, np.uint8)
    for edge in edges:
        mask[edge:] ^= 1
    mask = mask.reshape(width, height).T
    whole = rle(mask)
    assert np.array_equal(mask, coco_mask.decode(whole))
    cuts = [data.draw(st.integers(0, len(whole["counts"]) - 1)), len(whole["counts"])]
    for cut in cuts if mask.any() else ():
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(masks, "coco_mask", None)
                found = segmentation_to_mask({**whole, "counts": whole["counts"][:cut]}, height, width)
        except BadLabel as problem:
            assert (str(problem), cut < len(whole["counts"])) == ("damaged RLE", True)
        else:
            assert np.array_equal(found, mask)


drawings = st.integers(1, 9).flatmap(
    lambda side: st.lists(st.lists(st.booleans(), min_size=side**2, max_size=side**2), min_size=1, max_size=5)
)


@given(drawings)
def test_masks_are_decoded_as_pycocotools_does(drawn: list[list[bool]]) -> None:
    pixels = [np.array(one, np.uint8) for one in drawn]
    counts = [coco_mask.encode(one.reshape(-1, 1, order="F"))["counts"] for one in pixels]
    assert np.array_equal(rle_pixels(counts, len(pixels[0])), np.stack(pixels))


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=3), st.integers(1, 64))
def test_any_bytes_are_a_mask_or_a_value_error(counts: list[bytes], pixels: int) -> None:
    try:
        found = rle_pixels(counts, pixels)
    except ValueError:
        return
    assert found.shape == (len(counts), pixels) and found.max() <= 1


@given(st.lists(st.tuples(*[st.integers(0, 15)] * 2, *[st.integers(1, 8)] * 2), min_size=1, max_size=4))
def test_parts_of_a_polygon_are_united(boxes: list[tuple[int, int, int, int]]) -> None:
    expected = np.zeros((24, 24), np.uint8)
    parts = []
    for x, y, width, height in boxes:
        expected[y : y + height, x : x + width] = 1
        parts.append([x, y, x + width, y, x + width, y + height, x, y + height])
    degenerate = [[1, 1, 2, 2]]
    assert np.array_equal(segmentation_to_mask(parts + degenerate, 24, 24), expected)


@pytest.mark.parametrize(
    ("segmentation", "kind"),
    [
        ([[1, 1, 5, 5]], "fewer than 3 points"),
        ([[30, 30, 40, 30, 40, 40]], "outside the image"),
        ([[1e9, 1, 5, 5, 1, 5]], "outside the image"),
        ([[3, 3, 3, 3, 3, 3]], "without area"),
        ([["a", 1, 2, 3, 4, 5]], "no list of numbers"),
        ([[float("nan"), 1, 2, 3, 4, 5]], "no list of numbers"),
        ([[10**400, 1, 2, 3, 4, 5]], "no list of numbers"),
        ({"size": [10, 10], "counts": [100]}, "another size"),
        ({"size": [20, 20], "counts": [10, 10]}, "damaged RLE"),
        ({"size": [20, 20], "counts": [-1, 401]}, "damaged RLE"),
        ({"size": [20, 20], "counts": "~~~~~~~~"}, "damaged RLE"),
        ({"size": [20, 20], "counts": ""}, "damaged RLE"),
        ({"size": [20, 20], "counts": "Y" * 400}, "damaged RLE"),
        ({"size": [20, 20], "counts": "o" * 400 + "0"}, "damaged RLE"),
        ({"size": [20, 20], "counts": "`\\PPPP0"}, "damaged RLE"),  # 400 in more digits than any run needs
        ({"size": [20, 20], "counts": "\udcff"}, "damaged RLE"),
        ({"size": [20, 20], "counts": [2**63, 400 - 2**63]}, "damaged RLE"),
        ({"size": [20, 20]}, "damaged RLE"),
        ([], "without a mask"),
        ("polygon", "without a mask"),
    ],
)
def test_a_bad_segmentation_is_named(segmentation: Any, kind: str) -> None:
    with pytest.raises(BadLabel, match=kind):
        segmentation_to_mask(segmentation, 20, 20)
