"""The words of the corpus: topics and sentence patterns, written for it, and the seeded drawing from them.

A pattern's `{slot}` is filled from the topic, or from the words below. Nothing here is quoted from anywhere.
Changing a word changes the corpus: run `sluice-bench prompts`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

_T = TypeVar("_T")


class Draw:
    """Seeded choices, by `Random.random` alone: the one method whose sequence Python promises to keep."""

    def __init__(self, seed: str) -> None:
        self._source = random.Random(seed)

    def below(self, bound: int) -> int:
        """A whole number in `[0, bound)`."""
        return int(self._source.random() * bound)

    def between(self, low: int, high: int) -> int:
        """A whole number in `[low, high]`."""
        return low + self.below(high - low + 1)

    def pick(self, options: Sequence[_T]) -> _T:
        """One of `options`."""
        return options[self.below(len(options))]

    def sample(self, options: Sequence[_T], count: int) -> list[_T]:
        """`count` different ones of `options`, in random order."""
        left = list(options)
        return [left.pop(self.below(len(left))) for _ in range(count)]


class Topic(msgspec.Struct, frozen=True):
    """A small world to tell of."""

    name: str
    place: tuple[str, ...]
    role: tuple[str, ...]
    thing: tuple[str, ...]
    act: tuple[str, ...]
    """In the past tense, with an object of its own."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


TOPICS = (
    Topic(
        "the ferry line",
        _words("the north pier, the ticket hall, the engine room, the upper deck, the winter dock"),
        _words("pilot, deckhand, ticket clerk, harbor master, mechanic"),
        _words("mooring rope, tide table, fog horn, life raft, fuel gauge, timetable, anchor chain"),
        _words("delayed the first crossing, counted the passengers, repaired the ramp, read the tide wrong"),
    ),
    Topic(
        "the town library",
        _words("the reading room, the map cabinet, the cellar, the children's corner, the return desk"),
        _words("librarian, bookbinder, volunteer, night porter, archivist"),
        _words("card index, atlas, borrowed novel, step ladder, reading lamp, parish register, microscope"),
        _words("mended the torn atlas, lost the key, renewed every card, sorted the letters by year"),
    ),
    Topic(
        "the apple farm",
        _words("the lower orchard, the cider press, the cold store, the packing shed, the south slope"),
        _words("picker, beekeeper, cooper, driver, grafter"),
        _words("crate, ladder, grafting knife, rain barrel, sorting table, hive, soil probe"),
        _words("pruned the old trees, pressed the windfalls, moved the hives, labeled the crates"),
    ),
    Topic(
        "the observatory",
        _words("the dome, the control room, the mirror workshop, the visitor path, the weather mast"),
        _words("astronomer, night assistant, lens grinder, guide, data keeper"),
        _words("star chart, main mirror, clock drive, exposure log, spare filter, finder scope, plate box"),
        _words("measured the comet again, cleaned the mirror, closed the dome in time, missed the eclipse"),
    ),
    Topic(
        "the bakery",
        _words("the oven room, the flour loft, the counter, the cooling racks, the delivery yard"),
        _words("baker, apprentice, miller, courier, bookkeeper"),
        _words(
            "sourdough crock, proofing basket, flour scale, bread peel, order book, oven stone, sack cart"
        ),
        _words("fed the starter, burned a tray, doubled the morning order, changed the recipe"),
    ),
    Topic(
        "the repair workshop",
        _words("the long bench, the paint booth, the parts cellar, the test stand, the front office"),
        _words("welder, apprentice, electrician, foreman, customer"),
        _words("torque wrench, wiring plan, spare bearing, test lamp, gear puller, service book, hand drill"),
        _words("replaced the bearing, traced the short circuit, ordered the wrong part, tightened the belt"),
    ),
    Topic(
        "the mountain railway",
        _words("the valley station, the viaduct, the signal box, the snow shed, the summit halt"),
        _words("conductor, track walker, signal keeper, engineer, station cook"),
        _words("brake lever, signal lamp, snow plow, coupling pin, route map, spare rail, tool trolley"),
        _words("cleared the drift, stopped before the viaduct, checked each bolt, sold the last seat"),
    ),
    Topic(
        "the village clinic",
        _words("the waiting room, the pharmacy shelf, the laboratory, the ambulance bay, the night ward"),
        _words("nurse, doctor, pharmacist, driver, records clerk"),
        _words("dressing kit, thermometer, sample rack, visit log, oxygen bottle, vaccine box, wheelchair"),
        _words("called the family, repeated the test, checked the doses, moved the appointment"),
    ),
)

