"""Checkpoints taken to torch peers and back; what the networks make of an image then.

In each direction the peer's own loader or writer is used: `from_pretrained` and
`save_pretrained` of transformers, `create_model` of timm, `torch.save`, `torch.load`.
"""

import argparse
import json
import pathlib
import tempfile

import jax
import numpy as np

import beit_jax
from beit_jax import config as config_lib
from beit_jax import tasks
from beit_jax.checkpoints import read, write
from beit_jax.checkpoints.foreign.rules import NO_HINTS, Hints
from beit_jax.checkpoints.names import nest
from beit_jax.checkpoints.steps import Restored
from beit_jax.run import card
from tests.parity import ours
from tests.parity.cases import Case, make_input

FAMILIES = {  # by the kinds of cases
    "mim": "BEiT pre-training",
    "mean": "BEiT classifier",
    "cls": "BEiT classifier",
    "dvae": "dVAE",
    "dvae_encoder": "dVAE's encoder",
}
POOLS = ("mean", "cls")
# Of evaluation, in the section `data`: the middle 56 of 64 pixels, and another filter.
CROPPING = {
    "augment": {"interpolation": "bilinear"},
    "eval_frame": {"name": "centre", "crop_pct": 0.875},
}
AUTO = "AutoModelForImageClassification"
SETTINGS = ("dim", "depth", "heads", "patch_size", "mlp_ratio", "qkv_bias")
SETTINGS += ("layer_scale", "norm_eps", "abs_pos_embed", "rel_pos_bias")


def checkpoint(case: Case, pixels: str = "imagenet", **data) -> Restored:
    """The random network of a case as one of ours, with all that one has.

    Args:
      data: of the section `data` of its config.
    """
    whole = _tokenizer if case.kind.startswith("dvae") else _beit
    sections = whole(case, pixels)
    sections["data"] = sections.get("data", {}) | data
    config = config_lib.new(epochs=0.0, **sections)
    class_names = [f"thing {i}" for i in range(case.outputs)]
    return Restored(
        path=pathlib.Path("random"),
        step=0,
        params=nest(ours.parameters(case)),
        model_state={},
        config=json.loads(config.to_json()),
        position={"step": 0},
        card=card.of(config, tasks.build(config), class_names),
    )


def _beit(case: Case, pixels: str) -> dict:
    net, (height, width) = ours.encoder(case), case.image
    model = {name: getattr(net, name) for name in SETTINGS}
    model["image_size"] = height if height == width else case.image
    model["pixels"] = pixels
    if case.kind in POOLS:
        task = {"name": "classify", "classes": case.outputs, "pool": case.kind}
        return {"task": task, "model": model}
    small = {"vocab": case.outputs}
    tokens = {"name": "tokens", "checkpoint": "untrained", "untrained": small}
    task = {"name": "pretrain", "target": tokens}
    mask = {"name": "blockwise", "max_patches": 4}
    return {"task": task, "model": model, "data": {"mask": mask}}


def _tokenizer(case: Case, pixels: str) -> dict:
    model = {"name": "dvae", "vocab": case.outputs, **case.model}
    model |= {"image_size": 2 * case.model["patch_size"], "pixels": "dalle"}
    return {"task": {"name": "tokenizer"}, "model": model}


def hints(case: Case) -> Hints:
    """What timm's and the official code's files do not tell of a BEiT."""
    return Hints(case.image, ours.encoder(case).heads)


def load(path: pathlib.Path, told: Hints = NO_HINTS):
    """A function as `module.apply`, bound to a checkpoint as a user would load it.

    What a file does not tell is told on its way through one of ours.
    """
    saved, _ = read.read(path, told)
    saved = saved._replace(card=card.of_checkpoint(saved))
    with tempfile.TemporaryDirectory() as folder:
        whole = pathlib.Path(folder, "whole.safetensors")
        write.write(saved, whole, "safetensors")
        module, variables, _, _ = beit_jax.load(whole)

    def apply(*args, **kwargs):
        with jax.default_matmul_precision("highest"):
            return np.asarray(module.apply(variables, *args, **kwargs))

    return apply


def our_outputs(path: pathlib.Path, case: Case, told: Hints = NO_HINTS) -> np.ndarray:
    """Logits, masked where it pre-trains; of a whole dVAE what it paints too."""
    given, apply = make_input(case), load(path, told)
    if not case.kind.startswith("dvae"):
        mask = (given.mask,) if case.kind == "mim" else ()
        return apply(given.image, *mask)
    logits = apply(given.image, method="logits")
    if case.kind == "dvae_encoder":
        return logits
    stats = apply(jax.nn.softmax(logits), method="stats")
    return np.concatenate([logits.ravel(), stats.ravel()])


