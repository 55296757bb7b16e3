"""The GPU's measuring script runs in all its parts with tiny networks on a CPU, where its figures mean nothing."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu, gpu_limits


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


def test_limits_are_counted_on_paper_without_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--paper", "--tiny"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:7]] == [
        "| sd512", "| sd768", "| vgg16", "| dcgan", "| mobilenet"
    ]  # fmt: skip


def test_the_full_sizes_cost_what_is_known_of_them() -> None:
    options = gpu_limits.Options("meta", tiny=False, compiled=False)
    spec = gpu_limits.vgg16_spec(options)
    # Multiplications of the thirteen convolutions; configuration D up to its second connected layer.
    convolutions = 15_346_630_656
    assert gpu_limits.vgg16_work(spec).operations == 2 * (convolutions + 25088 * 4096 + 4096**2)
    # At least the first convolution's input and output, and its weights once per batch.
    assert gpu_limits.vgg16_work(spec).bytes > 2 * (3 + 64) * 224**2
    shape, batch = gpu_limits.mobilenet_sizes(options)
    assert gpu_limits.mobilenet_work(shape, batch).operations > 2 * 300e6  # the paper's forward pass alone


def test_what_is_counted_on_paper_is_what_is_computed() -> None:
    options = gpu_limits.Options("cpu", tiny=True, compiled=False)
    spec = gpu_limits.diffusion_spec(512, 50, 16, options).model_copy(update={"steps": 3})
    sampler = gpu.fast_sampler(spec, options)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        sampler.sample(gpu.PROMPTS[:1], [0])
    assert gpu_limits.diffusion_work(spec, options).operations == counter.get_total_flops()
    gan = gpu_limits.dcgan_spec(options)
    pictures = torch.zeros(gan.batch, 3, 64, 64, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        gpu._Training(gan, "cpu").run_epoch(pictures, 1)
    assert gpu_limits.dcgan_work(gan).operations * gan.batch == counter.get_total_flops()


def test_a_limit_is_the_lower_of_two() -> None:
    board = gpu_limits.Board(operations=100.0, bytes=10.0)
    assert gpu_limits.Work(10.0, 2.0).limit(board) == (5.0, "bandwidth")
    assert gpu_limits.Work(50.0, 1.0).limit(board) == (2.0, "arithmetic")
    assert gpu_limits.Work(50.0, 0).limit(board) == (2.0, "arithmetic")


def test_without_a_gpu_it_says_what_runs_instead(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "--tiny --device cpu" in capsys.readouterr().err
