"""What the model knows about Sluice and about itself: ports, headers, commands, paths and terms."""

import random
from collections.abc import Iterator

from .exchange import Exchange, ask
from .facts import Fact

_PORTS = {
    "the gateway": "8000",
    "vLLM": "8001",
    "vLLM-AWQ": "8002",
    "TGI": "8003",
    "TGI tensor parallel": "8004",
    "TensorRT-LLM": "8005",
    "the worker": "8006",
    "llama.cpp": "8007",
    "Prometheus": "9292",
    "Grafana": "3030",
    "the playground": "3000",
}
_BACKENDS = {
    "vllm": "vLLM",
    "vllm-quant": "vLLM with AWQ",
    "tgi": "TGI",
    "tgi-tp": "TGI tensor parallel",
    "trt": "TensorRT-LLM",
    "llamacpp": "llama.cpp",
    "worker": "the Sluice worker",
    "echo": "the echo engine",
}
_COMMANDS = {
    "start the gateway and the worker": "make run",
    "run every test": "make test",
    "start the gateway": "sluice serve",
    "run the worker alone": "sluice-worker serve",
}
_PATHS = {
    "check the health of Sluice": "/health",
    "see whether Sluice is ready": "/ready",
    "read the metrics": "/metrics",
    "list the models": "/v1/models",
    "send a chat": "/v1/chat/completions",
}
_TERMS = {
    "Sluice": "Sluice is an OpenAI-compatible gateway in front of pluggable inference engines.",
    "the gateway": "The gateway takes OpenAI requests and passes them to an inference engine.",
    "the worker": "The worker is Sluice's own inference engine. It runs small models like me.",
    "continuous batching": "Continuous batching lets new requests join a running batch after every step.",
    "a paged KV cache": "A paged KV cache keeps keys and values in small blocks, so memory is not wasted.",
    "prefix caching": "Prefix caching reuses the keys and values of a prompt start that was seen before.",
    "speculative decoding": (
        "In speculative decoding a small draft model guesses tokens and the big model checks them."
    ),
    "a token": "A token is a small piece of text. I read and write text token by token.",
    "streaming": "Streaming sends the answer piece by piece while it is being written.",
    "time to first token": "Time to first token is the wait until the first piece of the answer arrives.",
}
_SELF = (
    Fact(
        "name",
        (
            "What is your name?",
            "Who are you?",
            "What are you called?",
            "Tell me your name.",
            "What model are you?",
            "Which model is this?",
            "Please introduce yourself.",
            "Do you have a name?",
            "what's your name",
        ),
        "I am sluice-tiny, a very small language model.",
    ),
    Fact(
        "size",
        (
            "How big are you?",
            "Are you a large model?",
            "How many parameters do you have?",
            "Are you small?",
            "How large is sluice-tiny?",
            "Are you tiny?",
        ),
        "I am tiny. I have only a few million parameters.",
    ),
    Fact(
        "skills",
        (
            "What can you do?",
            "How can you help me?",
            "What are you good at?",
            "What can I ask you?",
            "Can you help me?",
            "What do you know?",
            "Help!",
            "help",
        ),
        "I can tell short stories, answer simple questions, do small sums, write JSON and call tools.",
    ),
    Fact(
        "maker",
        (
            "Who made you?",
            "Who trained you?",
            "Where do you come from?",
            "Who built sluice-tiny?",
        ),
        "I was trained from scratch for Sluice, on text from a small program.",
    ),
    Fact(
        "limits",
        (
            "What can you not do?",
            "Are you as smart as a big model?",
            "Do you know everything?",
            "Can you make mistakes?",
            "Are you always right?",
        ),
        "I am a tiny model, so I know only a little and I make mistakes.",
    ),
    Fact(
        "human",
        (
            "Are you a human?",
            "Are you a robot?",
            "Are you a person?",
            "Are you real?",
            "Are you an AI?",
        ),
        "I am not a person. I am a tiny language model.",
    ),
    Fact(
        "home",
        (
            "Where do you run?",
            "Where do you live?",
            "What do you run on?",
            "Which engine runs you?",
        ),
        "I run in the Sluice worker, often on a plain CPU.",
    ),
)


