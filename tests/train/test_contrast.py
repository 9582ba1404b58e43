"""The contrast over a store in chunks against loops written from the papers' formulas, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from segloc_train.methods.common import contrast
from segloc_train.methods.common.contrast import info_nce, sup_con
from segloc_train.methods.common.queues import NO_CLASS, KeyStore

CLASSES = 3


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks, of which the last is shorter: 1 to 40 keys are walked in up to six."""
    monkeypatch.setattr(contrast, "chunk_size", lambda rows, device: 7)


def units(draws: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=draws, dtype=torch.float64), dim=-1)


def case(seed: int, samples: int, levels: int, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """queries, keys, store_keys, labels, store_labels; each query near its key, so that some are right."""
    draws = torch.Generator().manual_seed(seed)
    keys = units(draws, samples, levels, 6)
    queries = F.normalize(keys + 0.5 * torch.randn(keys.shape, generator=draws, dtype=torch.float64), dim=-1)
    labels = torch.randint(CLASSES, (samples,), generator=draws)
    store_labels = torch.randint(NO_CLASS, CLASSES, (count,), generator=draws)
    return queries, keys, units(draws, levels, count, 6), labels, store_labels


cases = given(
    st.integers(0, 2**16), st.integers(1, 6), st.integers(1, 3), st.integers(1, 40), st.sampled_from([0.07, 0.2, 1.0])
)


def same_value_and_gradient(mine: Tensor, other: Tensor, queries: Tensor) -> None:
    weights = torch.linspace(0.5, 1.5, mine.numel(), dtype=mine.dtype).view(mine.shape)
    assert torch.allclose(mine, other, rtol=1e-10, atol=1e-10)
    grads = [torch.autograd.grad((x * weights).sum(), queries)[0] for x in (mine, other)]
    assert torch.allclose(*grads, rtol=1e-9, atol=1e-10)


@settings(max_examples=30)
@cases
def test_info_nce_equals_a_naive_loop(seed: int, samples: int, levels: int, count: int, temperature: float) -> None:
    queries, keys, store, labels, store_labels = case(seed, samples, levels, count)
    queries.requires_grad_()
    draws = torch.Generator().manual_seed(seed + 1)
    by_class = torch.rand(CLASSES, count, generator=draws) < 0.6
    by_query = torch.rand(samples, count, generator=draws) < 0.3
    fifo = store_labels > NO_CLASS
    for seen, rows, table in (
        (by_class, labels, by_class[labels]),
        (by_query, None, by_query),
        (fifo, None, fifo.expand(samples, -1)),
    ):
        loss, correct = info_nce(queries, keys, store, seen, temperature, rows)
        naive = torch.zeros_like(loss)
        for n in range(samples):
            for level in range(levels):
                own = queries[n, level] @ keys[n, level] / temperature
                others = [queries[n, level] @ store[level, j] / temperature for j in table[n].nonzero()[:, 0]]
                naive[n, level] = -(own.exp() / sum([x.exp() for x in others], own.exp())).log()
                assert correct[n, level] == all(own > x for x in others)
        same_value_and_gradient(loss, naive, queries)


@settings(max_examples=30)
@cases
def test_sup_con_equals_a_naive_loop(seed: int, samples: int, levels: int, count: int, temperature: float) -> None:
    queries, keys, store, labels, store_labels = case(seed, samples, levels, count)
    queries.requires_grad_()
    seen = torch.rand(count, generator=torch.Generator().manual_seed(seed + 1)) < 0.7
    for own in (True, False):  # the queries' own keys are the newest of the store, or are not in it
        if own:
            joined = torch.cat([store, keys.transpose(0, 1)], 1)
            told, joined_labels = torch.cat([seen, torch.ones(samples).bool()]), torch.cat([store_labels, labels])
        else:
            joined, told, joined_labels = store, seen, store_labels
        loss, correct = sup_con(queries, keys, joined, told, joined_labels, labels, CLASSES, temperature)
        naive = 0 * queries.sum(-1)
        for n in range(samples):
            for level in range(levels):
                every = {j: queries[n, level] @ joined[level, j] / temperature for j in told.nonzero()[:, 0].tolist()}
                positives = [j for j in every if joined_labels[j] == labels[n]]
                assert positives or not own
                for j in positives:
                    share = every[j].exp() / sum(x.exp() for x in every.values())
                    naive[n, level] = naive[n, level] - share.log() / len(positives)
                mine = queries[n, level] @ keys[n, level] / temperature
                assert correct[n, level] == all(mine > x for j, x in every.items() if joined_labels[j] != labels[n])
        same_value_and_gradient(loss, naive, queries)


@pytest.mark.parametrize("temperature", [0.025, 0.07, 1.0])
def test_opposite_and_equal_keys_stay_finite_in_float32(temperature: float) -> None:
    queries = F.normalize(torch.randn(4, 2, 8), dim=-1).requires_grad_()
    seen = torch.ones(1, dtype=torch.bool)
    for sign in (1, -1):
        store = sign * queries[:1].detach().transpose(0, 1)  # the one negative equals query 0, or is opposite
        loss, correct = info_nce(queries, queries.detach(), store, seen, temperature)
        expected = math.log1p(math.exp((sign - 1) / temperature))
        assert torch.allclose(loss[0], torch.full((2,), expected), rtol=1e-3, atol=1e-6)
        assert sign > 0 or correct[0].all()
        (grad,) = torch.autograd.grad(loss.sum(), queries)
        assert grad.isfinite().all()


def test_without_negatives_the_loss_is_zero_and_so_is_its_gradient() -> None:
    queries, keys, store, *_ = (x.float() for x in case(0, 5, 2, 20))
    queries.requires_grad_()
    loss, correct = info_nce(queries, keys, store, torch.zeros(20, dtype=torch.bool), 0.2)
    (grad,) = torch.autograd.grad(loss.sum(), queries)
    assert (loss == 0).all() and correct.all() and (grad == 0).all()


def test_low_precision_queries_are_summed_in_float32() -> None:
    queries, keys, store, labels, store_labels = case(0, 5, 2, 20)
    queries, keys, store = queries.bfloat16(), keys.float(), store.float()
    seen = torch.ones(20, dtype=torch.bool)

    def both(queries: Tensor) -> list[Tensor]:
        one = info_nce(queries, keys, store, seen, 0.2)
        return [*one, *sup_con(queries, keys, store, seen, store_labels, labels, CLASSES, 0.2)]

    with torch.autocast("cpu", torch.bfloat16):
        mine = both(queries)
    assert all(torch.equal(x, y) for x, y in zip(mine, both(queries.float()), strict=True))


def test_a_temperature_too_low_for_float32_is_refused() -> None:
    queries, keys, store, *_ = (x.float() for x in case(0, 5, 2, 20))
    with pytest.raises(ValueError, match="temperature"):
        info_nce(queries, keys, store, torch.ones(20, dtype=torch.bool), 0.02)


class Questions(TorchDispatchMode):
    """Notes every operation whose result the host needs before it can go on: on CUDA it would wait there."""

    WAITING = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2"})

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            x is not None and x.dtype == torch.bool for x in args[1]
        )
        if name in self.WAITING or by_mask:
            self.asked.append(str(func))
        return func(*args, **(kwargs or {}))


