//! What box time costs: per-second billing with EC2's minimum, from dated tables of prices.
//!
//! Prices change: each row of a table says when it was taken, so that every figure can say how old its prices are.

mod prices;
mod services;
mod settings;

use chrono::TimeDelta;

pub use prices::{PRICES_MAX, Price, PriceSource, PriceTable, PriceTableError};
pub use services::{ServicePrice, service_price};
pub use settings::CostSettings;

use crate::observation::Run;
use crate::offering::Offering;
use crate::period::Period;
use crate::units::{MicroUsd, Timestamp};

/// EC2 bills Linux boxes by the second, but at least this many seconds a start.
pub const BILLED_SECONDS_MIN: i64 = 60;

/// The seconds that EC2 bills for one run of a box.
#[must_use]
pub fn billed_seconds(ran: TimeDelta) -> i64 {
    let whole = ran.num_seconds() + i64::from(ran.subsec_nanos() > 0);
    whole.max(BILLED_SECONDS_MIN)
}

/// The price of the policy's instance type in its region; `[cost] usd_hour` replaces the on-demand price of the tables.
#[must_use]
pub fn price_of(settings: &CostSettings) -> Option<Price> {
    let listed = settings.prices.price(&settings.instance_type, &settings.region).cloned();
    let Some(own) = settings.usd_hour else { return listed };
    Some(Price {
        instance_type: settings.instance_type.clone(),
        region: settings.region.clone(),
        on_demand: own,
        spot: listed.and_then(|price| price.spot),
        as_of: PriceSource::Policy.as_str().to_owned(),
        source: PriceSource::Policy,
    })
}

/// The region of a zone, e.g. `us-east-1` of `us-east-1a`.
#[must_use]
pub fn region_of(zone: &str) -> &str {
    zone.trim_end_matches(|c: char| c.is_ascii_lowercase())
}

/// What is known of the price of an hour of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HourPrice {
    Known(MicroUsd),
    /// The price on demand of a box on spot whose price is not known.
    AtMost(MicroUsd),
    Unknown,
}

impl HourPrice {
    /// The price, if it is known.
    #[must_use]
    pub fn known(self) -> Option<MicroUsd> {
        match self {
            Self::Known(hour) => Some(hour),
            Self::AtMost(_) | Self::Unknown => None,
        }
    }

    /// The most that an hour costs, if that is known.
    #[must_use]
    pub fn at_most(self) -> Option<MicroUsd> {
        match self {
            Self::Known(hour) | Self::AtMost(hour) => Some(hour),
            Self::Unknown => None,
        }
    }
}

/// The price of an hour of what EC2 offers: `[cost] usd_hour`, else the table's. A box that is still to be launched has that of the policy's
/// region.
#[must_use]
pub fn hour_price(settings: &CostSettings, offering: &Offering) -> HourPrice {
    if let Some(own) = settings.usd_hour {
        return HourPrice::Known(own);
    }
    let zone = if offering.is_unplaced() { &settings.region } else { &offering.zone };
    match settings.prices.price(&offering.instance_type, region_of(zone)) {
        Some(price) => price
            .hour(offering.capacity)
            .map_or(HourPrice::AtMost(price.on_demand), HourPrice::Known),
        None => HourPrice::Unknown,
    }
}

/// The price that an hour of a box is counted at: the known one, or the most that it may be.
///
/// Where neither is known, the on-demand price of the policy's instance type.
#[must_use]
pub fn usd_hour(settings: &CostSettings, offering: Option<&Offering>) -> Option<MicroUsd> {
    let known = offering.and_then(|offering| hour_price(settings, offering).at_most());
    known.or_else(|| Some(price_of(settings)?.on_demand))
}

/// What `runs` have cost from `since` until `now`, each at the price of its offering.
///
/// Of a run that began earlier only the part since `since` counts; a start that was refused costs nothing.
#[must_use]
pub fn spent_since(
    runs: &[Run],
    settings: &CostSettings,
    since: Timestamp,
    now: Timestamp,
) -> MicroUsd {
    let of_run = |run: &Run| {
        let hour = usd_hour(settings, run.offering.as_ref())?;
        Some(hour.per_hour_for(billed_within(run, since, now)?))
    };
    runs.iter().filter_map(of_run).sum()
}

