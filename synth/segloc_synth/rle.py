"""The pixels of masks in COCO's compressed run-length encoding, read by hand: they are bytes of strangers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DIGITS = 6  # of five bits, more than a run of the largest picture takes


def rle_pixels(counts: Sequence[bytes], pixels: int) -> NDArray[np.uint8]:
    """uint8 [N, pixels], the 0/1 pixels of N masks column by column, from the counts of COCO compressed RLEs.

    As pycocotools' rleFrString and rleDecode, all at once; those read on behind cut counts and leave what the runs do
    not cover uninitialised, here ValueError is raised unless they make up exactly so many pixels.
    """
    # A character, from 48 on, holds five bits, the lowest first, and whether more follow (32); the last one's highest
    # bit (16) is the sign.
    codes = np.frombuffer(b"".join(counts), np.uint8).astype(np.int64) - 48
    ends = np.cumsum([len(one) for one in counts])
    if not all(counts) or codes.min() < 0 or codes.max() > 63 or (codes[ends - 1] & 32).any():
        raise ValueError("no run lengths")
    last = np.flatnonzero((codes & 32) == 0)
    sizes = np.diff(last, prepend=-1)
    if sizes.max() > DIGITS:
        raise ValueError("a run is too long")
    first = last - sizes + 1
    shift = 5 * (np.arange(len(codes)) - first.repeat(sizes))
    told = np.add.reduceat((codes & 31) << shift, first) - ((codes[last] & 16) << (5 * sizes - 4))
    # From a mask's fourth run on, a number is added to the run two before: sums over every other number, those of the
    # masks before taken off, and a mask's first run, to which nothing is added, left out.
    starts = np.searchsorted(first, np.concatenate([[0], ends[:-1]]))
    start = starts.repeat(np.diff(starts, append=len(told)))
    odd = (np.arange(len(told)) - start) & 1
    sums = np.concatenate([[0, 0], told])
    sums[starts + 2] = 0
    for half in (sums[0::2], sums[1::2]):
        np.cumsum(half, out=half)
    runs = sums[2:] - sums[start + odd]
    runs[starts] = told[starts]
    if runs.min() < 0 or (np.add.reduceat(runs, starts) != pixels).any():
        raise ValueError("the runs are not those of the picture")
    return odd.astype(np.uint8).repeat(runs).reshape(len(counts), pixels)
