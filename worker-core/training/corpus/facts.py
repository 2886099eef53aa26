"""Questions about a fixed set of facts: countries, animals, colours, days, months and numbers.

Every fact is taught in most of its phrasings; the held-out questions ask a known fact in a phrasing that was
never used for it.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from .exchange import Exchange, ask
from .words import DAYS, MONTHS, article


@dataclass(frozen=True)
class Fact:
    """One fact: the ways to ask for it and the one sentence that answers."""

    subject: str
    questions: tuple[str, ...]
    answer: str


_COUNTRIES = """
France Paris Europe French|Germany Berlin Europe German|Italy Rome Europe Italian
Spain Madrid Europe Spanish|Portugal Lisbon Europe Portuguese|Austria Vienna Europe German
Poland Warsaw Europe Polish|Greece Athens Europe Greek|Norway Oslo Europe Norwegian
Sweden Stockholm Europe Swedish|Finland Helsinki Europe Finnish|Denmark Copenhagen Europe Danish
Ireland Dublin Europe English|England London Europe English|Hungary Budapest Europe Hungarian
Romania Bucharest Europe Romanian|Ukraine Kyiv Europe Ukrainian|Iceland Reykjavik Europe Icelandic
Japan Tokyo Asia Japanese|China Beijing Asia Chinese|India Delhi Asia Hindi
Thailand Bangkok Asia Thai|Vietnam Hanoi Asia Vietnamese|Turkey Ankara Asia Turkish
Iran Tehran Asia Persian|Egypt Cairo Africa Arabic|Morocco Rabat Africa Arabic
Kenya Nairobi Africa Swahili|Ghana Accra Africa English|Nigeria Abuja Africa English
Senegal Dakar Africa French|Canada Ottawa America English|Mexico Mexico-City America Spanish
Brazil Brasilia America Portuguese|Peru Lima America Spanish|Cuba Havana America Spanish
Chile Santiago America Spanish|Colombia Bogota America Spanish|Ecuador Quito America Spanish
Australia Canberra Oceania English
"""
_ANIMALS = """
dog barks 4 puppy kennel|cat meows 4 kitten house|cow moos 4 calf farm|horse neighs 4 foal stable
sheep bleats 4 lamb farm|pig grunts 4 piglet farm|duck quacks 2 duckling pond
hen clucks 2 chick farm|frog croaks 4 tadpole pond|lion roars 4 cub savanna|wolf howls 4 pup forest
owl hoots 2 owlet forest|bee buzzes 6 larva hive|bear growls 4 cub forest|mouse squeaks 4 pup hole
snake hisses 0 hatchling grass|elephant trumpets 4 calf savanna|goat bleats 4 kid farm
crow caws 2 chick tree
"""
_THINGS = """
grass green|the sky blue|snow white|coal black|blood red|a banana yellow|a lemon yellow
a carrot orange|a strawberry red|the sun yellow|milk white|chocolate brown|a flamingo pink
an elephant grey|a raven black|a violet purple|a leaf green
"""
_MIXES = "red yellow orange|blue yellow green|red blue purple|red white pink|black white grey"
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_NUMBERS = """
a week days seven|a year months twelve|a day hours 24|an hour minutes 60|a minute seconds 60
a dozen eggs twelve
"""


def _rows(table: str) -> Iterator[list[str]]:
    for line in table.strip().splitlines():
        for row in line.split("|"):
            yield row.split()


def _countries() -> Iterator[Fact]:
    for country, capital_, continent, language in _rows(_COUNTRIES):
        capital = capital_.replace("-", " ")
        yield Fact(
            f"capital {country}",
            (
                f"What is the capital of {country}?",
                f"Which city is the capital of {country}?",
                f"Name the capital of {country}.",
                f"What's the capital city of {country}?",
                f"Tell me the capital of {country}.",
                f"Do you know the capital of {country}?",
                f"capital of {country}?",
                f"{country}'s capital is which city?",
            ),
            f"The capital of {country} is {capital}.",
        )
        yield Fact(
            f"country {capital}",
            (
                f"{capital} is the capital of which country?",
                f"Which country has {capital} as its capital?",
                f"What country is {capital} the capital of?",
                f"Of which country is {capital} the capital?",
                f"Name the country whose capital is {capital}.",
            ),
            f"{capital} is the capital of {country}.",
        )
        yield Fact(
            f"continent {country}",
            (
                f"On which continent is {country}?",
                f"Where is {country}?",
                f"Which continent is {country} on?",
                f"What continent does {country} belong to?",
                f"In what part of the world is {country}?",
            ),
            f"{country} is in {continent}.",
        )
        yield Fact(
            f"language {country}",
            (
                f"What language do people speak in {country}?",
                f"Which language is spoken in {country}?",
                f"What do they speak in {country}?",
                f"Name the main language of {country}.",
                f"What is the language of {country}?",
            ),
            f"People in {country} speak {language}.",
        )


def _animals() -> Iterator[Fact]:
    for animal, sound, legs, young, home in _rows(_ANIMALS):
        one = article(animal)
        yield Fact(
            f"sound {animal}",
            (
                f"What sound does {one} make?",
                f"What does {one} do when it makes a noise?",
                f"How does {one} sound?",
                f"Which sound comes from {one}?",
                f"What noise does the {animal} make?",
            ),
            f"{one.capitalize()} {sound}.",
        )
        yield Fact(
            f"legs {animal}",
            (
                f"How many legs does {one} have?",
                f"How many legs has {one}?",
                f"What number of legs does {one} have?",
                f"Count the legs of {one}.",
                f"Tell me how many legs {one} has.",
            ),
            f"{one.capitalize()} has {legs} legs.",
        )
        yield Fact(
            f"young {animal}",
            (
                f"What is a young {animal} called?",
                f"What do you call a baby {animal}?",
                f"What is the young of {one} called?",
                f"Name the young of {one}.",
                f"What is the word for a baby {animal}?",
            ),
            f"A young {animal} is called {article(young)}.",
        )
        yield Fact(
            f"home {animal}",
            (
                f"Where does {one} live?",
                f"What is the home of {one}?",
                f"Where can I find {one}?",
                f"Where would you look for {one}?",
                f"In what place does {one} live?",
            ),
            f"{one.capitalize()} lives in {article(home) if home != 'grass' else 'the grass'}.",
        )


def _colours() -> Iterator[Fact]:
    for row in _rows(_THINGS):
        thing, colour = " ".join(row[:-1]), row[-1]
        yield Fact(
            f"colour {thing}",
            (
                f"What colour is {thing}?",
                f"Which colour does {thing} have?",
                f"What color is {thing}?",
                f"Tell me the colour of {thing}.",
                f"What is the colour of {thing}?",
            ),
            f"{thing[0].upper()}{thing[1:]} is {colour}.",
        )
    for first, second, mixed in _rows(_MIXES):
        for a, b in ((first, second), (second, first)):
            yield Fact(
                f"mix {a} {b}",
                (
                    f"What do you get when you mix {a} and {b}?",
                    f"What colour do {a} and {b} make?",
                    f"Mix {a} and {b}. What colour is it?",
                    f"Which colour comes from {a} and {b}?",
                    f"What happens when I mix {a} with {b}?",
                ),
                f"{a.capitalize()} and {b} make {mixed}.",
            )


def _calendar() -> Iterator[Fact]:
    for names, unit in ((DAYS, "day"), (MONTHS, "month")):
        for i, item in enumerate(names):
            after, before = names[(i + 1) % len(names)], names[i - 1]
            yield Fact(
                f"after {item}",
                (
                    f"What {unit} comes after {item}?",
                    f"Which {unit} follows {item}?",
                    f"What comes after {item}?",
                    f"What is the {unit} after {item}?",
                    f"Name the {unit} that follows {item}.",
                ),
                f"{after} comes after {item}.",
            )
            yield Fact(
                f"before {item}",
                (
                    f"What {unit} comes before {item}?",
                    f"Which {unit} is right before {item}?",
                    f"What comes before {item}?",
                    f"What is the {unit} before {item}?",
                    f"Name the {unit} before {item}.",
                ),
                f"{before} comes before {item}.",
            )
    for month, days in zip(MONTHS, _MONTH_DAYS, strict=True):
        yield Fact(
            f"days {month}",
            (
                f"How many days does {month} have?",
                f"How many days are in {month}?",
                f"How long is {month}?",
                f"What is the number of days in {month}?",
                f"Tell me how many days {month} has.",
            ),
            f"{month} has {days} days.",
        )


def _measures() -> Iterator[Fact]:
    for first, second, *rest, number in _rows(_NUMBERS):
        whole, parts = f"{first} {second}", rest[0]
        yield Fact(
            f"parts {whole}",
            (
                f"How many {parts} are in {whole}?",
                f"How many {parts} does {whole} have?",
                f"Tell me how many {parts} {whole} has.",
                f"What is the number of {parts} in {whole}?",
            ),
            f"There are {number} {parts} in {whole}.",
        )
    for i, word in enumerate(_NUMBER_WORDS):
        yield Fact(
            f"digits {i}",
            (
                f"How do you write {i} in words?",
                f"What is {i} as a word?",
                f"Spell the number {i}.",
                f"Write {i} in letters.",
            ),
            f"The number {i} is written {word}.",
        )
    seasons = ("spring", "summer", "autumn", "winter")
    for i, season in enumerate(seasons):
        yield Fact(
            f"season {season}",
            (
                f"Which season comes after {season}?",
                f"What comes after {season}?",
                f"What season follows {season}?",
                f"Name the season after {season}.",
            ),
            f"{seasons[(i + 1) % 4].capitalize()} comes after {season}.",
        )


FACTS = (*_countries(), *_animals(), *_colours(), *_calendar(), *_measures())


def fact_question(rng: random.Random) -> Exchange:
    """Return one question about a random fact in a random phrasing."""
    fact = rng.choice(FACTS)
    question = rng.choice(fact.questions)
    return ask("facts", ("fact", fact.subject, question), question, fact.answer)
