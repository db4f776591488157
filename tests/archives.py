"""Archives for tests, in memory."""

import io
import tarfile
import zipfile
from collections.abc import Mapping


def zipped(files: Mapping[str, bytes], *, packing: int = zipfile.ZIP_DEFLATED, level: int = 6) -> bytes:
    """A ZIP archive of these files."""
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", packing, compresslevel=level) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return into.getvalue()


def tarred(
    files: Mapping[str, bytes], *, mode: str = "w", style: int = tarfile.PAX_FORMAT, folder: str = ""
) -> bytes:
    """A tar archive of these files, below a folder of their own where one is named."""
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode=mode, format=style) as archive:  # type: ignore[call-overload]
        if folder:
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}" if folder else name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return into.getvalue()
