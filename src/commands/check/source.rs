//! What a plan is written in, and the scenario that it becomes.

use std::path::{Path, PathBuf};

use steptime_scenarios::import::{self, Frame};
use steptime_scenarios::{Claim, Draft, Files, NamedPath, stage_list, swift_results};

use super::super::import as importing;
use crate::cli::{CheckArguments, PlanKind};
use crate::failure::Failure;
use crate::output;

/// A plan, ready to be judged.
pub(super) struct Source {
    pub(super) draft: Draft,
    pub(super) files: Made,
    pub(super) claim: Claim,
    pub(super) plan: Plan,
}

/// The plan itself.
pub(super) enum Plan {
    /// The scenario is the plan; of a list of stages also what is wrong with it.
    Scenario { violations: Vec<String> },
    /// Paths of vehicles.
    Paths(Vec<NamedPath>),
}

/// Files that were made of other forms, and those beside the plan.
pub(super) struct Made {
    folder: PathBuf,
    texts: Vec<(String, String)>,
}

impl Files for Made {
    fn read(&self, name: &str) -> Result<String, String> {
        if let Some((_, text)) = self.texts.iter().find(|(own, _)| own == name) {
            return Ok(text.clone());
        }
        let path = self.folder.join(name);
        let text = std::fs::File::open(&path).and_then(output::text_of);
        text.map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl Source {
    pub(super) fn read(arguments: &CheckArguments) -> Result<Self, Failure> {
        let (name, text) = importing::read(&arguments.plan)?;
        let kind = arguments.kind.map_or_else(|| guess(&arguments.plan, &text), Ok)?;
        let folder = arguments.plan.parent().map_or_else(PathBuf::new, Path::to_owned);
        let mut files = Made { folder, texts: Vec::new() };
        let claim = claim(arguments)?;
        let frame = Frame { model: arguments.model.clone(), cluster: arguments.cluster.clone() };
        let named = arguments.model.is_some() || arguments.cluster.is_some();
        let (draft, claim, plan) = match kind {
            PlanKind::Scenario => {
                if named {
                    let message =
                        "--model and --cluster do not act: the scenario names both; change them by --set";
                    return Err(Failure::Message(message.to_owned()));
                }
                (Draft::read(&name, &text, &arguments.set)?, claim, Plan::Scenario { violations: Vec::new() })
            }
            PlanKind::Deepspeed | PlanKind::Megatron | PlanKind::Torchtitan => {
                let imported = match kind {
                    PlanKind::Deepspeed => import::deepspeed(&name, &text, &frame)?,
                    PlanKind::Megatron => import::megatron(&name, &text, &frame)?,
                    _ => import::torchtitan(&name, &text, &frame)?,
                };
                let made = imported.files.iter().map(|file| (file.name.clone(), file.toml.clone()));
                files.texts.extend(made);
                let scenario = imported.file("scenario.toml").unwrap_or_default();
                let draft = Draft::read(&format!("{name} (as a scenario)"), scenario, &arguments.set)?;
                (draft, claim, Plan::Scenario { violations: Vec::new() })
            }
            PlanKind::Swift => {
                let mut paths = swift_results(&name, &text)?;
                for path in &mut paths {
                    path.claim.step_time_s =
                        claim.step_time_s.filter(|_| path.proposed).or(path.claim.step_time_s);
                }
                let scenario = swift_scenario(arguments, &mut files)?;
                (Draft::read("plan", &scenario, &arguments.set)?, claim, Plan::Paths(paths))
            }
            PlanKind::Stages => {
                let (base, blocks) = stages_base(arguments)?;
                let list = stage_list(&name, &text, blocks)?;
                let draft = base.set(&list.set)?.set(&arguments.set)?;
                let claim = Claim {
                    step_time_s: claim.step_time_s.or(list.claim.step_time_s),
                    peak_memory_bytes: claim.peak_memory_bytes.or(list.claim.peak_memory_bytes),
                };
                (draft, claim, Plan::Scenario { violations: list.violations })
            }
        };
        Ok(Self { draft, files, claim, plan })
    }
}

fn claim(arguments: &CheckArguments) -> Result<Claim, Failure> {
    let memory = match &arguments.claim_memory {
        None => None,
        Some(text) => {
            let bytes = steptime_models::parse_quantity(text, steptime_models::Dimension::Bytes);
            Some(bytes.map_err(|error| Failure::Message(format!("--claim-memory: {error}")))?)
        }
    };
    if let Some(time) = arguments.claim_time
        && !(time.is_finite() && time >= 0.0)
    {
        return Err(Failure::Message(format!("--claim-time: found {time}, allowed: seconds from 0")));
    }
    Ok(Claim { step_time_s: arguments.claim_time, peak_memory_bytes: memory })
}

/// What a file is by its ending, and, of JSON, by its keys.
fn guess(path: &Path, text: &str) -> Result<PlanKind, Failure> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().into_owned());
    let keys: Vec<String> = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(table)) => table.keys().cloned().collect(),
        _ => Vec::new(),
    };
    let has = |key: &str| keys.iter().any(|other| other == key);
    match ending.as_deref() {
        Some("toml") => Ok(PlanKind::Scenario),
        Some("csv") => Ok(PlanKind::Swift),
        Some("sh" | "yaml" | "yml") => Ok(PlanKind::Megatron),
        _ if has("forward_stage_layer_ids") => Ok(PlanKind::Stages),
        _ if has("best_pipeline") || has("pipelines") || has("path") => Ok(PlanKind::Swift),
        _ if !keys.is_empty() => Ok(PlanKind::Deepspeed),
        _ => Err(Failure::Message(format!(
            "{}: what kind of plan this is cannot be told; say it with --kind",
            path.display()
        ))),
    }
}

