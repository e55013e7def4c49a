use crate::text::with_causes;

use super::*;

fn file(events: &[&str]) -> String {
    let events: String =
        events.iter().map(|event| format!("BEGIN:VEVENT\r\n{event}\r\nEND:VEVENT\r\n")).collect();
    format!("BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{events}END:VCALENDAR\r\n")
}

fn read(text: &str) -> Result<Vec<String>, CalendarError> {
    Ok(dates_in(text)?.dates.iter().map(ToString::to_string).collect())
}

fn dates(events: &[&str]) -> Result<Vec<String>, CalendarError> {
    read(&file(events))
}

#[track_caller]
fn check(events: &[&str], expected: &[&str]) {
    assert_eq!(dates(events).unwrap(), expected, "{events:?}");
}

/// What messages say of a file that is rejected.
#[track_caller]
fn fault(events: &[&str]) -> String {
    dates(events).unwrap_err().to_string()
}

#[test]
fn all_day_events_are_dates_and_their_end_is_not_among_them() {
    let found = dates(&[
        "SUMMARY:Christmas\r\nDTSTART;VALUE=DATE:20261224\r\nDTEND;VALUE=DATE:20261226",
        "DTSTART;VALUE=DATE:20261231",
        "DTSTART;VALUE=DATE:20270105\r\nDURATION:P2D",
        "SUMMARY:a meeting\r\nDTSTART:20261201T090000Z\r\nDTEND:20261201T100000Z",
        "STATUS:CANCELLED\r\nDTSTART;VALUE=DATE:20261202",
    ]);
    let expected = ["2026-12-24", "2026-12-25", "2026-12-31", "2027-01-05", "2027-01-06"];
    assert_eq!(found.unwrap(), expected);
    let one = "DTSTART;VALUE=DATE:20261225\r\n";
    for length in [
        "DTEND;VALUE=DATE:20261225",
        "DURATION:P1DT0H0M0S",
        "DURATION:+P1D",
        "DURATION:PT24H",
        "DTEND:20261226T000000",
    ] {
        check(&[&format!("{one}{length}")], &["2026-12-25"]);
    }
}

#[test]
fn midnight_to_midnight_is_all_day() {
    for event in [
        "DTSTART:20261225T000000\r\nDTEND:20261226T000000",
        "DTSTART;TZID=Europe/Berlin:20261225T000000\r\nDTEND;TZID=Europe/Berlin:20261226T000000",
        "DTSTART;TZID=\"W. Europe Standard Time\":20261225T000000\r\nDURATION:P1D",
        "DTSTART;TZID=W. Europe Standard Time:20261225T000000\r\nDURATION:P1D",
        "DTSTART;VALUE=DATE-TIME:20261225T000000\r\nDTEND;VALUE=DATE-TIME:20261225T235900",
        "DTSTART:20261225T000000\r\nDTEND:20261225T235959",
        "DTSTART:20261225T000000Z\r\nDTEND:20261226T000000Z",
        "DTSTART:20261224T230000Z\r\nDTEND:20261225T230000Z\r\nX-MICROSOFT-CDO-ALLDAYEVENT:TRUE",
        "DTSTART;TZID=An own zone:20261225T000000\r\nX-MICROSOFT-CDO-ALLDAYEVENT:true",
    ] {
        check(&[event], &["2026-12-25"]);
    }
    let mut text = file(&["DTSTART:20261224T230000Z\r\nDTEND:20261225T230000Z"]);
    assert!(matches!(read(&text), Err(CalendarError::Nothing { .. })));
    text = text.replace("VERSION:2.0\r\n", "VERSION:2.0\r\nX-WR-TIMEZONE:Europe/Berlin\r\n");
    assert_eq!(read(&text).unwrap(), ["2026-12-25"]);
}

