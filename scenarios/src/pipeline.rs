//! Keys of the `[parallelism]` section that say how layers and passes are laid over the pipeline's stages.

use steptime_models::{LayerRole, Model};
use steptime_plans::{ChunkOrder, Schedule, ScheduleKind, balanced_stages};

use crate::error::{InputError, nearest};
use crate::files::Files;
use crate::section::{Section, list, wrong};
use crate::tree::{Node, Value};

/// Schedules by name.
pub(crate) const SCHEDULES: [(&str, ScheduleKind); 13] = [
    ("1f1b", ScheduleKind::OneForwardOneBackward),
    ("gpipe", ScheduleKind::GPipe),
    ("zb-h1", ScheduleKind::ZeroBubbleH1),
    ("zb-h2", ScheduleKind::ZeroBubbleH2),
    ("zb-1p", ScheduleKind::ZeroBubbleOne),
    ("zb-2p", ScheduleKind::ZeroBubbleTwo),
    ("zb-v", ScheduleKind::ZeroBubbleV),
    ("v-half", ScheduleKind::VHalf),
    ("v-min", ScheduleKind::VMin),
    ("dualpipe-v", ScheduleKind::DualPipeV),
    ("dualpipe", ScheduleKind::DualPipe),
    ("looped-bfs", ScheduleKind::LoopedBreadthFirst),
    ("hanayo", ScheduleKind::Hanayo),
];

/// Those that a path of vehicles is replayed with: its backward is one piece.
const WHOLE: usize = 2;

/// Most stages, chunks and layers.
const MOST: u64 = 1 << 20;

/// The pipeline of a plan.
pub(crate) struct PipelineKeys {
    pub(crate) pipeline: u64,
    pub(crate) virtual_pipeline: u64,
    pub(crate) schedule: ScheduleKind,
    pub(crate) written: Option<Schedule>,
    pub(crate) micro_batch_group: Option<u32>,
    pub(crate) stages: Option<Vec<u64>>,
    /// Whether these are the shares of equal stages, which are to follow the speed of the stages.
    pub(crate) balanced: bool,
}

/// The schedule of a path of vehicles.
pub(crate) fn read_whole_schedule(section: &Section<'_>) -> Result<ScheduleKind, InputError> {
    let words = &SCHEDULES[..WHOLE];
    Ok(section.choice("schedule", words)?.unwrap_or(ScheduleKind::OneForwardOneBackward))
}

/// Reads how the pipeline is built.
pub(crate) fn read(
    section: &Section<'_>,
    model: &Model,
    files: &dyn Files,
) -> Result<PipelineKeys, InputError> {
    let pipeline = section.count("pipeline", MOST)?.unwrap_or(1);
    let (name, schedule, written) = read_schedule(section, files)?;
    let prescribed = match &written {
        Some(written) => Some(u64::from(written.chunks)),
        None => schedule.chunks().map(u64::from),
    };
    let given = section.count("virtual_pipeline", MOST)?;
    let usual = if written.is_some() { 1 } else { u64::from(schedule.usual_chunks()) };
    let virtual_pipeline = given.or(prescribed).unwrap_or(usual);
    if let Some(chunks) = prescribed.filter(|&chunks| chunks != virtual_pipeline) {
        let message =
            format!("is {virtual_pipeline}, but schedule {name} is made for {chunks}, allowed: {chunks}");
        return Err(section.conflict("virtual_pipeline", message));
    }
    if let Some(allowed) = schedule.refused_chunks(virtual_pipeline as u32).filter(|_| written.is_none()) {
        let message = format!("is {virtual_pipeline}, which schedule {name} cannot have, allowed: {allowed}");
        return Err(section.conflict("virtual_pipeline", message));
    }
    if let Some(allowed) = schedule.refused_stages(pipeline).filter(|_| written.is_none()) {
        let message = format!("is {pipeline}, which schedule {name} cannot have, allowed: {allowed}");
        return Err(section.conflict("pipeline", message));
    }
    if virtual_pipeline > 1 && pipeline == 1 {
        let key = if given.is_some() { "virtual_pipeline" } else { "schedule" };
        let message = if given.is_some() {
            "needs pipeline above 1, allowed: 1".to_owned()
        } else {
            format!("{name} has {virtual_pipeline} chunks of layers on each stage and needs pipeline above 1")
        };
        return Err(section.conflict(key, message));
    }
    let group = section.count("micro_batch_group", 1 << 16)?;
    let interleaved =
        written.is_none() && schedule == ScheduleKind::OneForwardOneBackward && virtual_pipeline > 1;
    if group.is_some() && !interleaved {
        let message =
            "is about interleaved 1F1B, schedule 1f1b with virtual_pipeline above 1; leave this key out";
        return Err(section.conflict("micro_batch_group", message));
    }
    let order = written.as_ref().map_or(schedule.chunk_order(), |written| written.chunk_order);
    // Of two pipelines from both ends each has all layers.
    let chunks = if order == ChunkOrder::FromBothEnds { 1 } else { virtual_pipeline };
    let sizes = Sizes { pipeline, virtual_pipeline: chunks, order, blocks: blocks(model) };
    Ok(PipelineKeys {
        pipeline,
        virtual_pipeline,
        schedule,
        written,
        micro_batch_group: group.map(|group| group as u32),
        stages: sizes.stages(section, model)?,
        balanced: matches!(section.node("stages")?.map(|node| &node.value), Some(Value::Text(_))),
    })
}

