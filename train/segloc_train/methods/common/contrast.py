"""Contrastive losses of queries against many stored keys, in chunks: no [N, M] tensor ever exists.

Cosines lie in [-1, 1], so a logit is at most 1/T, known beforehand: exp(logit - 1/T) cannot overflow and sums
need no running maximum. With E = exp(q k^T / T - 1/T) of the seen keys, S = sum of E and V = E k, the gradient of
log S for q is V / (S T): it is ready after the one walk forward, and going back costs nothing.
"""

from typing import Any

import torch
from torch import Tensor

CPU_LOGITS = 512 * 1024  # logits of a chunk, for each thread
CUDA_LOGITS = 4 * 1024 * 1024
MIN_TEMPERATURE = 0.025  # 2 / T < 87, or else float32 loses the keys opposite to the query


def chunk_size(rows: int, device: torch.device) -> int:
    """Keys walked at once by `rows` queries (of all levels together).

    CPU: 2 MiB of logits for each thread (measured with one on an AMD EPYC, 1 MiB of second-level cache: flat from
    160 KiB to 2.5 MiB, 5 to 20 % slower at 40 KiB and 20 MiB; threads would rather meet seldom).
    CUDA: 16 MiB fit the second-level cache of an A100 (40 MB) or H100 (50 MB), and are enough to fill every
    multiprocessor, so that the handful of kernels a chunk takes is few against the work (by reasoning, unmeasured).
    """
    logits = CUDA_LOGITS if device.type == "cuda" else CPU_LOGITS * torch.get_num_threads()
    return max(logits // max(rows, 1) // 64 * 64, 64)


class _MaskedLogSumExp(torch.autograd.Function):
    """See masked_logsumexp()."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        seen: Tensor,
        labels: Tensor | None,
        rivals: Tensor | None,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        levels, count, _ = queries.shape
        scaled = (queries / temperature).contiguous()
        total = queries.new_zeros(levels, count)
        weighted = torch.zeros_like(scaled)
        hardest = queries.new_full((levels, count), -torch.inf)

        def bias(mask: Tensor, value: float) -> Tensor:
            """[N or 1, chunk]: `value` where the mask is set, else -inf; added to the product, for 0 * inf is NaN."""
            rows = torch.where(mask, queries.new_full((), value), -torch.inf)
            return rows if labels is None or len(mask) == 1 else rows.index_select(0, labels)

        chunk = chunk_size(levels * count, queries.device)
        buffer = queries.new_empty(levels * count * min(chunk, keys.shape[1]))
        for first in range(0, keys.shape[1], chunk):
            part = keys[:, first : first + chunk]
            logits = buffer[: levels * count * part.shape[1]].view(levels, count, part.shape[1])
            visible = bias(seen[:, first : first + chunk], -1 / temperature)
            torch.baddbmm(visible.expand_as(logits), scaled, part.transpose(1, 2), out=logits)
            rival = logits if rivals is None else logits + bias(rivals[:, first : first + chunk], 0.0)
            torch.maximum(hardest, rival.amax(-1), out=hardest)
            logits.exp_()
            total += logits.sum(-1)
            if ctx.needs_input_grad[0]:
                weighted.baddbmm_(logits, part)
        # a query that sees nothing: log 0, and no gradient
        ctx.save_for_backward(weighted.div_((total * temperature).clamp_min_(torch.finfo(total.dtype).tiny)[..., None]))
        hardest += 1 / temperature
        ctx.mark_non_differentiable(hardest)
        return total.log_().add_(1 / temperature), hardest

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (direction,) = ctx.saved_tensors
        return grad[..., None] * direction, None, None, None, None, None


def masked_logsumexp(
    queries: Tensor,
    keys: Tensor,
    seen: Tensor,
    temperature: float,
    labels: Tensor | None = None,
    rivals: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Log of the sum of exp(q.k / T), and the largest q.k / T, over the keys that each query sees.

    Args:
        queries: float32 or float64 [L, N, D], unit norm; they alone get a gradient.
        keys: [L, M, D] of the same type, unit norm. Keys nobody sees must be finite.
        seen: bool [M] for all queries alike; [N, M] for each; or [C, M] for each class, with `labels`.
        temperature: T, at least 0.025: below, exp(-2 / T) leaves float32.
        labels: int64 [N] on the queries' device: row of `seen` (and `rivals`) for each query.
        rivals: bool like `seen`, of it the keys that the largest is taken over; all where it is left out.

    Returns:
        log_sum [L, N], -inf where a query sees nothing (then without gradient); largest [L, N], no gradient.

    ValueError for a smaller temperature.
    """
    if temperature < MIN_TEMPERATURE:
        raise ValueError(f"temperature {temperature}: at least {MIN_TEMPERATURE}")
    if not queries.dtype.is_floating_point or queries.dtype.itemsize < 4:
        queries = queries.float()  # sums over thousands of keys need it
    masks = (seen.view(-1, seen.shape[-1]), None if rivals is None else rivals.view(-1, rivals.shape[-1]))
    with torch.autocast(queries.device.type, enabled=False):
        return _MaskedLogSumExp.apply(queries, keys, masks[0], labels, masks[1], temperature)


def info_nce(
    queries: Tensor,
    keys: Tensor,
    store_keys: Tensor,
    seen: Tensor,
    temperature: float,
    labels: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """InfoNCE (arXiv 1807.03748) of every sample and level.

    Args:
        queries, keys: float32 [N, L, D], unit norm; keys[i] is the positive of queries[i].
        store_keys, seen, temperature, labels: the negatives, as in masked_logsumexp(); the positive must not be among
            them.

    Returns:
        loss float32 [N, L]: -log of the softmax weight of the positive; 0 where there is no negative.
        correct bool [N, L]: the positive beats every negative.
    """
    positive = (queries * keys).sum(-1).T / temperature  # [L, N]
    negatives, hardest = masked_logsumexp(queries.transpose(0, 1), store_keys, seen, temperature, labels)
    loss = torch.logaddexp(positive, negatives) - positive
    return loss.T, (positive > hardest).T


def sup_con(
    queries: Tensor,
    keys: Tensor,
    store_keys: Tensor,
    seen: Tensor,
    store_labels: Tensor,
    labels: Tensor,
    classes: int,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Supervised contrast, L_out of arXiv 2004.11362 (equation 2), of every sample and level.

    All seen keys are in the denominator; the seen keys of the query's class are its positives, over which the log
    is averaged. Enqueue the batch's keys before, so that a query's own key is among both. Where no seen key is of
    the class (a batch larger than the store), the sum over positives is empty: loss 0 and no gradient.

    Args:
        queries, keys: float32 [N, L, D], unit norm; keys[i] is the own key of queries[i]: for `correct` only.
        store_keys: float32 [L, M, D], unit norm.
        seen: bool [M], the keys that count.
        store_labels: int64 [M], NO_CLASS where a key is of none.
        labels: int64 [N] in 0..classes-1, on the same device.
        temperature: as in masked_logsumexp().

    Returns:
        loss float32 [N, L]; at best log(number of positives), not 0.
        correct bool [N, L]: the own key beats every seen key of other classes.
    """
    of_class = store_labels == torch.arange(classes, device=labels.device)[:, None]  # [C, M]
    members = (of_class & seen).to(store_keys.dtype)
    counts = members.sum(1)  # [C]
    with torch.autocast(queries.device.type, enabled=False):
        sums = torch.stack([members @ level for level in store_keys])  # [L, C, D]
    means = sums / counts.clamp_min(1)[:, None]
    by_level = queries.transpose(0, 1)
    log_sum, hardest = masked_logsumexp(by_level, store_keys, seen, temperature, labels, ~of_class)
    attraction = (by_level * means.index_select(1, labels)).sum(-1) / temperature
    loss = torch.where(counts[labels] > 0, log_sum - attraction, 0)
    own = (by_level * keys.transpose(0, 1)).sum(-1) / temperature
    return loss.T, (own > hardest).T
