"""Reading and writing weights: never unpickles foreign data, never leaves half a file, never loads half a set."""

import warnings
from pathlib import Path
from typing import IO, Any, cast

import click
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from segloc_synth.files import atomic_write

COUNTER = ".num_batches_tracked"  # of BN: decides nothing here, and older files of torchvision lack it
HEAD = 512  # bytes at a file's beginning that tell a text
LFS = b"version https://git-lfs.github.com/"
PAGE = (b"<!doctype html", b"<html")
PICKLE, ARCHIVE = b"\x80", b"PK"  # what torch.save wrote first, before and since its version 1.6


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors, .pth or .pt file, on the CPU.

    click.ClickException in one line for a missing or damaged file, one that is a text, one that would run code when
    unpickled, one that holds anything but names and tensors, and for a tensor with nan or inf, which is named.
    """
    value = load_state(path)
    if not isinstance(value, dict) or not value:
        raise click.ClickException(f"{path}: holds no named tensors")
    for name, tensor in value.items():
        if not isinstance(name, str) or not _is_plain(tensor):
            kind = "tensor without plain numbers" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise click.ClickException(
                f"{path}: holds more than named tensors ({str(name)[:60]!r} is a {kind}); "
                "name a file of weights such as backbone.pth"
            )
        # As float32, which the modules here take them for.
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise click.ClickException(
                f"{path}: {name[:60]} is not finite (nan or inf), as after a training that diverged; "
                "name weights from before that"
            )
    return value


def load_state(path: Path, remedy: str = "") -> Any:
    """What a checkpoint holds, on the CPU, by safe loading only; errors as in load_tensors, with a remedy."""
    if not path.is_file():
        raise click.ClickException(f"{path}: no such file")
    with path.open("rb") as file:
        head = file.read(HEAD)
    if text := _text(head):
        raise click.ClickException(f"{path}: refused: it is {text}{remedy and '; '}{remedy}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():  # about foreign pickles, which are refused below
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files fail in every way there is
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the system's own words are clear; without a name it is torch, seeking in a torn file
        if "weights_only" in str(error) and head.startswith((PICKLE, ARCHIVE)):  # it says so of any noise
            reason = "it holds code or objects, not only tensors"
        else:
            reason = "damaged, or no file of tensors"
        raise click.ClickException(f"{path}: refused: {reason}{remedy and '; '}{remedy}") from None


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor that holds numbers, each at a place of its own: not sparse, nested, quantised or meta."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    return not (value.is_meta or value.is_quantized or value.is_nested)


def _text(head: bytes) -> str:
    """What a file with these first bytes is that holds no weights because it is empty or a text, in words; else ''."""
    if not head:
        return "empty"
    if head.startswith(LFS):
        return "a pointer of Git LFS, not the weights, which git lfs pull fetches"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGE):
        return "a web page, not the weights; download the file that the page leads to"
    # A .safetensors file, too, begins with bytes that no text has: its header's length in 8 bytes.
    try:
        words = head.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data" or len(head) < HEAD:  # else a letter was cut in two
            return ""
        words = head[: error.start].decode()
    return "a text, not weights" if all(sign.isprintable() or sign in "\t\r\n" for sign in words) else ""


def load_strict(module: nn.Module, tensors: dict[str, Tensor], source: Path | str) -> None:
    """Load all of `tensors` into all of `module`, or nothing.

    click.ClickException names `source` and the first missing, unexpected or misshapen keys.
    """
    own = module.state_dict()
    missing, unexpected = [k for k in own if k not in tensors], [k for k in tensors if k not in own]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    problems = [
        f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("shape of", shapes))
        if names
    ]
    if problems:
        raise click.ClickException(f"{source}: weights do not fit {type(module).__name__}: {'; '.join(problems)}")
    module.load_state_dict(tensors, strict=True)


def save_tensors(path: Path, value: dict[str, Any]) -> None:
    """Write a .pth/.pt (anything torch.load reads safely) or .safetensors file, atomically.

    click.ClickException when it cannot be written; an older file of that name is then unharmed.
    """
    written = None
    try:
        with atomic_write(path) as file:
            if path.suffix == ".safetensors":
                file.write(save({name: x.contiguous() for name, x in value.items()}))
            else:
                written = _Remembering(file)
                torch.save(value, cast(IO[bytes], written))
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError, in words of its own
        cause = (written.error if written else None) or error
        reason = getattr(cause, "strerror", None) or str(error).splitlines()[0]
        raise click.ClickException(
            f"{path}: cannot be written ({reason}); what stood there before is unharmed"
        ) from None


class _Remembering:
    """A file for torch.save that keeps the system's error, of which torch tells only that there was one."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()