/// Layers that stages share.
fn blocks(model: &Model) -> u64 {
    let movable = |role: LayerRole| matches!(role, LayerRole::Block | LayerRole::Component);
    model.layers.iter().filter(|layer| movable(layer.role)).count() as u64
}

/// `schedule = "zb-h1"` or `schedule = { file = "mine.txt" }`: its name, its kind, and what the file says.
fn read_schedule(
    section: &Section<'_>,
    files: &dyn Files,
) -> Result<(String, ScheduleKind, Option<Schedule>), InputError> {
    let usual = ScheduleKind::OneForwardOneBackward;
    let Some(node) = section.node("schedule")? else { return Ok(("1f1b".to_owned(), usual, None)) };
    if let Value::Table(_) = &node.value {
        let (name, written) = read_written(section, node, files)?;
        return Ok((name, usual, Some(written)));
    }
    let kind = section.choice("schedule", &SCHEDULES)?.unwrap_or(usual);
    let name = SCHEDULES.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| name);
    Ok((name.to_owned(), kind, None))
}

fn read_written(
    section: &Section<'_>,
    node: &Node,
    files: &dyn Files,
) -> Result<(String, Schedule), InputError> {
    let key = format!("{}.file", section.full("schedule"));
    let Value::Table(table) = &node.value else {
        return Err(wrong(&node.origin, &section.full("schedule"), &node.value, "a table with `file`"));
    };
    if let Some((unknown, value)) = table.iter().find(|(name, _)| *name != "file") {
        return Err(InputError::UnknownKey {
            origin: value.key_origin.clone(),
            key: format!("{}.{unknown}", section.full("schedule")),
            allowed: list(["file"]),
            nearest: nearest(unknown, ["file"]),
        });
    }
    let Some(file) = table.get("file") else {
        return Err(InputError::Missing {
            origin: node.origin.clone(),
            key,
            needed: "a schedule of your own is in a file: schedule = { file = \"mine.txt\" }".to_owned(),
        });
    };
    let Value::Text(name) = &file.value else {
        return Err(wrong(&file.origin, &key, &file.value, "the name of a file, in quotes"));
    };
    let refuse = |message: String| {
        Err(InputError::Conflict { origin: file.origin.clone(), key: key.clone(), message })
    };
    let text = match files.read(name) {
        Ok(text) => text,
        Err(error) => return refuse(format!("{name} cannot be read: {error}")),
    };
    match Schedule::parse(&text) {
        Ok(schedule) => Ok((format!("of {name}"), schedule)),
        Err(error) => refuse(format!("{name}: {error}")),
    }
}

