"""What Python and C print on a real pipe, and where it comes out."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trpexport.standard_output import claimed_output


def buffered() -> dict[str, str]:
    """Return an environment in which C buffers what it prints on a pipe."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


C = "import ctypes, sys; C = ctypes.CDLL(None)\n"


def printed(program: str, redirection: str = "") -> tuple[str, str]:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, C + program],
        capture_output=True, text=True, check=True, env=buffered(),
    )  # fmt: skip
    return done.stdout, done.stderr


def test_a_record_stands_alone_whoever_prints() -> None:
    program = (
        "from trpexport.standard_output import claimed_output, end_output\n"
        "with claimed_output() as output:\n"
        "    C.printf(b'C before, '); print('Python before')\n"
        "    output.write('record\\n')\n"
        "    C.printf(b'C after, ')\n"
        "end_output()\n"
        "C.printf(b'C at the end'); print('Python at the end')"
    )
    out, err = printed(program)
    assert out == "record\n"
    for line in ("C before, C after", "Python before\n", "C at the end", "Python at the end\n"):
        assert line in err


def test_standard_output_is_given_back() -> None:
    program = (
        "from trpexport.standard_output import claimed_output\n"
        "print('one')\n"
        "with claimed_output() as output:\n"
        "    C.printf(b'noise'); output.write('two\\n')\n"
        "print('three'); C.fflush(None)"
    )
    assert printed(program) == ("one\ntwo\nthree\n", "noise")


@pytest.mark.parametrize(("closed", "expected"), [(">&-", ("", "")), ("2>&-", ("record\n", ""))])
def test_without_one_of_the_two(closed: str, expected: tuple[str, str]) -> None:
    program = (
        "from trpexport.standard_output import claimed_output, end_output\n"
        "with claimed_output() as output:\n"
        "    C.printf(b'noise'); output.write('record\\n')\n"
        "end_output()"
    )
    assert printed(program, closed) == expected


def test_where_python_writes_elsewhere_the_record_does(capsys: pytest.CaptureFixture[str]) -> None:
    with claimed_output() as output:
        print("noise")
        output.write("record")
    print("after")
    assert capsys.readouterr() == ("recordafter\n", "noise\n")
