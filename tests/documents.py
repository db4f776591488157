"""What the documents of the project show: blocks of code, and commands."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[str]:
    """Every command in a document, without the remark behind it."""
    lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
    return [re.sub(r"\s+#.*", "", line) for line in lines if line.strip()]