/// What blocks are spread over.
struct Sizes {
    pipeline: u64,
    virtual_pipeline: u64,
    order: ChunkOrder,
    blocks: u64,
}

const FIRST: &str = "layers_in_first_stage";
const LAST: &str = "layers_in_last_stage";
const EMBEDDING: &str = "count_embedding_as_layer";
const HEAD: &str = "count_head_as_layer";

impl Sizes {
    /// Blocks of each virtual stage, where the file says something about them.
    fn stages(&self, section: &Section<'_>, model: &Model) -> Result<Option<Vec<u64>>, InputError> {
        let list = self.listed(section, model)?;
        let first = section.number(FIRST, 0, MOST)?;
        let last = section.number(LAST, 0, MOST)?;
        let embedding = section.flag(EMBEDDING)?.unwrap_or(false);
        let head = section.flag(HEAD)?.unwrap_or(false);
        let key = match (first, last) {
            (Some(_), _) => FIRST,
            (None, Some(_)) => LAST,
            _ if embedding => EMBEDDING,
            _ if head => HEAD,
            _ => return Ok(list),
        };
        if section.node("stages")?.is_some() {
            return Err(
                section.conflict(key, "contradicts `stages`, which lists every stage; keep one of the two")
            );
        }
        if self.pipeline == 1 {
            return Err(section.conflict(key, "needs pipeline above 1; leave this key out"));
        }
        if first.is_some() || last.is_some() {
            if embedding || head {
                let message = format!("contradicts `{EMBEDDING}` and `{HEAD}`, which set the same; keep one");
                return Err(section.conflict(key, message));
            }
            return self.with_ends(section, key, [first, last]).map(Some);
        }
        self.with_counted(section, key, [embedding, head]).map(Some)
    }

    /// `stages`: the blocks of each virtual stage, or the word for equal shares of the arithmetic.
    fn listed(&self, section: &Section<'_>, model: &Model) -> Result<Option<Vec<u64>>, InputError> {
        match section.node("stages")?.map(|node| &node.value) {
            Some(Value::Text(_)) => {
                section.choice("stages", &[("balanced", ())])?;
                let count = self.pipeline.saturating_mul(self.virtual_pipeline);
                // Of more stages than layers the division itself says why not.
                Ok((count <= model.layers.len() as u64)
                    .then(|| balanced_stages(model, &vec![1.0; count as usize])))
            }
            _ => section.counts("stages"),
        }
    }

    /// The first and the last stage as given; the others share the rest evenly, earlier ones taking one more. Chunks
    /// of a stage share its blocks in the same way.
    fn with_ends(
        &self,
        section: &Section<'_>,
        key: &'static str,
        [first, last]: [Option<u64>; 2],
    ) -> Result<Vec<u64>, InputError> {
        if self.order != ChunkOrder::Around {
            let message = "the first stage has the first and the last layers in this schedule; list the blocks of \
                           every chunk in `stages`";
            return Err(section.conflict(key, message));
        }
        let ends = first.unwrap_or(0) + last.unwrap_or(0);
        let others = self.pipeline.saturating_sub(u64::from(first.is_some()) + u64::from(last.is_some()));
        let Some(rest) = self.blocks.checked_sub(ends).filter(|&rest| others > 0 || rest == 0) else {
            let message = format!(
                "first and last stage have {ends} of {} blocks, which leaves nothing even for the other {others}",
                self.blocks
            );
            return Err(section.conflict(key, message));
        };
        let mut stages: Vec<u64> = first.into_iter().collect();
        stages.extend(shares(rest, others));
        stages.extend(last);
        let chunks: Vec<Vec<u64>> =
            stages.iter().map(|&blocks| shares(blocks, self.virtual_pipeline).collect()).collect();
        let at = |chunk: usize| chunks.iter().map(move |of_stage| of_stage[chunk]);
        Ok((0..self.virtual_pipeline as usize).flat_map(at).collect())
    }

