"""Batch statistics, the momentum copy and the network, against plain definitions."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from segloc_train.data.data import Batch, View
from segloc_train.dist import World
from segloc_train.methods.common.method import Settings
from segloc_train.methods.common.step import Step
from segloc_train.methods.segloc import Method
from segloc_train.model.backbone import LEVELS, SDANet, SelectiveDenseAttention
from segloc_train.model.encoder import Encoder, averaged_statistics, momentum_copy, momentum_update
from segloc_train.model.head import LevelBatchNorm, RoiHead
from segloc_train.run.observe import own_key_first

COUNT, GROUP = 16, 8


def unit(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def small_step(number: int = 0, size: int = 64) -> Step:
    """Objects of one flat colour each on noise; query and key show the same one."""
    draws = torch.Generator().manual_seed(5 + number)
    colour = torch.randint(256, (COUNT, 3, 1, 1), generator=draws, dtype=torch.uint8)
    views = []
    for _ in range(2):
        images = torch.randint(256, (COUNT, 3, size, size), generator=draws, dtype=torch.uint8)
        images[:, :, 16:48, 16:48] = colour
        views.append(View(images, torch.tensor([[16.0, 16, 48, 48]]).repeat(COUNT, 1)))
    labels = torch.arange(COUNT) % 3
    return Step(Batch(views[0], views[1], labels, torch.arange(COUNT)), labels, GROUP, "mild", 0, number, World())


def method() -> Method:
    torch.manual_seed(0)
    draws = torch.Generator().manual_seed(0)
    return Method(Settings("resnet18", 64, 3, 20, 0.2, draws, torch.device("cpu"))).train()


def test_momentum_copy_is_whole_and_moves_by_the_formula() -> None:
    """It leaves out the running statistics of BN alone: the key branch normalises by its batch and reads none."""
    model = method()
    assert [n for n, _ in model.key.named_parameters()] == [n for n, _ in model.query.named_parameters()]
    assert not any(x.requires_grad for x in model.key.parameters())
    for attention in model.query.backbone.attention:  # zero at the start, which stops the gradient before it
        nn.init.normal_(attention.refine.transform[-1].weight)  # type: ignore[union-attr, index, arg-type]
    before = {n: x.clone() for n, x in model.key.state_dict().items()}
    optimizer = torch.optim.SGD(model.query.parameters(), lr=0.1)
    for terms in model.losses(small_step()):
        terms.loss.sum().backward()
    # every parameter of the query branch takes part in the objective
    assert [n for n, x in model.query.named_parameters() if x.grad is None] == []
    optimizer.step()
    after_keys = {n: x.clone() for n, x in model.key.state_dict().items()}
    model.update(0.9)
    query = dict(model.query.named_parameters())
    left_out = []
    for name, x in model.key.state_dict().items():
        if name not in query:
            left_out.append(name)
            assert torch.equal(x, after_keys[name]), name
            continue
        assert torch.allclose(x, 0.9 * before[name] + 0.1 * query[name], atol=1e-6), name
        # A softmax cancels attend's bias, and over the single cell of P6 here it is constant.
        assert ".attend." in name or not torch.equal(x, before[name]), name
    assert {name.rsplit(".", 1)[1] for name in left_out} == {"running_mean", "running_var", "num_batches_tracked"}

    for name, x in model.key.named_buffers():  # whatever they hold, keys are the same
        if name.endswith("running_mean"):
            x.fill_(7)
    keys = small_step().keys(model.key)
    other = method()
    other.key.load_state_dict({**model.key.state_dict(), **{n: before[n] for n in left_out}})
    assert torch.equal(keys, small_step().keys(other.key))


class BoxMean(nn.Module):
    """The least network that shows the leak: BN over whole pictures, then the mean of the box, nothing mixed in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, view: View) -> Tensor:
        x = roi_align(self.norm(view.images), list(view.boxes[:, None]), 1, aligned=True)
        return F.normalize(x.flatten(1), dim=-1)


