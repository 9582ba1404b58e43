"""Bytes of strangers, read by hand: the size in a JPEG's header, and the pixels of many masks at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # JPEG markers of a Huffman-coded frame: baseline, extended, progressive


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG file by its frame header, without decoding; None where it has none.

    The markers (ITU-T T.81, annex B) are followed strictly, so a decoder cannot find another frame header first.
    """
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in FRAMES:
            return data[at + 7] << 8 | data[at + 8], data[at + 5] << 8 | data[at + 6]
        length = data[at + 2] << 8 | data[at + 3]
        # The start of a scan before any frame, other frames and markers without a length are not for us.
        if length < 2 or not (0xE0 <= marker <= 0xFE or marker in (0xC4, 0xDB, 0xDD)):
            return None
        at += 2 + length
    return None


def rle_pixels(counts: Sequence[bytes], pixels: int) -> NDArray[np.uint8]:
    """uint8 [N, pixels], the 0/1 pixels of N masks column by column, from the counts of COCO compressed RLEs.

    As pycocotools' rleFrString and rleDecode, all at once; those leave what the runs do not cover uninitialised, here
    ValueError is raised unless they make up exactly so many pixels.
    """
    codes = np.frombuffer(b"".join(counts), np.uint8).astype(np.int64) - 48  # 5 bits each; 32: goes on, 16: the sign
    ends = np.cumsum([len(one) for one in counts])
    last = np.flatnonzero((codes & 32) == 0)
    if not all(counts) or codes.min() < 0 or codes.max() > 63 or (codes[ends - 1] & 32).any():
        raise ValueError("no run lengths")
    first = np.concatenate([[0], last[:-1] + 1])
    shift = 5 * (np.arange(len(codes)) - np.repeat(first, last - first + 1))
    if shift.max() > 30:
        raise ValueError("a run is too long")
    told = np.add.reduceat((codes & 31) << shift, first) - ((codes[last] & 16) << (shift[last] + 1))
    # A run is told relative to the last but one of its mask, but for a mask's first three.
    starts = np.searchsorted(first, np.concatenate([[0], ends[:-1]]))
    lengths = np.diff(starts, append=len(told))
    number = np.arange(len(told)) - np.repeat(starts, lengths)
    odd = number & 1
    runs = np.where(number, 0, told)
    for mine in (odd == 1, (odd == 0) & (number > 0)):
        sums = np.concatenate([[0], np.where(mine, told, 0).cumsum()])
        runs += np.where(mine, sums[1:] - np.repeat(sums[starts], lengths), 0)
    if runs.min() < 0 or (np.add.reduceat(runs, starts) != pixels).any():
        raise ValueError("the runs are not those of the picture")
    return np.repeat(odd.astype(np.uint8), runs).reshape(len(counts), pixels)
