"""Values of foreign records: read where a wrong type leaves no doubt, None where it does."""

import math
from typing import Any, TypeGuard

FAR = 1e12  # beyond it numbers are no coordinates, and arithmetic on them overflows
LARGEST_ID = 2**31 - 1
LONGEST_NAME = 500  # characters of a class' name; of longer lines charts, tables and folders can make nothing


def number(value: Any) -> float | None:
    """A finite number below FAR, also written as text; None for anything else, booleans too."""
    if isinstance(value, str) and len(value) < 50:
        try:
            value = float(value)
        except ValueError:
            return None
    if type(value) not in (int, float) or not abs(value) < FAR:  # nan is not
        return None
    return value


def whole(value: Any) -> int | None:
    """A whole number, also as 640.0 or text."""
    found = number(value)
    return int(found) if found is not None and found == math.floor(found) else None


def numbers(value: Any, count: int | None = None) -> list[float] | None:
    """A list of `count` numbers (of any length without), each as `number` reads it."""
    if not isinstance(value, list | tuple) or (count is not None and len(value) != count):
        return None
    if all(type(one) is int or type(one) is float for one in value):  # as a rule
        return list(value) if all(abs(one) < FAR for one in value) else None
    found = [number(one) for one in value]
    good = [one for one in found if one is not None]
    return good if len(good) == len(found) else None


def flag(value: Any) -> bool | None:
    """Yes or no: booleans, 0 and 1, as text too; absent is no. None for anything else."""
    if value is None:
        return False
    if isinstance(value, str):
        word = value.strip().lower()
        return {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}.get(word)
    return bool(value) if type(value) in (bool, int, float) and value in (0, 1) else None


def identity(value: Any) -> int | str | None:
    """An id, the same for 7, 7.0 and "7"; None for what cannot be one, booleans too."""
    if isinstance(value, str):
        plain = value.isascii() and value.removeprefix("-").isdecimal() and len(value) < 19 and str(int(value)) == value
        return int(value) if plain else value
    if isinstance(value, float) and value.is_integer() and abs(value) < FAR:
        return int(value)
    return value if type(value) is int else None


def is_text(value: Any) -> TypeGuard[str]:
    """A name: text of one line, not blank nor beyond LONGEST_NAME, that UTF-8 can hold."""
    whole = is_file_name(value) and len(value) <= LONGEST_NAME
    return whole and not any("\ud800" <= char <= "\udfff" for char in value)


def is_file_name(value: Any) -> TypeGuard[str]:
    """One line, not blank; names of files may be in any encoding, and so hold what UTF-8 cannot."""
    return isinstance(value, str) and bool(value.strip()) and len(value.splitlines()) == 1 and "\0" not in value


def name_of(value: Any) -> str | None:
    """The name of a class, without spaces around it, a number as text; None when it is no line of text."""
    text = str(value) if type(value) is int and abs(value) < FAR else value
    return text.strip() if is_text(text) else None
