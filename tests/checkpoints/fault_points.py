"""Ends what a command writes at every point at which that can end, and looks at what is left.

``python fault_points.py FAULT [--merge] [--whole] PLACE COMMAND...`` runs ``subspace COMMAND...``, which writes into
the directory PLACE, and then does each of its writing steps again and again in a process of its own: the first time
with a fault at its first operation on the file system, then at its second, until it ends without one. FAULT is
``kill``, ``full`` (no space left), ``denied`` (no permission) or ``interrupt`` (Ctrl-C). With --merge, directories
cannot be exchanged. With --whole the command as a whole is the step: it may leave a part of what it writes, and the
same command once more must end in what it leaves undisturbed. The command ``study`` is ``reproduce`` with runs that
nobody trained. Prints how many points each step has; an assertion fails where the result is neither the old one nor
the new one.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from subspace.checkpoints import atomic_writing, folder_swap
from subspace.checkpoints.sole_writer import is_temporary
from subspace.errors import FileError

_CHANGES = {
    "os.rename",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "shutil.rmtree",
    "os.utime",
    "os.chmod",
}
_NEED_SPACE = {"os.rename", "os.link", "os.mkdir", "open", "fsync"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_NOT_REACHED = 99
_OF_SQLITE = (".sqlite", ".sqlite-wal", ".sqlite-shm")  # the same rows in other bytes


class Points:
    """Operations on the file system, counted from the moment it is armed; at one of them the fault happens."""

    def __init__(self, fault: str) -> None:
        self.fault, self.left = fault, -1
        sys.addaudithook(self.operation)
        for place, name in ((os, "fsync"), (folder_swap, "_exchange")):
            setattr(place, name, self.before(getattr(place, name), name))

    def before(self, function: Callable, name: str) -> Callable:
        def counted(*args):
            self.pass_by(name)
            return function(*args)

        return counted

    def operation(self, event: str, args: tuple) -> None:
        if event in _CHANGES or (event == "open" and args[2] & _WRITING):
            self.pass_by(event)

    def pass_by(self, event: str) -> None:
        needs_space = self.fault in ("kill", "interrupt") or event in _NEED_SPACE
        if self.left < 0 or not needs_space:
            return
        self.left -= 1
        if self.left < 0:
            if self.fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "interrupt":
                raise KeyboardInterrupt
            number = errno.ENOSPC if self.fault == "full" else errno.EACCES
            raise OSError(number, os.strerror(number))


def tree(place: Path) -> dict[str, str]:
    """Everything in a directory but what writers leave when they are killed."""
    found = {}
    for root, folders, files in os.walk(place):
        folders[:] = [name for name in folders if not is_temporary(name)]
        for name in folders:
            found[os.path.relpath(Path(root, name), place)] = "directory"
        for name in files:
            path = Path(root, name)
            if path.name.endswith(_OF_SQLITE):
                found[os.path.relpath(path, place)] = "database"
            elif not is_temporary(name):
                found[os.path.relpath(path, place)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def litter(place: Path) -> list[str]:
    return [str(path) for path in place.rglob(".*") if is_temporary(path.name)]


def forked(step: Callable[[], None]) -> int:
    """The exit code of a process that does a step, or minus the number of the signal that ended it."""
    child = os.fork()
    if not child:
        try:
            step()
        except FileError as error:
            assert "\n" not in str(error)
            os._exit(1)
        except KeyboardInterrupt:
            os._exit(130)
        except BaseException:  # noqa: BLE001 - a forked process must not return into its parent's work
            sys.excepthook(*sys.exc_info())
            os._exit(70)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def explore(
    step: Callable[[], None], place: Path, points: Points, every: int = 1, *, whole: bool = False
) -> int:
    """Do a step with the fault at each of its points; return how many there are."""
    kept = place.with_name(f"{place.name}-kept")
    shutil.copytree(place, kept, symlinks=True)
    old = tree(place)
    assert forked(step) == 0
    new = tree(place)
    assert not litter(place)

    for point in itertools.count(0, every):
        shutil.rmtree(place)
        shutil.copytree(kept, place, symlinks=True)

        def faulty(point=point) -> None:
            points.left = point
            step()
            if points.left >= 0:
                os._exit(_NOT_REACHED)

        code = forked(faulty)
        if code == _NOT_REACHED:
            shutil.rmtree(kept)
            return point
        assert code in {"kill": (-9,), "interrupt": (130, 0)}.get(points.fault, (0, 1)), (point, code)
        left, where = tree(place), (point, code, litter(place))
        half = whole or any(name.endswith(".ready") for name in where[2])
        assert half or left in (old, new), (where, left, old, new)
        if points.fault in ("full", "denied") and not half:
            assert left == (new if code == 0 else old) and not where[2], (where, left)
        assert forked(step) == 0, where
        assert tree(place) == new and not litter(place), (where, litter(place))
    raise AssertionError


def steps_of(command: Callable[[], None], place: Path) -> list[tuple[Path, dict, list]]:
    """What a command writes, step by step: a copy of the place before it, the files, and those that go."""
    steps: list[tuple[Path, dict, list]] = []
    write = atomic_writing.write_whole

    def recorded(contents, *, without=()) -> None:
        before = place.with_name(f"{place.name}-{len(steps)}")
        shutil.copytree(place, before, symlinks=True)
        for path in before.rglob("*"):
            if is_temporary(path.name):  # the command's own lock
                path.unlink()
        steps.append((before, dict(contents), list(without)))
        write(contents, without=without)

    atomic_writing.write_whole = recorded  # before any module that writes is imported
    command()
    atomic_writing.write_whole = write
    return steps


def conduct_study(folder: Path) -> None:
    sys.path.append(str(Path(__file__).parents[1] / "study"))
    import fake_runs

    from subspace.report import page_content
    from subspace.study.plan import planned
    from subspace.study.study import conduct, settings_of
    from subspace.study.study_folder import claimed

    plan = planned(steps=5)
    with claimed(folder, settings_of(plan)):
        pass
    fake_runs.make(plan, folder / "runs")
    for _ in ("drawn", "drawn again"):
        conduct(plan, folder, workers=1, also=page_content)


def explore_whole(command: Callable[[], None], root: Path, fault: str) -> int:
    before = root.with_name(f"{root.name}-before")
    shutil.copytree(root, before, symlinks=True)
    command()  # so that every process that is forked has imported what it needs
    shutil.rmtree(root)
    before.rename(root)
    return explore(command, root, Points(fault), whole=True)


def main(fault: str, *words: str) -> None:
    options = set(itertools.takewhile(lambda word: word.startswith("--"), words))
    place, *words = words[len(options) :]
    root = Path(place).resolve()

    def command() -> None:
        if words == ["study"]:
            return conduct_study(root / "study")
        from subspace.cli import app

        app.main(list(words), prog_name="subspace", standalone_mode=False)
        return None

    if "--whole" in options:
        return print(json.dumps([explore_whole(command, root, fault)]))
    steps = steps_of(command, root)
    if "--merge" in options:
        folder_swap._exchanged = lambda *_: False
    points = Points(fault)
    counts = []
    if words == ["study"]:
        steps = steps[-1:]  # the others are of the runs, and of the record alone
    every = 11 if words == ["study"] else 1  # hundreds of files are linked
    for before, contents, without in steps:
        shutil.rmtree(root)
        before.rename(root)
        counts.append(
            explore(
                lambda c=contents, w=without: atomic_writing.write_whole(c, without=w), root, points, every
            )
        )
    return print(json.dumps(counts))


if __name__ == "__main__":
    main(*sys.argv[1:])
