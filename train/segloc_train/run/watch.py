"""Whether features become useful, seen before any detector is trained: k-NN accuracy, projections, example pairs.

All of it looks at RoI features of the backbone alone, in evaluation and without augmentation: what is handed to a
detector, whatever head a method puts on top.
"""

import io
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from segloc_train.data.augment import plain
from segloc_train.data.data import Batch, View
from segloc_train.model.backbone import SDANet
from segloc_train.model.head import cells

BANK = 2048  # training pairs whose classes are known to the k-NN
POINTS = 500  # of a projection
K, TEMPERATURE = 20, 0.07  # of the k-NN, as usual (Wu et al., arXiv 1805.01978; DINO, arXiv 2104.14294)
INK = "#7d8590"  # greys and hues that read on white and on black, as in the evaluation's charts
HUES = ("#2f81d8", "#e0823d", "#3fa45b", "#b05fc7", "#d2495c", "#8a8f98")
MARKS = "o^sDvP"  # with the hues, 36 classes look different
LEAST_SIDE = 192  # pixels of an example, so that its box and name can be read
MAGENTA = (176, 0, 122)  # no scanner paints it


def some(places: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most `limit` of `places`, sorted: a fixed choice for a given number of places, the same in every run."""
    return np.sort(np.random.default_rng(len(places)).permutation(places)[:limit])


@torch.no_grad()
def roi_features(backbone: SDANet, view: View) -> Tensor:
    """float32 [N, 5 * width]: RoIAlign 7x7 of the box at every level, averaged, each level's part of unit norm.

    `view` is as stored (uint8), on the backbone's device. The backbone runs in evaluation mode, in bfloat16 on CUDA,
    and is left in the mode it was in. Without the norm the level with the largest numbers would decide alone.
    """
    view = plain(view)
    training = backbone.training
    backbone.eval()
    images = view.images.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cuda", torch.bfloat16, enabled=images.is_cuda):
        levels = backbone(images)
    backbone.train(training)
    parts = cells([x.float() for x in levels], view.boxes)
    return torch.cat([F.normalize(x.mean((2, 3)), dim=1) for x in parts], 1)


def query_features(backbone: SDANet, batches: Iterable[Batch], device: torch.device) -> tuple[Tensor, Tensor]:
    """roi_features of the batches' query views, float32 [N, 5 * width], and labels int64 [N], both on the CPU."""
    found = [(roi_features(backbone, batch.query.to(device)), batch.labels) for batch in batches]
    return torch.cat([x for x, _ in found]).cpu(), torch.cat([labels for _, labels in found]).cpu()


def knn_classes(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, k: int = K, temperature: float = TEMPERATURE
) -> Tensor:
    """Class of each query, int64 [N]: its k nearest of the bank vote, each with weight exp(cosine / temperature).

    bank float32 [M, D], bank_labels int64 [M], queries float32 [N, D], all on one device; fewer than k vote where the
    bank is smaller.
    """
    similarity = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    nearest, at = similarity.topk(min(k, len(bank)), 1)
    weights = ((nearest - nearest[:, :1]) / temperature).exp()  # relative to the nearest: no overflow
    votes = queries.new_zeros(len(queries), int(bank_labels.max()) + 1)
    return votes.scatter_add_(1, bank_labels[at], weights).argmax(1)


def knn_accuracy(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    labels: Tensor,
    k: int = K,
    temperature: float = TEMPERATURE,
) -> float | None:
    """Balanced k-NN accuracy in 0..1: the share of queries classified rightly, per class, averaged over the classes
    that the queries have, so that a skewed set does not flatter. Chance is 1 / (number of these classes); random
    weights may do better than that, so the start of the run is what to compare with.

    Arguments as in knn_classes; labels int64 [N] of the queries. None where bank or queries are empty.
    """
    if not len(bank) or not len(queries):
        return None
    right = (knn_classes(bank, bank_labels, queries, k, temperature) == labels).float()
    return float(np.mean([right[labels == label].mean().item() for label in labels.unique().tolist()]))


def project(features: Tensor) -> tuple[Tensor, Tensor]:
    """PCA of features [N, D] to the plane: points float32 [N, 2], and the shares [2] of the variance they show.

    An axis points to where its largest loading is positive, so that pictures of successive epochs do not flip at will.
    """
    centred = features.double() - features.double().mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    axes = vectors[:, [-1, -2]]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    shares = values[[-1, -2]].clamp(min=0) / values.clamp(min=0).sum().clamp(min=1e-300)
    return (centred @ (axes * largest.sign())).float(), shares.float()


def scatter(features: Tensor, labels: Tensor, names: Sequence[str], title: str) -> bytes:
    """PNG of the features' projection, a hue and mark per class, transparent for pages dark and light.

    features float32 [N, D], labels int64 [N] in 0..len(names)-1, both on the CPU.
    """
    points, shares = project(features)
    figure = Figure(figsize=(8.4, 5.6), layout="constrained")
    axes = figure.subplots()
    for label in labels.unique().tolist():
        x, y = points[labels == label].T.tolist()
        axes.scatter(
            x,
            y,
            s=26,
            color=HUES[label % len(HUES)],
            marker=MARKS[label // len(HUES) % len(MARKS)],
            alpha=0.8,
            linewidths=0,
            label=f"{names[label]} ({len(x)})".replace("$", r"\$"),
        )
    axes.set_title(title.replace("$", r"\$"), color=INK, fontsize=11, loc="left")
    for axis, name, share in zip((axes.xaxis, axes.yaxis), ("first", "second"), shares.tolist(), strict=True):
        axis.set_label_text(f"{name} principal component ({share:.0%} of the variance)", color=INK)
    axes.tick_params(colors=INK, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    columns = 1 + (len(names) - 1) // 24
    figure.legend(loc="outside right upper", frameon=False, fontsize=9, labelcolor=INK, ncols=columns)
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, transparent=True, metadata={"Software": None})
    return buffer.getvalue()


def examples(query: View, key: View, labels: Tensor, names: Sequence[str]) -> Tensor:
    """uint8 [3, H, W] on the CPU: pairs as the network sees them, boxes drawn, class names above.

    query and key are augmented views [N, ...] of the same pairs, labels int64 [N] their classes. A column
    is a pair: query above, key below.
    """
    rows = []
    for view in (query, key):
        pictures = (view.images.float().cpu().clamp(0, 1) * 255).round().byte()
        captions = [names[label] for label in labels.tolist()] if view is query else None
        rows += _annotated(pictures, view.boxes.cpu(), captions)
    return make_grid(rows, nrow=len(rows) // 2, padding=4, pad_value=255)


def _annotated(pictures: Tensor, boxes: Tensor, captions: list[str] | None) -> list[Tensor]:
    """Pictures uint8 [N, 3, S, S] enlarged, with their boxes, under a strip with a caption or an empty one."""
    zoom = -(-LEAST_SIDE // pictures.shape[-1])
    strip = 22
    done = []
    for number, (picture, box) in enumerate(zip(pictures, boxes.tolist(), strict=True)):
        shown = Image.fromarray(picture.permute(1, 2, 0).numpy())
        sheet = Image.new("RGB", (shown.width * zoom, shown.height * zoom + strip), "white")
        sheet.paste(shown.resize((shown.width * zoom, shown.height * zoom), Image.Resampling.NEAREST), (0, strip))
        draw = ImageDraw.Draw(sheet)
        x1, y1, x2, y2 = (round(value * zoom) for value in box)
        draw.rectangle((x1 - 1, y1 - 1 + strip, x2, y2 + strip), outline=MAGENTA, width=2)
        text = f"{captions[number]}: query" if captions else "key"
        draw.text((2, 2), text, fill=(60, 66, 74), font=ImageFont.load_default(15))
        done.append(torch.from_numpy(np.array(sheet)).permute(2, 0, 1))
    return done