/// The seconds of a run that are billed within a period; `None` for a run outside it, or a start without a run.
fn billed_within(run: &Run, since: Timestamp, now: Timestamp) -> Option<i64> {
    let ran = run.stopped_at.unwrap_or(now).min(now) - run.started_at.max(since);
    // EC2 refused the start, or never got the call.
    let never = run.ready_at.is_none() && run.stopped_at == Some(run.started_at);
    if ran < TimeDelta::zero() || run.refusal.is_some() || never {
        return None;
    }
    // The minimum is billed once a start: a run that began before the period has paid it there.
    Some(if run.started_at >= since { billed_seconds(ran) } else { ran.num_seconds() })
}

/// What a box costs a month that is up for `hours_per_day` on `days_per_month` days.
#[must_use]
pub fn month_of_use(hour: MicroUsd, hours_per_day: TimeDelta, days_per_month: u32) -> MicroUsd {
    hour.per_hour_for(hours_per_day.num_seconds().saturating_mul(i64::from(days_per_month)))
}

/// What boxes cost even while they are stopped: their disks and public addresses.
#[must_use]
pub fn standing(settings: &CostSettings, boxes: u32, lasts: TimeDelta) -> MicroUsd {
    let seconds = lasts.num_seconds().max(0);
    let disk =
        settings.disk_usd_gib_month.times(i64::from(settings.disk_gib)).per(MONTH_SECONDS, seconds);
    let address =
        if settings.public_ipv4 { IPV4_USD_HOUR.per_hour_for(seconds) } else { MicroUsd(0) };
    (disk + address).times(i64::from(boxes))
}

/// A month of 30 days, as in AWS's own pricing examples.
pub const MONTH_SECONDS: i64 = 30 * 86_400;

/// A day, below which nothing is said about a month.
const DAY_SECONDS: i64 = 86_400;

/// What a month of 30 days costs at the rate of a period that `lasts` so long, in which `boxes` boxes at `hour` cost `spent`.
///
/// `None` for less than a day, which says nothing about others. Never more than all boxes cost that are up all the time: the
/// minimum of a minute for each start could add up to more.
#[must_use]
pub fn month_at_this_rate(
    spent: MicroUsd,
    lasts: TimeDelta,
    hour: MicroUsd,
    boxes: u32,
) -> Option<MicroUsd> {
    let most = hour.per_hour_for(MONTH_SECONDS).times(i64::from(boxes));
    let seconds = lasts.num_seconds();
    (seconds >= DAY_SECONDS).then(|| spent.per(seconds, MONTH_SECONDS).min(most))
}

/// A GiB of gp3 a month in us-east-1, from AWS's price list of 2025; other regions charge up to a quarter more.
pub const GP3_USD_GIB_MONTH: MicroUsd = MicroUsd(80_000);

/// A public IPv4 address an hour, in use or not, in every region since 2024-02.
pub const IPV4_USD_HOUR: MicroUsd = MicroUsd(5_000);

/// What the boxes of a pool cost over a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BoxCost {
    /// Starts in the period.
    pub starts: u32,
    /// Seconds that boxes were up in the period.
    pub box_seconds: i64,
    /// Seconds that EC2 would bill for them.
    pub billed_seconds: i64,
    /// What these cost, each run at the price of its offering.
    pub spent: MicroUsd,
    /// Disks and addresses, also of stopped boxes.
    pub standing: MicroUsd,
    /// What the billed seconds would cost on demand.
    pub on_demand: MicroUsd,
    /// What the billed seconds would cost on spot; `None` without a spot price.
    pub spot: Option<MicroUsd>,
    /// What one on-demand box would cost that is up for the whole period.
    pub always_on: MicroUsd,
}

/// The runs of one offering, added up within a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunTotal {
    pub offering: Option<Offering>,
    /// When the first of them began.
    pub first: Timestamp,
    /// Starts in the period.
    pub starts: u32,
    /// Seconds that boxes were up in the period.
    pub box_seconds: i64,
    /// Seconds that EC2 would bill for them.
    pub billed_seconds: i64,
}

