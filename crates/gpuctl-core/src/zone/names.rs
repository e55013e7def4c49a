//! What users write in place of a zone's name, and the name that they mean.

use super::Zone;
use crate::suggest::nearest;

/// Windows' names of zones, as Outlook writes them, from Unicode's CLDR.
const WINDOWS: &str = include_str!("windows.csv");

/// Abbreviations, each with the zones that use it.
const ABBREVIATIONS: &str = include_str!("abbreviations.csv");

/// Zones that are an hour wrong in summer for those who take them for their own, and the zones they may mean.
const FIXED: [(&str, &str); 3] =
    [("EST", "America/New_York"), ("MST", "America/Denver"), ("HST", "Pacific/Honolulu")];

/// Longer texts are no names.
const NAME_CHARS_MAX: usize = 64;

/// The zone that Windows calls `name`.
#[must_use]
pub fn of_windows(name: &str) -> Option<&'static str> {
    let mut rows = WINDOWS.lines().filter_map(|row| row.split_once(','));
    rows.find(|(windows, _)| windows.eq_ignore_ascii_case(name.trim())).map(|(_, zone)| zone)
}

/// What to write in place of `text`, which is not the name of a zone.
pub(crate) fn hint(text: &str) -> String {
    let example = || "use a name from the IANA database, e.g. `Asia/Tokyo` or `UTC`".to_owned();
    let text = text.trim();
    if text.chars().count() > NAME_CHARS_MAX {
        return example();
    }
    let meant = |name: &str| format!("did you mean `{name}`?");
    let in_another_case = || Zone::names().find(|name| name.eq_ignore_ascii_case(text)).map(meant);
    in_another_case()
        .or_else(|| of_abbreviation(text))
        .or_else(|| of_offset(text))
        .or_else(|| of_windows(text).map(meant))
        .or_else(|| of_city(text).map(meant))
        .unwrap_or_else(example)
}

/// What probably is not meant by a zone that has the same offset all year.
pub(crate) fn lint(zone: Zone) -> Option<(String, String)> {
    let name = zone.name();
    if let Some((_, real)) = FIXED.iter().find(|(fixed, _)| *fixed == name) {
        let message = format!("`{name}` has the same offset from UTC all year, also in summer");
        return Some((message, format!("write `{real}` if you mean its clocks")));
    }
    let hours = name.strip_prefix("Etc/GMT")?.trim_start_matches('0');
    let ahead = match hours.split_at_checked(1)? {
        ("+", hours) if hours != "0" => format!("{hours} hours behind"),
        ("-", hours) if hours != "0" => format!("{hours} hours ahead of"),
        _ => return None,
    };
    let message =
        format!("`{name}` is {ahead} UTC all year: its sign is the opposite of the usual one");
    Some((
        message,
        "write the name of a city, e.g. `Asia/Tokyo`, if you mean its clocks".to_owned(),
    ))
}

fn of_abbreviation(text: &str) -> Option<String> {
    let mut rows = ABBREVIATIONS.lines().filter_map(|row| row.split_once(','));
    let (name, zones) = rows.find(|(name, _)| name.eq_ignore_ascii_case(text))?;
    let zones: Vec<String> = zones.split(',').map(|zone| format!("`{zone}`")).collect();
    Some(match zones.split_last()? {
        (only, []) => format!("did you mean {only}?"),
        (last, others) => {
            format!("`{name}` is used in several: did you mean {} or {last}?", others.join(", "))
        }
    })
}

/// `GMT+9`, `UTC+09:00` and `+0900` mean nine hours ahead of UTC; the database's names have the opposite sign.
fn of_offset(text: &str) -> Option<String> {
    let upper = text.to_ascii_uppercase();
    let offset = upper.strip_prefix("GMT").or(upper.strip_prefix("UTC")).unwrap_or(&upper);
    let (sign, rest) = offset.trim().split_at_checked(1)?;
    let opposite = match sign {
        "+" => '-',
        "-" | "−" => '+',
        _ => return None,
    };
    let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
    let (hours, minutes) = match digits.len() {
        1 | 2 => (digits.as_str(), ""),
        3 | 4 => digits.split_at(digits.len() - 2),
        _ => return None,
    };
    let hours: u8 = hours.parse().ok()?;
    let name = format!("Etc/GMT{opposite}{hours}");
    let city = "a city's name, e.g. `Asia/Tokyo`, also follows its clocks";
    let whole = minutes.trim_matches('0').is_empty();
    if hours == 0 && whole {
        return Some("did you mean `UTC`?".to_owned());
    }
    (whole && name.parse::<Zone>().is_ok())
        .then(|| {
            format!("`{text}` is `{name}` in the IANA database, with the opposite sign; {city}")
        })
        .or_else(|| Some(format!("an offset is not a time zone: write {city}")))
}

