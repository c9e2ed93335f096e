"""Reading a pickle as data: nothing that it names is imported or called.

What a pickle asks for by name becomes a :class:`Global`, and a call of one what the reader of this
kind of file makes of the arguments. A hostile pickle can do no more than be refused: it may
neither grow far beyond its own size nor nest what Python would walk through by recursion.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

# Steps that a pickle may take: each makes 220 bytes at most. The weights of the largest networks
# with the state of their optimizer take a tenth.
MAX_STEPS = 2_000_000
# Items that a pickle of any size may hand to calls, which copy them.
_FREE_ITEMS = 1_000_000
_MAX_KEY_ITEMS = 16
_MAX_KEY = 2**63  # hashes of larger numbers take as long as they are large


class ForbiddenGlobalError(Exception):
    """A pickle asks for a class or function that is no data; its text is the full name."""


class PickleError(ValueError):
    """A pickle is damaged, or too large for data."""


class StandIn:
    """Stands for an object that is not wanted: what the pickle says of it is dropped."""

    __slots__ = ()

    def __init__(self, *_: Any) -> None: ...

    def restore(self, state: Any) -> None:
        """Take what ``__setstate__`` of the real object would be given."""


@dataclass(frozen=True, eq=False, slots=True)
class Global:
    """Stands for a class or function.

    Attributes:
        name: its full name, ``module.name``.
        make: what is called in its place.
    """

    name: str
    make: Callable[..., Any] = StandIn


# The reader in Python, because the one in C allocates whatever a damaged file says.
_Unpickler: Any = pickle._Unpickler


class DataUnpickler(_Unpickler):  # type: ignore[misc]
    """Reads one pickle from memory, of any protocol, Python 2's included.

    Args:
        file: stands at the pickle; afterwards behind it.
        makers: by full name all that the pickle may ask for, and what a call of it makes.
        persistent: what becomes of a persistent id; None where there may be none.
    """

    def __init__(
        self,
        file: io.BytesIO,
        makers: Mapping[str, Callable[..., Any]],
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(file, encoding="latin1")  # never fails
        self._makers = makers
        self._persistent = persistent
        self._items_left = _FREE_ITEMS + file.getbuffer().nbytes
        self.dispatch = _Counted(self.dispatch)  # type: ignore[misc]

    def load(self) -> Any:
        """Return what the pickle holds.

        Raises:
            ForbiddenGlobalError: it asks for something that is not among the makers.
            PickleError: it is damaged, or too large.
        """
        try:
            return super().load()
        except ForbiddenGlobalError:
            raise
        except Exception as error:  # a damaged pickle fails in any way
            raise PickleError(str(error) or type(error).__name__) from error

    def find_class(self, module: str, name: str) -> Global:
        """Return what stands for a class or function."""
        full = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if full not in self._makers:
            raise ForbiddenGlobalError(full)
        return Global(full, self._makers[full])

    def persistent_load(self, pid: Any) -> Any:
        """Return what a persistent id stands for."""
        if self._persistent is None:
            raise ValueError("a persistent id")
        return self._persistent(pid)

    def _made(self, called: Any, arguments: Any) -> Any:
        if not isinstance(called, Global):
            raise ValueError("a call of what is no function")
        self._items_left -= sum(len(a) for a in arguments if hasattr(a, "__len__"))
        if self._items_left < 0:
            raise ValueError("calls on more items than it holds")
        return called.make(*arguments)

    def _load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.append(self._made(self.stack.pop(), arguments))

    def _load_newobj_ex(self) -> None:
        self.stack.pop()  # keyword arguments are for nobody here
        self._load_reduce()

    def _load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        arguments = self.pop_mark()
        self.append(self._made(self.find_class(module, name), arguments))

    def _load_obj(self) -> None:
        called, *arguments = self.pop_mark()
        self.append(self._made(called, arguments))

    def _load_build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], StandIn):  # of all others the attributes are not wanted
            self.stack[-1].restore(state)

    def _fill(self, kind: type, fill: Callable[[Any, list[Any]], None], items: list[Any]) -> None:
        if isinstance(self.stack[-1], kind):
            fill(self.stack[-1], items)
        elif not isinstance(self.stack[-1], StandIn):
            raise ValueError(f"items for a {type(self.stack[-1]).__name__}")

    def _load_append(self) -> None:
        item = self.stack.pop()
        self._fill(list, list.append, item)

    def _load_appends(self) -> None:
        items = self.pop_mark()
        self._fill(list, list.extend, items)

    def _load_setitem(self) -> None:
        value = self.stack.pop()
        self._fill(dict, _set_items, [self.stack.pop(), value])

    def _load_setitems(self) -> None:
        items = self.pop_mark()
        self._fill(dict, _set_items, items)

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        _set_items(self.stack[-1], items)

    def _load_additems(self) -> None:
        items = self.pop_mark()
        self._fill(set, _add_items, items)

    def _load_frozenset(self) -> None:
        items: set[Any] = set()
        _add_items(items, self.pop_mark())
        self.append(frozenset(items))

    def _load_bytearray(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(size)))

    def _load_extension(self) -> None:
        raise ValueError("a code from a registry")

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **_Unpickler.dispatch,
        pickle.REDUCE[0]: _load_reduce,
        pickle.NEWOBJ[0]: _load_reduce,
        pickle.NEWOBJ_EX[0]: _load_newobj_ex,
        pickle.INST[0]: _load_inst,
        pickle.OBJ[0]: _load_obj,
        pickle.BUILD[0]: _load_build,
        pickle.APPEND[0]: _load_append,
        pickle.APPENDS[0]: _load_appends,
        pickle.DICT[0]: _load_dict,
        pickle.SETITEM[0]: _load_setitem,
        pickle.SETITEMS[0]: _load_setitems,
        pickle.ADDITEMS[0]: _load_additems,
        pickle.FROZENSET[0]: _load_frozenset,
        pickle.BYTEARRAY8[0]: _load_bytearray,
        pickle.EXT1[0]: _load_extension,
        pickle.EXT2[0]: _load_extension,
        pickle.EXT4[0]: _load_extension,
    }


class _Counted(dict[int, Callable[..., None]]):
    """The handlers by opcode, which counts how often one was asked for."""

    steps = 0

    def __getitem__(self, opcode: int) -> Callable[..., None]:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise ValueError(f"more than {MAX_STEPS:,} Python objects")
        return super().__getitem__(opcode)


def plain_dict(items: Any = ()) -> dict[Any, Any]:
    """Return a dict of pairs, as ``OrderedDict`` is pickled by Python 2.

    Raises:
        ValueError: they are no pairs, or a key is none that a dict of data has.
    """
    found: dict[Any, Any] = {}
    for key, value in items:
        _set_items(found, [key, value])
    return found


def _set_items(target: dict[Any, Any], items: list[Any]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[_checked(key)] = value


def _add_items(target: set[Any], items: list[Any]) -> None:
    target.update(map(_checked, items))


def _checked(key: Any) -> Any:
    """Return what is to be hashed, which takes C as much stack as a tuple is deep."""
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) > _MAX_KEY_ITEMS or not all(map(_is_plain, parts)):
        raise ValueError("a key that is neither text nor a number")
    return key


def _is_plain(part: Any) -> bool:
    if isinstance(part, int):
        return abs(part) < _MAX_KEY
    return part is None or isinstance(part, str | bytes | float | complex | Global | StandIn)
