"""Published data sets for semantic segmentation, in the folders they come in."""

import os
import posixpath
from collections.abc import Mapping

from beit_jax.data.sources import segment_classes
from beit_jax.data.sources.label_maps import Meaning
from beit_jax.data.sources.pairs import Layout, Pairs
from beit_jax.data.sources.subset import Subset
from beit_jax.ranges import Count, SubsetSeed


class Published(Pairs):
    """What these data sets share.

    Attributes:
      layouts: with {} where a split's own name is; the first that fits is taken.
      splits: name of a split -> its own name in the folders.
      class_names: in the order of their numbers in training.
      meaning: of the numbers in the published maps.
    """

    layouts: tuple[Layout, ...]
    splits: Mapping[str, str]
    class_names: tuple[str, ...]
    meaning = Meaning()

    def __init__(
        self,
        path: str,
        split: str = "train",
        labels: Mapping = (),
        limit: Count = 0,
        subset_seed: SubsetSeed = 0,
        part: str = "",
    ):
        """Finds the images of the split and their label maps.

        Args:
          path: a folder or an archive; the data set's own folders are below it.
          split: which part of the data set, by its name.
          labels: what the pixels of label maps mean, if not what they do as published:
            `reduce_zero_label`, `palette`, `ids`, `ignore` of label_maps.Meaning.
          limit: keep this many random images in all; 0 = all.
          subset_seed: chooses them.
          part: "test" is every tenth image in the order of names, "train" all others.

        Raises:
          ValueError: no such split, or no pairs at `path`.
        """
        if split not in self.splits:
            raise ValueError(
                f"no split {split!r} of {path}; it has {', '.join(self.splits)}"
            )
        own = self.splits[split]
        layouts = [
            Layout(*(part.format(own) for part in layout)) for layout in self.layouts
        ]
        meaning = self.meaning
        if labels:
            meaning = Meaning.from_config(labels, self.class_names)
        name = posixpath.basename(os.path.expanduser(path).rstrip("/"))
        subset = Subset(part, limit, seed=subset_seed)
        self._keep(path, f"{name}/{split}", layouts, self.class_names, meaning, subset)


class Ade20k(Published):
    """ADE20K of the scene parsing challenge: 150 classes, 0 in a map is ignored.

    ADEChallengeData2016/images/training, .../annotations/training, and validation.
    """

    layouts = (Layout("images/{}", "annotations/{}"),)
    splits = {"train": "training", "val": "validation"}
    class_names = segment_classes.ADE20K
    colours = segment_classes.ADE20K_COLOURS
    meaning = Meaning(reduce_zero_label=True)


class Cityscapes(Published):
    """Cityscapes' fine annotations: 19 of 34 numbers are classes, others are ignored.

    leftImg8bit/train/CITY/X_leftImg8bit.png, gtFine/train/CITY/X_gtFine_labelIds.png;
    val, and test, whose maps have no classes.
    """

    layouts = (
        Layout("leftImg8bit/{}", "gtFine/{}", "_leftImg8bit", "_gtFine_labelIds"),
    )
    splits = {"train": "train", "val": "val", "test": "test"}
    class_names = segment_classes.CITYSCAPES
    colours = segment_classes.CITYSCAPES_COLOURS
    meaning = Meaning(ids=(7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33))


class Voc(Published):
    """Pascal VOC 2012: 21 classes with the background, outlines are ignored.

    JPEGImages, SegmentationClass and ImageSets/Segmentation of VOCdevkit/VOC2012.
    """

    layouts = (
        Layout(
            "JPEGImages",
            "SegmentationClass",
            listed="ImageSets/Segmentation/{}.txt",
        ),
    )
    splits = {"train": "train", "val": "val", "trainval": "trainval"}
    class_names = segment_classes.VOC
    colours = segment_classes.VOC_COLOURS


class Camvid(Published):
    """CamVid with 11 classes; 11 in a map is ignored.

    As SegNet has it (train, trainannot, ...), or images, masks and train.txt, ...
    """

    layouts = (
        Layout("images", "masks", listed="{}.txt"),
        Layout("{}", "{}annot"),
    )
    splits = {"train": "train", "val": "val", "test": "test"}
    class_names = segment_classes.CAMVID
    colours = segment_classes.CAMVID_COLOURS
    meaning = Meaning(ignore=(11,))
