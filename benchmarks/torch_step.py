"""The pre-training step in PyTorch (transformers' BEiT), in turns with ours.

    python benchmarks/torch_step.py --model tiny [--dtype bfloat16] [--batch N]
    python benchmarks/torch_step.py --beside mini small base [--rounds 3]

Needs the extra "torch". The work is that of `step.py --tokenizer none`: the same
network, batch and masked patches, logits of the masked alone, stochastic depth .1, the
norm of gradients cut, AdamW (fused); tokens are given. The first form prints a JSON
line as step.py does; the second runs both scripts in turn, each time in a process of
its own, and prints a markdown table of the medians of all rounds.
"""

import argparse
import itertools
import json
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np
import step  # the file beside this one
import torch
from transformers import BeitConfig, BeitModel


class Pretrain(torch.nn.Module):
    """transformers' encoder with the official head: logits of masked patches alone."""

    def __init__(self, model: dict, vocab: int):
        super().__init__()
        dim, depth = model.get("dim", 768), model.get("depth", 12)
        settings = BeitConfig(
            image_size=model["image_size"],
            patch_size=model.get("patch_size", 16),
            hidden_size=dim,
            num_hidden_layers=depth,
            num_attention_heads=model.get("heads", 12),
            intermediate_size=4 * dim,
            use_mask_token=True,
            use_shared_relative_position_bias=True,
            layer_scale_init_value=0.1,
            drop_path_rate=0.1,
        )
        self.encoder = BeitModel(settings, add_pooling_layer=False)
        self.norm = torch.nn.LayerNorm(dim, eps=settings.layer_norm_eps)
        self.head = torch.nn.Linear(dim, vocab)

    def forward(self, images, mask):
        """(B, 3, H, W), (B, N) bool -> (masked, vocab)."""
        encoded = self.encoder(images, bool_masked_pos=mask).last_hidden_state
        return self.head(self.norm(encoded[:, 1:])[mask])


def measure(args) -> dict[str, float]:
    """Runs `args.steps` steps after two that warm up."""
    torch.manual_seed(0)
    model, vocab = step.MODELS[args.model], step.VOCABS[args.model]
    net = Pretrain(model, vocab).train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
    side, patches = model["image_size"], net.encoder.embeddings.patch_embeddings
    images = torch.rand(args.batch, 3, side, side)
    mask = (
        torch.rand(args.batch, patches.num_patches).argsort(1) < step.MASKS[args.model]
    )
    wanted = torch.randint(vocab, (int(mask.sum()),))
    seconds = []
    for _ in range(args.steps + 2):
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, args.dtype == "bfloat16"):
            logits = net(images, mask)
        loss = torch.nn.functional.cross_entropy(logits.float(), wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 3.0)
        optimizer.step()
        seconds.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "images_per_second_median": round(
            args.batch / float(np.median(seconds[2:])), 2
        ),
        "peak_rss_gib": round(peak, 2),
    }


def run(script: str, *words: str) -> dict:
    """The JSON line that a script of this folder prints."""
    path = str(pathlib.Path(__file__).with_name(script))
    command = [sys.executable, path, *words]
    return json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    )


def beside(models: list[str], rounds: int, steps: int) -> str:
    """A markdown table; each cell is the median of `rounds` processes."""
    rows = ["| model, batch | dtype | torch | ours | ratio |", "|---|---|---|---|---|"]
    for model, dtype in itertools.product(models, ("float32", "bfloat16")):
        words = [f"--model={model}", f"--dtype={dtype}", f"--steps={steps}"]
        got = {"torch_step.py": [], "step.py": []}
        for script in list(got) * rounds:
            more = ["--tokenizer=none"] if script == "step.py" else []
            line = run(script, *words, *more)
            print(script, json.dumps(line), flush=True)
            got[script].append(line["images_per_second_median"])
        theirs, ours = (float(np.median(rates)) for rates in got.values())
        rows.append(
            f"| {model}, {line['batch']} | {dtype} | {theirs:.4g} | {ours:.4g} "
            f"| {ours / theirs:.2f} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=step.MODELS, default="tiny")
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--beside", nargs="+", choices=step.MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.beside:
        print(beside(args.beside, args.rounds, args.steps))
        return
    args.batch = args.batch or step.BATCHES[args.model]
    told = {"model": args.model, "batch": args.batch, "dtype": args.dtype}
    print(json.dumps(told | measure(args)))


if __name__ == "__main__":
    main()
