"""Tool use: call a function described in the prompt, then say its result in a sentence.

A tool kind is a table row: the names it may carry, its parameters under several spellings, ways to ask for it
and the shape of its result. Every document spells its tools anew, so the model must read the prompt rather
than remember one name; kinds that the question does not need stand beside the right one.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from .exchange import Exchange, Json, Message
from .words import ANIMALS, DAYS, FOODS, OBJECTS, PLACES, city, invented_word, name, word

Value = str | int | float
Draw = Callable[[random.Random], Value]


@dataclass(frozen=True)
class Parameter:
    """One parameter: its slot in the phrasings, the names it may carry, its JSON type and how to draw it."""

    slot: str
    names: tuple[str, ...]
    kind: str
    draw: Draw


@dataclass(frozen=True)
class ToolKind:
    """One row of the table; `results` draws the fields of a result and `say` puts them in a sentence."""

    names: tuple[str, ...]
    description: str
    parameters: tuple[Parameter, ...]
    asks: tuple[str, ...]
    results: dict[str, Draw]
    say: str


@dataclass(frozen=True)
class Tool:
    """A tool kind with the spelling one document uses."""

    kind: ToolKind
    name: str
    spelled: tuple[str, ...]
    schema: Json


def _pick(*values: str) -> Draw:
    return lambda rng: rng.choice(values)


def _between(low: int, high: int) -> Draw:
    return lambda rng: rng.randint(low, high)


def _expression(rng: random.Random) -> str:
    return f"{rng.randint(2, 999)} {rng.choice('+-*')} {rng.randint(2, 999)}"


def _phrase(rng: random.Random) -> str:
    return " ".join(word(rng) for _ in range(rng.randint(1, 3)))


def _lower_name(rng: random.Random) -> str:
    return invented_word(rng) if rng.random() < 0.5 else name(rng).lower()


_CITY = Parameter("city", ("city", "city", "location", "place", "town"), "string", city)
_SKIES = ("sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear")
_MONEY = ("euros", "dollars", "pounds", "yen", "francs", "crowns")
_TONGUES = ("French", "German", "Spanish", "Italian", "Polish", "Danish", "Greek", "Dutch")

KINDS = (
    ToolKind(
        ("get_weather", "get_weather", "weather", "get_current_weather", "weather_lookup"),
        "Get the weather in a city.",
        (_CITY,),
        (
            "What is the weather in {city}?",
            "How is the weather in {city}?",
            "Is it warm in {city}?",
            "weather in {city}",
            "Tell me the weather in {city}.",
            "What's the weather like in {city}?",
            "Do I need a coat in {city}?",
            "What is the weather in {city} today?",
            "Please check the weather in {city}.",
        ),
        {"temperature": _between(-9, 39), "sky": _pick(*_SKIES)},
        "It is {temperature} degrees and {sky} in {city}.",
    ),
    ToolKind(
        ("get_time", "current_time", "clock", "get_current_time"),
        "Get the current time in a city.",
        (_CITY,),
        (
            "What time is it in {city}?",
            "Tell me the time in {city}.",
            "How late is it in {city}?",
            "time in {city}?",
            "What is the time in {city} now?",
        ),
        {"hour": _between(0, 23), "minute": _between(10, 59)},
        "It is {hour}:{minute} in {city}.",
    ),
    ToolKind(
        ("calculator", "calculate", "compute", "evaluate"),
        "Evaluate an arithmetic expression.",
        (Parameter("sum", ("expression", "expression", "formula", "input"), "string", _expression),),
        (
            "What is {sum}?",
            "Calculate {sum}.",
            "How much is {sum}?",
            "Compute {sum} with the tool.",
            "Use the calculator: {sum}",
        ),
        {"result": _between(-500, 9999)},
        "The result is {result}.",
    ),
    ToolKind(
        ("search", "web_search", "find", "lookup"),
        "Search for a text.",
        (Parameter("text", ("query", "query", "text", "q"), "string", _phrase),),
        ("Search for {text}.", "Look up {text}.", "Find pages about {text}.", "Search the web for {text}."),
        {"hits": _between(0, 99), "best": word},
        "There are {hits} hits. The best one is {best}.",
    ),
    ToolKind(
        ("set_timer", "start_timer", "timer"),
        "Start a timer.",
        (
            Parameter("minutes", ("minutes", "duration", "duration_minutes"), "integer", _between(1, 120)),
            Parameter("label", ("label", "name", "title"), "string", _pick(*FOODS)),
        ),
        (
            "Set a timer of {minutes} minutes for the {label}.",
            "Start a {minutes} minute timer for {label}.",
            "Tell me when {minutes} minutes are over, it is for the {label}.",
        ),
        {"id": _between(1, 99)},
        "The timer {id} for the {label} runs for {minutes} minutes.",
    ),
    ToolKind(
        ("send_message", "send_mail", "message", "send_text"),
        "Send a message to a person.",
        (
            Parameter("who", ("to", "recipient", "receiver"), "string", name),
            Parameter("text", ("text", "message", "body"), "string", _phrase),
        ),
        (
            "Send {who} the message: {text}",
            "Write to {who}: {text}",
            "Tell {who} this: {text}",
            "Please send the text {text} to {who}.",
        ),
        {"status": _pick("sent", "queued", "delivered")},
        "Your message to {who} was {status}.",
    ),
    ToolKind(
        ("convert_money", "exchange", "convert_currency"),
        "Convert an amount of money.",
        (
            Parameter("amount", ("amount", "value", "sum"), "integer", _between(1, 999)),
            Parameter("have", ("from", "source", "from_currency"), "string", _pick(*_MONEY)),
            Parameter("want", ("to", "target", "to_currency"), "string", _pick(*_MONEY)),
        ),
        (
            "How much are {amount} {have} in {want}?",
            "Convert {amount} {have} to {want}.",
            "Change {amount} {have} into {want}.",
            "I have {amount} {have}. How many {want} is that?",
        ),
        {"converted": _between(1, 9999)},
        "{amount} {have} are {converted} {want}.",
    ),
    ToolKind(
        ("translate", "translate_text", "translator"),
        "Translate a text into a language.",
        (
            Parameter("text", ("text", "input", "phrase"), "string", _phrase),
            Parameter("tongue", ("language", "target", "target_language"), "string", _pick(*_TONGUES)),
        ),
        (
            "Translate {text} into {tongue}.",
            "What is {text} in {tongue}?",
            "How do you say {text} in {tongue}?",
        ),
        {"translation": invented_word},
        "In {tongue} it is {translation}.",
    ),
    ToolKind(
        ("add_event", "create_event", "schedule"),
        "Put an event into the calendar.",
        (
            Parameter(
                "what",
                ("title", "event", "name"),
                "string",
                _pick("dinner", "lunch", "meeting", "lesson", "party", "call"),
            ),
            Parameter("day", ("day", "date", "weekday"), "string", _pick(*DAYS)),
            Parameter("hour", ("hour", "time", "start"), "integer", _between(0, 23)),
        ),
        (
            "Plan a {what} on {day} at {hour}.",
            "Put a {what} on {day} at {hour} into my calendar.",
            "Schedule a {what} for {day} at {hour}.",
        ),
        {"status": _pick("booked", "saved", "planned")},
        "Your {what} on {day} at {hour} is {status}.",
    ),
    ToolKind(
        ("get_stock", "check_stock", "inventory"),
        "Say how many of an item are in a shop.",
        (
            Parameter("item", ("item", "product", "article"), "string", _pick(*OBJECTS, *FOODS)),
            Parameter("city", ("shop", "store", "city"), "string", city),
        ),
        (
            "How many {item} are in the {city} shop?",
            "Check the stock of {item} in {city}.",
            "Is there {item} left in {city}?",
        ),
        {"count": _between(0, 500)},
        "There are {count} in the {city} shop.",
    ),
    ToolKind(
        ("get_port", "port_of", "find_port"),
        "Get the port of a service.",
        (Parameter("service", ("service", "name", "host"), "string", _lower_name),),
        (
            "Which port does the service {service} use?",
            "Find the port of {service}.",
            "Look up the port of {service}.",
        ),
        {"port": _between(1000, 9999)},
        "The service {service} uses port {port}.",
    ),
    ToolKind(
        ("find_animal", "where_is", "locate"),
        "Find where an animal was seen.",
        (
            Parameter("animal", ("animal", "species"), "string", _pick(*ANIMALS)),
            Parameter("place", ("place", "area", "region"), "string", _pick(*PLACES)),
        ),
        (
            "Was the {animal} seen near the {place}?",
            "Look for the {animal} at the {place}.",
            "Find the {animal} near the {place}.",
        ),
        {"hour": _between(0, 23)},
        "The {animal} was seen at the {place} at {hour}.",
    ),
    ToolKind(
        ("play_song", "play_music", "play"),
        "Play a song of a musician.",
        (
            Parameter("song", ("song", "title", "track"), "string", _phrase),
            Parameter("who", ("artist", "musician", "by"), "string", name),
        ),
        ("Play {song} by {who}.", "I want to hear {song} by {who}.", "Put on {song} from {who}."),
        {"status": _pick("playing", "queued", "ready")},
        "The song by {who} is {status}.",
    ),
    ToolKind(
        ("get_age", "user_info", "get_user", "lookup_user"),
        "Look up a person.",
        (Parameter("who", ("name", "user", "person"), "string", name),),
        ("How old is {who}?", "Where does {who} live?", "Look up {who}.", "What do you know about {who}?"),
        {"age": _between(5, 95), "city": city},
        "{who} is {age} years old and lives in {city}.",
    ),
)


def spell(rng: random.Random, kind: ToolKind) -> Tool:
    """Choose the names one document uses for a tool kind and write its schema, in the API's shape."""
    spelled = tuple(rng.choice(parameter.names) for parameter in kind.parameters)
    properties: Json = {}
    for key, parameter in zip(spelled, kind.parameters, strict=True):
        properties[key] = {"type": parameter.kind}
        if rng.random() < 0.1:
            properties[key]["description"] = f"The {parameter.names[-1]}."
    parameters: Json = {"type": "object", "properties": properties}
    if rng.random() < 0.8:
        parameters["required"] = list(spelled)
    tool_name = rng.choice(kind.names)
    function: Json = {"name": tool_name}
    if rng.random() < 0.85:
        function["description"] = kind.description
    function["parameters"] = parameters
    return Tool(kind, tool_name, spelled, {"type": "function", "function": function})


