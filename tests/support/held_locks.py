"""What a process has open of a store's file, and which locks the kernel holds for it: ``/proc``, Linux only.

In: a process id and the file. Out: facts. Must not: open the file, which would drop this process's own locks on it.
"""

from pathlib import Path


def held_locks(pid: int, path: Path) -> set[str]:
    """The ends of the names (``""``, ``-wal``, ``-shm``) of the files that the process holds a lock on."""
    inodes = {
        str(beside.stat().st_ino): end
        for end in ("", "-wal", "-shm")
        if (beside := path.with_name(f"{path.name}{end}")).exists()
    }
    held = set()
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        # "1: POSIX ADVISORY READ 4711 fe:00:1234 128 128"; one that waits has "->" before its kind.
        if "->" not in words and words[4] == str(pid) and (inode := words[5].rsplit(":", 1)[1]) in inodes:
            held.add(inodes[inode])
    return held


def deleted_files(pid: int, path: Path) -> list[str]:
    """Files of the store that the process has open, though they are no longer there."""
    folder = Path(f"/proc/{pid}/fd")
    found = []
    for link in folder.iterdir():
        try:
            target = str(link.readlink())
        except OSError:  # closed meanwhile
            continue
        if target.startswith(str(path)) and target.endswith("(deleted)"):
            found.append(target)
    return found