def their_outputs(model, case: Case) -> np.ndarray:
    """As `our_outputs`, of a peer's network."""
    import torch

    from tests.parity import peers

    given, model = make_input(case), model.eval()
    image = peers.nchw(given.image)
    with torch.no_grad():
        if case.kind == "dvae":
            logits = model["encoder"](image)
            both = (logits, model["decoder"](logits.softmax(1)))
            return torch.cat([peers.nhwc(x).flatten() for x in both]).numpy()
        if case.kind == "dvae_encoder":
            return peers.nhwc(model(image)).numpy()
        mask = torch.tensor(given.mask)
        result = model(image, **{"bool_masked_pos": mask} if case.kind == "mim" else {})
    return getattr(result, "logits", result).numpy()


def from_hf(folder: pathlib.Path, case: Case):
    """The network that transformers makes of a folder; every name must be known."""
    import transformers

    # No Auto class knows the others; none looks at `architectures`, but pipelines do.
    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    classifies = case.kind in POOLS
    cls = getattr(transformers, AUTO if classifies else name)
    model, said = cls.from_pretrained(folder, output_loading_info=True)
    wrong = {k: sorted(map(str, v)) for k, v in said.items() if v}
    assert not wrong, wrong
    assert type(model).__name__ == name
    return model


def from_timm(file: pathlib.Path, case: Case):
    """What `timm.create_model` makes of a file; it refuses names it does not know."""
    import timm

    from tests.parity import peers

    name, settings = "beit_base_patch16_224", peers.timm_settings(case)
    return timm.create_model(name, checkpoint_path=str(file), **settings)


def from_timm_folder(folder: pathlib.Path, case: Case):
    """What timm makes of a folder, of which nothing is told."""
    import timm

    return timm.create_model(f"local-dir:{folder}", pretrained=True)


def from_official(file: pathlib.Path, case: Case):
    """timm's network with an official file; the indices in that must be timm's."""
    import torch

    from tests.parity import peers

    model = peers.timm(case)
    state = torch.load(file, weights_only=True)["model"]
    index = {name: state.pop(name) for name in list(state) if name.endswith("_index")}
    assert index.keys() == _index_buffers(model).keys()
    assert all(torch.equal(index[k], x) for k, x in _index_buffers(model).items())
    model.load_state_dict(state)
    return model


def from_dall_e(file: pathlib.Path, case: Case):
    import torch

    from tests.parity import peers

    model = peers.dall_e(case)
    model.load_state_dict(torch.load(file, weights_only=True)["model"])
    return model


def save_hf(model, path: pathlib.Path) -> None:
    model.save_pretrained(path)


def save_timm(model, path: pathlib.Path) -> None:
    import torch

    torch.save(model.state_dict(), path)


def save_official(model, path: pathlib.Path) -> None:
    """timm's network as the official code saves its own."""
    save_official_state(model.state_dict() | _index_buffers(model), path)


def save_official_state(state, path: pathlib.Path) -> None:
    """With what lies beside the weights in the official code's files."""
    import torch

    whole = {"model": state, "args": argparse.Namespace(lr=1.0), "epoch": 3}
    whole["optimizer"] = {"state": {0: {"exp_avg": torch.ones(3)}}}
    torch.save(whole, path)


def save_dall_e(model, path: pathlib.Path) -> None:
    """As OpenAI's two pickled modules."""
    import torch

    path.mkdir()
    for half in ("encoder", "decoder"):
        torch.save(model[half], path / f"{half}.pkl")


def _index_buffers(model) -> dict:
    """The official code saves these; timm does not."""
    return {k: x for k, x in model.named_buffers() if k.endswith("_index")}


# Format and its form -> what reads it, and its file's name.
READERS = {
    "transformers": {"hf": (from_hf, "hf")},
    "timm": {
        "timm": (from_timm, "timm.pth"),
        "timm folder": (from_timm_folder, "timm"),
        "official": (from_official, "a.pth"),
    },
    "dall_e": {"official": (from_dall_e, "dall_e.pth")},
}
WRITERS = {
    "transformers": {"hf": (save_hf, "their_hf")},
    "timm": {
        "timm": (save_timm, "their_timm.pth"),
        "official": (save_official, "their_a.pth"),
    },
    "dall_e": {"official": (save_dall_e, "their_dall_e")},
}


def differences(case: Case, folder: pathlib.Path) -> dict[str, float]:
    """Direction -> largest difference of the outputs, which are of the size of 1."""
    from tests.parity import peers

    made = {}
    saved = checkpoint(case)
    write.write(saved, folder / "ours.safetensors", "safetensors")
    own = our_outputs(folder / "ours.safetensors", case)
    for to, (load, name) in READERS[case.peer].items():
        write.write(saved, folder / name, to.split()[0])
        outputs = their_outputs(load(folder / name, case), case)
        made[f"ours -> {to}"] = largest(outputs, own)
    model = peers.load(peers.build(case), case)
    theirs = their_outputs(model, case)
    told = hints(case) if case.peer == "timm" else NO_HINTS
    for to, (save, name) in WRITERS[case.peer].items():
        save(model, folder / name)
        made[f"{to} -> ours"] = largest(our_outputs(folder / name, case, told), theirs)
    return made


def largest(got: np.ndarray, want: np.ndarray) -> float:
    assert got.shape == want.shape
    return float(np.abs(got - want).max())
