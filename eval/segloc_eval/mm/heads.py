"""A detector's weights for a detector of other classes: rows of the heads follow the names of the classes."""

from collections.abc import Mapping, Sequence

from torch import Tensor

# Rows of a class in the last layers of mmdet's heads; the background's come behind those of all classes, if it has any.
ROWS = {"fc_cls": 1, "fc_reg": 4, "conv_logits": 1}
MASKS = "roi_head.mask_head."


def for_classes(
    tensors: Mapping[str, Tensor], fresh: Mapping[str, Tensor], theirs: Sequence[str], ours: Sequence[str]
) -> dict[str, Tensor]:
    """Weights of a detector of the classes `theirs` for a detector of the classes `ours` with the weights `fresh`.

    In the last layers a class of both keeps its rows, whatever its place, and one of `ours` alone has those of
    `fresh`; so has the mask head where `tensors` lack it, and theirs is left out where `fresh` lack it. Everything
    else, layers without rows for classes among it, is returned as it is.

    Raises:
        ValueError: a last layer has not the rows of so many classes.
    """
    taken = {name: x for name, x in tensors.items() if not name.startswith(MASKS) or name in fresh}
    if not any(name.startswith(MASKS) for name in tensors):
        taken |= {name: x for name, x in fresh.items() if name.startswith(MASKS)}
    for name, x in taken.items():
        rows = ROWS.get(name.split(".")[-2])
        if rows and name in fresh and not len(x) == len(fresh[name]) == rows:
            taken[name] = _rows(name, x, fresh[name], rows, theirs, ours)
    return taken


def _rows(name: str, x: Tensor, fresh: Tensor, rows: int, theirs: Sequence[str], ours: Sequence[str]) -> Tensor:
    """The rows of one layer, as for_classes has them."""
    classes, background = x[: rows * len(theirs)], x[rows * len(theirs) :]
    if x.shape[1:] != fresh.shape[1:] or len(background) != len(fresh) - rows * len(ours):
        raise ValueError(f"{name} {tuple(x.shape)} is not of {len(theirs)} classes")
    result = fresh.clone()
    for place, class_name in enumerate(ours):
        if class_name in theirs:
            found = rows * theirs.index(class_name)
            result[rows * place : rows * (place + 1)] = classes[found : found + rows]
    result[rows * len(ours) :] = background
    return result
