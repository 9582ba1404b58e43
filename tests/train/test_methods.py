"""Every method against loops written from its definition, and what all of them promise."""

import copy
import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module, reload
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.train.conftest import clutter, draw
from torch import Tensor, nn
from torchvision.ops import box_iou

from segloc_train import cli, flags, methods
from segloc_train.data.data import Batch, View
from segloc_train.dist import World
from segloc_train.flags import METHODS
from segloc_train.methods import insloc
from segloc_train.methods.common.contrast import info_nce, sup_con
from segloc_train.methods.common.method import Contrast, Method, Settings
from segloc_train.methods.common.queues import NO_CLASS
from segloc_train.methods.common.step import Group, Step
from segloc_train.methods.cp2 import foreground
from segloc_train.methods.densecl import matched
from segloc_train.model.backbone import LEVELS
from segloc_train.model.encoder import Encoder

pytestmark = pytest.mark.usefixtures("thin", "bare")
NAMES = METHODS
CONTRASTIVE = [name for name in NAMES if name != "classify"]
COUNT, GROUP, SIZE, CLASSES, K, T = 16, 8, 64, 3, 20, 0.2
PAGE = Path(__file__).parents[2] / "docs" / "METHODS.md"


def step(number: int) -> Step:
    """Coloured shapes on clutter, with their masks; the class is the shape."""
    rng = np.random.default_rng(number)
    labels = rng.integers(CLASSES, size=COUNT)
    colours = rng.integers(0, 200, (COUNT, 2, 3)).tolist()
    views = []
    for _ in range(2):
        images, masks, boxes = [], [], []
        for shape, own in zip(labels, colours, strict=True):
            side = int(rng.integers(24, 40))
            x, y = rng.integers(0, SIZE - side, 2).tolist()
            image, blank = clutter(rng, SIZE), np.full((SIZE, SIZE, 3), 255, np.uint8)
            for canvas in (image, blank):
                draw(canvas, int(shape), own, (x, y, side))
            images.append(image.transpose(2, 0, 1))
            masks.append((blank < 255).any(-1))
            boxes.append([x, y, x + side, y + side])
        parts = (
            torch.from_numpy(np.stack(images)),
            torch.tensor(boxes).float(),
            torch.from_numpy(np.stack(masks)).byte(),
        )
        views.append(View(*parts))
    told = torch.from_numpy(labels)
    return Step(Batch(views[0], views[1], told, torch.arange(COUNT)), told, GROUP, "mild", 0, number, World())


