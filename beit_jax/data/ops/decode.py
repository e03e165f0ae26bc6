"""Encoded images -> pixels, whatever their format; what cannot be used says why.

Pillow decodes: it is what the official code uses, so pixels are the same to the last
bit, and it lets other threads run meanwhile.
"""

import io
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from beit_jax.data.sources import BadExample, suffixes
from beit_jax.data.sources.label_maps import LabelMap, Meaning

FORMATS = tuple(suffixes.FORMATS)
MAX_PIXELS = 2**26  # 8192 x 8192; a file of 100 KB can claim more and fill the memory

Image.init()  # some formats are not known before
# Ours is the limit, below: Pillow's own would warn of images that we allow.
Image.MAX_IMAGE_PIXELS = None

_DEEP = ("I;16", "I;16B", "I;16L", "I;16N")
# How files of formats begin that are not read here.
_UNREAD = {
    rb"(?s).{4}ftyp(hei|hev|mif1|msf1)": "of HEIC",
    rb"(?s).{4}ftypavi": "of AVIF",
    rb"(?s)\xff\x0a|.{4}JXL ": "of JPEG XL",
    rb"(?s).{4}jP  |\xff\x4f\xff\x51": "of JPEG 2000",
    rb"\s*<(!doctype|html|HTML|!DOCTYPE)": "a web page",
}
_EXIF_ORIENTATION = 0x0112


