"""The word list: what messages and pages don't say, and what they say instead.

A line is a pattern (case is ignored) and its replacement. It is here because a user or a reviewer stumbled over it; words
that are right in another context stay out of the table. Comments are held to it, too.
"""

import re

# What a configuration key or value was called before it was public is checked everywhere, in comments, too.
RENAMED = [
    (r"fruitless_starts_max", "starts_without_result_max"),
]

FORBIDDEN = [
    (r"(?<!there )\bis no (?!longer|more|older)", "`is not a valid …` for input, `is not a …` otherwise"),
    (r"\bpast gpuctl\b", "outside gpuctl"),
    (r"\b(taken|takes|took) back\b", "interrupted"),
    (r"\brests\b", "is not tried for …"),
    (r"\bmend(s|ed|ing)?\b", "fix"),
    (r"\b(broke|breaks|broken) off\b", "crashed, panicked, was interrupted"),
    (r"\bg(ives|iven|ave) back\b", "released to the queue; frees (memory)"),
    (r"\b(is|not) at work\b", "is running, is not running"),
    (r"\bso many\b", "number of …; the number"),
    (r"\b(somebody|whoever)\b", "a user, another program, someone"),
    (r"\bnobody\b", "no user, no worker, no one"),
    (r"\ba person\b", "a user, an operator"),
    (r"\bfruitless\b", "without a result"),
    (r"\bmade-up\b", "generated"),
    (r"\bdoorbells?\b", "wake-up"),
    (r"\b(its|their|his) own word\b", "name what it reports"),
    (r"\bhas the (last )?word\b", "decides, takes precedence"),
    (r"\bshall\b", "must, should, is to"),
    (r"\bmakes no sense\b", "is not valid; say what is expected"),
    (r"\bcannot be had\b", "cannot be fetched"),
    (r"\bheard of\b", "seen, received a report of"),
    (r"\bthe house\b", "this project"),
    (r"<(SPAN|INSTANT)>", "<DURATION>, <TIME>"),
    (r"\b(a|each|every|next|last|one) look\b(?!-)", "a reconcile"),
]


def compiled(table):
    return [(re.compile(pattern, re.IGNORECASE), instead) for pattern, instead in table]
