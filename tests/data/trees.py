"""Small folders and archives of images for the tests of sources."""

import io
import pathlib
import tarfile
import zipfile

from PIL import Image


def png(value: int) -> bytes:
    """An image of 9x7 pixels; each `value` in 0..255 makes another."""
    data = io.BytesIO()
    Image.new("RGB", (9, 7), (value, 0, 255 - value)).save(data, "png")
    return data.getvalue()


def make_tree(root: pathlib.Path) -> pathlib.Path:
    """Two splits of two classes, three images each, and files that are no images."""
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for i in range(3):
                data = png(100 * number + 10 * i + (split == "test"))
                (root / split / name / f"{i}.png").write_bytes(data)
    (root / "README.md").write_text("not an image")
    (root / "train" / "cat" / "._0.png").write_bytes(b"left by macOS")
    return root


def pack(tree: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """Packs `tree`, the folder itself included, into a new archive of path's kind."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(tree.rglob("*")):
                archive.write(file, file.relative_to(tree.parent))
        return path
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        archive.add(tree, arcname=tree.name)
    return path


def pack_bytes(files: dict[str, bytes], path: pathlib.Path) -> pathlib.Path:
    """Packs `files`, given by name, whatever their names."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def read_all(source) -> list[tuple]:
    """(image, label) of every example."""
    return [source.read(i)[:2] for i in range(source.info.num_examples)]
