"""Claims: which of several runs on one output folder upscales which picture, on one machine or on many.

A claim is a lock on one byte of a file in the output folder; a hash of the output's name says which byte.
The system lifts a lock when its owner ends, in whatever way, so nothing here asks a clock, and a claim
never outlives its run. Machines that share a folder see each other's locks on NFS, SMB, CephFS, and on
Lustre that is mounted with `flock`. Elsewhere each machine is granted every claim: pictures may then be
made twice, which costs time and nothing else.

The leases of the filelock package do without locks, by heartbeats. They need a file and a thread for each
picture in hand, and a run would wait 30 s for the pictures of one that was killed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from sr.files import TEMPORARY_PREFIX
from sr.jobs.job import FileJob

try:
    import fcntl
except ImportError:  # Windows: all claims are granted
    fcntl = None  # type: ignore[assignment]

NAME = f"{TEMPORARY_PREFIX}claims"

# 31 bits: every protocol of shared storage can lock these bytes. Two outputs on one byte do no harm: one
# waits for the other.
_BYTES = 2**31 - 1
_PRESENCE = _BYTES  # each run holds a shared lock on this one; who gets it alone may remove the file


class Claims:
    """The claims of this process, on outputs of any number of folders."""

    def __init__(self) -> None:
        self._folders: dict[Path | None, _FolderClaims] = {}

    def take(self, job: FileJob) -> bool:
        """Claim a job; say whether it is ours. Jobs without a folder always are."""
        if job.ledger is None:
            return True
        if job.ledger not in self._folders:
            self._folders[job.ledger] = _FolderClaims(job.ledger)
        return self._folders[job.ledger].take(job.target)

    def release(self, job: FileJob) -> None:
        """Give up a claim, for others to find the output, or its absence."""
        if job.ledger in self._folders:
            self._folders[job.ledger].release(job.target)

    def close(self) -> None:
        """Give up all claims; the last run on a folder removes its file."""
        for folder in self._folders.values():
            folder.close()
        self._folders.clear()


class _FolderClaims:
    """The claims on outputs of one folder, which is made if it is missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = [each for each in (folder, *folder.parents) if not each.exists()]
        self._held: set[int] = set()
        self._descriptor = None if fcntl is None else self._opened()

    def take(self, target: Path) -> bool:
        byte = self._byte(target)
        if byte in self._held:  # locks do not keep a process from itself
            return False
        if self._descriptor is not None:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: it is another's
                return False
            except OSError:  # the storage has lost its locks
                pass
        self._held.add(byte)
        return True

    def release(self, target: Path) -> None:
        byte = self._byte(target)
        self._held.discard(byte)
        if self._descriptor is not None:
            with suppress(OSError):
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, byte)

    def close(self) -> None:
        if self._descriptor is None:
            return
        with suppress(OSError):  # others are at work
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _PRESENCE)
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _PRESENCE)
            (self._folder / NAME).unlink()
        os.close(self._descriptor)
        self._descriptor = None
        for folder in self._made:
            with suppress(OSError):  # outputs are in it
                folder.rmdir()

    def _opened(self) -> int | None:
        """Return a descriptor that holds our presence; None if there are no locks, or no folder."""
        path = self._folder / NAME
        while True:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
            except OSError:  # writing the first output will say why
                return None
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_SH, 1, _PRESENCE)
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
            except FileNotFoundError:  # the last run has just removed it
                pass
            except OSError:
                os.close(descriptor)
                with suppress(OSError):
                    path.unlink()
                return None
            os.close(descriptor)

    def _byte(self, target: Path) -> int:
        name = os.fsencode(Path(os.path.relpath(target, self._folder)).as_posix())
        return int.from_bytes(blake2b(name, digest_size=8).digest(), "big") % _BYTES
