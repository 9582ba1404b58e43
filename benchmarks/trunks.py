"""What do trunks of SDANet cost on a CPU? Parameters, operations, and CPU time a scan, part by part.

Of each trunk with its pyramid and attention: parameters, GFLOP of a forward pass a scan, CPU milliseconds a scan of a
forward pass in evaluation (the share of the attention beside it), and of a forward and backward pass in training. One
core, float32, channels last, batches of 8. Trunks take turns, and each figure is the median of its turns: CPU time, so
that other processes on the machine disturb little. With --compile also what torch.compile makes of both passes.

  python benchmarks/trunks.py
  python benchmarks/trunks.py --trunk tf_efficientnet_lite0/64 --size 128 --compile
"""

import statistics
import time
from collections.abc import Callable
from itertools import product

import click
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from segloc_train.model.backbone import SDANet
from segloc_train.model.trunk import maps

TRUNKS = ("resnet18/64", "resnet50/256", "tf_efficientnet_lite0/64", "convnext_atto/64", "vit_tiny_patch16_224/64")
SIZES = (128, 192, 256)
BATCH = 8
TURNS = 7


class Passes:
    """The passes of one trunk at one size."""

    def __init__(self, trunk: str, size: int) -> None:
        arch, _, width = trunk.partition("/")
        torch.manual_seed(0)
        self.net = SDANet(arch, int(width)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.images = torch.rand(BATCH, 3, size, size).to(memory_format=torch.channels_last)
        self.forward: Callable[[Tensor], tuple[Tensor, ...]] = self.net

    def gflop(self) -> float:
        """Of a forward pass, a scan."""
        # Attention in single products, as the fused one is not counted on a CPU.
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            self.net.eval()(self.images[:1])
        return counter.get_total_flops() / 1e9

    def evaluate(self) -> None:
        """A forward pass of the whole."""
        self.net.eval()
        with torch.inference_mode():
            self.forward(self.images)

    def without_attention(self) -> None:
        """A forward pass of trunk and pyramid."""
        net = self.net.eval()
        with torch.inference_mode():
            net.pyramid(maps(net.trunk, net.shape, (self.images - net.mean) / net.std))

    def train(self) -> None:
        """A forward and a backward pass."""
        self.net.train()
        sum(level.mean() for level in self.forward(self.images)).backward()  # type: ignore[union-attr]


def milliseconds(run: Callable[[], None]) -> float:
    """CPU time a scan."""
    start = time.process_time()
    run()
    return 1000 * (time.process_time() - start) / BATCH


@click.command()
@click.option("--trunk", "trunks", multiple=True, default=TRUNKS, metavar="ARCH/WIDTH")
@click.option("--size", "sizes", type=int, multiple=True, default=SIZES)
@click.option("--compile", "compiled", is_flag=True)
def main(trunks: tuple[str, ...], sizes: tuple[int, ...], compiled: bool) -> None:
    """Print the table in Markdown."""
    torch.set_num_threads(1)
    passes = {key: Passes(*key) for key in product(trunks, sizes)}
    runs = {
        (key, name): getattr(own, name)
        for key, own in passes.items()
        for name in ("evaluate", "without_attention", "train")
    }
    if compiled:
        for key in passes:
            fast = Passes(*key)
            fast.forward = torch.compile(fast.net)
            runs |= {(key, f"{name}, compiled"): getattr(fast, name) for name in ("evaluate", "train")}
    for run in runs.values():  # compiles, and fills caches
        run()
    taken: dict[object, list[float]] = {key: [] for key in runs}
    for _ in range(TURNS):
        for key, run in runs.items():
            taken[key].append(milliseconds(run))
    spent = {key: statistics.median(values) for key, values in taken.items()}
    more = " forward, compiled | training, compiled |" if compiled else ""
    click.echo(f"| trunk/width | px | parameters | GFLOP | forward | of it attention | training |{more}")
    click.echo("|---|---|---|---|---|---|---|" + ("---|---|" if compiled else ""))
    for key, own in passes.items():
        number = sum(x.numel() for x in own.net.parameters()) / 1e6
        whole, bare, training = (spent[key, name] for name in ("evaluate", "without_attention", "train"))
        times = f"{whole:.1f} | {1 - bare / whole:.0%} | {training:.1f}"
        row = f"| {key[0]} | {key[1]} | {number:.1f} M | {own.gflop():.2f} | {times} |"
        if compiled:
            row += "".join(f" {spent[key, f'{name}, compiled']:.1f} |" for name in ("evaluate", "train"))
        click.echo(row)


if __name__ == "__main__":
    main()