/// A zone whose last part is the text, or whose parts all have at most a mistake or two: `Tokyo`, `Amercia/New York`.
fn of_city(text: &str) -> Option<&'static str> {
    let text = text.replace(' ', "_");
    let (area, city) = text.rsplit_once('/').unwrap_or(("", &text));
    let split = |name: &'static str| name.rsplit_once('/').unwrap_or(("", name));
    if area.is_empty() {
        let mut names = Zone::names();
        let found = names.find(|name| split(name).1.eq_ignore_ascii_case(city));
        return found.or_else(|| {
            let cities = Zone::names().filter(|name| name.contains('/')).map(|name| split(name).1);
            let near = nearest(city, cities)?;
            Zone::names().find(|name| split(name).1 == near)
        });
    }
    let areas = Zone::names().map(|name| split(name).0).filter(|area| !area.is_empty());
    let area = nearest(area, areas)?;
    let cities = Zone::names().map(split).filter(|(of, _)| *of == area).map(|(_, city)| city);
    let near = nearest(city, cities)?;
    Zone::names().find(|name| split(name) == (area, near))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_the_tables_is_one_of_the_database() {
        let rows = WINDOWS.lines().chain(ABBREVIATIONS.lines());
        for row in rows {
            for zone in row.split(',').skip(1) {
                assert!(zone.parse::<Zone>().is_ok(), "{row}");
            }
        }
        for (fixed, real) in FIXED {
            assert!(fixed.parse::<Zone>().is_ok() && real.parse::<Zone>().is_ok(), "{fixed}");
        }
        for row in ABBREVIATIONS.lines() {
            let name = row.split(',').next().unwrap();
            assert!(name.parse::<Zone>().is_err(), "{name} is a zone itself");
        }
    }

    #[test]
    fn what_is_meant_is_suggested_and_nothing_else() {
        for (text, expected) in [
            ("JST", "did you mean `Asia/Tokyo`?"),
            ("jst", "did you mean `Asia/Tokyo`?"),
            ("utc ", "did you mean `UTC`?"),
            ("Z", "did you mean `UTC`?"),
            ("asia/tokyo", "did you mean `Asia/Tokyo`?"),
            ("Tokyo", "did you mean `Asia/Tokyo`?"),
            ("Asia/Tokio", "did you mean `Asia/Tokyo`?"),
            ("Amercia/New York", "did you mean `America/New_York`?"),
            ("W. Europe Standard Time", "did you mean `Europe/Berlin`?"),
            ("UTC+0", "did you mean `UTC`?"),
        ] {
            assert_eq!(hint(text), expected, "{text}");
        }
        for (text, part) in [
            ("PST", "`America/Los_Angeles`"),
            ("EDT", "`America/New_York`"),
            ("MSK", "`Europe/Moscow`"),
            ("IST", "`Asia/Kolkata`, `Europe/Dublin` or `Asia/Jerusalem`"),
            ("GMT+9", "`Etc/GMT-9`"),
            ("+05:30", "write a city's name"),
        ] {
            assert!(hint(text).contains(part), "{text}: {}", hint(text));
        }
        let long = "A".repeat(1_000_000);
        for text in ["", "Asia/Osaka", "Mars", &long] {
            assert!(hint(text).starts_with("use a name"), "{:.20}: {}", text, hint(text));
        }
    }

    #[test]
    fn a_zone_without_summer_time_in_an_everyday_name_is_warned_of() {
        let lint = |name: &str| lint(name.parse().unwrap()).map(|(message, hint)| message + &hint);
        assert!(lint("EST").unwrap().contains("America/New_York"));
        assert!(lint("Etc/GMT+5").unwrap().contains("5 hours behind UTC"));
        for name in ["UTC", "Etc/GMT", "Etc/GMT+0", "Asia/Tokyo", "America/New_York", "EST5EDT"] {
            assert_eq!(lint(name), None, "{name}");
        }
    }
}
