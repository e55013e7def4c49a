//! `simulate`, `tune` and `history export`: traces in, scores out. Files are read here; the simulator gets only bytes.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use gpuctl_control::ports::JobFilter;
use gpuctl_control::wire::seconds;
use gpuctl_core::cost::{CostSettings, month_at_this_rate};
use gpuctl_core::offering::CapacityType;
use gpuctl_core::policy::{IdleStop, Problems};
use gpuctl_core::suggest::did_you_mean;
use gpuctl_core::units::{MicroUsd, PoolId, show_duration};
use gpuctl_sim::compare::{Baseline, Clairvoyant, score};
use gpuctl_sim::policies::{COMPARED_POLICIES, ComparedPolicy, Terms};
use gpuctl_sim::replay::{Evaluation, Outcome, Prices, Setup, replay};
use gpuctl_sim::trace::{Availability, Demand, PriceHistory, TraceError};
use gpuctl_sim::tune::tune as choose;

use super::cost::{BoxKind, hour_price};
use super::faults;
use crate::arguments::{SimulateArguments, TuneArguments, WorldArguments};
use crate::context::{Configured, Context};
use crate::documents::simulate::{
    ChoiceDocument, ExportedDocument, PolicyScoreDocument, SimulationDocument, TunedDocument,
    TuningDocument,
};
use crate::failure::{Code, Failure};
use crate::render::{Output, Page, Printer, page};

/// The word for a trace that is part of gpuctl: a small team's two weeks of transcription.
const EXAMPLE: &str = "example";
const EXAMPLE_TRACE: &[u8] = include_bytes!("simulate/example.csv");

/// The most jobs of a history or an export.
pub(super) const JOBS_MAX: u32 = 1_000_000;

/// `gpuctl simulate`: a replay of traces, or the fault simulation.
pub(crate) fn run(
    context: &Configured,
    wanted: &SimulateArguments,
    printer: &Printer,
) -> Result<Output, Failure> {
    if wanted.faults.faults {
        faults::run(&wanted.faults, printer)
    } else {
        traces(context, wanted)
    }
}

/// The settings that are simulated: the options, else those of a pool, else what an account without any settings would try.
struct Settings {
    /// Whose settings apply where there is no option.
    pool: Option<PoolId>,
    max_wait: TimeDelta,
    idle_stop: IdleStop,
    boot: TimeDelta,
}

impl Settings {
    const MAX_WAIT: TimeDelta = TimeDelta::minutes(10);
    const BOOT: TimeDelta = TimeDelta::minutes(2);

    fn of(context: &Configured, world: &WorldArguments) -> Result<Self, Failure> {
        let pool = match &world.pool {
            Some(id) => Some(context.queue_pool(Some(id))?),
            // The user has not chosen the built-in default.
            None if context.config.file.is_none() && context.config.stored_at.is_none() => None,
            None => context.config.policy.queue_pools().next(),
        };
        let queue = pool.map(|(_, queue)| queue);
        let boot = world.boot.or(pool.map(|(pool, _)| pool.boot_default));
        Ok(Self {
            pool: pool.map(|(pool, _)| pool.id.clone()),
            max_wait: queue.map_or(Self::MAX_WAIT, |queue| queue.max_wait),
            idle_stop: queue.map_or(IdleStop::Auto, |queue| queue.idle_stop),
            boot: boot.unwrap_or(Self::BOOT),
        })
    }

    fn terms(&self, world: &WorldArguments, demand: &Demand) -> Terms {
        Terms {
            max_wait: self.max_wait,
            boot: self.boot,
            tick: world.tick,
            boxes_max: world.boxes_max,
            idle_stop: self.idle_stop,
            service: TimeDelta::milliseconds(demand.mean_service_ms()),
        }
    }
}

