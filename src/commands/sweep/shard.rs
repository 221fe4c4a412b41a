//! Which share of a sweep's points a process plays.

use steptime_scenarios::Shard;

use crate::failure::Failure;

/// Most shards of a sweep.
const MOST: u64 = 1_000_000;

/// `2/8`, or `auto` from the environment of a Slurm array task.
pub(super) fn read(text: &str) -> Result<Shard, Failure> {
    if text == "auto" {
        return slurm(&|name| std::env::var(name).ok());
    }
    let parts = text.split_once('/').and_then(|(index, count)| {
        Some(Shard { index: index.trim().parse().ok()?, count: count.trim().parse().ok()? })
    });
    match parts {
        Some(shard) if (1..=MOST).contains(&shard.count) && (1..=shard.count).contains(&shard.index) => {
            Ok(shard)
        }
        _ => Err(Failure::Message(format!(
            "--shard: found `{text}`, allowed: I/N with I from 1 to N and N at most {MOST}, or `auto`"
        ))),
    }
}

/// The task of a Slurm array: `SLURM_ARRAY_TASK_ID` counts from `SLURM_ARRAY_TASK_MIN` in steps of
/// `SLURM_ARRAY_TASK_STEP`, and there are `SLURM_ARRAY_TASK_COUNT` of them (sbatch, "output environment variables").
fn slurm(variable: &dyn Fn(&str) -> Option<String>) -> Result<Shard, Failure> {
    let number = |name: &str, otherwise: Option<u64>| match (variable(name), otherwise) {
        (Some(text), _) => text.trim().parse::<u64>().map_err(|_| {
            Failure::Message(format!("--shard auto: {name} is `{text}`, which is no whole number"))
        }),
        (None, Some(otherwise)) => Ok(otherwise),
        (None, None) => Err(Failure::Message(format!(
            "--shard auto: {name} is not set; it is in the tasks of a Slurm array (sbatch --array)"
        ))),
    };
    let task = number("SLURM_ARRAY_TASK_ID", None)?;
    let count = number("SLURM_ARRAY_TASK_COUNT", None)?;
    let first = number("SLURM_ARRAY_TASK_MIN", Some(0))?;
    let step = number("SLURM_ARRAY_TASK_STEP", Some(1))?.max(1);
    let place = task.checked_sub(first).filter(|ahead| ahead.is_multiple_of(step)).map(|ahead| ahead / step);
    match place {
        Some(place) if place < count && count <= MOST => Ok(Shard { index: place + 1, count }),
        _ => Err(Failure::Message(format!(
            "--shard auto: task {task} of an array of {count} tasks from {first} in steps of {step} is not one of \
             them: number the array without gaps"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(id: &str, count: &str, min: &str, step: Option<&str>) -> Result<(u64, u64), String> {
        let value = |name: &str| match name {
            "SLURM_ARRAY_TASK_ID" => Some(id.to_owned()),
            "SLURM_ARRAY_TASK_COUNT" => Some(count.to_owned()),
            "SLURM_ARRAY_TASK_MIN" => Some(min.to_owned()),
            "SLURM_ARRAY_TASK_STEP" => step.map(str::to_owned),
            _ => None,
        };
        slurm(&value).map(|shard| (shard.index, shard.count)).map_err(|failure| failure.to_string())
    }

    #[test]
    fn tasks_of_arrays_are_shards() {
        // sbatch --array=0-7, --array=1-8, --array=4-10:2
        assert_eq!(array("0", "8", "0", None), Ok((1, 8)));
        assert_eq!(array("8", "8", "1", Some("1")), Ok((8, 8)));
        assert_eq!(array("6", "4", "4", Some("2")), Ok((2, 4)));
        // --array=1,5,9
        assert!(array("9", "3", "1", Some("1")).unwrap_err().contains("without gaps"));
        assert!(array("x", "3", "1", None).unwrap_err().contains("SLURM_ARRAY_TASK_ID is `x`"));
        assert!(slurm(&|_| None).unwrap_err().to_string().contains("SLURM_ARRAY_TASK_ID is not set"));
    }
}
