"""What a request will cost, before it runs, and what it did cost, after.

    work      = uncached prompt tokens + OUTPUT_WEIGHT * output tokens        fairness, queue, drain rate
    footprint = uncached prompt tokens + output tokens                        room in the KV cache

The prompt is known but for its tokenizer; the answer's length is not, and no multiple of the prompt comes
near it (published traces have 0.01 to 0.8 output tokens for one of input). So three things are learned from
the usage that engines report, and each is a ratio or a quantile of what was seen, not a guess:

- *output*: the `QUANTILE` of the recent answers of the tenant to that model and kind of request; with fewer
  than `ENOUGH` of them, of all tenants; with fewer still, `COLD_OUTPUT_TOKENS`. Never more than `max_tokens`.
- *prompt*: tokens really counted for one estimated, by model and script. Sums are compared, not ratios
  averaged, so that long prompts, which are the load, weigh most.
- *bias*: work settled for one estimated, by tenant, which also holds what the prefix cache saved it. It
  corrects the work within `BIAS_BOUNDS`; never the footprint, where too much is the safe side.

A usage that only repeats the estimate (the gateway's, for engines that count nothing) teaches nothing of
prompts, and an answer that was cut says nothing of lengths. What is remembered is bounded: the model's name
comes from clients. Sources: the weights are those of VTC (Sheng and others, *Fairness in serving large
language models*, OSDI 2024).
"""

from __future__ import annotations

from collections import OrderedDict

from sluice_router.token_histogram import TokenHistogram
from sluice_router.types import RequestFacts, Usage

OUTPUT_WEIGHT = 2
"""An output token costs about as much as two of a prompt."""
QUANTILE = 0.75
HALF_LIFE_S = 600.0
ENOUGH = 8.0
"""Answers, decayed, that a quantile has to rest on."""
COLD_OUTPUT_TOKENS = 256
BIAS_BOUNDS = (0.5, 2.0)
PROMPT_BOUNDS = (0.1, 10.0)
REMEMBERED = 4096
"""Histograms, and as many ratios; the least recently used is forgotten."""

GENERATES = frozenset({"chat", "completions", "responses", "messages"})
"""Kinds of request whose answers are tokens; of others only the prompt costs."""

_FORGETTING = 0.99
_PRIOR = 2000.0
"""Tokens for which a ratio is 1 before anything was seen."""
_Key = tuple[str, str, int]


class Cost:
    """What a request is expected to need. Nobody changes it; a plain class, since one is made for every
    request, and a frozen dataclass takes four times as long."""

    __slots__ = ("output_tokens", "prompt_tokens", "work")

    def __init__(self, prompt_tokens: int, output_tokens: int, work: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.work = work
        """As above, corrected by the tenant's bias; what its queue places and shares are charged with."""

    def footprint(self, cached_tokens: int = 0) -> int:
        """Tokens that it will hold in the KV cache beyond those that are there already."""
        return max(0, self.prompt_tokens - cached_tokens) + self.output_tokens


def work_of(usage: Usage) -> int:
    """What a request did cost."""
    return max(0, usage.prompt_tokens - usage.cached_tokens) + OUTPUT_WEIGHT * usage.completion_tokens


class CostModel:
    """Estimates, and learns from what requests used."""

    __slots__ = ("_biases", "_outputs", "_prompts")

    def __init__(self) -> None:
        self._outputs: OrderedDict[_Key, TokenHistogram] = OrderedDict()
        self._prompts: OrderedDict[_Key, _Ratio] = OrderedDict()
        self._biases: OrderedDict[_Key, _Ratio] = OrderedDict()

    def estimate(self, facts: RequestFacts, now: float) -> Cost:
        """The cost of a request on an endpoint that has nothing of its prompt cached."""
        prompt = facts.prompt_tokens_estimate
        ratio = self._prompts.get(_of_prompt(facts))
        if ratio is not None:
            prompt = round(prompt * ratio.value(PROMPT_BOUNDS))
        output = self._output_tokens(facts, now)
        work = float(prompt + OUTPUT_WEIGHT * output)
        bias = self._biases.get(_of_tenant(facts))
        if bias is not None:
            work *= bias.value(BIAS_BOUNDS)
        return Cost(prompt, output, max(1, round(work)))

    def learn(self, facts: RequestFacts, cost: Cost, usage: Usage, now: float) -> None:
        """A request that was estimated at `cost` ended well, having used `usage`."""
        estimate, counted = facts.prompt_tokens_estimate, usage.prompt_tokens
        if estimate > 0 and counted > 0 and counted != estimate:
            _ratio(self._prompts, _of_prompt(facts)).add(estimate, counted)
        if facts.kind in GENERATES:
            for key in (_of_answer(facts), _of_anybodys_answer(facts)):
                self._histogram(key, now).observe(usage.completion_tokens, now)
        expected = cost.prompt_tokens + OUTPUT_WEIGHT * cost.output_tokens
        _ratio(self._biases, _of_tenant(facts)).add(expected, work_of(usage))

    def _output_tokens(self, facts: RequestFacts, now: float) -> int:
        if facts.kind not in GENERATES:
            return 0
        expected = self._learned_output(facts, now)
        # With several choices the bound holds for each of them.
        if facts.max_tokens is not None and "multiple_choices" not in facts.needs:
            return min(expected, max(0, facts.max_tokens))
        return expected

    def _learned_output(self, facts: RequestFacts, now: float) -> int:
        for key in (_of_answer(facts), _of_anybodys_answer(facts)):
            histogram = self._outputs.get(key)
            if histogram is not None and histogram.observations(now) >= ENOUGH:
                return max(1, round(histogram.quantile(QUANTILE)))
        return COLD_OUTPUT_TOKENS

    def _histogram(self, key: _Key, now: float) -> TokenHistogram:
        found = self._outputs.get(key)
        if found is None:
            found = self._outputs[key] = TokenHistogram(HALF_LIFE_S, now)
            if len(self._outputs) > REMEMBERED:
                self._outputs.popitem(last=False)
        else:
            self._outputs.move_to_end(key)
        return found


class _Ratio:
    """Real tokens for one expected, over the recent past."""

    __slots__ = ("_counted", "_expected")

    def __init__(self) -> None:
        self._expected = _PRIOR
        self._counted = _PRIOR

    def add(self, expected: int, real: int) -> None:
        self._expected = _FORGETTING * self._expected + expected
        self._counted = _FORGETTING * self._counted + real

    def value(self, bounds: tuple[float, float]) -> float:
        if self._expected <= 0.0:
            return 1.0
        return min(bounds[1], max(bounds[0], self._counted / self._expected))


def _ratio(ratios: OrderedDict[_Key, _Ratio], key: _Key) -> _Ratio:
    found = ratios.get(key)
    if found is None:
        found = ratios[key] = _Ratio()
        if len(ratios) > REMEMBERED:
            ratios.popitem(last=False)
    else:
        ratios.move_to_end(key)
    return found


def _of_answer(facts: RequestFacts) -> _Key:
    needs, shape = facts.needs, 1 if facts.stream else 0
    if needs:
        shape += 2 * ("tools" in needs) + 4 * ("multiple_choices" in needs)
    return facts.tenant, facts.model, shape


def _of_anybodys_answer(facts: RequestFacts) -> _Key:
    return "", facts.model, -1


def _of_prompt(facts: RequestFacts) -> _Key:
    return facts.script, facts.model, -2


def _of_tenant(facts: RequestFacts) -> _Key:
    return facts.tenant, "", -3
