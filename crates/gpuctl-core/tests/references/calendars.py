"""Writes iCalendar files and the dates of their all-day events, as recurring-ical-events has them.

Events are drawn from a fixed seed. Not among them, since the two differ: `EXRULE`, which it ignores; an `UNTIL` in UTC beside dates,
which it cuts to the UTC date; `COUNT=0`, which it takes for none; several events with one UID, of which it keeps the first.

usage: calendars.py OUT
"""

import json
import random
import sys
from datetime import date, timedelta
from pathlib import Path

import icalendar
import recurring_ical_events

SEED = 20261130
FILES = 120
YEARS = (2024, 2032)
DAYS = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"]


def rule(draw, start):
    nth = draw.choice(["1", "2", "4", "-1"])
    of_month = [f"BYDAY={nth}{draw.choice(DAYS)}", f"BYMONTHDAY={draw.choice([1, 15, 29, 31, -1])}", ""]
    parts = draw.choice(
        [
            ["FREQ=YEARLY", draw.choice(["", f"BYMONTH={draw.randint(1, 12)};{of_month[0]}", f"BYYEARDAY={draw.choice([1, 100, -1])}"])],
            ["FREQ=MONTHLY", draw.choice(of_month)],
            ["FREQ=WEEKLY", draw.choice(["", "BYDAY=" + ",".join(draw.sample(DAYS, 2)), "WKST=SU;BYDAY=SU,MO"])],
            ["FREQ=DAILY", draw.choice(["", "BYMONTH=2,8", "BYDAY=SA,SU"])],
        ]
    )
    parts.append(draw.choice(["", f"INTERVAL={draw.randint(2, 5)}"]))
    until = start + timedelta(days=draw.randint(0, 900))
    parts.append(draw.choice([f"COUNT={draw.randint(1, 40)}", f"UNTIL={until:%Y%m%d}", ""]))
    return "RRULE:" + ";".join(part for part in parts if part)


def length(draw, start):
    days = draw.choice([1, 1, 1, 2, 5])
    end = start + timedelta(days=days)
    return draw.choice(["", f"DTEND;VALUE=DATE:{end:%Y%m%d}", f"DURATION:P{days}D"])


def event(draw, uid):
    start = date(2024, 1, 1) + timedelta(days=draw.randint(0, 1000))
    lines = [f"UID:{uid}", "DTSTAMP:20240101T000000Z", f"DTSTART;VALUE=DATE:{start:%Y%m%d}", length(draw, start)]
    recurs = draw.random() < 0.7
    if recurs:
        lines.append(rule(draw, start))
    if draw.random() < 0.3:
        lines.append(f"RDATE;VALUE=DATE:{start + timedelta(days=draw.randint(1, 60)):%Y%m%d}")
    if draw.random() < 0.1:
        lines.append("STATUS:CANCELLED")
    return lines, start if recurs else None


def changes(draw, uid, text):
    """Some occurrences of the series that are excluded, moved or cancelled."""
    occurrences = sorted(one["DTSTART"].dt for one in occurring(text))
    excluded, events = [], []
    for day in draw.sample(occurrences, min(len(occurrences), 4)):
        kind = draw.randrange(4)
        if kind == 0:
            excluded.append(f"EXDATE;VALUE=DATE:{day:%Y%m%d}")
        if kind in (1, 2):
            moved = day + timedelta(days=draw.randint(1, 9))
            status = "STATUS:CANCELLED" if kind == 2 else ""
            events.append(
                [f"UID:{uid}", "DTSTAMP:20240101T000000Z", f"RECURRENCE-ID;VALUE=DATE:{day:%Y%m%d}", f"DTSTART;VALUE=DATE:{moved:%Y%m%d}", status]
            )
    return excluded, events


def file(events):
    body = "".join("BEGIN:VEVENT\r\n" + "".join(f"{line}\r\n" for line in lines if line) + "END:VEVENT\r\n" for lines in events)
    return f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//gpuctl//tests//EN\r\n{body}END:VCALENDAR\r\n"


def occurring(text):
    calendar = icalendar.Calendar.from_ical(text)
    first, last = YEARS
    return recurring_ical_events.of(calendar).between((first, 1, 1), (last, 1, 1))


def dates(text):
    days = set()
    for one in occurring(text):
        if str(one.get("STATUS", "")) == "CANCELLED":
            continue
        day, end = one["DTSTART"].dt, one.end
        while day < max(end, one["DTSTART"].dt + timedelta(days=1)):
            days.add(day)
            day += timedelta(days=1)
    return sorted(f"{day}" for day in days if YEARS[0] <= day.year < YEARS[1])


def main(out):
    draw = random.Random(SEED)
    found = []
    for _ in range(FILES):
        events = []
        for index in range(draw.randint(1, 3)):
            lines, series = event(draw, f"e{index}@tests")
            if series and "STATUS:CANCELLED" not in lines:
                excluded, replacing = changes(draw, f"e{index}@tests", file([lines]))
                lines += excluded
                events += replacing
            events.append(lines)
        text = file(events)
        found.append({"text": text, "dates": dates(text)})
    Path(out).write_text(json.dumps({"years": YEARS, "files": found}))


if __name__ == "__main__":
    main(sys.argv[1])
