"""Bytes of strangers, read by hand: the size in a JPEG's header."""

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
