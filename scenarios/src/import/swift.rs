//! XML of the SWIFT planner: component models and clusters of vehicles.
//!
//! The elements are those of `model_util.py` and `cluster_util.py` of Convex-analysis/pippyoldversion, branch CYH.
//! What its reader refuses is refused here. It evaluates attributes as Python; here they are arithmetic of plain
//! numbers, and nothing else.

use roxmltree::{Document as Xml, Node};

use super::arithmetic::evaluate;
use super::fields::reason;
use super::node::shorten;
use super::report::{Ignored, Imported, Log};
use super::source::Source;
use super::write::{Document, inline};
use super::{check_length, check_model};
use crate::error::{InputError, nearest};
use crate::section::list;

/// Reads a model or a cluster: one file, `model.toml` or `cluster.toml`, by what the XML is.
///
/// # Errors
/// Not XML, or XML with a document type, whose entities can make a short text endless; an element or attribute that
/// the planner does not have; no components, partitions or vehicles; a name or id that is missing or taken; a
/// component or vehicle that does not exist; a partition without components; a component in two partitions;
/// dependencies that form a cycle; an attribute that is no number.
pub fn swift(file: &str, text: &str) -> Result<Imported, InputError> {
    check_length(file, text)?;
    let source = Source::new(file, text);
    let xml = Xml::parse(text).map_err(|error| {
        let place = error.pos();
        let at = source.byte_of_characters(place.row as usize, (place.col as usize).saturating_sub(1));
        let message = match error {
            roxmltree::Error::DtdDetected => "found a document type, allowed: none".to_owned(),
            other => {
                let text = other.to_string();
                format!("not XML: {}", text.rsplit_once(" at ").map_or(text.as_str(), |(message, _)| message))
            }
        };
        source.syntax(at, message)
    })?;
    let mut reader = Reader { source: &source, log: Log::default() };
    let root = xml.root_element();
    match root.tag_name().name() {
        "model" => {
            let model = reader.model(root)?;
            check_model(&source, &model)?;
            Ok(reader.log.finish("swift", vec![("model.toml", model)]))
        }
        "cluster" => {
            let cluster = reader.cluster(root)?;
            steptime_clusters::cluster_from_toml(&cluster)
                .map_err(|error| source.syntax(root.range().start, format!("as a cluster file: {error}")))?;
            Ok(reader.log.finish("swift", vec![("cluster.toml", cluster)]))
        }
        other => Err(source.syntax(
            root.range().start,
            format!("found the element <{}>, allowed: <model>, <cluster>", shorten(other)),
        )),
    }
}

/// The scenario that plays `model.toml` on `cluster.toml` beside it with the values of the planner's own example:
/// 32 samples, half of the capability, a fifth of overhead.
pub fn swift_scenario() -> String {
    let mut file =
        Document::with_comment("One batch of the SWIFT planner's example, placed by its greedy baseline.");
    file.section("model").entry("file", "model.toml");
    file.section("cluster")
        .entry("file", "cluster.toml")
        .entry("utilization", 0.5)
        .entry("memory_overhead", 1.2);
    file.section("workload").entry("micro_batch_size", 32).entry("gradient_accumulation_steps", 1);
    file.section("parallelism").entry("placement", "greedy");
    file.text()
}

type Element<'a> = Node<'a, 'a>;

struct Reader<'a, 't> {
    source: &'a Source<'t>,
    log: Log,
}