#[test]
fn recurrences_are_followed_through_forty_years_and_no_further() {
    let yearly = dates(&["DTSTART;VALUE=DATE:19701225\r\nRRULE:FREQ=YEARLY"]).unwrap();
    assert_eq!(
        (yearly.len(), yearly[0].as_str(), yearly[39].as_str()),
        (40, "2020-12-25", "2059-12-25")
    );
    let daily = dates(&["DTSTART;VALUE=DATE:19700101\r\nRRULE:FREQ=DAILY"]).unwrap();
    assert_eq!(daily.len(), 14_610);
    check(
        &[
            "DTSTART;VALUE=DATE:20260105\r\nRRULE:FREQ=WEEKLY;BYDAY=MO;UNTIL=20260126\r\nEXDATE;VALUE=DATE:20260112,20260119\r\nRDATE;VALUE=DATE:20260201",
        ],
        &["2026-01-05", "2026-01-26", "2026-02-01"],
    );
    check(
        &["DTSTART;VALUE=DATE:20261126\r\nRRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH;COUNT=3"],
        &["2026-11-26", "2027-11-25", "2028-11-23"],
    );
    check(
        &[
            "DTSTART;VALUE=DATE:20260301\r\nRRULE:FREQ=DAILY;COUNT=5\r\nEXRULE:FREQ=DAILY;INTERVAL=2;COUNT=3",
        ],
        &["2026-03-02", "2026-03-04"],
    );
    check(
        &[
            "DTSTART;VALUE=DATE:20260105\r\nRRULE:FREQ=DAILY;UNTIL=20260101",
            "DTSTART;VALUE=DATE:20260106\r\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
            "DTSTART;VALUE=DATE:20260201",
        ],
        &["2026-01-06", "2026-02-01"],
    );
}

#[test]
fn date_times_in_utc_mean_the_local_day() {
    check(
        &["DTSTART;VALUE=DATE:20241020\r\nRRULE:FREQ=YEARLY;UNTIL=20261019T230000Z"],
        &["2024-10-20", "2025-10-20", "2026-10-20"],
    );
    check(
        &[
            "DTSTART;VALUE=DATE:20260301\r\nRRULE:FREQ=DAILY;COUNT=3\r\nEXDATE:20260301T230000Z\r\nRDATE:20260308T230000Z",
        ],
        &["2026-03-01", "2026-03-03", "2026-03-09"],
    );
    check(
        &[
            "DTSTART;TZID=America/New_York:20260301T000000\r\nDURATION:P1D\r\nRRULE:FREQ=DAILY;COUNT=3\r\nEXDATE:20260302T050000Z",
        ],
        &["2026-03-01", "2026-03-03"],
    );
}

#[test]
fn an_occurrence_can_be_moved_or_cancelled_or_changed_again() {
    let series = "UID:m\r\nDTSTART;VALUE=DATE:20250106\r\nRRULE:FREQ=YEARLY;COUNT=3";
    let id = "UID:m\r\nRECURRENCE-ID;VALUE=DATE:20260106\r\n";
    let moved = format!("{id}DTSTART;VALUE=DATE:20260108");
    check(&[series, &moved], &["2025-01-06", "2026-01-08", "2027-01-06"]);
    check(&[&moved, series], &["2025-01-06", "2026-01-08", "2027-01-06"]);
    let cancelled = format!("{id}DTSTART;VALUE=DATE:20260106\r\nSTATUS:Cancelled");
    check(&[series, &cancelled], &["2025-01-06", "2027-01-06"]);
    let to_a_time = format!("{id}DTSTART:20260106T090000\r\nDTEND:20260106T100000");
    check(&[series, &to_a_time], &["2025-01-06", "2027-01-06"]);
    let again = format!("{id}DTSTART;VALUE=DATE:20260109\r\nSEQUENCE:2");
    check(&[series, &again, &moved], &["2025-01-06", "2026-01-09", "2027-01-06"]);
    let utc = "UID:m\r\nRECURRENCE-ID:20260105T230000Z\r\nDTSTART;VALUE=DATE:20260108";
    check(&[series, utc], &["2025-01-06", "2026-01-08", "2027-01-06"]);
    let of_another = moved.replace("UID:m", "UID:other");
    check(&[series, &of_another], &["2025-01-06", "2026-01-06", "2026-01-08", "2027-01-06"]);
    let later = "UID:m\r\nSUMMARY:Closing\r\nRECURRENCE-ID;RANGE=THISANDFUTURE;VALUE=DATE:20260106\r\nDTSTART;VALUE=DATE:20260108";
    let told = fault(&[series, later]);
    assert!(told.contains("RANGE=THISANDFUTURE") && told.contains("\"Closing\""), "{told}");
    // Producers that give all their events the same UID.
    check(
        &["UID:a\r\nDTSTART;VALUE=DATE:20260105", "UID:a\r\nDTSTART;VALUE=DATE:20260205"],
        &["2026-01-05", "2026-02-05"],
    );
}

