//! Boxes that a user keeps up to look at them: by a file on the box, or by a hold.
//!
//! Either delays everything that would power the box off except `lifetime_max`. The file keeps its own box, whatever else wants it
//! down. A hold keeps boxes that fail; which of them are needed is for the hold's own rule.

use super::{PoolInput, hold};
use crate::cost::hour_price;
use crate::observation::{HoldWants, SeenBox};
use crate::plan::KeptBox;
use crate::units::{BoxId, MicroUsd, Timestamp, show_duration};

use chrono::TimeDelta;

/// How far ahead the time in a box's file `keep-until` may lie: one that is further ahead does not count.
pub const KEEP_MAX: TimeDelta = TimeDelta::hours(12);

/// Until when the file on the box keeps it up.
pub(super) fn by_file(input: &PoolInput<'_>, one: &SeenBox) -> Option<Timestamp> {
    let until = one.worker.as_ref().filter(|_| one.is_up())?.keep_until?;
    (input.now < until && until <= input.now + KEEP_MAX).then_some(until)
}

/// Until when a failing box stays up all the same, and what keeps it: the later of file and hold.
pub(super) fn failing(input: &PoolInput<'_>, one: &SeenBox) -> Option<(Timestamp, String)> {
    let file = by_file(input, one).map(|until| (until, file_of(&one.id)));
    let hold = hold::in_force(input)
        .filter(|hold| one.is_up() && hold.wants == HoldWants::Running)
        .map(|hold| (hold.until, "the hold".to_owned()));
    file.into_iter().chain(hold).max_by_key(|(until, _)| *until)
}

/// What a user should know of the boxes that are kept up, with what that costs.
pub(super) fn kept_boxes(input: &PoolInput<'_>) -> Vec<KeptBox> {
    let kept = |one: &SeenBox| {
        let (until, by) = failing(input, one)?;
        let by_file = by_file(input, one) == Some(until);
        let until = until.min(one.up_since() + input.pool.lifetime_max);
        if until <= input.now {
            return None;
        }
        let cost = at_most(input, one, until);
        let price = match cost {
            Some(cost) => format!(", at most {cost}"),
            None if one.offering.is_some() => ", at a price that is not known".to_owned(),
            None => String::new(),
        };
        let left = show_duration(until - input.now);
        let text = format!("{by} keeps {} up for {left} more{price}", one.id);
        Some(KeptBox { box_id: one.id.clone(), until, by_file, cost, text })
    };
    input.boxes().iter().filter_map(kept).collect()
}

/// The most that a box costs until then, if its price is known.
fn at_most(input: &PoolInput<'_>, one: &SeenBox, until: Timestamp) -> Option<MicroUsd> {
    let hour = hour_price(input.cost, one.offering.as_ref()?).at_most()?;
    Some(hour.per_hour_for((until - input.now).num_seconds()))
}

fn file_of(id: &BoxId) -> String {
    format!("the file `keep-until` on {id}")
}