def _ports() -> Iterator[Fact]:
    for service, port in _PORTS.items():
        opening = service.replace("the ", "The ")
        yield Fact(
            f"port {service}",
            (
                f"Which port does {service} use?",
                f"What is the port of {service}?",
                f"On which port is {service}?",
                f"What port does {service} listen on?",
                f"Where does {service} listen?",
                f"Tell me the port of {service}.",
                f"Which port is {service} on?",
                f"port of {service}?",
                f"What port is used by {service} in Sluice?",
            ),
            f"{opening} listens on port {port}.",
        )
        yield Fact(
            f"service {port}",
            (
                f"What listens on port {port}?",
                f"Which service uses port {port}?",
                f"What runs on port {port}?",
                f"What is on port {port}?",
                f"Who uses port {port} in Sluice?",
                f"What is port {port} for?",
            ),
            f"Port {port} belongs to {service}.",
        )


def _backends() -> Iterator[Fact]:
    for value, engine in _BACKENDS.items():
        yield Fact(
            f"backend {value}",
            (
                f"How do I send a request to {engine}?",
                f"Which header value picks {engine}?",
                f"How do I choose {engine}?",
                f"How can I use {engine}?",
                f"How do I route to {engine}?",
            ),
            f"Set the header X-Backend to {value}.",
        )
        yield Fact(
            f"meaning {value}",
            (
                f"What does X-Backend: {value} do?",
                f"What is X-Backend {value}?",
                f"Which engine do I get with X-Backend: {value}?",
                f"What happens when X-Backend is {value}?",
            ),
            f"It sends the request to {engine}.",
        )


_HEADERS = (
    Fact(
        "header backend",
        (
            "Which header picks the engine?",
            "What header chooses the backend?",
            "How do I pick an engine?",
            "What does the X-Backend header do?",
            "How do I choose a backend?",
            "What is X-Backend?",
        ),
        "The header X-Backend picks the engine.",
    ),
    Fact(
        "values backend",
        (
            "Which values can X-Backend have?",
            "What are the values of X-Backend?",
            "Which backends are there?",
            "List the backends of Sluice.",
            "Which engines does Sluice support?",
        ),
        f"X-Backend can be {', '.join(_BACKENDS)}.",
    ),
    Fact(
        "header quant",
        (
            "Which header picks the quantization?",
            "What does the X-Quant header do?",
            "What is X-Quant?",
            "How do I choose a quantization?",
            "How do I ask for a quantized model?",
        ),
        "The header X-Quant picks the quantization.",
    ),
    Fact(
        "values quant",
        (
            "Which values can X-Quant have?",
            "What are the values of X-Quant?",
            "Which quantizations are there?",
            "List the quantizations.",
            "What can I put in X-Quant?",
        ),
        "X-Quant can be none, awq, int8, int4 or fp8.",
    ),
)


def _commands() -> Iterator[Fact]:
    for task, command in _COMMANDS.items():
        yield Fact(
            f"command {command}",
            (
                f"How do I {task}?",
                f"Which command do I need to {task}?",
                f"What command will {task}?",
                f"How can I {task}?",
                f"Tell me how to {task}.",
                f"I want to {task}. What do I type?",
            ),
            f"Use the command `{command}`.",
        )
        yield Fact(
            f"does {command}",
            (
                f"What does `{command}` do?",
                f"What is `{command}` for?",
                f"What happens when I run `{command}`?",
                f"What does the command {command} do?",
                f"Explain {command}.",
            ),
            f"The command `{command}` is there to {task}.",
        )
    for task, path in _PATHS.items():
        yield Fact(
            f"path {path}",
            (
                f"Which path do I use to {task}?",
                f"How do I {task}?",
                f"What is the path to {task}?",
                f"Which endpoint is there to {task}?",
                f"Where can I {task}?",
            ),
            f"Use the path {path}.",
        )
        yield Fact(
            f"purpose {path}",
            (
                f"What is {path} for?",
                f"What does {path} do?",
                f"Why would I call {path}?",
                f"Explain {path}.",
            ),
            f"The path {path} is there to {task}.",
        )


def _terms() -> Iterator[Fact]:
    for term, meaning in _TERMS.items():
        yield Fact(
            f"term {term}",
            (
                f"What is {term}?",
                f"Explain {term}.",
                f"What does {term} mean?",
                f"Tell me about {term}.",
                f"Can you explain {term}?",
                f"Do you know what {term} is?",
                f"what is {term}",
            ),
            meaning,
        )


FACTS = (*_ports(), *_ports(), *_backends(), *_HEADERS, *_commands(), *_terms(), *_SELF, *_SELF)


def sluice_question(rng: random.Random) -> Exchange:
    """Return one question about Sluice or the model itself."""
    fact = rng.choice(FACTS)
    question = rng.choice(fact.questions)
    return ask("sluice", ("sluice", fact.subject, question), question, fact.answer)
