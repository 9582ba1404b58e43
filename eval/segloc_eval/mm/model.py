"""Building detectors, and the weights they start from: everything read by our own loader, nothing unpickled."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import mmdet.models  # noqa: F401  registers the parts of the detectors
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from torch import Tensor, nn

import segloc_eval.mm.semantic  # noqa: F401  registers SemanticFPN
from segloc_eval.config import DETECTOR
from segloc_eval.mm.configs import detector_config
from segloc_eval.mm.heads import for_classes, places
from segloc_eval.recipe import DETECTORS, FAMILIES, WITH_MASKS, DetectorName, Recipe
from segloc_synth.files import read_json
from segloc_train.model import start
from segloc_train.model.backbone import SDANet
from segloc_train.model.checkpoint import load_strict, load_tensors
from segloc_train.model.trunk import check_arch

ABOUT = start.DETECTOR_META
MASK_HEAD = "roi_head.mask_head."
PLACING = "roi_head.bbox_head.fc_reg."

MMLogger.get_current_instance().setLevel("WARNING")  # it lists every initialised weight otherwise
init_default_scope("mmdet")


@MODELS.register_module(name="SDANet", force=True)
class Backbone(SDANet):
    """The pretrained module as it is; on CUDA it computes in bfloat16, as in pretraining.

    Its maps, and so the heads, are float32: bfloat16 places a box at 500 pixels no finer than 2 pixels.
    """

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast("cuda", torch.bfloat16, enabled=images.is_cuda):
            levels = super().forward(images)
        return tuple(level.float() for level in levels)


def build_detector(recipe: Recipe, detector: DetectorName, classes: int, seed: int) -> nn.Module:
    """The detector at random, every weight a function of `seed` alone (heads equal whatever backbone is loaded)."""
    set_random_seed(seed)
    model: Any = MODELS.build(ConfigDict(detector_config(recipe, detector, classes)))
    model.init_weights()
    built: nn.Module = model
    return built


def load_arm(model: Any, source: str, recipe: Recipe, detector: DetectorName, classes: Sequence[str]) -> str:
    """Load what an arm starts from into a detector of build_detector; returns a line for the log.

    Args:
        source: `random`, `imagenet`, or a path. Into the backbone go: a run folder of segloc-train, its backbone.pth
            or .safetensors, an epoch_NNN.pt, a trunk's file under torchvision's or timm's names. A detector.pth of
            segloc-eval, or its folder, gives all weights, heads included, strictly; the rows of classes that it does
            not know, the mask head where it learnt from boxes alone, and the placing of boxes where one of both
            does it alike for all classes, stay at random.
        classes: names, in the order of the heads.

    Raises:
        click.ClickException: one line, for a file that is missing, damaged, holds more than tensors (nothing is
            unpickled), does not fit, or for a detector of another kind.
    """
    path = Path(source)
    if path.is_dir() and not (path / "backbone.pth").is_file() and (path / DETECTOR).is_file():
        path = path / DETECTOR
    if path.is_file():
        tensors = load_tensors(path)
        if any(name.startswith("backbone.trunk.") for name in tensors):
            return _load_detection(model, tensors, path, recipe, detector, classes)
        if any(name.startswith("neck.") for name in tensors):
            raise click.ClickException(
                f"{path}: is a start for stock mmdet configs, without the attention; name the backbone.pth beside it"
            )
    backbone = model.backbone
    assert isinstance(backbone, SDANet)
    return start.initialise(backbone, recipe.arch, source)


@dataclass(frozen=True)
class About:
    """What the detector.json beside a detector.pth tells.

    `classes`: category id to name, in the heads' order. `learnt`: marks of the scans' files, where it tells.
    """

    detector: DetectorName
    recipe: Recipe
    classes: dict[int, str]
    learnt: frozenset[str]


def read_about(weights: Path) -> About:
    """The detector.json beside `weights`; click.ClickException when it is missing or not as segloc-eval writes it."""
    path = weights.parent / ABOUT
    if not path.is_file():
        raise click.ClickException(f"{weights}: no {ABOUT} beside it, which tells its classes; copy both files")
    value = read_json(path)
    value = value if isinstance(value, dict) else {}
    detector, classes = value.get("detector"), value.get("classes")
    if detector not in DETECTORS:
        raise click.ClickException(f"{path}: detector {str(detector)[:40]!r} is none of {', '.join(DETECTORS)}")
    recipe = Recipe.from_dict(value.get("recipe"), str(path))
    try:
        check_arch(recipe.arch)
    except click.ClickException as error:
        raise click.ClickException(f"{path}: {error.message}") from None
    named: dict[int, str] = {}
    for entry in classes if isinstance(classes, list) else []:
        id, name = (entry.get(key) if isinstance(entry, dict) else None for key in ("id", "name"))
        if type(id) is int and isinstance(name, str):
            named[id] = name
    if not isinstance(classes, list) or not named or len(named) != len(classes):
        raise click.ClickException(f"{path}: classes are no list of distinct ids with names")
    learnt = value.get("learnt")
    learnt = learnt if isinstance(learnt, list) else []
    return About(detector, recipe, named, frozenset(one for one in learnt if isinstance(one, str)))


def load_detector(weights: Path) -> tuple[nn.Module, About]:
    """A fine-tuned detector: the detector.pth `weights`, or the folder of it, with the detector.json beside it.

    click.ClickException as in load_arm.
    """
    weights = weights / DETECTOR if weights.is_dir() else weights
    tensors = load_tensors(weights)
    about = read_about(weights)
    model: Any = build_detector(about.recipe, about.detector, len(about.classes), seed=0)
    load_strict(model, tensors, weights)
    start.check_normalisation(model.backbone, weights.parent / ABOUT)
    return model, about


def _load_detection(
    model: Any,
    tensors: dict[str, Tensor],
    path: Path,
    recipe: Recipe,
    detector: DetectorName,
    classes: Sequence[str],
) -> str:
    """load_arm of a detector's weights."""
    about = read_about(path)
    if not any({about.detector, detector} <= set(pair) for pair in FAMILIES.values()):
        raise click.ClickException(f"{path}: is a {about.detector}, not a {detector}; name that by --detector")
    fresh, known = model.state_dict(), list(about.classes.values())
    anew: dict[str, Tensor] = {}
    left = [name for name, place in zip(classes, places(known, classes), strict=True) if place is None]
    if about.recipe.agnostic != recipe.agnostic and PLACING + "bias" in fresh:
        anew = {name: x for name, x in fresh.items() if name.startswith(PLACING)}
        tensors = {name: x for name, x in tensors.items() if name not in anew}
        left.insert(0, "the placing of boxes")
    if detector in WITH_MASKS and about.detector not in WITH_MASKS:
        tensors = tensors | {name: x for name, x in fresh.items() if name.startswith(MASK_HEAD)}
    if detector not in WITH_MASKS:
        tensors = {name: x for name, x in tensors.items() if not name.startswith(MASK_HEAD)}
    try:
        load_strict(model, for_classes(tensors, fresh, known, classes) | anew, path)
    except ValueError as error:
        own = f"trained by --recipe {about.recipe.name}, this is {recipe.name}"
        raise click.ClickException(f"{path}: does not fit {ABOUT} beside it or the recipe ({own}): {error}") from None
    return f"all weights from {path}, heads included" + (f", but at random for {', '.join(left)}" if left else "")
