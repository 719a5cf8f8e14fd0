"""Carrying values from one tokenizer to another, against character-by-character references."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from reasoning_irl.data.alignment import TokenBridge, carry, carry_sums, without_gaps
from reasoning_irl.data.records import Record, make_prompt
from reasoning_irl.data.tokens import TokenSequence, encode_prompt
from reasoning_irl.models.embedded import build_tokenizer
from reasoning_irl.text.token_spans import decode
from reasoning_irl.text.trace import Span
from reasoning_irl.utils.errors import DataError
from tests.helpers.tokenizers import COARSE, CORPUS, FINE, FINE_BYTES, byte_level, random_cover, wrapped

TEXTS = [
    "<think>\n12 + 345 = 357\n</think>\n<answer>\n357\n</answer>",
    "  two leading spaces and 1800 apples, 18.0 of them",
    "naïve café, e\u0301 combining, Ω≈ç√",
    "emoji 👩‍👩‍👧 and 🎉🎉, 数学は楽しい 42。",
    "a\n\n\nb\t\tc  ",
    "1",
    "",
]


def metaspace() -> PreTrainedTokenizerFast:
    """A unigram model that writes spaces as a character, as SentencePiece does."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    alphabet = sorted({letter for text in [*CORPUS, *TEXTS] for letter in text})
    trainer = trainers.UnigramTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<end>", "<unk>"],
        unk_token="<unk>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return wrapped(tokenizer)


MERGED = byte_level(330, ["a 😀 b 🎉 c 👩‍👧 e\u0301, 你好, 数学 12"] * 3)  # some tokens end inside a character
OTHERS = {"coarse": COARSE, "fine": FINE, "metaspace": metaspace()}
RECORD = Record("r", make_prompt("How many?", ""), "<think>\n1\n</think>\n<answer>\n1\n</answer>", "1")


def sequence(tokenizer: PreTrainedTokenizerFast, text: str, ended: bool = True) -> TokenSequence:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return TokenSequence(encode_prompt(tokenizer, RECORD.prompt), (*ids, *[tokenizer.eos_token_id] * ended))


def reference(values: Sequence[float], source: Sequence[Span], target: Sequence[Span], length: int) -> list[float]:
    """`carry` character by character."""
    characters: list[float | None] = []
    for c in range(length):
        over = [value for value, (start, end) in zip(values, source, strict=True) if start <= c < end]
        characters.append(sum(over) / len(over) if over else None)
    filled = []
    for c in range(length):
        later = [value for value in characters[c:] if value is not None]
        earlier = [value for value in characters[:c] if value is not None]
        filled.append(later[0] if later else earlier[-1] if earlier else 0.0)
    result = []
    for start, end in target:
        if not filled:
            result.append(0.0)
        elif end > start:
            result.append(sum(filled[start:end]) / (end - start))
        else:
            result.append(filled[min(start, length - 1)])
    return result


def random_spans(rng: random.Random, length: int) -> list[Span]:
    """Spans in order, with and without gaps, some empty, some sharing a character with the next."""
    spans, at = [], 0
    while at < length:
        start = min(length, at + (rng.random() < 0.2))
        end = min(length, start + rng.choice([0, 1, 1, 2, 5]))
        spans.append((start, end))
        at = max(at, end) if rng.random() < 0.7 or end - start != 1 else start
        at += end == start and rng.random() < 0.5
    return spans


def test_random_alignments_match_the_reference() -> None:
    rng = random.Random(0)
    for _ in range(1000):
        length = rng.randint(0, 30)
        source, target = random_spans(rng, length), random_spans(rng, length)
        values = [rng.gauss(0, 1) for _ in source]
        np.testing.assert_allclose(
            carry(values, source, target, length), reference(values, source, target, length), atol=1e-12
        )


def plain_sums(values: Sequence[float], source: Sequence[Span], target: Sequence[Span], length: int) -> list[float]:
    """`carry_sums` character by character."""
    characters = [0.0] * length
    for value, (start, end) in zip(values, source, strict=True):
        own = range(start, end) if end > start else [min(start, length - 1)]
        for c in own:
            characters[c] += value / len(own)
    return [sum(characters[c] / sum(a <= c < b for a, b in target) for c in range(start, end)) for start, end in target]


