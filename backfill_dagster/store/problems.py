"""What a refusing disk means for a person: an OSError becomes one StateError line with what, where and the remedy."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from backfill_dagster.errors import StateError

_REMEDIES = {
    errno.ENOSPC: "free space on that disk and start again",
    errno.EDQUOT: "free space in your quota and start again",
    errno.EFBIG: "the file system or a ulimit bounds file sizes: raise it, or move state.path",
    errno.EACCES: "make it readable and writable for this user, or set another state.path",
    errno.EPERM: "make it readable and writable for this user, or set another state.path",
    errno.EROFS: "mount it writable, or set another state.path",
    errno.ENOTDIR: "a file lies where a folder is needed: move it away, or set another state.path",
    errno.EISDIR: "a folder lies where a file is needed: move it away, or set another state.path",
    errno.EEXIST: "something lies there already: move it away, or set another state.path",
    errno.ENOENT: "the folder can't be made or has vanished: set another state.path, or start again",
    errno.ENAMETOOLONG: "its name is too long for this file system: set a shorter state.path",
    errno.EXDEV: "keep the whole state folder on one file system (no mounts or links inside)",
    errno.ELOOP: "a symbolic link leads in a circle: remove it",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files",
    errno.EIO: "the disk reports a fault: check it (dmesg) before anything else",
    errno.ESTALE: "the network file system lost the file: mount it again and start again",
}

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


def is_disk_problem(error: OSError) -> bool:
    """Whether this error is one that a disk gives (and not, say, a network connection)."""
    return error.errno in _REMEDIES


def disk_problem(error: OSError, doing: str, where: Path | str) -> StateError:
    """The one line for a person. `doing` reads on from "can't": `write`, `list`, `rename`."""
    number = error.errno if error.errno is not None else 0
    remedy = _REMEDIES.get(number, "see what the system log says about it, then start again")
    # The system's own words: pyarrow puts others in their place.
    said = os.strerror(number) if number in _REMEDIES else error.strerror or error
    return StateError(f"can't {doing} {where}: {said}; {remedy}")


def link_problem(error: OSError, where: Path) -> StateError:
    """As `disk_problem`, for a hard link: a file system without them can't hold a state folder at all."""
    if error.errno not in _NO_LINKS:
        return disk_problem(error, "create", where)
    return StateError(
        f"can't create {where}: this file system makes no hard links ({error.strerror}), so two writers could both "
        "believe they won; put state.path on one that does (ext4, xfs, btrfs, zfs, apfs, nfs)"
    )
