"""Runs a torch peer's network of a case; needs torch and the peer."""

import importlib
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.parity import names, ours
from tests.parity.cases import Case, Input, make_input

torch.set_num_threads(1)


def label(peer: str) -> str:
    """Package and version, for tables."""
    package = importlib.import_module(peer)
    return f"{peer} {getattr(package, '__version__', '0.1')}"


def run(case: Case) -> dict[str, np.ndarray]:
    """What `ours.run` returns, computed by torch."""
    model = load(build(case), case)
    loss = _dvae_loss if case.kind.startswith("dvae") else _beit_loss
    value, outputs = loss(case, make_input(case), model)
    value.backward()
    numbers = {"loss": value, **outputs}
    numbers |= {ours.GRADIENT + name: p.grad for name, p in model.named_parameters()}
    return {what: x.detach().numpy() for what, x in numbers.items()}


def build(case: Case) -> nn.Module:
    """The peer's network of a case, with its own initial weights."""
    if case.kind.startswith("dvae"):
        return (dall_e if case.kind == "dvae" else flava)(case)
    return {"transformers": hugging_face, "timm": timm}[case.peer](case)


def load(model: nn.Module, case: Case) -> nn.Module:
    """Gives the model the case's parameters; a missing or unknown name is an error."""
    state = names.theirs(case, ours.parameters(case))
    state = {name: torch.tensor(np.ascontiguousarray(x)) for name, x in state.items()}
    model.load_state_dict(state, strict=True)
    return model.eval().requires_grad_()


def hugging_face(case: Case, **changes) -> nn.Module:
    """BEiT in transformers; `changes` are settings of its config."""
    import transformers

    mim, net = case.kind == "mim", ours.encoder(case)
    settings = {
        "hidden_size": net.dim,
        "num_hidden_layers": net.depth,
        "num_attention_heads": net.heads,
        "intermediate_size": int(net.dim * net.mlp_ratio),
        "layer_norm_eps": net.norm_eps,
        "image_size": case.image[0],
        "patch_size": net.patch_size,
        "use_mask_token": net.mask_token,
        "use_absolute_position_embeddings": net.abs_pos_embed == "learned",
        "use_relative_position_bias": net.rel_pos_bias == "per_block",
        "use_shared_relative_position_bias": net.rel_pos_bias == "shared",
        "layer_scale_init_value": net.layer_scale,
        "drop_path_rate": 0.0,
        # Its masked image modelling has a norm of its own; without mean pooling there
        # would be a second one before it.
        "use_mean_pooling": case.kind != "cls",
        "vocab_size" if mim else "num_labels": case.outputs,
    }
    config = transformers.BeitConfig(**settings | changes)
    if mim:
        return transformers.BeitForMaskedImageModeling(config)
    return transformers.BeitForImageClassification(config)


def timm(case: Case) -> nn.Module:
    """BEiT in timm, whose LayerNorms have the official epsilon."""
    from timm.models.beit import Beit

    shared = ours.encoder(case).rel_pos_bias == "shared"
    tables = {"use_shared_rel_pos_bias": shared, "use_rel_pos_bias": False}
    return Beit(**timm_settings(case) | (tables if shared else {}))


def timm_settings(case: Case) -> dict[str, Any]:
    """Of a network whose blocks have each a table of relative positions, or none."""
    net = ours.encoder(case)
    return {
        "img_size": case.image,
        "patch_size": net.patch_size,
        "num_classes": case.outputs,
        "global_pool": {"mean": "avg", "cls": "token"}[case.kind],
        "embed_dim": net.dim,
        "depth": net.depth,
        "num_heads": net.heads,
        "qkv_bias": net.qkv_bias,
        "mlp_ratio": net.mlp_ratio,
        "init_values": net.layer_scale,
        "use_abs_pos_emb": net.abs_pos_embed == "learned",
        "use_rel_pos_bias": net.rel_pos_bias != "none",
    }


def dall_e(case: Case) -> nn.Module:
    """DALL-E's encoder and decoder."""
    from dall_e import Decoder, Encoder

    net = ours.dvae(case)
    sizes = {"n_hid": net.n_hid, "n_blk_per_group": net.blocks_per_group}
    encoder = Encoder(vocab_size=net.vocab, **sizes)
    decoder = Decoder(vocab_size=net.vocab, n_init=net.n_init, **sizes)
    return nn.ModuleDict({"encoder": encoder, "decoder": decoder})


def flava(case: Case) -> nn.Module:
    """DALL-E's encoder in transformers."""
    import transformers

    net = ours.dvae(case)
    config = transformers.FlavaImageCodebookConfig(
        vocab_size=net.vocab,
        hidden_size=net.n_hid,
        num_blocks_per_group=net.blocks_per_group,
    )
    return transformers.FlavaImageCodebook(config)


def _beit_loss(case: Case, given: Input, model: nn.Module):
    image, target = nchw(given.image), torch.tensor(given.target).long()
    if case.kind != "mim":
        logits = model(image)
        logits = getattr(logits, "logits", logits)
        return nn.functional.cross_entropy(logits, target), {"logits": logits}
    mask = torch.tensor(given.mask)
    result = model(image, bool_masked_pos=mask, labels=target[mask])
    return result.loss, {"logits": result.logits}


def _dvae_loss(case: Case, given: Input, model: nn.Module):
    if case.kind == "dvae_encoder":
        logits = model(nchw(given.image))
        tokens = model.get_codebook_indices(nchw(given.image))
        return logits.square().mean(), {"logits": nhwc(logits), "tokens": tokens}
    logits = model["encoder"](nchw(given.image))
    stats = model["decoder"](logits.softmax(1))
    ids = torch.tensor(given.target).long()
    one_hot = nn.functional.one_hot(ids, case.outputs).permute(0, 3, 1, 2).float()
    return stats.square().mean(), {
        "logits": nhwc(logits),
        "tokens": logits.argmax(1),
        "stats": nhwc(stats),
        "stats of ids": nhwc(model["decoder"](one_hot)),
    }


def nchw(image: np.ndarray) -> torch.Tensor:
    return torch.tensor(image.transpose(0, 3, 1, 2))


def nhwc(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1)
