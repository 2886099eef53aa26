"""Small arithmetic: addition and subtraction up to two digits, times tables, and short word problems.

Answers never repeat the expression. Pairs of one-digit numbers are all trained (they are the facts that the
rest is built from), held out only per phrasing; larger pairs are held out as pairs, in every phrasing.
"""

import random

from .exchange import Exchange, ask
from .words import COUNTABLE, name

# (question, answer); `{o}` is the operation as the phrasing writes it.
_PHRASINGS = (
    ("What is {a} {o} {b}?", "That makes {r}."),
    ("What is {a} {o} {b}?", "That makes {r}."),
    ("What's {a} {o} {b}?", "That makes {r}."),
    ("what is {a} {o} {b}", "That makes {r}."),
    ("How much is {a} {o} {b}?", "It is {r}."),
    ("{a} {o} {b} = ?", "The answer is {r}."),
    ("{a} {o} {b} =", "The answer is {r}."),
    ("{a} {o} {b}?", "The answer is {r}."),
    ("{a} {o} {b}", "The answer is {r}."),
    ("Calculate {a} {o} {b}.", "The answer is {r}."),
    ("Compute {a} {o} {b}.", "The answer is {r}."),
    ("Please compute {a} {o} {b}.", "The answer is {r}."),
    ("Can you tell me what {a} {o} {b} is?", "Yes, it is {r}."),
    ("Could you work out {a} {o} {b} for me?", "Sure, it is {r}."),
    ("Do you know what {a} {o} {b} makes?", "Yes, it makes {r}."),
    ("What do you get for {a} {o} {b}?", "You get {r}."),
    ("What does {a} {o} {b} equal?", "It equals {r}."),
    ("Give me only the number: {a} {o} {b}", "{r}"),
    ("Answer with one number. What is {a} {o} {b}?", "{r}"),
    ("I have a sum for you: {a} {o} {b}.", "The answer is {r}."),
    ("Tell me the result of {a} {o} {b}.", "The result is {r}."),
)
_SPELLED = {
    "+": ("Add {a} and {b}.", "What is the sum of {a} and {b}?", "What do {a} and {b} make together?"),
    "-": ("Subtract {b} from {a}.", "Take {b} away from {a}.", "What is {a} take away {b}?"),
    "*": ("Multiply {a} by {b}.", "What is the product of {a} and {b}?", "What is {a} multiplied by {b}?"),
}
_SIGNS = {
    "+": ("+", "+", "+", "plus"),
    "-": ("-", "-", "-", "minus"),
    "*": ("*", "x", "times", "times"),
}
_STORIES = {
    "+": (
        (
            "{n} has {a} {things} and gets {b} more. How many {things} does {n} have now?",
            "{n} has {r} {things}.",
        ),
        ("{n} finds {a} {things} and then {b} more. How many {things} is that?", "That is {r} {things}."),
        (
            "There are {a} {things} in one box and {b} in another. How many {things} are there?",
            "There are {r} {things}.",
        ),
    ),
    "-": (
        ("{n} has {a} {things} and gives away {b}. How many {things} are left?", "{r} {things} are left."),
        ("There were {a} {things} and {n} took {b}. How many {things} are left?", "{r} {things} are left."),
        ("{n} had {a} {things} and lost {b}. How many {things} does {n} have now?", "{n} has {r} {things}."),
    ),
    "*": (
        ("{n} has {a} boxes with {b} {things} in each. How many {things} is that?", "That is {r} {things}."),
        ("How many {things} are in {a} bags of {b} {things}?", "There are {r} {things}."),
    ),
}


def _result(operation: str, a: int, b: int) -> int:
    return a + b if operation == "+" else a - b if operation == "-" else a * b


def _operands(rng: random.Random, operation: str) -> tuple[int, int]:
    """Draw a pair: products from the tables, the rest with short numbers as likely as long ones."""
    if operation == "*":
        return rng.randint(0, 10), rng.randint(0, 10)
    a, b = (rng.randint(0, 9) if rng.random() < 0.3 else rng.randint(0, 99) for _ in range(2))
    return (max(a, b), min(a, b)) if operation == "-" else (a, b)


def _slots(operation: str, a: int, b: int, phrasing: str) -> tuple[object, ...]:
    """Return what must be unseen: the pair itself, or pair and phrasing where the pair must be taught."""
    taught = operation == "*" or (a < 10 and b < 10)
    return (operation, a, b, phrasing) if taught else (operation, a, b)


def _phrase(rng: random.Random, operation: str, countable: bool) -> tuple[str, str]:
    style = rng.random()
    if style < 0.14 and countable:
        return rng.choice(_STORIES[operation])
    if style < 0.28:
        return rng.choice(_SPELLED[operation]), "That makes {r}."
    question, answer = rng.choice(_PHRASINGS)
    return question.replace("{o}", rng.choice(_SIGNS[operation])), answer


def _exercise(rng: random.Random, skill: str, operation: str) -> Exchange:
    a, b = _operands(rng, operation)
    result = _result(operation, a, b)
    question, answer = _phrase(rng, operation, countable=1 not in (a, b, result))
    values = {"a": a, "b": b, "r": result, "n": name(rng), "things": rng.choice(COUNTABLE)}
    return ask(skill, _slots(operation, a, b, question), question.format(**values), answer.format(**values))


def arithmetic(rng: random.Random) -> Exchange:
    """Return one addition or subtraction with operands from 0 to 99 and a result that is not negative."""
    return _exercise(rng, "arithmetic", rng.choice("++-"))


def multiplication(rng: random.Random) -> Exchange:
    """Return one product from the tables of 0 to 10."""
    return _exercise(rng, "multiplication", "*")


def bare_sum(rng: random.Random) -> Exchange:
    """Return an exercise as it stands on a sheet: `12 + 30 =` with the number alone as its answer."""
    operation = rng.choice("++-")
    a, b = _operands(rng, operation)
    question = f"{a} {operation} {b} ="
    return ask(
        "arithmetic",
        _slots(operation, a, b, f"{{a}} {operation} {{b}} ="),
        question,
        str(_result(operation, a, b)),
    )
