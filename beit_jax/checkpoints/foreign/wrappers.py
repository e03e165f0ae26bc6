"""What lies around a state dict: parts of a checkpoint, and prefixes of its names."""

from collections.abc import Collection, Mapping

from beit_jax.checkpoints.foreign.rules import Array

# Where checkpoints have their state dict, the first that is there; BEiT's discrete VAE
# has it as weights.
WEIGHTS = ("model", "module", "state_dict", "weights", "model_state_dict")
WEIGHTS += ("model_state", "network", "net")
# And where running averages of it; read where there is nothing else.
AVERAGES = ("model_ema", "state_dict_ema", "ema_state_dict", "ema", "params_ema")
# What wrappers call the network within, before all names: DistributedDataParallel and
# AveragedModel, Lightning and others.
PREFIXES = ("module.", "model.", "backbone.", "network.", "net.")
# And anywhere among them: torch.compile, FSDP, activation checkpointing.
WITHIN = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
COUNT = "n_averaged"  # of AveragedModel, beside its network


def taken(parts: Collection[str]) -> tuple[str, tuple[str, ...]]:
    """Which of a checkpoint's parts is its state dict, and what is to be told of that.

    Args:
      parts: names of those that could be one; of others it is none.
    """
    there = [name for name in (*WEIGHTS, *AVERAGES) if name in parts]
    if not there:
        return "", ()
    first, *others = there
    if first in AVERAGES:
        return first, (f"the weights are those of {first!r}, a running average",)
    if others:
        left = ", ".join(map(repr, others))
        return first, (
            f"the weights are those of {first!r}; {left}, which it has too, is left "
            "behind: save that alone to read it",
        )
    return first, ()


def unwrapped(state: Mapping[str, Array]) -> tuple[dict[str, Array], tuple[str, ...]]:
    """A state dict without what wrappers put before its names, and what that was."""
    names = {name: name for name in state if name != COUNT}
    found = []
    for part in WITHIN:
        if any(part in name for name in names):
            found.append(part)
            names = {name.replace(part, ""): stored for name, stored in names.items()}
    while names and (prefix := _shared(names)):
        found.append(prefix)
        names = {name.removeprefix(prefix): own for name, own in names.items()}
    if not found or len(names) < len(state) - (COUNT in state):  # two of one name
        return dict(state), ()
    told = f"names are taken without {', '.join(map(repr, found))}"
    return {name: state[own] for name, own in names.items()}, (told,)


def _shared(names: Collection[str]) -> str:
    """The prefix that all names have; empty: none."""
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in names):
            return prefix
    return ""
