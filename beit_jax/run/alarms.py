"""What looks wrong in a run: sentences with the value, the rule and the way out.

docs/signal.md lists them. An alarm has a name and a sentence: {name: sentence}.
"""

import collections
import math
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from ml_collections import ConfigDict

from beit_jax.config import Plan
from beit_jax.optim.groups import Group
from beit_jax.optim.optimizers import Optimizer

Alarm = tuple[str, str]

RESOLUTION = 2**-24  # a float32 does not feel a change by a smaller share of it
START = 0.02  # deviation of most weights when a run begins
UNMOVED = 0.01  # what moves by a smaller share of START may as well be frozen
ALWAYS = 0.99  # share of steps
FAR = 100  # clip_norm so many times above all gradients' norms is not there
EXPLODED = 10  # times the gradients' usual norm
FADED = 0.01  # of optim.lr: a rate that shall do no more
USUAL = 20  # reports, whose median is usual
FEWEST = 5  # reports that can tell what is
UNTOLD = {"clipped": math.nan, "parameter_norm": math.nan}  # by earlier versions
NOT_A_NUMBER = (
    "it is not a number, so that no metric of this evaluation says anything; see by "
    "python -m beit_jax.check_data whether the data are whole, or use dtype=float32"
)
SETTLED = 0.2  # of a run: what has not shown by then will not show by itself


def of_settings(plan: Plan, optimizer: Optimizer) -> list[str]:
    """Sentences on settings of the section `optim` that cannot have their effect."""
    found = [*_of_warm_up(plan)]
    for group in optimizer.groups.values():
        if jax.tree.leaves(group.scales):  # others may have all parameters
            rates = group.rate(np.arange(plan.total), xp=np)
            found += _of_rates(group, rates)
            found += _of_weight_decay(group, rates)
            found += _of_layer_decay(group, rates)
    return [f"{name}: {sentence}" for name, sentence in found]


def _of_warm_up(plan: Plan) -> Iterator[Alarm]:
    if plan.warmup > plan.total / 2:
        yield (
            "warm-up",
            f"{plan.warmup} of {plan.total} steps, more than half, are warm-up; lower "
            "optim.warmup_epochs or optim.warmup_steps, or train for longer",
        )


def _of_rates(group: Group, rates: np.ndarray) -> Iterator[Alarm]:
    where, lr, least = group.where, group.settings.lr, group.settings.min_lr
    if least > lr and rates.max() > lr:  # not every schedule goes to min_lr
        yield (
            "learning rate",
            f"{where}.min_lr={least:g} is above {where}.lr={lr:g}, so that the rate "
            "rises to the end; lower min_lr",
        )


def _of_weight_decay(group: Group, rates: np.ndarray) -> Iterator[Alarm]:
    each, decay = group.decay, f"{group.where}.weight_decay"
    decay += f"={group.settings.weight_decay:g}"
    each = each(np.arange(len(rates)), xp=np) if callable(each) else each
    taken = np.sum(rates * each)
    trains, decays = map(jax.tree.leaves, (group.scales, group.decayed))
    if not np.any(each):
        return
    if not any(np.any(a) and b for a, b in zip(trains, decays, strict=True)):
        yield (
            "weight decay",
            f"{decay} acts on nothing, for biases, norms and embeddings never decay "
            "and all else is frozen; set it to 0",
        )
    elif group.settings.name == "adamw" and taken < RESOLUTION:
        yield (
            "weight decay",
            f"{decay} takes {taken:.1e} of a weight in the whole run, less than the "
            f"{RESOLUTION:.0e} that float32 feels; raise it or {group.where}.lr, or "
            "set it to 0",
        )


def _of_layer_decay(group: Group, rates: np.ndarray) -> Iterator[Alarm]:
    settings = group.settings
    if settings.layer_decay == 1 or settings.name != "adamw":
        return  # only Adam's steps are of about 1
    each = jax.tree.leaves(group.scales)
    least = min(np.min(factor, where=factor > 0, initial=1) for factor in each)
    moved = float(rates.sum()) * float(least)  # by steps of 1 in one direction
    if moved < UNMOVED * START:
        yield (
            "layer decay",
            f"optim.layer_decay={settings.layer_decay:g} lets the lowest layer that "
            f"trains move by {moved:.1e} in the whole run, less than {UNMOVED:.0%} of "
            f"weights of {START}; raise it, or freeze more with optim.freeze_blocks",
        )


