"""The one door from a checkpoint to something that computes.

`evaluate`, `predict`, `knn`, `convert` and `beit_jax.load` all go through it.
"""

import functools
import pathlib
import sys
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from beit_jax import config as config_lib
from beit_jax import modules, sharding, tasks
from beit_jax.checkpoints import frozen as frozen_lib
from beit_jax.checkpoints import names
from beit_jax.checkpoints.foreign.rules import Hints, pair
from beit_jax.checkpoints.read import restore
from beit_jax.checkpoints.steps import Restored
from beit_jax.models.pixels import PixelSpace
from beit_jax.models.tokenizers import TOKENIZERS
from beit_jax.models.vit import Encoder
from beit_jax.run import card as card_lib
from beit_jax.run import state
from beit_jax.run.preprocess import Preprocess
from beit_jax.run.state import TrainState
from beit_jax.targets.tokens import UNTRAINED
from beit_jax.tasks import encoders
from beit_jax.tasks.base import Task

Tree = Any


class Loaded(NamedTuple):
    """A checkpoint that is ready for use."""

    module: nn.Module
    variables: Tree  # for module.apply
    preprocess: Preprocess  # images -> what the module takes
    card: card_lib.Card  # what else is known, class_names say: see card.py


class Alone(NamedTuple):
    """An encoder without its head, as its arrays say that it is."""

    module: Encoder
    params: Tree  # on the host
    size: tuple[int, int]  # height and width of the images
    space: PixelSpace


