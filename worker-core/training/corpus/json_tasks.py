"""JSON extraction: a short text and a schema (or a list of keys) in, one JSON object out.

A record kind has fields; a field has the keys it may be asked under, a JSON type, a way to draw its value and
the clauses that state it. The same record is asked for in several forms, and only the asked fields come back.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from .exchange import Exchange, ask
from .words import ANIMALS, CITIES, COLOURS, DAYS, FOODS, JOBS, OBJECTS, PLACES, article, city, join, name

Value = str | int | bool | list[str]
Draw = Callable[[random.Random], Value]


@dataclass(frozen=True)
class Field:
    """One field of a record: keys it is asked under, JSON type, value, and clauses with `{s}` and `{v}`."""

    keys: tuple[str, ...]
    kind: str
    draw: Draw
    clauses: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """A kind of record: what its first sentence names (`subject`), the pronoun after, and its fields."""

    kind: str
    pronoun: str
    subject: Field
    fields: tuple[Field, ...]


def _pick(*values: str) -> Draw:
    return lambda rng: rng.choice(values)


def _between(low: int, high: int) -> Draw:
    return lambda rng: rng.randint(low, high)


def _flag(rng: random.Random) -> bool:
    return rng.random() < 0.5


def _some_foods(rng: random.Random) -> list[str]:
    return rng.sample(FOODS, rng.randint(2, 3))


def _full_name(rng: random.Random) -> str:
    return f"{name(rng)} {name(rng)}son" if rng.random() < 0.2 else name(rng)


_CITY = Field(("city", "town", "location"), "string", city, ("{s} lives in {v}", "{s} comes from {v}"))
_RECORDS = (
    Record(
        "person",
        "They",
        Field(("name", "name", "full_name"), "string", _full_name, ()),
        (
            Field(
                ("age", "age", "years"), "integer", _between(5, 95), ("{s} is {v} years old", "{s} is {v}")
            ),
            _CITY,
            Field(("job", "occupation"), "string", _pick(*JOBS), ("{s} works as {a}", "{s} is {a}")),
            Field(("colour", "favourite_colour"), "string", _pick(*COLOURS), ("{s} likes the colour {v}",)),
            Field(("member", "is_member"), "boolean", _flag, ("{s} is a member|{s} is not a member",)),
        ),
    ),
    Record(
        "pet",
        "It",
        Field(("name", "pet"), "string", name, ()),
        (
            Field(("animal", "species"), "string", _pick(*ANIMALS), ("{s} is {a}",)),
            Field(("age",), "integer", _between(1, 20), ("{s} is {v} years old",)),
            Field(("colour", "color"), "string", _pick(*COLOURS), ("{s} is {v}", "{s} has a {v} coat")),
            Field(("owner",), "string", name, ("{s} belongs to {v}", "the owner is {v}")),
        ),
    ),
    Record(
        "order",
        "They",
        Field(("customer", "name", "buyer"), "string", name, ()),
        (
            Field(("item", "product"), "string", _pick(*OBJECTS), ("{s} ordered {a}", "{s} bought {a}")),
            Field(
                ("price", "total"),
                "integer",
                _between(2, 999),
                ("{s} paid {v} euros", "the price was {v} euros"),
            ),
            Field(("city", "destination"), "string", city, ("the parcel goes to {v}", "it is sent to {v}")),
            Field(
                ("day", "delivery_day"),
                "string",
                _pick(*DAYS),
                ("it arrives on {v}", "the delivery is on {v}"),
            ),
            Field(("paid", "is_paid"), "boolean", _flag, ("the bill is paid|the bill is not paid",)),
        ),
    ),
    Record(
        "shopping",
        "They",
        Field(("name", "customer"), "string", name, ()),
        (
            Field(("items", "foods", "groceries"), "array", _some_foods, ("{s} buys {v}", "{s} needs {v}")),
            Field(("day",), "string", _pick(*DAYS), ("{s} goes on {v}", "the shop opens on {v}")),
            Field(("total", "price"), "integer", _between(3, 99), ("it costs {v} euros",)),
        ),
    ),
    Record(
        "meeting",
        "They",
        Field(("organizer", "host", "name"), "string", name, ()),
        (
            Field(("day", "date"), "string", _pick(*DAYS), ("{s} meets us on {v}", "the meeting is on {v}")),
            Field(
                ("place", "location"),
                "string",
                _pick(*PLACES),
                ("it takes place at the {v}", "we meet at the {v}"),
            ),
            Field(
                ("hour", "time"), "integer", _between(0, 23), ("it starts at {v} o'clock", "it begins at {v}")
            ),
            Field(
                ("guests", "attendees"),
                "integer",
                _between(2, 80),
                ("{v} people come", "{v} guests will be there"),
            ),
        ),
    ),
    Record(
        "server",
        "It",
        Field(("host", "name", "server"), "string", lambda rng: name(rng).lower(), ()),
        (
            Field(("port",), "integer", _between(1000, 9999), ("{s} listens on port {v}", "the port is {v}")),
            Field(("region", "city"), "string", _pick(*CITIES), ("{s} runs in {v}",)),
            Field(("healthy", "up"), "boolean", _flag, ("{s} is healthy|{s} is not healthy",)),
            Field(("cpus", "cores"), "integer", _between(1, 64), ("{s} has {v} cores",)),
        ),
    ),
)
_ASK_KEYS = (
    "Extract {keys} as JSON: {text}",
    "Extract {keys} as JSON.\n\n{text}",
    "{text}\n\nReturn JSON with the keys {keys}.",
    "{text} Give me {keys} as a JSON object.",
    "Read the text and answer with JSON ({keys}).\nText: {text}",
    "Turn this into JSON with {keys}: {text}",
)
_ASK_SCHEMA = (
    "Extract JSON that follows this schema: {schema}\n\n{text}",
    "Schema: {schema}\nText: {text}",
    "{text}\n\nAnswer with JSON for this schema: {schema}",
)
_SYSTEM_SCHEMA = (
    "Answer with JSON that follows this schema: {schema}",
    "You extract data. Reply only with JSON that matches this schema: {schema}",
    "Return a JSON object with this schema and nothing else: {schema}",
)


def _clause(rng: random.Random, field: Field, subject: str, value: Value) -> str:
    text = rng.choice(field.clauses)
    if field.kind == "boolean":
        text = text.split("|")[0 if value else 1]
    spoken = join(value) if isinstance(value, list) else str(value)
    return text.format(s=subject, v=spoken, a=article(spoken) if spoken else "")


def _sentences(clauses: list[str]) -> str:
    """Return each clause as a sentence."""
    return " ".join(f"{clause[0].upper()}{clause[1:]}." for clause in clauses)


def _tell(rng: random.Random, record: Record, subject: str, told: list[tuple[Field, Value]]) -> str:
    clauses = []
    for position, (field, value) in enumerate(told):
        who = subject if position == 0 or rng.random() < 0.4 or record.pronoun == "They" else record.pronoun
        clauses.append(_clause(rng, field, who, value))
    if len(clauses) > 1 and rng.random() < 0.4:
        second = clauses[1]
        clauses[:2] = [f"{clauses[0]} and {'it' + second[2:] if second.startswith('It ') else second}"]
    text = _sentences(clauses)
    return text if subject in text else f"This is about {subject}. {text}"


def _schema(fields: list[tuple[str, Field]], strict: bool) -> str:
    properties = {
        key: {"type": "array", "items": {"type": "string"}} if field.kind == "array" else {"type": field.kind}
        for key, field in fields
    }
    schema: dict[str, object] = {"type": "object", "properties": properties}
    if strict:
        schema["required"] = [key for key, _ in fields]
    return json.dumps(schema)


def extraction(rng: random.Random) -> Exchange:
    """Return one extraction task; its slots are all values of the record, asked for or not."""
    record = rng.choice(_RECORDS)
    subject = str(record.subject.draw(rng))
    told = [
        (field, field.draw(rng))
        for field in rng.sample(record.fields, rng.randint(2, min(4, len(record.fields))))
    ]
    text = _tell(rng, record, subject, told)
    known: list[tuple[Field, Value]] = [(record.subject, subject), *told]
    wanted = rng.sample(known, rng.randint(2, len(known)))
    if rng.random() < 0.5:
        wanted.sort(key=known.index)
    keyed = [(rng.choice(field.keys), field, value) for field, value in wanted]
    if len({key for key, _, _ in keyed}) < len(keyed):
        return extraction(rng)
    answer = json.dumps({key: value for key, _, value in keyed}, ensure_ascii=False)
    slots = (record.kind, subject, *(value for _, value in told))
    return _ask_for(rng, slots, text, [(key, field) for key, field, _ in keyed], answer)


def _ask_for(
    rng: random.Random, slots: tuple[object, ...], text: str, fields: list[tuple[str, Field]], answer: str
) -> Exchange:
    style = rng.random()
    if style < 0.55:
        question = rng.choice(_ASK_KEYS).format(keys=join([key for key, _ in fields]), text=text)
        return ask("json", slots, question, answer)
    schema = _schema(fields, strict=rng.random() < 0.7)
    if style < 0.8:
        return ask("json", slots, rng.choice(_ASK_SCHEMA).format(schema=schema, text=text), answer)
    return ask("json", slots, text, answer, system=rng.choice(_SYSTEM_SCHEMA).format(schema=schema))
