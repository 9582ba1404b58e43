"""The objective, the batch statistics, the momentum copy and the network, against plain definitions."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from segloc_train.backbone import LEVELS, SDANet, SelectiveDenseAttention
from segloc_train.data import Batch, View
from segloc_train.encoder import Encoder, embed_shuffled, momentum_copy, momentum_update
from segloc_train.head import LevelBatchNorm
from segloc_train.held_out import own_key_first
from segloc_train.methods.segloc import SegLoc, info_nce


def unit(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    samples=st.integers(1, 5),
    levels=st.integers(1, 3),
    count=st.integers(1, 9),
    temperature=st.sampled_from([0.07, 0.2, 1.0]),
)
def test_info_nce_equals_a_naive_loop(seed: int, samples: int, levels: int, count: int, temperature: float) -> None:
    queries, keys = unit(samples, levels, 8, seed=seed), unit(samples, levels, 8, seed=seed + 1)
    negatives = unit(levels, count, 8, seed=seed + 2)
    visible = torch.rand(samples, count, generator=torch.Generator().manual_seed(seed)) < 0.6
    visible[:, 0] = True
    bias = torch.zeros(samples, count).masked_fill(~visible, -torch.inf)
    queries.requires_grad_()
    loss, correct = info_nce(queries, keys, negatives, bias, temperature)
    for i in range(samples):
        for level in range(levels):
            q = queries[i, level].tolist()

            def logit(k: Tensor, q: list[float] = q) -> float:
                return sum(a * b for a, b in zip(q, k.tolist(), strict=True)) / temperature

            positive = logit(keys[i, level])
            rivals = [logit(negatives[level, j]) for j in range(count) if visible[i, j]]
            total = math.exp(positive) + sum(math.exp(x) for x in rivals)
            assert math.isclose(
                loss[i, level].item(), -math.log(math.exp(positive) / total), rel_tol=1e-4, abs_tol=1e-5
            )
            if abs(positive - max(rivals)) > 1e-5:
                assert correct[i, level].item() == (positive > max(rivals))
    loss.sum().backward()
    assert queries.grad is not None and queries.grad.isfinite().all()


def small_batch(count: int = 16, size: int = 64) -> Batch:
    """Objects of one flat colour each on noise; query and key show the same one."""
    draws = torch.Generator().manual_seed(5)
    colour = torch.rand(count, 3, 1, 1, generator=draws) * 4 - 2
    views = []
    for _ in range(2):
        images = torch.randn(count, 3, size, size, generator=draws)
        images[:, :, 16:48, 16:48] = colour
        views.append(View(images, torch.tensor([[16.0, 16, 48, 48]]).repeat(count, 1)))
    return Batch(views[0], views[1], torch.arange(count) % 3)


def method(group: int = 8) -> SegLoc:
    torch.manual_seed(0)
    draws = torch.Generator().manual_seed(0)
    return SegLoc("resnet18", 64, 3, 20, 0.2, group, draws, torch.device("cpu")).train()


def test_momentum_copy_is_whole_and_moves_by_the_formula() -> None:
    model, batch = method(), small_batch()
    assert [n for n, _ in model.key.named_parameters()] == [n for n, _ in model.query.named_parameters()]
    assert not any(x.requires_grad for x in model.key.parameters())
    for attention in model.query.backbone.attention:  # zero at the start, which stops the gradient before it
        nn.init.normal_(attention.refine.transform[-1].weight)  # type: ignore[union-attr, index, arg-type]
    before = {n: x.clone() for n, x in model.key.named_parameters()}
    optimizer = torch.optim.SGD(model.query.parameters(), lr=0.1)
    for terms in model.losses(batch, torch.randperm(16)):
        terms.loss.sum().backward()
    # every parameter of the query branch takes part in the objective
    assert [n for n, x in model.query.named_parameters() if x.grad is None] == []
    optimizer.step()
    model.update(0.9)
    query = dict(model.query.named_parameters())
    for name, x in model.key.named_parameters():
        assert torch.allclose(x, 0.9 * before[name] + 0.1 * query[name], atol=1e-6), name
        # A softmax cancels attend's bias, and over the single cell of P6 here it is constant.
        assert ".attend." in name or not torch.equal(x, before[name]), name


def test_a_step_is_info_nce_over_queues_that_hold_its_keys() -> None:
    """Parts sum to the mean over the batch; a query sees the batch's keys of other classes, never its own key."""
    model, other, batch = method(), method(), small_batch()
    permutation = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    parts = list(model.losses(batch, permutation))
    assert len(parts) == 2 and model.store.labels[-16:].tolist() == batch.labels.tolist()
    keys = embed_shuffled(other.key, *batch.key, 8, permutation)
    assert torch.allclose(model.store.keys[:, -16:], keys.transpose(0, 1), atol=1e-5)
    other.store.enqueue(keys, batch.labels)
    bias = other.store.bias()[batch.labels]
    assert (bias[torch.arange(16), -16 + torch.arange(16)] == -torch.inf).all()
    queries = torch.cat([other.query(batch.query.images[i : i + 8], batch.query.boxes[i : i + 8]) for i in (0, 8)])
    loss, correct = info_nce(queries, keys, other.store.keys, bias, 0.2)
    assert torch.allclose(torch.stack([p.loss for p in parts]).sum(0), loss.mean(0), atol=1e-4)
    assert torch.allclose(torch.stack([p.accuracy for p in parts]).sum(0), correct.float().mean(0))