fn traces(context: &Configured, wanted: &SimulateArguments) -> Result<Output, Failure> {
    let settings = Settings::of(context, &wanted.world)?;
    let settings = Settings {
        max_wait: wanted.max_wait.unwrap_or(settings.max_wait),
        idle_stop: wanted.idle_stop.unwrap_or(settings.idle_stop),
        ..settings
    };
    let inputs = Inputs::read(&context.config.policy.cost, wanted, &settings)?;
    let offsets_ms = offsets_ms(inputs.availability.as_ref(), wanted.offsets);
    let mut charts = Page::default();
    let mut policies = Vec::new();
    for one in compared_policies(&wanted.policy)? {
        let mut outcomes = Vec::new();
        for offset_ms in &offsets_ms {
            for demand in &inputs.demands {
                let terms = settings.terms(&wanted.world, demand);
                outcomes.push(outcome(one, demand, inputs.spot(*offset_ms), &terms)?);
            }
        }
        charts.add(one.name, &outcomes);
        let price = inputs.priced.prices.dearest();
        let most = Most { price, boxes: wanted.world.boxes_max, runs: offsets_ms.len() };
        policies.push(scored(one, &inputs.baselines, &outcomes, most));
    }
    let document = document(inputs, policies, wanted, &settings);
    if let Some(path) = &wanted.html {
        write(path, &page(&document, &charts))?;
    }
    Ok(Output::Simulation(Box::new(document)))
}

/// What is read before the simulation starts.
struct Inputs {
    demands: Vec<Demand>,
    baselines: Vec<Baseline>,
    availability: Option<Availability>,
    history: Option<PriceHistory>,
    priced: Priced,
}

impl Inputs {
    fn read(
        policy: &CostSettings,
        wanted: &SimulateArguments,
        settings: &Settings,
    ) -> Result<Self, Failure> {
        let demands = demands(&wanted.world.demand)?;
        let availability = availability(&wanted.availability)?;
        let history = price_history(policy, wanted, availability.as_ref())?;
        let spot = match (&availability, &history) {
            (Some(_), None) => SpotPrice::Needed,
            _ => SpotPrice::Unused,
        };
        let priced = prices(policy, &wanted.world, spot)?;
        let baseline = |demand| Baseline::new(demand, settings.boot, settings.max_wait);
        let baselines = demands.iter().map(baseline).collect();
        Ok(Self { demands, baselines, availability, history, priced })
    }

    fn spot(&self, offset_ms: i64) -> Spot<'_> {
        let (availability, history) = (self.availability.as_ref(), self.history.as_ref());
        Spot { availability, history, offset_ms, prices: self.priced.prices }
    }
}

fn document(
    inputs: Inputs,
    policies: Vec<PolicyScoreDocument>,
    wanted: &SimulateArguments,
    settings: &Settings,
) -> SimulationDocument {
    let baselines = &inputs.baselines;
    let bound: TimeDelta = baselines.iter().map(Baseline::bound).sum();
    let clairvoyant: Clairvoyant = baselines.iter().map(Baseline::clairvoyant).sum();
    let span: TimeDelta = baselines.iter().map(Baseline::span).sum();
    let has_one_price = inputs.availability.is_some() && inputs.history.is_none();
    SimulationDocument {
        demand: wanted.world.demand.iter().map(|path| path.display().to_string()).collect(),
        jobs: inputs.demands.iter().map(|demand| demand.jobs().len()).sum(),
        days: seconds(span) / 86_400.0,
        pool: settings.pool.as_ref().map(ToString::to_string),
        max_wait_seconds: seconds(settings.max_wait),
        idle_stop: shown_idle_stop(settings.idle_stop),
        boot_seconds: seconds(settings.boot),
        tick_seconds: seconds(wanted.world.tick),
        on_demand_usd_hour: inputs.priced.prices.on_demand.as_usd(),
        on_demand_usd_hour_from: inputs.priced.on_demand_origin,
        spot_usd_hour: has_one_price.then(|| inputs.priced.prices.spot.as_usd()),
        spot_prices: wanted.prices.as_ref().map(|path| path.display().to_string()),
        bound_box_seconds: seconds(bound),
        bound_same_start_box_seconds: seconds(clairvoyant.same_start),
        bound_prewarm_box_seconds: seconds(clairvoyant.prewarm),
        service_seconds: seconds(clairvoyant.service),
        policies,
    }
}

