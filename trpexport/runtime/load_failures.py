"""What ONNX Runtime means when it refuses a network, in one line that says what to do next."""

from __future__ import annotations

import re
from typing import NamedTuple

from trpexport.errors import ModelError
from trpexport.installing import install_command
from trpexport.onnxfile.recognition import no_opset, not_onnx
from trpexport.supervision import MEMORY_VARIABLE


class _Cause(NamedTuple):
    """A way in which loading fails: how it reads in ONNX Runtime's words, and in ours."""

    pattern: re.Pattern[str]
    message: str


_CAUSES = tuple(
    _Cause(re.compile(pattern), message)
    for pattern, message in (
        (
            r"Unsupported model IR version: (?P<found>\d+), max supported IR version: (?P<top>\d+)",
            "{label} has IR version {found}, onnxruntime {version} reads up to {top}: update it "
            "({update}), or export for this runtime",
        ),
        (
            r"Opset (?P<found>\d+) is under development.*?for domain (?P<domain>\S+) is till "
            r"opset (?P<top>\d+)",
            "{label} has opset {found} of {domain}, onnxruntime {version} runs up to {top}: update "
            "it ({update}), or export with a lower opset",
        ),
        (
            r"Fatal error: (?P<domain>.*?):(?P<operator>\w+)\(-?\d+\) is not a registered",
            "{label} uses the operator {operator} of the domain {domain!r}, which onnxruntime "
            "{version} does not have: export without this custom operator",
        ),
        (
            r'In Node, \(".*?", (?P<operator>\w+), "(?P<domain>.*?)", .*?'
            r"(No Op registered for|No opset import for)",
            "{label} uses the operator {operator} of the domain {domain!r}, which onnxruntime "
            "{version} does not have: export without this custom operator",
        ),
        (
            r"Could not find an implementation for (?P<operator>\w+)\((?P<found>\d+)\)",
            "{label} uses {operator} as of opset {found} with types that onnxruntime {version} "
            "can't run on the CPU: export with another opset or precision",
        ),
        (
            r"External data path escapes",
            "{label} keeps its weights outside its own directory: save it again with its weights "
            "beside it",
        ),
        (
            r'External data path does not exist: "(?P<file>.*?)"',
            "{label} keeps its weights in {file}, which is missing: copy that file as well",
        ),
        (
            r"External (data|initializer)",
            "{label} keeps its weights in a second file, which is missing or damaged: copy both "
            "files again",
        ),
    )
)
_UNPARSABLE = re.compile(r"[Pp]rotobuf parsing failed|No graph was found in the protobuf")
_NO_MEMORY = re.compile(
    r"bad_?\s?alloc|Failed to allocate memory|[Ii]nteger overflow|would require more than \d+ bytes"
)
_PREFIX = re.compile(
    r"^(\S+\.(cc|h):\d+ .*?\) )?"  # the place in its source, with the function's signature
    r"(\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:)?)?"
)


def explain_load_failure(label: str, error: Exception, version: str) -> ModelError:
    """Return the error that tells a user why ONNX Runtime refused the network.

    Args:
        label: what the network is called in the message.
        error: what ONNX Runtime raised.
        version: the version of ONNX Runtime.
    """
    text = plain_text(error)
    if _UNPARSABLE.search(text):
        return not_onnx(label)
    if "Missing opset in the model" in text:
        return no_opset(label)
    if is_out_of_memory(error):
        return out_of_memory(label)
    for cause in _CAUSES:
        if match := cause.pattern.search(text):
            return ModelError(
                cause.message.format(
                    label=label,
                    version=version,
                    update=install_command("edge", update=True),
                    **match.groupdict(),
                )
            )
    return ModelError(f"onnxruntime {version} can't load {label}: {text}")


def is_out_of_memory(error: Exception) -> bool:
    """Whether ONNX Runtime failed because it did not get the memory that it wanted."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def out_of_memory(label: str) -> ModelError:
    """Return the error for a network that wants more memory than there is or than it may have."""
    return ModelError(
        f"{label} needs more memory than a network of its size should: give smaller inputs; if "
        f"all is right with it, allow more, as in {MEMORY_VARIABLE}=16G"
    )


def plain_text(error: Exception) -> str:
    """Return the words of one of ONNX Runtime's exceptions on one line, without its prefix."""
    return _PREFIX.sub("", " ".join(str(error).split()))
