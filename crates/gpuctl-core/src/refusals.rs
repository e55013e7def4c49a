//! Which offerings EC2 would refuse now, as far as the latest runs tell: `decide::capacity` asks this before each start.
//!
//! Refusals are stored only as runs in the ledger: a refused start is a run with a refusal. What is known of capacity is
//! derived from the runs each time, so that it cannot disagree with them.

use chrono::TimeDelta;

use crate::observation::Run;
use crate::offering::{Offering, RefusalClass};
use crate::units::{Timestamp, doubled, show_duration};

/// The most refused starts of one reconcile; the next one tries the rest. A pool rarely has more offerings in one region.
pub const REFUSALS_MAX: u32 = 12;

/// A refusal that still counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveRefusal {
    /// When EC2 refused.
    pub at: Timestamp,
    /// When the offering may be tried again.
    pub until: Timestamp,
    pub class: RefusalClass,
}

/// The refusal of `offering`, or of one that it shares the cause with, that still counts at `now`; `runs` are newest first.
///
/// Each further refusal in a row makes it count for longer. A start that succeeded ends the row.
#[must_use]
pub fn refused(runs: &[Run], offering: &Offering, now: Timestamp) -> Option<ActiveRefusal> {
    // The common case.
    if runs.iter().all(|run| run.refusal.is_none()) {
        return None;
    }
    let mut succeeded: Vec<&Offering> = Vec::new();
    let mut row: Option<(Timestamp, RefusalClass, usize)> = None;
    for run in runs {
        let Some(other) = &run.offering else { continue };
        let Some(refusal) = &run.refusal else {
            succeeded.extend(run.ready_at.map(|_| other));
            continue;
        };
        let class = refusal.class;
        if !covers(class, other, offering)
            || succeeded.iter().any(|one| covers(class, one, offering))
        {
            continue;
        }
        match &mut row {
            None => row = Some((run.started_at, class, 0)),
            Some((_, first, repeats)) if *first == class => *repeats += 1,
            Some(_) => {}
        }
    }
    let (at, class, repeats) = row?;
    let (first, most) = expiry(class);
    let until = at + doubled(first, repeats, most);
    (until > now).then_some(ActiveRefusal { at, until, class })
}

/// How long a refusal counts the first time, and at most: it doubles with each further one in a row.
fn expiry(class: RefusalClass) -> (TimeDelta, TimeDelta) {
    match class {
        // Karpenter remembers for 3 minutes. Asking costs one call, and a box on demand costs three times as much as spot for as
        // long as spot is thought to have no capacity: so the time grows, but not far.
        RefusalClass::Capacity => (TimeDelta::minutes(3), TimeDelta::minutes(12)),
        RefusalClass::Quota => (TimeDelta::minutes(30), TimeDelta::hours(6)),
        RefusalClass::NotOffered => (TimeDelta::hours(24), TimeDelta::hours(24)),
    }
}

/// Whether the refusal of `refused` means that `other` would be refused too.
fn covers(class: RefusalClass, refused: &Offering, other: &Offering) -> bool {
    match class {
        RefusalClass::Capacity => refused == other,
        RefusalClass::Quota => refused.capacity == other.capacity,
        RefusalClass::NotOffered => {
            refused.instance_type == other.instance_type && refused.zone == other.zone
        }
    }
}

/// The zones that the newest refusal with such a list names as having capacity.
#[must_use]
pub fn zone_hints(runs: &[Run], now: Timestamp) -> Vec<String> {
    let fresh = |run: &&Run| now - run.started_at < expiry(RefusalClass::Capacity).0;
    let newest = runs.iter().filter(fresh).find_map(|run| {
        let (refusal, offering) = (run.refusal.as_ref()?, run.offering.as_ref()?);
        let zones = zones_in(&refusal.text);
        Some(zones.into_iter().filter(|zone| *zone != offering.zone).map(str::to_owned).collect())
    });
    newest.unwrap_or_default()
}

/// The words of a text that look like availability zones, e.g. `us-east-1b`.
fn zones_in(text: &str) -> Vec<&str> {
    let is_zone = |word: &str| {
        let parts: Vec<&str> = word.split('-').collect();
        let lower = |part: &&str| part.len() >= 2 && part.bytes().all(|b| b.is_ascii_lowercase());
        let (Some(last), true) = (parts.last(), (3..=5).contains(&parts.len())) else {
            return false;
        };
        let tail = last.as_bytes();
        parts[..parts.len() - 1].iter().all(lower)
            && matches!(tail, [digit, letter] if digit.is_ascii_digit() && letter.is_ascii_lowercase())
    };
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| is_zone(word))
        .collect()
}

/// This number of interruptions …
pub const INTERRUPTIONS_MAX: usize = 3;
/// … within this time means that spot is not tried until the same time after the last one has passed (P14).
pub const INTERRUPTION_WINDOW: TimeDelta = TimeDelta::hours(1);

/// Until when spot is not tried because it was interrupted too often.
#[must_use]
pub fn spot_pause(runs: &[Run], now: Timestamp) -> Option<Timestamp> {
    let mut ends: Vec<Timestamp> = runs.iter().filter_map(|run| run.interrupted_at).collect();
    ends.sort_unstable();
    ends.windows(INTERRUPTIONS_MAX)
        .filter(|row| row[INTERRUPTIONS_MAX - 1] - row[0] <= INTERRUPTION_WINDOW)
        .map(|row| row[INTERRUPTIONS_MAX - 1] + INTERRUPTION_WINDOW)
        .next_back()
        .filter(|until| *until > now)
}

