"""The GPU's measuring script runs in all its parts with tiny networks on a CPU, where its figures mean nothing."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu


def test_every_part_gives_a_row_without_a_share_of_a_limit_that_is_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.main(["--tiny", "--device", "cpu", "--json", str(tmp_path / "g.json"), "--markdown", str(tmp_path / "g.md")])
    document = json.loads((tmp_path / "g.json").read_text(encoding="utf-8"))
    assert "no measurement" in document["device"]
    parts = [row["part"] for row in document["rows"]]
    assert parts == ["sd64", "sd64", "vgg16", "dcgan", "mobilenet", "busy"]
    for row in document["rows"]:
        assert row["rate"] > 0
        assert row["share"] is None
        assert (row["eager_float32"] is None) == (row["part"] == "busy")
    table = (tmp_path / "g.md").read_text(encoding="utf-8")
    assert sum(line.startswith("| ") for line in table.splitlines()) == 1 + len(parts)
    assert table in capsys.readouterr().out


def test_a_part_runs_alone_and_an_unknown_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--tiny", "--device", "cpu", "--part", "dcgan"])
    assert "| sd" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        gpu.main(["--part", "sd1024"])


def test_a_limit_is_the_lower_of_two() -> None:
    board = gpu.Board(operations=100.0, bytes=10.0)
    assert gpu.Work(10.0, 2.0).limit(board) == 5.0
    assert gpu.Work(50.0, 1.0).limit(board) == 2.0
    assert gpu.Work(50.0, 0).limit(board) == 2.0
    assert set(gpu.WORK) == set(gpu.PARTS) - {"busy"}


def test_without_a_gpu_it_says_what_runs_instead(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "--tiny --device cpu" in capsys.readouterr().err