class Alarms:
    """Finds what is wrong in each report; tells it once, until it has passed."""

    def __init__(self, task, settings: ConfigDict, plan: Plan):
        """For a run of `task` with the section `optim` and those durations."""
        self._task, self._settings, self._plan = task, settings, plan
        self._told: dict[str, set[str]] = {}
        self._latest = collections.deque(maxlen=FEWEST)  # reports of training
        self._norms = collections.deque(maxlen=USUAL)  # of gradients, after warm-up
        self._largest, self._never = 0.0, True  # of all norms; clipped

    def hear(self, values: Mapping[str, float], step: int) -> list[str]:
        """New sentences on a report: "train/...", "eval/..." values at `step`, say.

        A run that goes on hears first what the run before it has reported.
        """
        split = next(iter(values)).split("/")[0]
        plain = {name.split("/", 1)[1]: value for name, value in values.items()}
        if split == "train" and "loss" not in plain:  # all steps were left out
            return []
        found = self._task.warnings(plain, step / self._plan.total)
        if math.isnan(plain.get("loss", 0.0)):
            found = found | {"loss": NOT_A_NUMBER}
        if split == "train":
            found = found | dict(self._of_training(plain, step))
        told = self._told.get(split, set())
        self._told[split] = set(found)
        # Of one evaluation among several: which.
        where = "" if split in ("train", "eval") else f"{split}/"
        return [f"{where}{name}: {found[name]}" for name in found if name not in told]

    def _of_training(self, values: Mapping[str, float], step: int) -> Iterator[Alarm]:
        late = step >= SETTLED * self._plan.total
        values = UNTOLD | values
        self._latest.append(values)
        self._largest = max(self._largest, values["grad_norm"])
        if self._settings.clip_norm:
            self._never &= values["clipped"] == 0
            yield from self._of_clipping(values["grad_norm"], late)
        if late and self._chance(values) and len(self._latest) == FEWEST:
            yield from self._of_chance()
        if step - self._plan.log >= self._plan.warmup:  # no part of it is warm-up
            yield from self._of_norms(values)
            self._norms.append(values["grad_norm"])

    def _mean(self, name: str) -> float:
        """Over the latest reports: a single one may be of few images."""
        return float(np.mean([values[name] for values in self._latest]))

    def _of_clipping(self, norm: float, late: bool) -> Iterator[Alarm]:
        limit, share = self._settings.clip_norm, self._mean("clipped")
        if share >= ALWAYS and len(self._latest) == FEWEST:
            yield (
                "clipping",
                f"{share:.0%} of the steps of {FEWEST} reports were clipped, to "
                f"{limit:g} from {norm:.3g} now, so that only the gradients' direction "
                "counts; raise optim.clip_norm, or lower optim.lr",
            )
        if late and self._never and self._largest * FAR < limit:
            yield (
                "clipping",
                f"no gradient came near optim.clip_norm={limit:g}, their norm was "
                f"{self._largest:.3g} at most; set it to a few times that, or to 0",
            )

    def _chance(self, values: Mapping[str, float]) -> bool:
        """Whether there is one right class an image."""
        return bool(self._task.classes) and "top1" in values

    def _of_chance(self) -> Iterator[Alarm]:
        chance, blind = 1 / self._task.classes, math.log(self._task.classes)
        top1, loss = self._mean("top1"), self._mean("loss")
        if top1 < 1.2 * chance and loss > 0.99 * blind:
            yield (
                "accuracy",
                f"top-1 of {top1:.2%} and loss {loss:.3f} in training are no better "
                f"than chance ({chance:.2%}, {blind:.3f}); change optim.lr, or see by "
                "python -m beit_jax.check_data whether the labels fit the images",
            )

    def _of_norms(self, values: Mapping[str, float]) -> Iterator[Alarm]:
        update, params = values["update_norm"], values["parameter_norm"]
        rate = values["learning_rate"]
        if update < RESOLUTION * params and rate >= FADED * self._settings.lr:
            yield (
                "learning rate",
                f"updates of norm {update:.1e} to parameters of norm {params:.3g} are "
                f"lost in rounding (below {RESOLUTION:.0e} of them); raise optim.lr, "
                f"the rate is {rate:.1e}",
            )
        if len(self._norms) < FEWEST:
            return
        norm, usual = values["grad_norm"], float(np.median(self._norms))
        if norm > EXPLODED * usual:
            yield (
                "gradient norm",
                f"{norm:.3g} since the last report, {norm / usual:.0f} times its usual "
                f"{usual:.3g}; lower optim.lr, set optim.clip_norm, or use "
                "dtype=float32",
            )