class Opened:
    """A checkpoint to compute with; what nobody asks for is not made.

    An encoder can be had without its head and its task, a network without the frozen
    networks that it was trained with; a task needs all of them.

    Args:
      config: whole, instead of the one that the checkpoint carries.
      image_size: of the images, instead of the checkpoint's.

    Attributes:
      saved: what the checkpoint holds.
      config: the one given or its own, on the devices that are here.

    Raises:
      ValueError: a config with keys that there are not, or without some.
    """

    def __init__(
        self,
        saved: Restored,
        config: ConfigDict | None = None,
        image_size: int | tuple[int, int] | None = None,
    ):
        self.saved, self._asked = saved, image_size
        self.config = (config or _own(saved)).copy_and_resolve_references()
        if "lora" in self.config.task:  # which is in the weights that were read
            del self.config.task["lora"]
        if image_size is not None:
            height, width = pair(image_size)
            size = height if height == width else (height, width)
            with self.config.ignore_type():  # a side may become height and width
                self.config.model.image_size = size
        config_lib.check(self.config)
        self._refused = tuple(modules.recall(self.config.modules, "its config"))

    @functools.cached_property
    def card(self) -> card_lib.Card:
        card = card_lib.of_checkpoint(self.saved)
        return card | ({"image_size": [*pair(self._asked)]} if self._asked else {})

    @functools.cached_property
    def task(self) -> Task:
        """Raises ValueError where the config, or a frozen network, cannot be used."""
        return tasks.build(self.config)

    @property
    def has_encoder(self) -> bool:
        name = self.config.model.get("name", "vit")
        return "encoder" in self.saved.params and name not in TOKENIZERS

    @functools.cached_property
    def encoder(self) -> Alone:
        """Raises ValueError where there is none in the checkpoint."""
        if not self.has_encoder:
            raise ValueError(
                f"{self.saved.path} is of task {self.config.task.name!r}, which has no "
                "BEiT encoder; name one of pre-training or of fine-tuning"
            )
        params = self.saved.params["encoder"]
        module, size, space = encoders.build(
            self.config, mask_token="mask_token" in params, final_norm="norm" in params
        )
        adapted = module.adapt(params, self.saved.config["model"])
        return Alone(module, adapted, size, space)

    def network(self) -> tuple[nn.Module, Tree]:
        """The module that the checkpoint has arrays for, and what its `apply` takes.

        Raises:
          ValueError: it has none, or arrays of other shapes than its config says.
        """
        module, params = self._module()
        variables = {"params": params, **self.saved.model_state}
        image = jnp.zeros((1, *pair(self.config.model.image_size), 3))
        wants = dict(nn.unbox(jax.eval_shape(module.init, jax.random.key(0), image)))
        if "decoder" in wants["params"].keys() - params.keys():
            del wants["params"]["decoder"]  # of a tokenizer's encoder alone
        names.check_fit(variables, wants, str(self.saved.path))
        return module, variables

    def _module(self) -> tuple[nn.Module, Tree]:
        params = self.saved.params
        if params.keys() == {"encoder"} and self.has_encoder:
            return self.encoder.module, self.encoder.params
        task = tasks.build(_standing_alone(self.config, params))
        if task.network is None:
            raise ValueError(
                f"{self.saved.path} is of task {self.config.task.name!r}, which has no "
                "network of its own; load the checkpoint that its encoder is from"
            )
        return task.network, task.adapt(params, self.saved.config["model"])

    def adapted(self) -> Restored:
        """What the checkpoint holds, for images of the size asked for; its whole card.

        Raises:
          ValueError: a size that its patches do not fill.
        """
        saved, size = self.saved, self.config.model.image_size
        model = {**saved.config["model"], "image_size": size}
        params = saved.params
        if self.has_encoder:
            params = {**params, "encoder": self.encoder.params}
        config = {**saved.config, "model": model}
        return saved._replace(config=config, card=self.card, params=params)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what is not here, or not as it was trained."""
        model = (self.saved.config["model"], self.config.model)
        old, new = (pair(settings["image_size"]) for settings in model)
        if old == new or not self.has_encoder:
            return self._refused
        (h, w), (height, width) = old, new
        resized = f"positions of {h}x{w} px resized to those of {height}x{width} px"
        return (*self._refused, resized)

    def on_mesh(self, mesh: Mesh) -> tuple[TrainState, Tree]:
        """Weights and the task's frozen ones, in their places on the mesh.

        Raises:
          ValueError: weights of another model, or trained on other frozen ones.
        """
        saved, task = self.saved, self.task
        records = frozen_lib.records(task.frozen)
        frozen_lib.compare(records, saved.position, str(saved.path))
        one = {
            name: jax.ShapeDtypeStruct((1, *form.shape), form.dtype)
            for name, form in task.train_spec.items()
        }
        boxed = state.abstract_variables(task, one)
        params = task.adapt(saved.params, saved.config["model"])
        have = {"params": params, "model_state": saved.model_state}
        names.check_fit(have, nn.unbox(boxed), str(saved.path))
        have = jax.device_put(have, sharding.shardings_of(boxed, mesh))
        step = jnp.asarray(saved.step, jnp.int32)
        frozen = jax.device_put(frozen_lib.load(task.frozen), sharding.replicated(mesh))
        return TrainState(step=step, opt_state=None, ema=None, **have), frozen


def open(
    path: str | pathlib.Path,
    config: ConfigDict | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> Opened:
    """Any checkpoint, see checkpoints/read.py; arguments and errors are of `Opened`.

    Tells on stderr what had to be assumed, and what becomes of its positions.
    """
    saved = restore(path, Hints(image_size=image_size))
    opened = Opened(saved, config, image_size)
    for note in opened.notes:
        print(f"note: {saved.path}: {note}", file=sys.stderr)
    return opened


def load(
    path: str | pathlib.Path,
    image_size: int | tuple[int, int] | None = None,
    config: ConfigDict | None = None,
) -> Loaded:
    """See `beit_jax.load`."""
    opened = open(path, config, image_size)
    module, variables = opened.network()
    card = opened.card
    return Loaded(module, jax.device_put(variables), Preprocess(card), card)


def _own(saved: Restored) -> ConfigDict:
    """The config that a checkpoint carries, on the devices that are here."""
    config = config_lib.from_dict(saved.config)
    config.mesh = config_lib.defaults().mesh
    return config


# Targets with a frozen network -> a random one that is so wide.
STAND_INS = {
    "tokens": lambda width: {
        "name": "tokens",
        "checkpoint": UNTRAINED,
        "untrained": {"vocab": width},
    },
    "features": lambda width: {
        "name": "features",
        "teacher": {
            "name": "encoder",
            "checkpoint": UNTRAINED,
            "untrained": {"projection": width},
        },
    },
}


def _standing_alone(config: ConfigDict, params: Tree) -> ConfigDict:
    """The same; the frozen network that it learned from need not be there."""
    config = config.copy_and_resolve_references()
    task = config.task
    layer = params.get("lm_head", params.get("decoder_pred"))
    if task.name == "pretrain" and task.target.name in STAND_INS and layer:
        task.target = STAND_INS[task.target.name](layer["kernel"].shape[1])
    if "teacher" in task.get("objective", {}):
        task.objective.teacher = {}
    return config
