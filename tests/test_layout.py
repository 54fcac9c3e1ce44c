"""The rules of the tree: public names, which way imports point, what an import may change, one version."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("tasklets", "net", "cluster")
PROGRAMS = {"examples", "tests", "benchmarks"}

# The state machines: style.md, "Protocol code". What they may share of their own package has no I/O either.
SANS_IO = {
    f"net.{name}"
    for name in (
        "_apart",
        "_bulk",
        "_codec",
        "_extensions",
        "_handshake",
        "_landing",
        "_printable",
        "_protocol",
        "_recovery",
        "_runway",
        "_session",
        "_wire",
    )
}
SANS_IO_MAY_IMPORT = SANS_IO | {"net.errors", "net._messages"}


class Import(NamedTuple):
    path: Path
    line: int
    module: str
    names: tuple[str, ...]  # empty for `import module`

    def __str__(self) -> str:
        what = f"from {self.module} import {', '.join(self.names)}" if self.names else f"import {self.module}"
        return f"{self.path.relative_to(ROOT)}:{self.line}: {what}"


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[Import]:
    """Yield every import of a file, those inside functions too, relative ones made absolute."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, alias.name, ())
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield Import(path, node.lineno, module, tuple(alias.name for alias in node.names))


def run_python(code: str) -> str:
    """Run code in a fresh interpreter in the project's folder and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_exists_and_is_documented(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    assert not [name for name in module.__all__ if not is_documented(name, getattr(module, name))]


def is_documented(name: str, thing: object) -> bool:
    documented = thing if callable(thing) else type(thing)
    doc = (documented.__doc__ or "").strip()
    return bool(doc) and not doc.startswith(f"{name}(")  # which is what dataclass makes up


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_listed_once(package: str) -> None:
    names = importlib.import_module(package).__all__
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith("_") and name != "__version__"]


@pytest.mark.parametrize(
    ("package", "above"),
    [("tasklets", {"net", "cluster"}), ("net", {"cluster"}), ("cluster", set())],
)
def test_package_imports_nothing_above_it(package: str, above: set[str]) -> None:
    forbidden = above | PROGRAMS
    upward = [i for path in sources(package) for i in imports_of(path) if i.module.split(".")[0] in forbidden]
    assert not upward, "\n".join(map(str, upward))


@pytest.mark.parametrize("package", ["cluster", "cluster.directives"])
def test_types_too_come_from_the_layers_below(package: str) -> None:
    """For all else import-linter sees to it."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = (c["layers"] for c in config["contracts"] if c.get("containers") == [package])
    layer_of = {f"{package}.{name}": depth for depth, row in enumerate(layers) for name in row.split(" | ")}

    def part(module: str) -> str:
        return ".".join(module.split(".")[: package.count(".") + 2])

    upward = []
    for path in sources(package.replace(".", "/")):
        importer = part(module_name(path))
        for i in imports_of(path):
            imported = {part(module) for module in (i.module, *(f"{i.module}.{name}" for name in i.names))}
            above = {m for m in imported - {importer} if layer_of.get(m, 99) <= layer_of.get(importer, -1)}
            upward.extend(f"{i} (of {module})" for module in above)
    assert not upward, "\n".join(upward)


def test_protocol_imports_nothing_of_net_that_does_io() -> None:
    detours = [
        i
        for path in sources("net")
        if module_name(path) in SANS_IO
        for i in imports_of(path)
        if i.module.split(".")[0] == "net"
        and not {i.module, *(f"net.{name}" for name in i.names)} & SANS_IO_MAY_IMPORT
    ]
    assert not detours, "\n".join(map(str, detours))


def test_examples_use_public_names_only() -> None:
    private = []
    for path in sources("examples"):
        for i in imports_of(path):
            words = [*i.module.split("."), *i.names]
            if words[0] in PACKAGES and any(word.startswith("_") for word in words):
                private.append(str(i))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Attribute(value=ast.Name(id=package), attr=name) if (
                    package in PACKAGES and name[0] == "_"
                ):
                    private.append(f"{path.relative_to(ROOT)}:{node.lineno}: {package}.{name}")
    assert not private, "\n".join(private)


def test_importing_tasklets_loads_no_gevent() -> None:
    loaded = run_python(
        "import sys, tasklets; print(*sorted(m for m in sys.modules if m.split('.')[0] in ('gevent', 'net')))"
    )
    assert loaded == ""


def test_an_executor_loads_no_gevent_and_nothing_of_its_agent() -> None:
    """A worker starts many, and waits for them."""
    needless = "gevent", "tomllib", "cluster.settings", "cluster.stores", "cluster.client", "cluster.worker"
    loaded = run_python(f"import sys, cluster.executor; print(*sorted(set({needless}) & set(sys.modules)))")
    assert loaded == ""


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_patches_nothing(package: str) -> None:
    # Everything gevent.monkey can replace lives in these modules.
    code = f"""
import builtins, os, queue, select, selectors, signal, socket, ssl, subprocess, threading, time
import _thread
modules = [_thread, builtins, os, queue, select, selectors, signal, socket, ssl, subprocess, threading, time]
before = [dict(vars(module)) for module in modules]
threads = threading.active_count()
handlers = [signal.getsignal(number) for number in signal.valid_signals()]
import {package}
for module, names in zip(modules, before):
    for name, value in names.items():
        if vars(module).get(name) is not value and not isinstance(value, (int, list, dict, type(None))):
            print(module.__name__, name)
if threading.active_count() != threads:
    print("threads", threading.enumerate())
if [signal.getsignal(number) for number in signal.valid_signals()] != handlers:
    print("signal handlers")
"""
    assert run_python(code) == ""


def test_no_file_names_a_path_of_one_machine() -> None:
    home = re.compile(r"(?<![\w.-])/(home|root|work|Users|mnt)/[\w.]|[A-Z]:\\\\?Users")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if home.search(line)
    ]
    assert not found, "\n".join(found)


def text_files() -> Iterator[Path]:
    suffixes = {".py", ".pyi", ".md", ".toml", ".json", ".ipynb", ".svg", ".txt", ".cfg", ".yml", ".yaml", ""}
    for folder in (*PACKAGES, *PROGRAMS, "docs", "tutorial", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in suffixes and "__pycache__" not in path.parts:
                yield path
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in suffixes - {""})
    yield ROOT / "Makefile"


def test_version_is_the_same_everywhere() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    newest = re.search(r"^## \D*(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)

    assert newest is not None, "CHANGELOG.md has no heading like '## 0.1.0'"
    assert newest[1] == declared
    assert importlib.metadata.version("tasklets") == declared


def test_distribution_installs_the_packages_and_nothing_else() -> None:
    top_level = importlib.metadata.distribution("tasklets").read_text("top_level.txt")
    assert top_level is not None
    assert sorted(top_level.split()) == sorted(PACKAGES)
