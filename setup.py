"""Compile `tasklets/_core.py`, where that is possible. Everything else about the project is in pyproject.toml.

The environment variable TASKLETS_BUILD decides: `auto` (the default) goes on without the compiled core when there is no
compiler, `require` fails then, `off` does not try. Without it everything works the same, some five times slower.
"""

import os
import runpy
import sys
from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).resolve().parent
CHOICES = ("auto", "require", "off")


def compiled_core(is_required: bool) -> list[Extension]:
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
    digest = runpy.run_path(str(HERE / "tasklets" / "_which_core.py"))["source_digest"](HERE / "tasklets")
    core = Extension(
        "tasklets._core",
        ["tasklets/_core.py"],
        include_dirs=[
            "tasklets",
            str(Path(greenlet.__file__).resolve().parent.parent),
        ],  # <greenlet/greenlet.h>
        depends=["tasklets/_core.pxd", "tasklets/_data_stack.h"],
        define_macros=[("TASKLETS_SOURCE_DIGEST", f'"{digest}"')],
        extra_compile_args=[]
        if sys.platform == "win32"
        else ["-g0"],  # debug information is ten times the code
    )
    found: list[Extension] = cythonize(
        [core],
        build_dir="build/cython",  # no generated C beside the sources
        language_level=3,
        compiler_directives={
            "always_allow_keywords": False,  # lets the interpreter call send(value) directly
            "annotation_typing": False,  # the types are those of _core.pxd, nothing is guessed from annotations
            "binding": False,  # methods that the interpreter calls directly
            "embedsignature": True,
            "embedsignature.format": "clinic",  # what inspect.signature() reads
        },
    )
    for each in found:
        each.optional = not is_required  # here, since cythonize() forgets it
    return found


def main() -> None:
    choice = os.environ.get("TASKLETS_BUILD") or "auto"
    if choice not in CHOICES:
        raise SystemExit(f"error: TASKLETS_BUILD={choice!r} is none of {', '.join(CHOICES)}")
    setup(ext_modules=[] if choice == "off" else compiled_core(choice == "require"))


if __name__ == "__main__":
    main()
