"""A detector's weights for a detector of other classes: rows of the heads follow the names of the classes."""

from collections.abc import Mapping, Sequence

from torch import Tensor

# Rows of a class in the last layers of mmdet's heads; the background's come behind those of all classes, if it has any.
ROWS = {"fc_cls": 1, "fc_reg": 4, "conv_logits": 1}


def for_classes(
    tensors: Mapping[str, Tensor], fresh: Mapping[str, Tensor], theirs: Sequence[str], ours: Sequence[str]
) -> dict[str, Tensor]:
    """Weights of a detector of the classes `theirs` for a detector of the classes `ours` with the weights `fresh`.

    In the last layers a class of both keeps its rows, whatever its place, and one of `ours` alone has those of
    `fresh`. All other layers are returned as they are, those whose rows serve all classes among them; where both know
    one class, these cannot be told from that class's own.

    Raises:
        ValueError: a last layer is not one of so many classes.
    """
    taken = dict(tensors)
    for name, x in tensors.items():
        rows = ROWS.get(name.rpartition(".")[0].rpartition(".")[2])
        if rows and name in fresh and not x.shape == fresh[name].shape == (rows, *x.shape[1:]):
            background = len(fresh[name]) - rows * len(ours)
            if x.shape != (rows * len(theirs) + background, *fresh[name].shape[1:]):
                raise ValueError(f"{name} {tuple(x.shape)} is not of {len(theirs)} classes")
            taken[name] = _rows(x, fresh[name], rows, places(theirs, ours))
    return taken


def places(theirs: Sequence[str], ours: Sequence[str]) -> list[int | None]:
    """Where each of our classes is among theirs; case and outer blanks count only where they tell classes apart."""
    found = []
    for name in ours:
        same, alike = ([other for other in theirs if like(other) == like(name)] for like in (str, _plain))
        alone = len(alike) == 1 and sum(_plain(other) == _plain(name) for other in ours) == 1
        found.append(theirs.index((same or alike)[0]) if same or alone else None)
    return found


def _plain(name: str) -> str:
    return name.strip().casefold()


def _rows(x: Tensor, fresh: Tensor, rows: int, found: Sequence[int | None]) -> Tensor:
    result = fresh.clone()
    for ours, theirs in enumerate(found):
        if theirs is not None:
            result[rows * ours : rows * (ours + 1)] = x[rows * theirs : rows * (theirs + 1)]
    background = len(fresh) - rows * len(found)
    result[len(fresh) - background :] = x[len(x) - background :]
    return result