/// Where spot capacity is available, and what it costs.
#[derive(Clone, Copy)]
struct Spot<'a> {
    availability: Option<&'a Availability>,
    history: Option<&'a PriceHistory>,
    offset_ms: i64,
    prices: Prices,
}

/// Starting points in the availability, evenly spaced.
fn offsets_ms(spot: Option<&Availability>, count: u32) -> Vec<i64> {
    let Some(spot) = spot else { return vec![0] };
    (0..i64::from(count)).map(|index| spot.span_ms() / i64::from(count) * index).collect()
}

fn outcome(
    one: ComparedPolicy,
    demand: &Demand,
    spot: Spot<'_>,
    terms: &Terms,
) -> Result<Outcome, Failure> {
    let policy = one.policy(terms).map_err(|problems| invalid(&problems))?;
    let setup = Setup {
        policy: &policy,
        boot_ms: terms.boot.num_milliseconds(),
        spot: spot.availability,
        spot_offset_ms: spot.offset_ms,
        prices: spot.prices,
        spot_prices: spot.history,
        evaluation: Evaluation::OnChange,
    };
    Ok(replay(&setup, demand))
}

/// What limits a price a month, and over how many runs sums are divided.
#[derive(Clone, Copy)]
struct Most {
    /// The dearest hour of a box.
    price: MicroUsd,
    boxes: u32,
    runs: usize,
}

fn shown_idle_stop(idle_stop: IdleStop) -> String {
    match idle_stop {
        IdleStop::Auto => "auto".to_owned(),
        IdleStop::After(span) => show_duration(span),
    }
}

fn scored(
    one: ComparedPolicy,
    baselines: &[Baseline],
    outcomes: &[Outcome],
    most: Most,
) -> PolicyScoreDocument {
    let score = score(baselines, outcomes);
    // Of runs over the same traces each is as long as one.
    let lasts = score.span / i32::try_from(most.runs.max(1)).unwrap_or(i32::MAX);
    let usd = MicroUsd(score.usd.0 / i64::try_from(most.runs.max(1)).unwrap_or(i64::MAX));
    let month = month_at_this_rate(usd, lasts, most.price, most.boxes);
    let [p50, p95, max] = score.waits.map(seconds);
    PolicyScoreDocument {
        policy: one.name,
        what: one.what,
        box_seconds: seconds(score.box_time),
        spot_seconds: seconds(score.spot_time),
        ratio_to_bound: geometric_mean(&score.ratios_permille),
        usd: score.usd.as_usd(),
        usd_month: month.map(MicroUsd::as_usd),
        starts: f64::from(score.starts),
        wait_seconds_p50: p50,
        wait_seconds_p95: p95,
        wait_seconds_max: max,
        late_jobs: score.late_jobs as f64,
        jobs_lost: score.jobs_lost as f64,
        interruptions: f64::from(score.interruptions),
    }
    .divided_by(most.runs)
}

fn geometric_mean(permille: &[i64]) -> f64 {
    let logarithms: f64 = permille.iter().map(|one| (*one as f64 / 1e3).max(1e-3).ln()).sum();
    (logarithms / permille.len().max(1) as f64).exp()
}

