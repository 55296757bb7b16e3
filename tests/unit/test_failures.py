"""Commands that are given something wrong say so in one sentence, before they start anything."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from deployments import app as put_into_app
from deployments import bootstrap, cli, evaluate, home_folder, processes, s3, services, tables
from deployments.experiment_options import Chosen
from deployments.failures import exit_status, sentence
from storage.errors import MissingInput, SpecError, StoreNotWritable, StoreRefused
from tasks.generators import kept_models

ROOT = Path(__file__).parents[2]
POPEN = subprocess.Popen


@pytest.fixture(autouse=True)
def _nothing_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith(("TELLTALE_", "PREFECT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TELLTALE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def started(*_: object, **__: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    yield
    assert not (tmp_path / "home").exists()


def said_by_demo(*arguments: str, status: int = 2) -> str:
    result: Result = CliRunner().invoke(cli.app, ["evaluate", *arguments])
    assert (result.exit_code, result.stdout) == (status, ""), result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["sample", "--set", "x=1"], "x: there is no such field"),
        (["sample", "--set", "x"], "--set: expected KEY=VALUE such as"),
        (["sample", "--set", "seed=1", "--set", "seed=2"], "seed is set twice"),
        (["sample", "--set", "seed=NaN"], "seed: Input should be a finite number"),
        (["sample", "--set", "sources.gan.count=-4"], "sources.gan.count: Input should be greater than or equal to 1"),
        (["sample", "--set", 'extractor={"sid": 96}'], "extractor.sid: there is no such field, did you mean side?"),
        (["sample", "--set", "extractor.weights=${a-b}"], "'${a-b}' holds ${a-b}, which is no variable"),
        ([], "name an experiment, or folders"),
        (["sample", "--detectors", "spectrum"], "--detectors and --cells go with folders"),
        (["smaple"], "no experiment 'smaple', did you mean sample?"),
        (["mine.yaml"], "no file "),
        (["folder.yaml"], "is a folder"),
        (["binary.yaml"], "no text in UTF-8"),
        (["two.yaml"], "single document"),
        (["sample", "--seed", "-1"], "seed: Input should be greater than or equal to 0"),
        (["sample", "--seed", "99999999999999999999"], "seed: Input should be less than or equal to 4294967295"),
    ],
)
def test_the_demo_refuses_a_wrong_option_before_it_starts_a_server(
    arguments: list[str], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "two.yaml").write_text("a: 1\n---\nb: 2\n")
    assert reason in said_by_demo(*arguments)


WRONG_SETTINGS = [
    ("TELLTALE_THREADS", "many", "TELLTALE_THREADS: expected tasks at once, from 1 to 1024, got 'many'"),
    ("TELLTALE_THREADS", "0", "TELLTALE_THREADS: "),
    ("TELLTALE_THREADS", "-2", "TELLTALE_THREADS: "),
    ("TELLTALE_THREADS", "2.5", "TELLTALE_THREADS: "),
    ("TELLTALE_THREADS", "1e3", "TELLTALE_THREADS: "),
    ("TELLTALE_THREADS", "100000", "TELLTALE_THREADS: "),
    ("TELLTALE_THREADS", "٣", "TELLTALE_THREADS: "),
    ("TELLTALE_THREADS", "9" * 5000, "TELLTALE_THREADS: "),
    ("TELLTALE_GPU_HOUR_PRICE", "cheap", "TELLTALE_GPU_HOUR_PRICE: expected the price of a GPU hour"),
    ("TELLTALE_GPU_HOUR_PRICE", "nan", "TELLTALE_GPU_HOUR_PRICE: "),
    ("TELLTALE_GPU_HOUR_PRICE", "inf", "TELLTALE_GPU_HOUR_PRICE: "),
    ("TELLTALE_GPU_HOUR_PRICE", "-1", "TELLTALE_GPU_HOUR_PRICE: "),
    ("TELLTALE_GPU_HOUR_PRICE", "2,50", "TELLTALE_GPU_HOUR_PRICE: "),
    ("TELLTALE_STORE", "ftp://host/a", "TELLTALE_STORE: expected a path, file:// or s3:// address, got one of ftp://"),
    ("TELLTALE_STORE", "s3://bucket/a#b", "neither ? nor #"),
    ("TELLTALE_STORE", "~nobody-of-this-name/a", "there is no user 'nobody-of-this-name'"),
    ("TELLTALE_STORE", "file.txt", "TELLTALE_STORE: expected a folder"),
    ("TELLTALE_STORE", "x" * 300, "cannot be a folder of ours (File name too long)"),
    ("TELLTALE_CACHE", "file.txt", "TELLTALE_CACHE: the folder "),
    ("TELLTALE_CACHE", "file.txt/below", "TELLTALE_CACHE: the folder "),
    ("TELLTALE_CACHE", "/proc/telltale", "TELLTALE_CACHE: the folder /proc/telltale cannot be made"),
    ("TELLTALE_CACHE", "~nobody-of-this-name/a", "there is no user 'nobody-of-this-name'"),
    ("TELLTALE_HOME", "file.txt", "TELLTALE_HOME: "),
    ("TELLTALE_HOME", "file.txt/below", "TELLTALE_HOME: "),
    ("TELLTALE_HOME", "/proc/telltale", "TELLTALE_HOME: /proc/telltale cannot be used"),
    ("TELLTALE_HOME", "x" * 300, "TELLTALE_HOME: "),
    ("TELLTALE_HOME", "~nobody-of-this-name/a", "there is no user 'nobody-of-this-name'"),
    ("TELLTALE_HOME", "circle", "TELLTALE_HOME: "),
]


@pytest.mark.parametrize(("name", "value", "reason"), WRONG_SETTINGS)
def test_the_demo_refuses_a_wrong_setting_before_it_starts_a_server(
    name: str, value: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put_in_the_way(tmp_path)
    monkeypatch.setenv(name, value)
    assert reason in said_by_demo("sample")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        *WRONG_SETTINGS,
        ("GPU_DEVICES", "0,,1", "GPU_DEVICES: expected different devices"),
        ("GPU_DEVICES", "0 1", "GPU_DEVICES: expected different devices"),
        ("GPU_DEVICES", "0,0", "GPU_DEVICES: expected different devices"),
        ("GPU_DEVICES", "../0", "GPU_DEVICES: expected different devices"),
        ("SCHEDULES", "yes", "SCHEDULES: expected on or off, got 'yes'"),
        ("DATABASE", "mysql://host/a", "DATABASE: expected sqlite"),
    ],
)
def test_serving_refuses_a_wrong_setting_before_it_starts_a_server(
    name: str,
    value: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _put_in_the_way(tmp_path)
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["bootstrap", "serve"])
    with pytest.raises(SystemExit) as ended:
        bootstrap.main()
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    (line,) = printed.err.splitlines()
    assert reason in line


def _put_in_the_way(folder: Path) -> None:
    (folder / "file.txt").touch()
    (folder / "circle").symlink_to("circle")


@pytest.mark.parametrize("address", ["http://[", "nonsense", "http://127.0.0.1:1/api", ""])
def test_registering_without_a_server_names_the_setting(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", address)
    monkeypatch.setattr(sys, "argv", ["bootstrap", "register"])
    with pytest.raises(SystemExit) as ended:
        bootstrap.main()
    assert ended.value.code == 2
    assert "PREFECT_API_URL: expected the address of a server that answers" in capsys.readouterr().err


def test_a_home_that_takes_no_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert "Read-only file system" in said_by_demo("sample")


def test_a_full_disk_under_the_state_of_services_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/home/services.json.new")

    monkeypatch.setattr(services, "ensure_server", full)
    assert said_by_demo("sample", status=1) == "No space left on device: /home/services.json.new"


def test_a_full_disk_under_the_home_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(processes.ServiceFailed, match=f"TELLTALE_HOME: cannot write to {tmp_path}: No space left"):
        home_folder.save_state(tmp_path, home_folder.State())


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("PREFECT_LOGGING_LEVEL", "secret", "PREFECT_LOGGING_LEVEL: Input should be 'DEBUG', 'INFO'"),
        ("PREFECT_API_REQUEST_TIMEOUT", "secret", "PREFECT_API_REQUEST_TIMEOUT: Input should be a valid number"),
        (
            "PREFECT_SERVER_ANALYTICS_ENABLED",
            "secret",
            "PREFECT_SERVER_ANALYTICS_ENABLED: Input should be a valid bool",
        ),
    ],
)
def test_a_setting_that_prefect_refuses_is_named_before_a_server_starts(
    name: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", POPEN)
    monkeypatch.setenv(name, value)
    with pytest.raises(SpecError, match=reason) as refused:
        home_folder.check_settings()
    assert "secret" not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_local_s3_server_starts_for_no_other_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for word, status in (("--help", 0), ("serve", 2)):
        monkeypatch.setattr(sys, "argv", ["s3", word])
        with pytest.raises(SystemExit) as ended:
            s3.main()
        assert ended.value.code == status
    assert "usage: python -m deployments.s3" in capsys.readouterr().out


def test_a_table_of_a_run_that_is_not_there_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for store, reason in {"store": "no run of 'smaple'", "s3://bucket/a#b": "neither ? nor #"}.items():
        monkeypatch.setenv("TELLTALE_STORE", store)
        with pytest.raises(typer.Exit) as ended:
            tables.main("smaple")
        assert ended.value.exit_code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert reason in line


def test_the_app_takes_a_tilde_and_names_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "index.html").touch()
    for app, models, reason in (
        ("~/none", "~/models", f"the built app in {tmp_path}/none"),
        ("~/app", "~/models", f"onnx in {tmp_path}/models"),
        ("~nobody-of-this-name/app", "~/models", "there is no user"),
    ):
        with pytest.raises(typer.Exit) as ended:
            put_into_app.main(models=Path(models), app=Path(app))
        assert ended.value.exit_code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert reason in line


def test_a_model_to_keep_is_a_folder_and_the_store_one_that_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    monkeypatch.setenv("TELLTALE_STORE", "s3://bucket/a#b")
    for arguments, reason in {
        ("none",): "usage: ",
        (): "usage: ",
        ("~nobody-of-this-name/model",): "error: .*there is no user",
        ("model",): "error: .*neither . nor #",
    }.items():
        with pytest.raises(SystemExit, match=reason):
            kept_models.main(list(arguments))


def test_a_failure_is_wrong_input_or_another() -> None:
    wrong: tuple[Exception, ...] = (SpecError("a"), MissingInput("a"), StoreRefused("a"))
    assert [exit_status(error) for error in wrong] == [2, 2, 2]
    other: tuple[Exception, ...] = (StoreNotWritable("a"), OSError(28, "full"), processes.ServiceFailed("a"))
    assert [exit_status(error) for error in other] == [1, 1, 1]
    assert sentence(OSError(28, "full")) == "full"
    assert sentence(SpecError("a b")) == "a b"


def test_settings_are_what_the_flows_take(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Chosen] = []

    def evaluated(_: object, asked: Chosen) -> str:
        taken.append(asked)
        raise SpecError("enough")

    handle = services.ServerHandle("http://127.0.0.1:1/api", "http://127.0.0.1:1", {})
    monkeypatch.setattr(services, "ensure_server", lambda: handle)
    monkeypatch.setattr(services, "ensure_reports", lambda server: None)
    monkeypatch.setattr(evaluate, "_evaluate", evaluated)
    words = ["sample", "--set", "sources.gan.count=50", "--set", 'extractor={"side": 96}', "--seed", "3"]
    assert said_by_demo(*words) == "enough"
    (asked,) = taken
    assert (asked.name, asked.overrides, asked.seed) == (
        "sample",
        {"sources.gan.count": 50, "extractor": {"side": 96}},
        3,
    )


def test_folders_are_checked_once_the_servers_address_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else Prefect, imported for that, would not know of it, and start a server of its own."""
    done: list[str] = []

    def started() -> services.ServerHandle:
        done.append("server")
        return services.ServerHandle("http://127.0.0.1:1/api", "http://127.0.0.1:1", {})

    def checked(_: Chosen) -> None:
        done.append("checked")
        raise SpecError("enough")

    monkeypatch.setattr(services, "ensure_server", started)
    monkeypatch.setattr(services, "ensure_reports", lambda server: None)
    monkeypatch.setattr(evaluate, "checked", checked)
    monkeypatch.setattr(evaluate, "chosen", lambda *_: None)
    assert said_by_demo("--photographs", "a", "--fakes", "b") == "enough"
    assert done == ["server", "checked"]


def test_the_lines_for_the_users_shell_work_whatever_the_environments_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/a?b%20c#d $e `f` 'g' \"h\"/bin/python")
    bootstrap.print_address(services.ServerHandle("http://127.0.0.1:1/api", "http://127.0.0.1:1", {}), None)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "export PATH" in line]
    monkeypatch.undo()
    shell = subprocess.run(
        ["sh", "-c", f'{line}; printf %s "$PATH"'], env={"PATH": "/usr/bin"}, capture_output=True, text=True, check=True
    )
    assert shell.stdout == "/a?b%20c#d $e `f` 'g' \"h\"/bin:/usr/bin"