def test_random_sums_match_the_reference_and_are_preserved() -> None:
    rng = random.Random(0)
    for _ in range(300):
        length = rng.randint(1, 20)
        source, target = random_cover(rng, length), random_cover(rng, length)
        values = [rng.gauss(0, 1) for _ in source]
        found = carry_sums(values, source, target, length)
        assert found == pytest.approx(plain_sums(values, source, target, length))
        assert sum(found) == pytest.approx(sum(values))


@pytest.mark.parametrize("name", list(OTHERS))
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("ended", [True, False])
def test_rewards_are_carried_to_the_tokens_of_their_characters(name: str, text: str, ended: bool) -> None:
    policy = FINE if name == "coarse" else COARSE
    original = sequence(policy, text, ended)
    if not original.completion_ids:
        pytest.skip("a completion has at least one token")
    bridged = TokenBridge(policy, OTHERS[name], [RECORD]).to_reward(original)
    n = len(bridged.sequence.completion_ids)
    assert bridged.sequence.prompt_ids == encode_prompt(OTHERS[name], RECORD.prompt)
    assert (bridged.sequence.completion_ids[-1] == OTHERS[name].eos_token_id) == ended
    # A constant stays constant, and end tokens are matched to each other.
    np.testing.assert_allclose(bridged.rewards_of_policy([3.0] * n), [3.0] * len(original.completion_ids))
    rewards = list(np.random.default_rng(0).normal(size=n))
    carried = bridged.rewards_of_policy(rewards)
    assert len(carried) == len(original.completion_ids)
    if ended:
        assert carried[-1] == rewards[-1]
    for spans in (bridged.policy_spans, bridged.reward_spans):
        assert {c for start, end in spans for c in range(start, end)} == set(range(len(text)))


def test_total_over_characters_is_preserved() -> None:
    text = TEXTS[0]  # no tokenizer drops a character of it
    bridged = TokenBridge(FINE, COARSE, [RECORD]).to_reward(sequence(FINE, text, ended=False))
    rewards = list(np.random.default_rng(1).normal(size=len(bridged.sequence.completion_ids)))
    carried = bridged.rewards_of_policy(rewards)
    per_character = sum(r * (end - start) for r, (start, end) in zip(rewards, bridged.reward_spans, strict=True))
    assert sum(r * (end - start) for r, (start, end) in zip(carried, bridged.policy_spans, strict=True)) == (
        pytest.approx(per_character)
    )


def test_number_that_is_split_differently_shares_its_reward() -> None:
    """`357` is one token of one model and three of the other."""
    assert carry([1.0, 2.0, 3.0], [(0, 1), (1, 2), (2, 3)], [(0, 3)], 3) == [2.0]
    assert carry([6.0], [(0, 3)], [(0, 1), (1, 3)], 3) == [6.0, 6.0]


def test_special_tokens_inside_a_completion_are_skipped() -> None:
    ids = COARSE("12 + 3", add_special_tokens=False)["input_ids"]
    with_special = (*ids[:2], COARSE.pad_token_id, *ids[2:], COARSE.eos_token_id)
    original = TokenSequence(encode_prompt(COARSE, RECORD.prompt), with_special)
    bridged = TokenBridge(COARSE, FINE, [RECORD]).to_reward(original)
    carried = bridged.rewards_of_policy([float(i) for i in range(len(bridged.sequence.completion_ids))])
    assert len(carried) == len(with_special)
    assert decode(FINE, bridged.sequence.completion_ids) == "12 + 3"


def test_tokenizer_that_loses_text_is_rejected_with_the_place() -> None:
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 1, "<unk>": 2, "12": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = wrapped(tokenizer)
    known = Record("r", RECORD.prompt, "12 12", "12")
    with pytest.raises(DataError, match="'apples' as"):
        TokenBridge(COARSE, words, [known]).to_reward(sequence(COARSE, "12 apples"))
    with pytest.raises(DataError, match="record r: "):  # a demonstration, rejected before any training
        TokenBridge(COARSE, words, [known, RECORD])


@pytest.mark.parametrize(
    ("normalizer", "text"),
    [
        (normalizers.Lowercase(), "Tom has 3"),
        (normalizers.NFKC(), "½ and Ａ"),
        (normalizers.Replace("  ", " "), "a  b"),
        (normalizers.Strip(), "a\n"),
    ],
)
def test_tokenizer_that_changes_text_is_rejected(normalizer: normalizers.Normalizer, text: str) -> None:
    changing = byte_level(300)
    changing.backend_tokenizer.normalizer = normalizer
    with pytest.raises(DataError, match="preserves all text"):
        TokenBridge(FINE, changing, [RECORD]).to_reward(sequence(FINE, text))


