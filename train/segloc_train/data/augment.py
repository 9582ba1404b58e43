"""From stored to augmented pictures, on the device, a batch at once; boxes and masks move along with their objects.

Every factor is drawn per picture from one generator on the pictures' device, in an order that depends on nothing:
a group and a seed decide the result. Nothing here waits for the device.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from segloc_train.data.data import View

KINDS = ("none", "mild", "moco")
CROP = (0.6, 1.4)  # mild: range of a crop's side, times the share of the picture's that is asked for
GAIN = 0.15  # mild: darkness varies by up to this share, per picture and, by a third of it, per channel
NOISE = 0.02  # mild: largest standard deviation, in 0..1 units
AREA, ASPECT = 0.2, 4 / 3  # moco: least area of a crop as a share of the picture's, largest ratio of its sides
JITTER = (0.4, 0.4, 0.4, 0.1)  # moco: brightness, contrast and saturation vary by these shares, hue in turns
P_JITTER, P_GREY, P_BLUR = 0.8, 0.2, 0.5
SIGMA = (0.1, 2.0)  # moco: pixels
REACH = 6  # pixels that a blur reaches to each side: three times the largest sigma


def augment(view: View, kind: str, generator: torch.Generator, crop: float = 1.0) -> View:
    """The stored view, varied as `kind` says.

    Args:
        view: images uint8 [B, 3, S, S], boxes float32 [B, 4] inside the picture, masks uint8 [B, S, S] or None.
        kind: "none": nothing. "mild": flips both ways, square crops that keep the box, gain of the darkness, noise.
            "moco": MoCo-v2's (arXiv 2003.04297): random resized crop, colour jitter, greyscale, blur. Its crops keep
            the box, it flips both ways (a bag has no upright), and jitters in the fixed order brightness, contrast,
            saturation, hue.
        generator: on the view's device; its state and the view decide every bit of the result.
        crop: side of the pictures that come out, as a share of S: of a smaller one the network sees the surroundings
            of the object, in about the stored resolution. Only "none" cannot crop.

    Returns:
        images float32 [B, 3, S', S'] of S' = cropped_size(S, crop), boxes and masks of the same objects; boxes lie
        inside the picture.
    """
    if kind == "none":
        return plain(view)
    if kind == "mild":
        view = flip_and_crop(plain(view), *mild_crop(view, generator, crop), generator, crop)
        images = vary_gain(view.images, generator)
    elif kind == "moco":
        view = flip_and_crop(plain(view), *moco_crop(view, generator, crop), generator, crop)
        images = vary_colour(view.images, torch.rand(len(view.boxes), 8, generator=generator, device=view.boxes.device))
    else:
        raise ValueError(f"augmentation {kind!r} is none of {', '.join(KINDS)}")
    return view._replace(images=images)


def cropped_size(size: int, crop: float) -> int:
    """Side of the pictures that augment makes of ones of `size`: a multiple of 32, as the pyramid halves five times."""
    return size if crop == 1 else min(size, max(32, round(crop * size / 32) * 32))


def plain(view: View) -> View:
    """The stored view as the network takes it: uint8 in, float32 in 0..1 out."""
    return view._replace(images=view.images.float() / 255)


def mild_crop(view: View, generator: torch.Generator, crop: float) -> tuple[Tensor, Tensor]:
    """Sides [B, 2] of square crops in pixels, and where they lie, [B, 2] in 0..1 of the room there is."""
    size = view.images.shape[-1]
    u = torch.rand(len(view.boxes), 3, generator=generator, device=view.boxes.device)
    shortest = (view.boxes[:, 2:] - view.boxes[:, :2]).amax(1).clamp(CROP[0] * crop * size, size)
    longest = shortest.clamp(min=min(CROP[1] * crop, 1.0) * size)
    side = shortest + u[:, 0] * (longest - shortest)
    return side[:, None].expand(-1, 2), u[:, 1:]


def moco_crop(view: View, generator: torch.Generator, crop: float) -> tuple[Tensor, Tensor]:
    """As mild_crop, of a random area and aspect ratio; a side shorter than the box is as long as the box."""
    size = view.images.shape[-1]
    u = torch.rand(len(view.boxes), 4, generator=generator, device=view.boxes.device)
    area = AREA + u[:, 0] * (1 - AREA)
    stretch = torch.exp((u[:, 1] - 0.5) * math.log(ASPECT))  # square root of width / height
    side = crop * size * area.sqrt()[:, None] * torch.stack([stretch, 1 / stretch], 1)
    return torch.maximum(side, view.boxes[:, 2:] - view.boxes[:, :2]).clamp(max=size), u[:, 2:]


def flip_and_crop(view: View, side: Tensor, at: Tensor, generator: torch.Generator, crop: float = 1.0) -> View:
    """Crops resampled to cropped_size(S, crop), bilinearly (masks: nearest), then flipped at random.

    Args:
        view: images float32 [B, 3, S, S], boxes inside the picture.
        side: float32 [B, 2], width and height of the crop in pixels, at least the box's.
        at: float32 [B, 2] in 0..1, where the crop lies between the first and the last place that hold the box.
        generator: draws the flips.
    """
    images, boxes, masks = view
    size = images.shape[-1]
    out = cropped_size(size, crop)
    flip = torch.rand(len(boxes), 2, generator=generator, device=boxes.device) < 0.5
    low, high = boxes[:, :2], boxes[:, 2:]
    first = (high - side).clamp(min=0)
    last = torch.minimum(low, size - side)
    corner = first + at * (last - first).clamp(min=0)

    # Sampling grid: output in -1..1 -> input in -1..1, scale and shift per axis, a flip negates the scale.
    scale = side / size
    theta = torch.zeros(len(boxes), 2, 3, device=boxes.device)
    theta[:, :, :2] = torch.diag_embed(scale * (1 - 2 * flip.float()))
    theta[:, :, 2] = 2 * (corner + side / 2) / size - 1
    grid = F.affine_grid(theta, [len(images), 3, out, out], align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if masks is not None:
        moved = F.grid_sample(masks[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
        masks = moved[:, 0].to(torch.uint8)

    low, high = (low - corner) * (out / side), (high - corner) * (out / side)
    low, high = torch.where(flip, out - high, low), torch.where(flip, out - low, high)
    return View(images, torch.cat([low, high], 1).clamp(0, out), masks)


def vary_gain(images: Tensor, generator: torch.Generator) -> Tensor:
    """Gain of the darkness and noise: float32 [B, 3, H, W] in 0..1, and so the result."""
    draws = torch.rand(len(images), 5, 1, 1, generator=generator, device=images.device)
    gain = 1 + GAIN * (2 * draws[:, :1] - 1) + GAIN / 3 * (2 * draws[:, 1:4] - 1)
    # White is the empty belt: gain scales the distance from it, as a stronger or weaker scanner would.
    images = 1 - gain * (1 - images)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return (images + NOISE * draws[:, 4:] * noise).clamp(0, 1)


def vary_colour(images: Tensor, draws: Tensor) -> Tensor:
    """Colour jitter, greyscale and blur of MoCo-v2, each with its probability per picture.

    Args:
        images: float32 [B, 3, H, W] in 0..1, H and W above 6.
        draws: float32 [B, 8] in 0..1: brightness, contrast, saturation, hue; whether to jitter, whether to grey,
            whether to blur, sigma.

    Returns:
        float32 [B, 3, H, W] in 0..1.
    """
    u = draws[:, :, None, None, None].unbind(1)  # [B, 1, 1, 1] each
    brightness, contrast, saturation, hue = (share * (2 * x - 1) for share, x in zip(JITTER, u[:4], strict=True))
    images = torch.where(u[4] < P_JITTER, jitter(images, 1 + brightness, 1 + contrast, 1 + saturation, hue), images)
    images = torch.where(u[5] < P_GREY, grey(images), images)
    low, high = SIGMA
    return torch.where(u[6] < P_BLUR, blur(images, low + u[7].flatten() * (high - low)), images)


def jitter(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """torchvision's adjust_brightness, _contrast, _saturation and _hue, in this order, with a factor per picture.

    Factors are float32 [B, 1, 1, 1], 1 changes nothing; hue in turns, 0 changes nothing.
    """
    images = (images * brightness).clamp(0, 1)
    mean = grey(images).mean((1, 2, 3), keepdim=True)
    images = torch.lerp(mean, images, contrast).clamp(0, 1)
    images = torch.lerp(grey(images), images, saturation).clamp(0, 1)
    return rotate_hue(images, hue)


def grey(images: Tensor) -> Tensor:
    """Luma (ITU-R BT.601) of RGB [B, 3, H, W]: [B, 1, H, W]."""
    red, green, blue = images.split(1, 1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def rotate_hue(images: Tensor, turns: Tensor) -> Tensor:
    """RGB [B, 3, H, W] in 0..1 with the hue of HSV moved by `turns` [B, 1, 1, 1]; value and saturation stay."""
    red, green, blue = images.split(1, 1)
    value = images.amax(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    per = 1 / torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(
        value == red,
        (green - blue) * per,
        torch.where(value == green, 2 + (blue - red) * per, 4 + (red - green) * per),
    )
    sixths = sixths + 6 * turns
    places = [(sixths + offset) % 6 for offset in (5, 3, 1)]  # of red, green and blue on the wheel
    return torch.cat([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in places], 1)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of each picture [B, 3, H, W] by its own sigma [B] in pixels, borders reflected."""
    count, channels, height, width = images.shape
    offsets = torch.arange(-REACH, REACH + 1, device=images.device)
    kernels = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0, output_size=count * channels)
    planes = images.reshape(1, count * channels, height, width)  # a picture's channel is a group with its own kernel
    planes = F.pad(planes, [REACH] * 4, mode="reflect")
    planes = F.conv2d(planes, kernels[:, None, None], groups=count * channels)
    planes = F.conv2d(planes, kernels[:, None, :, None], groups=count * channels)
    return planes.reshape(images.shape)
