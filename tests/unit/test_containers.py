"""Containers: nobody is root, nothing can be written that need not be, and no password stands in a file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.bootstrap import POOLS
from deployments.database import POOL_SETTINGS, WAIT_SETTINGS

ROOT = Path(__file__).parents[2]
HERE = ROOT / "deployments"
COMPOSE = (HERE / "compose.yaml").read_text(encoding="utf-8")
DOCUMENT = yaml.safe_load(COMPOSE)
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
OURS = {name: service for name, service in SERVICES.items() if name != "database"}
DOCKERFILE = (HERE / "Dockerfile").read_text(encoding="utf-8")
UID = "1000"


def job() -> dict[str, Any]:
    template = json.loads((HERE / "pools" / "gpu-kubernetes.json").read_text(encoding="utf-8"))
    pod: dict[str, Any] = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    return pod


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, flags=re.M)
    assert users == [f"{UID}:{UID}"]
    assert f"useradd --uid {UID} " in DOCKERFILE


def test_all_that_the_image_runs_from_is_written_before_it_becomes_read_only() -> None:
    """Folders that volumes take their owner from, settings below the home folder, no bytecode at run time."""
    assert f"install --directory --owner {UID} --group {UID} /data /prefect" in DOCKERFILE
    settings = dict(re.findall(r"\b([A-Z_]+)=(\S+)", DOCKERFILE))
    assert settings["HOME"] == "/home/telltale"
    assert settings["PREFECT_HOME"].startswith("/home/telltale/")
    assert settings["TELLTALE_STORE"].startswith("/data/")
    assert settings["PYTHONDONTWRITEBYTECODE"] == "1"


def test_the_image_takes_in_no_password_file() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert rules.index("deployments/.env") > rules.index("!deployments")
    assert "/deployments/.env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, flags=re.M):
        assert {f"!{each}" for each in copied.split()} <= set(rules)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_without_rights_over_a_read_only_file_system(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service
    assert service.get("user") == ("postgres" if name == "database" else None)


@pytest.mark.parametrize("name", OURS)
def test_our_services_can_write_to_the_temporary_folder_and_to_their_home(name: str) -> None:
    places = {entry.partition(":")[0]: entry.partition(":")[2] for entry in OURS[name]["tmpfs"]}
    assert set(places) == {"/tmp", "/home/telltale"}
    assert f"uid={UID}" in places["/home/telltale"].split(",")


@pytest.mark.parametrize("name", SERVICES)
def test_what_should_run_is_started_again(name: str) -> None:
    assert SERVICES[name].get("restart") == (None if name == "register" else "unless-stopped")


def test_the_password_has_no_default_and_is_given_to_those_only_who_need_it() -> None:
    uses = re.findall(r"\$\{TELLTALE_DATABASE_PASSWORD([^}]*)\}", COMPOSE)
    assert uses
    assert all(use.startswith(":?") for use in uses)
    holders = {name for name, service in SERVICES.items() if "PASSWORD" in json.dumps(service.get("environment", {}))}
    assert holders == {"database", "server"}


def test_only_the_ui_can_be_reached_and_only_from_this_machine() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "server": ["127.0.0.1:4200:4200"]
    }


def test_the_database_is_of_one_major_version_and_waited_for() -> None:
    assert re.fullmatch(r"postgres:\d+", SERVICES["database"]["image"])
    assert SERVICES["server"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert "pg_isready" in SERVICES["database"]["healthcheck"]["test"]


def test_the_server_finds_the_database_under_the_settings_that_serve_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import Settings

    settings = SERVICES["server"]["environment"]
    assert (POOL_SETTINGS | WAIT_SETTINGS).items() <= settings.items()
    assert SERVICES["database"]["environment"]["POSTGRES_DB"] == settings["PREFECT_SERVER_DATABASE_NAME"]
    assert SERVICES["database"]["environment"]["POSTGRES_USER"] == settings["PREFECT_SERVER_DATABASE_USER"]
    for name in [name for name in settings if name.startswith("PREFECT_SERVER_DATABASE_")]:
        monkeypatch.setenv(name, "p@ss/w:rd" if name.endswith("PASSWORD") else settings[name])
    read = Settings().server.database.connection_url
    assert read is not None
    assert read.get_secret_value() == "postgresql+asyncpg://prefect:p%40ss%2Fw%3Ard@database:5432/prefect"


def test_every_pool_has_a_worker_that_fits_it() -> None:
    for pool in POOLS:
        command = SERVICES[pool]["command"]
        assert command[:5] == ["prefect", "worker", "start", "--pool", pool]


def test_every_volume_is_declared() -> None:
    mounted = {entry.partition(":")[0] for service in SERVICES.values() for entry in service.get("volumes", [])}
    assert {name for name in mounted if re.fullmatch(r"[a-z]+", name)} == set(DOCUMENT["volumes"])


def test_a_job_on_kubernetes_is_not_root_and_writes_to_its_own_volumes_only() -> None:
    pod = job()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert str(pod["securityContext"]["runAsUser"]) == UID
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert {place for place, volume in mounts.items() if "emptyDir" in volume} == {
        "/dev/shm",
        "/tmp",
        "/home/telltale",
    }
