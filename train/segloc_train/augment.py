"""From stored to normalised pictures, on the device, a batch at once; boxes move along with their objects."""

import torch
from torch import Tensor
from torch.nn import functional as F

from segloc_train.data import View

# ImageNet's; both stages normalise with them and meta.json repeats them. RGB, of values in 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
CROP = 0.6  # shortest side of a crop, as a share of the picture's
GAIN = 0.15  # darkness varies by up to this share, per picture and, by a third of it, per channel
NOISE = 0.02  # largest standard deviation, in 0..1 units


def normalise(images: Tensor) -> Tensor:
    """float [B, 3, H, W] in 0..1 -> zero mean and unit variance by ImageNet's statistics."""
    mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(3, 1, 1)
    return (images - mean) / std


def plain(view: View) -> View:
    """The stored view, normalised: uint8 in, float32 out."""
    return View(normalise(view.images.float() / 255), view.boxes)


def mild(view: View, generator: torch.Generator) -> View:
    """Flips both ways, a crop that keeps the box and is scaled back, gain of the darkness, noise.

    Everything is drawn from `generator`, which lives on the view's device. uint8 pictures and their boxes in;
    normalised float32 [B, 3, S, S] and the boxes of the same objects out.
    """
    images, boxes = flip_and_crop(view.images.float() / 255, view.boxes, generator)
    draws = torch.rand(len(images), 5, 1, 1, generator=generator, device=images.device)
    gain = 1 + GAIN * (2 * draws[:, :1] - 1) + GAIN / 3 * (2 * draws[:, 1:4] - 1)
    # White is the empty belt: gain scales the distance from it, as a stronger or weaker scanner would.
    images = 1 - gain * (1 - images)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    images = images + NOISE * draws[:, 4:] * noise
    return View(normalise(images.clamp(0, 1)), boxes)


def flip_and_crop(images: Tensor, boxes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random flips and square crops, resampled bilinearly to the old size.

    Args:
        images: float32 [B, 3, S, S].
        boxes: float32 [B, 4], x1, y1, x2, y2 in pixels, inside the picture.
        generator: on the images' device.

    Returns:
        Images and boxes of the same shapes; every box lies in its crop.
    """
    size = images.shape[-1]
    u = torch.rand(len(images), 3, generator=generator, device=images.device)
    flip = torch.rand(len(images), 2, generator=generator, device=images.device) < 0.5
    low, high = boxes[:, :2], boxes[:, 2:]
    shortest = (high - low).amax(1).clamp(CROP * size, size)
    side = (shortest + u[:, 0] * (size - shortest))[:, None]  # [B, 1]
    first = (high - side).clamp(min=0)
    last = torch.minimum(low, size - side)
    corner = first + u[:, 1:] * (last - first).clamp(min=0)  # [B, 2], x and y

    # Sampling grid: output in -1..1 -> input in -1..1, scale and shift per axis, a flip negates the scale.
    scale = side / size
    shift = 2 * (corner + side / 2) / size - 1
    sign = 1 - 2 * flip.float()
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = scale[:, 0] * sign[:, 0], scale[:, 0] * sign[:, 1]
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    low, high = (low - corner) / scale, (high - corner) / scale
    low, high = torch.where(flip, size - high, low), torch.where(flip, size - low, high)
    return images, torch.cat([low, high], 1)
