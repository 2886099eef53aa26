"""From a request's body to the conversation that it continues.

`previous_response_id` stands for all turns before it, their function calls, outputs and thoughts included;
`item_reference` for one item of a stored response. Both find only the tenant's own. Instructions are not
carried over. What cannot be found is an error, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sluice_gateway.dialects.responses import facts
from sluice_gateway.dialects.responses.chat_request import chat_body
from sluice_gateway.dialects.responses.input_items import REFERENCE, read_items
from sluice_gateway.dialects.responses.problems import Unacceptable, invalid
from sluice_gateway.dialects.responses.request import CreateRequest, Item
from sluice_gateway.dialects.responses.response_object import FINAL, Identity, response_of
from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.facts import BodyFacts
from sluice_gateway.responses_api.ask import Turn
from sluice_gateway.responses_api.store import ResponseStore, Stored

_IMAGE = b'"type":"image_url"'


class _Prompt(msgspec.Struct):
    """What of a chat request its engine reads."""

    messages: msgspec.Raw
    tools: list[msgspec.Raw] = []


_PROMPT = msgspec.json.Decoder(_Prompt)


class Conversations:
    """Finds what requests refer to."""

    def __init__(self, store: ResponseStore, clock: Callable[[], float]) -> None:
        """`clock`: seconds since 1970."""
        self._store = store
        self._clock = clock

    async def turn(self, body: bytes, request: CreateRequest, identity: Identity, tenant: str) -> Turn:
        """The request with all that it refers to.

        Raises `Unacceptable`, and whatever the store raises when it is needed.
        """
        routing = facts.decode(body)
        if isinstance(routing, Problem):
            raise Unacceptable(routing)
        turns = await self._turns(request.previous_response_id, tenant)
        history = [item for turn in turns for item in turn.items()]
        given = read_items(request.input, identity.item_id)
        own = await self._resolved(given, history, tenant)
        chat = chat_body(request, [*history, *own])
        return Turn(
            tenant=tenant,
            body=body,
            request=request,
            facts=_with_history(routing, chat),
            own_items=own,
            history=history,
            ancestors=tuple(turn.id for turn in turns),
            chat_body=chat,
            refers=bool(turns) or own != given,
        )

    async def _turns(self, previous: str | None, tenant: str) -> list[Stored]:
        if previous is None:
            return []
        turns = await self._store.chain(previous, tenant, self._clock())
        missing = turns[0].previous_response_id if turns else previous
        if missing is not None:
            text = f"Previous response with id '{missing}' not found."
            found = problem(Failure.PREVIOUS_RESPONSE_NOT_FOUND, text, param="previous_response_id")
            raise Unacceptable(found)
        if turns[-1].status not in FINAL:
            text = f"The response '{previous}' has not ended yet; wait for it, or cancel it."
            raise invalid(text, "previous_response_id")
        return turns

    async def _resolved(self, given: Sequence[Item], history: Sequence[Item], tenant: str) -> list[Item]:
        known = {item["id"]: item for item in history}
        resolved = []
        for item in given:
            if item["type"] == REFERENCE:
                item = known.get(item["id"]) or await self._referenced(item["id"], tenant)
            known[item["id"]] = item
            resolved.append(item)
        return resolved

    async def _referenced(self, item_id: str, tenant: str) -> Item:
        stored = await self._store.get(response_of(item_id), tenant, self._clock())
        for item in stored.items() if stored is not None else ():
            if item["id"] == item_id:
                return item
        raise invalid(f"Item with id '{item_id}' not found.", "input")


def _with_history(routing: BodyFacts, chat: bytes) -> BodyFacts:
    needs = routing.needs | {"images"} if _IMAGE in chat else routing.needs
    prompt = _PROMPT.decode(chat)
    return msgspec.structs.replace(
        routing,
        prompt_tokens_estimate=len(chat) // facts.BYTES_PER_TOKEN + 1,
        needs=needs,
        preamble=tuple(prompt.tools),
        conversation=prompt.messages,
    )
