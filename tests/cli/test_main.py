"""The `reasoning-irl` command: each subcommand runs its program, and mistakes end in one line."""

import pytest

from reasoning_irl import __version__
from reasoning_irl.cli.main import main
from reasoning_irl.utils.programs import PROGRAMS, command
from tests.helpers.commands import REPOSITORY, run_python


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/reasoning-irl", *arguments])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # main() sets it for Hydra
    return main()


@pytest.mark.parametrize(
    ("subcommand", "printed"),
    [
        ("train", "algorithm: airl\n"),
        ("sft", "algorithm: sft\n"),
        ("grpo", "algorithm: grpo\n"),
        ("evaluate", "  n_samples: "),
        ("score", "  n_planted: "),
    ],
)
def test_subcommand_runs_its_program_with_the_overrides(
    subcommand: str, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, subcommand, "seed=77", "--cfg=job")
    out = capsys.readouterr().out
    assert printed in out
    assert "seed: 77\n" in out


def test_export_is_called_by_its_subcommand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "export", "--help")
    assert capsys.readouterr().out.startswith("usage: reasoning-irl export ")


def test_unknown_subcommand_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "trian", "seed=1") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "error: there is no command trian: choose from train, sft, grpo, evaluate, score, export\n"


def test_help_and_version_load_neither_torch_nor_hydra() -> None:
    code = "import sys; from reasoning_irl.cli.main import main; main(); print({'torch', 'hydra'} & set(sys.modules))"
    done = run_python("-c", code, "--help")
    assert all(f"  {program.subcommand} " in done.stdout for program in PROGRAMS), done.stderr
    assert done.stdout.endswith("set()\n")
    assert run_python("-c", code, "--version").stdout == f"reasoning_irl {__version__}\nset()\n"


def test_every_script_has_a_subcommand_that_runs_the_same_program() -> None:
    scripts = {path.name: path.read_text() for path in REPOSITORY.glob("*.py")}
    programs = {program.script: program.module for program in PROGRAMS if program.script.endswith(".py")}
    assert scripts.keys() == programs.keys()
    for script, module in programs.items():
        assert f"from {module} import main\n" in scripts[script]


def test_messages_name_commands_of_the_way_the_program_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: a message of an installed program tells its user to run a script that is only in the repository."""
    monkeypatch.setattr("sys.argv", ["irl_train.py", "seed=1"])
    assert command("evaluate.py") == "python evaluate.py"
    with pytest.raises(SystemExit):  # an unknown option; main() has set the program's name by then
        run(monkeypatch, "train", "--no-such-option")
    assert command("evaluate.py") == "reasoning-irl evaluate"
