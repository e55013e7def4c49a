//! Budget: once it is spent, the queue starts no more boxes. A box that is up is not stopped for it.
//!
//! A hold may spend more than the budget by an amount that it states. A schedule starts its boxes whatever was spent.

use super::{PoolDecision, PoolInput};
use crate::observation::Spent;
use crate::period::{Period, day_of, month_of};
use crate::plan::Rule;
use crate::units::MicroUsd;

/// The share of a budget, in percent, from which on the verdict warns.
const WARN_PERCENT: i64 = 80;

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    let budget = input.pool.budget;
    if !budget.is_set() {
        decision.abstain(Rule::Budget, "no budget");
        return;
    }
    let Some(spent) = input.seen.spent else {
        let text =
            "what was spent could not be read, and unknown is not zero: no starts for the queue";
        decision.forbid_starts(Rule::Budget, &[Rule::Demand], text);
        return;
    };
    let month =
        budget.month.map(|most| Account::new("month", month_of(input.now), spent.month, most));
    let day = budget.day.map(|most| Account::new("day", day_of(input.now), spent.day, most));
    let accounts: Vec<Account> = [month, day].into_iter().flatten().collect();
    if let Some(over) = accounts.iter().find(|account| account.spent >= account.most) {
        over_budget(input, decision, over, spent);
        return;
    }
    let figures: Vec<String> = accounts.iter().map(|account| account.describe(input)).collect();
    let short = accounts.iter().find(|account| account.is_short(input));
    let warning = short.map_or(String::new(), |account| {
        format!("; warning: the {}'s budget may not last", account.name)
    });
    decision.abstain(Rule::Budget, figures.join("; ") + &warning);
}

fn over_budget(input: &PoolInput<'_>, decision: &mut PoolDecision, over: &Account, spent: Spent) {
    let (name, figures) = (over.name, over.describe(input));
    decision.change(over.period.end, Rule::Budget, format!("a new {name} begins"));
    // Only what the hold has spent beyond the budget counts against its own amount.
    let beyond = MicroUsd((over.spent.0 - over.most.0).min(spent.hold.0));
    let text = match input.hold().and_then(|hold| hold.over_budget) {
        Some(extra) if beyond < extra => {
            let text = format!(
                "{figures}: no starts for the queue; the hold has spent {beyond} of its extra {extra}"
            );
            decision.forbid_starts(Rule::Budget, &[Rule::Demand], text);
            return;
        }
        Some(extra) => {
            format!("{figures}; the hold's extra {extra} is spent too: no starts this {name}")
        }
        None => format!(
            "{figures}: no starts this {name} for the queue, nor for a hold without `--over-budget USD`"
        ),
    };
    decision.forbid_starts(Rule::Budget, &[Rule::Demand, Rule::Hold], text);
}

/// The budget of one period, and what was spent of it.
struct Account {
    name: &'static str,
    period: Period,
    spent: MicroUsd,
    most: MicroUsd,
}

impl Account {
    fn new(name: &'static str, period: Period, spent: MicroUsd, most: MicroUsd) -> Self {
        Self { name, period, spent, most }
    }

    fn is_short(&self, input: &PoolInput<'_>) -> bool {
        self.percent() >= WARN_PERCENT || self.period.forecast(self.spent, input.now) > self.most
    }

    fn percent(&self) -> i64 {
        self.spent.0.saturating_mul(100) / self.most.0.max(1)
    }

    fn describe(&self, input: &PoolInput<'_>) -> String {
        let (percent, forecast) = (self.percent(), self.period.forecast(self.spent, input.now));
        format!(
            "{} of {} spent this {} ({percent} %), forecast {forecast}",
            self.spent, self.most, self.name
        )
    }
}
