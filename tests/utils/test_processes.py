"""What processes do together, and that a single one needs none of it."""

import sys

import pytest
import torch

from reasoning_irl.config import main as entry
from reasoning_irl.utils import processes
from reasoning_irl.utils.errors import UserError
from tests.helpers.commands import run_python


def test_one_process_gets_back_what_it_gives() -> None:
    values = torch.arange(3.0)
    processes.start()
    processes.barrier()
    processes.add_up([values])
    assert (processes.rank(), processes.world_size(), processes.is_main()) == (0, 1, True)
    assert (processes.gather(7), processes.union([1, 2]), processes.from_main("x")) == ([7], [1, 2], "x")
    assert values.tolist() == [0.0, 1.0, 2.0]
    assert not torch.distributed.is_initialized()


def test_module_does_not_import_torch() -> None:
    """Trap: --help would take seconds."""
    code = (
        "import sys; from reasoning_irl.utils import processes; processes.barrier(); assert 'torch' not in sys.modules"
    )
    assert run_python("-c", code).returncode == 0


def test_number_of_processes_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: a cluster that sets WORLD_SIZE; every process would wait for the others for half an hour."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match=r"WORLD_SIZE=4.*torchrun"):
        processes.start()


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the second of two."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")


@pytest.mark.usefixtures("second")
def test_error_of_one_process_alone_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(entry, "GRACE", 0.0)
    with pytest.raises(SystemExit), entry._one_line():
        raise UserError("no disk")
    assert capsys.readouterr().err == "error in process 1: no disk\n"


@pytest.mark.usefixtures("second")
def test_other_processes_print_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    monkeypatch.setattr(sys, "stdout", sys.stdout)  # restored at the end
    monkeypatch.setattr(logging.root.manager, "disable", 0)
    processes.hush()
    print("a table")
    assert capsys.readouterr().out == ""


def test_rank_alone_is_not_that_of_a_process_among_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: a shell with RANK=1 in it, and a run that writes nothing."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "1")
    assert processes.is_main()
