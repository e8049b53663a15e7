"""What a command-line TARGET names: a bundled forward, `path/to/file.py[:function]`, or `package.module:name`."""

import ast
import contextlib
import difflib
import functools
import importlib
import importlib.util
import inspect
import linecache
import re
import sys
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

import examples
from engine.errors import SymgradError, TargetError

if TYPE_CHECKING:
    from engine.value import Value

HERE = (str(Path(__file__).parent), str(Path(__file__).parents[1] / "engine"))
FORMS = "TARGET is a bundled name, path/to/file.py:function, or package.module:name"
_FILE = re.compile(r"(?P<file>.+\.py)(?::(?P<attribute>[^:/\\]+))?")


@dataclass(frozen=True)
class Target:
    """A forward and where it was found.

    `name` is an identifier for folders and messages. `module` is the module the forward was looked up in, `path` that
    module's file (None for a module without one). `bundled` says that the forward is one of `examples/`, with its
    emission in `generated/`.
    """

    name: str
    module: ModuleType | None
    forward: Callable[..., Any]
    path: Path | None
    bundled: bool = False


@functools.cache
def bundled_names() -> tuple[str, ...]:
    """Names of the modules under `examples/` that define a `forward`, sorted. None is imported for it."""
    files = sorted(path for folder in examples.__path__ for path in Path(folder).glob("[!_]*.py"))
    return tuple(path.stem for path in files if _defines_forward(path))


