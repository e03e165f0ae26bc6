"""The input pipeline of the official BEiT pre-training, as a peer to measure against.

    python benchmarks/official_loader.py FOLDER [--workers 2] [--core N]

The same recipe with the same libraries: PyTorch's DataLoader over JPEG files, Pillow
for decoding, colour jitter and two resized views of one random crop, then float
tensors, and a mask of 14x14 patches drawn by NumPy. torchvision is not needed: its
operations on Pillow images only call what is called here. Runs in an environment with
torch, pillow and numpy, without beit_jax; benchmarks/input_pipeline.py can make one.

Waits for lines on standard input and answers each with a line of JSON:

    images COUNT   images/s over COUNT batches, of workers that run already
    masks SECONDS  masks/s
    stages COUNT   milliseconds an image for each part, over COUNT images, one thread

Between two lines nothing runs, so that others can be measured in turn.
"""

import argparse
import json
import math
import os
import pathlib
import random
import sys
import time

import numpy as np
from PIL import Image, ImageEnhance

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE, TOKEN_SIZE, GRID = 224, 112, 14
MAKES_AHEAD = 2  # batches a worker, the DataLoader's default
LOG_ASPECTS = math.log(0.3), math.log(1 / 0.3)


def read(path: pathlib.Path) -> Image.Image:
    with open(path, "rb") as file:
        return Image.open(file).convert("RGB")


def jitter(image: Image.Image, strength: float = 0.4) -> Image.Image:
    """Brightness, contrast and saturation of the whole image, in random order."""
    kinds = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    random.shuffle(kinds)
    for kind in kinds:
        image = kind(image).enhance(random.uniform(1 - strength, 1 + strength))
    return image


def flip(image: Image.Image) -> Image.Image:
    if random.random() < 0.5:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def random_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of 8 to 100 % of the area, 3:4 to 4:3."""
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1.0)
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w <= width and h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def two_views(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """One random crop at 224 pixels for the model, and at 112 for the tokenizer."""
    box = random_box(*image.size)
    return (
        image.crop(box).resize((SIZE, SIZE), Image.Resampling.BICUBIC),
        image.crop(box).resize((TOKEN_SIZE, TOKEN_SIZE), Image.Resampling.LANCZOS),
    )


def to_tensor(image: Image.Image):
    """(3, H, W) float32 in [0, 1]."""
    import torch  # masks alone are measured without

    pixels = torch.from_numpy(np.array(image, copy=True))
    return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)


def to_tensors(image: Image.Image, token_image: Image.Image) -> tuple:
    """The model's view normalised, the tokenizer's mapped to [0.1, 0.9]."""
    pixels = to_tensor(image)
    mean, std = (pixels.new_tensor(x).view(3, 1, 1) for x in (MEAN, STD))
    return pixels.sub_(mean).div_(std), 0.8 * to_tensor(token_image) + 0.1


def blockwise_mask(most: int = 75, least: int = 16) -> np.ndarray:
    """(14, 14) int, 1 where the patch is hidden; cell by cell, as officially."""
    mask, count = np.zeros((GRID, GRID), dtype=int), 0
    while count < most:
        gain = place_block(mask, least, most - count)
        if gain == 0:
            break
        count += gain
    return mask


def place_block(mask: np.ndarray, least: int, most: int) -> int:
    """Hides one rectangle more; returns by how many patches, 0 if ten do not fit."""
    for _ in range(10):
        area = random.uniform(least, most)
        aspect = math.exp(random.uniform(*LOG_ASPECTS))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h >= GRID or w >= GRID:
            continue
        top, left = random.randint(0, GRID - h), random.randint(0, GRID - w)
        hidden = mask[top : top + h, left : left + w].sum()
        if not 0 < h * w - hidden <= most:
            continue
        gain = 0
        for y in range(top, top + h):
            for x in range(left, left + w):
                if mask[y, x] == 0:
                    mask[y, x] = 1
                    gain += 1
        return gain
    return 0


# The parts of an example's making, each called with what the one before returned.
PARTS = {
    "read and decode": read,
    "jitter": jitter,
    "flip": flip,
    "crop and two resizes": two_views,
    "to arrays": to_tensors,
    "mask": lambda *_: blockwise_mask(),
}


class Examples:
    """Endlessly many views of the JPEGs in a folder, as a torch Dataset."""

    def __init__(self, folder: str):
        self.paths = sorted(pathlib.Path(folder).rglob("*.jpg"))
        if not self.paths:
            raise ValueError(f"no .jpg file in {folder}")

    def __len__(self) -> int:
        return 10**6  # long enough that no epoch ends while being measured

    def __getitem__(self, index: int) -> tuple:
        image = flip(jitter(read(self.paths[index % len(self.paths)])))
        return *to_tensors(*two_views(image)), blockwise_mask()


def batches(folder: str, workers: int, batch_size: int):
    from torch.utils.data import DataLoader

    loader = DataLoader(
        Examples(folder),
        batch_size,
        shuffle=True,
        num_workers=workers,
        prefetch_factor=MAKES_AHEAD if workers else None,
        drop_last=True,
    )
    return iter(loader)


def images_per_second(stream, count: int, batch_size: int, ahead: int) -> float:
    """Over `count` batches, after the `ahead` made while the workers started."""
    for _ in range(ahead + 1):
        next(stream)
    begun = time.perf_counter()
    for _ in range(count):
        next(stream)
    return count * batch_size / (time.perf_counter() - begun)


def masks_per_second(seconds: float) -> float:
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for _ in range(20):
            blockwise_mask()
        count += 20
    return count / (time.perf_counter() - begun)


def stages(folder: str, count: int) -> dict[str, float]:
    """Milliseconds an image, by name of the part, in one thread."""
    import torch

    torch.set_num_threads(1)  # as in a worker of the DataLoader
    paths = Examples(folder).paths
    spent = dict.fromkeys(PARTS, 0.0)
    for i in range(count):
        made = (paths[i % len(paths)],)
        for name, part in PARTS.items():
            begun = time.perf_counter()
            made = part(*made)
            spent[name] += 1000 * (time.perf_counter() - begun) / count
            made = made if isinstance(made, tuple) else (made,)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", help="of JPEG files; for masks it may be empty")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--core", type=int, help="stay on this core")
    args = parser.parse_args()
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})
    for line in sys.stdin:
        what, amount = line.split()
        if what == "images":
            stream = batches(args.folder, args.workers, args.batch_size)
            ahead = args.workers * MAKES_AHEAD
            rate = images_per_second(stream, int(amount), args.batch_size, ahead)
            del stream  # ends the workers
            answer = {"images_per_second": rate}
        elif what == "masks":
            answer = {"masks_per_second": masks_per_second(float(amount))}
        elif what == "stages":
            answer = stages(args.folder, int(amount))
        else:
            raise ValueError(f"cannot measure {what!r}; images, masks or stages can be")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