def test_batch_statistics_leak_unless_keys_change_groups() -> None:
    """The boxes hold nothing but noise, so finding one's own key is impossible, except by batch statistics.

    Around the boxes the two views of a pair share a tint, which reaches the box through BN alone.
    """
    draws = torch.Generator().manual_seed(1)
    count = 64
    tint = 60 * torch.randn(count, 3, 1, 1, generator=draws)
    boxes = torch.tensor([[0.0, 0, 32, 16]]).repeat(count, 1)
    rows = torch.arange(count)
    rival = rows[:, None] // GROUP != rows // GROUP  # as in the queues: keys of other groups
    network = BoxMean().train()

    def step(number: int) -> Step:
        views = []
        for _ in range(2):
            images = 128 + 4 * torch.randn(count, 3, 32, 32, generator=draws)
            images[:, :, 16:] += tint
            views.append(View(images.clamp(0, 255).to(torch.uint8), boxes))
        return Step(Batch(views[0], views[1], rows, rows), rows, GROUP, "none", 0, number, World())

    def in_order(view: View) -> Tensor:
        parts = [View(view.images[i : i + GROUP], boxes[:GROUP]) for i in range(0, count, GROUP)]
        return torch.cat([network(View(x.images.float(), x.boxes)) for x in parts])

    def accuracy(queries: Tensor, keys: Tensor) -> float:
        similarity = queries @ keys.T
        best = similarity.masked_fill(~rival, -torch.inf).amax(1)
        return (similarity.diagonal() > best).float().mean().item()

    leaking, closed = [], []
    for number in range(5):
        one = step(number)
        queries = torch.cat([network(group.view) for group in one.groups(network)])
        leaking.append(accuracy(queries, in_order(one.batch.key)))
        closed.append(accuracy(queries, one.keys(network)))
    assert min(leaking) > 0.5
    assert sum(closed) / 5 < 0.1


def numbered(count: int, number: int, group: int = GROUP) -> Step:
    """A step whose pairs carry their place in their boxes: i of the query, 1000 + i of the key."""
    images = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
    boxes = torch.arange(count, dtype=torch.float32)[:, None].expand(-1, 4)
    labels = torch.arange(count) % 3
    return Step(
        Batch(View(images, boxes), View(images, 1000 + boxes), labels, labels),
        labels,
        group,
        "none",
        1,
        number,
        World(),
    )


def test_keys_come_back_in_order_from_groups_of_the_permuted_batch() -> None:
    together: list[tuple[frozenset[int], ...]] = []
    for number in range(3):
        groups: list[list[int]] = []

        def embed(view: View, groups: list[list[int]] = groups) -> tuple[Tensor, Tensor]:
            groups.append(view.boxes[:, 0].int().tolist())
            return view.boxes[:, :1], view.boxes.sum(1)

        first, second = numbered(32, number).keys(embed)
        assert torch.equal(first[:, 0], 1000 + torch.arange(32.0)) and torch.equal(second, 4 * first[:, 0])
        assert [len(group) for group in groups] == [GROUP] * 4
        assert sorted(place for group in groups for place in group) == list(range(1000, 1032))
        together.append(tuple(sorted(map(frozenset, groups), key=min)))
    in_order = tuple(frozenset(range(i, i + GROUP)) for i in range(1000, 1032, GROUP))
    assert len({*together, in_order}) == 4  # another permutation at every step, and never none


def test_groups_are_the_batch_in_order() -> None:
    step = numbered(32, 0)
    groups = list(step.groups(nn.BatchNorm2d(3)))
    assert [group.rows for group in groups] == [slice(i, i + GROUP) for i in range(0, 32, GROUP)]
    assert torch.equal(torch.cat([group.view.boxes for group in groups]), step.batch.query.boxes)
    assert torch.equal(torch.cat([group.labels for group in groups]), step.labels)


class OtherRank(World):
    """The first of two ranks; the other one's statistics are known beforehand."""

    def __init__(self, others: list[Tensor]) -> None:
        super().__init__(0, 2)
        object.__setattr__(self, "others", others)

    def mean_(self, tensors: list[Tensor]) -> None:
        for x, other in zip(tensors, self.others, strict=True):  # type: ignore[attr-defined]
            x.add_(other).div_(2)


