"""How long one endpoint takes, learned from its own answers: until the first token, and between two.

    ttft = rtt + new / own_rate + ahead / queue_rate + g * (new + ahead) * running
    itl  = a + b * batch

`new` are the request's own uncached prompt tokens, `ahead` those that were queued before them. An engine that
computes one prompt after the other makes both rates one; one that computes them side by side, or is a whole
fleet behind one address, does not let a newcomer wait for the others, and is not taken to.

Both are lines in what is known when a request is placed, so recursive least squares (`least_squares.py`) fits
them from a handful of answers and forgets an hour ago. One model to an endpoint: a pool of different machines
needs no more than that, and an endpoint that slows down is known as slow within some ten answers.

What is fitted predicts only after `MEASURED` measurements since the engine started; before that the answer is
`None`, and nothing may be refused on it. A measurement far above the prediction counts as `FAR` times it: one
client that reads slowly, or one pause, does not make an endpoint look broken, and a real slowdown is believed
after a few. Does not know requests, ledgers or the clock. The shape of the lines: Agrawal and others,
*Sarathi-Serve*, and the linear models of *Vidur*, 2024.
"""

from __future__ import annotations

from sluice_router.least_squares import Line, Plane

MEASURED = 10
"""Measurements that a prediction has to rest on."""
FORGETTING = 0.98
"""An answer counts half after 34 further ones."""
FAR = 4.0
_FAR_S = 0.05
"""On top: what is a multiple of next to nothing is not yet far."""
_TOKENS = 1000.0
"""Tokens are fitted in thousands, so that all features are of one order."""


class LatencyModel:
    """What was learned of one endpoint."""

    __slots__ = ("_itl", "_peers", "_ttft", "itl_measured", "ttft_measured")

    def __init__(self, peers: LatencyModel | None = None) -> None:
        """`peers`: of the whole backend. It is asked until enough is measured here."""
        self._peers = peers
        self._ttft = Plane(FORGETTING)
        self._itl = Line(FORGETTING)
        self.ttft_measured = 0
        """First tokens seen since the start."""
        self.itl_measured = 0
        """Answers seen to their end since the start."""

    def reset(self) -> None:
        """The engine was started anew, and may be another one."""
        self._ttft = Plane(FORGETTING)
        self._itl = Line(FORGETTING)
        self.ttft_measured = self.itl_measured = 0

    def learn_ttft(self, new: int, ahead: int, running: int, ttft_s: float) -> None:
        """A first token came `ttft_s` after the request was placed. `new`: prompt tokens of its own to be
        computed; `ahead`: those of others that were; `running`: requests that were on the endpoint."""
        predicted = self.ttft_s(new, ahead, running)
        if predicted is not None:
            ttft_s = min(ttft_s, FAR * predicted + _FAR_S)
        own, before = new / _TOKENS, ahead / _TOKENS
        self._ttft.learn(own, before, (own + before) * running, ttft_s)
        self.ttft_measured += 1
        if self._peers is not None:
            self._peers.learn_ttft(new, ahead, running, ttft_s)

    def learn_itl(self, batch: float, itl_s: float) -> None:
        """An answer ended whose tokens came `itl_s` apart, among about `batch` answers at once."""
        predicted = self.itl_s(batch)
        if predicted is not None:
            itl_s = min(itl_s, FAR * predicted + _FAR_S)
        self._itl.learn(batch, itl_s)
        self.itl_measured += 1
        if self._peers is not None:
            self._peers.learn_itl(batch, itl_s)

    def ttft_s(self, new: int, ahead: int, running: int) -> float | None:
        """Seconds to the first token; arguments as in `learn_ttft`. `None` while too little is measured."""
        if self.ttft_measured < MEASURED:
            return None if self._peers is None else self._peers.ttft_s(new, ahead, running)
        own, before = new / _TOKENS, ahead / _TOKENS
        return self._ttft.predict(own, before, (own + before) * running)

    def queue_s(self, ahead: int, running: int) -> float:
        """Seconds that a newcomer waits for `ahead` queued prompt tokens; 0 while too little is measured."""
        if self.ttft_measured < MEASURED:
            return 0.0
        _, _, before, beside = self._ttft.coefficients()
        return ahead * (before + beside * running) / _TOKENS

    def ttft_line(self) -> tuple[float, float, float, float] | None:
        """Seconds that a first token takes by itself, for each own token, for each queued one, and for each
        of both and each request running; `None` while too little is measured."""
        if self.ttft_measured < MEASURED:
            return None
        base, own, before, beside = self._ttft.coefficients()
        return base, own / _TOKENS, before / _TOKENS, beside / _TOKENS

    def itl_line(self) -> tuple[float, float] | None:
        """Seconds between tokens: by themselves, and for each request of the batch; `None` while too little
        is measured."""
        return None if self.itl_measured < MEASURED else self._itl.coefficients()

    def itl_s(self, batch: float) -> float | None:
        """Seconds between tokens in a batch of that size; `None` while too little is measured."""
        if self.itl_measured < MEASURED:
            return None if self._peers is None else self._peers.itl_s(batch)
        return self._itl.predict(batch)

    def prefill_tokens_per_s(self, running: int) -> float | None:
        """How fast it computes a prompt while `running` others are on it; `None` while that is unknown, or
        when the time to the first token was not seen to depend on the prompt."""
        if self.ttft_measured < MEASURED:
            return None if self._peers is None else self._peers.prefill_tokens_per_s(running)
        _, own, _, beside = self._ttft.coefficients()
        per_token_s = (own + beside * running) / _TOKENS
        return 1.0 / per_token_s if per_token_s > 1e-9 else None