class BoxMean(nn.Module):
    """The least network that shows the leak: BN over whole pictures, then the mean of the box, nothing mixed in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor, boxes: Tensor) -> Tensor:
        x = roi_align(self.norm(images), list(boxes[:, None]), 1, aligned=True)
        return F.normalize(x.flatten(1), dim=-1)[:, None]


def test_batch_statistics_leak_unless_keys_change_groups() -> None:
    """The boxes hold nothing but noise, so finding one's own key is impossible, except by batch statistics.

    Around the boxes the two views of a pair share a tint, which reaches the box through BN alone.
    """
    draws = torch.Generator().manual_seed(1)
    count, group = 64, 8
    tint = 3 * torch.randn(count, 3, 1, 1, generator=draws)
    boxes = torch.tensor([[0.0, 0, 32, 16]]).repeat(count, 1)
    rows = torch.arange(count)
    rival = rows[:, None] // group != rows // group  # as in the queues: keys of other groups

    def accuracy(permutation: Tensor) -> float:
        sides = []
        for order in (rows, permutation):
            images = 0.1 * torch.randn(count, 3, 32, 32, generator=draws)
            images[:, :, 16:] += tint
            sides.append(embed_shuffled(BoxMean().train(), images, boxes, group, order)[:, 0])
        similarity = sides[0] @ sides[1].T
        best = similarity.masked_fill(~rival, -torch.inf).amax(1)
        return (similarity.diagonal() > best).float().mean().item()

    assert accuracy(rows) > 0.5
    assert sum(accuracy(torch.randperm(count, generator=draws)) for _ in range(5)) / 5 < 0.1


def test_shuffled_embeddings_come_back_in_order() -> None:
    encoder = method().query.eval()
    batch = small_batch()
    with torch.no_grad():
        plain = encoder(*batch.query)
        shuffled = embed_shuffled(encoder, *batch.query, 8, torch.randperm(16))
    assert torch.allclose(plain, shuffled, atol=1e-5)
    assert torch.allclose(plain.norm(dim=-1), torch.ones(16, LEVELS), atol=1e-5)


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


def test_momentum_update_keeps_and_takes_over() -> None:
    query = nn.Linear(3, 3)
    key = nn.Linear(3, 3)
    old = key.weight.clone()
    momentum_update(key, query, 1.0)
    assert torch.equal(key.weight, old)
    momentum_update(key, query, 0.0)
    assert torch.equal(key.weight, query.weight)
    assert not any(x.requires_grad for x in momentum_copy(Encoder("resnet18", 64)).parameters())


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
