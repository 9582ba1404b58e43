"""What computed: versions, hardware, memory."""

import platform
import resource
from importlib.metadata import version

import torch

from segloc_train.dist import World

LIBRARIES = (  # those that decide the numbers
    *("segloc", "torch", "torchvision", "timm", "onedl-mmdetection", "onedl-mmcv", "onedl-mmengine"),
    *("numpy", "opencv-python", "pycocotools"),
)


def versions() -> dict[str, str]:
    """Of Python and LIBRARIES."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def hardware(device: torch.device, world: World) -> str:
    """One line, such as "2 x NVIDIA A100" or "x86_64 CPU, 2 threads"."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return name if world.size == 1 else f"{world.size} x {name}"


def forget_peak(device: torch.device) -> None:
    """Give back a GPU's unused memory, and count its peak from now on."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU since forget_peak; on a CPU of the process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
