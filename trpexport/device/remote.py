"""Running a bench on another machine over SSH: copy, run, take the record, leave nothing behind."""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from trpexport.device.app import (
    ERROR,
    PROGRESS,
    STOP_WITH_INPUT,
    build_device_app,
    told_error,
)
from trpexport.device.ssh import Completed, Connection, check_host, connect, last_line
from trpexport.errors import MissingDependencyError, TrpexportError
from trpexport.files import write_json
from trpexport.measure.profile.jobs import ProfileJob
from trpexport.measure.settings import BenchSettings, ModelFile
from trpexport.onnxfile.external_data import external_files, external_paths

Announce = Callable[[str], None]

_APP, _SETTINGS = "trpexport-device.pyz", "settings.json"
_DIRECTORY = "trpexport-directory "  # what the line with the directory's path begins with
_FILES = "files"  # in there; a copy that outlives us can't make the outer one again
# Makes a directory and removes it when standard input ends: whoever asked for it is gone then,
# killed or not. The next run removes those whose keeper was killed itself, as by a loss of power.
# On one line and without quotation marks of its own, any login shell hands it on as it is.
_KEEP_DIRECTORY = " ".join(
    f"""
    trap "" HUP INT TERM PIPE; here="${{TMPDIR:-/tmp}}";
    for old in "$here"/trpexport.*/keeper; do
        read pid <"$old" && {{ kill -0 "$pid" || rm -rf "${{old%/keeper}}"; }};
    done 2>/dev/null;
    made=$(mktemp -d "$here/trpexport.XXXXXXXXXX") &&
    echo $$ >"$made/keeper" && mkdir "$made/{_FILES}" || exit 1;
    echo "{_DIRECTORY}$made"; cat >/dev/null;
    rm -rf "$made" || {{ sleep 1; rm -rf "$made"; }}
    """.split()
)
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127  # POSIX, "Shell Command Language", 2.8.2


if TYPE_CHECKING:
    Job = BenchSettings | ProfileJob


def run_on_host(
    host: str,
    settings: Job,
    *,
    python: str = "python3",
    announce: Announce | None = None,
    ssh: Sequence[str] = ("ssh",),
) -> dict[str, Any]:
    """Run a bench or profiles on another machine and return the record, with ``host`` in it.

    The models and one self-contained file are copied into a fresh directory there, which is
    removed again, also after an error, or when this process is killed or the connection lost. The
    machine needs a POSIX shell, tar, Python, numpy and onnxruntime.

    Args:
        host: what ssh knows it by: ``user@device``, an alias, an address. The user's own SSH
            configuration applies.
        settings: what to measure; files are this machine's.
        python: the Python to run there; one that has the packages, of a virtual environment say.
        announce: called with a line on each step, also on those there.
        ssh: the program and its leading arguments.

    Raises:
        TrpexportError: the host can't be reached, lets nobody in or is full, or the bench fails
            there, in its own words.
        MissingDependencyError: ssh is missing here, or Python there.
        ModelError: a model can't be read.
    """
    say = announce or (lambda line: None)
    check_host(host)
    command = _command_word(python)
    with tempfile.TemporaryDirectory(prefix="trpexport-") as name:
        folder = Path(name)
        staged = _stage(settings, folder)  # what is wrong with the files is told before connecting
        say(f"connect to {host}")
        with connect(host, ssh=ssh) as connection, _directory(connection, say) as remote:
            _write_settings(staged, folder, remote)
            _check_space(connection, folder, remote)
            count = len(settings.models)
            say(f"copy {count} model{'s' if count > 1 else ''} to {host}")
            connection.copy(sorted(folder.iterdir()), remote)
            completed = connection.run(
                f"{command} {remote}/{_APP} {STOP_WITH_INPUT} {remote}/{_SETTINGS}",
                on_line=lambda line: _pass_on(line, say),
            )
    # The files' names there mean nothing any more.
    return _record(completed, host, python) | {"host": host, "settings": settings.to_json()}