def _defines_forward(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return any(isinstance(node, ast.FunctionDef) and node.name == "forward" for node in tree.body)


def load_target(text: str) -> Target:
    """Resolve a TARGET. Paths are relative to the working directory; a file is executed anew on each call.

    Raises TargetError: an unknown name, a missing file, a file that does not compile or run (with file and line), a
    missing attribute, or one that is neither a function nor an `nn.Module`.
    """
    if file := _FILE.fullmatch(text):
        path = Path(file["file"]).expanduser()
        return _target(path.stem, _load_file(path), file["attribute"])
    if ":" in text:
        module_name, _, attribute = text.partition(":")
        module = _load_module(module_name, text)
        return _target(module_name.rpartition(".")[2], module, attribute or None)
    if text in bundled_names():
        module = importlib.import_module(f"examples.{text}")
        return _target(text, module, None, bundled=True)
    close = difflib.get_close_matches(text, bundled_names(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise TargetError(f"no bundled forward is named {text!r}.{hint} {FORMS}. Bundled: {', '.join(bundled_names())}.")


def load_value(text: str) -> "Value | None":
    """The `engine.Value` that a TARGET names, None if it names anything else. Raises TargetError as `load_target` does."""
    from engine.value import Value  # needs torch

    file = _FILE.fullmatch(text)
    if file is None and ":" not in text:
        return None
    name = file["attribute"] if file else text.partition(":")[2]
    module = _load_file(Path(file["file"]).expanduser()) if file else _load_module(text.partition(":")[0], text)
    found = getattr(module, name or "forward", None)
    return found if isinstance(found, Value) else None


def _target(stem: str, module: ModuleType, attribute: str | None, bundled: bool = False) -> Target:
    where = str(getattr(module, "__file__", None) or module.__name__)
    found: Any = _lookup(module, attribute or "forward", where, explicit=attribute is not None)
    name = stem if attribute in (None, "forward") else attribute
    file = getattr(module, "__file__", None)
    return Target(
        name=re.sub(r"\W|^(?=\d)", "_", name or stem),
        module=module,
        forward=_callable(found, f"{where}:{attribute or 'forward'}"),
        path=Path(file) if file else None,
        bundled=bundled,
    )


def _lookup(module: ModuleType, attribute: str, where: str, explicit: bool) -> object:
    """`module.a.b` for the attribute `a.b`."""
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [n for n, v in vars(module).items() if inspect.isroutine(v) or inspect.isclass(v)]
            own = [n for n in names if getattr(getattr(module, n), "__module__", None) == module.__name__]
            if not own:
                raise TargetError(f"{where} has nothing named {attribute!r}, and defines no function or class at all.")
            reason = "has nothing named" if explicit else "has no function named"
            choices = ", ".join(f":{n}" for n in own[:8])
            raise TargetError(f"{where} {reason} {attribute!r}. Name one that it has: {choices}.")
        found = getattr(found, part)
    return found


def _callable(found: Any, where: str) -> Callable[..., Any]:
    """A function or module as it is; an `nn.Module` class as an instance made without arguments."""
    if inspect.isclass(found):
        from torch import nn  # what names no class does not need torch

        if not issubclass(found, nn.Module):
            raise TargetError(
                f"{where} is the class {found.__name__}, which is not an nn.Module. Name a function or an nn.Module."
            )
        try:
            return found()
        except TypeError as error:
            raise TargetError(
                f"{where} cannot be made without arguments ({error}). Name an instance, or a function that calls one."
            ) from error
    if not callable(found):
        raise TargetError(f"{where} is a {type(found).__name__}, not a function or an nn.Module.")
    return found


def _load_module(name: str, text: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise TargetError(f"{text!r} names no module: {name!r} is not a dotted module name. {FORMS}.")
    with _importable_from(Path.cwd()):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and (name == error.name or name.startswith(error.name + ".")):
                raise TargetError(
                    f"no module named {error.name!r} (in TARGET {text!r}, from {Path.cwd()}). {FORMS}."
                ) from error
            raise _failed(error, name) from error
        except (Exception, SystemExit) as error:
            raise _failed(error, name) from error


class _FreshLoader(SourceFileLoader):
    """Compiles the file's present text, never a cached .pyc: an edit within the clock's resolution counts."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _load_file(path: Path) -> ModuleType:
    """Execute a file as a fresh module."""
    path = path.resolve()
    name = f"symgrad_target_{re.sub(r'[^0-9a-zA-Z_]', '_', path.stem)}"
    loader = _FreshLoader(name, str(path))
    module = importlib.util.module_from_spec(ModuleSpec(name, loader, origin=str(path)))
    module.__file__ = str(path)
    linecache.checkcache(str(path))
    with _importable_from(path.parent):
        sys.modules[name] = module
        try:
            loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise _failed(error, str(path)) from error
    return module


def _failed(error: BaseException, where: str) -> TargetError:
    """The error of executing a target, located at the innermost line that belongs to it."""
    if isinstance(error, SyntaxError):
        return TargetError(
            f"{error.filename or where}:{error.lineno}: syntax error: {error.msg}. Python cannot read this file."
        )
    if isinstance(error, FileNotFoundError) and error.filename == where:
        return TargetError(f"no file {where}. {FORMS}.")
    if isinstance(error, OSError) and error.filename and error.filename == where:
        return TargetError(f"cannot read {where}: {error.strerror}.")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == where]
    line = f":{frames[-1].lineno}" if frames else ""
    return TargetError(
        f"{where}{line}: {type(error).__name__}: {error}. The target fails while it is imported; fix it there."
    )


@contextlib.contextmanager
def located(target: Target, what: str = "the forward") -> Generator[None]:
    """What the target's own code raises becomes a TargetError with file and line; everything else passes."""
    try:
        yield
    except SymgradError:
        raise
    except Exception as error:
        from engine.naming import is_user_code  # which needs sympy; what trains from emitted files does not

        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if is_user_code(f.filename)]
        ours = frames[-1].filename.startswith(HERE) and frames[-1].name != "__getattr__"  # of what the forward misspelt
        if not own or ours:
            raise
        said = str(error).strip().replace("'Proxy' object", "'Tensor' object")
        raise TargetError(
            f"{what} of {target.name} fails by itself, at {own[-1].filename}:{own[-1].lineno}: {type(error).__name__}: {said}"
        ) from error


@contextlib.contextmanager
def _importable_from(folder: Path) -> Generator[None]:
    """Let a target import its neighbours, as it could if it were run from that folder."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