/// `gpuctl tune`.
pub(crate) fn tune(context: &Configured, wanted: &TuneArguments) -> Result<Output, Failure> {
    let world = &wanted.world;
    let settings = Settings::of(context, world)?;
    let [file] = world.demand.as_slice() else {
        return Err(Failure::new(Code::TraceMissing, "`tune` takes one trace")
            .hint("run it once for each trace"));
    };
    let demand = &demands(std::slice::from_ref(file))?[0];
    let prices = prices(&context.config.policy.cost, world, SpotPrice::Unused)?.prices;
    let terms = Settings { max_wait: TimeDelta::zero(), ..settings }.terms(world, demand);
    let tuning = choose(&terms, prices, demand, &wanted.wait_usd_hour)
        .map_err(|problems| invalid(&problems))?;
    let setting = |span: TimeDelta| show_duration(span);
    let frontier = tuning.frontier.iter().map(|price| ChoiceDocument {
        max_wait: setting(price.choice.max_wait(&terms)),
        idle_stop: setting(price.choice.idle_stop),
        usd: price.usd.as_usd(),
        wait_hours: seconds(price.waited) / 3_600.0,
    });
    let tuned = tuning.tuned.iter().map(|tuned| TunedDocument {
        wait_usd_hour: tuned.wait_usd_hour.as_usd(),
        max_wait: setting(tuned.chosen.max_wait(&terms)),
        idle_stop: setting(tuned.chosen.idle_stop),
        tested_usd: tuned.tested.as_usd(),
        hindsight_usd: tuned.best.as_usd(),
        ratio_to_hindsight: tuned.tested.as_usd() / tuned.best.as_usd().max(1e-6),
    });
    Ok(Output::Tuning(Box::new(TuningDocument {
        demand: vec![file.display().to_string()],
        frontier: frontier.collect(),
        tuned: tuned.collect(),
    })))
}

/// `gpuctl history export`.
pub(crate) async fn export(
    context: &Context,
    path: &Path,
    since: TimeDelta,
) -> Result<Output, Failure> {
    let filter = JobFilter { state: None, limit: JOBS_MAX, since: Some(context.now() - since) };
    let mut jobs: Vec<(TimeDelta, TimeDelta)> = Vec::new();
    let entries = context.ports.ledger.jobs(filter).await?;
    let first = entries.iter().map(|entry| entry.job.submitted_at).min();
    for entry in &entries {
        let result = entry.result.as_ref().filter(|result| result.is_of_worker());
        let (Some(result), Some(first)) = (result, first) else { continue };
        jobs.push((entry.job.submitted_at - first, result.inference));
    }
    if jobs.is_empty() {
        return Err(Failure::new(Code::HistoryEmpty, "no job in that time has a result")
            .hint("`gpuctl jobs` lists all jobs; a longer `--since` goes further back"));
    }
    jobs.sort_unstable();
    let row = |(at, service): &(TimeDelta, TimeDelta)| {
        format!("{:.3},{:.3}\n", seconds(*at), seconds(*service))
    };
    let text: String = jobs.iter().map(row).collect();
    write(path, &format!("t_s,service_s\n{text}"))?;
    Ok(Output::Exported(ExportedDocument { path: path.display().to_string(), jobs: jobs.len() }))
}

fn demands(files: &[PathBuf]) -> Result<Vec<Demand>, Failure> {
    if files.is_empty() {
        return Err(Failure::new(Code::TraceMissing, "no trace was given").hint(
            "give one with `--demand FILE`, e.g. from `gpuctl history export`, or try `--demand example`; `simulate --faults` needs none",
        ));
    }
    let demand = |file: &PathBuf| {
        let bytes = match file.to_str() {
            Some(EXAMPLE) if !file.exists() => EXAMPLE_TRACE.to_vec(),
            _ => read(file)?,
        };
        Demand::read(&bytes).map_err(|error| bad(file, &error))
    };
    files.iter().map(demand).collect()
}

fn availability(files: &[PathBuf]) -> Result<Option<Availability>, Failure> {
    let mut all: Option<Availability> = None;
    for file in files {
        let one = Availability::read(&read(file)?).map_err(|error| bad(file, &error))?;
        match &mut all {
            Some(all) => all.join(one),
            None => all = Some(one),
        }
    }
    Ok(all)
}