impl Reader<'_, '_> {
    fn model(&mut self, root: Element<'_>) -> Result<String, InputError> {
        self.attributes(root, &["name"])?;
        self.children(root, &["components", "partitions"])?;
        let mut names: Vec<&str> = Vec::new();
        let mut components = Vec::new();
        for component in self.items(self.section(root, "components")?, "component")? {
            self.attributes(component, &["name", "flops_per_sample", "capacity"])?;
            let name = self.name(component, "name", &names)?;
            names.push(name);
            components.push((
                name,
                self.amount(component, "flops_per_sample", "FLOP")?,
                self.amount(component, "capacity", "B")?,
                component,
            ));
        }
        let mut placed: Vec<&str> = Vec::new();
        let mut partitions = Document::default();
        let mut taken: Vec<&str> = Vec::new();
        for partition in self.items(self.section(root, "partitions")?, "partition")? {
            self.attributes(partition, &["name", "communication_volume"])?;
            let name = self.name(partition, "name", &taken)?;
            taken.push(name);
            let mut members = Vec::new();
            for reference in self.items(partition, "component_ref")? {
                self.attributes(reference, &["name"])?;
                let member = self.reference(reference, "name", &names)?;
                if placed.contains(&member) {
                    let message =
                        format!("the component \"{member}\" stands in two partitions, or twice in one");
                    return Err(self.source.syntax(reference.range().start, message));
                }
                placed.push(member);
                members.push(member);
            }
            if members.is_empty() {
                let message =
                    format!("the partition \"{name}\" is empty, allowed: at least one <component_ref>");
                return Err(self.source.syntax(partition.range().start, message));
            }
            let volume = self.amount(partition, "communication_volume", "B")?;
            partitions
                .table_of("partition")
                .entry("name", name)
                .entry("communication_volume", volume)
                .entry("components", members);
        }
        let mut file = Document::default();
        file.entry("name", root.attribute("name").filter(|name| !name.trim().is_empty()).unwrap_or("model"))
            .entry("family", "components")
            .entry("source", format!("imported from {}", self.source.file()));
        for (name, flops, capacity, element) in components {
            if placed.contains(&name) {
                file.table_of("component")
                    .entry("name", name)
                    .entry("flops_per_sample", flops)
                    .entry("capacity", capacity);
            } else {
                self.ignore(element, name, "no partition has it, so it is neither computed nor held");
            }
        }
        Ok(format!("{}\n{}", file.text(), partitions.text()))
    }

    fn cluster(&mut self, root: Element<'_>) -> Result<String, InputError> {
        self.attributes(root, &["name"])?;
        self.children(root, &["vehicles", "dependencies"])?;
        let mut ids: Vec<&str> = Vec::new();
        let mut vehicles = Document::default();
        for vehicle in self.items(self.section(root, "vehicles")?, "vehicle")? {
            self.attributes(vehicle, &["id", "memory", "comp_capability", "comm_capability"])?;
            let id = self.name(vehicle, "id", &ids)?;
            ids.push(id);
            vehicles
                .table_of("vehicle")
                .entry("id", id)
                .entry("memory", self.amount(vehicle, "memory", "B")?)
                .entry("compute", self.amount(vehicle, "comp_capability", "FLOP/s")?)
                .entry("communication", self.amount(vehicle, "comm_capability", "B/s")?);
        }
        let mut pairs = Vec::new();
        let mut dependencies = Vec::new();
        if let Some(section) = root.children().find(|child| child.has_tag_name("dependencies")) {
            for dependency in self.items(section, "dependency")? {
                self.attributes(dependency, &["source", "target"])?;
                let before = self.reference(dependency, "source", &ids)?;
                let after = self.reference(dependency, "target", &ids)?;
                pairs.push((before, after));
                dependencies.push(inline([("before", before.into()), ("after", after.into())]));
            }
            if let Some(cycle) = cycle(&ids, &pairs) {
                let message = format!("the dependencies form a cycle among {}", list(cycle));
                return Err(self.source.syntax(section.range().start, message));
            }
        }
        let mut file = Document::default();
        file.entry(
            "name",
            root.attribute("name").filter(|name| !name.trim().is_empty()).unwrap_or("cluster"),
        )
        .entry("source", format!("imported from {}", self.source.file()))
        .entry("dependencies", dependencies);
        Ok(format!("{}\n{}", file.text(), vehicles.text()))
    }