def build(name: str, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    draws = torch.Generator().manual_seed(seed)
    kind = import_module(f"segloc_train.methods.{name}").Method
    method: Method = kind(Settings("resnet18", 64, CLASSES, K, T, draws, torch.device("cpu"))).train()
    for attention in method.query.backbone.attention:  # zero at the start, which stops the gradient before it
        nn.init.normal_(attention.refine.transform[-1].weight)  # type: ignore[union-attr, index, arg-type]
    method.update(0.0)
    return method


def train(method: Method, numbers: range) -> list[Tensor]:
    """Do some steps; the loss [levels] of each."""
    optimizer = torch.optim.SGD([x for x in method.parameters() if x.requires_grad], 0.02, momentum=0.9)
    losses = []
    for number in numbers:
        optimizer.zero_grad()
        parts = []
        for terms in method.losses(step(number)):
            terms.loss.sum().backward()
            parts.append(terms.loss.detach())
        optimizer.step()
        method.update(0.9)
        losses.append(torch.stack(parts).sum(0))
    return losses


# --- losses, from their definitions, in float64 ---


class Definition:
    """The second step of a method, embedded by its own network; queues are lists of everything that came before."""

    def __init__(self, method: Method) -> None:
        self.step, self.labels, before = step(1), step(1).labels.tolist(), step(0)
        self.views = [self.query_view(group) for group in self.step.groups(method.query)]
        if isinstance(method, Contrast):
            start = [store.keys.double() for store in method.stores()]
            assert all(x.shape[1] == K for x in start)
            self.past = [[(x[:, i], NO_CLASS) for i in range(K)] for x in start]
            self.append(before.keys(method.key), before.labels.tolist())
            self.keys = self.step.keys(method.key)
        list(method.losses(before))
        outs = [method.query(view) for view in self.views]
        self.outs = [torch.cat(x).double() for x in (zip(*outs, strict=True) if isinstance(outs[0], tuple) else [outs])]

    def query_view(self, group: Group) -> View:
        return group.view

    def first(self, keys: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
        """What of the keys enters which queue."""
        return [keys] if isinstance(keys, Tensor) else [keys[0]]

    def append(self, keys: Tensor | tuple[Tensor, ...], labels: list[int]) -> None:
        for past, new in zip(self.past, self.first(keys), strict=True):
            past.extend((key.double(), label) for key, label in zip(new, labels, strict=True))

    def loss(self) -> Tensor:
        """[levels], the mean over the batch."""
        if hasattr(self, "past"):
            self.append(self.keys, self.labels)
        each = [[self.sample(n, level) for level in range(LEVELS)] for n in range(COUNT)]
        return torch.tensor(each, dtype=torch.float64).mean(0)

    def queue(self, level: int, without: int) -> list[Tensor]:
        """The last K keys of classes other than `without`."""
        return [key[level] for key, label in self.past[0] if label != without][-K:]

    def others(self, level: int, n: int, which: int = 0) -> list[Tensor]:
        """The last K keys but the own one of sample n, all of the batch having entered in order."""
        entries = self.past[which][-K:]
        return [key[level] for place, (key, _) in enumerate(entries) if place != K - COUNT + n]

    def sample(self, n: int, level: int) -> float:
        raise NotImplementedError


def cross_entropy(query: Tensor, positive: Tensor, negatives: list[Tensor], temperature: float = T) -> float:
    own = (query @ positive / temperature).exp()
    return float(-(own / (own + sum((query @ x / temperature).exp() for x in negatives))).log())


class Moco(Definition):
    def sample(self, n: int, level: int) -> float:
        return cross_entropy(self.outs[0][n, level], self.keys[n, level].double(), self.others(level, n))


class Insloc(Moco):
    def query_view(self, group: Group) -> View:
        moved = insloc.shifted(group.view.boxes, SIZE, group.generator)
        assert not torch.equal(moved, group.view.boxes)
        own = group.view.boxes
        return group.view._replace(boxes=torch.stack([own, own, own, moved, own]))


class Segloc(Definition):
    def sample(self, n: int, level: int) -> float:
        negatives = self.queue(level, self.labels[n])
        assert len(negatives) == K
        return cross_entropy(self.outs[0][n, level], self.keys[n, level].double(), negatives)


class Supcon(Segloc):
    def sample(self, n: int, level: int) -> float:
        query = self.outs[0][n, level]
        scores = [((query @ key[level] / T).exp(), label) for key, label in self.past[0][-K:]]
        total = sum(x for x, _ in scores)
        positives = [-(x / total).log() for x, label in scores if label == self.labels[n]]
        return float(sum(positives) / len(positives))


class Densecl(Definition):
    def first(self, keys: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
        return [keys[0], keys[3]]

    def sample(self, n: int, level: int) -> float:
        keys, dense, features, _ = (x[n, level].double() for x in self.keys)
        query, parts, looks, _ = (x[n, level] for x in self.outs)
        whole = cross_entropy(query, keys, self.others(level, n))
        cells = 0.0
        for cell in range(49):
            alike = [float(looks[cell] @ other) for other in features]
            cells += cross_entropy(parts[cell], dense[alike.index(max(alike))], self.others(level, n, 1)) / 49
        return 0.5 * whole + 0.5 * cells


class Cp2(Definition):
    def sample(self, n: int, level: int) -> float:
        _, dense, inside = (x[n].double() for x in self.keys)
        parts, mine = self.outs[1][n, level], self.outs[2][n]
        dense = dense[level]
        pooled = [sum(x for x, fore in zip(*pair, strict=True) if fore) for pair in ((parts, mine), (dense, inside))]
        query, key = (x / x.norm() for x in pooled)
        assert 0 < mine.sum() < 49
        scores = (parts @ dense.T).exp().tolist()  # [of the query, of the key]
        pairs = []
        for j in range(49):
            total = sum(scores[i][j] for i in range(49))
            pairs += [-math.log(scores[i][j] / total) for i in range(49) if mine[i] and inside[j]]
        return cross_entropy(query, key, self.others(level, n)) + 0.2 * sum(pairs) / len(pairs)


class Classify(Definition):
    def __init__(self, method: Method) -> None:
        """Odd steps show the keys' pictures."""
        super().__init__(method)
        shown = replace(self.step, batch=self.step.batch._replace(query=self.step.batch.key))
        self.outs = [torch.cat([method.query(group.view)[0] for group in shown.groups(method.query)]).double()]

    def sample(self, n: int, level: int) -> float:
        scores = self.outs[0][n, level].exp()
        return float(-(scores[self.labels[n]] / scores.sum()).log())


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_step_is_the_definition(name: str) -> None:
    method = build(name)
    definition = globals()[name.capitalize()](method)
    parts = [terms.loss for terms in method.losses(definition.step)]
    assert len(parts) == COUNT // GROUP
    assert torch.allclose(torch.stack(parts).sum(0).double(), definition.loss(), rtol=1e-4)


@torch.no_grad()
def test_dense_means_are_of_raw_projections() -> None:
    """DenseCL's second queue averages before it normalises."""
    head = build("densecl").query.head.eval()
    maps = [torch.randn(2, 64, 64 // 2**i, 64 // 2**i) for i in range(2, 7)]
    raw: list[Tensor] = []
    head.dense.register_forward_hook(lambda module, args, out: raw.append(out))  # type: ignore[union-attr]
    *_, means = head(maps, View(torch.empty(2, 3, 64, 64), torch.tensor([[8.0, 8, 40, 50]] * 2)))
    for level, x in enumerate(raw):
        expected = x.double().flatten(2).mean(2)
        assert torch.allclose(means[:, level].double(), expected / expected.norm(dim=-1, keepdim=True), atol=1e-5)


# --- who is contrasted with whom ---


@pytest.mark.parametrize("name", [name for name in CONTRASTIVE if name != "supcon"])
@torch.no_grad()
def test_own_key_is_no_negative_and_other_classes_only_in_segloc(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, calls = build(name), []

    def spy(queries: Tensor, keys: Tensor, store: Tensor, seen: Tensor, temperature: float, *labels: Tensor) -> object:
        rows = seen[labels[0]] if labels else seen.expand(len(queries), -1)
        own = (keys[:, :1] == store[:1].transpose(0, 1)[None, :, 0]).all(-1)  # [N, slots]
        calls.append(bool((own & rows).any()))
        return info_nce(queries, keys, store, seen, temperature, *labels)

    monkeypatch.setattr(f"segloc_train.methods.{'moco' if name == 'insloc' else name}.info_nce", spy)
    for number in range(2):
        list(method.losses(step(number)))
        if name == "segloc":
            assert method.health()["collisions"] == 0
    assert len(calls) >= 4 and not any(calls)


@torch.no_grad()
def test_own_key_is_among_the_positives_of_supcon(monkeypatch: pytest.MonkeyPatch) -> None:
    method, calls = build("supcon"), []

    def spy(
        queries: Tensor, keys: Tensor, store: Tensor, seen: Tensor, classes: Tensor, labels: Tensor, *rest
    ) -> object:  # type: ignore[no-untyped-def]
        own = (keys[:, None, 0] == store[0]).all(-1)  # [N, slots]
        calls.append(bool((own & seen & (classes == labels[:, None])).any(1).all()))
        return sup_con(queries, keys, store, seen, classes, labels, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("segloc_train.methods.supcon.sup_con", spy)
    for number in range(2):
        list(method.losses(step(number)))
    assert len(calls) == 4 and all(calls)


# --- laws ---


@settings(max_examples=50)
@given(st.integers(0, 2**16), st.sampled_from([64, 96, 256]))
def test_shifted_boxes_overlap_by_half_or_stay(seed: int, size: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    side = 4 + torch.rand(20, 2, generator=draws) * (size - 4)
    low = torch.rand(20, 2, generator=draws) * (size - side)
    boxes = torch.cat([low, low + side], 1)
    moved = insloc.shifted(boxes, size, draws)
    overlap = box_iou(boxes, moved).diagonal()
    same = (moved == boxes).all(1)
    assert (same | (overlap > 0.5)).all()
    assert (moved >= 0).all() and (moved <= size).all() and (moved[:, 2:] > moved[:, :2]).all()
    possible = (box_iou(boxes, insloc.anchors(size, boxes.device)) > 0.5).any(1)
    assert (possible | same).all()


def test_shifted_boxes_cover_every_anchor_that_overlaps() -> None:
    box = torch.tensor([[40.0, 50, 100, 120]])
    many = insloc.shifted(box.expand(4000, -1), 256, torch.Generator().manual_seed(0))
    candidates = insloc.anchors(256, box.device)
    possible = candidates[(box_iou(box, candidates) > 0.5)[0]]
    found, counts = many.unique(dim=0, return_counts=True)
    assert len(possible) > 10 and torch.equal(found, possible.unique(dim=0))
    assert counts.max() < 2 * counts.min()


@settings(max_examples=50)
@given(st.integers(0, 2**16))
def test_foreground_is_what_the_mask_covers_by_half_and_never_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = np.zeros((4, SIZE, SIZE), np.uint8)
    boxes = np.zeros((4, 4))
    for mask, box in zip(masks, boxes, strict=True):
        cell = int(rng.integers(1, 9))
        x, y = rng.integers(0, SIZE - 7 * cell + 1, 2)
        box[:] = x, y, x + 7 * cell, y + 7 * cell  # cells of whole pixels, so that shares can be counted
        x1, y1 = rng.integers(0, SIZE, 2)
        mask[y1 : y1 + rng.integers(1, 40), x1 : x1 + rng.integers(1, 40)] = 1
    inside = foreground(torch.from_numpy(masks), torch.from_numpy(boxes).float()).view(4, 7, 7)
    assert (inside.sum((1, 2)) >= 1).all()
    for mask, (x1, y1, x2, _), found in zip(masks, boxes.astype(int), inside, strict=True):
        cell = (x2 - x1) // 7
        parts = mask[y1 : y1 + 7 * cell, x1 : x1 + 7 * cell].reshape(7, cell, 7, cell)
        share = parts.mean((1, 3), dtype=np.float64)
        # RoIAlign samples a cell in 4 x 4 points and reads between pixels: it may be off near the half.
        assert (found.numpy()[share > 0.75] == 1).all()
        if share.max() > 0.75:
            assert (found.numpy()[share < 0.25] == 0).all()


@settings(max_examples=30)
@given(st.integers(0, 2**16))
def test_matched_takes_the_most_similar_cell(seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    looks, features, dense = (torch.randn(3, 2, 9, size, generator=draws) for size in (5, 5, 4))
    found = matched(looks, features, dense)
    for n in range(3):
        for level in range(2):
            for cell in range(9):
                alike = [float(looks[n, level, cell] @ x) for x in features[n, level]]
                assert torch.equal(found[n, level, cell], dense[n, level, alike.index(max(alike))])


# --- what every method promises ---


@pytest.mark.parametrize("name", NAMES)
def test_all_parameters_learn_and_a_restored_state_goes_on_bit_for_bit(name: str) -> None:
    method = build(name)
    (loss,) = train(method, range(1))
    assert loss.shape == (LEVELS,) and loss.isfinite().all()
    learning = {n: x for n, x in method.named_parameters() if x.requires_grad}
    assert {n for n, x in learning.items() if x.grad is None or not x.grad.isfinite().all()} == set()
    # A softmax cancels attend's bias, and over the single cell of P6 here it is constant.
    still = {n for n, x in learning.items() if not x.grad.any() and ".attend." not in n}  # type: ignore[union-attr]
    assert still == set()
    health = method.health()
    assert all(np.isfinite(value) for value in health.values())
    json.dumps(health)
    assert {id(x) for x in method.query.parameters()} <= {id(x) for x in learning.values()}

    stored = io.BytesIO()
    torch.save(method.state_dict(), stored)
    stored.seek(0)
    other = build(name, seed=1)
    other.load_state_dict(torch.load(stored, weights_only=True))
    assert torch.equal(*(torch.stack(train(x, range(1, 3))) for x in (method, other)))
    for (n, x), y in zip(method.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(x, y), n


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_embeddings_find_pairs(name: str) -> None:
    """What held_out_accuracy reads: unit vectors of every level, and some skill, in evaluation mode."""
    method = build(name).eval()
    view = next(step(0).groups(copy.deepcopy(method.query))).view
    found = method.embed(view)
    assert found.shape[:2] == (GROUP, LEVELS) and found.dtype == torch.float32
    assert torch.allclose(found.norm(dim=-1), torch.ones(GROUP, LEVELS), atol=1e-5)


@pytest.mark.parametrize(
    "name", [name if name in ("segloc", "cp2") else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_bfloat16_trains_alike(name: str) -> None:
    """The same loss within what seven bits of mantissa allow, from float32 weights that stay so."""
    exact, coarse = build(name), build(name)
    assert coarse.branches() == [module for module in coarse.modules() if isinstance(module, Encoder)]
    for branch in coarse.branches():
        branch.low_precision = True
    (one,), (other,) = train(exact, range(1)), train(coarse, range(1))
    assert not torch.equal(one, other)
    assert torch.allclose(one, other, rtol=0.03)
    assert {x.dtype for x in coarse.parameters()} == {torch.float32}


# --- the newcomer's way ---


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The example of docs/METHODS.md, in a file of its own."""
    code = PAGE.read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "batchwise.py").write_text(code)
    assert len(code.splitlines()) <= 30
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    for module in (flags, cli):
        reload(module)
    yield "batchwise"
    monkeypatch.undo()
    for module in (flags, cli):
        reload(module)


def test_a_new_file_is_a_new_method(newcomer: str, shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ["--arch", "resnet18", "--width", "64", "--batch-size", "16", "--epochs", "1", "--workers", "0"]
    done = CliRunner().invoke(
        cli.command, ["--shards", str(shards), "--out", str(run), "--method", newcomer, "--device", "cpu", *small]
    )
    assert done.exit_code == 0, done.output
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 7 and np.isfinite(records[-1]["loss"])
    assert json.loads((run / "meta.json").read_text())["method"] == newcomer
    assert (run / "backbone.pth").is_file()