@pytest.mark.parametrize("groups", [2, 4])
def test_running_statistics_move_once_a_step_by_the_mean_over_groups(groups: int) -> None:
    draws = torch.Generator().manual_seed(groups)
    data = [3 * torch.randn(8, 3, generator=draws) + i for i in range(groups)]

    def after(mine: list[Tensor], world: World) -> list[Tensor]:
        norm = nn.BatchNorm1d(3)
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.fill_(0.5)
        for x in averaged_statistics(norm, mine, world):
            norm(x)
        return [norm.running_mean, norm.running_var]

    expected = [
        0.9 * 0.5 + 0.1 * torch.stack([x.mean(0) for x in data]).mean(0),
        0.9 + 0.1 * torch.stack([x.var(0) for x in data]).mean(0),
    ]
    alone = after(data, World())
    shared = after(data[: groups // 2], OtherRank(after(data[groups // 2 :], World())))
    for x, y, z in zip(expected, alone, shared, strict=True):
        assert torch.allclose(x, y) and torch.allclose(x, z)


def test_level_batch_norm_is_batch_norm_with_statistics_per_level() -> None:
    mine, plain = LevelBatchNorm(4), [nn.BatchNorm2d(4) for _ in range(LEVELS)]
    for step in range(3):
        for level in range(LEVELS):
            x = torch.randn(8, 4, 7, 7) * (level + 1) + step
            assert torch.equal(mine(x, level), plain[level](x))
    mine.eval()
    for level in range(LEVELS):
        x = torch.randn(8, 4, 7, 7)
        assert torch.equal(mine(x, level), plain[level].eval()(x))


def test_embeddings_do_not_start_in_a_cone() -> None:
    """Behind positive numbers all would point one way (cosine 0.75), and contrast would spread them along one line."""
    torch.manual_seed(0)
    view = View(torch.randn(32, 3, 64, 64), torch.tensor([[10.0, 20, 40, 50]]).repeat(32, 1))
    encoder = Encoder("resnet18", 64, RoiHead(64)).train()
    with torch.no_grad():
        found = encoder(view)
    cosines = torch.einsum("ild,jld->lij", found, found)
    others = (cosines.sum((1, 2)) - 32) / (32 * 31)
    assert found.shape == (32, LEVELS, 128) and others.abs().max() < 0.05
    assert found.mean(0).norm(dim=-1).max() < 0.1
    still = {name for name, _ in encoder.named_parameters() if "standardise" in name}
    assert not still, "zero mean and unit variance are not learnt away"


def test_momentum_update_keeps_and_takes_over() -> None:
    query = nn.Linear(3, 3)
    key = nn.Linear(3, 3)
    old = key.weight.clone()
    momentum_update(key, query, 1.0)
    assert torch.equal(key.weight, old)
    momentum_update(key, query, 0.0)
    assert torch.equal(key.weight, query.weight)
    assert not any(x.requires_grad for x in momentum_copy(Encoder("resnet18", 64, RoiHead(64))).parameters())


def naive_attention(module: SelectiveDenseAttention, levels: list[Tensor]) -> Tensor:
    """Selective dense attention step by step, with the stack of five maps written out."""
    size = levels[module.level].shape[-2:]
    stack = torch.stack(
        [
            F.adaptive_max_pool2d(x, size) if i < module.level else F.interpolate(x, size=size, mode="nearest")
            for i, x in enumerate(levels)
        ],
        1,
    )
    total = stack.sum(1)
    z = module.squeeze(total.mean((2, 3), keepdim=True))
    width = module.width
    logits = [
        F.conv2d(
            z, module.channel.weight[i * width : (i + 1) * width], module.channel.bias[i * width : (i + 1) * width]
        )  # type: ignore[index]
        for i in range(LEVELS)
    ]
    by_channel = (torch.stack(logits, 1).softmax(1) * stack).sum(1)
    both = torch.cat([total.mean(1, keepdim=True), total.max(1, keepdim=True).values], 1)
    maps = [F.conv2d(both, module.spatial.weight[i : i + 1], padding=3) for i in range(LEVELS)]
    by_place = (torch.stack(maps, 1).softmax(1) * stack).sum(1)
    x = by_channel + by_place
    weights = module.refine.attend(x).flatten(1).softmax(1)
    context = torch.einsum("ncp,np->nc", x.flatten(2), weights)[:, :, None, None]
    return x + module.refine.transform(context) + levels[module.level]


def test_attention_equals_its_definition_and_sizes_are_the_pyramids() -> None:
    torch.manual_seed(0)
    levels = [torch.randn(8, 64, s, s + 1) for s in (17, 9, 5, 3, 2)]
    for level in range(LEVELS):
        module = SelectiveDenseAttention(64, level)
        nn.init.normal_(module.refine.transform[-1].weight)  # type: ignore[arg-type]
        assert torch.allclose(module(levels), naive_attention(module, levels), atol=1e-4)
    for width, parameters in ((256, 207_000), (64, None)):
        module = SelectiveDenseAttention(width, 0)
        if parameters:
            assert abs(sum(x.numel() for x in module.parameters()) - parameters) < 1000
    with torch.no_grad():
        maps = SDANet("resnet50", 64)(torch.randn(8, 3, 96, 128))
    assert [tuple(x.shape) for x in maps] == [
        (8, 64, 24, 32),
        (8, 64, 12, 16),
        (8, 64, 6, 8),
        (8, 64, 3, 4),
        (8, 64, 2, 2),
    ]


def test_own_key_first_counts_only_other_classes() -> None:
    keys = unit(6, 2, 8, seed=1)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    assert own_key_first(keys, keys, labels).tolist() == [1.0, 1.0]  # type: ignore[union-attr]
    swapped = keys.clone()
    swapped[[0, 1]] = keys[[1, 0]]  # confusion inside a class may or may not count, across classes it must
    swapped[[3, 5]] = keys[[5, 3]]
    naive = []
    for level in range(2):
        hits = 0
        for i in range(6):
            s = (keys[i, level] * swapped[:, level]).sum(-1)
            hits += bool(s[i] > max(s[j] for j in range(6) if labels[j] != labels[i]))
        naive.append(hits / 6)
    found = own_key_first(keys, swapped, labels)
    assert found is not None and torch.allclose(found, torch.tensor(naive))
    assert own_key_first(keys, keys, torch.zeros(6)) is None