def _stage(settings: Job, folder: Path) -> Job:
    """Lay out in ``folder`` what the device needs; the settings returned name files in there.

    Models are links, which the copy follows.
    """
    build_device_app(folder / _APP)
    models: list[ModelFile] = []
    for index, model in enumerate(settings.models):
        path = Path(model.path)
        home = Path("models") / str(index)
        sources = {
            PurePosixPath(path.name): path,
            **dict(zip(external_files(path), external_paths(path), strict=True)),
        }
        for file, source in sources.items():
            link = folder / home / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source.resolve())
        models.append(replace(model, path=str(home / path.name)))
    if settings.data is None:
        return replace(settings, models=tuple(models))
    data = Path(settings.data)
    if not data.is_file():
        raise TrpexportError(f"{data} is not a file: name a .npy or .npz file with inputs")
    name = f"data{data.suffix}"
    (folder / name).symlink_to(data.resolve())
    return replace(settings, models=tuple(models), data=name)


def _write_settings(staged: Job, folder: Path, remote: str) -> None:
    settings = replace(
        staged,
        models=tuple(replace(model, path=f"{remote}/{model.path}") for model in staged.models),
        data=None if staged.data is None else f"{remote}/{staged.data}",
    )
    write_json(folder / _SETTINGS, settings.to_json())


@contextmanager
def _directory(connection: Connection, say: Announce) -> Iterator[str]:
    """Make a directory there, which is removed when the block ends, or this process."""
    with connection.attended(f"sh -c '{_KEEP_DIRECTORY}'") as keeper:
        path = keeper.line(_DIRECTORY)
        if path is None or not re.fullmatch(r"(/[\w.+-]+)+", path, re.ASCII):
            ended = keeper.end()
            raise TrpexportError(
                f"{connection.host} can't make a temporary directory: "
                f"{last_line(ended.log or ended.output, ended.code)}"
            )
        try:
            yield f"{path}/{_FILES}"
        finally:
            # An interrupt that is sent to all processes here ends this ssh as well.
            if keeper.end().code != 0 and not _removed(connection, path):
                say(f"could not remove {path} on {connection.host}")


def _removed(connection: Connection, path: str) -> bool:
    try:
        return connection.run(f"rm -rf {path}").code == 0
    except TrpexportError:  # the connection is gone; what broke it is told already
        return False


def _check_space(connection: Connection, folder: Path, remote: str) -> None:
    """Refuse a copy that has no room there: it would fail halfway."""
    needed = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    answer = connection.run(f"df -Pk {remote}").output
    found = re.search(r"\s\d+\s+\d+\s+(\d+)\s+\d+%\s", answer)  # POSIX: "df", with -P
    if found and int(found[1]) * 1024 < needed:
        raise TrpexportError(
            f"{connection.host} has {int(found[1]) * 1024 / 1e6:.0f} MB free in "
            f"{PurePosixPath(remote).parents[1]}, and {needed / 1e6:.0f} MB are needed: free some "
            "there"
        )


def _command_word(python: str) -> str:
    """Return a program's name as a word of a shell's command; a leading ~ keeps its meaning.

    Raises:
        TrpexportError: it can't be a program's name.
    """
    if not python or python.startswith("-") or not python.isprintable():
        raise TrpexportError(
            f"{python!r} is no program: name a Python, as in python3.11", parameters=("python",)
        )
    home = "~/" if python.startswith("~/") else ""
    return home + shlex.quote(python.removeprefix(home))


def _pass_on(line: str, say: Announce) -> None:
    if line.startswith(PROGRESS):
        say(line.removeprefix(PROGRESS))


def _record(completed: Completed, host: str, python: str) -> dict[str, Any]:
    """Return the record that the device sent.

    Raises:
        TrpexportError: it sent none; the message has its own words.
    """
    code, output, log = completed
    errors = [line for line in log.splitlines() if line.startswith(ERROR)]
    if code != 0 and errors:
        raise told_error(errors[-1], host)
    if code in (_NOT_EXECUTABLE, _NOT_FOUND):
        raise MissingDependencyError(
            f"{host} has no {python}: install Python there, or name the one that it has",
            parameters=("python",),
        )
    try:
        return dict(json.loads(last_line(output, code)))
    except (ValueError, TypeError):
        reason = last_line(log, code)
        raise TrpexportError(f"{host} sent no record: {reason} (exit code {code})") from None
