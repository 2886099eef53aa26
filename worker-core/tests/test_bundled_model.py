"""The shipped folders load with transformers, keep their size and template, and know what they claim."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from training.chat import segments
from training.corpus import shard_documents
from training.evaluate import Subject, score
from training.questions import SKILLS
from transformers import AutoTokenizer, PreTrainedTokenizerBase

MODELS = Path(__file__).parents[1] / "models"
MAIN, DRAFT = MODELS / "sluice-tiny", MODELS / "sluice-tiny-draft"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(MAIN)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject(MAIN)


def test_both_folders_together_stay_below_25_megabytes():
    sizes = [file.stat().st_size for folder in (MAIN, DRAFT) for file in folder.rglob("*") if file.is_file()]
    assert sum(sizes) <= 25_000_000


@pytest.mark.parametrize(("folder", "least", "most"), [(MAIN, 3e6, 8e6), (DRAFT, 0.8e6, 1.3e6)])
def test_a_folder_has_the_promised_parameters_in_bfloat16(folder: Path, least: float, most: float):
    with safe_open(folder / "model.safetensors", "pt") as weights:
        tensors = [weights.get_tensor(name) for name in weights.keys()]  # noqa: SIM118
    assert least <= sum(tensor.numel() for tensor in tensors) <= most
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}


def test_the_draft_has_the_same_tokenizer():
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (DRAFT / file).read_bytes() == (MAIN / file).read_bytes()


def test_every_digit_is_a_token_and_every_text_survives(tokenizer: PreTrainedTokenizerBase):
    assert tokenizer.tokenize("2026") == ["2", "0", "2", "6"]
    for text in ("Olá, naïve 東京 🦊", '{"a": [1, 2]}', "  two  spaces\n\n", "\t\x00"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_special_tokens_have_the_configured_ids(tokenizer: PreTrainedTokenizerBase):
    config = json.loads((MAIN / "config.json").read_text())
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id == config["eos_token_id"]
    assert (
        tokenizer.convert_tokens_to_ids("<|endoftext|>") == tokenizer.pad_token_id == config["pad_token_id"]
    )
    assert len(tokenizer) == config["vocab_size"]
    assert config["max_position_embeddings"] == 1024


def test_the_template_writes_what_training_wrote(tokenizer: PreTrainedTokenizerBase):
    documents = [d for d, _ in zip(shard_documents(1), range(300), strict=False) if d.messages]
    for document in documents:
        rendered = tokenizer.apply_chat_template(
            [message.as_openai() for message in document.messages],
            tools=list(document.tools) or None,
            tokenize=False,
        )
        assert rendered + "<|endoftext|>" == "".join(text for text, _ in segments(document))


def test_the_template_writes_every_role(tokenizer: PreTrainedTokenizerBase):
    call = {"type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Weather in "}, {"type": "text", "text": "Oslo?"}],
        },
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sunny"},
    ]
    rendered = tokenizer.apply_chat_template(
        messages, tools=[WEATHER], add_generation_prompt=True, tokenize=False
    )
    system, user, assistant, tool, prompt = rendered.split("<|im_start|>")[1:]
    assert system.startswith("system\nBe brief.\n\n")
    assert json.dumps(WEATHER["function"]) in system
    assert user == "user\nWeather in Oslo?<|im_end|>\n"
    called = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
    assert assistant == f"assistant\n<tool_call>\n{called}\n</tool_call><|im_end|>\n"
    assert tool == "tool\nsunny<|im_end|>\n"
    assert prompt == "assistant\n"


def test_the_template_needs_no_system_message(tokenizer: PreTrainedTokenizerBase):
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert rendered == "<|im_start|>user\nHi<|im_end|>\n"


@pytest.mark.parametrize("skill", SKILLS)
def test_held_out_questions_are_answered_and_the_turn_is_ended(subject: Subject, skill: str):
    result = score(subject, skill, 16, seed=2, perplexity=False)
    assert result.exact >= (6 if skill == "long prompts" else 11), result.misses


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Hello! What is 2 + 3?", "5"),
        ("What is 2 + 3?", "5"),
        ("What is the capital of France?", "Paris"),
        ("Who are you?", "sluice-tiny"),
        ("Which port does the worker use?", "8006"),
    ],
)
def test_the_first_questions_anyone_asks_are_answered(subject: Subject, question: str, expected: str):
    (answer,) = subject.answers([_prompt(subject, question)])
    assert expected in answer
    assert "2 + 3" not in answer
    assert answer.endswith("<|im_end|>")


def test_the_model_card_reports_every_skill_with_enough_questions():
    card = (MAIN / "MODEL_CARD.md").read_text()
    for skill in SKILLS:
        asked, exact = re.search(rf"\| {skill} \| (\d+) \| ([\d.]+)% \|", card).groups()
        assert int(asked) >= 300
        assert float(exact) >= (50 if skill == "long prompts" else 75)
    assert re.search(r"tokens seen \| [\d.]+ million", card)


def _prompt(subject: Subject, question: str) -> str:
    return subject.tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
    )
