//! Which GPUs `serve --gpus` is for, by what the driver and `CUDA_VISIBLE_DEVICES` show.

use std::collections::BTreeSet;
use std::error::Error;
use std::str::FromStr;

use gpu_inference::{VISIBLE, cards, names_in};

/// What `--gpus` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gpus {
    All,
    Listed(BTreeSet<u32>),
}

impl FromStr for Gpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" {
            return Ok(Self::All);
        }
        let mut listed = BTreeSet::new();
        for word in text.split(',').map(str::trim) {
            let number = word.parse().map_err(|_| {
                format!("`{word}` is not the number of a GPU; write all, or numbers as in 0,1")
            })?;
            if !listed.insert(number) {
                return Err(format!("GPU {number} is listed twice"));
            }
        }
        Ok(Self::Listed(listed))
    }
}

/// A GPU of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// From 0, among those that this process may use.
    pub(crate) number: u32,
    /// What `CUDA_VISIBLE_DEVICES` calls it; none where no GPU is used.
    pub(crate) visible: Option<String>,
}

/// The GPUs that are wanted. `all` is what the machine has, which may be one, or none.
///
/// # Errors
/// When one that is listed is not there, or it is not known what is there.
pub(crate) fn find(wanted: &Gpus, uses_gpu: bool) -> Result<Vec<Gpu>, Box<dyn Error>> {
    if !uses_gpu {
        let numbers = match wanted {
            Gpus::All => BTreeSet::new(),
            Gpus::Listed(numbers) => numbers.clone(),
        };
        return Ok(numbers.into_iter().map(|number| Gpu { number, visible: None }).collect());
    }
    let there = match std::env::var(VISIBLE) {
        Ok(visible) => Ok(names_in(&visible)),
        Err(_) => in_driver(),
    };
    match (wanted, there) {
        (Gpus::Listed(numbers), there) => listed(numbers, &there?),
        (Gpus::All, Ok(there)) => Ok((0..).zip(there).map(of_pair).collect()),
        (Gpus::All, Err(error)) => {
            tracing::warn!("one worker, since {error}");
            Ok(Vec::new())
        }
    }
}

fn of_pair((number, visible): (u32, String)) -> Gpu {
    Gpu { number, visible: Some(visible) }
}

/// By their UUIDs, since CUDA may number them otherwise.
fn in_driver() -> Result<Vec<String>, Box<dyn Error>> {
    let found = cards().map_err(|error| format!("{error} ({})", error.hint()))?;
    Ok(found.into_iter().map(|card| card.uuid).collect())
}

fn listed(numbers: &BTreeSet<u32>, there: &[String]) -> Result<Vec<Gpu>, Box<dyn Error>> {
    let find = |number: &u32| {
        let visible = usize::try_from(*number).ok().and_then(|number| there.get(number));
        let missing = || format!("there is no GPU {number}: this process sees {}", there.len());
        Ok(of_pair((*number, visible.ok_or_else(missing)?.clone())))
    };
    numbers.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_all_or_numbers_once_each() {
        assert_eq!("all".parse(), Ok(Gpus::All));
        assert_eq!("1, 0".parse(), Ok(Gpus::Listed([0, 1].into())));
        for (wrong, says) in [("", "``"), ("gpu0", "`gpu0`"), ("0,,1", "``"), ("-1", "`-1`")] {
            let error = wrong.parse::<Gpus>().unwrap_err();
            assert!(error.starts_with(says), "{error}");
        }
        assert_eq!("0,1,0".parse::<Gpus>(), Err("GPU 0 is listed twice".into()));
    }

    #[test]
    fn a_gpu_that_is_not_there_is_named() {
        let there = ["GPU-4f".to_owned(), "3".to_owned()];
        let found = listed(&[1].into(), &there).unwrap();
        assert_eq!(found, [Gpu { number: 1, visible: Some("3".into()) }]);
        let error = listed(&[0, 2].into(), &there).unwrap_err();
        assert_eq!(error.to_string(), "there is no GPU 2: this process sees 2");
    }

    #[test]
    fn without_a_gpu_in_use_the_listed_ones_are_names_only() {
        let found = find(&Gpus::Listed([0, 7].into()), false).unwrap();
        assert_eq!(found, [0, 7].map(|number| Gpu { number, visible: None }));
        assert!(find(&Gpus::All, false).unwrap().is_empty());
    }
}
