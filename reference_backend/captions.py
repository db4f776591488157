"""Captions: read from text files of any origin, and chosen for each picture.

What a picture is trained with, as the pages of the trainers tell it. "None" is a caption that is missing or
blank, or a trigger word that is missing or blank.

| is_style | caption of the picture | trigger_word | trained with              |
|----------|------------------------|--------------|---------------------------|
| false    | given                  | any          | the caption, word by word |
| false    | none                   | given        | the trigger word          |
| false    | none                   | none         | nothing: an empty text    |
| true     | any                    | given        | the trigger word          |
| true     | any                    | none         | nothing: an empty text    |

The choice is made for each picture, so an archive may have captions for some of them; the pages leave that
open. They also leave open whether a style without a trigger word falls back to captions: here it does not,
because `is_style` "deactivates captioning".
"""

import codecs
import csv
import io
import unicodedata
from collections.abc import Iterator

LONGEST = 4000
"""How many characters of a caption are kept; text encoders read a few hundred words."""

_MOST_BYTES = 16 * 1024
_MOST_TABLE_BYTES = 16 * 1024 * 1024
_JOINERS = "\u200c\u200d"  # which some scripts and many emoji are written with
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def choose(caption: str, *, trigger_word: str, is_style: bool) -> str:
    """What to train a picture with; see the table above."""
    return trigger_word if is_style or not caption else caption


def read_caption(content: bytes) -> str:
    """The caption that a text file holds: at most 16 KiB of it are looked at."""
    return clean(_decoded(content[:_MOST_BYTES]))


def read_lines(content: bytes) -> list[str]:
    """The captions of a file that holds one on each line."""
    return [clean(line) for line in _decoded(content[:_MOST_TABLE_BYTES]).splitlines()]


def read_table(content: bytes) -> Iterator[dict[str, str]]:
    """The rows of a CSV file by the names in its first line. Raises ValueError where it is none."""
    try:
        for row in csv.DictReader(io.StringIO(_decoded(content[:_MOST_TABLE_BYTES]))):
            yield {key.strip().lower(): value for key, value in row.items() if key and isinstance(value, str)}
    except csv.Error as error:
        raise ValueError("no table") from error


def clean(text: str) -> str:
    """A caption as one line: composed, without controls, marks of direction and halves of characters."""
    kept = []
    for each in unicodedata.normalize("NFC", text):
        if each.isspace():
            kept.append(" ")
        elif unicodedata.category(each) not in {"Cc", "Cf", "Cs"} or each in _JOINERS:
            kept.append(each)
    return " ".join("".join(kept).split())[:LONGEST].rstrip()


def _decoded(content: bytes) -> str:
    """Text in UTF-8 or UTF-16, told by its first bytes; in the old Western encoding where it is neither.

    What is cut off in the middle of a character loses that character only.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace").rstrip("\ufffd")
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")