def toolbox(rng: random.Random) -> tuple[Tool, ...]:
    """Return one to four tools with distinct names, as one document offers them."""
    count = rng.choice((1, 1, 1, 2, 2, 3, 4))
    tools = tuple(spell(rng, kind) for kind in rng.sample(KINDS, count))
    return tools if len({tool.name for tool in tools}) == count else toolbox(rng)


def _result_text(rng: random.Random, result: dict[str, Value]) -> str:
    """Write a result as JSON, or one time in seven as plain words."""
    if rng.random() < 1 / 7:
        return ", ".join(f"{key} {value}" for key, value in result.items())
    return json.dumps(result, ensure_ascii=False)


def tool_use(rng: random.Random, tools: tuple[Tool, ...]) -> Exchange:
    """Return a question for one of the tools, the call, its result and the sentence that reports it.

    The slots are the kind and all argument values, which never coincide.
    """
    tool = rng.choice(tools)
    values = {parameter.slot: parameter.draw(rng) for parameter in tool.kind.parameters}
    if len(set(values.values())) < len(values):
        return tool_use(rng, tools)
    arguments = {key: values[p.slot] for key, p in zip(tool.spelled, tool.kind.parameters, strict=True)}
    result = {key: draw(rng) for key, draw in tool.kind.results.items()}
    turns = (
        Message("user", rng.choice(tool.kind.asks).format(**values)),
        Message("assistant", "", ({"name": tool.name, "arguments": arguments},)),
        Message("tool", _result_text(rng, result)),
        Message("assistant", tool.kind.say.format(**values | result)),
    )
    slots = (tool.kind.names[0], *values.values())
    return Exchange("tools", slots, turns, tools=tuple(each.schema for each in tools))


def both(first: Exchange, second: Exchange) -> Exchange:
    """Join two questions to the same tools into one turn that is answered with two calls."""
    (asked1, call1, result1, said1), (asked2, call2, result2, said2) = first.turns, second.turns
    turns = (
        Message("user", f"{asked1.content} {asked2.content}"),
        Message("assistant", "", call1.tool_calls + call2.tool_calls),
        result1,
        result2,
        Message("assistant", f"{said1.content} {said2.content}"),
    )
    return Exchange("tools", first.slots + second.slots, turns, first.system, first.tools)
