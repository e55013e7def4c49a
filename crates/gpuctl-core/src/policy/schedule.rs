//! `[[pool.NAME.schedule]]`, `[[pool.NAME.quiet]]` and `[pool.NAME.calendar]`: reads the texts from the policy; `crate::schedule`
//! parses them.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};

use chrono::NaiveDate;

use super::section::Section;
use super::{ReadDates, ScheduledSubmit};
use crate::priority::Priority;
use crate::schedule::{
    CALENDAR_DATES_MAX, Calendar, Entry, EntryError, EntrySpec, Schedule, Source,
};
use crate::text::excerpt;

/// The most entries of one pool: every decision evaluates each of them.
const ENTRIES_MAX: usize = 100;

/// The most calendar files of one key: a decision in a function of AWS may read them anew.
const FILES_MAX: usize = 20;

pub(super) fn read(pool: &mut Section<'_, '_, '_>, dates: ReadDates<'_>) -> Schedule {
    let entries = pool.list("schedule", ENTRIES_MAX, entry);
    if pool.has("calendar") && !pool.has("schedule") && !pool.has("submit") {
        let at = pool.span.clone();
        let hint = "a calendar changes a schedule: add `[[….schedule]]`, or remove it".to_owned();
        pool.problem("calendar", at, "has no schedule to change".to_owned(), Some(hint));
    }
    Schedule { entries, calendar: calendar(pool.section("calendar"), dates) }
}

/// The times in which the queue starts no box.
pub(super) fn quiet(pool: &mut Section<'_, '_, '_>) -> Schedule {
    let entries = pool.list("quiet", ENTRIES_MAX, |mut section| {
        let at = section.span.clone();
        let entry = window(&mut section);
        section.report_unknown_keys();
        if entry.as_ref().is_some_and(|entry| !entry.is_two_sided()) {
            let hint = "leave both out for whole days".to_owned();
            section.problem("", at, "needs both `begin` and `end`".to_owned(), Some(hint));
        }
        entry
    });
    if pool.has("quiet") && !pool.has("queue") {
        let at = pool.span.clone();
        let hint = "without a queue nothing starts but by schedule or hold: change the schedule";
        pool.problem("quiet", at, "has no queue to keep quiet".to_owned(), Some(hint.to_owned()));
    }
    Schedule { entries, ..Schedule::default() }
}

/// Jobs that are submitted at certain times; the pool's calendar counts for them, too.
pub(super) fn submits(pool: &mut Section<'_, '_, '_>, calendar: &Calendar) -> Vec<ScheduledSubmit> {
    let submits = pool.list("submit", ENTRIES_MAX, |section| submit(section, calendar));
    if pool.has("submit") && !pool.has("queue") {
        let at = pool.span.clone();
        let hint = "give the pool a `queue`, or move the submit to a pool that has one".to_owned();
        pool.problem("submit", at, "has no queue to submit to".to_owned(), Some(hint));
    }
    submits
}

fn submit(mut section: Section<'_, '_, '_>, calendar: &Calendar) -> Option<ScheduledSubmit> {
    let at = section.span.clone();
    let when = spanned(&mut section, "start");
    let entry = read_entry(&mut section, &START, [when, None]);
    let mut needed = |key: &'static str, hint: &str| {
        let found = section.text(key);
        if found.is_none() && !section.has(key) {
            let hint = Some(hint.to_owned());
            section.problem(key, at.clone(), "is missing".to_owned(), hint);
        }
        found
    };
    let name = needed("name", "e.g. `name = \"nightly\"`");
    let task = needed("task", "e.g. `task = \"vision.ocr\"`");
    let input = needed("input", "an absolute path, `s3://BUCKET/KEY` or `data:,TEXT`");
    let model = section.text("model").map(|(_, text)| text);
    let params = section.optional_section("params").map(|mut params| params.texts_by_name());
    let priority = section.parsed::<Priority>("priority").unwrap_or_default();
    section.report_unknown_keys();
    let entry = entry?;
    if entry.is_two_sided() {
        let hint = "write `begin = \"02:00\"` or `start = \"cron(…)\"`".to_owned();
        section.problem("", at.clone(), "has no time".to_owned(), Some(hint));
        return None;
    }
    let ((_, name), (_, task), (span, input)) = (name?, task?, input?);
    if !(input.starts_with('/') || input.contains(':')) {
        let hint = "an absolute path, `s3://BUCKET/KEY` or `data:,TEXT`".to_owned();
        let message = format!("`{}` is neither an absolute path nor a URI", excerpt(&input));
        section.problem("input", span, message, Some(hint));
        return None;
    }
    let when = Schedule { entries: vec![entry], calendar: calendar.clone() };
    let params = params.unwrap_or_default();
    Some(ScheduledSubmit { name, when, task, model, input, params, priority })
}

