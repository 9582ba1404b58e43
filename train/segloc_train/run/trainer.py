"""A run between two steps: the method, its optimiser, and how both are stepped, saved and resumed."""

from importlib import import_module
from pathlib import Path

import click
import torch
from torch import Tensor

from segloc_synth.console import log
from segloc_train.config import ANEW, Config
from segloc_train.data.data import Batch
from segloc_train.data.order import derived_seed
from segloc_train.dist import World
from segloc_train.methods.common.method import Method, Settings
from segloc_train.methods.common.step import START_KEYS, WEIGHTS, Step
from segloc_train.model.backbone import LEVELS
from segloc_train.model.checkpoint import load_state, save_tensors
from segloc_train.model.start import initialise
from segloc_train.run.export import sdanet_weights
from segloc_train.run.feed import Feed


def build(config: Config, classes: int, device: torch.device) -> Method:
    """The method with random weights and start keys: functions of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, WEIGHTS))
        settings = Settings(
            config.arch,
            config.width,
            classes,
            config.queue_size,
            config.temperature,
            torch.Generator().manual_seed(derived_seed(config.seed, START_KEYS)),
            device,
        )
        method: Method = import_module(f"segloc_train.methods.{config.method}").Method(settings)
    for branch in method.branches():
        branch.low_precision = {"auto": None, "float32": False, "bfloat16": True}[config.precision]
        if config.compile:
            branch.backbone.compile()
    return method.train()


class Trainer:
    """A run between two steps.

    Attributes:
        step: steps done.
        saved: the step that last.pt holds.
        pending: of each step since the last record float32 [2, levels], loss and accuracy, this rank's share.
        stopping: has any rank been told to stop?
    """

    def __init__(self, config: Config, classes: int, world: World, device: torch.device) -> None:
        self.config, self.world, self.device = config, world, device
        self.method = build(config, classes, device)
        self.trained: list[Tensor] = [x for x in self.method.parameters() if x.requires_grad]
        self.optimizer: torch.optim.Optimizer
        if config.optimizer == "adamw":
            self.optimizer = torch.optim.AdamW(self.trained, lr=0.0, weight_decay=0.05, fused=True)
        else:
            self.optimizer = torch.optim.SGD(self.trained, lr=0.0, momentum=0.9, weight_decay=1e-4)
        self.step = self.saved = 0
        self.pending: list[Tensor] = []
        self.sound: list[Tensor] = []  # of each pending step bool [groups]: is the group's loss finite?
        self.places: list[Tensor] = []
        self.stopping = False

    def advance(self, batch: Batch, stop: bool) -> None:
        """Do one step on this rank's share of a batch, as stored, on the CPU; `stop` asks all ranks to end after it.

        Nothing here waits for the device: results are fetched when a record is written.
        """
        told = self.world.gather(torch.cat([batch.labels, torch.tensor([int(stop)])])).view(self.world.size, -1)
        self.stopping = bool(told[:, -1].any())
        step = Step(
            batch.to(self.device),
            told[:, :-1].flatten(),
            self.config.bn_group,
            self.config.augment,
            self.config.seed,
            self.step,
            self.world,
            self.config.crop,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr_at(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        parts = []
        for terms in self.method.losses(step):
            terms.loss.sum().backward()
            parts.append(torch.stack([terms.loss.detach(), terms.accuracy]))
        self.world.sum_([x.grad for x in self.trained if x.grad is not None])
        self.optimizer.step()
        self.method.update(self.config.momentum_per_step)
        results = torch.stack(parts)
        self.pending.append(results.sum(0))
        self.sound.append(results[:, 0].isfinite().all(1))
        self.places.append(batch.places)
        self.step += 1

    def sum_pending(self, folder: Path, feed: Feed) -> Tensor:
        """float32 [steps, 2, levels] on the CPU, summed over the ranks; `pending` holds it on the first one after.

        click.ClickException names the first step whose loss is not finite, and samples of it.
        """
        values = torch.stack(self.pending)
        self.world.sum_([values])
        values = values.cpu()
        bad = (~values[:, 0].isfinite().all(1)).nonzero()
        if len(bad):
            first = int(bad[0])
            step = self.step - len(values) + first + 1
            raise click.ClickException(
                f"the loss is not finite at step {step}{self._culprits(first - len(values), feed)}"
                f"; {self._kept(folder / 'last.pt')}"
            )
        self.pending = list(values if self.world.first else torch.zeros_like(values))
        return values

    def _kept(self, path: Path) -> str:
        """What is left of a run that went astray, and what to do."""
        kept = f"{path} holds step {self.saved}" if self.saved else "no state was saved before"
        return f"{kept}; lower --lr or raise --temperature"

    def _culprits(self, back: int, feed: Feed) -> str:
        """Samples whose group's loss is not finite, of the step `back` (-1: the last); '' if on another rank."""
        if -back > len(self.sound):
            return ""
        places = self.places[back].view(len(self.sound[back]), -1)[~self.sound[back].cpu()].flatten().tolist()
        if not places:
            return ""
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        return f", in batch statistics shared by {', '.join(feed.sources.name(place) for place in places[:3])}{more}"

    def summarise(self, folder: Path, feed: Feed) -> dict[str, float]:
        """Means over the steps since the last record; errors as in sum_pending."""
        loss, accuracy = self.sum_pending(folder, feed).mean(0)
        self.pending, self.sound, self.places = [], [], []
        return {"loss": loss.sum().item(), **by_level("loss", loss), **by_level("acc", accuracy)}

    def save(self, path: Path, backbone: Path | None = None) -> None:
        """Everything to go on from here, tensors and numbers only, written by the first rank; `backbone` before it.

        click.ClickException, and no writing, where weights are not finite: a loss tells of it only a step later.
        """
        if not torch.stack(torch._foreach_norm(self.trained)).isfinite().all():
            raise click.ClickException(f"weights are not finite after step {self.step}; {self._kept(path)}")
        if self.world.first:
            state = {
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "pending": [x.cpu() for x in self.pending],
            }
            if backbone is not None:  # first: what goes on from the state will not write it
                save_tensors(backbone, sdanet_weights(self.method.query.backbone))
            save_tensors(path, state)
        self.saved = self.step

    def start(self, path: Path) -> None:
        """Take over the state in `path`, if there is one, else the weights of --init.

        click.ClickException where either does not fit, or where not all ranks see the same state.
        """
        self._start(path)
        self.world.agree("the step that they start from", str(self.step))

    def _start(self, path: Path) -> None:
        if not path.is_file():
            if (done := path.with_name("backbone.pth")).is_file():
                raise click.ClickException(
                    f"{path}: is gone, and {done.name} beside it is finished; name another --out"
                )
            told = initialise(self.method.query.backbone, self.config.arch, self.config.init)
            self.method.update(0.0)  # the key branch starts from the same weights
            if self.world.first:
                log.info("Start: %s", told)
            return
        state = load_state(path, ANEW)
        try:
            self.method.load_state_dict(state["method"])
            self.optimizer.load_state_dict(state["optimizer"])
            if state["step"] not in range(self.config.total_steps + 1):
                raise ValueError
            self.step = self.saved = int(state["step"])
            share = 1 if self.world.first else 0
            self.pending = [share * x.to(self.device) for x in state["pending"]]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError):
            raise click.ClickException(f"{path}: is not the state of this run; {ANEW}") from None


def by_level(name: str, values: Tensor) -> dict[str, float]:
    """{name_p2: ..., name_p6: ...} of a tensor [levels]."""
    assert len(values) == LEVELS
    return {f"{name}_p{level}": value for level, value in enumerate(values.tolist(), 2)}