def test_offsets_are_right_with_a_tokenizer_that_composes_characters() -> None:
    """Qwen's tokenizer reads e + accent as one character; its offsets still refer to the original text."""
    composing = byte_level(300)
    composing.backend_tokenizer.normalizer = normalizers.NFC()
    text = "cafe\u0301 12"
    bridged = TokenBridge(FINE, composing, [RECORD]).to_reward(sequence(FINE, text))
    assert bridged.length == len(text)
    assert bridged.reward_spans[-2][1] == len(text)
    carried = bridged.rewards_of_policy([float(start) for start, _ in bridged.reward_spans])
    accents = [reward for reward, span in zip(carried, bridged.policy_spans, strict=True) if span == (4, 5)]
    assert accents == [3.0, 3.0]  # the accent's bytes get the reward of its letter, not of the next one


# Against the bytes of byte-level tokens, a reference without decoding or offsets


LETTERS = [
    *"ab 12,.=+-\n",
    "  ",
    "e\u0301",
    "é",
    "你",
    "好",
    "😀",
    "👩‍👧",
    "\u1112\u1161",
    "<end>",
    "<think>",
    "357",
    "\t",
]


def byte_of() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary represents (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(rest)}


def characters_of(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], text: str) -> list[set[int]]:
    """The characters of `text` whose bytes are in each token."""
    owner = [c for c, letter in enumerate(text) for _ in letter.encode()]
    table, at, found = byte_of(), 0, []
    for token in tokenizer.convert_ids_to_tokens(list(ids)):
        n = 0 if token in tokenizer.all_special_tokens else len(bytes(table[letter] for letter in token))
        found.append(set(owner[at : at + n]))
        at += n
    assert at == len(owner)
    return found


