"""The recipes that come with beit_jax: `python -m beit_jax.recipes [NAME]`.

Without a name, all of them with a line each. With one, its text, to be copied:

    beit recipes digits_pretrain > mine.py
    beit train --config mine.py --workdir runs/mine

A name may stand wherever the file of a recipe may: `--config digits_pretrain`, or with
variants that its head tells, `--config beit_pretrain:plain,300ep`.
"""

import sys

from beit_jax import manual, shipped
from beit_jax.lookup import nearest


def listed() -> str:
    """Name and purpose of each."""
    names = shipped.names()
    width = max(map(len, names))
    return "\n".join(f"{name:{width}}  {shipped.purpose(name)}" for name in names)


def main(words: list[str]) -> None:
    if manual.asked(words):
        print(manual.page("recipes"))
    elif not words:
        print(listed())
    elif len(words) == 1 and (path := shipped.find(words[0])):
        print(path.read_text(encoding="utf-8"), end="")
    else:
        near = nearest(words[0], shipped.names())
        manual.refuse(f"no recipe {' '.join(words)!r}{near}", 78)


if __name__ == "__main__":
    main(sys.argv[1:])
