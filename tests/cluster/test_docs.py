"""The programs in docs/cluster.md run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

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
