"""The programs in docs/cluster.md run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from cluster import Client

TEXT = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")


def test_the_job_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = TEXT.split("## Jobs and signals")[1].split("\n## ")[0]
    module, program, by_hand = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "audit.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        names: dict[str, object] = {}
        exec(compile(program, "docs/cluster.md", "exec"), names)
        exec(compile(by_hand, "docs/cluster.md", "exec"), names)
    finally:
        sys.modules.pop("audit", None)
    printed = capsys.readouterr().out.splitlines()
    assert "status='ok'" in printed[0] or "status='ended'" in printed[0]
    assert printed[1] == "19900"


def test_the_directives_of_the_documentation_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """P-16, P-38."""
    section = TEXT.split("## Map and fold")[1].split("\n## ")[0]
    module, program, detached, session = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "sums.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        names: dict[str, object] = {}
        exec(compile(program, "docs/cluster.md", "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        assert printed[:2] == ["143 143", "143"]
        assert sorted(printed[2:4]) == ["0 55", "1 5"]
        assert printed[4:] == ["[55, 5]", "13"]
        with Client("memory:", workers=2) as client:
            names["client"] = client
            exec(compile(detached, "docs/cluster.md", "exec"), names)
            exec(compile(session, "docs/cluster.md", "exec"), names)
        assert capsys.readouterr().out.splitlines() == ["[(0, 6765)]"]
    finally:
        sys.modules.pop("sums", None)
