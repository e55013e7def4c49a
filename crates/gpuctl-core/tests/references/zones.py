"""Writes what local clocks show in every zone at some instants, as PyPI's tzdata has it.

usage: zones.py OUT
"""

import json
import sys
import zoneinfo
from datetime import UTC, datetime, timedelta
from pathlib import Path

import tzdata

# Each month of two winters, the years around them, and centuries in which only the last rule of a zone counts.
INSTANTS = [datetime(2026 + n // 12, n % 12 + 1, 15, 8, 30, tzinfo=UTC) for n in range(24)]
INSTANTS += [datetime(year, month, 1, tzinfo=UTC) for year in (1970, 1999, 2025, 2030, 2100, 2199) for month in (1, 7)]
# A machine whose zone was never set.
NO_ZONE = "Factory"


def main(out):
    zoneinfo.reset_tzpath(to=[])
    names = (Path(tzdata.__file__).parent / "zones").read_text().split()
    zones = {name: zoneinfo.ZoneInfo(name) for name in names if name != NO_ZONE}
    seconds = {
        name: [int(at.astimezone(zone).utcoffset() / timedelta(seconds=1)) for at in INSTANTS] for name, zone in zones.items()
    }
    document = {"version": tzdata.IANA_VERSION, "instants": [int(at.timestamp()) for at in INSTANTS], "seconds": seconds}
    Path(out).write_text(json.dumps(document))


if __name__ == "__main__":
    main(sys.argv[1])