/// The scenario of a plan of vehicles: the planner's example with this model and cluster.
fn swift_scenario(arguments: &CheckArguments, files: &mut Made) -> Result<String, Failure> {
    let mut text = String::new();
    for (section, given, option) in
        [("model", &arguments.model, "--model"), ("cluster", &arguments.cluster, "--cluster")]
    {
        let Some(given) = given else {
            return Err(Failure::Message(format!(
                "{option} is missing: a plan of the planner names no {section}; give one of the catalogue, a TOML file, or the \
                 planner's XML"
            )));
        };
        let path = Path::new(given);
        let key = match path.extension().map(|ending| ending.to_string_lossy().into_owned()).as_deref() {
            Some("xml") => {
                let (name, xml) = importing::read(path)?;
                let imported = import::swift(&name, &xml)?;
                let Some(made) = imported.file(&format!("{section}.toml")) else {
                    return Err(Failure::Message(format!("{option}: {given} is no {section}")));
                };
                files.texts.push((format!("{section}.toml"), made.to_owned()));
                format!("file = \"{section}.toml\"")
            }
            Some("toml") => {
                files.texts.push((given.clone(), output::read(path)?));
                format!("file = {}", toml_text(given))
            }
            _ => format!("name = {}", toml_text(given)),
        };
        text += &format!("[{section}]\n{key}\n");
    }
    let frame = import::swift_scenario();
    let rest = frame.split("[workload]").nth(1).unwrap_or_default();
    Ok(format!("{text}utilization = 0.5\nmemory_overhead = 1.2\n[workload]{rest}"))
}

/// Text as TOML writes it.
fn toml_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The scenario that a list of stages changes, and the blocks of its model.
fn stages_base(arguments: &CheckArguments) -> Result<(Draft, u64), Failure> {
    let (Some(model), Some(cluster)) = (&arguments.model, &arguments.cluster) else {
        let message = "--model and --cluster are missing: a list of stages names neither";
        return Err(Failure::Message(message.to_owned()));
    };
    let found = steptime_models::Model::from_catalogue(model, &steptime_models::Overrides::none());
    let found = found.map_err(|error| Failure::model(&error))?;
    let blocks = found.layers.iter().filter(|layer| layer.role == steptime_models::LayerRole::Block).count();
    let text = format!(
        "name = {}\n[model]\nname = {}\n[cluster]\nname = {}\n[workload]\nmicro_batch_size = 1\nprecision = \"bf16\"\n",
        toml_text(&format!("{model}, stages")),
        toml_text(model),
        toml_text(cluster)
    );
    Ok((Draft::read("plan", &text, &[])?, blocks as u64))
}
