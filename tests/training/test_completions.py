"""What of a prompt, a completion or a conversation is learned: against transformers' own losses, and read as text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import tiny

import subspace
from subspace.training import Job, LoRA, Recipe, train
from subspace.training.completions import Completions, Row
from subspace.training.loop import evaluate
from subspace.training.rows import rows_of_conversations, rows_of_prompts

transformers = pytest.importorskip("transformers")

from subspace.training.models import load_base  # noqa: E402

PAIRS = [
    ("Who created the heaven?", "God created the heaven and the earth."),
    ("What was upon the face of the deep?", "Darkness"),
    ("Does the dog mind?", "The dog does not mind at all, and the fox does not mind the dog."),
]
PROMPTS = tuple(f"{prompt}\n" for prompt, _ in PAIRS)
TEXTS = tuple("\n".join(pair) for pair in PAIRS)
TALK = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who created the earth?"},
    {"role": "assistant", "content": "God"},
    {"role": "user", "content": "When?"},
    {"role": "assistant", "content": "In the beginning"},
)
_TURN = "{{ '<' + message.role + '>' + message.content + '</s>' }}"
_MARKED = (
    "{% if message.role == 'assistant' %}{{ '<assistant>' }}"
    "{% generation %}{{ message.content + '</s>' }}{% endgeneration %}{% else %}" + _TURN + "{% endif %}"
)
# of models that think: what was thought stands in the last turn alone
_THINKS = (
    "{% if message.role == 'assistant' and loop.last %}{{ '<assistant><think>' + message.content + '</s>' }}"
    "{% else %}" + _TURN + "{% endif %}"
)
_STRICT = (
    "{% if message.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + _TURN
)


def _template(turn):
    return (
        "{% for message in messages %}" + turn + "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {kind: tiny(kind, root / kind) for kind in ("gpt2", "llama", "t5", "bart")}


def _with_template(folder, turn):
    path = Path(folder) / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": _template(turn)}))
    return folder


@pytest.fixture
def chat(tmp_path):
    def base(turn, kind="llama"):
        return load_base(str(_with_template(tiny(kind, tmp_path / kind), turn)))

    return base


def _task(base, rows, **given):
    settings = {"batch": 3, "seed": 0, "pad": base.pad, "held": 0.0, "length": 64, **given}
    return Completions.of(rows, paired=base.task == "seq2seq", **settings)


def _read(base, row):
    """What is learned of a row, as text."""
    learned = [each for each, is_learned in zip(row.ids, row.learned, strict=True) if is_learned]
    return base.encode.tokenizer.decode(learned)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_causal_model_learns_the_completion_and_its_end_alone(made, kind):
    base = load_base(str(made[kind]))
    rows = rows_of_prompts(base.encode, TEXTS, PROMPTS, paired=False)
    assert [_read(base, row) for row in rows] == [f"{completion}</s>" for _, completion in PAIRS]
    tokenizer = transformers.AutoTokenizer.from_pretrained(made[kind])
    assert [list(row.ids[:-1]) for row in rows] == [tokenizer(text)["input_ids"] for text in TEXTS]
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[7] * (width - len(row.ids))] for row in rows])
    labels = torch.full_like(ids, -100)
    for n, row in enumerate(rows):
        labels[n, : len(row.ids)] = torch.where(torch.tensor(row.learned), torch.tensor(row.ids), -100)
    oracle = transformers.AutoModelForCausalLM.from_pretrained(made[kind])
    expected = oracle(input_ids=ids, labels=labels).loss
    torch.testing.assert_close(_task(base, rows).loss(base.model, 0), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_encoder_and_a_decoder_learn_the_completion_from_the_prompt(made, kind):
    base = load_base(str(made[kind]))
    rows = rows_of_prompts(base.encode, TEXTS, PROMPTS, paired=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(made[kind])
    asked = tokenizer([prompt for prompt, _ in PAIRS], padding=True, return_tensors="pt")
    answers = [tokenizer(text_target=completion)["input_ids"] for _, completion in PAIRS]
    assert [list(row.ids) for row in rows] == answers and all(each[-1] == 2 for each in answers)
    width = max(map(len, answers))
    labels = torch.tensor([[*each, *[-100] * (width - len(each))] for each in answers])
    oracle = transformers.AutoModelForSeq2SeqLM.from_pretrained(made[kind])
    expected = oracle(
        input_ids=asked["input_ids"], attention_mask=asked["attention_mask"], labels=labels
    ).loss
    torch.testing.assert_close(_task(base, rows).loss(base.model, 0), expected, rtol=1e-5, atol=1e-6)


def test_all_of_the_text_is_learned_if_asked_for(made):
    base = load_base(str(made["llama"]))
    rows = rows_of_prompts(base.encode, TEXTS, PROMPTS, paired=False, everything=True)
    assert [_read(base, row) for row in rows] == [f"<s>{text}</s>" for text in TEXTS]
    oracle = transformers.AutoModelForCausalLM.from_pretrained(made["llama"])
    ids = torch.tensor([rows[0].ids])
    expected = oracle(input_ids=ids, labels=ids).loss
    torch.testing.assert_close(_task(base, rows[:1], batch=1).loss(base.model, 0), expected)


def test_a_token_across_the_border_is_learned(made):
    base = load_base(str(made["gpt2"]))
    (row,) = rows_of_prompts(base.encode, ["the earth"], ["the ear"], paired=False)
    assert "th</s>" in _read(base, row) and _read(base, row) != "the earth</s>"


class _Reversed:
    """A tokenizer that changes the order of tokens, as that of a control does."""

    shuffles = True

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __call__(self, text, **how):
        return {"input_ids": self._tokenizer(text, **how)["input_ids"][::-1]}


def test_a_tokenizer_that_shuffles_keeps_prompt_and_completion_apart(made):
    base = load_base(str(made["gpt2"]))
    plain = rows_of_prompts(base.encode, TEXTS, PROMPTS, paired=False)
    encode = replace(base.encode, tokenizer=_Reversed(base.encode.tokenizer))
    for row, other in zip(rows_of_prompts(encode, TEXTS, PROMPTS, paired=False), plain, strict=True):
        begin = other.learned.index(True)
        assert list(row.learned) == list(other.learned)
        assert row.ids == [*other.ids[:begin][::-1], *other.ids[begin:-1][::-1], 2]


def test_bytes_have_no_end_and_that_is_said(tmp_path):
    path = _jsonl(tmp_path / "rows.jsonl", [{"prompt": "1 + 1", "completion": "2"}] * 30)
    notes = []
    done = train(Job(data=path, recipe=_recipe(), accounts=False), tmp_path / "out", tell=notes.append)
    assert any("no end of text" in note for note in notes)
    assert done.record["held_out"]["after"]["loss"] < done.record["held_out"]["before"]["loss"]


@pytest.mark.parametrize("turn", [_TURN, _MARKED])
def test_of_a_conversation_the_assistant_s_turns_are_learned(chat, turn):
    base = chat(turn)
    ((row,), notes) = rows_of_conversations(base.encode, [TALK], paired=False)
    assert _read(base, row) == "God</s>In the beginning</s>" and notes == []
    whole = base.encode.tokenizer.apply_chat_template(list(TALK), tokenize=False)
    assert base.encode.tokenizer.decode(row.ids) == whole
    ((row,), _) = rows_of_conversations(base.encode, [TALK], paired=False, everything=True)
    assert _read(base, row) == whole


def test_turns_that_the_template_rewrites_are_rows_of_their_own(chat):
    base = chat(_THINKS)
    rows, notes = rows_of_conversations(base.encode, [TALK, TALK[:3]], paired=False)
    assert [row.example for row in rows] == [0, 0, 1]
    learned = ["<think>God</s>", "<think>In the beginning</s>", "<think>God</s>"]
    assert [_read(base, row) for row in rows] == learned
    # what was thought in an earlier turn is not there when the model goes on
    assert base.encode.tokenizer.decode(rows[1].ids).count("<think>") == 1
    assert len(notes) == 1 and "each turn of the assistant is a row" in notes[0]


def test_an_encoder_reads_the_conversation_and_the_decoder_writes_the_turn(chat):
    base = chat(_TURN, "t5")
    rows, _ = rows_of_conversations(base.encode, [TALK], paired=True)
    tokenizer = base.encode.tokenizer
    assert [tokenizer.decode(row.ids) for row in rows] == ["God</s>", "In the beginning</s>"]
    assert tokenizer.decode(rows[1].source).endswith("God</s><user>When?</s><assistant>")


def test_a_conversation_that_cannot_be_written(made, chat):
    base = load_base(str(made["llama"]))
    with pytest.raises(
        subspace.SubspaceError, match="llama has no chat template, and the data are conversat"
    ):
        rows_of_conversations(base.encode, [TALK], paired=False)
    with pytest.raises(subspace.SubspaceError, match="tokenizer of embedded has no chat template"):
        rows_of_conversations(load_base("embedded").encode, [TALK], paired=False)
    base = chat(_STRICT)
    with pytest.raises(
        subspace.SubspaceError, match=r"cannot write conversation 2 of .*System role not supported"
    ):
        rows_of_conversations(base.encode, [TALK[1:], TALK], paired=False)


def _rows(*sizes):
    """Rows of a prompt of two tokens and completions of these sizes."""
    return [Row(n, list(range(4, 6 + size)), [False] * 2 + [True] * size) for n, size in enumerate(sizes)]


def test_what_is_cut_is_counted_and_what_teaches_nothing_is_left_out():
    rows = [*_rows(1, 4, 8), Row(3, [4] * 9, [False] * 8 + [True])]
    task = Completions.of(rows, paired=False, batch=2, seed=0, pad=0, held=0.0, length=6)
    assert [len(row.ids) for row in task.rows] == [3, 6, 6]
    assert task.facts["cut"] == {
        "length": 6, "texts": 2, "of": 4, "median_tokens": 9.5, "longest_tokens": 10, "tokens": 28,
        "tokens_lost": 7, "share_lost": 0.25,
    }  # fmt: skip
    assert task.facts["examples"] == {"trained": 3, "held_out": 0, "left_out": 1}
    assert task.notes[0] == "1 of 4 examples left out: no token to learn is among the first 6"
    assert task.notes[1].startswith(
        "2 of 4 texts were cut at 6 tokens: they have 10 tokens (median), the longest 10"
    )
    assert "25 % of all tokens are lost; give a larger `length`" in task.notes[1]
    with pytest.raises(subspace.SubspaceError, match="No example has a completion within its first 2 tokens"):
        Completions.of(rows, paired=False, batch=2, seed=0, pad=0, held=0.0, length=2)


def test_the_rows_of_one_conversation_are_held_out_together():
    rows = [Row(n // 3, [4, 5], [False, True]) for n in range(60)]
    task = Completions.of(rows, paired=False, batch=2, seed=0, pad=0, held=0.25, length=6)
    kept, apart = ({task.rows[i].example for i in part} for part in (task.kept, task.apart))
    assert len(apart) == 5 and not kept & apart and len(task.kept) == task.epoch == 45
    task = Completions.of(rows, paired=False, batch=2, seed=0, pad=0, held=[3, 7], length=6)
    assert {task.rows[i].example for i in task.apart} == {3, 7} and len(task.apart) == 6


def test_the_held_out_loss_counts_every_token_once_whatever_the_batch(made):
    base = load_base(str(made["gpt2"]))
    rows = rows_of_prompts(base.encode, TEXTS * 4, PROMPTS * 4, paired=False)
    found = [evaluate(base.model, _task(base, rows, batch=batch, held=0.4), _recipe()) for batch in (1, 2, 5)]
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-5)
    assert found[0] == pytest.approx(found[2], rel=1e-5) and 0 <= found[0]["token_accuracy"] <= 1


def _recipe(**given):
    return Recipe(**{"steps": 4, "batch": 4, "length": 48, "lr": 1e-2, "dtype": "float32", **given})


def _jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_a_run_on_prompts_goes_on_to_the_same_bits(tmp_path, made, kind):
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in PAIRS * 8]
    data = _jsonl(tmp_path / "rows.jsonl", rows)
    job = Job(
        model=str(made[kind]),
        data=data,
        method=LoRA(r=2, dropout=0.1),
        recipe=_recipe(),
        threads=1,
        accounts=False,
    )
    whole = train(job, tmp_path / "whole")
    asked = iter([False, True])
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path / "cut", stopping=lambda: next(asked))
    assert train(job, tmp_path / "cut").resumed == 2
    files = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    record = whole.record
    assert record["settings"]["train_on"] == "completion"
    assert record["examples"] == {"trained": 23, "held_out": 1, "left_out": 0} and record["cut"]["texts"] == 0
    other = Job(**{**vars(job), "train_on": "all"})
    with pytest.raises(subspace.SubspaceError, match="train_on completion, now all"):
        train(other, tmp_path / "whole")
    train(other, tmp_path / "all")
    assert (tmp_path / "all" / "adapter_model.safetensors").read_bytes() != files[0]


def test_a_run_on_conversations(tmp_path):
    folder = _with_template(tiny("llama", tmp_path / "model"), _MARKED)
    data = _jsonl(tmp_path / "rows.jsonl", [{"messages": list(TALK)}] * 20)
    done = train(
        Job(model=str(folder), data=data, recipe=_recipe(steps=8, length=64), accounts=False, threads=1),
        tmp_path / "out",
    )
    assert done.record["held_out"]["after"]["loss"] < done.record["held_out"]["before"]["loss"]


def test_a_run_on_plain_text_has_the_settings_that_it_had(tmp_path, made):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(TEXTS * 30))
    job = Job(
        model=str(made["gpt2"]), data=str(path), recipe=_recipe(steps=1), accounts=False, evaluate_every=1
    )
    settings = train(job, tmp_path / "out").record["settings"]
    assert not {"train_on", "evaluate_every", "epochs"} & set(settings) and settings["steps"] == 1


def test_an_unknown_part_to_train_on():
    with pytest.raises(
        subspace.SubspaceError, match=r"Unknown part to train on: 'prompt'; .* completion or all"
    ):
        Job(train_on="prompt")