/// The runs within a period, added up by what they were bought as. A start that was refused is not among them.
#[must_use]
pub fn run_totals(runs: &[Run], period: Period) -> Vec<RunTotal> {
    let Period { begin, end } = period;
    let mut totals: Vec<RunTotal> = Vec::new();
    for run in runs {
        let Some(billed) = billed_within(run, begin, end) else { continue };
        let ran = run.stopped_at.unwrap_or(end).min(end) - run.started_at.max(begin);
        let index = totals.iter().position(|total| total.offering == run.offering);
        let index = index.unwrap_or_else(|| {
            let (offering, first) = (run.offering.clone(), run.started_at);
            totals.push(RunTotal { offering, first, starts: 0, box_seconds: 0, billed_seconds: 0 });
            totals.len() - 1
        });
        let total = &mut totals[index];
        total.first = total.first.min(run.started_at);
        total.starts += u32::from(run.started_at >= begin);
        total.box_seconds += (ran + TimeDelta::milliseconds(500)).num_seconds();
        total.billed_seconds += billed;
    }
    totals
}

/// What the runs and `boxes` cost in a period. `price` is that of the comparisons: on demand, spot, and always on.
#[must_use]
pub fn box_cost(
    runs: &[RunTotal],
    boxes: u32,
    period: Period,
    settings: &CostSettings,
    price: &Price,
) -> BoxCost {
    let Period { begin, end } = period;
    let mut cost = BoxCost {
        standing: standing(settings, boxes, end - begin),
        always_on: price.on_demand.per_hour_for((end - begin).num_seconds().max(0)),
        ..BoxCost::default()
    };
    for total in runs {
        cost.starts += total.starts;
        cost.box_seconds += total.box_seconds;
        cost.billed_seconds += total.billed_seconds;
        let hour = usd_hour(settings, total.offering.as_ref()).unwrap_or_default();
        cost.spent = cost.spent + hour.per_hour_for(total.billed_seconds);
    }
    cost.on_demand = price.on_demand.per_hour_for(cost.billed_seconds);
    cost.spot = price.spot.map(|spot| spot.per_hour_for(cost.billed_seconds));
    cost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offering::CapacityType;

    proptest::proptest! {
        #[test]
        fn a_month_is_never_said_of_less_than_a_day_nor_to_cost_more_than_all_of_it(
            spent in 0_i64..10_000_000_000,
            seconds in 0_i64..400 * 86_400,
            hour in 1_i64..100_000_000,
            boxes in 1_u32..100,
        ) {
            let lasts = TimeDelta::seconds(seconds);
            let month = month_at_this_rate(MicroUsd(spent), lasts, MicroUsd(hour), boxes);
            proptest::prop_assert_eq!(month.is_some(), seconds >= 86_400);
            let most = MicroUsd(24 * 30 * hour).times(boxes.into());
            proptest::prop_assert!(month.is_none_or(|month| month <= most));
        }
    }

    #[test]
    fn a_month_is_thirty_days_at_the_same_rate() {
        let month = |hours| {
            month_at_this_rate(MicroUsd(1_000_000), TimeDelta::hours(hours), MicroUsd(526_000), 1)
        };
        assert_eq!(month(23), None);
        assert_eq!(month(24), Some(MicroUsd(30_000_000)));
        assert_eq!(month(36), Some(MicroUsd(20_000_000)));
        assert_eq!(month(30 * 24), Some(MicroUsd(1_000_000)));
    }

    #[test]
    fn a_month_of_use_costs_hours_times_days_times_the_price() {
        let table = PriceTable::default();
        let tokyo = table.price("g4dn.xlarge", "ap-northeast-1").unwrap();
        assert_eq!(tokyo.on_demand, MicroUsd(710_000));
        // In dollars: always on 511, on weekdays for 8 h 125, for 4 h 62, for 2 h 31; on spot at $0.21 for 8 h 37.
        for (hour, hours, days, cents) in [
            (710_000, 24, 30, 51_120),
            (710_000, 8, 22, 12_496),
            (710_000, 4, 22, 6_248),
            (710_000, 2, 22, 3_124),
            (210_000, 8, 22, 3_696),
        ] {
            let month = month_of_use(MicroUsd(hour), TimeDelta::hours(hours), days);
            assert_eq!(month, MicroUsd(cents * 10_000), "{hours} h on {days} days");
        }
    }

    #[test]
    fn a_short_run_is_billed_for_a_minute() {
        for (ms, billed) in [(0, 60), (1_500, 60), (60_000, 60), (60_001, 61), (61_000, 61)] {
            assert_eq!(billed_seconds(TimeDelta::milliseconds(ms)), billed, "{ms} ms");
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn run(begin: &str, end: &str, capacity: Option<CapacityType>) -> Run {
        let start = crate::plan::Reason::new(crate::plan::Rule::Demand, "1 job waits");
        let (pool, id) = ("gpu".parse().unwrap(), "gpu-1".parse().unwrap());
        let offering = capacity.map(|capacity| Offering {
            instance_type: "g4dn.xlarge".into(),
            zone: "ap-northeast-1c".into(),
            capacity,
        });
        Run { stopped_at: Some(at(end)), offering, ..Run::begin(pool, id, at(begin), start) }
    }

    fn settings(more: &str) -> CostSettings {
        let text =
            format!("[pool.gpu]\nqueue = \"q\"\n[cost]\nregion = \"ap-northeast-1\"\n{more}");
        crate::policy::Policy::parse(&text).unwrap().cost
    }

    #[test]
    fn each_run_costs_the_price_of_its_offering_within_the_period_only() {
        let (begin, end) = (at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z"));
        let spot = run("2026-11-02T00:00:00Z", "2026-11-02T10:00:00Z", Some(CapacityType::Spot));
        let on_demand =
            run("2026-10-31T23:00:00Z", "2026-11-01T01:00:00Z", Some(CapacityType::OnDemand));
        let unknown = run("2026-11-03T00:00:00Z", "2026-11-03T00:00:01Z", None);
        let refusal = crate::offering::Refusal {
            class: crate::offering::RefusalClass::Capacity,
            text: String::new(),
        };
        let refused = Run { refusal: Some(refusal), ..spot.clone() };
        let spent = |run: &Run| spent_since(std::slice::from_ref(run), &settings(""), begin, end);
        assert_eq!(spent(&spot), MicroUsd(2_635_000));
        assert_eq!(spent(&on_demand), MicroUsd(710_000));
        assert_eq!(spent(&unknown), MicroUsd(11_834));
        assert_eq!(spent(&refused), MicroUsd(0));
        let all = spent_since(&[spot, on_demand, unknown], &settings(""), begin, end);
        assert_eq!(all, MicroUsd(2_635_000 + 710_000 + 11_834));
    }

    #[test]
    fn runs_of_an_offering_are_added_up_before_their_cost_is_rounded() {
        let period = Period { begin: at("2026-11-01T00:00:00Z"), end: at("2026-12-01T00:00:00Z") };
        let short = run("2026-11-03T00:00:00Z", "2026-11-03T00:00:01Z", None);
        let spot = run("2026-10-31T23:00:00Z", "2026-11-01T10:00:00Z", Some(CapacityType::Spot));
        let never = run("2026-11-04T00:00:00Z", "2026-11-04T00:00:00Z", None);
        let totals = run_totals(&[short.clone(), spot, short, never], period);
        let counts = |total: &RunTotal| (total.starts, total.box_seconds, total.billed_seconds);
        assert_eq!(
            totals.iter().map(counts).collect::<Vec<_>>(),
            [(2, 2, 120), (0, 36_000, 36_000)]
        );
        let settings = settings("");
        let cost = box_cost(&totals, 1, period, &settings, &price_of(&settings).unwrap());
        // 120 s at $0.71 an hour, and 10 h at $0.2635.
        assert_eq!(cost.spent, MicroUsd(23_667 + 2_635_000));
        assert_eq!((cost.starts, cost.billed_seconds), (2, 36_120));
    }

    #[test]
    fn a_run_is_priced_by_the_fetched_table_where_it_has_its_type() {
        let row = "g4dn.xlarge,ap-northeast-1,0.8,0.4,2026-11-22";
        let settings = CostSettings { prices: PriceTable::parse(row).unwrap(), ..settings("") };
        let (begin, end) = (at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z"));
        let spent = |capacity| {
            let run = run("2026-11-02T00:00:00Z", "2026-11-02T10:00:00Z", capacity);
            spent_since(&[run], &settings, begin, end)
        };
        assert_eq!(spent(Some(CapacityType::Spot)), MicroUsd(4_000_000));
        assert_eq!(spent(None), MicroUsd(8_000_000));
    }

    #[test]
    fn a_stopped_box_costs_its_disk_and_its_address() {
        let settings = settings("disk_gib = 100\npublic_ipv4 = true");
        // 100 GiB at $0.08 and 720 hours at $0.005, for each of two boxes.
        assert_eq!(standing(&settings, 2, TimeDelta::seconds(MONTH_SECONDS)), MicroUsd(23_200_000));
        assert_eq!(standing(&settings, 2, TimeDelta::zero()), MicroUsd(0));
    }
}