def open_image(data: bytes | np.ndarray, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Reads the header of an encoded image; an array (H, W, 3) uint8 becomes an image.

    Raises:
      BadExample: empty, of no known format, or larger than `max_pixels`.
    """
    if isinstance(data, np.ndarray):
        return Image.fromarray(data)
    if not data:
        raise BadExample("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise BadExample(_why_unidentified(data)) from error
    except Exception as error:  # Pillow's readers raise whatever a broken header gives
        raise BadExample(f"its header cannot be read: {error}") from error
    width, height = image.size
    if width * height > max_pixels:
        raise BadExample(
            f"{width}x{height} is {width * height} pixels; data.max_pixels allows "
            f"{max_pixels}"
        )
    return image


def _why_unidentified(data: bytes) -> str:
    """What is wrong with a file that no format's reader takes.

    Pillow keeps what the readers say to itself: so the one whose file this seems to be
    is asked again.
    """
    for form in FORMATS:
        reader, accepts = Image.OPEN[form]
        if accepts(data[:16]):
            try:
                reader(io.BytesIO(data), "")
            except Exception as error:  # as in open_image
                return f"it begins as {form}, but its header cannot be read: {error}"
    kind = next((kind for what, kind in _UNREAD.items() if re.match(what, data)), "")
    told = f"it is {kind}" if kind else f"it begins with {data[:12]!r}"
    return f"no image that can be read ({told}); formats are {', '.join(FORMATS)}"


def has_16_bits(image: Image.Image) -> bool:
    """Whether a channel of an image has 16 bits as stored; before it is decoded."""
    return any(";16" in str(tile) for tile in getattr(image, "tile", ()))


def _is_deep(image: Image.Image) -> bool:
    """Whether pixels are in 0..65535 once decoded."""
    return image.mode in _DEEP or (image.format == "PPM" and image.mode == "I")


def to_rgb(image: Image.Image) -> Image.Image:
    """Decodes an opened image to 8-bit RGB.

    Grey is repeated, a palette looked up, CMYK converted, alpha dropped (the colours
    below it show), 16 bits cut to the upper 8 (of a PPM, after they are stretched to 16
    from as many as it has); of an animation the first frame is
    taken. All but the 16 bits as `PIL.Image.convert("RGB")`, which would clip those.

    Raises:
      BadExample: truncated or damaged data, or 32-bit pixels, whose range is unknown.
    """
    if image.mode in ("I", "F") and not _is_deep(image):
        raise BadExample("it has 32 bits a pixel; store 8 or 16")
    try:
        if _is_deep(image):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode == "P":
            image = image.convert("RGBA")  # knows every kind of transparency
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise whatever broken data gives
        raise BadExample(f"cannot be decoded: {error}") from error


def to_labels(
    data: bytes | np.ndarray | LabelMap, size: tuple[int, int]
) -> Image.Image:
    """Encoded or plain (H, W) integers -> an image of mode "L" with labels in 0..255.

    Args:
      size: width and height of the image that the labels belong to.

    Raises:
      BadExample: not one channel of 8 bits (or a palette), nor what a LabelMap says
        instead; or another size.
    """
    data, meaning = data if isinstance(data, LabelMap) else (data, Meaning())
    labels = open_image(data) if isinstance(data, bytes) else _array_labels(data)
    if labels.size != size:
        raise BadExample(
            "the label map is {}x{}, its image {}x{}".format(*labels.size, *size)
        )
    _check_labels(labels.mode, meaning)
    try:
        # A palette only colours the labels for the eye: its indices are the labels,
        # unless colours are what the maps mean.
        pixels = np.asarray(labels.convert("RGB") if meaning.palette else labels)
    except Exception as error:  # as in to_rgb
        raise BadExample(f"the label map cannot be decoded: {error}") from error
    return Image.fromarray(meaning.classes(pixels))


def _check_labels(mode: str, meaning: Meaning) -> None:
    """Raises BadExample if pixels of that mode cannot be labels of that meaning."""
    allowed = ("1", "L", "P", *(_DEEP if meaning.deep else ()))
    way_out = ""
    if meaning.palette:
        allowed = ("RGB", "RGBA", "P")
        way_out = "; its colours are in labels.palette, so it must have them"
    elif mode in ("RGB", "RGBA"):
        way_out = "; for colours give the source labels.palette"
    elif mode in _DEEP:
        way_out = "; for numbers of 16 bits give the source labels.ids"
    if mode not in allowed:
        told = "" if meaning.palette else "; it must have one channel of 8 bits"
        raise BadExample(f"the label map has pixels of mode {mode}{told}{way_out}")


def to_masks(data: np.ndarray | Sequence[bytes], size: tuple[int, int]) -> np.ndarray:
    """Masks of objects, encoded or plain -> (M, H, W) uint8, 1 where the object is.

    Args:
      size: width and height of the image that the masks belong to.

    Raises:
      BadExample: as `to_labels`.
    """
    if not isinstance(data, np.ndarray):
        data = [np.asarray(to_labels(mask, size)) for mask in data]
        data = np.array(data, np.uint8).reshape(-1, *size[::-1])
    if data.ndim != 3 or data.shape[1:] != size[::-1]:
        raise BadExample(
            f"the masks of shape {data.shape} must be (M, H, W), its image is "
            f"{size[0]}x{size[1]} (width x height)"
        )
    return (data != 0).astype(np.uint8)


def _array_labels(labels: np.ndarray) -> Image.Image:
    if labels.ndim != 2 or labels.min() < 0 or labels.max() > 255:
        raise BadExample(
            f"the label map of shape {labels.shape} must be (H, W) in 0..255"
        )
    return Image.fromarray(labels.astype(np.uint8))


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an opened image; 1: as stored.

    Raises:
      BadExample: of a PNG, whose data must be decoded first, if that fails.
    """
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception as error:  # as in to_rgb
        raise BadExample(f"cannot be decoded: {error}") from error


def upright(image: Image.Image) -> Image.Image:
    """Turned and mirrored as its EXIF orientation asks; the official code does not.

    Raises:
      BadExample: as `to_rgb`.
    """
    try:
        return to_rgb(ImageOps.exif_transpose(image))
    except BadExample:
        raise
    except Exception as error:  # as in to_rgb; odd metadata are a SyntaxError
        raise BadExample(f"cannot be decoded: {error}") from error
