"""Trains `streetnet` on rendered pictures alone and exports it in the layout of a YOLOv8 export.

    python -m samples.train --out build/streetnet

needs PyTorch and onnx beside the package's own dependencies. It renders its pictures, trains, writes
streetnet.onnx, streetnet.pt and training.log into --out, and scores the export on videos of seeds it never saw.
"""

import argparse
import logging
import math
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import cast

import numpy as np
import torch

from samples import export
from samples.loss import Targets, loss
from samples.make import render as render_video
from samples.network import StreetNet, cell_centres
from samples.pictures import INPUT_HEIGHT, INPUT_WIDTH, Picture, crop, load, render, save

__all__ = ["main", "train"]

FIRST_SEED = 10_000
"""Training seeds start here; the samples and the evaluation use seeds below."""
UNSEEN_SEED = 901
_CROP = (320, 320)
_WHOLE = (INPUT_HEIGHT, INPUT_WIDTH)
_LEARNED_VISIBILITY, _LEARNED_HEIGHT_PX = 0.3, 7.0  # a little below what scoring demands
_SPARED_VISIBILITY = 0.04

log = logging.getLogger("samples.train")


def _targets(rows: torch.Tensor) -> Targets:
    # What is hidden almost completely is background like any other.
    rows = rows[rows[:, 5] >= _SPARED_VISIBILITY]
    wanted = (rows[:, 5] >= _LEARNED_VISIBILITY) & (rows[:, 4] - rows[:, 2] >= _LEARNED_HEIGHT_PX)
    return Targets(rows[:, 1:5], rows[:, 0].long(), wanted)


def _batch(pictures: Sequence[Picture], count: int, whole: bool, seed: int) -> tuple[torch.Tensor, list[Targets]]:
    rng = np.random.default_rng(seed)
    chosen = [pictures[index] for index in rng.integers(len(pictures), size=count)]
    size, zoom = (_WHOLE, (0.999, 1.001)) if whole else (_CROP, (0.7, 1.5))
    crops = [crop(picture, size, zoom, rng) for picture in chosen]
    pixels = np.stack([one.pixels[..., ::-1] for one in crops])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255)
    targets = [_targets(torch.from_numpy(one.objects)) for one in crops]
    return images.contiguous(memory_format=torch.channels_last), targets


def _batches(pictures: Sequence[Picture], options: argparse.Namespace) -> Iterator[tuple[torch.Tensor, list[Targets]]]:
    """Batches in order, prepared a few ahead on threads: OpenCV works outside the interpreter's lock."""
    last_crop = options.steps - options.whole_steps
    with ThreadPoolExecutor(options.loaders) as pool:
        queue = []
        for step in range(options.steps):
            whole = step >= last_crop
            count = options.batch // 2 if whole else options.batch
            queue.append(pool.submit(_batch, pictures, count, whole, options.seed + step))
            if len(queue) > options.loaders + 1:
                yield queue.pop(0).result()
        for job in queue:
            yield job.result()


def _pictures(options: argparse.Namespace) -> list[Picture]:
    seeds = range(FIRST_SEED, FIRST_SEED + options.worlds)
    started = time.monotonic()
    if options.pictures and options.pictures.exists():
        pictures = load(options.pictures)
    else:
        pictures = render(seeds, options.processes)
        if options.pictures:
            save(pictures, options.pictures)
    log.info("seeds %d..%d: %d pictures, %.0f s", seeds[0], seeds[-1], len(pictures), time.monotonic() - started)
    return pictures


def train(pictures: Sequence[Picture], options: argparse.Namespace) -> StreetNet:
    """Trains a network and returns its moving average, on the CPU and in evaluation mode."""
    torch.manual_seed(options.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = StreetNet().to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    if options.resume:
        network.load_state_dict(torch.load(options.resume, map_location=device, weights_only=True))
    average = deepcopy(network).eval()
    decayed = [one for one in network.parameters() if one.ndim > 1]
    plain = [one for one in network.parameters() if one.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.99))
    centres = {size: cell_centres(*size).to(device) for size in (_CROP, _WHOLE)}
    sums, started = [0.0, 0.0], time.monotonic()
    for step, (images, targets) in enumerate(_batches(pictures, options)):
        share = step / options.steps
        warm = min(1.0, (step + 1) / 150)
        for group in optimizer.param_groups:
            group["lr"] = options.rate * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2)
        moved = [Targets(one.boxes.to(device), one.classes.to(device), one.wanted.to(device)) for one in targets]
        with torch.autocast(device.type, torch.bfloat16):
            boxes, logits = network(images.to(device))
        box_loss, class_loss = loss(boxes.float(), logits.float(), centres[(images.shape[2], images.shape[3])], moved)
        optimizer.zero_grad()
        (box_loss + class_loss).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        _blend(average, network, min(options.average, (step + 1) / (step + 20)))
        sums = [sums[0] + float(box_loss.detach()), sums[1] + float(class_loss.detach())]
        if (step + 1) % 100 == 0:
            spent = time.monotonic() - started
            log.info("step %5d  box %.3f  class %.3f  %.0f s", step + 1, sums[0] / 100, sums[1] / 100, spent)
            sums = [0.0, 0.0]
            torch.save(average.state_dict(), options.out / "streetnet.pt")
    torch.save(average.state_dict(), options.out / "streetnet.pt")
    average.cpu()
    return cast(StreetNet, average)


@torch.no_grad()
def _blend(average: StreetNet, network: StreetNet, keep: float) -> None:
    for old, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if old.dtype.is_floating_point:
            old.lerp_(new, 1 - keep)
        else:
            old.copy_(new)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m samples.train", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the network, the checkpoint and the log")
    parser.add_argument("--worlds", type=int, default=520, help="training seeds; eight pictures each")
    parser.add_argument("--pictures", type=Path, help="file of the rendered pictures: read if there, else written")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--whole-steps", type=int, default=500, help="of these, the last on whole frames, not crops")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2.5e-3)
    parser.add_argument("--average", type=float, default=0.998, help="decay of the moving average of the weights")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", type=Path, help="start from this checkpoint")
    parser.add_argument("--loaders", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2, help="renderers")
    parser.add_argument("--unseen-seconds", type=float, default=10.0, help="length of the evaluation videos")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see --help."""
    options = _options(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [
        logging.StreamHandler(sys.stdout),
        logging.FileHandler(options.out / "training.log", "w"),
    ]
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)
    log.info("command: python -m samples.train %s", " ".join(sys.argv[1:] if arguments is None else arguments))
    kind = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU only, {torch.get_num_threads()} threads"
    log.info("machine: %s, %s; PyTorch %s", platform.machine(), kind, torch.__version__)
    network = train(_pictures(options), options)
    model = options.out / "streetnet.onnx"
    export.write(network, model)
    unseen = options.out / f"unseen-{UNSEEN_SEED}"
    for camera in ("gate", "yard", "crossing", "plaza"):
        render_video(camera, UNSEEN_SEED, options.unseen_seconds, unseen)
    for name, folder in ((f"unseen seed {UNSEEN_SEED}", unseen), ("samples", Path(__file__).parent)):
        log.info("%s", export.report(model, folder, name))


if __name__ == "__main__":
    main()
