"""The GPU runner on simulated machines, each with its own PATH and /sys."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "cat", "head", "tr", "dirname", "true")
JOB = """
import json, os, sys
names = {"gpu": "CUDA_VISIBLE_DEVICES", "order": "CUDA_DEVICE_ORDER", "bound": "BOUND"}
print(json.dumps({"arguments": sys.argv[1:], **{name: os.environ.get(key) for name, key in names.items()}}))
raise SystemExit(int(os.environ.get("EXIT", 0)))
"""
# nvidia-smi of a machine with GPUs 0 and 1: `-i N` picks one.
NVIDIA_SMI = """#!/usr/bin/env bash
case $2 in 0) echo 00000000:3B:00.0 ;; 1) echo 00000000:AF:00.0 ;; *) echo "No devices were found"; exit 6 ;; esac
"""
# numactl that tells the job how it was bound; cores above 99 belong to others.
NUMACTL = """#!/usr/bin/env bash
[ "$1" != --physcpubind=100-101 ] || exit 1
export BOUND="$1 $2"
shift 2
exec "$@"
"""


class Machine:
    """A machine with the given programs, whose GPUs 0 and 1 are attached to NUMA nodes 0 and 1."""

    def __init__(self, folder: Path, **programs: str) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            path = shutil.which(tool)
            assert path
            (self.bin / tool).symlink_to(path)
        self.program("python", f'#!/usr/bin/env bash\nexec "{sys.executable}" "$@"\n')
        for name, text in programs.items():
            self.program(name.replace("_", "-"), text)
        self.device("0000:3b:00.0", "0", "0-7,16-23")
        self.device("0000:af:00.0", "1", "8-15,24-31")
        (folder / "job.py").write_text(JOB)

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def device(self, bus: str, node: str, cores: str) -> None:
        path = self.folder / "sys/bus/pci/devices" / bus
        path.mkdir(parents=True, exist_ok=True)
        (path / "numa_node").write_text(node + "\n")
        (path / "local_cpulist").write_text(cores + "\n")

    def run(self, gpu: int, *arguments: str, **environment: str) -> tuple[dict, str, int]:
        """Returns what the job saw, the output of the runner itself, and the exit code."""
        result = subprocess.run(
            [str(self.bin / "bash"), str(ROOT / f"runner_scripts/{gpu}_run_gpu_node.sh"), *(arguments or ["job.py"])],
            cwd=self.folder,
            env={"PATH": str(self.bin), "SYSFS": str(self.folder / "sys"), "VIRTUAL_ENV": "on", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return json.loads(result.stdout or "{}"), result.stderr, result.returncode


@pytest.fixture
def node(tmp_path: Path) -> Machine:
    return Machine(tmp_path, nvidia_smi=NVIDIA_SMI, numactl=NUMACTL)


@pytest.mark.parametrize(("gpu", "binding"), [(0, "0-7,16-23 --preferred=0"), (1, "8-15,24-31 --preferred=1")])
def test_job_runs_on_its_gpu_and_the_cores_of_its_node(node: Machine, gpu: int, binding: str) -> None:
    seen, warnings, code = node.run(gpu)
    assert seen["gpu"] == str(gpu)
    assert seen["order"] == "PCI_BUS_ID"  # the order in which nvidia-smi counts
    assert seen["bound"] == f"--physcpubind={binding}"
    assert warnings == ""
    assert code == 0


def test_devices_chosen_by_the_user_are_kept_and_bound(node: Machine) -> None:
    seen, warnings, _ = node.run(0, CUDA_VISIBLE_DEVICES="1,0")
    assert seen["gpu"] == "1,0"
    assert seen["bound"] == "--physcpubind=8-15,24-31 --preferred=1"
    assert warnings == ""


def test_job_without_a_gpu_is_not_bound(node: Machine) -> None:
    seen, warnings, _ = node.run(0, CUDA_VISIBLE_DEVICES="")
    assert (seen["gpu"], seen["bound"], warnings) == ("", None, "")


def test_exit_code_and_arguments_are_passed_on(node: Machine) -> None:
    seen, _, code = node.run(0, "job.py", "a=b c", "list=[1,2]", "glob=*", EXIT="7")
    assert seen["arguments"] == ["a=b c", "list=[1,2]", "glob=*"]
    assert code == 7


def one_warning(warnings: str) -> str:
    (line,) = warnings.splitlines()
    assert line.startswith("warning: ")
    return line


def test_without_a_gpu_the_job_runs_with_one_warning(tmp_path: Path) -> None:
    seen, warnings, code = Machine(tmp_path, numactl=NUMACTL).run(0)
    assert "no GPU" in one_warning(warnings)
    assert (seen["bound"], code) == (None, 0)


def test_missing_gpu_is_not_replaced_by_another(node: Machine) -> None:
    seen, warnings, code = node.run(3)
    assert "no GPU 3" in one_warning(warnings)
    assert (seen["gpu"], code) == ("3", 0)


def test_without_numactl_the_job_runs_with_one_warning(tmp_path: Path) -> None:
    seen, warnings, code = Machine(tmp_path, nvidia_smi=NVIDIA_SMI).run(1)
    assert "no numactl" in one_warning(warnings)
    assert (seen["gpu"], code) == ("1", 0)


@pytest.mark.parametrize(("numa_node", "cores"), [("-1", "0-7"), ("0", "100-101")])
def test_unknown_or_unavailable_cores_only_cost_the_binding(node: Machine, numa_node: str, cores: str) -> None:
    node.device("0000:3b:00.0", numa_node, cores)
    seen, warnings, code = node.run(0)
    assert "bound" in warnings or "kept" in warnings
    one_warning(warnings)
    assert (seen["gpu"], seen["bound"], code) == ("0", None, 0)


def test_stale_override_is_reported_and_not_applied(node: Machine) -> None:
    stale = {"OVERRIDE": "wandb.run_name=x model.classifier_loss=wgan"}
    seen, warnings, _ = node.run(0, "job.py", "seed=1", **stale)
    assert "NOT applied" in one_warning(warnings)
    assert seen["arguments"] == ["seed=1"]
    # Passing only a part of it is not enough.
    assert "NOT applied" in node.run(0, "job.py", "wandb.run_name=x", **stale)[1]


@pytest.mark.parametrize(
    "passed", [["a=1", "b=[2,3]"], ["a=1 b=[2,3]"]], ids=["as words", "as one argument, as in zsh"]
)
def test_override_that_is_passed_is_split_into_words(node: Machine, passed: list[str]) -> None:
    seen, warnings, _ = node.run(0, "job.py", *passed, OVERRIDE="a=1 b=[2,3]")
    assert seen["arguments"] == ["a=1", "b=[2,3]"]
    assert warnings == ""


def test_script_of_the_repository_is_found_from_anywhere(node: Machine) -> None:
    config = ["--config-path=configs/llama3b", "--config-name=3B_1B_config_irl_train"]
    result = subprocess.run(
        ["bash", str(ROOT / "runner_scripts/0_run_gpu_node.sh"), "irl_train.py", *config, "--cfg", "job"],
        cwd=node.folder,
        env={"PATH": f"{node.bin}", "SYSFS": str(node.folder / "sys"), "VIRTUAL_ENV": "on"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "max_steps: 500" in result.stdout, result.stderr
    assert sorted(path.name for path in node.folder.iterdir()) == ["bin", "job.py", "sys"]


@pytest.mark.parametrize(
    ("environment", "used"),
    [
        ({}, ".venv"),
        ({"VIRTUAL_ENV": "on"}, "PATH"),
        ({"CONDA_PREFIX": "on", "CONDA_DEFAULT_ENV": "unsloth_env"}, "PATH"),
        ({"CONDA_PREFIX": "on", "CONDA_DEFAULT_ENV": "base"}, ".venv"),
    ],
)
def test_active_environment_takes_precedence_over_the_repository(
    node: Machine, environment: dict[str, str], used: str
) -> None:
    shutil.copytree(ROOT / "runner_scripts", node.folder / "repository/runner_scripts")
    python = node.folder / "repository/.venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/usr/bin/env bash\necho .venv\n")
    python.chmod(0o755)
    node.program("python", "#!/usr/bin/env bash\necho PATH\n")
    result = subprocess.run(
        ["bash", str(node.folder / "repository/runner_scripts/0_run_gpu_node.sh"), "job.py"],
        cwd=node.folder,
        env={"PATH": str(node.bin), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == used


def test_without_a_script_the_usage_is_printed() -> None:
    command = ["bash", str(ROOT / "runner_scripts/0_run_gpu_node.sh")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: ")
