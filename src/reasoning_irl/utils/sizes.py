"""Sizes in memory and on the disk."""

import shutil
from pathlib import Path

GIB, MIB = 2**30, 2**20
FOUR_BIT = 0.516  # bytes per weight in NF4 with double quantisation


def amount(n_bytes: int) -> str:
    """Bytes in GiB, or in MiB if they are few."""
    return f"{n_bytes / GIB:.1f} GiB" if n_bytes >= GIB else f"{n_bytes / MIB:.1f} MiB"


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def free_bytes(folder: Path) -> int:
    """Free space where a folder is, or will be; a petabyte if the file system does not say how large it is."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    usage = shutil.disk_usage(there)
    return usage.free if usage.total else 2**50