    /// The element `name`, which must be there once.
    fn section<'a>(&self, parent: Element<'a>, name: &str) -> Result<Element<'a>, InputError> {
        let mut found = parent.children().filter(|child| child.has_tag_name(name));
        let section = found.next().ok_or_else(|| InputError::Missing {
            origin: self.source.origin(parent.range().start),
            key: name.to_owned(),
            needed: format!("<{}> must have an element <{name}>", parent.tag_name().name()),
        })?;
        match found.next() {
            None => Ok(section),
            Some(second) => Err(self.source.syntax(second.range().start, format!("found a second <{name}>"))),
        }
    }

    /// The elements `name` of a section, which has no others.
    fn items<'a>(&self, section: Element<'a>, name: &str) -> Result<Vec<Element<'a>>, InputError> {
        self.children(section, &[name])?;
        Ok(section.children().filter(Node::is_element).collect())
    }

    fn children(&self, parent: Element<'_>, allowed: &[&str]) -> Result<(), InputError> {
        let stray = |child: &Element<'_>| {
            if child.is_text() {
                return child.text().is_some_and(|text| !text.trim().is_empty());
            }
            child.is_element() && !allowed.contains(&child.tag_name().name())
        };
        let Some(child) = parent.children().find(stray) else { return Ok(()) };
        let name = if child.is_text() { "text" } else { child.tag_name().name() };
        Err(InputError::UnknownKey {
            origin: self.source.origin(child.range().start),
            key: format!("{}.{}", parent.tag_name().name(), shorten(name)),
            allowed: list(allowed.iter().copied()),
            nearest: nearest(name, allowed.iter().copied()),
        })
    }

    fn attributes(&self, element: Element<'_>, allowed: &[&str]) -> Result<(), InputError> {
        let Some(stray) = element.attributes().find(|attribute| !allowed.contains(&attribute.name())) else {
            return Ok(());
        };
        Err(InputError::UnknownKey {
            origin: self.source.origin(stray.range().start),
            key: format!("{}.{}", element.tag_name().name(), stray.name()),
            allowed: list(allowed.iter().copied()),
            nearest: nearest(stray.name(), allowed.iter().copied()),
        })
    }

    /// A name that must be there and that no other element has.
    fn name<'a>(&self, element: Element<'a>, key: &str, taken: &[&str]) -> Result<&'a str, InputError> {
        let full = format!("{}.{key}", element.tag_name().name());
        let origin = self.source.origin(element.range().start);
        match element.attribute(key).filter(|name| !name.trim().is_empty()) {
            None => Err(InputError::Missing { origin, key: full, needed: "must be a name".to_owned() }),
            Some(name) if taken.contains(&name) => Err(InputError::Conflict {
                origin,
                key: full,
                message: format!("\"{}\" is taken, allowed: names that differ", shorten(name)),
            }),
            Some(name) => Ok(name),
        }
    }

    /// A name that another element must have.
    fn reference<'k>(
        &self,
        element: Element<'_>,
        key: &str,
        known: &[&'k str],
    ) -> Result<&'k str, InputError> {
        let name = self.name(element, key, &[])?;
        known.iter().copied().find(|other| *other == name).ok_or_else(|| InputError::Value {
            origin: self.source.origin(element.range().start),
            key: format!("{}.{key}", element.tag_name().name()),
            found: format!("\"{}\"", shorten(name)),
            allowed: list(known.iter().copied()),
            nearest: nearest(name, known.iter().copied()),
        })
    }

    /// An amount as a model or cluster file writes it; 0 if the attribute is missing, as the planner takes it.
    fn amount(&mut self, element: Element<'_>, key: &str, unit: &str) -> Result<String, InputError> {
        let full = format!("{}.{key}", element.tag_name().name());
        let Some(attribute) = element.attributes().find(|attribute| attribute.name() == key) else {
            let (line, _) = self.source.place(element.range().start);
            self.log.note(format!("line {line}: {full} is missing: 0, as the planner takes it"));
            return Ok(format!("0 {unit}"));
        };
        let refuse = |why: String| InputError::Value {
            origin: self.source.origin(attribute.range().start),
            key: full.clone(),
            found: format!("\"{}\" ({why})", shorten(attribute.value())),
            allowed: "a number such as 3e9, or + - * / ** of numbers".to_owned(),
            nearest: None,
        };
        let value = evaluate(attribute.value()).map_err(refuse)?;
        if value < 0.0 {
            return Err(refuse("below zero".to_owned()));
        }
        // The shortest text that reads back as the same number.
        Ok(format!("{:e} {unit}", value.abs()))
    }

    fn ignore(&mut self, element: Element<'_>, found: &str, why: &str) {
        self.log.ignored.push(Ignored {
            key: element.tag_name().name().to_owned(),
            found: format!("\"{}\"", shorten(found)),
            line: self.source.place(element.range().start).0,
            reason: format!("{}: {why}", reason::NO_EFFECT),
        });
    }
}

/// Vehicles that wait for each other, if any do: what is left when vehicles that wait for none are taken away again
/// and again (Kahn 1962).
fn cycle<'a>(ids: &[&'a str], pairs: &[(&str, &str)]) -> Option<Vec<&'a str>> {
    let mut left: Vec<&str> = ids.to_vec();
    loop {
        let waits = |id: &str| pairs.iter().any(|&(before, after)| after == id && left.contains(&before));
        let waiting: Vec<&str> = left.iter().copied().filter(|id| waits(id)).collect();
        if waiting.is_empty() {
            return None;
        }
        if waiting.len() == left.len() {
            return Some(waiting);
        }
        left = waiting;
    }
}
