from __future__ import annotations

import pytest

from sluice_bench.journeys.blocking_client import BlockingClient
from sluice_bench.journeys.capabilities import MOST_MODELS, Choice, ProbeFailed, probe
from sluice_bench.journeys.prompts import Prompts
from sluice_bench.target import Target
from sluice_bench.workloads.corpus import load_corpus


@pytest.fixture
def found():
    def find(target, api_key=None, model=None):
        client = BlockingClient(target, 5.0)
        try:
            return probe(target, client.send, api_key, Prompts(load_corpus(), 0), model)
        finally:
            client.close()

    return find


def test_a_plain_engine_chats_and_the_rest_is_missing_in_its_own_words(engine, found):
    _, target = engine()

    findings = found(target)

    assert findings.model == "small"
    assert findings.missing == {
        "embeddings": "No vectors. (status 400)",
        "tools": "the answer to tool_choice 'required' calls no function",
        "headers": "the server chooses no engine by X-Backend or X-Quant",
    }


def test_each_capability_is_found_on_the_model_that_has_it(engine, found):
    _, target = engine(models=["vectors", "chatty"], mute=["vectors"], embeds="vectors", calls=True)

    findings = found(target)

    assert (findings.model, findings.embeddings_model, findings.tools_model) == (
        "chatty",
        "vectors",
        "chatty",
    )
    assert set(findings.missing) == {"headers"}


def test_a_gateway_is_asked_for_the_names_that_it_knows(engine, found):
    backends = {"gpu": "big", "cpu": "small", "away": ""}
    _, target = engine(models=["small", "big"], backends=backends, quants={"none": "small", "awq": ""})

    findings = found(target)

    assert findings.choices == (
        Choice(header="X-Backend", value="gpu", model="big"),
        Choice(header="X-Backend", value="cpu", model="small"),
        Choice(header="X-Quant", value="none", model="small"),
    )
    assert findings.absent == ("X-Backend: away", "X-Quant: awq")
    assert "headers" not in findings.missing


def test_nobody_who_chats(engine, found):
    _, target = engine(mute=["small"], embeds="small")

    findings = found(target)

    assert findings.model == ""
    assert findings.missing["chat"] == "small does not chat. (status 400)"
    assert "embeddings" not in findings.missing


def test_a_model_that_is_named_is_the_only_one_to_chat(engine, found):
    _, target = engine(models=["small", "big"], embeds="small", mute=["mute"])

    findings = found(target, model="big")

    assert (findings.model, findings.embeddings_model) == ("big", "small")
    assert found(target, model="mute").missing["chat"] == "mute does not chat. (status 400)"


def test_of_a_long_list_only_the_first_are_asked(engine, found):
    models = [f"m{number}" for number in range(MOST_MODELS + 4)]
    fake, target = engine(models=models)

    found(target)

    assert {body["model"] for _, _, body in fake.asked if body} == set(models[:MOST_MODELS])


def test_the_key_is_sent_with_everything(engine, found):
    _, target = engine(key="alice", embeds="small", calls=True, quants={"none": "small"})

    assert found(target, api_key="alice").missing == {}


def test_without_its_key_a_server_cannot_be_asked(engine, found):
    _, target = engine(key="alice")

    with pytest.raises(ProbeFailed, match="OPENAI_API_KEY"):
        found(target)


def test_a_server_without_models_cannot_be_asked(engine, found):
    _, target = engine(models=[])

    with pytest.raises(ProbeFailed, match="lists no models"):
        found(target)


def test_nobody_there_is_one_sentence(found):
    with pytest.raises(ProbeFailed, match="make run"):
        found(Target(host="127.0.0.1", port=1))
