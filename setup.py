"""Compile `tasklets/_core.py`, and of `net` what every message passes through, where that is possible. Everything else
about the project is in pyproject.toml.

The environment variable TASKLETS_BUILD decides: `auto` (the default) goes on without the compiled core when there is no
compiler, `require` fails then, `off` does not try. Without it everything works the same, some five times slower.
"""

import os
import runpy
import sys
from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).resolve().parent
WHICH = runpy.run_path(str(HERE / "tasklets" / "_which_form.py"))
CHOICES = ("auto", "require", "off")


DIRECTIVES = {
    "annotation_typing": False,  # the types are those of _core.pxd, nothing is guessed from annotations
    "binding": False,  # methods that the interpreter calls directly
    "embedsignature": True,
    "embedsignature.format": "clinic",  # what inspect.signature() reads
}


def compiled_modules(is_required: bool) -> list[Extension]:
    try:
        import greenlet
        from Cython.Build import cythonize
    except ImportError as error:
        if is_required:
            raise SystemExit(
                f"error: TASKLETS_BUILD=require, but to compile wants Cython and greenlet: {error}"
            ) from None
        print(f"note: tasklets goes without its compiled core: {error}", file=sys.stderr)
        return []
    # No generated C beside the sources. In the core an only argument has no keyword: send(value) is called directly.
    options = {"build_dir": "build/cython", "language_level": 3}
    directives = {**DIRECTIVES, "always_allow_keywords": False}
    greenlet_include = Path(greenlet.__file__).resolve().parent.parent
    found: list[Extension] = cythonize([core(greenlet_include)], compiler_directives=directives, **options)
    found += cythonize(hot_path_of_net(greenlet_include), compiler_directives=DIRECTIVES, **options)
    for each in found:
        each.optional = not is_required  # here, since cythonize() forgets it
    return found


def core(greenlet_include: Path) -> Extension:
    digest = WHICH["source_digest"](HERE / "tasklets", WHICH["CORE_SOURCES"])
    return Extension(
        "tasklets._core",
        ["tasklets/_core.py"],
        include_dirs=["tasklets", str(greenlet_include)],  # <greenlet/greenlet.h>
        depends=["tasklets/_core.pxd", "tasklets/_data_stack.h"],
        define_macros=[("TASKLETS_SOURCE_DIGEST", f'"{digest}"')],
        # Debug information is ten times the code; -O3 needs more of the stack, which is copied at each switch.
        extra_compile_args=[] if sys.platform == "win32" else ["-g0", "-O2"],
    )


def hot_path_of_net(greenlet_include: Path) -> list[Extension]:
    if sys.platform == "win32":  # its compiler cannot be told to begin with a file
        return []
    hot = runpy.run_path(str(HERE / "net" / "_hot.py"))
    digest = WHICH["source_digest"](HERE / "net", hot["SOURCES"])
    return [
        Extension(
            f"net.{name}",
            [f"net/{name}.py"],
            include_dirs=["tasklets", str(greenlet_include)],  # of the core's types
            depends=["net/_made_of.h", *(f"net/{name}" for name in hot["SOURCES"])],  # the digest is of all
            define_macros=[("TASKLETS_SOURCE_DIGEST", f'"{digest}"')],
            extra_compile_args=["-g0", "-O2", "-include", str(HERE / "net" / "_made_of.h")],
        )
        for name in hot["HOT"]
    ]


def main() -> None:
    choice = os.environ.get("TASKLETS_BUILD") or "auto"
    if choice not in CHOICES:
        raise SystemExit(f"error: TASKLETS_BUILD={choice!r} is none of {', '.join(CHOICES)}")
    setup(ext_modules=[] if choice == "off" else compiled_modules(choice == "require"))


if __name__ == "__main__":
    main()