/// Spot prices over time, for each zone of the availability.
fn price_history(
    policy: &CostSettings,
    wanted: &SimulateArguments,
    spot: Option<&Availability>,
) -> Result<Option<PriceHistory>, Failure> {
    let Some(file) = &wanted.prices else { return Ok(None) };
    let instance_type = wanted.world.instance_type.as_deref().unwrap_or(&policy.instance_type);
    let history =
        PriceHistory::read(&read(file)?, instance_type).map_err(|error| bad(file, &error))?;
    let unknown = spot.and_then(|spot| spot.zones().find(|zone| !history.knows(zone)));
    if let Some(zone) = unknown {
        let known: Vec<&str> = history.zones().collect();
        let hint = if known.is_empty() {
            format!("it has no prices of {instance_type}: name the type with --instance-type")
        } else {
            format!("it has prices for {}", known.join(", "))
        };
        let text = format!("{} has no price of {instance_type} in {zone}", file.display());
        return Err(Failure::new(Code::TraceInvalid, text).hint(hint));
    }
    Ok(Some(history))
}

fn compared_policies(names: &[String]) -> Result<Vec<ComparedPolicy>, Failure> {
    if names.iter().any(|name| name == "all") {
        return Ok(COMPARED_POLICIES.to_vec());
    }
    let known = || COMPARED_POLICIES.iter().map(|one| one.name);
    let find = |name: &String| {
        ComparedPolicy::named(name).ok_or_else(|| {
            let hint = did_you_mean(name, known()).unwrap_or_else(|| {
                format!("one of: all, {}", known().collect::<Vec<_>>().join(", "))
            });
            Failure::new(Code::PolicyUnknown, format!("`{name}` is not a known policy")).hint(hint)
        })
    };
    names.iter().map(find).collect()
}

/// The prices of a simulation.
struct Priced {
    prices: Prices,
    on_demand_origin: String,
}

/// Whether a simulation uses one spot price.
#[derive(Clone, Copy)]
enum SpotPrice {
    Needed,
    /// Every box is on-demand, or prices change over time.
    Unused,
}

fn prices(
    policy: &CostSettings,
    world: &WorldArguments,
    spot: SpotPrice,
) -> Result<Priced, Failure> {
    let kind = BoxKind {
        instance_type: world.instance_type.as_deref().unwrap_or(&policy.instance_type),
        region: world.region.as_deref().unwrap_or(&policy.region),
    };
    let hour = |capacity, given, option| {
        hour_price(&policy.prices, kind, capacity, given).map_err(|failure| {
            let meant = policy.prices.did_you_mean(kind.instance_type, kind.region);
            failure.hint(format!(
                "{}give one with {option}; `gpuctl cost prices` lists the known ones, `--refresh` fetches them from AWS",
                meant.map(|meant| meant + " Or ").unwrap_or_default()
            ))
        })
    };
    let on_demand = hour(CapacityType::OnDemand, world.on_demand_usd_hour, "--on-demand-usd-hour")?;
    let spot = match spot {
        SpotPrice::Needed => hour(CapacityType::Spot, world.spot_usd_hour, "--spot-usd-hour")?.usd,
        SpotPrice::Unused => MicroUsd(0),
    };
    let prices = Prices { on_demand: on_demand.usd, spot };
    Ok(Priced { prices, on_demand_origin: on_demand.origin })
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|error| {
        Failure::new(Code::FileUnreadable, format!("cannot read {}", file.display()))
            .because(&error)
    })
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, text).map_err(|error| {
        Failure::new(Code::FileUnwritable, format!("cannot write {}", file.display()))
            .because(&error)
    })
}

fn bad(file: &Path, error: &TraceError) -> Failure {
    Failure::new(Code::TraceInvalid, format!("{} is not a valid trace", file.display()))
        .because(error)
        .hint(error.hint())
}

fn invalid(problems: &Problems) -> Failure {
    Failure::new(Code::PolicyInvalid, "the simulated policy is invalid").because(problems)
}
