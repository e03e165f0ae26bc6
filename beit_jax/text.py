"""Text that leaves this package, in which names from disk may hold anything.

A name of a file is bytes. Those that are not UTF-8 reach Python as lone surrogates,
which no text in UTF-8 can hold; and a name may have newlines, or begin as a formula.
"""

import csv
import re
from collections.abc import Iterable
from typing import Any, TextIO

# For open, read_text and write_text, wherever we are: what UTF-8 cannot hold becomes an
# escape, "\udce9". In JSON that is the very same name again.
UTF8: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace"}

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def escaped(char: str) -> str:
    """A character by its code: "\\n", "\\xe9", "\\udce9"."""
    return char.encode("unicode_escape").decode()


def utf8(text: str) -> str:
    """`text` as UTF8 writes it, for what is not opened here: a screen."""
    return text.encode(**UTF8).decode(UTF8["encoding"])


def one_line(text: str) -> str:
    """`text` as one line of UTF-8, of which a terminal obeys nothing."""
    return _CONTROL.sub(lambda found: escaped(found[0]), text)


class Table:
    """Writes rows of a .csv, safe to be opened in a spreadsheet.

    What a spreadsheet would compute gets a ' in front, as OWASP advises against CSV
    injection; numbers stay.
    """

    def __init__(self, file: TextIO):
        """`file` was opened with newline="" and UTF8."""
        self._rows = csv.writer(file)

    def write(self, row: Iterable[Any]) -> None:
        self._rows.writerow(map(_cell, row))


def _cell(value: Any) -> Any:
    formula = isinstance(value, str) and value.startswith(_FORMULA)
    return f"'{value}" if formula else value
