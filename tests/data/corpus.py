"""Files that a data set may contain, and what is to become of each of them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms

SIZE = (48, 36)  # width, height of the ordinary ones


def photograph(seed: int = 0) -> Image.Image:
    """A smooth coloured picture, so that lossy formats keep it nearly."""
    coarse = np.random.RandomState(seed).randint(0, 256, (5, 6, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_header(width: int, height: int, rows: bytes = b"", kind: int = 2) -> bytes:
    """A PNG that claims to be so large, whatever it holds; kind 0: grey, 2: RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_chunk(png: bytes, kind: bytes, data: bytes, check: int = 0) -> bytes:
    """A PNG with one more chunk, of the right checksum or another by `check`."""
    right = zlib.crc32(kind + data) ^ check
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", right)
    return png[:33] + chunk + png[33:]


def bomb(side: int = 12000, rows: int = 200) -> bytes:
    """A real grey PNG of side x side zeros: 140 KB for 432 MB of pixels in RGB."""
    squeezer = zlib.compressobj(9, wbits=-15)
    block = squeezer.compress(bytes(rows * (side + 1)))
    block += squeezer.flush(zlib.Z_FULL_FLUSH)  # refers to nothing before: repeatable
    last = zlib.compressobj(9, wbits=-15).flush()
    zeros = side * (side + 1)
    adler = struct.pack(">I", zeros % 65521 << 16 | 1)
    body = block * (side // rows)
    return png_header(side, side, b"\x78\xda" + body + last + adler, kind=0)


def good() -> dict[str, tuple[bytes, Image.Image]]:
    """Name -> file, and the RGB image that it must decode to."""
    image = photograph()
    jpeg = encoded(image, "JPEG", quality=90)
    grey, alpha = image.convert("L"), image.convert("RGBA")
    alpha.putalpha(grey)
    palette = image.quantize(64)
    cmyk = encoded(image.convert("CMYK"), "JPEG")
    deep = np.asarray(grey).astype(np.uint16) * 256 + 77
    twelve = np.asarray(grey).astype(np.uint16) * 16 + 8
    turned = Image.Exif()
    turned[0x0112] = 6
    second = photograph(1)
    frames = {"save_all": True, "append_images": [second]}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    transparent = encoded(palette, "PNG", transparency=0)
    long = Image.new("RGB", (30000, 1), (9, 8, 7))

    def read(data: bytes) -> Image.Image:
        return Image.open(io.BytesIO(data)).convert("RGB")

    def same(data: bytes, shown: Image.Image | None = None):
        return data, shown or read(data)

    return {
        "plain.jpg": same(jpeg),
        "progressive.jpg": same(encoded(image, "JPEG", progressive=True)),
        "grey.jpg": same(encoded(grey, "JPEG")),
        "cmyk.jpg": same(cmyk),
        "exif_turned.jpg": same(encoded(image, "JPEG", exif=turned)),
        "with_profile.jpg": same(encoded(image, "JPEG", icc_profile=profile)),
        "a_png_called.jpg": same(encoded(image, "PNG"), image),
        "trailing_bytes.jpg": same(jpeg + b"more", read(jpeg)),
        "rgba.png": same(encoded(alpha, "PNG"), image),
        "grey_alpha.png": same(encoded(alpha.convert("LA"), "PNG")),
        "palette.png": same(encoded(palette, "PNG"), palette.convert("RGB")),
        "transparent_palette.png": same(transparent, palette.convert("RGB")),
        "black_white.png": same(encoded(image.convert("1"), "PNG")),
        "sixteen_bits.png": same(
            encoded(Image.fromarray(deep), "PNG"), grey.convert("RGB")
        ),
        "lossless.webp": same(encoded(image, "WEBP", lossless=True), image),
        "lossy.webp": same(encoded(image, "WEBP")),
        "plain.bmp": same(encoded(image, "BMP"), image),
        "plain.tiff": same(encoded(image, "TIFF"), image),
        "plain.gif": same(encoded(palette, "GIF"), palette.convert("RGB")),
        "animated.gif": same(
            encoded(palette, "GIF", save_all=True, append_images=[second.quantize(64)]),
            palette.convert("RGB"),
        ),
        "animated.webp": same(encoded(image, "WEBP", lossless=True, **frames), image),
        "animated.png": same(encoded(image, "PNG", **frames), image),
        "plain.ppm": same(encoded(image, "PPM"), image),
        "twelve_bits.pgm": same(
            b"P5 48 36 4095\n" + twelve.astype(">u2").tobytes(),
            grey.convert("RGB"),
        ),
        "odd_exif.png": same(with_chunk(encoded(image, "PNG"), b"eXIf", b"x"), image),
        "one_pixel.png": same(encoded(image.crop((0, 0, 1, 1)), "PNG")),
        "long.png": same(encoded(long, "PNG"), long),
    }


def bad() -> dict[str, tuple[bytes, str]]:
    """Name -> file, and what must be said of it (a regular expression)."""
    image = photograph()
    jpeg, png = encoded(image, "JPEG"), encoded(image, "PNG")
    noise = np.random.RandomState(0).bytes(500)
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    floats = Image.fromarray(np.zeros((8, 8), np.float32))
    return {
        "empty.jpg": (b"", "is empty"),
        "noise.jpg": (noise, "no image that can be read"),
        "text.jpg": (b"404 Not Found\n", r"no image .* begins with b'404 Not"),
        "page.jpg": (b"<!DOCTYPE html><html>", "no image that can be read"),
        "half.jpg": (jpeg[:-200], "cannot be decoded.*truncated"),
        "header_only.jpg": (jpeg[:20], "no image that can be read|header"),
        "half.png": (png[: len(png) // 2], "cannot be decoded"),
        "flipped_bits.png": (bytes(flipped), "cannot be decoded"),
        "no_pixels.png": (png_header(8, 8), "cannot be decoded"),
        "bomb.png": (bomb(), "12000x12000 is 144000000 pixels; data.max_pixels"),
        "huge_claim.png": (
            png_header(60000, 60000),
            "60000x60000 is .*data.max_pixels",
        ),
        "bad_gamma.png": (
            with_chunk(png, b"gAMA", b"\0\0\xb1\x8f", check=1),
            "begins as PNG, but its header cannot be read: .*gAMA",
        ),
        "half.ppm": (encoded(image, "PPM")[:-9], "cannot be decoded"),
        "heic.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", r"\(it is of HEIC\)"),
        "half.webp": (encoded(image, "WEBP")[:60], "cannot be decoded|header|no image"),
        "floats.tiff": (encoded(floats, "TIFF"), "32 bits a pixel"),
        "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no image that can be read"),
    }