fn entry(mut section: Section<'_, '_, '_>) -> Option<Entry> {
    let (start, stop) = (spanned(&mut section, "start"), spanned(&mut section, "stop"));
    let entry = read_entry(&mut section, &WINDOW, [start, stop]);
    section.report_unknown_keys();
    entry
}

fn window(section: &mut Section<'_, '_, '_>) -> Option<Entry> {
    read_entry(section, &WINDOW, [None, None])
}

type SpannedText = Option<(&'static str, Range<usize>, String)>;

fn spanned(section: &mut Section<'_, '_, '_>, key: &'static str) -> SpannedText {
    section.text(key).map(|(span, text)| (key, span, text))
}

/// The keys of a window, and those of them that a start has.
const WINDOW: [&str; 6] = ["zone", "begin", "end", "weekdays", "monthdays", "months"];
const START: [&str; 5] = ["zone", "begin", "weekdays", "monthdays", "months"];

fn read_entry(
    section: &mut Section<'_, '_, '_>,
    keys: &[&'static str],
    expressions: [SpannedText; 2],
) -> Option<Entry> {
    let texts: Vec<(&str, Range<usize>, String)> = keys
        .iter()
        .filter_map(|key| spanned(section, key))
        .chain(expressions.into_iter().flatten())
        .collect();
    let text = |key| texts.iter().find(|(found, ..)| *found == key).map(|(.., text)| text.clone());
    let spec = EntrySpec {
        zone: text("zone"),
        begin: text("begin"),
        end: text("end"),
        weekdays: text("weekdays"),
        monthdays: text("monthdays"),
        months: text("months"),
        start: text("start"),
        stop: text("stop"),
    };
    let entry = Entry::new(&spec).map_err(|problems| {
        for problem in problems {
            let found = texts.iter().find(|(key, ..)| *key == problem.key);
            let span = found.map_or(section.span.clone(), |(_, span, _)| span.clone());
            let (message, hint) = (problem.error.to_string(), problem.error.hint());
            // A value of the wrong type is reported already.
            if found.is_some() || !section.has(problem.key) {
                section.problem(problem.key, span, message, Some(hint));
            }
        }
    });
    entry.ok()
}

fn calendar(mut section: Section<'_, '_, '_>, dates: ReadDates<'_>) -> Calendar {
    let mut sources = Vec::new();
    let skip = dates_of(&mut section, ["skip", "skip_file"], dates, &mut sources);
    let extra = dates_of(&mut section, ["extra", "extra_file"], dates, &mut sources);
    let at = section.span.clone();
    if let Some(both) = skip.intersection(&extra).next() {
        let hint = "remove it from one of the two".to_owned();
        let message = format!("{both} is in both `skip` and `extra`");
        section.problem("", at, message, Some(hint));
    }
    section.report_unknown_keys();
    Calendar { skip, extra, sources }
}

/// The dates of a list and of files. No more than `CALENDAR_DATES_MAX` are made, however many are written.
fn dates_of(
    section: &mut Section<'_, '_, '_>,
    [list, file]: [&'static str; 2],
    dates: ReadDates<'_>,
    sources: &mut Vec<Source>,
) -> BTreeSet<NaiveDate> {
    let mut all = listed(section, list);
    if !all.is_empty() {
        sources.push(Source { key: list, file: None, dates: all.clone(), left_out: 0 });
    }
    for source in filed(section, file, dates) {
        all.extend(&source.dates);
        sources.push(source);
    }
    if all.len() > CALENDAR_DATES_MAX {
        too_many(section, "", section.span.clone());
    }
    all
}

fn listed(section: &mut Section<'_, '_, '_>, key: &'static str) -> BTreeSet<NaiveDate> {
    let Some((span, texts)) = section.texts(key) else { return BTreeSet::new() };
    let mut ranges = Vec::new();
    for text in texts {
        match Calendar::parse_range(&text) {
            Ok(range) => ranges.push(range),
            Err(error) => {
                section.problem(key, span.clone(), error.to_string(), Some(error.hint()));
            }
        }
    }
    dates_in(ranges).unwrap_or_else(|| {
        too_many(section, key, span);
        BTreeSet::new()
    })
}

/// The dates of all ranges; `None` if there are too many. Ranges that overlap are joined first, so that no date is made twice.
fn dates_in(mut ranges: Vec<RangeInclusive<NaiveDate>>) -> Option<BTreeSet<NaiveDate>> {
    ranges.sort_unstable_by_key(|range| (*range.start(), *range.end()));
    let mut dates = BTreeSet::new();
    let mut next = NaiveDate::MIN;
    for range in ranges {
        let days = next.max(*range.start()).iter_days().take_while(|day| day <= range.end());
        dates.extend(days.take(CALENDAR_DATES_MAX + 1));
        if dates.len() > CALENDAR_DATES_MAX {
            return None;
        }
        next = next.max(range.end().succ_opt()?);
    }
    Some(dates)
}

fn filed(
    section: &mut Section<'_, '_, '_>,
    key: &'static str,
    dates: ReadDates<'_>,
) -> Vec<Source> {
    let Some((span, paths)) = section.text_or_texts(key) else { return Vec::new() };
    if paths.len() > FILES_MAX {
        section.problem(key, span.clone(), format!("has more than {FILES_MAX} files"), None);
    }
    let mut sources = Vec::new();
    for path in paths.into_iter().take(FILES_MAX) {
        match dates(&path) {
            Ok(found) => {
                let dates = found.dates.into_iter().collect();
                sources.push(Source { key, file: Some(path), dates, left_out: found.left_out });
            }
            Err(error) => {
                let hint = "an iCalendar file, e.g. `holidays.ics`, relative to gpuctl.toml";
                let message = format!("`{}` {error}", excerpt(&path));
                section.problem(key, span.clone(), message, Some(hint.to_owned()));
            }
        }
    }
    sources
}

fn too_many(section: &mut Section<'_, '_, '_>, key: &'static str, at: Range<usize>) {
    let error = EntryError::TooManyDates;
    section.problem(key, at, error.to_string(), Some(error.hint()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    const SUBMIT: &str = "[pool.gpu]\nqueue = \"jobs\"\n[[pool.gpu.submit]]\nname = \"nightly\"\nzone = \"Asia/Tokyo\"\n\
        begin = \"02:00\"\ntask = \"vision.ocr\"\ninput = \"/data/a.png\"\n";

    #[test]
    fn a_submit_has_times_that_the_calendar_skips() {
        let text = format!("{SUBMIT}[pool.gpu.calendar]\nskip = [\"2026-12-02\"]");
        let policy = Policy::parse(&text).unwrap();
        let submit = &policy.pools[0].submits[0];
        assert_eq!((submit.name.as_str(), submit.task.as_str()), ("nightly", "vision.ocr"));
        let at = |text: &str| text.parse::<crate::units::Timestamp>().unwrap();
        let first = at("2026-11-30T17:00:00Z");
        assert_eq!(submit.when.last_start(first), Some(first));
        assert_eq!(submit.when.last_start(at("2026-12-01T16:59:00Z")), Some(first));
        assert_eq!(submit.when.next_start(first), Some(at("2026-12-02T17:00:00Z")));
    }

    #[test]
    fn a_submit_that_could_not_be_carried_out_is_rejected_with_a_hint() {
        let again = SUBMIT.split_once("[[").unwrap().1;
        for (text, wanted) in [
            (SUBMIT.replace("begin = \"02:00\"\n", ""), "has no time"),
            (SUBMIT.replace("zone = \"Asia/Tokyo\"\n", ""), "zone: is missing"),
            (SUBMIT.replace("name = \"nightly\"\n", ""), "name: is missing"),
            (SUBMIT.replace("/data/", ""), "neither an absolute path nor a URI"),
            (format!("{SUBMIT}stop = \"rate(1 day)\"\n"), "stop"),
            (format!("{SUBMIT}priority = \"urgent\"\n"), "is not a priority"),
            (format!("{SUBMIT}[[{again}"), "has the name `nightly`, too"),
            (SUBMIT.replace("queue = \"jobs\"", "command = [\"x\"]"), "has no queue to submit to"),
        ] {
            let problems = Policy::parse(&text).unwrap_err();
            let all: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
            assert!(all.iter().any(|one| one.contains(wanted)), "{text}\n{all:?}");
        }
    }

    #[test]
    fn ranges_that_overlap_are_made_into_dates_once() {
        let range = |text: &str| Calendar::parse_range(text).unwrap();
        let same = vec![range("2026-01-01..2060-12-31"); 1_000];
        assert_eq!(dates_in(same).unwrap().len(), 12_784);
        let joined =
            vec![range("2026-01-05"), range("2026-01-01..2026-01-03"), range("2026-01-02")];
        assert_eq!(dates_in(joined).unwrap().len(), 4);
        let years = |year| range(&format!("{year}-01-01..{}-12-31", year + 30));
        assert_eq!(dates_in((0..6).map(|index| years(1970 + 31 * index)).collect()), None);
    }
}