def random_ids(rng: random.Random, tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """`text` in tokens as a policy may sample them: canonical or not, with special tokens in between."""
    how = rng.choice(["whole", "parts", "bytes"])
    at = sorted(rng.sample(range(1, len(text)), min(3, len(text) - 1))) if how == "parts" and text else []
    parts = [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]
    fine = FINE_BYTES if how == "bytes" else tokenizer
    tokens = [t for p in parts for t in fine.convert_ids_to_tokens(fine(p, split_special_tokens=True)["input_ids"])]
    ids = list(tokenizer.convert_tokens_to_ids(tokens))
    for _ in range(rng.choice([0, 0, 2])):
        ids.insert(rng.randrange(len(ids) + 1), tokenizer.pad_token_id)
    return ids


@pytest.mark.parametrize(
    ("policy", "reward"),
    [(COARSE, FINE), (FINE, COARSE), (MERGED, FINE), (COARSE, MERGED)],
    ids=["coarse-fine", "fine-coarse", "merged-fine", "coarse-merged"],
)
def test_sampled_tokens_match_the_reference_on_bytes(
    policy: PreTrainedTokenizerFast, reward: PreTrainedTokenizerFast
) -> None:
    bridge, rng = TokenBridge(policy, reward, [RECORD]), random.Random(0)
    for number in range(400):
        text = "".join(rng.choices(LETTERS, k=rng.randint(0, 12)))
        ids, ended = random_ids(rng, policy, text), rng.random() < 0.5
        sampled = (*ids, *[policy.eos_token_id] * ended)
        if not sampled:
            continue
        bridged = bridge.to_reward(TokenSequence(encode_prompt(policy, RECORD.prompt), sampled))
        read = bridged.sequence.completion_ids
        rewards = [rng.gauss(0, 1) for _ in read]
        carried = bridged.rewards_of_policy(rewards)
        assert len(carried) == len(sampled)
        assert policy.decode(ids, skip_special_tokens=True) == text
        if ended:
            assert read[-1] == reward.eos_token_id
            assert carried[-1] == rewards[-1]
        inner = read[:-1] if ended or not text else read
        assert reward.eos_token_id not in inner
        over = characters_of(reward, inner, text)
        of_character = []
        for c in range(len(text)):
            values = [r for r, own in zip(rewards, over, strict=False) if c in own]
            of_character.append(sum(values) / len(values))
        shared: list[list[int]] = [[] for _ in text]
        for token, own in enumerate(characters_of(policy, ids, text)):
            if own:
                expected = sum(of_character[c] for c in own) / len(own)
                assert carried[token] == pytest.approx(expected, abs=1e-12), (number, text, token)
            for c in own:
                shared[c].append(token)
        if all(len(tokens) == 1 for tokens in shared):  # every character is in one token only
            weights = [len(own) for own in characters_of(policy, ids, text)]
            total = sum(r * w for r, w in zip(carried, weights, strict=False))
            assert total == pytest.approx(sum(of_character), abs=1e-9)


def test_total_is_preserved_if_a_tokenizer_drops_spaces() -> None:
    words = build_tokenizer(40)
    text = "<think>\n3 + 4 = 7\n</think>\n<answer>\n7\n</answer>"
    bridged = TokenBridge(words, FINE_BYTES, [RECORD]).to_reward(sequence(words, text, ended=False))
    assert {start for start, _ in bridged.policy_spans} == {0} | {end for _, end in bridged.policy_spans[:-1]}
    rewards = list(np.random.default_rng(2).normal(size=len(bridged.reward_spans)))
    carried = bridged.rewards_of_policy(rewards)
    total = sum(r * (end - start) for r, (start, end) in zip(carried, bridged.policy_spans, strict=True))
    assert total == pytest.approx(sum(rewards))  # the reward model has one token per character


def test_gaps_go_to_the_next_token_if_they_are_spaces_and_to_the_previous_one_otherwise() -> None:
    assert without_gaps("ab  c.", [(0, 2), (4, 5), (5, 6)]) == [(0, 2), (2, 5), (5, 6)]
    assert without_gaps("e\u0301 x ", [(0, 1), (3, 4)]) == [(0, 2), (2, 5)]
    assert without_gaps("  x", [(0, 0), (2, 3), (3, 3)]) == [(0, 0), (0, 3), (3, 3)]
    assert without_gaps("😀x", [(0, 1), (0, 1), (0, 2)]) == [(0, 1), (0, 1), (0, 2)]


def test_completion_that_ends_inside_a_character_is_read_as_it_decodes() -> None:
    ids = FINE("1 😀", add_special_tokens=False)["input_ids"]
    prompt = encode_prompt(FINE, RECORD.prompt)
    bridged = TokenBridge(FINE, COARSE, [RECORD]).to_reward(TokenSequence(prompt, tuple(ids[:-1])))
    assert decode(COARSE, bridged.sequence.completion_ids) == decode(FINE, ids[:-1]) == "1 \ufffd"
    assert bridged.rewards_of_policy([2.0] * len(bridged.reward_spans)) == [2.0] * len(ids[:-1])


def test_policy_cannot_spell_the_end_token_of_the_reward_model() -> None:
    words = build_tokenizer(40)  # its end token is <|end|>, which is plain text for the policy
    assert words.eos_token not in FINE.get_vocab()
    other = byte_level(300)
    other.add_special_tokens({"eos_token": "<|end|>"})
    bridged = TokenBridge(FINE, other, [RECORD]).to_reward(sequence(FINE, "1 <|end|> 2", ended=False))
    assert other.eos_token_id not in bridged.sequence.completion_ids
    assert decode(other, bridged.sequence.completion_ids) == "1 <|end|> 2"


@pytest.mark.parametrize(("ended", "n"), [(True, 2), (False, 1), (False, 3)])
def test_completion_without_text_has_rewards(ended: bool, n: int) -> None:
    ids = [COARSE.pad_token_id] * (n - ended) + [COARSE.eos_token_id] * ended
    bridged = TokenBridge(COARSE, FINE, [RECORD]).to_reward(
        TokenSequence(encode_prompt(COARSE, RECORD.prompt), tuple(ids))
    )
    assert len(bridged.sequence.completion_ids) == 1
    assert (bridged.sequence.completion_ids[-1] == FINE.eos_token_id) == ended
    assert bridged.rewards_of_policy([5.0]) == [0.0] * (n - ended) + [5.0] * ended


def test_equal_vocabularies_need_no_bridge() -> None:
    assert TokenBridge(COARSE, COARSE, [RECORD]).is_identity
    assert not TokenBridge(COARSE, FINE, [RECORD]).is_identity