    /// Embedding and head count as a block of their stage each.
    fn with_counted(
        &self,
        section: &Section<'_>,
        key: &'static str,
        [embedding, head]: [bool; 2],
    ) -> Result<Vec<u64>, InputError> {
        let all = self.blocks + u64::from(embedding) + u64::from(head);
        let count = self.pipeline.saturating_mul(self.virtual_pipeline);
        if !all.is_multiple_of(count) {
            let message = format!(
                "makes {all} layers of the model's {} blocks, which {count} stages cannot share evenly; list them in \
                 `stages`",
                self.blocks
            );
            return Err(section.conflict(key, message));
        }
        let mut stages: Vec<u64> = shares(all, count).collect();
        if let (Some(first), true) = (stages.first_mut(), embedding) {
            *first -= 1;
        }
        if let (Some(last), true) = (stages.last_mut(), head) {
            *last -= 1;
        }
        Ok(stages)
    }
}

/// `whole` in `parts`, as even as possible, the first ones taking one more.
fn shares(whole: u64, parts: u64) -> impl Iterator<Item = u64> {
    (0..parts).map(move |part| whole / parts + u64::from(part < whole % parts))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;
    use crate::parallelism::ALIASES;
    use crate::tree;

    fn stages(keys: &str, sizes: &Sizes) -> Result<Option<Vec<u64>>, String> {
        let root = tree::parse("case.toml", &format!("[parallelism]\n{keys}\n")).unwrap();
        let section = Section::of(&root, "parallelism", ALIASES).unwrap();
        let model = Model::from_catalogue("gpt2", &steptime_models::Overrides::default()).expect("an entry");
        sizes.stages(&section, &model).map_err(|error| error.to_string())
    }

    #[test]
    fn ends_of_the_pipeline_may_be_lighter() {
        let eight = Sizes { pipeline: 8, virtual_pipeline: 1, order: ChunkOrder::Around, blocks: 32 };
        // The rest is shared evenly, earlier stages taking one more.
        assert_eq!(stages("layers_in_last_stage = 2", &eight), Ok(Some(vec![5, 5, 4, 4, 4, 4, 4, 2])));
        assert_eq!(
            stages("num_layers_in_first_pipeline_stage = 1\nlayers_in_last_stage = 1", &eight),
            Ok(Some(vec![1, 5, 5, 5, 5, 5, 5, 1]))
        );
        assert_eq!(stages("layers_in_last_stage = 0", &eight), Ok(Some(vec![5, 5, 5, 5, 4, 4, 4, 0])));
        // Zero Bubble, section 5.1: 22 layers on 8 stages, the first and the last one fewer.
        let paper = Sizes { blocks: 22, ..eight };
        let both = "count_embedding_as_layer = true\ncount_head_as_layer = true";
        assert_eq!(stages(both, &paper), Ok(Some(vec![2, 3, 3, 3, 3, 3, 3, 2])));
        let chunks = Sizes { virtual_pipeline: 3, ..paper };
        let mut single = vec![1; 24];
        (single[0], single[23]) = (0, 0);
        assert_eq!(stages(both, &chunks), Ok(Some(single)));
        assert_eq!(stages("", &chunks), Ok(None));
    }

    #[test]
    fn what_cannot_be_shared_is_refused() {
        let four = Sizes { pipeline: 4, virtual_pipeline: 1, order: ChunkOrder::Around, blocks: 8 };
        assert_eq!(
            stages("count_head_as_layer = true", &four).unwrap_err(),
            "case.toml:2:23: parallelism.count_head_as_layer: makes 9 layers of the model's 8 blocks, which 4 stages \
             cannot share evenly; list them in `stages`"
        );
        assert_eq!(
            stages("layers_in_first_stage = 9", &four).unwrap_err(),
            "case.toml:2:25: parallelism.layers_in_first_stage: first and last stage have 9 of 8 blocks, which leaves \
             nothing even for the other 3"
        );
        assert!(stages("stages = [2, 2, 2, 2]\nlayers_in_first_stage = 2", &four).is_err());
        assert!(
            stages("layers_in_last_stage = 1", &Sizes { order: ChunkOrder::BackAndForth, ..four }).is_err()
        );
    }
}
