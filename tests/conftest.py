"""Fixtures of all tests: the embedded tokenizer and data, tiny real models, and a composed config."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast, set_seed

from reasoning_irl.config.schema import DiscriminatorLogit, EmbeddedModelConfig, Granularity, IRLTrainConfig, RewardHead
from reasoning_irl.data.loading import load_train
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import TokenSequence, encode_record
from reasoning_irl.models.embedded import build_tokenizer, save_embedded
from reasoning_irl.models.reward_model import RewardModel, RewardSpec, build_reward_model
from tests.helpers.commands import started_warm_python
from tests.helpers.configs import MAX_VALUE, compose_tiny

torch.set_num_threads(1)


# Folders of tests of what is outside the package; `make test` leaves them to `make test-long`.
OUTSIDE = {"benchmarks", "figures", "runner_scripts"}


def pytest_itemcollected(item: pytest.Item) -> None:
    if OUTSIDE & set(item.path.relative_to(Path(__file__).parent).parts):
        item.add_marker("long")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests come first."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_collection_finish() -> None:
    gc.freeze()  # no test's garbage collection looks through the libraries


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Shows a failure when it happens, and not only after the slow tests."""
    if report.failed:
        print(f"\n{report.nodeid}\n{report.longreprtext}", flush=True)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    set_seed(0)


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A `python` that need not import the libraries, for programs that others start from scratch."""
    with started_warm_python(tmp_path_factory.mktemp("warm")) as python:
        yield python


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(MAX_VALUE)


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., IRLTrainConfig]:
    """Composes the embedded default with a tiny model and further overrides."""
    return compose_tiny


@pytest.fixture(scope="session")
def embedded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of the tiny embedded model and its tokenizer."""
    folder = tmp_path_factory.mktemp("embedded")
    set_seed(0)
    embedded: EmbeddedModelConfig = compose_tiny().model.embedded
    save_embedded(embedded, MAX_VALUE, folder)
    return folder


@pytest.fixture(scope="session")
def records() -> list[Record]:
    return load_train(compose_tiny().dataset).train


@pytest.fixture(scope="session")
def sequences(tokenizer: PreTrainedTokenizerFast, records: list[Record]) -> list[TokenSequence]:
    """The experts as tokens, with prompts and traces of different lengths."""
    return [encode_record(tokenizer, record, record.target, 200) for record in records]


@pytest.fixture
def make_reward_model(embedded_folder: Path, tokenizer: PreTrainedTokenizerFast) -> Callable[..., RewardModel]:
    """Builds a reward model from the tiny embedded model; equal seeds give equal weights."""

    def make(
        head: RewardHead = RewardHead.plain,
        granularity: Granularity = Granularity.dense,
        interval: int = 5,
        seed: int = 0,
        name: Path | str | None = None,
        logit: DiscriminatorLogit = DiscriminatorLogit.token,
    ) -> RewardModel:
        set_seed(seed)
        spec = RewardSpec(head, granularity, interval, logit=logit)
        return build_reward_model(str(name or embedded_folder), spec, tokenizer)

    return make