#[test]
fn names_are_read_in_any_case_and_a_file_may_hold_several_calendars() {
    let text = file(&[
        "dtstart;value=date:20260301\r\nrrule:freq=daily;count=3\r\nexdate;value=date:20260302",
        "DtStart;Value=Date:20261225\r\nStatus:cancelled",
    ]);
    assert_eq!(read(&text).unwrap(), ["2026-03-01", "2026-03-03"]);
    let lower = text.replace("BEGIN:", "begin:").replace("VEVENT", "vEvent");
    let two = format!("\u{feff}{lower}\r\n{}", file(&["DTSTART;VALUE=DATE:20261226"]));
    assert_eq!(read(&two).unwrap(), ["2026-03-01", "2026-03-03", "2026-12-26"]);
}

#[test]
fn a_message_names_the_event() {
    let summary = "SUMMARY:Tag der \u{1b}[31m\r\n  Einheit\r\n";
    let event = format!("{summary}DTSTART;VALUE=DATE:20261003\r\nX-OWN:fine\r\nRSCALE:CHINESE");
    let told = fault(&["DTSTART;VALUE=DATE:20261225", &event]);
    assert_eq!(
        told,
        r#"has an event (line 6, "Tag der \u{1b}[31m Einheit", 20261003) that has the property RSCALE, whose effect on its dates is not known"#
    );
    let long = fault(&[&format!("SUMMARY:{}", "x".repeat(100_000))]);
    assert!(long.len() < 300, "{long}");
}

#[test]
fn a_file_of_which_any_part_is_not_understood_is_rejected() {
    for event in [
        "SUMMARY:no start",
        "DTSTART;VALUE=DATE:2026122",
        "DTSTART;VALUE=DATE:20261301",
        "DTSTART:20261225T999999",
        "DTSTART;VALUE=PERIOD:20261225",
        "DTSTART;VALUE=DATE:20261224\r\nDTSTART;VALUE=DATE:20261225",
        "DTSTART;VALUE=DATE:20261224\r\nDTEND;VALUE=DATE:20261223",
        "DTSTART;VALUE=DATE:20261224\r\nDTEND;VALUE=DATE:20281224",
        "DTSTART;VALUE=DATE:20261224\r\nDURATION:PT1H",
        "DTSTART;VALUE=DATE:20261224\r\nDURATION:-P1D",
        "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=SECONDLY",
        "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=NEVER",
        "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=YEARLY;INTERVAL=0",
        "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=YEARLY;COUNT=0",
        "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=YEARLY;BYHOUR=9",
        "DTSTART;VALUE=DATE:20261224\r\nRRULE:RSCALE=CHINESE;FREQ=YEARLY",
        "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=YEARLY;UNTIL=soon",
        "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=MONTHLY;BYDAY=-\u{3fa}O",
        "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=MONTHLY;BYDAY=x1MO",
        "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=MONTHLY;BYDAY=MO,99999TU",
        "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=WEEKLY;BYDAY=1MO",
        "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=DAILY;BYDAY=-1FR",
        "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=YEARLY;BYWEEKNO=20;BYDAY=1MO",
        "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=MONTHLY;BYMONTHDAY=0",
        "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=MONTHLY;BYSETPOS=1",
        "DTSTART;VALUE=DATE:20261224\r\nEXRULE:FREQ=NEVER",
        "DTSTART;VALUE=DATE:20261224\r\nEXDATE:soon",
        "DTSTART;VALUE=DATE:20261224\r\nEXDATE:20261224T093700Z",
        "DTSTART;VALUE=DATE:20261224\r\nRECURRENCE-ID;VALUE=DATE:20261224",
        "DTSTART;VALUE=DATE:20261224\r\nEXDATES;VALUE=DATE:20261224",
    ] {
        let told = fault(&[event]);
        assert!(told.starts_with("has an event (line 3"), "{event}: {told}");
    }
    let deep = format!("BEGIN:VCALENDAR\n{}", "BEGIN:A\n".repeat(100_000));
    let event = "BEGIN:VEVENT\nDTSTART:20261224\nEND:VEVENT\n";
    for text in ["", "a text", "BEGIN:VCALENDAR\n", event, &deep, "BEGIN:VCALENDAR\nEND:VEVENT\n"] {
        assert!(matches!(dates_in(text), Err(CalendarError::Form(_))), "{text:.40}");
    }
    for (line, is_taken) in [
        ("METHOD:REPLY", false),
        ("CALSCALE:CHINESE", false),
        ("METHOD:PUBLISH", true),
        ("calscale:gregorian", true),
    ] {
        let text = format!("BEGIN:VCALENDAR\n{line}\n{event}END:VCALENDAR\n");
        assert_eq!(dates_in(&text).is_ok(), is_taken, "{line}");
    }
}