COMMON: Mapping[str, tuple[str, ...]] = {
    "person": _words(
        "Mara, Edwin, Sofia, Tobias, Ines, Ravi, Greta, Samuel, Yuki, Leon, Amara, Felix, Nadia, Oskar, "
        "Priya, Hugo, Lena, Marco, Aisha, Pavel, Clara, Diego, Hanna, Kofi, Elif, Jonas"
    ),
    "day": _words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    "time": _words("before sunrise, at nine, around noon, after lunch, at dusk, close to midnight, at once"),
    "season": _words("spring, early summer, August, the autumn storms, the first frost, a mild winter"),
    "mood": _words("calm, doubtful, cheerful, tired, careful, proud, impatient, relieved"),
    "quality": _words(
        "heavy, worn, narrow, borrowed, freshly painted, reliable, noisy, spare, faded, dented"
    ),
    "reason": _words(
        "because the weather turned, although nobody had asked, so that the others could rest, "
        "since the spare part was late, while the old rule still held, as the notice had said, "
        "because two lists disagreed, until the inspector came, although it cost more"
    ),
    "number": tuple(
        str(number) for number in (3, 4, 6, 7, 9, 12, 14, 18, 23, 27, 36, 41, 58, 75, 96, 120, 240)
    ),
}

NARRATION = (
    "On {day} {person} found a {quality} {thing} near {place}.",
    "{person}, the {role}, {act} {reason}.",
    "The {role} wrote down {number} entries and underlined the last one.",
    "Nobody at {place} could say who had moved the {thing}.",
    "{person} and {person} agreed to meet at {place} {time}.",
    "After a while the {thing} was back, and the {role} looked {mood}.",
    "It took {number} minutes to carry the {thing} to {place}.",
    "In {season} the {role} always keeps a second {thing} ready.",
    "When {person} asked for the {quality} {thing}, the {role} only pointed to {place}.",
    "The bill named {number} hours of work, one {thing} and a small fee.",
    "{person} {act}, and the {role} said nothing about it.",
    "A note on the {thing} read: return to {place} on {day}.",
    "Since {day} the {thing} has needed a {quality} cover.",
    "Two visitors waited at {place} {reason}.",
    "The {role} compared the {thing} with the one from last year and felt {mood}.",
    "{person} counted {number} of them, {person} counted one more.",
    "Later {person} {act} {time}, this time without help.",
    "The rule is simple: whoever uses the {thing} brings it to {place} {time}.",
    "From {place} one could hear the {role} talking to {person}.",
    "If the {thing} fails again, {person} will replace it {reason}.",
    "The {quality} {thing} cost {number} coins, which {person} thought fair.",
    "{person} kept the key to {place} {reason}.",
    "Every {day} the {role} checks the {thing} twice.",
    "That {day} ended {mood} enough: the {role} {act} and went home.",
)

QUESTIONS = (
    "Who used the {thing} last, and how do you know?",
    "What should the {role} do first on {day}?",
    "Explain in plain words why the {thing} matters here.",
    "Retell this from the point of view of the {role}.",
    "List the people in the text and what each of them did.",
    "Which two statements do not fit together, if any?",
    "Write a short letter from {person} to the {role} about it.",
    "Summarize this in three sentences for somebody who was away.",
    "What could go wrong with the {thing} in {season}?",
    "Suggest a better rule for {place} and give a reason.",
    "Describe the next day at {place} in the same tone.",
    "Turn this into a checklist for a new {role}.",
)

FOLLOW_UPS = (
    "And what would change if the {thing} were missing?",
    "Please say that again, shorter, for the {role}.",
    "Which part of that is a guess?",
    "Now write it as a message that {person} could send {time}.",
    "How would you check this at {place}?",
    "Give me one more example, from {season}.",
    "What would {person} say against it?",
    "Put the steps in order of importance.",
)

RULES = (
    "Answer politely and keep to what is known about {place}.",
    "Never promise that the {thing} will be ready on {day}.",
    "If a guest asks for the {role}, give the hours and offer to take a message.",
    "Prices are always named in coins, with the fee for the {thing} apart.",
    "Mention {place} only when the question is about it.",
    "When two notes disagree, say so and prefer the later one.",
    "A {quality} {thing} must be reported to the {role} {time}.",
    "Do not give out the private number of {person}.",
    "Requests that arrive {time} are written into the list for {day}.",
    "In {season} the way to {place} is closed for visitors.",
    "Use short sentences, and no more than {number} of them.",
    "Whoever asks about the {thing} twice gets the long explanation.",
)

_SLOT = re.compile(r"\{(\w+)\}")


def fill(pattern: str, topic: Topic, draw: Draw) -> str:
    """`pattern` with every slot filled, no word used twice in it, beginning with a capital."""
    used: set[str] = set()

    def choose(slot: re.Match[str]) -> str:
        options = COMMON.get(slot[1]) or getattr(topic, slot[1])
        word: str = draw.pick([option for option in options if option not in used])
        used.add(word)
        return word

    text = _SLOT.sub(choose, pattern)
    return text[0].upper() + text[1:]


def prose(words: int, topic: Topic, draw: Draw, patterns: Sequence[str] = NARRATION) -> str:
    """Whole sentences, at least `words` words and at most one sentence more; paragraphs of up to six."""
    paragraphs: list[list[str]] = [[]]
    total, room = 0, draw.between(3, 6)
    previous = ""
    while total < words:
        if len(paragraphs[-1]) == room:
            paragraphs.append([])
            room = draw.between(3, 6)
        previous = draw.pick([pattern for pattern in patterns if pattern != previous])
        sentence = fill(previous, topic, draw)
        paragraphs[-1].append(sentence)
        total += len(sentence.split())
    return "\n\n".join(" ".join(sentences) for sentences in paragraphs)
