"""Other engines, each as a program in an environment of its own that gets a job and answers it."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from conf.provenance import ROOT
from conf.strict import ConfigError
from eval.serving.config import Server
from eval.serving.job import Answer, Job, answer_from

PROGRAMS = {Server.vllm: "eval.serving.vllm_worker", Server.llama_cpp: "eval.serving.llama_cpp_worker"}
PACKAGES = {Server.vllm: "vllm", Server.llama_cpp: "xllamacpp"}
REMEDY = "`make serve-check` sets up .venv-serve with it"


def check_installed(python: str, servers: list[Server]) -> None:
    """Raise ConfigError, naming `make serve-check`, where there is no such Python or it lacks an engine."""
    for server in servers:
        code = f"import importlib.util as u, sys; sys.exit(3 * (u.find_spec('{PACKAGES[server]}') is None))"
        try:
            status = subprocess.run([python, "-c", code], capture_output=True).returncode
        except OSError as error:
            raise ConfigError(f"python={python}: {error.strerror}; {REMEDY}") from None
        if status == 3:
            raise ConfigError(f"servers: {PACKAGES[server]} is not installed for {python}; {REMEDY}")
        if status:
            raise ConfigError(f"python={python}: is no Python that can be used")


def run(server: Server, job: Job, python: str) -> Answer:
    """What the engine answers. Raises ConfigError, with the last line that it has said, where it fails."""
    with TemporaryDirectory() as folder:
        given, answered, said = (Path(folder) / name for name in ("job.json", "answer.json", "said.txt"))
        given.write_text(json.dumps(asdict(job)))
        command = [python, "-m", PROGRAMS[server], str(given), str(answered)]
        with said.open("w") as stream:
            environment = _environment(python, job)
            status = subprocess.run(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream).returncode
        if not answered.exists():
            lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
            errors = [line for line in lines if "Error" in line] or lines or ["it said nothing"]
            print("\n".join(lines[-20:]), file=sys.stderr)
            raise ConfigError(f"servers: {server} has ended with status {status}: {errors[-1].strip()}")
        return answer_from(answered.read_text())


def _environment(python: str, job: Job) -> dict[str, str]:
    """Threads as the job says; nothing is asked of the network; Intel's OpenMP, if there, as vLLM advises."""
    openmp = Path(python).parent.parent / "lib" / "libiomp5.so"
    found = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(job.threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if openmp.exists():
        found["LD_PRELOAD"] = str(openmp.resolve())
    return {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"} | found
