"""Writes when EventBridge's cron expressions fire, as aws-croniter has it.

Expressions are drawn from a fixed seed. Not among them: steps and lists of `#` in day-of-week and `L-3`, which AWS's page does not
list; weekday numbers and years after 2100, which gpuctl does not take; `L` as day-of-week, likewise.

usage: cron.py OUT
"""

import json
import random
import sys
from datetime import UTC, datetime
from pathlib import Path

from aws_croniter import AwsCroniter

SEED = 20261130
EXPRESSIONS = 400
FIRES = 4
BEGIN = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
# Those of AWS's own pages.
GIVEN = [
    "0 10 * * ? *",
    "15 12 * * ? *",
    "0 18 ? * MON-FRI *",
    "0 8 1 * ? *",
    "0/15 * * * ? *",
    "0/10 * ? * MON-FRI *",
    "0/5 8-17 ? * MON-FRI *",
    "0/30 20-2 ? * MON-FRI *",
    "15 10 ? * FRIL 2022-2027",
    "0 9 ? * MON#1 *",
    "23 17 25 MAR/4 ? *",
]


def field(draw, least, greatest, names=None):
    """A number, a list, a range that may wrap, or a step."""

    def one():
        number = draw.randint(least, greatest)
        return names[number - least] if names and draw.random() < 0.5 else str(number)

    kind = draw.randrange(6)
    if kind == 0:
        return "*"
    if kind == 1:
        return f"{one()}/{draw.randint(1, greatest)}"
    if kind in (2, 3):
        return f"{one()}-{one()}"
    return ",".join(one() for _ in range(draw.randint(1, 3)))


def weekday(draw):
    name = lambda: draw.choice(DAYS)  # noqa: E731
    kinds = [name, lambda: f"{name()}-{name()}", lambda: f"{name()},{name()}", lambda: f"{name()}#{draw.randint(1, 5)}"]
    return draw.choice([*kinds, lambda: f"{name()}L"])()


def expression(draw):
    minutes, hours = field(draw, 0, 59), field(draw, 0, 23)
    months = "*" if draw.random() < 0.5 else field(draw, 1, 12, MONTHS)
    years = draw.choice(["*", "*", "2026-2030", "2027/3"])
    if draw.random() < 0.5:
        return f"{minutes} {hours} ? {months} {weekday(draw)} {years}"
    day = draw.choice([field(draw, 1, 31), "L", f"{draw.randint(1, 31)}W", "LW"])
    return f"{minutes} {hours} {day} {months} ? {years}"


def fires(text):
    # aws-croniter knows `L` and `W` alone, not together.
    if " LW " in text:
        return None
    # It reads the day of `FRIL` and `MON#1` only as a number.
    numbers = text
    for index, name in enumerate(DAYS):
        for mark in ("L", "#"):
            numbers = numbers.replace(name + mark, f"{index + 1}{mark}")
    try:
        found = AwsCroniter(numbers).get_next(BEGIN, FIRES)
    except Exception:  # noqa: BLE001 - it refuses what it does not know with many types
        return None
    return [int(at.timestamp()) for at in found if at is not None]


def main(out):
    draw = random.Random(SEED)
    texts = GIVEN + [expression(draw) for _ in range(EXPRESSIONS)]
    known = [{"cron": text, "fires": found} for text in texts if (found := fires(text)) is not None]
    Path(out).write_text(json.dumps({"begin": int(BEGIN.timestamp()), "expressions": known}))


if __name__ == "__main__":
    main(sys.argv[1])