impl ActiveRefusal {
    /// The end of a sentence that begins with the offering.
    #[must_use]
    pub fn describe(&self, now: Timestamp) -> String {
        let left = show_duration(self.until - now);
        match self.class {
            RefusalClass::Capacity => format!("had no capacity; will be retried in {left}"),
            RefusalClass::Quota => {
                format!("is over the account's quota; will be retried in {left}")
            }
            RefusalClass::NotOffered => "is not offered there".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offering::{CapacityType, Refusal};
    use crate::plan::{Reason, Rule};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn offering(zone: &str, capacity: CapacityType) -> Offering {
        Offering { instance_type: "g4dn.xlarge".into(), zone: zone.into(), capacity }
    }

    fn run(started: i64, offering: &Offering, refusal: Option<(RefusalClass, &str)>) -> Run {
        let start = Reason::new(Rule::Demand, "1 job waits");
        let pool = "gpu".parse().unwrap();
        Run {
            ready_at: refusal.is_none().then(|| at(started + 60)),
            stopped_at: Some(at(started + 90)),
            offering: Some(offering.clone()),
            refusal: refusal.map(|(class, text)| Refusal { class, text: text.into() }),
            ..Run::begin(pool, "gpu-1".parse().unwrap(), at(started), start)
        }
    }

    #[test]
    fn a_refusal_counts_for_longer_with_each_one_in_a_row() {
        let spot = offering("us-east-1a", CapacityType::Spot);
        let no = |started| run(started, &spot, Some((RefusalClass::Capacity, "none")));
        let until = |runs: &[Run]| refused(runs, &spot, at(1_000)).map(|active| active.until);
        assert_eq!(until(&[]), None);
        assert_eq!(until(&[no(900)]), Some(at(900 + 180)));
        assert_eq!(until(&[no(900), no(700)]), Some(at(900 + 360)));
        let many: Vec<Run> = (0..40).map(|n| no(900 - n)).collect();
        assert_eq!(until(&many), Some(at(900 + 720)));
    }

    #[test]
    fn a_successful_start_ends_the_row_of_refusals() {
        let spot = offering("us-east-1a", CapacityType::Spot);
        let no = |started| run(started, &spot, Some((RefusalClass::Capacity, "none")));
        let until = |runs: &[Run]| refused(runs, &spot, at(1_000)).map(|active| active.until);
        assert_eq!(until(&[no(900), run(800, &spot, None), no(700)]), Some(at(900 + 180)));
        assert_eq!(until(&[run(950, &spot, None), no(900)]), None);
    }

    #[test]
    fn p9_a_quota_covers_its_capacity_type_and_a_missing_offer_its_zone() {
        let (a, b) = (
            offering("us-east-1a", CapacityType::Spot),
            offering("us-east-1b", CapacityType::Spot),
        );
        let on_demand = offering("us-east-1a", CapacityType::OnDemand);
        let quota = [run(990, &a, Some((RefusalClass::Quota, "MaxSpotInstanceCountExceeded")))];
        assert!(refused(&quota, &b, at(1_000)).is_some());
        assert!(refused(&quota, &on_demand, at(1_000)).is_none());
        let absent = [run(990, &a, Some((RefusalClass::NotOffered, "Unsupported")))];
        assert!(refused(&absent, &on_demand, at(1_000)).is_some());
        assert!(refused(&absent, &b, at(1_000)).is_none());
    }

    #[test]
    fn the_refusal_names_zones_that_have_capacity() {
        let spot = offering("us-east-1a", CapacityType::Spot);
        let text = "We currently do not have sufficient g4dn.xlarge capacity in the Availability Zone you requested \
            (us-east-1a). You can currently get g4dn.xlarge capacity by not specifying an Availability Zone in your request \
            or choosing us-east-1b, us-east-1f.";
        let runs = [run(990, &spot, Some((RefusalClass::Capacity, text)))];
        assert_eq!(zone_hints(&runs, at(1_000)), ["us-east-1b", "us-east-1f"]);
        assert_eq!(zone_hints(&runs, at(9_000)), Vec::<String>::new());
        assert_eq!(
            zones_in("ap-northeast-1a, us-gov-west-1b; a-b-1c x-1 us--1a é"),
            ["ap-northeast-1a", "us-gov-west-1b"]
        );
    }

    #[test]
    fn p14_three_interruptions_within_an_hour_pause_spot_for_an_hour() {
        let spot = offering("us-east-1a", CapacityType::Spot);
        let interrupted =
            |ended| Run { interrupted_at: Some(at(ended)), ..run(ended - 90, &spot, None) };
        let pause = |ends: &[i64]| {
            let runs: Vec<Run> = ends.iter().map(|end| interrupted(*end)).collect();
            spot_pause(&runs, at(10_000))
        };
        assert_eq!(pause(&[9_900, 9_000]), None);
        assert_eq!(pause(&[9_900, 9_000, 7_000]), Some(at(13_500)));
        assert_eq!(pause(&[9_900, 9_000, 6_000]), None);
        assert_eq!(pause(&[6_300, 6_200, 6_100]), None);
    }
}
