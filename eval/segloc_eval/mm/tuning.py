"""Fine-tuning between two steps: detector, optimiser and position, stepped, saved and resumed.

Every random number of a step is a function of (seed, step, rank), so a state needs no generators, and a resumed run
goes on bit for bit on a CPU.

Several ranks share each batch in equal parts, and their gradients are averaged. On CUDA their batch norms see the
whole batch (SyncBN). That does not exist on CPUs: there each rank normalises by its own part, and the running
statistics are averaged after each step; so two ranks do not compute one rank's numbers, and the attention's norms,
which need 8 images, stay as loaded where a part is smaller.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import click
import numpy as np
import torch
from mmengine.runner import set_random_seed
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # SyncBN too

from segloc_eval.data.scans import Scan
from segloc_eval.mm.data import Example, Mixture, Stream, batch_order, batches, example, prepared
from segloc_eval.mm.paste import pasted
from segloc_eval.mm.ranks import ending_alone, failing_together
from segloc_eval.recipe import Recipe
from segloc_train.dist import World, memory_told

LEAST_FOR_STATISTICS = 8  # images per batch statistic of the attention's pooled features
PLAIN = Mixture()
REMEDY = "--batch-size or --size"


class FineTuning:
    """A run between two steps.

    Args:
        detector: of build_detector, loaded; trained in place, every parameter of it.
        scans: the training set, in an order that is the same for all arms.
        labels: category id to 0..C-1.
        recipe, seed: decide with `scans` what every step sees.
        mixture: what batches show beside; other scans count towards the recipe's length.

    Raises:
        click.ClickException: the ranks cannot share a batch equally.

    Attributes:
        step, total: steps done, and of the whole run.
    """

    def __init__(
        self,
        detector: Any,
        scans: list[Scan],
        labels: dict[int, int],
        recipe: Recipe,
        seed: int,
        world: World,
        device: torch.device,
        mixture: Mixture = PLAIN,
    ) -> None:
        if recipe.batch_size % world.size:
            raise click.ClickException(f"--batch-size {recipe.batch_size} cannot be shared by {world.size} ranks alike")
        self.scans, self.labels, self.recipe, self.seed = scans, labels, recipe, seed
        self.paste = mixture.paste
        own = recipe.batch_size - sum(stream.count for stream in mixture.streams)
        self.streams = [Stream(scans, own), *mixture.streams]
        self.world, self.device = world, device
        self.step, self.total = 0, recipe.steps(len(scans))
        self.share = recipe.batch_size // world.size
        synchronised = device.type == "cuda" and world.size > 1
        if synchronised:
            detector = convert_sync_batchnorm(detector)  # torch's own forgets the activations in timm's norms
        with failing_together(world), memory_told("the detector", "--width, or name a smaller --arch"):
            self.detector = detector.to(device, memory_format=torch.channels_last)
        # Synchronised norms are collectives: a rank that fails between them cannot tell the others, which wait in one.
        self.together = ending_alone if synchronised else failing_together
        self.pooled_frozen = (recipe.batch_size if synchronised else self.share) < LEAST_FOR_STATISTICS
        self.trained: list[Tensor] = list(detector.parameters())
        running = [x for name, x in detector.named_buffers() if "running_" in name]
        self.statistics: list[Tensor] = [] if synchronised else running
        self.optimiser: torch.optim.Optimizer
        if recipe.optimiser == "sgd":
            self.optimiser = torch.optim.SGD(self.trained, recipe.lr, 0.9, weight_decay=recipe.weight_decay)
        else:
            self.optimiser = torch.optim.AdamW(self.trained, recipe.lr, weight_decay=recipe.weight_decay, fused=True)

    def batches(self) -> Iterator[Any]:
        """This rank's share of every batch to come, in order; a click.ClickException instead of one it cannot read."""
        semantic = hasattr(self.detector, "semantic_head")

        def make(step: int) -> list[Example]:
            first = self.world.rank * self.share
            order = batch_order(self.streams, step, self.seed)[first : first + self.share]
            made = [example(scan, self.recipe.size, self.labels, flip, semantic) for _, scan, flip in order]
            if not self.paste:
                return made
            drawn = [np.random.default_rng([self.seed, step, place, 1]) for place in range(first, first + self.share)]
            return [
                pasted(one, partial(self._donor, rng), rng) if number == 0 else one
                for one, (number, _, _), rng in zip(made, order, drawn, strict=True)
            ]

        return batches(range(self.step, self.total), make, self.device)

    def _donor(self, rng: np.random.Generator) -> Example:
        scan, flip = self.scans[rng.integers(len(self.scans))], bool(rng.integers(2))
        return example(scan, self.recipe.size, self.labels, flip)

    def advance(self, batch: Any) -> dict[str, float]:
        """Do one step on this rank's share of a batch; returns step, samples, lr, loss and its parts, of all ranks.

        click.ClickException, on every rank, when a scan of the batch cannot be read, memory runs out, or the loss or
        its gradient is not finite; the weights then stay as they are. On several GPUs, running out of memory ends the
        process instead.
        """
        self._train_mode()
        set_random_seed(int(np.random.SeedSequence([self.seed, self.step, self.world.rank]).generate_state(1)[0]))
        samples = self.step * self.recipe.batch_size
        rate = self.recipe.lr_at(samples, len(self.scans))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        with failing_together(self.world):
            if isinstance(batch, click.ClickException):
                raise batch
        memory = memory_told(f"{self.share} scans of {self.recipe.size} pixels a step", REMEDY)
        with self.together(self.world), memory:
            data = prepared(self.detector, batch, training=True)
            loss, parts = self.detector.parse_losses(self.detector(**data, mode="loss"))
            loss.backward()
        told = torch.stack([value.detach().float().reshape(()) for value in parts.values()])
        if self.world.size > 1:
            for x in self.trained:
                x.grad = torch.zeros_like(x) if x.grad is None else x.grad
            self.world.mean_([told, *(x.grad for x in self.trained if x.grad is not None), *self.statistics])
        norm = nn.utils.clip_grad_norm_(self.trained, self.recipe.clip)
        values = dict(zip((*parts, "gradient"), torch.cat([told, norm[None]]).tolist(), strict=True))
        self._refuse(values)
        with memory_told("the optimiser's state", REMEDY):
            self.optimiser.step()
        self.step += 1
        values.pop("gradient")
        return {"step": self.step, "samples": samples + self.recipe.batch_size, "lr": rate, **values}

    def _train_mode(self) -> None:
        """Batch statistics everywhere, but for the attention's norms behind a global pooling of too few images."""
        self.detector.train()
        if self.pooled_frozen:
            for name, module in self.detector.backbone.named_modules():
                if isinstance(module, _BatchNorm) and "attention" in name:
                    module.eval()

    def _refuse(self, values: dict[str, float]) -> None:
        """click.ClickException when any of the numbers is not finite."""
        bad = [name for name, value in values.items() if not np.isfinite(value)]
        if not bad:
            return
        order = batch_order(self.streams, self.step, self.seed)
        names = [scan.path.name for _, scan, _ in order[:3]]
        what = "loss" if "loss" in bad else bad[0]
        more = f" and {len(order) - 3} more" if len(order) > 3 else ""
        raise click.ClickException(
            f"the {what} is {values[what]} at step {self.step + 1} of {self.total} "
            f"(scans {', '.join(names)}{more}); lower --lr"
        )

    def state(self) -> dict[str, Any]:
        """Everything to go on from here: tensors, numbers and strings only."""
        return {"step": self.step, "detector": self.detector.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, on any device; KeyError, TypeError, ValueError or RuntimeError for others."""
        with memory_told("the optimiser's state", REMEDY):
            self.detector.load_state_dict(state["detector"])
            self.optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
        if type(step) is not int or not 0 <= step <= self.total:
            raise ValueError(f"step {step}")
        self.step = step