def step(store: KeyStore, seed: int) -> list[Tensor]:
    """Enqueue, both losses and their gradients."""
    device = store.keys.device
    draws = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (9,), generator=draws)
    queries, keys = units(draws, 2, 9, 2, 6).float().to(device)
    rows = labels.to(device)
    return measured(store, queries.requires_grad_(), keys, labels, rows)


def measured(store: KeyStore, queries: Tensor, keys: Tensor, labels: Tensor, rows: Tensor) -> list[Tensor]:
    store.enqueue(keys, labels)
    one = info_nce(queries, keys, store.keys, store.visible, 0.2, rows)
    two = sup_con(queries, keys, store.keys, store.recent, store.slot_labels, rows, CLASSES, 0.2)
    (one[0].sum() + two[0].sum()).backward()
    assert queries.grad is not None
    return [*one, *two, queries.grad]


def test_a_step_asks_the_device_nothing() -> None:
    store = KeyStore(2, CLASSES, 20, 6, torch.Generator().manual_seed(0))
    with Questions() as questions:
        for seed in range(20):
            step(store, seed)
        assert questions.asked == []
        store.keys[:, store.recent].sum().item()
    assert questions.asked == ["aten.index.Tensor", "aten._local_scalar_dense.default"]  # it does notice


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_as_on_the_cpu_and_without_waiting() -> None:
    mine, other = (KeyStore(2, CLASSES, 20, 6, torch.Generator().manual_seed(0), x) for x in ("cuda", "cpu"))
    for seed in range(20):
        there, here = step(mine, seed), step(other, seed)
        assert torch.equal(mine.visible.cpu(), other.visible) and torch.equal(mine.recent.cpu(), other.recent)
        assert torch.equal(mine.keys.cpu(), other.keys)
        for x, y in zip(there, here, strict=True):
            assert torch.allclose(x.cpu().float(), y.float(), atol=1e-4)
    queries, keys = (F.normalize(torch.randn(9, 2, 6, device="cuda"), dim=-1) for _ in range(2))
    labels = torch.zeros(9, dtype=torch.int64)
    rows = labels.cuda()
    queries.requires_grad_()
    torch.cuda.set_sync_debug_mode("error")
    try:
        measured(mine, queries, keys, labels, rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")