#[test]
fn a_file_without_dates_says_so() {
    let told = fault(&[
        "DTSTART:20261201T090000Z\r\nDTEND:20261201T100000Z",
        "DTSTART;VALUE=DATE:20261201\r\nSTATUS:CANCELLED",
    ]);
    let events = "1 with a time of day, 1 cancelled";
    assert_eq!(told, format!("has no all-day event from 2020 to 2059; its events: {events}"));
    assert_eq!(fault(&[]), "has no all-day event from 2020 to 2059");
    let ended = fault(&[
        "SUMMARY:Old\r\nDTSTART;VALUE=DATE:20260105\r\nRRULE:FREQ=DAILY;UNTIL=20260101",
        "DTSTART;VALUE=DATE:19990105",
    ]);
    let events = "2 without an occurrence in these years (line 3, \"Old\", 20260105)";
    assert_eq!(ended, format!("has no all-day event from 2020 to 2059; its events: {events}"));
    let cancels = file(&["DTSTART;VALUE=DATE:20261201"]).replace("VERSION:2.0", "METHOD:CANCEL");
    let told = read(&cancels).unwrap_err().to_string();
    assert!(told.ends_with("; its events: 1 cancelled"), "{told}");
}

#[test]
fn only_a_small_regular_file_is_read() {
    let missing = dates_of(Path::new("/nowhere/a.ics")).unwrap_err();
    assert!(with_causes(&missing).starts_with("cannot be read: No such file"));
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large.ics");
    std::fs::write(&large, vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(matches!(dates_of(&large), Err(CalendarError::TooLarge)));
    let pipe = folder.path().join("pipe.ics");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    for path in [pipe.as_path(), folder.path(), Path::new("/dev/zero")] {
        assert!(matches!(dates_of(path), Err(CalendarError::NotAFile)), "{}", path.display());
    }
}

#[test]
fn the_work_of_a_file_has_a_limit() {
    let daily = "DTSTART;VALUE=DATE:20200101\r\nDURATION:P366D\r\nRRULE:FREQ=DAILY";
    assert_eq!(dates(&[daily, daily]).unwrap().len(), 14_610);
    let many = vec![daily; 1_000];
    assert!(fault(&many).ends_with("take too long to follow, together with those before it"));
    let never = "DTSTART;VALUE=DATE:20260101\r\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30";
    assert!(fault(&vec![never; 1_000]).contains("too long to follow"));
}
